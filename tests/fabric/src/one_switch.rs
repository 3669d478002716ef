//! One switch and four nodes, one of them on a LAG.

use crate::process::{run, until};
use crate::world::{HOST_MTU, Node, OpenVswitch, Switch, World};
use crate::{Context, Outcome};
use basalt_switch_api::engine::{Engine, Options};
use basalt_switch_api::plan::Plan;
use basalt_switch_api::verify::FindingKind;
use basalt_switch_api::{Cause, DeviceName, WayBack};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Quick ones: everything here is on one machine.
pub(crate) const OPTIONS: Options = Options {
    parallel: 4,
    settle: Duration::from_millis(1500),
    grace: Duration::from_secs(5),
    look_every: Duration::from_millis(200),
    between_waves: Duration::from_millis(200),
};

const WITHIN: Duration = Duration::from_secs(20);

/// Words of `fabric.yaml` that stand in all.
const HEAD: &str = "version: 1
name: bench
roce: {enabled: false}
vlans: [{name: storage-a, id: 100}, {name: storage-b, id: 200}]
nodes: [{name: node-1}, {name: node-2}, {name: node-3}, {name: node-4}]
";
const BOND: &str =
    "lags: [{name: bond, id: 4, fast: true, vlans: {untagged: storage-a, tagged: [storage-b]}}]\n";

fn fabric(management: &str, links: &[&str], more: &str) -> String {
    let lags = if links.iter().any(|link| link.contains("lag: bond")) { BOND } else { "" };
    let links: String = links.iter().map(|link| format!("  - {{{link}}}\n")).collect();
    format!(
        "{HEAD}{lags}{more}switches:\n  - {{name: s1, role: leaf, driver: ovs, management: {{{management}, timeout_s: 5, tls: {{plaintext: true}}}}}}\nlinks:\n{links}"
    )
}

const NODE_1: &str = "ends: [node-1/p0, s1/eth1], vlans: {untagged: storage-a}";
const NODE_2: &str = "ends: [node-2/p0, s1/eth2], vlans: {untagged: storage-a}";
const NODE_3: &str = "ends: [node-3/p0, s1/eth3], vlans: {untagged: storage-b}";
const NODE_4: [&str; 2] = ["ends: [node-4/p0, s1/eth4], lag: bond", "ends: [node-4/p1, s1/eth5], lag: bond"];

pub(crate) fn plans(world: &World, engine: &Engine) -> Result<BTreeMap<DeviceName, Plan>, String> {
    let plans = world.wait(engine.plan()).into_iter();
    plans.map(|(name, plan)| Ok((name, plan.map_err(|e| e.to_string())?))).collect()
}

/// Plans and applies; nothing may be left to say.
pub(crate) fn apply(world: &World, engine: &Engine) -> Outcome {
    let shown = plans(world, engine)?;
    for (name, result) in world.wait(engine.apply(&shown)) {
        let applied = result.map_err(|e| format!("{e}\n{}", shown[&name]))?;
        if let Some(finding) = applied.findings.first() {
            return Err(format!("after the change: {finding}"));
        }
    }
    Ok(())
}

/// The error of the one switch.
fn refused(world: &World, engine: &Engine) -> Result<Cause, String> {
    let shown = plans(world, engine)?;
    let results = world.wait(engine.apply(&shown));
    match results.into_values().next() {
        Some(Err(error)) => Ok(error.cause),
        other => Err(format!("it should have failed: {other:?}\n{shown:?}")),
    }
}

pub(crate) fn findings(world: &World, engine: &Engine) -> Vec<String> {
    world.wait(engine.check()).iter().map(ToString::to_string).collect()
}

/// LLDP on every cable, before anything else is looked at.
pub(crate) fn all_heard(world: &World, engine: &Engine) -> Outcome {
    until(WITHIN, || {
        let findings = world.wait(engine.check());
        let missing =
            findings.iter().find(|f| matches!(f.kind, FindingKind::MissingNeighbour | FindingKind::NoAnswer));
        missing.map_or(Ok(()), |f| Err(f.to_string()))
    })
}

pub(crate) fn must_say(world: &World, engine: &Engine, words: &str) -> Outcome {
    until(WITHIN, || {
        let all = findings(world, engine);
        if all.iter().any(|f| f == words) { Ok(()) } else { Err(format!("not said: {words}\n{all:#?}")) }
    })
}

