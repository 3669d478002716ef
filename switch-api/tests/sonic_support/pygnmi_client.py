"""Speaks gNMI as pygnmi does: capabilities, get, set, and what must be refused."""

import sys

import grpc
from pygnmi.client import gNMIclient, gNMIException


def main(port: int, password: str) -> None:
    def client(secret: str = password) -> gNMIclient:
        return gNMIclient(
            target=("127.0.0.1", port), username="basalt", password=secret, insecure=True, gnmi_timeout=10
        )

    with client() as gnmi:
        capabilities = gnmi.capabilities()
        models = {model["name"] for model in capabilities["supported_models"]}
        assert "sonic-db" in models, capabilities
        assert "json_ietf" in capabilities["supported_encodings"], capabilities

        port_row = gnmi.get(path=["sonic-db:/CONFIG_DB/localhost/PORT/Ethernet0"], encoding="json_ietf")
        value = port_row["notification"][0]["update"][0]["val"]
        assert value["mtu"] == "1500", port_row

        interfaces = gnmi.get(
            path=["openconfig:/openconfig-interfaces:interfaces"], encoding="json_ietf", target="OC-YANG"
        )
        names = interfaces["notification"][0]["update"][0]["val"]
        assert "openconfig-interfaces:interfaces" in names, interfaces

        done = gnmi.set(
            delete=["sonic-db:/CONFIG_DB/localhost/VLAN/Vlan1000"],
            update=[
                ("sonic-db:/CONFIG_DB/localhost/PORT/Ethernet0", {"mtu": "9100"}),
                ("sonic-db:/CONFIG_DB/localhost/VLAN/Vlan77", {"vlanid": "77"}),
            ],
            encoding="json_ietf",
        )
        assert [answer["op"] for answer in done["response"]] == ["DELETE", "UPDATE", "UPDATE"], done

        refused(lambda: gnmi.get(path=["sonic-db:/CONFIG_DB/localhost/NOWHERE"], encoding="json_ietf"), "NOT_FOUND")
        refused(
            lambda: gnmi.get(path=["openconfig:/openconfig-interfaces:interfaces"], encoding="json_ietf"),
            "INVALID_ARGUMENT",
        )
        # The second half is wrong, so the first must not be in force.
        refused(
            lambda: gnmi.set(
                update=[
                    ("sonic-db:/CONFIG_DB/localhost/PORT/Ethernet4", {"mtu": "9100"}),
                    ("sonic-db:/STATE_DB/localhost/PORT_TABLE/Ethernet4", {"a": "b"}),
                ],
                encoding="json_ietf",
            ),
            "INVALID_ARGUMENT",
        )
        row = gnmi.get(path=["sonic-db:/CONFIG_DB/localhost/PORT/Ethernet4"], encoding="json_ietf")
        assert row["notification"][0]["update"][0]["val"]["mtu"] == "1500", row

    refused(lambda: client("wrong").__enter__().capabilities(), "UNAUTHENTICATED")


def refused(call, code: str) -> None:
    try:
        answer = call()
    except (gNMIException, grpc.RpcError) as error:
        status = getattr(error, "orig_exc", error)
        assert status.code().name == code, f"{status.code()}, wanted {code}"
        return
    raise AssertionError(f"{code} was expected, and not {answer}")


main(int(sys.argv[1]), sys.argv[2])
