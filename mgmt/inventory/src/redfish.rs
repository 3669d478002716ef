//! A BMC's view as a record.

use crate::health::Health;
use crate::record::{
    Bmc, Contents, Dimm, Drive, Fan, Firmware, Identity, Location, MAX_PARTS, Nic, Port, PowerSupply,
    Processor, Record, Source, Temperature, Unread, clean_mac, clean_serial,
};
use basalt_redfish::model::{
    self, Chassis, EthernetInterface, Inventory, NetworkAdapter, NetworkPort, PowerState, Protocol, Status,
};

/// `url`: where the BMC was asked.
pub fn record(found: &Inventory, url: &str, taken_s: u64) -> Record {
    let system = &found.system;
    let manager = found.managers.first();
    let mut record = Record {
        taken_s,
        sources: vec![Source::Bmc],
        identity: identity(system),
        bmc: Some(Bmc {
            url: url.to_owned(),
            model: manager.and_then(|m| m.model.clone()).unwrap_or_default(),
            firmware: manager.and_then(|m| m.firmware_version.clone()).unwrap_or_default(),
            redfish: found.service.redfish_version.clone().unwrap_or_default(),
        }),
        bios_version: text(&system.bios_version),
        powered_on: system
            .power_state
            .as_ref()
            .map(|s| matches!(s, PowerState::On | PowerState::PoweringOff)),
        reported: health(&system.status),
        ..Record::default()
    };
    processors(found, &mut record);
    memory(found, &mut record);
    record.drives = present(found.drives(), |d| &d.status).map(drive).collect();
    ports(found, &mut record);
    power_and_air(found, &mut record);
    for item in found.firmware.iter().take(MAX_PARTS) {
        record.firmware.push(Firmware {
            id: text(&item.id),
            name: text(&item.name),
            version: text(&item.version),
            updateable: item.updateable,
        });
    }
    record.location = location(&found.chassis);
    record.unread = found.problems.iter().map(unread).collect();
    record
}

/// Who a server is, by its system resource alone.
pub fn identity(system: &model::System) -> Identity {
    Identity {
        manufacturer: text(&system.manufacturer),
        model: text(&system.model),
        sku: clean_serial(&text(&system.sku)),
        serial: clean_serial(&text(&system.serial_number)),
        uuid: text(&system.uuid).to_lowercase(),
        asset_tag: clean_serial(&text(&system.asset_tag)),
        host_name: text(&system.host_name),
    }
}

fn text(value: &Option<String>) -> String {
    value.as_deref().unwrap_or_default().trim().to_owned()
}

fn health(status: &Status) -> Option<Health> {
    status.worst().map(|h| match h {
        model::Health::Ok => Health::Ok,
        model::Health::Critical => Health::Critical,
        // A word that is not known is no good news.
        model::Health::Warning | model::Health::Other(_) => Health::Warning,
    })
}

/// Empty slots are no parts.
fn present<'a, T: 'a>(
    all: impl IntoIterator<Item = &'a T>,
    status: impl Fn(&T) -> &Status,
) -> impl Iterator<Item = &'a T> {
    all.into_iter().filter(move |part| !status(part).is_absent()).take(MAX_PARTS)
}

fn number(value: Option<u64>) -> u32 {
    value.and_then(|v| u32::try_from(v).ok()).unwrap_or(0)
}

fn whole(value: f64) -> u64 {
    if value.is_finite() && value > 0.0 { value.round() as u64 } else { 0 }
}

