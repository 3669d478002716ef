//! The EOS driver against a switch that speaks eAPI over real HTTP.

#[path = "support/eos_site.rs"]
mod eos_site;
#[path = "support/intent.rs"]
mod intent;
#[path = "support/web.rs"]
mod web;

use basalt_switch_api::desired::Desired;
use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::state::{Key, Kind};
use basalt_switch_api::{ApplyOptions, Cause, Switch};
use eos_site::EosSite;
use intent::planned;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use web::{Fault, Web};

const PORTS: [&str; 6] = ["Ethernet1", "Ethernet2", "Ethernet3", "Ethernet4", "Ethernet5/1", "Ethernet6"];
const HOLD: ApplyOptions = ApplyOptions { hold: Duration::from_secs(80) };

fn wanted() -> Desired {
    intent::leaf(&intent::fabric("eos", PORTS, ""))
}

async fn leaf() -> (Web<EosSite>, Arc<dyn Switch>) {
    let mut ports = PORTS.to_vec();
    ports.push("Ethernet7");
    Web::with(EosSite::factory(&ports), DriverKind::Eos).await
}

#[tokio::test]
async fn a_factory_switch_is_made_as_wanted_and_then_left() {
    let (web, switch) = leaf().await;
    let identity = switch.discover().await.unwrap();
    assert_eq!((identity.model.as_str(), identity.host_name.as_str()), ("DCS-7060CX-32S-F", "leaf-1"));
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    assert!(plan.refusals.is_empty(), "{plan}");
    let before = web.site().running.clone();
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    let left = planned(&*switch, &wanted).await;
    assert!(left.is_empty(), "{left}");
    // Not for good yet: neither saved nor without a timer.
    assert_eq!(web.site().startup, before);
    switch.confirm(&pending).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let running = web.site().running.clone();
    assert_eq!(web.site().startup, running);
    assert!(web.site().pending.is_none());
    let lines = |section: &str| running.0[section].0.keys().cloned().collect::<Vec<_>>();
    let port = lines("interface Ethernet2");
    for line in [
        "description basalt:rack-a node-2/p0",
        "mtu 9214",
        "speed 200g-4",
        "error-correction encoding reed-solomon",
        "switchport mode trunk",
        "switchport trunk native vlan 100",
        "switchport trunk allowed vlan 100,200",
        "qos trust dscp",
        "priority-flow-control on",
        "priority-flow-control priority 3 no-drop",
        "priority-flow-control pause watchdog port timer timeout 0.20 polling-interval auto recovery-time 0.40",
        "service-profile basalt_rack-a_ecn200",
        "dcbx mode ieee",
    ] {
        assert!(port.iter().any(|l| l == line), "{line} in {port:#?}");
    }
    assert!(lines("interface Ethernet7").is_empty(), "not in the intent, not touched");
    assert!(
        lines("interface Port-Channel1").contains(&"switchport trunk allowed vlan 100,200,4094".to_owned())
    );
    assert!(lines("mlag configuration").contains(&"peer-link Port-Channel1".to_owned()));
    assert!(lines("interface Ethernet3").contains(&"channel-group 13 mode active".to_owned()));
    assert_eq!(
        running.0["qos profile basalt_rack-a_ecn100"].0["uc-tx-queue 3"].0.keys().collect::<Vec<_>>(),
        [
            "random-detect ecn minimum-threshold 500000 bytes maximum-threshold 1500000 bytes max-mark-probability 20"
        ]
    );
}

#[tokio::test]
async fn everything_of_ours_goes_again() {
    let (web, switch) = leaf().await;
    let factory = web.site().running.clone();
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let nothing = Desired { state: Default::default(), ..wanted.clone() };
    let plan = planned(&*switch, &nothing).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    assert!(planned(&*switch, &nothing).await.is_empty());
    let mut left = web.site().running.clone();
    // What has no mark stays: the DSCP map is the whole switch's, and how each lane comes up is no object.
    left.0.retain(|line, _| !line.starts_with("qos map dscp") && !line.starts_with("no spanning-tree"));
    for (line, section) in &mut left.0 {
        if line.starts_with("interface Ethernet") {
            section.0.retain(|line, below| !(line.contains("tx-queue") && below.0.is_empty()));
        }
    }
    assert_eq!(left, factory);
}

