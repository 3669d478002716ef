//! The engine against switches in memory: order, safety, roll-back, and a stop on request.

use basalt_switch_api::engine::{Engine, Options, waves};
use basalt_switch_api::fake::{Fake, factory_ports};
use basalt_switch_api::intent::Fabric;
use basalt_switch_api::plan::Plan;
use basalt_switch_api::state::{Key, Kind};
use basalt_switch_api::verify::FindingKind;
use basalt_switch_api::{Cause, DeviceName, Neighbour, Switch, Transaction, WayBack};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

fn rack() -> Fabric {
    Fabric::from_yaml(include_str!("rack.yaml")).unwrap()
}

fn fake(fabric: &Fabric, name: &str, transaction: Transaction) -> Fake {
    Fake::cabled(fabric, name, transaction, 8)
}

fn engine(fabric: &Fabric, fakes: &[&Fake]) -> Engine {
    let switches = fakes.iter().map(|fake| Arc::new((*fake).clone()) as Arc<dyn Switch>);
    Engine::new(fabric.clone(), switches, Options::default())
}

async fn shown(engine: &Engine) -> BTreeMap<DeviceName, Plan> {
    engine.plan().await.into_iter().map(|(name, plan)| (name, plan.unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn one_of_a_pair_at_a_time_and_spines_last() {
    let fabric = rack();
    let names: Vec<DeviceName> = ["spine-1", "leaf-2", "leaf-1"].map(DeviceName::from).into();
    let order: Vec<Vec<String>> =
        waves(&fabric, &names).iter().map(|w| w.iter().map(DeviceName::to_string).collect()).collect();
    assert_eq!(order, [["leaf-2"], ["leaf-1"], ["spine-1"]]);

    let (one, two) =
        (fake(&fabric, "leaf-1", Transaction::Atomic), fake(&fabric, "leaf-2", Transaction::CommitTimer));
    let engine = engine(&fabric, &[&one, &two]);
    let results = engine.apply(&shown(&engine).await).await;
    for (name, result) in &results {
        assert!(result.as_ref().is_ok_and(|applied| applied.findings.is_empty()), "{name}: {result:?}");
    }
    assert_eq!((one.inner().confirmed, two.inner().confirmed), (1, 1));
    assert!(engine.check().await.is_empty());
    assert!(shown(&engine).await.values().all(Plan::is_empty));
}

#[tokio::test(start_paused = true)]
async fn a_lost_management_path_is_taken_back_by_the_switch_itself() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::CommitTimer);
    let before = leaf.inner().observed.clone();
    leaf.inner().path_hangs_on = Some(Key::new(Kind::Address, "Ethernet16 10.0.0.0/31"));
    let mate = fake(&fabric, "leaf-2", Transaction::CommitTimer);
    let engine = engine(&fabric, &[&leaf, &mate]);
    let results = engine.apply(&shown(&engine).await).await;
    let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
    assert_eq!(error.cause, Cause::LostManagementPath { back: WayBack::Done });
    assert_eq!(leaf.inner().observed, before);
    // Its mate was not begun.
    let error = results[&DeviceName::from("leaf-2")].as_ref().unwrap_err();
    assert_eq!(error.cause, Cause::Skipped { other: "leaf-1".into() });
    assert!(mate.inner().applied.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_timer_a_lost_path_is_reported_as_it_is() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::Atomic);
    leaf.inner().path_hangs_on = Some(Key::new(Kind::Port, "Ethernet16"));
    let engine = engine(&fabric, &[&leaf]);
    let results = engine.apply(&shown(&engine).await).await;
    let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
    assert_eq!(error.cause, Cause::LostManagementPath { back: WayBack::NotDone });
    assert!(error.to_string().contains("console"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn lost_neighbours_are_taken_back() {
    let fabric = rack();
    for transaction in [Transaction::None, Transaction::Atomic, Transaction::CommitTimer] {
        let leaf = fake(&fabric, "leaf-1", transaction);
        let before = leaf.inner().observed.clone();
        leaf.inner().neighbours_hang_on = Some((Key::new(Kind::Port, "Ethernet0"), "Ethernet0".into()));
        let engine = engine(&fabric, &[&leaf]);
        let results = engine.apply(&shown(&engine).await).await;
        let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
        let lost = Cause::LostNeighbours { ports: vec!["Ethernet0".into()], back: WayBack::Done };
        assert_eq!(error.cause, lost, "{transaction:?}");
        let objects =
            |o: &basalt_switch_api::Observed| o.state.iter().map(|(_, o)| o.clone()).collect::<Vec<_>>();
        assert_eq!(objects(&leaf.inner().observed), objects(&before), "{transaction:?}");
        assert_eq!(leaf.inner().rolled_back, 1);
        assert_eq!(leaf.inner().confirmed, 0);
    }
}

/// Nobody saw it go back, so nobody says that it did, nor that it did not.
#[tokio::test(start_paused = true)]
async fn a_switch_with_a_timer_that_stays_away_is_left_to_itself() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::CommitTimer);
    let engine = engine(&fabric, &[&leaf]);
    let plans = shown(&engine).await;
    let dies = leaf.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        dies.inner().dead = true;
    });
    let results = engine.apply(&plans).await;
    let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
    let back = WayBack::LeftToSwitch { after: Options::default().hold() };
    assert_eq!(error.cause, Cause::LostManagementPath { back });
    let text = error.to_string();
    assert!(text.contains("takes the change back by itself: its commit timer is 80 s"), "{text}");
    assert!(text.contains("`diff` shows") && !text.contains("NOT"), "{text}");
}

