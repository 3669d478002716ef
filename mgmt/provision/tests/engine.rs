//! Many servers at once, and servers that go wrong.

mod common;

use basalt_boot::decision::Action;
use basalt_boot::event::Step;
use basalt_inventory::Profile;
use basalt_inventory::record::Contents;
use basalt_provision::fault::FaultKind;
use basalt_provision::node::{Identity, Wanted};
use basalt_provision::server::Power;
use basalt_provision::store::NodeStore;
use basalt_provision::{Limits, State};
use common::{Fuse, World, name};
use std::time::Duration;

async fn failure(world: &World, n: usize) -> (State, FaultKind, String) {
    let node = world.node(n).await;
    assert_eq!(node.state, State::Failed, "{:#?}", node.history);
    let failure = node.failure.unwrap();
    (failure.at, failure.kind, failure.cause)
}

#[tokio::test(start_paused = true)]
async fn a_rack_comes_up_and_one_that_hangs_fails_alone() {
    let world = World::new(40, &Wanted::default()).await;
    world.with(7, |s| s.hangs_at = Some("set_boot"));
    world.with(9, |s| s.hiccups = 3);
    let begun = tokio::time::Instant::now();
    let done = world.provision(40).await;
    for n in (0..40).filter(|n| *n != 7) {
        assert_eq!(done[&name(n)].as_ref().unwrap().state, State::Running, "{n}");
    }
    let (at, kind, cause) = failure(&world, 7).await;
    assert_eq!((at, kind), (State::Firmware, FaultKind::TimedOut));
    assert!(
        cause.contains("https://10.0.0.7")
            && cause.contains("boot from the network")
            && cause.contains("5 min"),
        "{cause}"
    );
    assert!(begun.elapsed() < Duration::from_secs(900), "{:?}", begun.elapsed());
    // It is mended and asked for again.
    world.with(7, |s| s.hangs_at = None);
    let done = world.provision(40).await;
    assert_eq!(done[&name(7)].as_ref().unwrap().state, State::Running);
    assert_eq!(world.with(0, |s| s.boots), 1, "what runs is left alone");
}

