//! Everything that a BMC can be asked to do, and what it is afterwards.

use crate::common::{basic, client, connection, limits, system, system_path, with};
use basalt_redfish::model::{BootTarget, OverrideEnabled, PowerState, TaskState};
use basalt_redfish::{
    Bmc, BootOverride, Cause, Client, Connection, Credentials, Limits, PowerAction, Secret, TaskWait,
    UpdateImage, UpdateRequest,
};
use basalt_redfish_emulator::{Emulator, Options, vendors};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

#[tokio::test]
async fn power_follows_the_orders() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let state = async || client.system(&path).await.unwrap().power_state.unwrap();
    assert_eq!(state().await, PowerState::Off);
    client.power(&path, PowerAction::On).await.unwrap();
    client.power(&path, PowerAction::On).await.unwrap();
    assert_eq!(state().await, PowerState::On);
    assert_eq!(emulator.boots().len(), 1, "a server that is on is left on");
    for action in [PowerAction::PowerCycle, PowerAction::ForceRestart, PowerAction::GracefulRestart] {
        client.power(&path, action).await.unwrap();
    }
    assert_eq!(emulator.boots().len(), 4);
    client.power(&path, PowerAction::GracefulOff).await.unwrap();
    assert_eq!(state().await, PowerState::Off);
    emulator.change(path.as_str(), |system| {
        system["Actions"]["#ComputerSystem.Reset"]["ResetType@Redfish.AllowableValues"] = json!(["On"]);
    });
    let error = client.power(&path, PowerAction::ForceOff).await.unwrap_err();
    assert!(matches!(&error.cause, Cause::Unsupported { what } if what.contains("it offers: On")), "{error}");
}

#[tokio::test]
async fn a_boot_override_is_used_once() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let uri = "http://10.0.0.1/boot.efi";
    client.set_boot_override(&path, &BootOverride::uefi_http(OverrideEnabled::Once, uri)).await.unwrap();
    client.power(&path, PowerAction::On).await.unwrap();
    client.power(&path, PowerAction::PowerCycle).await.unwrap();
    let boots = emulator.boots();
    assert_eq!((boots[0].target.as_str(), boots[0].uri.as_deref()), ("UefiHttp", Some(uri)));
    assert_eq!(boots[1].target, "None");
    client.set_boot_override(&path, &BootOverride::pxe(OverrideEnabled::Continuous)).await.unwrap();
    client.power(&path, PowerAction::PowerCycle).await.unwrap();
    client.set_boot_override(&path, &BootOverride::none()).await.unwrap();
    client.power(&path, PowerAction::PowerCycle).await.unwrap();
    let targets: Vec<String> = emulator.boots()[2..].iter().map(|boot| boot.target.clone()).collect();
    assert_eq!(targets, ["Pxe", "None"]);
    let shell = BootOverride { target: BootTarget::UefiShell, ..BootOverride::pxe(OverrideEnabled::Once) };
    let error = client.set_boot_override(&path, &shell).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unsupported { .. }), "{error}");
}

#[tokio::test]
async fn the_boot_order_is_changed_and_nothing_is_lost_of_it() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let options = client.boot_options(&path).await.unwrap();
    assert_eq!(options.len(), 3);
    let last = options[2].reference.clone().unwrap();
    client.set_boot_order(&path, std::slice::from_ref(&last)).await.unwrap();
    assert_eq!(client.system(&path).await.unwrap().boot.order, [last.as_str(), "Boot0000", "Boot0001"]);
    let error = client.set_boot_order(&path, &["Boot0099".to_owned()]).await.unwrap_err();
    assert!(error.to_string().contains("no boot option Boot0099"), "{error}");
}

#[tokio::test]
async fn bios_settings_come_into_force_at_the_next_boot() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let wanted = BTreeMap::from([("SriovEnabled".to_owned(), json!(true))]);
    let accepted = client.set_bios(&path, &wanted).await.unwrap();
    assert!(accepted.after_reset);
    let bios = client.bios(&path).await.unwrap();
    assert_eq!(
        (&bios.attributes["SriovEnabled"], &bios.pending["SriovEnabled"]),
        (&json!(false), &json!(true))
    );
    client.power(&path, PowerAction::On).await.unwrap();
    let bios = client.bios(&path).await.unwrap();
    assert_eq!(bios.attributes["SriovEnabled"], json!(true));
    assert!(bios.pending.is_empty());
    let unknown = BTreeMap::from([("Sriov".to_owned(), json!(true))]);
    let error = client.set_bios(&path, &unknown).await.unwrap_err();
    assert!(error.to_string().contains("BIOS attribute Sriov"), "{error}");
}

#[tokio::test]
async fn media_are_inserted_and_ejected() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let slot = client.virtual_media(&path).await.unwrap().remove(0);
    client.insert_media(&slot, "http://10.0.0.1/node.iso").await.unwrap();
    let now = client.virtual_media(&path).await.unwrap().remove(0);
    assert_eq!((now.inserted, now.image.as_deref()), (Some(true), Some("http://10.0.0.1/node.iso")));
    client.eject_media(&slot).await.unwrap();
    assert_eq!(client.virtual_media(&path).await.unwrap()[0].inserted, Some(false));
}

