//! Largest frames end to end: which ways are tried, what is measured, which port is named.

use async_trait::async_trait;
use basalt_switch_api::intent::{Fabric, InterfaceAddress};
use basalt_switch_api::verify::mtu::{Measured, Probe, Prober, Reach, check, judge, measure, probes};
use basalt_switch_api::verify::{Finding, FindingKind};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Nodes on two leaves that are cabled to each other, one subnet.
fn hall(nodes: usize) -> Fabric {
    let mut text = String::from("version: 1\nname: hall\nvlans: [{name: storage, id: 100}]\nswitches:\n");
    for s in 0..2 {
        text.push_str(&format!(
            "  - {{name: leaf-{s}, role: leaf, driver: ovs, management: {{address: 'unix:/x'}}}}\n"
        ));
    }
    text.push_str("nodes:\n");
    for n in 0..nodes {
        let address = format!("{{interface: p0, address: 10.0.0.{}/24}}", n + 1);
        text.push_str(&format!("  - {{name: node-{n}, addresses: [{address}]}}\n"));
    }
    text.push_str("links:\n  - {ends: [leaf-0/up, leaf-1/up]}\n");
    for n in 0..nodes {
        text.push_str(&format!(
            "  - {{ends: [node-{n}/p0, leaf-{}/Ethernet{n}], vlans: {{untagged: storage}}}}\n",
            n % 2
        ));
    }
    Fabric::from_yaml(&text).unwrap()
}

/// What each node's port carries, and what the link between the leaves does.
#[derive(Default)]
struct Path {
    ports: BTreeMap<String, u32>,
    between: Option<u32>,
    packets: AtomicUsize,
}

#[async_trait]
impl Prober for Path {
    async fn probe(&self, probe: &Probe, ip_bytes: u32) -> Reach {
        self.packets.fetch_add(1, Ordering::Relaxed);
        let of = |node: &str| self.ports.get(node).copied().unwrap_or(9000);
        let leaf = |node: &str| node.trim_start_matches("node-").parse::<usize>().unwrap() % 2;
        let (a, b) = (probe.from.node.as_str(), probe.to.node.as_str());
        let across = if leaf(a) == leaf(b) { 9000 } else { self.between.unwrap_or(9000) };
        if ip_bytes <= of(a).min(of(b)).min(across) { Reach::Passed } else { Reach::Lost }
    }
}

async fn found(nodes: usize, path: Path) -> Vec<Finding> {
    check(&hall(nodes), Arc::new(path), 8).await
}

#[test]
fn every_address_is_tried_and_the_number_stays_small() {
    for nodes in [2, 3, 4, 7, 40] {
        let ways = probes(&hall(nodes));
        assert!(ways.len() <= 2 * nodes, "{nodes}");
        for n in 0..nodes {
            let name = format!("node-{n}");
            assert!(
                ways.iter().any(|p| p.from.node.as_str() == name)
                    && ways.iter().any(|p| p.to.node.as_str() == name)
            );
        }
        let mut unique = ways.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ways.len(), "{nodes}: no way twice");
    }
    assert!(probes(&hall(1)).is_empty());
}

#[test]
fn subnets_are_kept_apart() {
    let mut fabric = hall(4);
    for (n, address) in ["2001:db8::1/64", "2001:db8::2/64", "10.0.1.3/24", "10.0.1.4/24"].iter().enumerate()
    {
        fabric.nodes[n].addresses =
            vec![InterfaceAddress { interface: "p0".into(), address: (*address).into() }];
    }
    let ways = probes(&fabric);
    assert_eq!(ways.len(), 4);
    assert!(ways.iter().all(|p| p.from.address.is_ipv4() == p.to.address.is_ipv4()));
}

#[tokio::test]
async fn a_good_fabric_is_proved_with_one_packet_a_way() {
    let path = Arc::new(Path::default());
    let ways = probes(&hall(8));
    let measured = measure(path.clone(), ways.clone(), 9000, 4).await;
    assert!(measured.iter().all(|(_, m)| *m == Measured::Whole));
    assert_eq!(path.packets.load(Ordering::Relaxed), ways.len());
}

#[tokio::test]
async fn the_port_of_the_node_that_nobody_reaches_is_named() {
    let path = Path { ports: BTreeMap::from([("node-3".into(), 1500)]), ..Path::default() };
    let findings = found(8, path).await;
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let wanted = "port Ethernet3 on leaf-1: packets of 9000 bytes do not pass, 1500 do, to and from node-3/p0; \
                  set the MTU here and on the node";
    assert_eq!(text, [wanted]);
    assert_eq!(findings[0].kind, FindingKind::PathMtu);
    // Not the usual value, and two at once.
    let path =
        Path { ports: BTreeMap::from([("node-3".into(), 4200), ("node-4".into(), 100)]), ..Path::default() };
    let text: Vec<String> = found(8, path).await.iter().map(ToString::to_string).collect();
    assert!(text.iter().any(|t| t.contains("Ethernet3 on leaf-1") && t.contains("4200 do")), "{text:?}");
    assert!(text.iter().any(|t| t.contains("Ethernet4 on leaf-0: no packet of any size")), "{text:?}");
    assert_eq!(text.len(), 2, "{text:?}");
}

#[tokio::test]
async fn between_two_switches_no_node_is_blamed() {
    let path = Path { between: Some(1500), ..Path::default() };
    // With six nodes the ring crosses the leaves, and so does the way across: no address is proved well.
    for nodes in [6, 8] {
        let text: Vec<String> = found(nodes, Path { between: path.between, ..Path::default() })
            .await
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(!text.is_empty());
        assert!(
            text.iter().all(|t| t.contains("look at leaf-") && t.contains("the switches between")),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn what_could_not_be_tried_is_no_verdict() {
    struct Mute;
    #[async_trait]
    impl Prober for Mute {
        async fn probe(&self, probe: &Probe, _: u32) -> Reach {
            match probe.from.node.as_str() {
                "node-0" => Reach::NotTried { reason: "no route to host".into() },
                _ => Reach::Passed,
            }
        }
    }
    let fabric = hall(4);
    let measured = measure(Arc::new(Mute), probes(&fabric), 9000, 4).await;
    let text: Vec<String> = judge(&fabric, &measured, 9000).iter().map(ToString::to_string).collect();
    assert_eq!(text, ["node-0: no packets could be sent from here: no route to host"]);
}
