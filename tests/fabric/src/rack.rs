//! Two leaves, which are a pair, and a spine.

use crate::one_switch::{OPTIONS, all_heard, all_well, apply, findings, must_say, plans, swap_cables};
use crate::process::until;
use crate::world::{HOST_MTU, Node, Switch, World};
use crate::{Context, Outcome};
use basalt_switch_api::engine::Engine;
use basalt_switch_api::plan::Plan;
use basalt_switch_api::{Cause, DeviceName};
use std::thread::{scope, sleep};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(60);

/// Between the leaves only their own VLAN: with the way over the spine the others would be a loop.
fn fabric(switch_mtu: u32) -> String {
    let switch = |name: &str, role: &str, number: u8| {
        format!(
            "  - {{name: {name}, role: {role}, driver: ovs, management: {{address: 10.255.{number}.2, timeout_s: 5, tls: {{plaintext: true}}}}}}\n"
        )
    };
    let switches =
        switch("leaf-1", "leaf", 1) + &switch("leaf-2", "leaf", 2) + &switch("spine-1", "spine", 3);
    format!(
        "version: 1
name: rack
mtu: {{switch_bytes: {switch_mtu}}}
roce: {{enabled: false}}
vlans: [{{name: storage-a, id: 100}}, {{name: storage-b, id: 200}}, {{name: peer, id: 300}}]
switches:
{switches}pairs:
  - {{name: leaves, switches: [leaf-1, leaf-2], domain_id: 1, peer_lag: peer, peer_addresses: [10.254.0.0/31, 10.254.0.1/31], system_mac: '02:00:00:00:00:01'}}
nodes: [{{name: node-1}}, {{name: node-2}}, {{name: node-3}}, {{name: node-4}}, {{name: node-5}}]
lags:
  - {{name: peer, id: 1, vlans: {{tagged: [peer]}}}}
  - {{name: up-1, id: 11, fast: true, vlans: {{tagged: [storage-a, storage-b]}}}}
  - {{name: up-2, id: 12, fast: true, vlans: {{tagged: [storage-a, storage-b]}}}}
links:
  - {{ends: [node-1/p0, leaf-1/eth1], vlans: {{untagged: storage-a}}}}
  - {{ends: [node-2/p0, leaf-1/eth2], vlans: {{untagged: storage-b}}}}
  - {{ends: [node-3/p0, leaf-2/eth1], vlans: {{untagged: storage-a}}}}
  - {{ends: [node-4/p0, leaf-2/eth2], vlans: {{untagged: storage-b}}}}
  - {{ends: [node-5/p0, leaf-2/eth3], vlans: {{untagged: storage-a}}}}
  - {{ends: [leaf-1/eth9, leaf-2/eth9], lag: peer}}
  - {{ends: [leaf-1/eth11, spine-1/eth1], lag: up-1}}
  - {{ends: [leaf-1/eth12, spine-1/eth2], lag: up-1}}
  - {{ends: [leaf-2/eth11, spine-1/eth3], lag: up-2}}
  - {{ends: [leaf-2/eth12, spine-1/eth4], lag: up-2}}
"
    )
}

/// From the first plan to deaths in the middle of changes.
pub(crate) fn three_switches(context: &Context) -> Outcome {
    let world = &context.world;
    let mut switches = Vec::new();
    for (name, number) in [("leaf-1", 1), ("leaf-2", 2), ("spine-1", 3)] {
        switches.push(Switch::start(world, name, number)?);
    }
    let places =
        [("leaf-1", "eth1"), ("leaf-1", "eth2"), ("leaf-2", "eth1"), ("leaf-2", "eth2"), ("leaf-2", "eth3")];
    let mut nodes = Vec::new();
    for (number, (leaf, port)) in (1_u8..).zip(places) {
        let node = Node::new(world, &format!("node-{number}"), number)?;
        world.cable((Some(&node.name), "p0"), (Some(leaf), port))?;
        node.up(world)?;
        nodes.push(node);
    }
    world.explained(with(context, &switches, &nodes))
}

fn with(context: &Context, switches: &[Switch], nodes: &[Node]) -> Outcome {
    let world = &context.world;
    let between = [
        (("leaf-1", "eth9"), ("leaf-2", "eth9")),
        (("leaf-1", "eth11"), ("spine-1", "eth1")),
        (("leaf-1", "eth12"), ("spine-1", "eth2")),
        (("leaf-2", "eth11"), ("spine-1", "eth3")),
        (("leaf-2", "eth12"), ("spine-1", "eth4")),
    ];
    for ((a, a_port), (b, b_port)) in between {
        world.cable((Some(a), a_port), (Some(b), b_port))?;
    }
    for switch in switches {
        switch.ovs.detach_all("eth")?;
    }
    let [one, two, three, four, _] = nodes else { return Err("five nodes".to_owned()) };

    let intent = world.engine(&fabric(9100), OPTIONS)?;
    all_heard(world, &intent)?;
    one.must_not_reach(three, 1500)?;
    apply(world, &intent)?;
    all_well(world, &intent)?;
    for (from, to) in [(one, three), (two, four)] {
        from.must_reach(to, HOST_MTU)?;
        from.streams_to(to, 1 << 20)?;
    }
    for (from, to) in [(one, two), (one, four), (three, four)] {
        from.must_not_reach(to, 1500)?;
    }
    println!("        VLANs and {HOST_MTU} bytes over leaves and spine");

    let [leaf, _, spine] = switches else { return Err("three switches".to_owned()) };
    for port in ["eth11", "eth12"] {
        leaf.ovs.link(port, "down")?;
        one.must_reach(three, HOST_MTU)?;
        must_say(
            world,
            &intent,
            &format!("port {port} on leaf-1: link is down; check cable, optics and the far end"),
        )?;
        leaf.ovs.link(port, "up")?;
        all_well(world, &intent)?;
    }
    println!("        either uplink carries on alone");

    swap_cables(two, three)?;
    must_say(world, &intent, "port eth2 on leaf-1: node-3/p0 is plugged here, wanted node-2/p0")?;
    must_say(world, &intent, "port eth1 on leaf-2: node-2/p0 is plugged here, wanted node-3/p0")?;
    swap_cables(two, three)?;
    all_well(world, &intent)?;
    println!("        a wrong cable is named");

    spine.ovs.vsctl("remove port lag11 trunks 100")?;
    must_say(world, &intent, "spine-1: VLAN member 100 lag11 is missing")?;
    one.must_not_reach(three, 1500)?;
    let shown = plans(world, &intent)?;
    if shown.iter().any(|(name, plan)| plan.is_empty() != (name.as_str() != "spine-1")) {
        return Err(format!("only the spine has drifted: {shown:?}"));
    }
    apply(world, &intent)?;
    one.must_reach(three, HOST_MTU)?;
    println!("        drift of the spine is seen and mended");

    deaths(context, leaf, nodes)
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Database,
    Daemon,
}