/// Who was unplugged is heard until its time to live is over: that this ends is not the change's doing.
#[tokio::test(start_paused = true)]
async fn a_neighbour_that_only_lingered_is_not_missed() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::Atomic);
    let stale = Neighbour {
        port: "Ethernet0".into(),
        device: "node-9".into(),
        device_port: "p0".into(),
        description: String::new(),
    };
    leaf.inner().observed.neighbours.push(stale);
    let engine = engine(&fabric, &[&leaf]);
    let plans = shown(&engine).await;
    let forgets = leaf.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        forgets.inner().observed.neighbours.retain(|n| n.device != "node-9");
    });
    let results = engine.apply(&plans).await;
    assert!(results.values().all(Result::is_ok), "{results:?}");
}

#[tokio::test(start_paused = true)]
async fn a_switch_that_dies_in_the_middle_is_finished_by_the_next_apply() {
    let fabric = rack();
    for transaction in [Transaction::None, Transaction::Atomic, Transaction::CommitTimer] {
        let leaf = fake(&fabric, "leaf-1", transaction);
        let engine = engine(&fabric, &[&leaf]);
        let plans = shown(&engine).await;
        let total = plans[&DeviceName::from("leaf-1")].changes.len();
        leaf.inner().dies_after = Some(5);
        let results = engine.apply(&plans).await;
        let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
        match transaction {
            Transaction::None => {
                assert!(matches!(error.cause, Cause::Interrupted { done: 5, .. }), "{error}")
            }
            _ => assert!(matches!(error.cause, Cause::Unreachable { .. }), "{error}"),
        }
        leaf.inner().dead = false;
        let left = shown(&engine).await;
        let done = if transaction == Transaction::None { 5 } else { 0 };
        assert_eq!(left[&DeviceName::from("leaf-1")].changes.len(), total - done);
        assert!(engine.apply(&left).await.values().all(Result::is_ok));
        assert!(engine.check().await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_commit_is_looked_up() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::Atomic);
    let engine = engine(&fabric, &[&leaf]);
    let plans = shown(&engine).await;
    leaf.inner().dies_after_commit = true;
    let again = leaf.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        again.inner().dead = false;
    });
    assert!(engine.apply(&plans).await.values().all(Result::is_ok));
    assert_eq!(leaf.inner().applied.len(), 1, "it was not sent twice");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_that_would_cut_the_way_or_was_not_shown() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::Atomic);
    leaf.inner().observed.management.insert("Ethernet16".into());
    let engine = engine(&fabric, &[&leaf]);
    let plans = shown(&engine).await;
    let results = engine.apply(&plans).await;
    let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
    assert!(
        matches!(&error.cause, Cause::WouldCutManagement { interface, .. } if interface.as_str() == "Ethernet16"),
        "{error}"
    );
    leaf.inner().observed.management.clear();
    leaf.inner().observed.state = factory_ports(9);
    leaf.inner().observed.state.remove(&Key::new(Kind::Port, "Ethernet0"));
    let results = engine.apply(&plans).await;
    assert!(matches!(results.values().next(), Some(Err(e)) if matches!(e.cause, Cause::Conflict { .. })));
    assert!(leaf.inner().applied.is_empty());
}