#[tokio::test]
async fn lights_secure_boot_logs_accounts() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    client.set_indicator(&path, true).await.unwrap();
    assert_eq!(system(&client).await.location_indicator_active, Some(true));
    let (dell, _) = vendors::dell(1);
    let older = Emulator::start(dell).await;
    let older_client = crate::common::client(&older);
    let older_path = system_path(&older_client).await;
    older_client.set_indicator(&older_path, true).await.unwrap();
    assert_eq!(older.resource(older_path.as_str()).unwrap()["IndicatorLED"], "Blinking");

    client.set_secure_boot(&path, true).await.unwrap();
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
    client.enrol_certificate(&path, "db", pem).await.unwrap();
    assert!(client.enrol_certificate(&path, "nowhere", pem).await.is_err());
    assert!(client.enrol_certificate(&path, "db", "no certificate").await.is_err());
    client.power(&path, PowerAction::On).await.unwrap();
    assert_eq!(client.secure_boot(&path).await.unwrap().current_boot.as_deref(), Some("Enabled"));
    let database = format!("{path}/SecureBoot/SecureBootDatabases/db/Certificates");
    assert_eq!(emulator.resource(&database).unwrap()["Members@odata.count"], 1);
    client.reset_secure_boot_keys(&path, "ResetAllKeysToDefault").await.unwrap();
    assert_eq!(client.secure_boot(&path).await.unwrap().mode.as_deref(), Some("UserMode"));

    let logs = client.log_services(&path).await.unwrap();
    assert_eq!(logs.len(), 2);
    let entries = client.log_entries(&logs[0], 2).await.unwrap();
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["3", "2"], "newest first");
    client.clear_log(&logs[0]).await.unwrap();
    assert!(client.log_entries(&logs[0], 10).await.unwrap().is_empty());

    let account =
        client.create_account(&Credentials::new("basalt", "long-enough"), "Administrator").await.unwrap();
    assert_eq!(client.accounts().await.unwrap().len(), 2);
    client.set_password(&account.path, &Secret::new("another-one")).await.unwrap();
    let other =
        Connection { credentials: Credentials::new("basalt", "another-one"), ..connection(&emulator) };
    assert_eq!(Client::new(other).unwrap().systems().await.unwrap().len(), 1);
    client.delete_account(&account.path).await.unwrap();
    assert_eq!(client.accounts().await.unwrap().len(), 1);
}

#[tokio::test]
async fn firmware_is_updated_by_address_and_by_form() {
    let (openbmc, _) = vendors::openbmc(1);
    for tree in [vendors::plain(1), openbmc] {
        let options = Options { task_takes: Duration::from_millis(300), ..Options::default() };
        let emulator = Emulator::start_with(tree, options).await;
        let client = client(&emulator);
        let wait = TaskWait { limit: Duration::from_secs(20), pause: Duration::from_millis(10) };
        let bios = client
            .firmware()
            .await
            .unwrap()
            .into_iter()
            .find(|item| item.id.as_deref() == Some("BIOS"))
            .unwrap();
        let uri = UpdateImage::Uri {
            uri: "http://10.0.0.1/bios-9.1.bin".to_owned(),
            protocol: None,
            credentials: None,
        };
        let update = UpdateRequest { image: uri, targets: vec![bios.path.clone()], apply_time: None };
        let accepted = client.update_firmware(&update).await.unwrap();
        let mut percents = Vec::new();
        let mut seen = |task: &basalt_redfish::model::Task| percents.push(task.percent.unwrap());
        let task = client.wait_for_task(accepted.task.as_ref().unwrap(), wait, &mut seen).await.unwrap();
        assert_eq!((task.state, task.percent), (Some(TaskState::Completed), Some(100)));
        assert!(percents.len() > 1 && percents.is_sorted(), "{percents:?}");
        let content = UpdateImage::Content { file_name: "bios-9.2.bin".to_owned(), bytes: vec![7; 3 << 20] };
        let update = UpdateRequest { image: content, targets: vec![bios.path.clone()], apply_time: None };
        let accepted = client.update_firmware(&update).await.unwrap();
        client.wait_for_task(accepted.task.as_ref().unwrap(), wait, &mut |_| {}).await.unwrap();
        let versions: Vec<_> =
            client.firmware().await.unwrap().into_iter().filter_map(|item| item.version).collect();
        assert!(versions.iter().any(|version| version == "9.2" || version == "2.0.0"), "{versions:?}");

        let bad = UpdateImage::Uri {
            uri: "http://10.0.0.1/bad-1.bin".to_owned(),
            protocol: None,
            credentials: None,
        };
        let update = UpdateRequest { image: bad, targets: vec![bios.path], apply_time: None };
        let accepted = client.update_firmware(&update).await.unwrap();
        let error = client.wait_for_task(&accepted.task.unwrap(), wait, &mut |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("not signed by the vendor"), "{error}");
    }
}

