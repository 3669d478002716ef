//! Intents for the HTTP drivers' tests: one leaf of a pair with everything that the model has, by vendor.
#![allow(dead_code, unreachable_pub)]

use basalt_switch_api::Switch;
use basalt_switch_api::desired::{Desired, desired};
use basalt_switch_api::intent::Fabric;
use basalt_switch_api::plan::Plan;

/// `ports`: six ports in the vendor's spelling; the last is the routed uplink.
pub fn fabric(driver: &str, ports: [&str; 6], extra: &str) -> Fabric {
    let [a, b, c, d, e, f] = ports;
    let text = format!(
        r#"
version: 1
name: rack-a
roce: {{bandwidth_percent: 60{extra}}}
vlans:
  - {{name: storage-a, id: 100}}
  - {{name: storage-b, id: 200}}
switches:
  - name: leaf-1
    role: leaf
    driver: {driver}
    management: {{address: 127.0.0.1, user: basalt, tls: {{plaintext: true}}}}
  - name: leaf-2
    role: leaf
    driver: {driver}
    management: {{address: 127.0.0.1, user: basalt, tls: {{plaintext: true}}}}
  - name: spine-1
    role: spine
    driver: {driver}
    management: {{address: 127.0.0.1, user: basalt, tls: {{plaintext: true}}}}
pairs:
  - name: leaves-a1
    switches: [leaf-1, leaf-2]
    domain_id: 1
    peer_lag: peer
    peer_addresses: [10.254.0.0/31, 10.254.0.1/31]
    system_mac: "44:38:39:be:ef:aa"
nodes: [{{name: node-1}}, {{name: node-2}}, {{name: node-3}}, {{name: node-4}}]
lags:
  - {{name: peer, id: 1}}
  - {{name: node-3, id: 13, fast: true, vlans: {{untagged: storage-a, tagged: [storage-b]}}}}
links:
  - {{ends: [node-1/p0, leaf-1/{a}], speed_gbps: 100, vlans: {{untagged: storage-a}}}}
  - {{ends: [node-2/p0, leaf-1/{b}], speed_gbps: 200, vlans: {{untagged: storage-a, tagged: [storage-b]}}}}
  - {{ends: [node-3/p0, leaf-1/{c}], speed_gbps: 100, lag: node-3}}
  - {{ends: [node-3/p1, leaf-2/{c}], speed_gbps: 100, lag: node-3}}
  - {{ends: [leaf-1/{d}, leaf-2/{d}], speed_gbps: 100, lag: peer}}
  - {{ends: [node-4/p0, leaf-1/{e}], speed_gbps: 25, fec: "off"}}
  - ends: [leaf-1/{f}, spine-1/{a}]
    speed_gbps: 400
    routed:
      - {{device: leaf-1, address: 10.0.0.0/31}}
      - {{device: spine-1, address: 10.0.0.1/31}}
"#
    );
    Fabric::from_yaml(&text).unwrap_or_else(|e| panic!("{e}"))
}

/// What the switch would be asked for now.
pub async fn planned(switch: &dyn Switch, wanted: &Desired) -> Plan {
    switch.plan(&switch.read().await.unwrap().state, wanted)
}

pub fn leaf(fabric: &Fabric) -> Desired {
    desired(fabric, fabric.switch(&"leaf-1".into()).unwrap())
}
