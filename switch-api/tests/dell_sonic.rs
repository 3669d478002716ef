//! The driver for Dell Enterprise SONiC against a switch that keeps RESTCONF's rules over real HTTP.

#[path = "support/dell_site.rs"]
mod dell_site;
#[path = "support/intent.rs"]
mod intent;
#[path = "support/web.rs"]
mod web;
#[path = "support/yang.rs"]
mod yang;

use basalt_switch_api::desired::Desired;
use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::state::{Key, Kind};
use basalt_switch_api::{ApplyOptions, Cause, Switch};
use dell_site::DellSite;
use intent::planned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use web::{Fault, Web};
use yang::Yang;

const PORTS: [&str; 6] = ["Ethernet0", "Ethernet4", "Ethernet8", "Ethernet12", "Ethernet16", "Ethernet20"];
const NOW: ApplyOptions = ApplyOptions { hold: Duration::ZERO };

fn wanted() -> Desired {
    intent::leaf(&intent::fabric("dell_sonic", PORTS, ""))
}

async fn leaf() -> (Web<DellSite>, Arc<dyn Switch>) {
    let mut ports = PORTS.to_vec();
    ports.push("Ethernet24");
    Web::with(DellSite::factory(&ports), DriverKind::DellSonic).await
}

#[tokio::test]
async fn a_factory_switch_is_made_as_wanted_and_then_left() {
    let (web, switch) = leaf().await;
    let identity = switch.discover().await.unwrap();
    assert_eq!((identity.model.as_str(), identity.host_name.as_str()), ("S5232F-ON", "leaf-1"));
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    assert!(plan.refusals.is_empty(), "{plan}");
    assert_eq!(plan.notes, ["this switch has no DCBX of port; left out"]);
    let pending = switch.apply(&plan, NOW).await.unwrap();
    let left = planned(&*switch, &wanted).await;
    assert!(left.is_empty(), "{left}");
    switch.confirm(&pending).await.unwrap();
    let site = web.site();
    assert_eq!(site.startup, site.tree);
    let port = site.interface("Ethernet4");
    assert_eq!(port["config"]["description"], "basalt:rack-a node-2/p0");
    assert_eq!(port["ethernet"]["config"]["port-speed"], "openconfig-if-ethernet:SPEED_200GB");
    assert_eq!(port["ethernet"]["switched-vlan"]["config"]["trunk-vlans"], json!([200]));
    assert_eq!(site.interface("Ethernet8")["ethernet"]["config"]["aggregate-id"], "PortChannel13");
    let path = "openconfig-qos:qos/interfaces/interface=Ethernet4/openconfig-qos-ext:pfc/pfc-priorities";
    let (_, body) = site.bodies.iter().find(|(p, _)| p == path).unwrap();
    assert_eq!(
        body,
        &json!({"openconfig-qos-ext:pfc-priorities": {"pfc-priority": [{"dot1p": 3, "config": {"dot1p": 3, "enable": true}}]}})
    );
    assert!(site.interface("Ethernet24")["config"]["description"].is_null());
}

#[tokio::test]
async fn everything_of_ours_goes_again_and_a_change_is_taken_back() {
    let (web, switch) = leaf().await;
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    let pending = switch.apply(&plan, NOW).await.unwrap();
    switch.roll_back(&pending).await.unwrap();
    let back = planned(&*switch, &wanted).await;
    assert_eq!(back.changes.len(), plan.changes.len(), "{back}");
    switch.apply(&back, NOW).await.unwrap();
    let nothing = Desired { state: Default::default(), ..wanted };
    let plan = planned(&*switch, &nothing).await;
    switch.apply(&plan, NOW).await.unwrap();
    let left = planned(&*switch, &nothing).await;
    assert!(left.is_empty(), "{left}");
    let text = web.site().tree.to_string();
    assert!(!text.contains("basalt"), "{text}");
}

#[tokio::test]
async fn what_broke_off_in_the_middle_says_how_far_and_is_finished() {
    let (web, switch) = leaf().await;
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    web.site().full_after = Some(9);
    let error = switch.apply(&plan, NOW).await.unwrap_err();
    let Cause::Interrupted { done, total, reason } = &error.cause else { panic!("{error}") };
    assert!(*done > 0 && *done <= 9 && *total == plan.changes.len(), "{error}");
    assert!(reason.contains("CONFIG_DB is full"), "{reason}");
    web.site().full_after = None;
    let rest = planned(&*switch, &wanted).await;
    assert!(rest.changes.len() < plan.changes.len());
    switch.apply(&rest, NOW).await.unwrap();
    assert!(planned(&*switch, &wanted).await.is_empty());
}

#[tokio::test]
async fn a_lost_answer_in_the_middle_is_an_interruption_and_is_not_sent_again() {
    let (web, switch) = leaf().await;
    let plan = planned(&*switch, &wanted()).await;
    web.fault("Vlan100", Fault::LoseAnswer);
    let error = switch.apply(&plan, NOW).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Interrupted { .. }), "{error}");
    let sent = web.seen.lock().unwrap().iter().filter(|(_, b)| b.to_string().contains("\"Vlan100\"")).count();
    assert_eq!(sent, 1);
}

