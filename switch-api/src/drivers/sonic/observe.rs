//! What runs: neighbours, links and counters, from the rows in which SONiC's daemons report them.

use super::read::{fec, gigabits};
use super::tables::{Row, Tables};
use crate::names::InterfaceName;
use crate::switch::{Counters, LinkStatus, Neighbour, PortCounters};
use std::collections::BTreeMap;

/// IEEE 802.1AB, table 8-3: the port id is a MAC address.
const SUBTYPE_MAC: &str = "3";

/// `LLDP_ENTRY_TABLE` of APPL_DB.
pub(super) fn neighbours(appl: &Tables) -> Vec<Neighbour> {
    let data = appl.rows("LLDP_ENTRY_TABLE").filter(|(port, _)| port.starts_with("Ethernet"));
    data.map(|(port, row)| {
        let text = |field: &str| row.get(field).map_or("", |text| text.trim()).to_owned();
        let description = text("lldp_rem_port_desc");
        let named = |name: String, other: String| if name.is_empty() { other } else { name };
        let id = if text("lldp_rem_port_id_subtype") == SUBTYPE_MAC && !description.is_empty() {
            description.clone()
        } else {
            named(text("lldp_rem_port_id"), description.clone())
        };
        let device = named(text("lldp_rem_sys_name"), text("lldp_rem_chassis_id"));
        Neighbour { port: port.into(), device, device_port: id, description }
    })
    .collect()
}

/// `PORT_TABLE` of APPL_DB (as configured, and up or down), overlaid with that of STATE_DB (as negotiated).
pub(super) fn links(appl: &Tables, state: &Tables) -> BTreeMap<InterfaceName, LinkStatus> {
    let ports = appl.rows("PORT_TABLE").filter(|(port, _)| port.starts_with("Ethernet"));
    ports
        .map(|(port, row)| {
            let running = state.get("PORT_TABLE", port);
            let text = |field: &str| {
                let negotiated = running.and_then(|row| row.get(field)).filter(|text| *text != "N/A");
                negotiated.or_else(|| row.get(field)).map(String::as_str)
            };
            let link = LinkStatus {
                up: row.get("oper_status").is_some_and(|status| status == "up"),
                speed_gbps: text("speed").and_then(gigabits),
                mtu_bytes: row.get("mtu").and_then(|mtu| mtu.parse().ok()),
                fec: text("fec").map(fec),
            };
            (port.into(), link)
        })
        .collect()
}

/// Tables of COUNTERS_DB that say which counters are whose.
pub(super) const PORT_NAMES: &str = "COUNTERS_PORT_NAME_MAP";
pub(super) const QUEUE_NAMES: &str = "COUNTERS_QUEUE_NAME_MAP";

/// `port_names` and `queue_names` from name to object id, `rows` by object id.
pub(super) fn counters(port_names: &Row, queue_names: &Row, rows: &Tables) -> Counters {
    let empty = Row::new();
    let row = |oid: &String| rows.get("COUNTERS", oid).unwrap_or(&empty);
    let ports = port_names.iter().filter(|(name, _)| name.starts_with("Ethernet"));
    let mut all: BTreeMap<InterfaceName, PortCounters> =
        ports.map(|(name, oid)| (name.as_str().into(), port(row(oid)))).collect();
    for (name, oid) in queue_names {
        let Some((name, queue)) = name.rsplit_once(':') else { continue };
        let (Some(port), Ok(queue)) = (all.get_mut(name), queue.parse::<u8>()) else { continue };
        let row = row(oid);
        let counters = port.queues.entry(queue).or_default();
        counters.tx_packets = number(row, "SAI_QUEUE_STAT_PACKETS");
        counters.dropped_packets = number(row, "SAI_QUEUE_STAT_DROPPED_PACKETS");
        counters.ecn_marked_packets = number(row, "SAI_QUEUE_STAT_WRED_ECN_MARKED_PACKETS");
        counters.watchdog_storms = number(row, "PFC_WD_QUEUE_STATS_DEADLOCK_DETECTED");
    }
    Counters { ports: all }
}

fn number(row: &Row, field: &str) -> u64 {
    row.get(field).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn port(row: &Row) -> PortCounters {
    let stat = |name: &str| number(row, &format!("SAI_PORT_STAT_{name}"));
    let packets = |way: &str| {
        stat(&format!("IF_{way}_UCAST_PKTS")).saturating_add(stat(&format!("IF_{way}_NON_UCAST_PKTS")))
    };
    let mut counters = PortCounters {
        rx_bytes: stat("IF_IN_OCTETS"),
        tx_bytes: stat("IF_OUT_OCTETS"),
        rx_packets: packets("IN"),
        tx_packets: packets("OUT"),
        rx_errors: stat("IF_IN_ERRORS"),
        tx_errors: stat("IF_OUT_ERRORS"),
        rx_discards: stat("IF_IN_DISCARDS"),
        tx_discards: stat("IF_OUT_DISCARDS"),
        fcs_errors: stat("ETHER_STATS_CRC_ALIGN_ERRORS"),
        fec_corrected: stat("IF_IN_FEC_CORRECTABLE_FRAMES"),
        fec_uncorrectable: stat("IF_IN_FEC_NOT_CORRECTABLE_FRAMES"),
        queues: BTreeMap::new(),
    };
    for priority in 0..8u8 {
        let (rx, tx) = (stat(&format!("PFC_{priority}_RX_PKTS")), stat(&format!("PFC_{priority}_TX_PKTS")));
        if (rx, tx) != (0, 0) {
            let queue = counters.queues.entry(priority).or_default();
            (queue.pfc_rx_frames, queue.pfc_tx_frames) = (rx, tx);
        }
    }
    counters
}
