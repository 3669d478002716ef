//! From intent to plan: what a switch shall be, what differs, what is left alone.

use basalt_switch_api::desired::{Desired, desired};
use basalt_switch_api::fake::factory_ports;
use basalt_switch_api::intent::{DriverKind, Fabric};
use basalt_switch_api::plan::{Change, plan};
use basalt_switch_api::state::{Key, Kind, Mark, Object, Owner, Port, SwitchState, Vlan, VlanMember};
use basalt_switch_api::{Capabilities, DeviceName, Transaction, VlanId};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn rack() -> Fabric {
    Fabric::from_yaml(include_str!("rack.yaml")).unwrap()
}

fn wanted(name: &str) -> Desired {
    let fabric = rack();
    let switch = fabric.switch(&DeviceName::from(name)).unwrap();
    desired(&fabric, switch)
}

fn able() -> Capabilities {
    Capabilities { transaction: Transaction::Atomic, unsupported: BTreeSet::new() }
}

fn port(state: &SwitchState, name: &str) -> Port {
    state.port(&name.into()).unwrap().clone()
}

#[test]
fn the_intent_becomes_objects_with_the_vendors_defaults() {
    let leaf = wanted("leaf-1");
    let first = port(&leaf.state, "Ethernet0");
    assert_eq!((first.mtu_bytes, first.description.as_str()), (Some(9100), "basalt:rack-a node-1/p0"));
    let spine = wanted("spine-1");
    assert_eq!(port(&spine.state, "Ethernet1/1").mtu_bytes, Some(9214));
    for (kind, name) in [
        (Kind::Vlan, "100"),
        (Kind::Vlan, "200"),
        (Kind::VlanMember, "100 Ethernet0"),
        (Kind::VlanMember, "200 PortChannel13"),
        // The peer link carries what either leaf carries.
        (Kind::VlanMember, "200 PortChannel1"),
        (Kind::LagMember, "Ethernet8"),
        (Kind::MclagMember, "PortChannel13"),
        (Kind::Mclag, "domain"),
        (Kind::Address, "Ethernet16 10.0.0.0/31"),
        (Kind::DscpClass, "basalt_rack-a_roce 26"),
        (Kind::EcnProfile, "basalt_rack-a_ecn400"),
        (Kind::PfcWatchdog, "Ethernet0"),
        (Kind::Queue, "Ethernet0 3"),
        (Kind::Queue, "Ethernet0 6"),
    ] {
        assert!(leaf.state.contains(&Key::new(kind, name)), "{kind:?} {name}");
    }
    assert!(
        !leaf.state.contains(&Key::new(Kind::MclagMember, "PortChannel1")),
        "the peer link is no multi-chassis LAG"
    );
    assert!(spine.state.iter().all(|(key, _)| key.kind != Kind::Vlan), "a routed spine has no VLANs");
}

#[test]
fn thresholds_follow_speed_and_stay_below_the_buffer() {
    use basalt_switch_api::desired::Defaults;
    for kind in [DriverKind::SonicGnmi, DriverKind::DellSonic, DriverKind::Eos, DriverKind::Nvue] {
        let defaults = Defaults::of(kind);
        let (min, max, _) = defaults.ecn(100, 64);
        let (_, fast, _) = defaults.ecn(400, 256);
        assert!(min < max && fast == 4 * max, "{kind:?}");
        let (min, max, _) = defaults.ecn(400, 16);
        assert!(min < max && max <= 1 << 20, "{kind:?}: a small buffer bounds them");
    }
}

#[test]
fn a_factory_switch_gets_everything_and_then_nothing() {
    let leaf = wanted("leaf-1");
    let mut state = factory_ports(8);
    let first = plan(&state, &leaf, &able());
    assert!(first.refusals.is_empty());
    let text = first.to_string();
    assert!(
        text.contains(
            "~ port Ethernet0: description \"\" -> \"basalt:rack-a node-1/p0\", mtu_bytes 1500 -> 9100"
        ),
        "{text}"
    );
    assert!(text.contains("+ VLAN 100: name basalt_rack-a_storage-a"), "{text}");
    assert!(!text.contains("Ethernet20"), "ports outside the intent are not even looked at: {text}");
    first.changes.iter().for_each(|change| state.change(change));
    let second = plan(&state, &leaf, &able());
    assert!(second.is_empty(), "{second}");
}