pub(crate) fn all_well(world: &World, engine: &Engine) -> Outcome {
    until(WITHIN, || match findings(world, engine).as_slice() {
        [] => Ok(()),
        some => Err(format!("{some:#?}")),
    })
}

/// What is configured at a port, as OVS tells it.
fn rows(ovs: &OpenVswitch, port: &str) -> Result<String, String> {
    let port_row = "--columns=name,tag,trunks,vlan_mode,lacp,external_ids,other_config";
    let interface_row = "--columns=name,type,mtu,mtu_request,external_ids,other_config";
    Ok(ovs.vsctl(&format!("{port_row} list port {port}"))?
        + &ovs.vsctl(&format!("{interface_row} list interface {port}"))?)
}

struct Bench {
    switch: Switch,
    nodes: Vec<Node>,
}

fn bench(world: &World, with_bond: bool) -> Result<Bench, String> {
    let switch = Switch::start(world, "s1", 1)?;
    let mut nodes = Vec::new();
    for number in 1..=3_u8 {
        let node = Node::new(world, &format!("node-{number}"), number)?;
        let port = format!("eth{number}");
        world.cable((Some(&node.name), "p0"), (Some("s1"), &port))?;
        switch.ovs.detach(&port)?;
        switch.ovs.vsctl(&format!("add-port br0 {port}"))?;
        node.up(world)?;
        nodes.push(node);
    }
    if with_bond {
        let mut node = Node::new(world, "node-4", 4)?;
        world.cable((Some("node-4"), "p0"), (Some("s1"), "eth4"))?;
        world.cable((Some("node-4"), "p1"), (Some("s1"), "eth5"))?;
        switch.ovs.detach("eth4")?;
        switch.ovs.detach("eth5")?;
        node.bonded(world)?;
        nodes.push(node);
    }
    Ok(Bench { switch, nodes })
}

/// From the first plan to giving a port back.
pub(crate) fn life(context: &Context) -> Outcome {
    let world = &context.world;
    let bench = bench(world, true)?;
    world.explained(life_of(world, &bench))
}

