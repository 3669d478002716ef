//! Each quirk: refused (or without effect) without its rule, and handled with it. The rules must fit the emulated vendors.

use crate::common::{client, system_path, with, without_rules};
use basalt_redfish::model::OverrideEnabled;
use basalt_redfish::quirks::{RULES, Vendor};
use basalt_redfish::{
    Bmc, BootOverride, Cause, Client, Connection, PowerAction, Quirk, QuirkChoice, Quirks, Secret,
    UpdateImage, UpdateRequest,
};
use basalt_redfish_emulator::{Deviation, Emulator, Tree, vendors};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PXE: fn() -> BootOverride = || BootOverride::pxe(OverrideEnabled::Once);

/// An emulator with one deviation, and clients without rules and with the vendor's.
async fn pair(tree: Tree, deviation: Deviation) -> (Emulator, Client, Client) {
    let emulator = with(tree, [deviation]).await;
    let (without, with) = (without_rules(&emulator), client(&emulator));
    (emulator, without, with)
}

async fn has(client: &Client, quirk: Quirk) {
    let quirks = client.quirks().await.unwrap();
    assert!(quirks.has(quirk), "{quirk} is not among {quirks:?}");
}

fn attributes(key: &str, value: Value) -> BTreeMap<String, Value> {
    BTreeMap::from([(key.to_owned(), value)])
}

fn update() -> UpdateRequest {
    let image = UpdateImage::Content { file_name: "bios-7.bin".to_owned(), bytes: vec![1, 2, 3] };
    UpdateRequest { image, targets: Vec::new(), apply_time: None }
}

#[tokio::test]
async fn dell_bios_needs_apply_time() {
    let (emulator, without, with) = pair(vendors::dell(1).0, Deviation::BiosJobOnlyWithApplyTime).await;
    has(&with, Quirk::BiosNeedsApplyTime).await;
    let path = system_path(&with).await;
    let wanted = attributes("SriovGlobalEnable", json!("Enabled"));
    without.set_bios(&path, &wanted).await.unwrap();
    with.power(&path, PowerAction::On).await.unwrap();
    let bios = with.bios(&path).await.unwrap();
    assert_eq!(bios.pending["SriovGlobalEnable"], "Enabled", "pending for ever");
    with.set_bios(&path, &wanted).await.unwrap();
    with.power(&path, PowerAction::PowerCycle).await.unwrap();
    assert_eq!(with.bios(&path).await.unwrap().attributes["SriovGlobalEnable"], "Enabled");
    let posts = emulator.seen().iter().filter(|s| s.method == "POST" && s.path.contains("Jobs")).count();
    assert_eq!(posts, 0, "no job besides the one that the PATCH makes");
}

#[tokio::test]
async fn dell_shows_pending_early() {
    let (_emulator, without, with) = pair(vendors::dell(1).0, Deviation::PendingShownEarly).await;
    has(&with, Quirk::BiosShowsPendingEarly).await;
    let path = system_path(&with).await;
    with.set_bios(&path, &attributes("SriovGlobalEnable", json!("Enabled"))).await.unwrap();
    let believed = without.bios(&path).await.unwrap();
    assert_eq!(
        believed.attributes["SriovGlobalEnable"], "Enabled",
        "what is believed without the rule is wrong"
    );
    let bios = with.bios(&path).await.unwrap();
    assert_eq!(bios.attributes.get("SriovGlobalEnable"), None);
    assert_eq!(bios.pending["SriovGlobalEnable"], "Enabled");
}

#[tokio::test]
async fn dell_not_ready_passes() {
    let (_emulator, without, with) = pair(vendors::dell(1).0, Deviation::NotReadyAtFirst).await;
    has(&with, Quirk::NotReadyIsTransient).await;
    let path = system_path(&with).await;
    let error = without.power(&path, PowerAction::On).await.unwrap_err();
    assert!(matches!(error.cause, Cause::ServerError { .. }), "{error}");
    with.power(&path, PowerAction::On).await.unwrap();
    with.power(&path, PowerAction::ForceOff).await.unwrap();
}

