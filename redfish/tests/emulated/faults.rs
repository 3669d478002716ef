//! BMCs that hang, break off, never end or answer nonsense: an error in time, never a crash, and nothing done twice.

use crate::common::{client, connection, limits, system_path};
use basalt_redfish::model::OverrideEnabled;
use basalt_redfish::{Bmc, BootOverride, Cause, Client, Connection, Limits, PowerAction};
use basalt_redfish_emulator::{Emulator, Fault, vendors};
use std::time::{Duration, Instant};

async fn start() -> (Emulator, Client) {
    start_with_patience(Duration::from_secs(10)).await
}

/// Impatient where the fault is that nothing comes.
async fn start_for(fault: &Fault) -> (Emulator, Client) {
    let hangs = matches!(fault, Fault::Hang);
    start_with_patience(if hangs { Duration::from_millis(700) } else { Duration::from_secs(10) }).await
}

async fn start_with_patience(request: Duration) -> (Emulator, Client) {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let limits = Limits { request, body_bytes: 1 << 20, ..limits() };
    let client = Client::new(Connection { limits, ..connection(&emulator) }).unwrap();
    (emulator, client)
}

#[tokio::test]
async fn reading_is_repeated_and_gets_through() {
    for fault in
        [Fault::Hang, Fault::Truncate(20), Fault::LoseAnswer, Fault::Close, Fault::Status(503, String::new())]
    {
        let (emulator, client) = start_for(&fault).await;
        let path = system_path(&client).await;
        emulator.faults(&format!("GET {path}"), fault.clone(), 2);
        client.system(&path).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert!(emulator.most_connections() <= 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_login_whose_answer_is_lost_is_made_again() {
    for fault in [Fault::Hang, Fault::LoseAnswer, Fault::Truncate(5)] {
        let (emulator, client) = start_for(&fault).await;
        emulator.fault("POST /redfish/v1/SessionService/Sessions", fault.clone());
        assert_eq!(client.systems().await.unwrap_or_else(|error| panic!("{fault:?}: {error}")).len(), 1);
    }
}

#[tokio::test]
async fn what_stays_broken_is_an_error_in_time() {
    type Fits = fn(&Cause) -> bool;
    let cases: [(Fault, Fits); 9] = [
        (Fault::Hang, |cause| matches!(cause, Cause::TimedOut { .. })),
        (Fault::Truncate(20), |cause| matches!(cause, Cause::PartialReply { .. })),
        (Fault::Endless, |cause| matches!(cause, Cause::ReplyTooLarge { .. })),
        (Fault::Large(10 << 20), |cause| matches!(cause, Cause::ReplyTooLarge { .. })),
        (Fault::Body("{\"Members\": [".to_owned()), |cause| matches!(cause, Cause::BadReply { .. })),
        (Fault::Body("[".repeat(200_000)), |cause| matches!(cause, Cause::BadReply { .. })),
        (Fault::Status(500, "oops".to_owned()), |cause| {
            matches!(cause, Cause::ServerError { status: 500, .. })
        }),
        (Fault::Status(503, String::new()), |cause| matches!(cause, Cause::Busy { attempts: 3, .. })),
        (Fault::Status(302, String::new()), |cause| matches!(cause, Cause::BadReply { .. })),
    ];
    for (fault, fits) in cases {
        let (emulator, client) = start_for(&fault).await;
        let path = system_path(&client).await;
        emulator.faults(&format!("GET {path}"), fault.clone(), usize::MAX);
        let begin = Instant::now();
        let error = client.system(&path).await.unwrap_err();
        assert!(fits(&error.cause), "{fault:?}: {error}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{fault:?}");
    }
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_not_sent_again() {
    for fault in [Fault::LoseAnswer, Fault::Hang, Fault::Truncate(0)] {
        let (emulator, client) = start_for(&fault).await;
        let path = system_path(&client).await;
        let changes =
            |emulator: &Emulator| emulator.seen().iter().filter(|seen| seen.method == "PATCH").count();
        emulator.fault("PATCH", fault.clone());
        let error =
            client.set_boot_override(&path, &BootOverride::pxe(OverrideEnabled::Once)).await.unwrap_err();
        assert!(matches!(error.cause, Cause::Unknown { .. }), "{fault:?}: {error}");
        assert_eq!(changes(&emulator), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn a_change_that_was_refused_as_busy_is_sent_again() {
    let (emulator, client) = start().await;
    let path = system_path(&client).await;
    emulator.fault("POST /redfish/v1/Systems", Fault::Status(503, String::new()));
    client.power(&path, PowerAction::On).await.unwrap();
    assert_eq!(emulator.boots().len(), 1);
}

#[tokio::test]
async fn an_inventory_names_what_it_lacks() {
    let (emulator, client) = start().await;
    let path = system_path(&client).await;
    emulator.faults("Memory", Fault::Status(500, "out of memory".to_owned()), usize::MAX);
    emulator.remove("/redfish/v1/Chassis/1/NetworkAdapters");
    let inventory = client.inventory(&path).await.unwrap();
    let parts: Vec<_> = inventory.problems.iter().map(|problem| problem.part.as_str()).collect();
    assert_eq!(parts, ["memory", "network adapters"]);
    assert!(inventory.problems[0].reason.contains("out of memory"), "{:?}", inventory.problems);
    assert_eq!((inventory.processors.len(), inventory.drives().count()), (2, 4));
}

#[tokio::test]
async fn a_bmc_that_fails_on_volumes_has_told_its_drives() {
    let (emulator, client) = start().await;
    let path = system_path(&client).await;
    let before = client.inventory(&path).await.unwrap();
    let storage = before.storage[0].path.as_str().to_owned();
    let volumes = format!("{storage}/Volumes");
    emulator.change(&storage, |storage| storage["Volumes"] = serde_json::json!({ "@odata.id": volumes }));
    emulator.faults("/Volumes", Fault::Status(500, "no volumes".to_owned()), usize::MAX);
    let inventory = client.inventory(&path).await.unwrap();
    assert!(emulator.seen().iter().any(|s| s.path == volumes), "it was not asked");
    assert_eq!(
        (inventory.drives().count(), &inventory.problems),
        (before.drives().count(), &before.problems)
    );
}

#[tokio::test]
async fn a_bmc_that_hangs_half_way_is_not_asked_for_the_rest() {
    let (emulator, client) = start_for(&Fault::Hang).await;
    let path = system_path(&client).await;
    emulator.faults("Storage", Fault::Hang, usize::MAX);
    let begin = Instant::now();
    let inventory = client.inventory(&path).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(inventory.processors.len(), 2);
    assert!(inventory.problems.iter().any(|p| p.part == "storage" && p.reason.contains("no answer")));
    assert!(inventory.problems.iter().any(|p| p.part == "firmware" && p.reason.starts_with("not asked for")));
}

#[tokio::test]
async fn collections_without_end_are_given_up() {
    let (emulator, client) = start().await;
    let system = client.systems().await.unwrap().remove(0);
    emulator.change("/redfish/v1/Systems/1/Processors", |collection| {
        collection["Members@odata.nextLink"] = "/redfish/v1/Systems/1/Processors".into();
    });
    let error = client.processors(&system).await.unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
    emulator.change("/redfish/v1/Systems/1/Memory", |collection| {
        let member = collection["Members"][0].clone();
        collection["Members"] = vec![member; 5000].into();
    });
    let error = client.memory(&system).await.unwrap_err();
    assert!(matches!(error.cause, Cause::TooManyMembers { .. }), "{error}");
}

#[tokio::test]
async fn links_to_other_hosts_stay_on_this_one() {
    let (emulator, client) = start().await;
    emulator.change("/redfish/v1/Systems", |systems| {
        systems["Members"][0]["@odata.id"] = "http://192.0.2.1/redfish/v1/Systems/1".into();
    });
    assert_eq!(client.systems().await.unwrap().len(), 1, "the path counts, the host does not");
}

#[tokio::test]
async fn passwords_and_tokens_are_in_no_error() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    let client = client(&emulator);
    let path = system_path(&client).await;
    let password = basalt_redfish_emulator::Options::default().password;
    emulator.fault("GET /redfish/v1/Systems", Fault::Status(400, format!("no, root:{password} may not")));
    let error = client.system(&path).await.unwrap_err();
    let text = format!("{error} {error:?} {:?}", connection(&emulator));
    assert!(!text.contains(&password) && text.contains("***"), "{text}");
}