#[tokio::test]
async fn an_unconfirmed_change_goes_by_itself_or_when_asked() {
    let (web, switch) = leaf().await;
    let wanted = wanted();
    let before = web.site().running.clone();
    let plan = planned(&*switch, &wanted).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    assert_ne!(web.site().running, before);
    web.site().expire();
    assert_eq!(web.site().running, before);
    let error = switch.confirm(&pending).await.unwrap_err();
    assert!(
        matches!(&error.cause, Cause::Conflict { reason } if reason.contains("timer ran out")),
        "{error}"
    );
    switch.roll_back(&pending).await.unwrap();

    let pending = switch.apply(&plan, HOLD).await.unwrap();
    switch.roll_back(&pending).await.unwrap();
    assert_eq!(web.site().running, before);
    switch.roll_back(&pending).await.unwrap();
}

#[tokio::test]
async fn what_others_configured_is_seen_and_kept() {
    let (web, switch) = leaf().await;
    web.site().console(&[
        "vlan 7",
        "name voice",
        "interface Ethernet1",
        "description uplink, ask the network team",
        "switchport mode trunk",
        "switchport trunk allowed vlan 7",
        "interface Ethernet2",
        "switchport access vlan 7",
        "interface Ethernet7",
        "description printer",
        "exit",
        "qos map dscp 46 to traffic-class 5",
    ]);
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    assert_eq!(plan.refusals.len(), 1, "{plan}");
    assert_eq!(plan.refusals[0].object, Key::new(Kind::Port, "Ethernet1"));
    let text = plan.to_string();
    assert!(text.contains("- VLAN member 7 Ethernet2") && !text.contains("- VLAN 7"), "{text}");
    let adopt = Desired { adopt: true, ..wanted };
    let plan = planned(&*switch, &adopt).await;
    switch.apply(&plan, HOLD).await.unwrap();
    let running = web.site().running.clone();
    assert!(running.0["vlan 7"].0.contains_key("name voice"));
    assert!(running.0["interface Ethernet7"].0.contains_key("description printer"));
    assert!(running.0.contains_key("qos map dscp 46 to traffic-class 5"));
    assert!(planned(&*switch, &adopt).await.is_empty());
}

#[tokio::test]
async fn small_changes_are_small() {
    let (web, switch) = leaf().await;
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    web.site().console(&["interface Ethernet2", "mtu 1500", "no priority-flow-control priority 3"]);
    let findings: Vec<String> =
        switch.verify(&wanted).await.unwrap().iter().map(ToString::to_string).collect();
    assert!(findings.contains(&"port Ethernet2 on leaf-1: MTU 1500, wanted 9214".to_owned()), "{findings:?}");
    let plan = planned(&*switch, &wanted).await;
    assert_eq!(plan.changes.len(), 2, "{plan}");
    web.seen.lock().unwrap().clear();
    switch.apply(&plan, HOLD).await.unwrap();
    let sent =
        web.seen.lock().unwrap().iter().map(|(_, body)| body["params"]["cmds"].clone()).collect::<Vec<_>>();
    assert!(
        sent.iter().any(|cmds| cmds.as_array().unwrap()[2..]
            == json!([
                "interface Ethernet2",
                "mtu 9214",
                "exit",
                "interface Ethernet2",
                "qos trust dscp",
                "priority-flow-control on",
                "priority-flow-control priority 3 no-drop",
                "exit"
            ])
            .as_array()
            .unwrap()[..]),
        "{sent:?}"
    );
    assert!(planned(&*switch, &wanted).await.is_empty());
}

#[tokio::test]
async fn a_rejected_command_is_named_and_nothing_is_left() {
    let (web, switch) = leaf().await;
    let mut wanted = wanted();
    let mut port = wanted.state.port(&"Ethernet1".into()).unwrap().clone();
    port.mtu_bytes = Some(9300);
    wanted.state.insert(port);
    let before = web.site().running.clone();
    let plan = planned(&*switch, &wanted).await;
    let error = switch.apply(&plan, HOLD).await.unwrap_err();
    assert_eq!(error.to_string(), "leaf-1: the switch rejected mtu 9300: Invalid input (at token 1: '9300')");
    assert_eq!(web.site().running, before);
    assert!(web.site().sessions.is_empty(), "the session was aborted");
}