fn processors(found: &Inventory, record: &mut Record) {
    let cpu = |p: &&model::Processor| p.kind.as_deref().is_none_or(|k| k.eq_ignore_ascii_case("CPU"));
    for part in present(&found.processors, |p| &p.status).filter(cpu) {
        record.processors.push(Processor {
            socket: text(if part.socket.is_some() { &part.socket } else { &part.id }),
            manufacturer: text(&part.manufacturer),
            model: text(&part.model),
            cores: number(part.cores),
            threads: number(part.threads),
            health: health(&part.status),
        });
    }
    // Some BMCs give only the sum.
    if record.processors.is_empty() {
        let count = number(found.system.processor_count).min(64);
        let cores = number(found.system.core_count).checked_div(count).unwrap_or(0);
        record.processors = (0..count)
            .map(|n| Processor {
                socket: n.to_string(),
                model: text(&found.system.processor_model),
                cores,
                ..Processor::default()
            })
            .collect();
    }
}

fn memory(found: &Inventory, record: &mut Record) {
    for part in present(&found.memory, |m| &m.status).filter(|m| m.capacity_mib.unwrap_or(0) > 0) {
        record.dimms.push(Dimm {
            slot: text(&part.slot),
            bytes: part.capacity_mib.unwrap_or(0).saturating_mul(1 << 20),
            speed_mts: number(part.speed_mhz),
            part: text(&part.part_number),
            serial: clean_serial(&text(&part.serial_number)),
            health: health(&part.status),
        });
    }
    let sum = record.dimms.iter().fold(0u64, |sum, d| sum.saturating_add(d.bytes));
    let said = whole(found.system.memory_gib.unwrap_or(0.0)).saturating_mul(1 << 30);
    record.memory_bytes = if sum > 0 { sum } else { said };
}

fn drive(part: &model::Drive) -> Drive {
    let place = &part.location;
    let slot = place.label.clone().or_else(|| part.name.clone()).or_else(|| part.id.clone());
    let eui = part
        .identifiers
        .iter()
        .filter(|i| i.format.as_deref().is_none_or(|f| ["EUI", "NGUID", "NAA"].contains(&f)))
        .filter_map(|i| i.name.clone())
        .collect();
    Drive {
        serial: clean_serial(&text(&part.serial_number)),
        model: text(&part.model),
        manufacturer: text(&part.manufacturer),
        firmware: text(&part.firmware_version),
        bytes: part.capacity_bytes.unwrap_or(0),
        protocol: match &part.protocol {
            Some(Protocol::Pcie) => "NVMe".into(),
            other => other.as_ref().map_or(String::new(), |p| p.as_str().to_owned()),
        },
        media: text(&part.media),
        eui,
        slot: slot.unwrap_or_default(),
        used_percent: part
            .life_left_percent
            .filter(|l| (0.0..=100.0).contains(l))
            .map(|left| (100.0 - left).round() as u32),
        failure_predicted: part.failure_predicted,
        contents: Contents::Unknown,
        health: health(&part.status),
        ..Drive::default()
    }
}

/// Adapters with their ports, and the ports that only the system shows.
fn ports(found: &Inventory, record: &mut Record) {
    for adapter in present(&found.network_adapters, |a| &a.status) {
        record.nics.push(nic(adapter));
    }
    let mut rest = Vec::new();
    for interface in present(&found.ethernet_interfaces, |e| &e.status) {
        let mac = interface.permanent_mac_address.as_ref().or(interface.mac_address.as_ref());
        let Some(mac) = mac.and_then(|m| clean_mac(m)) else { continue };
        let known = record.nics.iter_mut().flat_map(|n| &mut n.ports).find(|p| p.mac == mac);
        match known {
            Some(port) => {
                port.link_up = port.link_up.or(interface.link.as_ref().map(|l| l.is_up()));
                port.speed_mbps = port.speed_mbps.or(interface.speed_mbps);
            }
            None if rest.iter().all(|p: &Port| p.mac != mac) => rest.push(port_of_interface(interface, mac)),
            None => {}
        }
    }
    if !rest.is_empty() {
        record.nics.push(Nic { name: "ports".into(), ports: rest, ..Nic::default() });
    }
}

fn port_of_interface(interface: &EthernetInterface, mac: String) -> Port {
    Port {
        mac,
        name: text(&interface.id),
        link_up: interface.link.as_ref().map(|l| l.is_up()),
        speed_mbps: interface.speed_mbps,
        mtu: interface.mtu_bytes.and_then(|m| u32::try_from(m).ok()),
        ..Port::default()
    }
}