#[test]
fn what_is_not_ours_is_refused_or_not_seen() {
    let leaf = wanted("leaf-1");
    let mut state = factory_ports(8);
    let uplink = Port { description: "uplink, ask network team".into(), ..port(&state, "Ethernet4") };
    state.insert_owned(uplink, Owner::Foreign);
    state.insert_owned(Vlan { id: VlanId(7), name: "voice".into() }, Owner::Foreign);
    state.insert(VlanMember { vlan: VlanId(7), interface: "Ethernet4".into(), tagged: true });
    state.insert(VlanMember { vlan: VlanId(7), interface: "Ethernet0".into(), tagged: true });
    state.insert(VlanMember { vlan: VlanId(7), interface: "Ethernet24".into(), tagged: true });
    let found = plan(&state, &leaf, &able());
    assert_eq!(found.refusals.len(), 1);
    assert_eq!(found.refusals[0].object, Key::new(Kind::Port, "Ethernet4"));
    let deleted = |name: &str| {
        found.changes.iter().any(|c| matches!(c, Change::Delete { before } if before.key().name == name))
    };
    assert!(deleted("7 Ethernet0"), "a claimed port is claimed whole");
    assert!(!deleted("7 Ethernet4") && !deleted("7 Ethernet24") && !deleted("7"));
    let adopted = plan(&state, &Desired { adopt: true, ..leaf }, &able());
    assert!(adopted.refusals.is_empty());
}

#[test]
fn what_was_ours_goes_when_the_intent_drops_it() {
    let mut state = factory_ports(8);
    let mark = Mark::new("rack-a");
    let old = Port { description: mark.describe("node-9/p0"), ..port(&state, "Ethernet28") };
    state.insert_owned(old, Owner::Ours);
    state.insert_owned(Vlan { id: VlanId(300), name: mark.name("old") }, Owner::Ours);
    state.insert(VlanMember { vlan: VlanId(300), interface: "Ethernet28".into(), tagged: false });
    let found = plan(&state, &wanted("leaf-1"), &able());
    let deleted: Vec<String> = found
        .changes
        .iter()
        .take_while(|c| matches!(c, Change::Delete { .. }))
        .map(|c| c.key().to_string())
        .collect();
    // What hangs on others goes first.
    assert_eq!(deleted, ["VLAN member 300 Ethernet28", "VLAN 300", "port Ethernet28"]);
}

#[test]
fn kinds_that_a_switch_has_not_are_noted() {
    let none = Capabilities { unsupported: BTreeSet::from([Kind::PfcWatchdog, Kind::Dcbx]), ..able() };
    let found = plan(&factory_ports(8), &wanted("leaf-1"), &none);
    assert_eq!(found.notes.len(), 2);
    assert!(found.changes.iter().all(|c| c.object().kind() != Kind::Dcbx));
}

#[test]
fn plans_survive_json() {
    let found = plan(&factory_ports(8), &wanted("leaf-1"), &able());
    let text = serde_json::to_string(&found).unwrap();
    assert_eq!(serde_json::from_str::<basalt_switch_api::plan::Plan>(&text).unwrap(), found);
    let state = wanted("leaf-2").state;
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<SwitchState>(&text).unwrap(), state);
}

proptest! {
    /// However the switch stands, one plan makes it so, and its inverse brings back what it had.
    #[test]
    fn plans_converge_and_can_be_taken_back(
        kept in proptest::collection::vec(any::<bool>(), 200),
        mtu in 1500u32..9216,
        swapped in any::<bool>(),
    ) {
        let leaf = wanted("leaf-1");
        let mut state = factory_ports(8);
        let full = plan(&state, &leaf, &able());
        for (change, keep) in full.changes.iter().zip(&kept) {
            if *keep {
                state.change(change);
            }
        }
        let mut odd = port(&state, "Ethernet8");
        odd.mtu_bytes = Some(mtu);
        let owner = state.owner(&Key::port(&odd.name));
        state.insert_owned(odd, owner);
        if swapped {
            state.insert(VlanMember { vlan: VlanId(200), interface: "Ethernet0".into(), tagged: true });
        }
        let before = state.clone();
        let step = plan(&state, &leaf, &able());
        step.changes.iter().for_each(|change| state.change(change));
        prop_assert!(plan(&state, &leaf, &able()).is_empty());
        step.inverse().changes.iter().for_each(|change| state.change(change));
        let objects = |s: &SwitchState| s.iter().map(|(_, o)| o.clone()).collect::<Vec<Object>>();
        prop_assert_eq!(objects(&state), objects(&before));
    }
}