#[tokio::test]
async fn someone_elses_change_in_between_is_a_conflict() {
    let (web, switch) = leaf().await;
    let plan = planned(&*switch, &wanted()).await;
    let stale = json!({"ietf-restconf:errors": {"error": [{"error-type": "protocol",
        "error-tag": "operation-failed", "error-message": "the entity tag does not match"}]}});
    web.fault("PATCH", Fault::Status(412, vec![], stale.to_string()));
    let error = switch.apply(&plan, NOW).await.unwrap_err();
    assert!(matches!(&error.cause, Cause::Conflict { reason } if reason.contains("entity tag")), "{error}");
    // And the tags are really sent: a write under a stale one is refused by the switch itself.
    let site = web.site.clone();
    site.lock().unwrap().meddle(|_| {});
    switch.apply(&plan, NOW).await.unwrap();
}

#[tokio::test]
async fn what_others_configured_is_seen_and_kept() {
    let (web, switch) = leaf().await;
    web.site().meddle(|tree| {
        let list = tree["interfaces"]["interface"].as_array_mut().unwrap();
        list[0]["config"]["description"] = json!("uplink, ask the network team");
        list[1]["ethernet"]["switched-vlan"] =
            json!({"config": {"interface-mode": "TRUNK", "trunk-vlans": [7]}});
        list.push(json!({"name": "Vlan7", "config": {"name": "Vlan7", "description": "voice"}}));
    });
    let wanted = wanted();
    let plan = planned(&*switch, &wanted).await;
    assert_eq!(plan.refusals.len(), 1, "{plan}");
    assert_eq!(plan.refusals[0].object, Key::new(Kind::Port, "Ethernet0"));
    let adopt = Desired { adopt: true, ..wanted };
    switch.apply(&planned(&*switch, &adopt).await, NOW).await.unwrap();
    let left = planned(&*switch, &adopt).await;
    assert!(left.is_empty(), "{left}");
    assert_eq!(web.site().interface("Vlan7")["config"]["description"], "voice");
}

#[tokio::test]
async fn refusals_have_one_meaning_each() {
    let (web, switch) = leaf().await;
    let mut wanted = wanted();
    let mut port = wanted.state.port(&"Ethernet0".into()).unwrap().clone();
    port.mtu_bytes = Some(9300);
    wanted.state = [port].into_iter().collect();
    let plan = planned(&*switch, &wanted).await;
    let error = switch.apply(&plan, NOW).await.unwrap_err();
    assert!(
        matches!(&error.cause, Cause::Rejected { reason, .. } if reason.contains("range 1312..9216")),
        "{error}"
    );
    for (tag, status) in [("access-denied", 403), ("lock-denied", 409)] {
        let body = json!({"ietf-restconf:errors": {"error": [{"error-type": "protocol", "error-tag": tag, "error-message": "no"}]}});
        web.fault("PATCH", Fault::Status(status, vec![], body.to_string()));
        let error = switch.apply(&plan, NOW).await.unwrap_err();
        let right = match tag {
            "access-denied" => matches!(error.cause, Cause::Forbidden { .. }),
            _ => matches!(error.cause, Cause::Locked { .. }),
        };
        assert!(right, "{error}");
    }
    web.site().version = "3.1.0".into();
    let error = switch.discover().await.unwrap_err();
    assert!(
        matches!(&error.cause, Cause::VersionMismatch { found, .. } if found == "Enterprise SONiC 3.1.0"),
        "{error}"
    );
    web.fault("GET", Fault::Status(404, vec![], "<html>nginx</html>".into()));
    let error = switch.read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::BadReply { .. }), "{error}");
}

#[tokio::test]
async fn neighbours_and_counters_are_read() {
    let (web, switch) = leaf().await;
    web.site().meddle(|tree| {
        tree["lldp"]["interfaces"]["interface"] = json!([{"name": "Ethernet0", "neighbors": {"neighbor": [
            {"id": "1", "state": {"system-name": "node-1", "chassis-id": "02:00:00:00:00:01", "port-id": "p0", "port-description": "storage"}}]}}]);
        tree["qos"]["interfaces"] = json!({"interface": [{"interface-id": "Ethernet0", "pfc": {"pfc-priorities": {"pfc-priority": [
            {"dot1p": 3, "state": {"statistics": {"pause-frames-rx": "7", "pause-frames-tx": "9"}}}]}}}]});
    });
    let observed = switch.read().await.unwrap();
    assert_eq!(
        (observed.neighbours[0].device.as_str(), observed.neighbours[0].device_port.as_str()),
        ("node-1", "p0")
    );
    let counters = switch.counters().await.unwrap();
    let port = &counters.ports[&basalt_switch_api::InterfaceName::from("Ethernet0")];
    assert_eq!((port.rx_bytes, port.rx_errors, port.queues[&3].pfc_rx_frames), (1000, 1, 7));
}