#[tokio::test]
async fn idrac10_says_no_allowable_values() {
    let (mut tree, _) = vendors::dell(1);
    let manager = tree.get_mut("/redfish/v1/Managers/iDRAC.Embedded.1").unwrap();
    manager["Model"] = json!("17G Monolithic");
    let (emulator, without, with) = pair(tree, Deviation::NoAllowableValues).await;
    has(&with, Quirk::NoAllowableValues).await;
    let path = system_path(&with).await;
    let error = without.power(&path, PowerAction::On).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unsupported { .. }), "{error}");
    with.power(&path, PowerAction::On).await.unwrap();
    with.set_boot_override(&path, &PXE()).await.unwrap();
    assert_eq!(emulator.boots().len(), 1);
}

#[tokio::test]
async fn dell_keeps_the_address_in_its_bios() {
    let (emulator, without, with) = pair(vendors::dell(1).0, Deviation::HttpUriInBios).await;
    has(&with, Quirk::HttpBootUriInBios).await;
    let path = system_path(&with).await;
    let uri = "http://10.0.0.1/boot.efi";
    let http = BootOverride::uefi_http(OverrideEnabled::Once, uri);
    let error = without.set_boot_override(&path, &http).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Rejected { status: 400, .. }), "{error}");
    assert!(with.set_boot_override(&path, &http).await.unwrap().after_reset);
    with.power(&path, PowerAction::On).await.unwrap();
    with.set_boot_override(&path, &http).await.unwrap();
    with.power(&path, PowerAction::PowerCycle).await.unwrap();
    assert!(
        emulator.boots().iter().all(|boot| boot.target == "UefiHttp" && boot.uri.as_deref() == Some(uri))
    );
}

#[tokio::test]
async fn weak_tags_are_sent_as_strong_ones() {
    let (_emulator, without, _) = pair(vendors::plain(1), Deviation::WeakTags).await;
    let path = system_path(&without).await;
    without.set_boot_override(&path, &PXE()).await.unwrap();
}

#[tokio::test]
async fn ilo6_boots_over_http_by_bios_attribute() {
    let (emulator, without, with) = pair(vendors::hpe(1).0, Deviation::HttpOverrideWithoutEffect).await;
    has(&with, Quirk::HttpBootByBiosAttribute).await;
    let path = system_path(&with).await;
    let uri = "http://10.0.0.1/boot.efi";
    let http = BootOverride::uefi_http(OverrideEnabled::Once, uri);
    let error = without.set_boot_override(&path, &http).await.unwrap_err();
    assert!(error.to_string().contains("taken, and without effect"), "{error}");
    let accepted = with.set_boot_override(&path, &http).await.unwrap();
    assert!(accepted.after_reset);
    with.power(&path, PowerAction::On).await.unwrap();
    assert_eq!(emulator.boots()[0].uri.as_deref(), Some(uri));
}

#[tokio::test]
async fn ilo_refuses_the_target_none() {
    let (_emulator, without, with) = pair(vendors::hpe(1).0, Deviation::NoneTargetRefused).await;
    has(&with, Quirk::BootTargetNoneRefused).await;
    let path = system_path(&with).await;
    with.set_boot_override(&path, &PXE()).await.unwrap();
    let error = without.set_boot_override(&path, &BootOverride::none()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Rejected { status: 400, .. }), "{error}");
    with.set_boot_override(&path, &BootOverride::none()).await.unwrap();
    assert_eq!(with.system(&path).await.unwrap().boot.enabled, Some(OverrideEnabled::Disabled));
}

#[tokio::test]
async fn ilo_refuses_the_star_tag() {
    let (_emulator, without, with) = pair(vendors::hpe(1).0, Deviation::StarTagRefused).await;
    has(&with, Quirk::IfMatchStarRefused).await;
    let account = with.accounts().await.unwrap().remove(0);
    let password = Secret::new("a-new-password");
    let error = without.set_password(&account.path, &password).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Conflict { .. }), "{error}");
    with.set_password(&account.path, &password).await.unwrap();
}