fn life_of(world: &World, bench: &Bench) -> Outcome {
    let Bench { switch, nodes } = bench;
    let ovs = &switch.ovs;
    let [one, two, three, four] = nodes.as_slice() else { return Err("four nodes".to_owned()) };
    // Somebody else's: a virtual machine's port, one of the host's own, and words at the bridge.
    world.cable((None, "vm0-far"), (Some("s1"), "vm0"))?;
    ovs.vsctl("add-port br0 vm0 tag=77 -- set interface vm0 external_ids:iface-id=vm-17 mtu_request=1400")?;
    ovs.vsctl("add-port br0 host0 tag=42 -- set interface host0 type=internal")?;
    ovs.vsctl("set bridge br0 external_ids:note=keep other_config:mac-table-size=4096")?;
    let foreign = || -> Result<String, String> {
        let bridge = ovs.vsctl("get bridge br0 external_ids:note other_config:mac-table-size")?;
        Ok(rows(ovs, "vm0")? + &rows(ovs, "host0")? + &bridge)
    };
    let foreign_before = foreign()?;

    let address = format!("address: {}", switch.address);
    let links = [&[NODE_1, NODE_2, NODE_3][..], &NODE_4].concat();
    let intent = world.engine(&fabric(&address, &links, ""), OPTIONS)?;
    all_heard(world, &intent)?;
    one.must_reach(two, 1500)?;
    one.must_reach(three, 1500)?;
    one.must_not_reach(two, HOST_MTU)?;

    let shown = plans(world, &intent)?;
    let text = shown[&DeviceName::from("s1")].to_string();
    for line in ["+ VLAN 100: name basalt_bench_storage-a", "+ LAG lag4", "- VLAN member 0 eth1"] {
        if !text.contains(line) {
            return Err(format!("the plan lacks '{line}':\n{text}"));
        }
    }
    apply(world, &intent)?;
    all_well(world, &intent)?;
    if !plans(world, &intent)?.values().all(Plan::is_empty) {
        return Err("there is still something to do after the change".to_owned());
    }
    one.must_reach(two, HOST_MTU)?;
    one.streams_to(two, 1 << 20)?;
    one.must_not_reach(three, 1500)?;
    three.must_not_reach(one, 1500)?;
    println!("        VLANs are apart, {HOST_MTU} bytes pass");

    // The LAG carries on with either member.
    one.must_reach(four, HOST_MTU)?;
    for port in ["eth4", "eth5"] {
        ovs.link(port, "down")?;
        one.must_reach(four, HOST_MTU)?;
        must_say(
            world,
            &intent,
            &format!("port {port} on s1: link is down; check cable, optics and the far end"),
        )?;
        ovs.link(port, "up")?;
        all_well(world, &intent)?;
    }
    one.streams_to(four, 1 << 20)?;
    println!("        the LAG carries on with one member");

    wrong_cable(world, &intent, one, two)?;
    println!("        a wrong cable is named");

    // Someone's hand on our port.
    ovs.vsctl("set port eth2 tag=200 -- set interface eth1 mtu_request=1500")?;
    must_say(world, &intent, "port eth1 on s1: MTU 1500, wanted 9100")?;
    must_say(world, &intent, "s1: VLAN member 100 eth2 is missing")?;
    must_say(world, &intent, "s1: VLAN member 200 eth2 is there and not wanted")?;
    apply(world, &intent)?;
    one.must_reach(two, HOST_MTU)?;
    println!("        drift is seen and mended");

    // What is named by the intent and someone else's is refused.
    let claim = "ends: [node-1/p9, s1/vm0], vlans: {untagged: storage-a}";
    let greedy = world.engine(&fabric(&address, &[NODE_1, claim], ""), OPTIONS)?;
    match refused(world, &greedy)? {
        Cause::NotOwned { object, .. } if object == "port vm0" => {}
        other => return Err(format!("it should belong to someone else: {other}")),
    }

    lost_neighbour(world, switch, &fabric(&address, &links, "mtu: {switch_bytes: 9216}\n"))?;
    one.must_reach(two, HOST_MTU)?;
    all_well(world, &intent)?;
    println!("        a change that loses a neighbour is taken back");

    // Given back, a port belongs to nobody and carries nothing.
    let fewer = world.engine(&fabric(&address, &[NODE_1, NODE_2], ""), OPTIONS)?;
    apply(world, &fewer)?;
    let left = rows(ovs, "eth3")?;
    // Its MTU is the one it came with, and nobody asks for it any more.
    let mtu = ovs.vsctl("get interface eth3 mtu mtu_request")?;
    if mtu.split_whitespace().collect::<Vec<_>>() != ["1500", "[]"] {
        return Err(format!("MTU and request are left as {mtu}"));
    }
    if left.contains("basalt")
        || ovs.vsctl("list-ports br0")?.lines().any(|port| port == "lag4" || port == "eth4")
    {
        return Err(format!("a mark or a LAG is left:\n{left}"));
    }
    three.must_not_reach(one, 1500)?;
    one.must_reach(two, HOST_MTU)?;
    let foreign_after = foreign()?;
    if foreign_before != foreign_after {
        return Err(format!("what is not ours was touched:\n{foreign_before}\n{foreign_after}"));
    }
    Ok(())
}

/// The cables of two nodes, each in the other's port.
fn wrong_cable(world: &World, intent: &Engine, one: &Node, two: &Node) -> Outcome {
    swap_cables(one, two)?;
    let plugged = |port: &str, is: &str, wanted: &str, there: &str| {
        format!("port {port} on s1: {is}/p0 is plugged here, wanted {wanted}/p0 (that one is in {there})")
    };
    must_say(world, intent, &plugged("eth1", "node-2", "node-1", "eth2"))?;
    must_say(world, intent, &plugged("eth2", "node-1", "node-2", "eth1"))?;
    swap_cables(one, two)?;
    all_well(world, intent)?;
    one.must_reach(two, HOST_MTU)
}

pub(crate) fn swap_cables(one: &Node, two: &Node) -> Outcome {
    let (a, b) = (one.name.as_str(), two.name.as_str());
    run(&["ip", "-n", a, "link", "set", "p0", "netns", b, "name", "q0"])?;
    run(&["ip", "-n", b, "link", "set", "p0", "netns", a])?;
    run(&["ip", "-n", b, "link", "set", "q0", "name", "p0"])?;
    for node in [one, two] {
        let address = format!("{}/24", node.address);
        run(&["ip", "-n", &node.name, "link", "set", "p0", "up"])?;
        run(&["ip", "-n", &node.name, "addr", "add", &address, "dev", "p0"])?;
    }
    Ok(())
}