#[tokio::test(start_paused = true)]
async fn limits_hold() {
    let world = World::new(30, &Wanted::default()).await;
    let limits = Limits { bmcs: 3, firmware: 1, boots: 5 };
    let names: Vec<_> = (0..30).map(name).collect();
    let done = world.engine(&Fuse::never(), &limits).provision(&names).await;
    assert!(done.values().all(|d| d.as_ref().unwrap().state == State::Running));
    let most = world.inner().most_busy;
    assert!(most <= 3 + 1, "{most} BMCs at once");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_once() {
    let world = World::new(1, &Wanted::default()).await;
    world.with(0, |s| s.fault = Some(FaultKind::WrongPassword));
    world.provision(1).await;
    assert_eq!(failure(&world, 0).await.1, FaultKind::WrongPassword);
    assert_eq!(world.with(0, |s| s.calls), 1, "BMCs lock accounts");
}

#[tokio::test(start_paused = true)]
async fn another_server_at_the_address_is_not_touched() {
    let world = World::new(1, &Wanted::default()).await;
    world.with(0, |s| s.identity.serial = "OTHER".into());
    world.provision(1).await;
    let (_, kind, cause) = failure(&world, 0).await;
    assert_eq!(kind, FaultKind::OtherServer);
    assert!(cause.contains("OTHER, expected SER0") && cause.contains("nothing was changed"), "{cause}");
    assert_eq!(world.with(0, |s| (s.power, s.boots, s.calls)), (Power::Off, 0, 1));
    assert!(world.inner().decisions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_exchanged_while_it_is_worked_on_is_not_touched() {
    let world = World::new(1, &Wanted::default()).await;
    let fuse = Fuse::never();
    let engine = world.engine(&fuse, &Limits::default()).watched_by({
        let world = world.clone();
        move |node| {
            if node.state == State::BootSet && node.work.begun_s == 0 {
                world.with(0, |s| s.identity.serial = "OTHER".into());
            }
        }
    });
    engine.provision(&[name(0)]).await;
    let (at, kind, _) = failure(&world, 0).await;
    assert_eq!((at, kind), (State::BootSet, FaultKind::OtherServer));
    assert_eq!(world.with(0, |s| s.boots), 0, "it was not reset");
}

#[tokio::test(start_paused = true)]
async fn one_server_with_two_names_is_seen() {
    let world = World::new(2, &Wanted::default()).await;
    for n in 0..2 {
        world.with(n, |s| s.identity.serial = "SAME".into());
        let mut node = world.node(n).await;
        node.identity = Identity::default();
        world.store.put(&mut node).await.unwrap();
    }
    let done = world.provision(2).await;
    let running = done.values().filter(|d| d.as_ref().unwrap().state == State::Running).count();
    assert_eq!(running, 1, "the first keeps it");
    let failed = (0..2).find(|n| done[&name(*n)].as_ref().unwrap().state == State::Failed).unwrap();
    let (_, kind, cause) = failure(&world, failed).await;
    assert_eq!(kind, FaultKind::Duplicate);
    assert!(cause.contains("SAME") && cause.contains(name(1 - failed).as_str()), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn drives_are_not_wiped_without_being_told() {
    let install = Wanted { action: Action::Install, ..Wanted::default() };
    let world = World::new(1, &install).await;
    world.with(0, |s| s.drives[0].contents = Contents::Holds("an XFS file system".into()));
    world.provision(1).await;
    let (at, kind, cause) = failure(&world, 0).await;
    assert_eq!((at, kind), (State::Discovered, FaultKind::NotBlank));
    assert!(cause.contains("D0") && cause.contains("nothing was written"), "{cause}");
    assert_eq!(world.with(0, |s| (s.boots, s.writes)), (0, 0));
    let mut node = world.node(0).await;
    node.wanted.wipe.insert("D0".into());
    world.store.put(&mut node).await.unwrap();
    world.provision(1).await;
    let node = world.node(0).await;
    assert_eq!(node.state, State::Running);
    assert!(node.wanted.wipe.is_empty(), "it held for that installation");
    assert!(world.inner().decisions.iter().all(|d| !d.wipe && d.disk.is_none()));

    // What nobody could look at is left to the node, without permission to wipe.
    let world = World::new(1, &install).await;
    world.with(0, |s| s.drives[0].contents = Contents::Unknown);
    world.provision(1).await;
    assert_eq!(world.node(0).await.state, State::Running);
    assert!(world.inner().decisions.iter().all(|d| !d.wipe));
    let world = World::new(1, &install).await;
    world.with(0, |s| {
        let other = s.drives[0].clone();
        s.drives.push(basalt_inventory::record::Drive { serial: "E0".into(), ..other });
    });
    world.provision(1).await;
    let (_, kind, cause) = failure(&world, 0).await;
    assert_eq!(kind, FaultKind::NotAsExpected, "which of two is not guessed");
    assert!(cause.contains("D0, E0") && cause.contains("--drive"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn hardware_that_differs_from_the_profile_stops_before_anything_is_changed() {
    let world = World::new(1, &Wanted::default()).await;
    let profile = Profile::from_yaml("version: 1\nname: p\ndrives: [{count: 8}]").unwrap();
    let engine = world.engine(&Fuse::never(), &Limits::default()).with_profile(Some(profile));
    engine.provision(&[name(0)]).await;
    let (at, kind, cause) = failure(&world, 0).await;
    assert_eq!((at, kind), (State::Discovered, FaultKind::NotAsExpected));
    assert!(cause.starts_with("drives: 1, expected 8"), "{cause}");
    assert!(world.inner().decisions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_boot_that_goes_no_further_says_where_it_stands() {
    let world = World::new(2, &Wanted::default()).await;
    world.with(0, |s| s.boot_ends = Some(Step::Leased));
    world.with(1, |s| s.boot_ends = Some(Step::Fetched));
    world.provision(2).await;
    let (at, kind, cause) = failure(&world, 0).await;
    assert_eq!((at, kind), (State::Booting, FaultKind::OutOfTime));
    assert!(
        cause.contains("30 min") && cause.contains("leased 10.9.0.1") && cause.contains("boot mode"),
        "{cause}"
    );
    let (_, _, cause) = failure(&world, 1).await;
    assert!(cause.contains("fetched") && cause.contains("Secure Boot"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn two_commands_do_not_drive_one_node() {
    let world = World::new(1, &Wanted::default()).await;
    let (one, two) = tokio::join!(world.provision(1), world.provision(1));
    let refused = [&one, &two].iter().filter(|d| d[&name(0)].is_err()).count();
    assert_eq!(refused, 1);
    assert_eq!(world.node(0).await.state, State::Running);
}