/// Members whose models are the vendor's own and not public, and `wred` of a queue, which the public model had in the revision that
/// the vendor keeps: left out before validation.
const WITHOUT_MODEL: [&str; 5] = [
    "wred",
    "openconfig-if-ethernet-ext2:",
    "openconfig-interfaces-ext:",
    "openconfig-qos-ext:",
    "openconfig-qos-maps-ext:",
];

fn public(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(name, _)| !WITHOUT_MODEL.iter().any(|m| name.starts_with(m)));
            kept.map(|(name, below)| (name.clone(), public(below))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(list) => list.iter().map(public).collect(),
        leaf => leaf.clone(),
    }
}

/// A part that the vendor's own models alone describe.
fn is_vendors(text: &str) -> bool {
    text.starts_with("openconfig-mclag:") || WITHOUT_MODEL.iter().any(|model| text.contains(model))
}

#[tokio::test]
async fn payloads_are_valid_by_the_public_models() {
    let models = ["interfaces", "if-ethernet", "if-aggregate", "if-ip", "vlan", "qos"];
    let models = models.map(|model| format!("openconfig-{model}"));
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let test = "payloads_are_valid_by_the_public_models";
    let Some(yang) = Yang::open(test, "openconfig", &models, &["-i", "-t", "edit"]) else { return };
    let (web, switch) = leaf().await;
    let plan = planned(&*switch, &wanted()).await;
    let pending = switch.apply(&plan, NOW).await.unwrap();
    let made = web.site().bodies.len();
    switch.roll_back(&pending).await.unwrap();
    let mut all = serde_json::Map::new();
    let mut each = std::collections::BTreeSet::new();
    let bodies = web.site().bodies.clone();
    for (number, (path, body)) in bodies.iter().enumerate() {
        let (name, value) = public(body)
            .as_object()
            .and_then(|m| m.iter().next().map(|(n, v)| (n.clone(), v.clone())))
            .unwrap_or_default();
        if path.contains('/') || name.is_empty() || name.starts_with("openconfig-mclag") {
            assert!(is_vendors(path), "{path}: a public model would know it, and it is not validated");
            continue;
        }
        each.insert(json!({ &name: value }).to_string());
        if number < made {
            let whole = all.entry(name).or_insert(json!({}));
            add(whole, &value);
        }
    }
    // Each by itself, as the switch gets it.
    let texts: Vec<String> = each.into_iter().collect();
    yang.check_each("json", &texts).unwrap_or_else(|e| panic!("{e}\n{texts:#?}"));
    let whole = Value::Object(all);
    assert!(whole.to_string().contains("SPEED_200GB") && whole.to_string().contains("switched-vlan"));
    yang.check("json", &whole.to_string()).unwrap_or_else(|e| panic!("{e}\n{whole:#}"));
    // And refuted when broken on purpose: every leaf by a value of another type, every container by a member that is not there.
    let mut seen = std::collections::BTreeSet::new();
    let mut places = Vec::new();
    collect(&whole, String::new(), String::new(), &mut seen, &mut places);
    assert!(places.len() > 30, "{places:?}");
    for place in &places {
        let mut broken = whole.clone();
        let found = broken.pointer_mut(place).unwrap();
        match found {
            Value::Object(map) => drop(map.insert("no-such-leaf".into(), json!(1))),
            Value::String(_) => *found = json!(5),
            _ => *found = json!("~"),
        }
        assert!(yang.check("json", &broken.to_string()).is_err(), "{place} was let through");
    }
    println!("{} ways to break {} bodies, all refused", places.len(), bodies.len());
}

/// Pointers to one of each leaf and container, whatever list entry it is in.
fn collect(
    value: &Value,
    schema: String,
    pointer: String,
    seen: &mut std::collections::BTreeSet<String>,
    places: &mut Vec<String>,
) {
    if !value.is_array() && !pointer.is_empty() && seen.insert(schema.clone()) {
        places.push(pointer.clone());
    }
    let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map.iter().for_each(|(name, below)| {
            collect(below, format!("{schema}/{name}"), format!("{pointer}/{}", escaped(name)), seen, places);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, below)| {
            collect(below, format!("{schema}[]"), format!("{pointer}/{i}"), seen, places);
        }),
        _ => {}
    }
}

/// Bodies for the same resource as one; entries of lists by their key.
fn add(whole: &mut Value, more: &Value) {
    match (whole, more) {
        (Value::Object(whole), Value::Object(more)) => {
            for (name, value) in more {
                match whole.get_mut(name) {
                    Some(found) => add(found, value),
                    None => drop(whole.insert(name.clone(), value.clone())),
                }
            }
        }
        (Value::Array(whole), Value::Array(more)) => {
            for entry in more {
                let same = |e: &Value| {
                    ["name", "interface-id", "index", "ip", "sequence"]
                        .iter()
                        .any(|k| !e[*k].is_null() && e[*k] == entry[*k])
                };
                match whole.iter().position(same) {
                    Some(at) if whole[at].is_object() => add(&mut whole[at], entry),
                    _ if !whole.contains(entry) => whole.push(entry.clone()),
                    _ => {}
                }
            }
        }
        (whole, more) => *whole = more.clone(),
    }
}