#[tokio::test]
async fn xcc_tags_go_stale() {
    let (_emulator, without, with) = pair(vendors::lenovo(1).0, Deviation::TagRefusedOnce).await;
    has(&with, Quirk::EtagGoesStale).await;
    let path = system_path(&with).await;
    let error = without.set_boot_override(&path, &PXE()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Conflict { .. }), "{error}");
    let chassis = with.chassis().await.unwrap().remove(0);
    with.set_indicator(&chassis.path, true).await.unwrap();
}

#[tokio::test]
async fn xcc_takes_media_by_patch() {
    let (emulator, without, with) = pair(vendors::lenovo(1).0, Deviation::MediaByPatch).await;
    has(&with, Quirk::MediaByPatch).await;
    let path = system_path(&with).await;
    let slot = with.virtual_media(&path).await.unwrap().remove(0);
    let error = without.insert_media(&slot, "http://10.0.0.1/x.iso").await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unsupported { .. }), "{error}");
    with.insert_media(&slot, "http://10.0.0.1/x.iso").await.unwrap();
    assert_eq!(emulator.resource(slot.path.as_str()).unwrap()["Image"], "http://10.0.0.1/x.iso");
    with.eject_media(&slot).await.unwrap();
    assert_eq!(emulator.resource(slot.path.as_str()).unwrap()["Inserted"], false);
}

#[tokio::test]
async fn supermicro_forgets_the_mode() {
    let (emulator, without, with) = pair(vendors::supermicro(1).0, Deviation::ModeFallsToLegacy).await;
    has(&with, Quirk::BootModeResent).await;
    let path = system_path(&with).await;
    let error = without.set_boot_override(&path, &PXE()).await.unwrap_err();
    assert!(error.to_string().contains("the mode is Legacy, not UEFI"), "{error}");
    with.set_boot_override(&path, &PXE()).await.unwrap();
    with.power(&path, PowerAction::On).await.unwrap();
    assert_eq!(emulator.boots()[0].mode, "UEFI");
}

#[tokio::test]
async fn supermicro_x10_knows_no_mode() {
    let (mut tree, _) = vendors::supermicro(1);
    tree.get_mut("/redfish/v1/Systems/1").unwrap()["Model"] = json!("X10DRU-i+");
    let (_emulator, without, with) = pair(tree, Deviation::ModeUnknown).await;
    has(&with, Quirk::BootModeUnknown).await;
    let path = system_path(&with).await;
    let error = without.set_boot_override(&path, &PXE()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Rejected { status: 400, .. }), "{error}");
    with.set_boot_override(&path, &PXE()).await.unwrap();
}

#[tokio::test]
async fn supermicro_wants_a_licence() {
    let (_emulator, without, with) = pair(vendors::supermicro(1).0, Deviation::UpdatesNeedLicence).await;
    has(&with, Quirk::UpdateNeedsLicence).await;
    let error = without.update_firmware(&update()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Forbidden { .. }), "misleading without the rule: {error}");
    let error = with.update_firmware(&update()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::LicenceNeeded { .. }), "{error}");
}

#[tokio::test]
async fn supermicro_accepts_without_a_task() {
    let (_emulator, without, with) = pair(vendors::supermicro(1).0, Deviation::NoTask).await;
    has(&with, Quirk::AcceptedWithoutTask).await;
    let error = without.update_firmware(&update()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unknown { .. }), "{error}");
    let accepted = with.update_firmware(&update()).await.unwrap();
    assert!(accepted.unattended && accepted.task.is_none());
}

#[tokio::test]
async fn megarac_demands_a_tag() {
    let (_emulator, without, with) = pair(vendors::ami(1).0, Deviation::TagMandatory).await;
    has(&with, Quirk::IfMatchRequired).await;
    let account = with.accounts().await.unwrap().remove(0);
    let password = Secret::new("a-new-password");
    assert!(without.set_password(&account.path, &password).await.is_err());
    with.set_password(&account.path, &password).await.unwrap();
}