fn nic(adapter: &NetworkAdapter) -> Nic {
    Nic {
        name: text(if adapter.id.is_some() { &adapter.id } else { &adapter.name }),
        manufacturer: text(&adapter.manufacturer),
        model: text(&adapter.model),
        serial: clean_serial(&text(&adapter.serial_number)),
        firmware: text(&adapter.firmware_version),
        ports: adapter.ports.iter().take(MAX_PARTS).map(port).collect(),
        health: health(&adapter.status),
        ..Nic::default()
    }
}

fn port(port: &NetworkPort) -> Port {
    let neighbour = match (text(&port.neighbour_chassis), text(&port.neighbour_port)) {
        (chassis, _) if chassis.is_empty() => String::new(),
        (chassis, port) => format!("{chassis}/{port}"),
    };
    Port {
        mac: port.mac_addresses.iter().find_map(|m| clean_mac(m)).unwrap_or_default(),
        name: text(if port.id.is_some() { &port.id } else { &port.number }),
        link_up: port.link.as_ref().map(|l| l.is_up()),
        speed_mbps: port.speed_bits_per_s().map(|s| whole(s / 1e6)),
        neighbour,
        ..Port::default()
    }
}

fn power_and_air(found: &Inventory, record: &mut Record) {
    for part in present(&found.power_supplies, |p| &p.status) {
        record.power_supplies.push(PowerSupply {
            name: text(if part.name.is_some() { &part.name } else { &part.id }),
            model: text(&part.model),
            serial: clean_serial(&text(&part.serial_number)),
            firmware: text(&part.firmware_version),
            watts: u32::try_from(whole(part.capacity_w.unwrap_or(0.0))).unwrap_or(u32::MAX),
            input_volts: part.input_v.map(|v| u32::try_from(whole(v)).unwrap_or(u32::MAX)),
            health: health(&part.status),
        });
    }
    for part in present(&found.fans, |f| &f.status) {
        let rpm = part.unit.as_deref().is_none_or(|u| u.eq_ignore_ascii_case("RPM"));
        record.fans.push(Fan {
            name: text(if part.name.is_some() { &part.name } else { &part.id }),
            rpm: part.reading.filter(|_| rpm).map(|r| u32::try_from(whole(r)).unwrap_or(u32::MAX)),
            health: health(&part.status),
        });
    }
    let celsius = |s: &&model::Sensor| {
        s.kind.as_deref() == Some("Temperature") || s.unit.as_deref().is_some_and(|u| u.starts_with("Cel"))
    };
    for part in present(&found.sensors, |s| &s.status).filter(celsius) {
        if let Some(reading) = part.reading {
            record.temperatures.push(Temperature {
                name: text(if part.name.is_some() { &part.name } else { &part.id }),
                celsius: reading,
                critical_celsius: part.limits.upper_critical,
                health: health(&part.status),
            });
        }
    }
}

fn location(chassis: &[Chassis]) -> Location {
    let placed = chassis.iter().map(|c| &c.location).find(|l| l.rack.is_some()).cloned().unwrap_or_default();
    Location {
        room: text(&placed.room),
        row: text(&placed.row),
        rack: text(&placed.rack),
        unit: placed.rack_offset.and_then(|u| u32::try_from(u).ok()),
        power_feeds: Vec::new(),
    }
}

/// By the words of a record.
fn unread(problem: &model::Problem) -> Unread {
    let said = problem.part.to_lowercase();
    let part = match said.as_str() {
        "storage" | "drives" | "volumes" => "drives",
        "ethernet interfaces" | "network adapters" | "network ports" => "ports",
        "power" | "power supplies" => "power supplies",
        "thermal" | "fans" => "fans",
        other => other,
    };
    Unread { part: part.to_owned(), why: problem.reason.chars().take(256).collect() }
}