#[tokio::test(start_paused = true)]
async fn check_speaks_plainly() {
    let fabric = rack();
    let leaf = fake(&fabric, "leaf-1", Transaction::Atomic);
    let mate = fake(&fabric, "leaf-2", Transaction::Atomic);
    let engine = engine(&fabric, &[&leaf, &mate]);
    assert!(engine.apply(&shown(&engine).await).await.values().all(Result::is_ok));
    {
        let mut inner = leaf.inner();
        let mut port = inner.observed.state.port(&"Ethernet12".into()).unwrap().clone();
        port.mtu_bytes = Some(1500);
        inner.observed.state.insert_owned(port, basalt_switch_api::state::Owner::Ours);
        // Two cables swapped.
        for neighbour in &mut inner.observed.neighbours {
            match neighbour.port.as_str() {
                "Ethernet0" => neighbour.port = "Ethernet4".into(),
                "Ethernet4" => neighbour.port = "Ethernet0".into(),
                _ => {}
            }
        }
    }
    mate.inner().dead = true;
    let findings = engine.check().await;
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(text.contains(&"port Ethernet12 on leaf-1: MTU 1500, wanted 9100".to_owned()), "{text:?}");
    let swapped =
        "port Ethernet0 on leaf-1: node-2/p0 is plugged here, wanted node-1/p0 (that one is in Ethernet4)";
    assert!(text.contains(&swapped.to_owned()), "{text:?}");
    assert!(findings.iter().any(|f| f.kind == FindingKind::NoAnswer && f.device.as_str() == "leaf-2"));
}

/// Asks to stop after `seconds`, while an apply runs.
async fn stopped_after(
    engine: &Engine,
    seconds: u64,
) -> BTreeMap<DeviceName, Result<basalt_switch_api::engine::Applied, basalt_switch_api::SwitchError>> {
    let stop = engine.stop();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        stop.request();
    });
    engine.apply(&shown(engine).await).await
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_back_what_is_not_confirmed_and_begins_nothing_more() {
    let fabric = rack();
    for transaction in [Transaction::None, Transaction::Atomic, Transaction::CommitTimer] {
        let one = Fake::cabled(&fabric, "leaf-1", transaction, 8);
        let two = Fake::cabled(&fabric, "leaf-2", transaction, 8);
        let before = one.inner().observed.clone();
        let engine = engine(&fabric, &[&one, &two]);
        let begin = tokio::time::Instant::now();
        let results = stopped_after(&engine, 4).await;
        assert!(
            begin.elapsed() < Duration::from_secs(8),
            "{transaction:?}: it did not wait for the settling"
        );
        let cause = |name: &str| results[&DeviceName::from(name)].as_ref().unwrap_err().cause.clone();
        assert_eq!(cause("leaf-1"), Cause::Stopped { back: WayBack::Done }, "{transaction:?}");
        assert_eq!(cause("leaf-2"), Cause::NotBegun);
        assert!(two.inner().applied.is_empty());
        let objects =
            |o: &basalt_switch_api::Observed| o.state.iter().map(|(_, o)| o.clone()).collect::<Vec<_>>();
        assert_eq!(objects(&one.inner().observed), objects(&before), "{transaction:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_between_waves_leaves_what_is_confirmed() {
    let fabric = rack();
    let one = Fake::cabled(&fabric, "leaf-1", Transaction::Atomic, 8);
    let two = Fake::cabled(&fabric, "leaf-2", Transaction::Atomic, 8);
    let engine = engine(&fabric, &[&one, &two]);
    // Ten seconds of settling, then the pause between waves.
    let results = stopped_after(&engine, 12).await;
    assert!(results[&DeviceName::from("leaf-1")].is_ok());
    assert_eq!(results[&DeviceName::from("leaf-2")].as_ref().unwrap_err().cause, Cause::NotBegun);
    assert_eq!(one.inner().confirmed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stop_on_a_switch_that_is_gone_says_that_it_stands() {
    let fabric = rack();
    let leaf = Fake::cabled(&fabric, "leaf-1", Transaction::Atomic, 8);
    leaf.inner().path_hangs_on = Some(Key::new(Kind::Port, "Ethernet16"));
    let results = stopped_after(&engine(&fabric, &[&leaf]), 4).await;
    let error = results[&DeviceName::from("leaf-1")].as_ref().unwrap_err();
    assert_eq!(error.cause, Cause::Stopped { back: WayBack::NotDone });
    assert!(error.to_string().contains("could NOT be rolled back"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn every_step_is_told() {
    use basalt_switch_api::engine::Step;
    let fabric = rack();
    let leaf = Fake::cabled(&fabric, "leaf-1", Transaction::Atomic, 8);
    let steps = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let engine = engine(&fabric, &[&leaf]).watched_by(move |_, step| seen.lock().unwrap().push(step));
    let plans = shown(&engine).await;
    steps.lock().unwrap().clear();
    engine.apply(&plans).await;
    let changes = plans.values().next().unwrap().changes.len();
    let wanted = [Step::Begun, Step::Changing { changes }, Step::Watching, Step::Confirmed, Step::Done];
    assert_eq!(*steps.lock().unwrap(), wanted);
}
