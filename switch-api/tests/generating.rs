//! A draft of `fabric.yaml` from inventory and LLDP.

use basalt_switch_api::intent::{
    DriverKind, Fabric, Inventory, Membership, SeenNeighbour, SeenNode, SeenPort, Vlan, generate,
};
use basalt_switch_api::{PortRef, VlanId};

fn port(name: &str, device: &str, far: &str, description: &str) -> SeenPort {
    let neighbour = SeenNeighbour {
        device: device.into(),
        port: far.into(),
        description: description.into(),
        management_address: Some("192.0.2.11".into()),
        ..SeenNeighbour::default()
    };
    SeenPort { name: name.into(), speed_gbps: Some(100), addresses: Vec::new(), neighbour: Some(neighbour) }
}

fn seen() -> Inventory {
    let sonic = "SONiC Software Version: SONiC.202405 - HwSku: ACS-MSN2700";
    let mut first = port("p0", "leaf-1.example.org", "Ethernet0", sonic);
    first.addresses = vec!["10.0.0.1/24".into()];
    let nodes = vec![
        SeenNode {
            name: "node-1".into(),
            rack: Some("a1".into()),
            ports: vec![first, port("p1", "leaf-2", "Ethernet1", "Arista Networks EOS version 4.32")],
        },
        SeenNode {
            name: "node-2".into(),
            rack: None,
            ports: vec![port("p0", "leaf-1.example.org", "Ethernet4", sonic)],
        },
    ];
    Inventory { name: "rack-a".into(), nodes }
}

fn end(text: &str) -> PortRef {
    text.parse().unwrap()
}

#[test]
fn switches_nodes_and_cables_are_found() {
    let draft = generate(&seen(), None);
    let fabric = &draft.fabric;
    let drivers: Vec<_> = fabric.switches.iter().map(|s| (s.name.as_str(), s.driver)).collect();
    assert_eq!(drivers, [("leaf-1", DriverKind::SonicGnmi), ("leaf-2", DriverKind::Eos)]);
    assert_eq!(fabric.nodes[0].addresses[0].address, "10.0.0.1/24");
    assert_eq!(fabric.racks[0].name, "a1");
    assert_eq!(fabric.links.len(), 3);
    assert_eq!(fabric.links[0].ends, [end("node-1/p0"), end("leaf-1/Ethernet0")]);
    // It does not invent trust: a person has to say it, and then the file is taken.
    assert!(draft.open.iter().any(|o| o.starts_with("leaf-1: write management.tls")), "{:?}", draft.open);
    assert!(
        draft.open.iter().any(|o| o.starts_with("leaf-1: 2 links have neither vlans")),
        "{:?}",
        draft.open
    );
    assert!(Fabric::from_yaml(&fabric.to_yaml()).is_err());
    let mut said = fabric.clone();
    said.switches.iter_mut().for_each(|s| s.management.tls.insecure = true);
    assert_eq!(Fabric::from_yaml(&said.to_yaml()).unwrap(), said);
}

#[test]
fn what_a_person_said_stays() {
    let mut known = generate(&seen(), None).fabric;
    known.switches.iter_mut().for_each(|s| s.management.tls.insecure = true);
    known.vlans.push(Vlan { name: "storage".into(), id: VlanId(100) });
    let storage = Membership { untagged: Some("storage".into()), tagged: Vec::new() };
    known.links.iter_mut().for_each(|l| l.vlans = Some(storage.clone()));
    assert_eq!(generate(&seen(), Some(&known)).fabric, known);
    assert!(generate(&seen(), Some(&known)).open.is_empty());

    let mut now = seen();
    // A cable moved, a node is off, another is new.
    now.nodes[0].ports[0].neighbour.as_mut().unwrap().port = "Ethernet8".into();
    now.nodes[1].name = "node-3".into();
    let draft = generate(&now, Some(&known));
    let moved = draft.fabric.links.iter().find(|l| l.ends[0] == end("node-1/p0")).unwrap();
    assert_eq!((&moved.ends[1], &moved.vlans), (&end("leaf-1/Ethernet8"), &Some(storage)));
    assert!(
        draft.fabric.nodes.iter().any(|n| n.name.as_str() == "node-2"),
        "a node that is off is not forgotten"
    );
    let open = draft.open.join("\n");
    assert!(open.contains("node-1/p0 was in leaf-1/Ethernet0 and is in leaf-1/Ethernet8"), "{open}");
    assert!(open.contains("node-2 was not seen"), "{open}");
}

#[test]
fn what_is_not_understood_is_said() {
    let mut inventory = seen();
    inventory.nodes[0].ports[1].neighbour.as_mut().unwrap().description = "toaster 2000".into();
    inventory.nodes[1].ports[0].neighbour = None;
    let draft = generate(&inventory, None);
    let open = draft.open.join("\n");
    assert!(open.contains("leaf-2 says 'toaster 2000' of itself, which no driver knows"), "{open}");
    assert!(open.contains("node-2/p0: nothing heard by LLDP"), "{open}");
    assert_eq!(draft.fabric.links.len(), 1);
    // Switches that name ports by MAC address give the name as description.
    let neighbour = inventory.nodes[0].ports[0].neighbour.as_mut().unwrap();
    (neighbour.port, neighbour.port_description) = ("52:54:00:12:34:56".into(), "Ethernet0".into());
    assert_eq!(generate(&inventory, None).fabric.links[0].ends[1], end("leaf-1/Ethernet0"));
}