#[tokio::test]
async fn another_session_with_a_timer_is_waited_for() {
    let (web, switch) = leaf().await;
    let plan = planned(&*switch, &wanted()).await;
    switch.apply(&plan, HOLD).await.unwrap();
    let error = switch.apply(&plan, HOLD).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Locked { .. }), "{error}");
    assert!(web.site().pending.is_some());
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_sent_again() {
    let (web, switch) = leaf().await;
    let plan = planned(&*switch, &wanted()).await;
    web.fault("commit timer", Fault::LoseAnswer);
    let error = switch.apply(&plan, HOLD).await.unwrap_err();
    assert!(error.cause.is_transient(), "{error}");
    let commits =
        web.seen.lock().unwrap().iter().filter(|(_, b)| b.to_string().contains("commit timer")).count();
    assert_eq!(commits, 1);
    web.site().expire();
    assert!(!web.site().running.0.contains_key("vlan 100"), "the switch took it back");
}

#[tokio::test]
async fn refusals_have_one_meaning_each() {
    let (web, switch) = leaf().await;
    web.site().version = "4.20.1F".into();
    let error = switch.discover().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "leaf-1: the switch runs EOS 4.20.1F, and the driver needs EOS 4.24 or later; upgrade the switch or choose another driver"
    );
    web.site().forbidden = Some("show running-config".into());
    let error = switch.read().await.unwrap_err();
    assert!(
        matches!(&error.cause, Cause::Forbidden { request, .. } if request == "show running-config"),
        "{error}"
    );
    // As the eAPI guide shows it for a command that cannot be given as JSON.
    let unconverted = json!({"jsonrpc": "2.0", "id": "basalt", "error": {
        "code": 1003, "message": "CLI command 2 of 3 'show running-config' failed: unconverted command",
        "data": [{}, {"errors": ["Command cannot be used over the API at this time. To see ASCII output, set format='text' in your request"]}]
    }});
    web.fault("running-config", Fault::Status(200, vec![], unconverted.to_string()));
    let error = switch.read().await.unwrap_err();
    assert!(matches!(&error.cause, Cause::Rejected { path, .. } if path == "show running-config"), "{error}");
    web.fault("running-config", Fault::Status(404, vec![], "<html>404 Not Found</html>".into()));
    assert!(switch.read().await.unwrap_err().to_string().contains("is eAPI enabled?"));
}

#[tokio::test]
async fn neighbours_and_counters_are_read() {
    let (web, switch) = leaf().await;
    web.site().neighbours = json!({"Ethernet1": {"lldpNeighborInfo": [{
        "chassisId": "02a1.0000.0001", "systemName": "node-1.example.org",
        "neighborInterfaceInfo": {"interfaceId": "\"p0\"", "interfaceIdType": "interfaceName", "interfaceDescription": "storage"}
    }]}, "Ethernet2": {"lldpNeighborInfo": []}});
    web.site().counters.insert(
        "show priority-flow-control counters detail".into(),
        json!({"interfaceCounters": {"Ethernet1": {"rxFrames": 7, "txFrames": 9,
            "priorities": {"3": {"rxFrames": 7, "txFrames": 9}}}}}),
    );
    let neighbours = switch.read().await.unwrap().neighbours;
    assert_eq!(neighbours.len(), 1);
    assert_eq!(
        (neighbours[0].device.as_str(), neighbours[0].device_port.as_str()),
        ("node-1.example.org", "p0")
    );
    let counters = switch.counters().await.unwrap();
    let port = &counters.ports[&basalt_switch_api::InterfaceName::from("Ethernet1")];
    assert_eq!((port.rx_bytes, port.rx_packets, port.rx_errors, port.fcs_errors), (1000, 12, 3, 2));
    assert_eq!((port.queues[&3].pfc_rx_frames, port.queues[&3].pfc_tx_frames), (7, 9));
}