/// The leaf that comes first dies somewhere in its change; half of the moments fall before its confirmation.
fn deaths(context: &Context, leaf: &Switch, nodes: &[Node]) -> Outcome {
    let world = &context.world;
    let mut random = context.seed | 1;
    let mut next = |below: u64| {
        // Marsaglia, "Xorshift RNGs" (2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut mtu = 9100;
    for victim in [Victim::Database, Victim::Daemon, Victim::Database, Victim::Daemon] {
        let wanted = if mtu == 9100 { 9216 } else { 9100 };
        let intents = [world.engine(&fabric(mtu), OPTIONS)?, world.engine(&fabric(wanted), OPTIONS)?];
        let moment = Duration::from_millis(next(2500));
        let told = one_death(world, &intents[1], leaf, victim, moment, nodes)?;
        // It comes back: as it was, or as it shall be, at every look and for every object.
        match victim {
            Victim::Database => leaf.ovs.start_database()?,
            Victim::Daemon => leaf.ovs.start_daemon()?,
        }
        // The change may still be held; then the switch goes back when its time is over.
        until(WITHIN, || {
            whole(world, &intents)?;
            match leaf.ovs.vsctl("get Open_vSwitch . external_ids")? {
                ids if ids.contains("basalt_pending") => Err("the change is still held".to_owned()),
                _ => Ok(()),
            }
        })?;
        // Until nothing is left to say: a change whose confirmation was lost looks finished, and is taken back all the same.
        until(WITHIN, || {
            apply(world, &intents[1])?;
            match findings(world, &intents[1]).as_slice() {
                [] => Ok(()),
                some => Err(format!("{some:#?}")),
            }
        })?;
        nodes[0].must_reach(&nodes[2], HOST_MTU)?;
        println!("        {victim:?} of leaf-1 killed after {moment:?}: {told}; finished by the next apply");
        mtu = wanted;
    }
    Ok(())
}

/// Applies while `leaf` dies; what the engine said.
fn one_death(
    world: &World,
    intent: &Engine,
    leaf: &Switch,
    victim: Victim,
    moment: Duration,
    nodes: &[Node],
) -> Result<String, String> {
    let shown = plans(world, intent)?;
    let results = scope(|scope| {
        scope.spawn(|| {
            sleep(moment);
            match victim {
                Victim::Database => leaf.ovs.kill_database(),
                Victim::Daemon => leaf.ovs.kill_daemon(),
            }
        });
        world.wait(intent.apply(&shown))
    });
    // What does not hang on it goes on. (What does waits even for the database: the main loop of ovs-vswitchd, in which the
    // userspace datapath without DPDK runs, stands still while it has none.)
    nodes[2].must_reach(&nodes[4], HOST_MTU)?;
    let first = &results[&DeviceName::from("leaf-1")];
    for name in ["leaf-2", "spine-1"] {
        let other = &results[&DeviceName::from(name)];
        let skipped = matches!(other, Err(e) if matches!(&e.cause, Cause::Skipped { other } if other.as_str() == "leaf-1"));
        if first.is_err() != skipped {
            return Err(format!("leaf-1: {first:?}, and then {name}: {other:?}"));
        }
    }
    Ok(match first {
        Ok(_) => "it was through".to_owned(),
        Err(error) => error.cause.to_string(),
    })
}

/// `leaf-1` is wholly as one of the two intents wants it.
fn whole(world: &World, intents: &[Engine]) -> Outcome {
    let mut left = Vec::new();
    for intent in intents {
        let name = DeviceName::from("leaf-1");
        match world.wait(intent.only(std::slice::from_ref(&name)).plan()).remove(&name) {
            Some(Ok(plan)) => left.push(plan),
            other => return Err(format!("leaf-1 does not answer: {other:?}")),
        }
    }
    if left.iter().any(Plan::is_empty) {
        return Ok(());
    }
    let texts: Vec<String> = left.iter().map(ToString::to_string).collect();
    Err(format!(
        "leaf-1 is neither as before nor as wanted:\n{}\n{:?}",
        texts.join("\n"),
        findings(world, &intents[1])
    ))
}