/// A node whose port does not come back after the change, until the change is taken back.
fn lost_neighbour(world: &World, switch: &Switch, intent: &str) -> Outcome {
    let engine = world.engine(intent, OPTIONS)?;
    let ended = AtomicBool::new(false);
    let cause = thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let changed =
                    switch.ovs.vsctl("get interface eth3 mtu").is_ok_and(|mtu| mtu.trim() == "9216");
                let state = if changed { "down" } else { "up" };
                // The last look may fall on the end of the test.
                let _ = run(&["ip", "-n", "node-3", "link", "set", "p0", state]);
                thread::sleep(Duration::from_millis(200));
            }
        });
        let cause = refused(world, &engine);
        let back = until(WITHIN, || match switch.ovs.vsctl("get interface eth3 mtu")?.trim() {
            "9100" => Ok(()),
            mtu => Err(format!("MTU {mtu} is left")),
        });
        thread::sleep(Duration::from_millis(500));
        ended.store(true, Ordering::Relaxed);
        back.and(cause)
    })?;
    match cause {
        Cause::LostNeighbours { ports, back: WayBack::Done } if ports == ["eth3".into()] => Ok(()),
        other => Err(format!("a lost neighbour should be said and taken back: {other}")),
    }
}

/// The switch is reached through one of its own ports.
pub(crate) fn management_path(context: &Context) -> Outcome {
    let world = &context.world;
    let bench = bench(world, false)?;
    world.explained(management_path_of(world, &bench))
}

fn management_path_of(world: &World, bench: &Bench) -> Outcome {
    let Bench { switch, nodes } = bench;
    let ovs = &switch.ovs;
    world.cable((None, "adm-far"), (Some("s1"), "adm"))?;
    ovs.detach("adm")?;
    ovs.vsctl("add-port br0 adm")?;
    let in_band = Ipv4Addr::new(10, 9, 0, 1);
    run(&["ip", "addr", "add", "10.9.0.2/24", "dev", "adm-far"])?;
    run(&["ip", "-n", "s1", "link", "set", "br0", "up"])?;
    run(&["ip", "-n", "s1", "addr", "add", &format!("{in_band}/24"), "dev", "br0"])?;
    run(&["ip", "netns", "exec", "s1", "ethtool", "-K", "br0", "tx", "off"])?;
    let before = rows(ovs, "adm")?;
    let cut = "ends: [node-4/p0, s1/adm], vlans: {untagged: storage-a}";

    // Told by which port we come: refused, nothing is sent.
    let address = format!("address: {in_band}, interface: adm");
    let told = world.engine(&fabric(&address, &[NODE_1, NODE_2, cut], ""), OPTIONS)?;
    match until(WITHIN, || refused(world, &told))? {
        Cause::WouldCutManagement { interface, .. } if interface.as_str() == "adm" => {}
        other => return Err(format!("the way to the switch would be cut: {other}")),
    }
    if rows(ovs, "adm")? != before {
        return Err("the port by which we come was touched".to_owned());
    }
    println!("        the port by which we come is not cut");

    // Not told: the path is lost, and the switch goes back by itself.
    let address = format!("address: {in_band}");
    let untold = world.engine(&fabric(&address, &[NODE_1, NODE_2, cut], ""), OPTIONS)?;
    let begin = Instant::now();
    match refused(world, &untold)? {
        Cause::LostManagementPath { back: WayBack::Done } => {}
        other => return Err(format!("the lost path should be said and taken back: {other}")),
    }
    let took = begin.elapsed();
    if took > OPTIONS.hold() + OPTIONS.grace {
        return Err(format!("taking it back took {took:?}"));
    }
    let after = rows(ovs, "adm")?;
    if after != before {
        return Err(format!("not as before:\n{before}\n{after}"));
    }
    nodes[0].must_reach(&nodes[2], 1500)?;
    println!("        a change that cuts it is taken back by the switch ({:.1} s)", took.as_secs_f64());

    // Without that link in the intent, the same switch is changed in band.
    let address = format!("address: {in_band}, interface: adm");
    let rest = world.engine(&fabric(&address, &[NODE_1, NODE_2], ""), OPTIONS)?;
    apply(world, &rest)?;
    nodes[0].must_reach(&nodes[1], HOST_MTU)?;
    nodes[0].must_not_reach(&nodes[2], 1500)
}
