//! Killed before and after each effect (a write of the list, a question to a BMC, a decision of the boot service), then resumed: it
//! ends as if nothing had been.

mod common;

use basalt_boot::decision::Action;
use basalt_provision::node::{FirmwareWanted, Wanted};
use basalt_provision::{Limits, State};
use common::{Fuse, World, name};

async fn killed_everywhere(wanted: Wanted, check: impl Fn(&World)) -> usize {
    for at in 1.. {
        assert!(at < 2000, "no end");
        let world = World::new(1, &wanted).await;
        let fuse = Fuse::at(at);
        let engine = world.engine(&fuse, &Limits::default());
        let names = [name(0)];
        let finished = tokio::select! {
            done = engine.provision(&names) => Some(done),
            () = fuse.blown() => None,
        };
        // Dropping the call is the kill: nothing of it goes on.
        drop(engine);
        let whole = finished.is_some();
        if !whole {
            let calls = world.with(0, |s| s.calls);
            tokio::time::sleep(std::time::Duration::from_secs(at as u64 % 90)).await;
            assert_eq!(world.with(0, |s| s.calls), calls, "something lives on after the kill");
            let done = world.provision(1).await;
            let node = done[&name(0)].as_ref().unwrap();
            assert_eq!(node.state, State::Running, "killed at {at}: {:#?}", node.history);
        }
        let (cut, boots) = world.with(0, |s| (s.cut, s.boots));
        assert_eq!(cut, 0, "killed at {at}: reset while its disk was written");
        assert!((1..=2).contains(&boots), "killed at {at}: {boots} resets");
        check(&world);
        if whole {
            assert_eq!(boots, 1);
            return at;
        }
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn an_installation_survives_a_kill_at_any_point() {
    let wanted = Wanted { action: Action::Install, ..Wanted::default() };
    let points = killed_everywhere(wanted, |world| {
        assert_eq!(world.with(0, |s| s.writes), 1, "the disk is written once");
        let inner = world.inner();
        assert_eq!(inner.decisions[0].action, Action::Local, "and started from then on");
    })
    .await;
    assert!(points > 60, "{points} points are too few to be all");
}

#[tokio::test(start_paused = true)]
async fn a_diskless_boot_survives_a_kill_at_any_point() {
    let points = killed_everywhere(Wanted::default(), |world| {
        assert_eq!(world.inner().decisions[0].action, Action::Diskless);
    })
    .await;
    assert!(points > 50, "{points}");
}

#[tokio::test(start_paused = true)]
async fn firmware_is_not_written_twice() {
    let firmware =
        vec![FirmwareWanted { component: "BIOS".into(), version: "2.0".into(), file: "2.0".into() }];
    killed_everywhere(Wanted { firmware, ..Wanted::default() }, |world| {
        assert_eq!(world.with(0, |s| s.firmware["BIOS"].clone()), "2.0");
        assert_eq!(world.with(0, |s| s.firmware["updates"].clone()), "1");
    })
    .await;
}
