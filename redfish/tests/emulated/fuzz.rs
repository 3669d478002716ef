//! JSON that no BMC should send: an answer or an error, never a panic.

use crate::common::{connection, limits};
use basalt_redfish::model::{BootTarget, OverrideEnabled, ResourcePath};
use basalt_redfish::{Bmc, BootOverride, Client, Connection, Limits, PowerAction};
use basalt_redfish_emulator::{Emulator, Fault, vendors};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use std::time::Duration;

fn any_json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "[ -~]{0,20}",
        "\\PC{0,10}",
        Just("/redfish/v1/Systems/1".to_owned()),
        Just("/redfish/v1/Systems/1#/Boot/0".to_owned()),
        Just("Enabled".to_owned()),
        Just("2024-13-45T99:99:99+99:99".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let key = prop_oneof![
            "[A-Za-z@.#]{0,12}",
            Just("@odata.id".to_owned()),
            Just("Members".to_owned()),
            Just("Boot".to_owned()),
            Just("Status".to_owned()),
            Just("Actions".to_owned()),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5).prop_map(|pairs| pairs.into_iter().collect::<Value>()),
        ]
    })
}

/// Replaces some of a resource's values, deep inside too.
fn spoil(value: &mut Value, runner: &mut TestRunner, chance: u32) {
    let draw = (0u32..100).new_tree(runner).unwrap().current();
    if draw < chance {
        *value = any_json().new_tree(runner).unwrap().current();
        return;
    }
    match value {
        Value::Object(object) => object.values_mut().for_each(|value| spoil(value, runner, chance)),
        Value::Array(list) => list.iter_mut().for_each(|value| spoil(value, runner, chance)),
        _ => {}
    }
}

async fn do_everything(client: &Client) {
    let path = ResourcePath::new("/redfish/v1/Systems/1").unwrap();
    client.quirks().await.ok();
    client.systems().await.ok();
    if let Ok(inventory) = client.inventory(&path).await {
        let text = serde_json::to_string(&inventory).unwrap();
        let again: basalt_redfish::model::Inventory = serde_json::from_str(&text).unwrap();
        assert_eq!(again.problems.len(), inventory.problems.len());
    }
    client.power(&path, PowerAction::On).await.ok();
    let boot = BootOverride { target: BootTarget::Pxe, ..BootOverride::pxe(OverrideEnabled::Once) };
    client.set_boot_override(&path, &boot).await.ok();
    client.set_boot_order(&path, &["Boot0001".to_owned()]).await.ok();
    client.set_bios(&path, &[("SriovEnabled".to_owned(), json!(true))].into()).await.ok();
    for slot in client.virtual_media(&path).await.unwrap_or_default() {
        client.insert_media(&slot, "http://10.0.0.1/x.iso").await.ok();
    }
    client.set_indicator(&path, true).await.ok();
    client.enrol_certificate(&path, "db", "-----BEGIN CERTIFICATE-----").await.ok();
    for log in client.log_services(&path).await.unwrap_or_default() {
        client.log_entries(&log, 5).await.ok();
    }
    client.accounts().await.ok();
    client.subscriptions().await.ok();
    client.subscribe("http://10.0.0.1/", "x").await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoilt_trees_panic_nowhere() {
    let mut runner = TestRunner::deterministic();
    let limits = Limits { request: Duration::from_millis(500), attempts: 1, members: 50, ..limits() };
    for round in 0..40 {
        let mut tree = vendors::plain(round);
        let chance = 1 + round % 8;
        for resource in tree.resources.values_mut() {
            spoil(resource, &mut runner, chance);
        }
        let emulator = Emulator::start(tree).await;
        let client = Client::new(Connection { limits, ..connection(&emulator) }).unwrap();
        do_everything(&client).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_json_panic_nowhere() {
    let mut runner = TestRunner::deterministic();
    let emulator = Emulator::start(vendors::plain(1)).await;
    let limits = Limits { request: Duration::from_millis(500), attempts: 1, ..limits() };
    let client = Client::new(Connection { limits, ..connection(&emulator) }).unwrap();
    let path = client.systems().await.unwrap().remove(0).path;
    let bodies = prop_oneof![
        "[{}\\[\\]\",:0-9a-z@.]{0,60}".boxed(),
        any_json().prop_map(|json| json.to_string()).boxed(),
        any_json()
            .prop_map(|json| {
                let text = json.to_string();
                text.chars().take(text.chars().count() / 2).collect()
            })
            .boxed(),
    ];
    for _ in 0..300 {
        let body: String = bodies.new_tree(&mut runner).unwrap().current();
        emulator.fault("GET", Fault::Body(body.clone()));
        client.system(&path).await.ok();
        emulator.clear_faults();
        emulator.fault("POST", Fault::Status(400, body));
        client.power(&path, PowerAction::ForceOff).await.ok();
        emulator.clear_faults();
    }
}
