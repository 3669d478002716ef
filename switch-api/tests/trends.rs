//! What counters say over time.

use basalt_switch_api::desired::{Desired, desired};
use basalt_switch_api::intent::Fabric;
use basalt_switch_api::verify::{Finding, FindingKind, Severity, trend};
use basalt_switch_api::{Counters, DeviceName, PortCounters, QueueCounters};
use std::time::Duration;

fn leaf() -> Desired {
    let fabric = Fabric::from_yaml(include_str!("rack.yaml")).unwrap();
    desired(&fabric, fabric.switch(&DeviceName::from("leaf-1")).unwrap())
}

/// Counters of one port of the intent, with one queue.
fn port(port: PortCounters, queue: u8, counters: QueueCounters) -> Counters {
    let queues = [(queue, counters)].into();
    Counters { ports: [("Ethernet0".into(), PortCounters { queues, ..port })].into() }
}

fn in_ten_seconds(counted: &Counters) -> Vec<Finding> {
    trend(&leaf(), counted, Duration::from_secs(10))
}

#[test]
fn a_quiet_fabric_has_no_findings() {
    let busy =
        PortCounters { rx_bytes: 1 << 40, tx_packets: 1 << 30, fec_corrected: 99_999, ..Default::default() };
    let class = QueueCounters {
        ecn_marked_packets: 5_000,
        pfc_rx_frames: 900,
        tx_packets: 1 << 29,
        ..Default::default()
    };
    assert!(
        in_ten_seconds(&port(busy, 3, class)).is_empty(),
        "marks, some pauses and some corrections are normal"
    );
}

#[test]
fn each_kind_of_trouble_is_named_with_its_number() {
    let none = QueueCounters::default;
    let link = PortCounters::default;
    let cases = [
        (
            port(PortCounters { rx_errors: 3, ..link() }, 3, none()),
            FindingKind::Errors,
            "3 receive errors in 10 s",
        ),
        (
            port(PortCounters { fcs_errors: 7, ..link() }, 3, none()),
            FindingKind::Errors,
            "7 frames with a wrong checksum",
        ),
        (
            port(PortCounters { fec_uncorrectable: 1, ..link() }, 3, none()),
            FindingKind::Errors,
            "1 codewords beyond correction",
        ),
        (
            port(PortCounters { fec_corrected: 200_000, ..link() }, 3, none()),
            FindingKind::Errors,
            "200000 codewords corrected in 10 s; the link will fail",
        ),
        (
            port(link(), 3, QueueCounters { watchdog_storms: 2, ..none() }),
            FindingKind::PfcStorm,
            "queue 3: the PFC watchdog stopped 2 pause storms",
        ),
        (
            port(link(), 3, QueueCounters { dropped_packets: 4, ..none() }),
            FindingKind::Congestion,
            "queue 3: 4 packets of a lossless class dropped",
        ),
        (
            port(link(), 3, QueueCounters { pfc_tx_frames: 20_000, ecn_marked_packets: 12, ..none() }),
            FindingKind::Congestion,
            "queue 3: 20000 pauses in 10 s and 12 packets marked",
        ),
    ];
    for (counted, kind, words) in cases {
        let found = in_ten_seconds(&counted);
        assert_eq!(found.len(), 1, "{words}: {found:?}");
        assert_eq!(found[0].kind, kind);
        assert!(found[0].to_string().contains(&format!("port Ethernet0 on leaf-1: {words}")), "{}", found[0]);
    }
}

#[test]
fn a_lossy_class_may_drop() {
    let dropped = QueueCounters { dropped_packets: 1_000, ..QueueCounters::default() };
    assert!(in_ten_seconds(&port(PortCounters::default(), 0, dropped)).is_empty());
}

#[test]
fn storms_are_errors_and_pauses_a_warning() {
    let class = QueueCounters { watchdog_storms: 1, pfc_rx_frames: 50_000, ..QueueCounters::default() };
    let mut found: Vec<Severity> =
        in_ten_seconds(&port(PortCounters::default(), 3, class)).iter().map(|f| f.severity).collect();
    found.sort();
    assert_eq!(found, [Severity::Warning, Severity::Error]);
}

#[test]
fn only_what_was_counted_between_the_readings_counts() {
    let reading = |errors, storms| {
        let class = QueueCounters { watchdog_storms: storms, ..QueueCounters::default() };
        port(PortCounters { rx_errors: errors, ..PortCounters::default() }, 3, class)
    };
    let old = reading(1_000, 10);
    assert!(in_ten_seconds(&old.since(&old)).is_empty(), "what happened last year is over");
    assert!(in_ten_seconds(&reading(1_002, 10).since(&old))[0].to_string().contains("2 receive errors"));
    // Cleared, or the switch restarted.
    assert!(in_ten_seconds(&reading(5, 0).since(&old))[0].to_string().contains("5 receive errors"));
    assert!(reading(7, 7).since(&Counters::default()).ports.is_empty(), "one reading is no trend");
}