#[tokio::test]
async fn a_task_that_takes_too_long_is_left_and_named() {
    let options = Options { task_takes: Duration::from_secs(60), ..Options::default() };
    let emulator = Emulator::start_with(vendors::plain(1), options).await;
    let client = client(&emulator);
    let image = UpdateImage::Content { file_name: "bios-2.bin".to_owned(), bytes: vec![1] };
    let update = UpdateRequest { image, targets: Vec::new(), apply_time: None };
    let task = client.update_firmware(&update).await.unwrap().task.unwrap();
    let wait = TaskWait { limit: Duration::from_millis(100), pause: Duration::from_millis(10) };
    let error = client.wait_for_task(&task, wait, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error.cause, Cause::TaskUnfinished { .. }), "{error}");
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let mut events = client.events().await.unwrap();
    client.power(&path, PowerAction::On).await.unwrap();
    emulator.emit("A drive was pulled.", "Critical");
    let patience = Duration::from_secs(10);
    let first = tokio::time::timeout(patience, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.origin.as_ref(), Some(&path));
    let second = tokio::time::timeout(patience, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(second.message.as_deref(), Some("A drive was pulled."));
    assert!(second.time.is_some());

    emulator.expire_sessions();
    drop(client.events().await.unwrap());
    let subscription = client.subscribe("https://10.0.0.1/events", "basalt").await.unwrap();
    let all = client.subscriptions().await.unwrap();
    assert_eq!((all.len(), all[0].context.as_deref()), (1, Some("basalt")));
    client.unsubscribe(&subscription).await.unwrap();
    assert!(client.subscriptions().await.unwrap().is_empty());
    drop(emulator);
    assert_eq!(tokio::time::timeout(patience, events.next()).await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn one_session_and_one_connection_at_a_time_and_none_after() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let all: Vec<_> = (0..8)
        .map(|_| {
            let (client, path) = (client.clone(), path.clone());
            tokio::spawn(async move { client.inventory(&path).await.unwrap() })
        })
        .collect();
    for one in all {
        assert!(one.await.unwrap().problems.is_empty());
    }
    client.power(&path, PowerAction::On).await.unwrap();
    assert_eq!(emulator.open_sessions(), 1);
    assert!(emulator.most_connections() <= 2, "a change goes over a new connection, as the old one ends");
    emulator.expire_sessions();
    client.power(&path, PowerAction::ForceOff).await.unwrap();
    assert_eq!(emulator.open_sessions(), 1, "logged in anew");
    client.close().await;
    assert_eq!(emulator.open_sessions(), 0);
}

#[tokio::test]
async fn sessions_that_are_all_taken_are_done_without() {
    let options = Options { max_sessions: 0, ..Options::default() };
    let emulator = Emulator::start_with(vendors::plain(1), options).await;
    assert_eq!(client(&emulator).systems().await.unwrap().len(), 1);
    let no_sessions = vendors::Shape { sessions: false, ..vendors::Shape::plain(1) };
    let emulator = Emulator::start(no_sessions.tree()).await;
    assert_eq!(client(&emulator).systems().await.unwrap().len(), 1);
    assert_eq!(basic(&emulator).systems().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_manager_restarts_and_is_found_again() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let connection = Connection { limits: Limits { attempts: 40, ..limits() }, ..connection(&emulator) };
    let client = Client::new(connection).unwrap();
    let manager = client.managers().await.unwrap().remove(0);
    client.reset_manager(&manager.path).await.unwrap();
    assert_eq!(client.systems().await.unwrap().len(), 1);
}

#[tokio::test]
async fn pages_and_expansion_give_the_same() {
    let expanded = Emulator::start(vendors::plain(1)).await;
    let whole = client(&expanded);
    let whole_inventory = whole.inventory(&system_path(&whole).await).await.unwrap();
    let shape = vendors::Shape { expand: false, ..vendors::Shape::plain(1) };
    let options = Options { page_members: Some(1), ..Options::default() };
    let paged = Emulator::start_with(shape.tree(), options).await;
    let pages = client(&paged);
    let mut paged_inventory = pages.inventory(&system_path(&pages).await).await.unwrap();
    assert!(pages.requests() > whole.requests() * 2, "{} and {}", pages.requests(), whole.requests());
    paged_inventory.service = whole_inventory.service.clone();
    assert_eq!(paged_inventory, whole_inventory);
}

#[tokio::test]
async fn somebody_elses_change_is_not_overwritten() {
    let emulator = with(vendors::plain(1), []).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    // The tag that is read is not the one that is there when the change comes.
    emulator.fault(&format!("GET {path}"), basalt_redfish_emulator::Fault::WrongTag);
    let error = client.set_boot_override(&path, &BootOverride::pxe(OverrideEnabled::Once)).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Conflict { .. }), "{error}");
    client.set_boot_override(&path, &BootOverride::pxe(OverrideEnabled::Once)).await.unwrap();
}
