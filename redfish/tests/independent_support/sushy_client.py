"""Drives a server as OpenStack's sushy does."""

import sys

import sushy
from sushy import auth

url, user, password = sys.argv[1:4]
session = auth.SessionOrBasicAuth(username=user, password=password)
root = sushy.Sushy(url, auth=session, verify=False)

system = root.get_system_collection().get_members()[0]
assert system.serial_number == 'CN00000001', system.serial_number
assert system.power_state == sushy.PowerState.OFF, system.power_state
assert len(system.processors.get_members()) == 2
assert system.memory_summary.size_gib == 256
assert len(system.ethernet_interfaces.get_members()) == 2
storage = system.storage.get_members()[0]
assert len(storage.drives) == 4
assert storage.drives[0].capacity_bytes == 3840755982336
assert len(storage.controllers.get_members()) == 1

allowed = system.get_allowed_system_boot_source_values()
assert sushy.BootSource.PXE in allowed, allowed
system.set_system_boot_options(
    target=sushy.BootSource.PXE, enabled=sushy.BootSourceOverrideEnabled.ONCE, mode=sushy.BootSourceOverrideMode.UEFI)
system.refresh(force=True)
assert system.boot.target == sushy.BootSource.PXE
system.reset_system(sushy.ResetType.ON)
system.refresh(force=True)
assert system.power_state == sushy.PowerState.ON
assert system.boot.enabled == sushy.BootSourceOverrideEnabled.DISABLED

key = next(key for key in ('SriovEnabled', 'SriovGlobalEnable') if key in system.bios.attributes)
value = True if key == 'SriovEnabled' else 'Enabled'
system.bios.set_attribute(key, value)
system.bios.refresh(force=True)
assert system.bios.pending_attributes[key] == value, system.bios.pending_attributes
system.reset_system(sushy.ResetType.FORCE_RESTART)
system.bios.refresh(force=True)
assert system.bios.attributes[key] == value

assert system.secure_boot.enabled is False
system.secure_boot.set_enabled(True)
names = {database.database_id for database in system.secure_boot.databases.get_members()}
assert len(names) == 4, names

manager = root.get_manager_collection().get_members()[0]
try:
    media = system.virtual_media.get_members()[0]
except sushy.exceptions.MissingAttributeError:
    media = manager.virtual_media.get_members()[0]
media.insert_media('http://192.0.2.1/node.iso')
media.refresh(force=True)
assert media.inserted, media.json
media.eject_media()
media.refresh(force=True)
assert not media.inserted

chassis = root.get_chassis_collection().get_members()[0]
assert chassis.network_adapters.get_members()[0].serial_number == 'CN00000001-N1'
update = root.get_update_service()
assert len(update.firmware_inventory.get_members()) == 2
monitor = update.simple_update('http://192.0.2.1/bios-3.bin')
assert monitor is not None
session.close()
