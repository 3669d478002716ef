//! The NVUE driver against a switch that keeps NVUE's rules over real HTTP.

#[path = "support/intent.rs"]
mod intent;
#[path = "support/nvue_site.rs"]
mod nvue_site;
#[path = "support/web.rs"]
mod web;

use basalt_switch_api::desired::Desired;
use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::state::{Key, Kind};
use basalt_switch_api::{ApplyOptions, Cause, Switch};
use intent::planned;
use nvue_site::NvueSite;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use web::{Fault, Web};

const PORTS: [&str; 6] = ["swp1", "swp2", "swp3", "swp4", "swp5s0", "swp6"];
const HOLD: ApplyOptions = ApplyOptions { hold: Duration::from_secs(80) };

fn wanted() -> Desired {
    intent::leaf(&intent::fabric("nvue", PORTS, ""))
}

async fn leaf() -> (Web<NvueSite>, Arc<dyn Switch>) {
    let mut ports = PORTS.to_vec();
    ports.push("swp7");
    Web::with(NvueSite::factory(&ports), DriverKind::Nvue).await
}

#[tokio::test]
async fn a_factory_switch_is_made_as_wanted_and_then_left() {
    let (web, switch) = leaf().await;
    let identity = switch.discover().await.unwrap();
    assert_eq!((identity.model.as_str(), identity.os_version.as_str()), ("MSN4600C", "5.9.2"));
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    assert!(plan.refusals.is_empty() && plan.notes.is_empty(), "{plan}");
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    let left = planned(&*switch, &wanted).await;
    assert!(left.is_empty(), "{left}");
    assert_eq!(web.site().startup, json!({}), "not saved before it is confirmed");
    switch.confirm(&pending).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let applied = web.site().applied.clone();
    assert_eq!(web.site().startup, applied);
    let port = &applied["interface"]["swp2"];
    assert_eq!(port["description"], "basalt:rack-a node-2/p0");
    // Up and 9216 are how every port comes.
    assert_eq!(port["link"], json!({"speed": "200G", "fec": "rs"}));
    assert_eq!(port["bridge"]["domain"]["br_default"], json!({"untagged": 100, "vlan": {"200": {}}}));
    assert_eq!(port["qos"]["pfc"]["profile"], "basalt_rack-a_pfc3");
    assert_eq!(
        applied["qos"]["egress-scheduler"]["basalt_rack-a_q-3w60-6s"]["traffic-class"],
        json!({"3": {"mode": "dwrr", "bw-percent": 60}, "6": {"mode": "strict"}})
    );
    assert_eq!(applied["qos"]["mapping"]["basalt_rack-a_roce"]["dscp"]["26"], json!({"switch-priority": 3}));
    assert_eq!(
        applied["qos"]["congestion-control"]["basalt_rack-a_ecn100"]["traffic-class"]["3"],
        json!({"min-threshold": 150_000, "max-threshold": 1_501_500, "probability": 100, "ecn": "enable", "red": "disable"})
    );
    assert_eq!(applied["interface"]["peerlink"]["bond"]["member"], json!({"swp4": {}}));
    assert_eq!(
        applied["mlag"],
        json!({"enable": "on", "mac-address": "44:38:39:be:ef:aa", "peer-ip": "10.254.0.1"})
    );
    assert_eq!(applied["interface"]["bond13"]["bond"]["mlag"], json!({"enable": "on", "id": 13}));
    assert!(applied["interface"].get("swp7").is_none(), "not in the intent, not touched");
}

#[tokio::test]
async fn everything_of_ours_goes_again() {
    let (web, switch) = leaf().await;
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let nothing = Desired { state: Default::default(), ..wanted };
    let plan = planned(&*switch, &nothing).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let left = planned(&*switch, &nothing).await;
    assert!(left.is_empty(), "{left}");
    let text = web.site().applied.to_string();
    assert!(!text.contains("basalt") && !text.contains("bond13") && !text.contains("peerlink"), "{text}");
}

#[tokio::test]
async fn an_unconfirmed_change_goes_by_itself_or_when_asked() {
    let (web, switch) = leaf().await;
    let before = web.site().applied.clone();
    let plan = planned(&*switch, &wanted()).await;
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    assert_ne!(web.site().applied, before);
    web.site().expire();
    assert_eq!(web.site().applied, before);
    let error = switch.confirm(&pending).await.unwrap_err();
    assert!(matches!(&error.cause, Cause::Conflict { reason } if reason.contains("ran out")), "{error}");
    switch.roll_back(&pending).await.unwrap();
    let pending = switch.apply(&plan, HOLD).await.unwrap();
    let error = switch.apply(&plan, HOLD).await.unwrap_err();
    assert!(matches!(&error.cause, Cause::Conflict { .. }), "{error}");
    switch.roll_back(&pending).await.unwrap();
    switch.roll_back(&pending).await.unwrap();
    assert_eq!(web.site().applied, before);
}

