"""Drives a server with the DMTF's own Python library and its utilities."""

import sys
import time

import redfish

url, user, password = sys.argv[1:4]
client = redfish.redfish_client(base_url=url, username=user, password=password, timeout=10, max_retry=1)
client.login(auth='session')
try:
    assert client.root.RedfishVersion == '1.17.0'
    systems = client.get('/redfish/v1/Systems')
    assert systems.status == 200 and systems.dict['Members@odata.count'] == 1
    path = systems.dict['Members'][0]['@odata.id']
    system = client.get(path)
    assert system.dict['SerialNumber'] == 'CN00000001'
    tag = system.getheader('ETag')
    change = {'Boot': {'BootSourceOverrideTarget': 'UefiHttp', 'BootSourceOverrideEnabled': 'Once',
                       'HttpBootUri': 'http://192.0.2.1/boot.efi'}}
    wrong = client.patch(path, body=change, headers={'If-Match': '"wrong"'})
    assert wrong.status == 412, wrong.status
    right = client.patch(path, body=change, headers={'If-Match': tag})
    assert right.status == 200, right.text
    refused = client.patch(path, body={'SerialNumber': 'X'})
    assert refused.status == 400 and 'PropertyNotWritable' in refused.text, refused.text
    unknown = client.patch(path, body={'Nonsense': 1})
    assert unknown.status == 400 and 'PropertyUnknown' in unknown.text, unknown.text
    target = system.dict['Actions']['#ComputerSystem.Reset']['target']
    refused = client.post(target, body={'ResetType': 'Sideways'})
    assert refused.status == 400, refused.status
    assert client.post(target, body={'ResetType': 'On'}).status == 204
    assert client.get(path).dict['PowerState'] == 'On'
    assert client.get('/redfish/v1/Nowhere').status == 404
    expanded = client.get('/redfish/v1/Systems?$expand=.')
    assert expanded.dict['Members'][0]['SerialNumber'] == 'CN00000001'
    page = client.get(system.dict['Memory']['@odata.id'], args={'$top': 1, '$skip': 1})
    assert len(page.dict['Members']) == 1 and page.dict['Members@odata.count'] == 4
    update = client.post('/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate',
                         body={'ImageURI': 'http://192.0.2.1/bios-3.bin'})
    assert update.is_processing, update.status
    monitor = update.monitor(client)
    for _ in range(100):
        if not monitor.is_processing:
            break
        time.sleep(0.01)
        monitor = monitor.monitor(client)
    assert not monitor.is_processing and monitor.status == 200, monitor.status
finally:
    client.logout()