#[tokio::test]
async fn megarac_keeps_boot_in_its_settings() {
    let (emulator, without, with) = pair(vendors::ami(1).0, Deviation::BootInSettings).await;
    has(&with, Quirk::BootInSettings).await;
    let path = system_path(&with).await;
    let error = without.set_boot_override(&path, &PXE()).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Rejected { .. }), "{error}");
    with.set_boot_override(&path, &PXE()).await.unwrap();
    with.power(&path, PowerAction::On).await.unwrap();
    with.power(&path, PowerAction::PowerCycle).await.unwrap();
    let targets: Vec<String> = emulator.boots().into_iter().map(|boot| boot.target).collect();
    assert_eq!(targets, ["Pxe", "None"]);
}

#[tokio::test]
async fn openbmc_expands_wrongly() {
    let (_emulator, without, with) = pair(vendors::openbmc(1).0, Deviation::ExpandWrong).await;
    has(&with, Quirk::ExpandBroken).await;
    let system = crate::common::system(&with).await;
    let wrong = without.processors(&system).await.unwrap();
    assert!(wrong.iter().all(|processor| processor.cores.is_none()), "believed without the rule");
    assert!(with.processors(&system).await.unwrap().iter().all(|processor| processor.cores == Some(32)));
}

#[tokio::test]
async fn an_override_that_stays_is_said() {
    // sushy-tools: Once is taken as Continuous.
    let emulator = with(vendors::plain(1), [Deviation::AlwaysContinuous]).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let accepted = client.set_boot_override(&path, &PXE()).await.unwrap();
    assert!(accepted.messages[0].text.as_ref().unwrap().contains("Continuous"));
}

/// With all of a vendor's deviations and its rules, everything works that works elsewhere.
#[tokio::test]
async fn every_vendor_with_all_its_deviations_boots_what_it_shall() {
    let all = [
        vendors::dell(1),
        vendors::hpe(1),
        vendors::lenovo(1),
        vendors::supermicro(1),
        vendors::ami(1),
        vendors::openbmc(1),
    ];
    for (tree, deviations) in all {
        let emulator = with(tree, deviations).await;
        let client = client(&emulator);
        let path = system_path(&client).await;
        let name = format!("{:?}", client.service().await.unwrap().vendor);
        client.set_boot_override(&path, &PXE()).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        client.power(&path, PowerAction::On).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        client
            .set_boot_override(&path, &BootOverride::none())
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        client.power(&path, PowerAction::ForceOff).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let uri = "http://10.0.0.1/boot.efi";
        let http = BootOverride::uefi_http(OverrideEnabled::Once, uri);
        client.set_boot_override(&path, &http).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        client.power(&path, PowerAction::On).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let boots = emulator.boots();
        assert_eq!((boots[0].target.as_str(), boots[0].mode.as_str()), ("Pxe", "UEFI"), "{name}");
        assert_eq!(boots[1].uri.as_deref(), Some(uri), "{name}");
    }
}

#[tokio::test]
async fn rules_that_are_given_are_the_only_ones() {
    let (tree, _) = vendors::dell(1);
    let emulator = Emulator::start(tree).await;
    let only = Quirks::from_iter([Quirk::BootModeResent]);
    let quirks = QuirkChoice::Exactly(only.clone());
    let connection = Connection { quirks, ..crate::common::connection(&emulator) };
    assert_eq!(Client::new(connection).unwrap().quirks().await.unwrap(), only);
}

#[test]
fn every_rule_has_a_source_and_every_vendor_a_rule() {
    assert!(RULES.iter().all(|rule| rule.source.len() > 15));
    for vendor in
        [Vendor::Dell, Vendor::Hpe, Vendor::Lenovo, Vendor::Supermicro, Vendor::Ami, Vendor::OpenBmc]
    {
        assert!(RULES.iter().any(|rule| rule.vendor == vendor), "{vendor:?}");
    }
}