#[tokio::test]
async fn what_others_configured_is_seen_and_kept() {
    let (web, switch) = leaf().await;
    {
        let mut site = web.site();
        site.applied["bridge"]["domain"]["br_default"]["vlan"] = json!({"7-8": {}});
        site.applied["interface"]["swp1"] =
            json!({"description": "uplink, ask the network team", "bridge": {"domain": {"br_default": {}}}});
        site.applied["interface"]["swp2"] = json!({"bridge": {"domain": {"br_default": {"access": 7}}}});
        site.applied["interface"]["swp7"] = json!({"description": "printer"});
        site.applied["qos"]["pfc"]["theirs"] = json!({"switch-priority": {"4": {}}});
    }
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    assert_eq!(plan.refusals.len(), 1, "{plan}");
    assert_eq!(plan.refusals[0].object, Key::new(Kind::Port, "swp1"));
    let text = plan.to_string();
    assert!(text.contains("- VLAN member 7 swp2") && !text.contains("- VLAN 7"), "{text}");
    let adopt = Desired { adopt: true, ..wanted };
    let plan = planned(&*switch, &adopt).await;
    switch.apply(&plan, HOLD).await.unwrap();
    let left = planned(&*switch, &adopt).await;
    assert!(left.is_empty(), "{left}");
    let applied = web.site().applied.clone();
    assert_eq!(applied["interface"]["swp7"], json!({"description": "printer"}));
    assert_eq!(applied["qos"]["pfc"]["theirs"], json!({"switch-priority": {"4": {}}}));
    assert!(applied["bridge"]["domain"]["br_default"]["vlan"].get("7-8").is_some());
}

#[tokio::test]
async fn every_way_to_fail_is_told_by_the_switch_s_words() {
    let (web, switch) = leaf().await;
    let plan = planned(&*switch, &wanted()).await;
    let before = web.site().applied.clone();
    for (state, message) in [
        ("ays_fail", "Warning: the following files have been changed since the last save"),
        ("verify_fail", "swp2: 200G is not a speed of this module"),
        ("reload_error", "switchd failed to reload"),
        ("invalid", "config is invalid"),
    ] {
        web.site().fails = Some((state, message));
        let error = switch.apply(&plan, HOLD).await.unwrap_err();
        assert!(
            matches!(&error.cause, Cause::Rejected { reason, .. } if reason == &format!("{state}: {message}")),
            "{error}"
        );
        assert_eq!(web.site().applied, before);
    }
    web.site().fails = None;
    web.fault(
        "PATCH /nvue_v1/?rev",
        Fault::Status(
            400,
            vec![],
            json!({"status": 400, "title": "Bad Request",
        "type": "about:blank", "detail": "'interface.swp1.link.mtu' must be at most 9216"})
            .to_string(),
        ),
    );
    let error = switch.apply(&plan, HOLD).await.unwrap_err();
    assert!(error.to_string().contains("must be at most 9216"), "{error}");
    web.site().build = "Cumulus Linux 5.4.0".into();
    let error = switch.discover().await.unwrap_err();
    assert!(
        matches!(&error.cause, Cause::VersionMismatch { found, .. } if found == "Cumulus Linux 5.4.0"),
        "{error}"
    );
}

#[tokio::test]
async fn neighbours_and_counters_are_read() {
    let (web, switch) = leaf().await;
    web.site().neighbours.insert(
        "swp1".into(),
        json!({"node-1": {
        "chassis": {"chassis-id": "02:00:00:00:00:01", "system-name": "node-1"},
        "port": {"name": "p0", "description": "storage", "type": "ifname"}}}),
    );
    web.site().stats = json!({"swp1": {"qos": {"pfc-stats": {"switch-priority": {"3": {"rx-pause-frames": 7, "tx-pause-frames": 9}}}}}});
    let observed = switch.read().await.unwrap();
    assert_eq!(observed.neighbours.len(), 1);
    assert_eq!(observed.neighbours[0].device_port, "p0");
    assert!(observed.links[&basalt_switch_api::InterfaceName::from("swp1")].up);
    let counters = switch.counters().await.unwrap();
    let port = &counters.ports[&basalt_switch_api::InterfaceName::from("swp1")];
    assert_eq!((port.rx_bytes, port.rx_errors, port.queues[&3].pfc_rx_frames), (1000, 1, 7));
}
