//! Injected faults.

use basalt_bdev::fault::{Effect, FaultDrive, Op, RULES_MAX, Rule};
use basalt_bdev::malloc::MallocDrive;
use basalt_bdev::{BdevError, Durability};
use basalt_reactor::sim::Sim;
use basalt_reactor::{self as reactor};
use bytes::Bytes;
use std::time::Duration;

fn ones() -> Vec<Bytes> {
    vec![Bytes::from(vec![1; 8192])]
}

#[test]
fn faults_come_and_go() {
    let mut sim = Sim::new(1);
    let n = sim.add_node(1);
    let (drive, control) = FaultDrive::wrap(MallocDrive::create("m", 1 << 20));
    assert_eq!((&drive.info().name[..], &drive.info().backend[..]), ("m", "fault:malloc"));
    sim.block_on(n, || async move {
        let ch = drive.open().unwrap();
        let write = || ch.write(0, ones(), Durability::Durable);
        let distance = |b: &[u8]| b.iter().map(|x| (x ^ 1).count_ones()).sum::<u32>();

        // Every third write, twice.
        let rule = Rule { every: 3, count: 2, ..Rule::always(Op::Write, Effect::Error) };
        let id = control.add(rule).unwrap();
        let mut failed = Vec::new();
        for i in 0..12 {
            if let Err(e) = write().await {
                assert!(matches!(e, BdevError::Io { op: "write", offset: 0, len: 8192, .. }));
                failed.push(i);
            }
        }
        assert_eq!((failed, control.applied(id)), (vec![2, 5], 2));
        assert!(control.remove(id) && !control.remove(id));

        // A range of unreadable blocks.
        let bad = Rule { range: Some(8192..12288), ..Rule::always(Op::Read, Effect::Unreadable) };
        control.add(bad).unwrap();
        assert!(ch.read(0, 8192).await.is_ok() && ch.read(12288, 4096).await.is_ok());
        assert!(matches!(
            ch.read(4096, 8192).await,
            Err(BdevError::Unreadable { offset: 4096, len: 8192, .. })
        ));
        control.clear();

        // Silent corruption: of a read, then of what is stored.
        let id = control.add(Rule::always(Op::Read, Effect::Corrupt)).unwrap();
        assert_eq!(distance(&ch.read(0, 8192).await.unwrap()), 1);
        control.remove(id);
        assert_eq!(distance(&ch.read(0, 8192).await.unwrap()), 0);
        let id = control.add(Rule::always(Op::Write, Effect::Corrupt)).unwrap();
        write().await.unwrap();
        control.remove(id);
        assert_eq!(distance(&ch.read(0, 8192).await.unwrap()), 1);
        control.add(Rule::always(Op::Write, Effect::LoseWrite)).unwrap();
        write().await.unwrap();
        assert_eq!(distance(&ch.read(0, 8192).await.unwrap()), 1);
        control.clear();

        let any = Rule { op: None, range: None, every: 0, count: 0, effect: Effect::Delay { us: 5000 } };
        control.add(any).unwrap();
        let start = reactor::now();
        ch.flush().await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(5));
        control.clear();
        control.add(Rule::always(Op::Write, Effect::HostFull)).unwrap();
        assert!(matches!(write().await, Err(BdevError::HostFull { .. })));
        control.clear();

        // Gone while a request is under way, then back.
        control.add(Rule::always(Op::Read, Effect::Delay { us: 1000 })).unwrap();
        let c2 = control.clone();
        drop(reactor::spawn(async move {
            reactor::sleep(Duration::from_micros(10)).await;
            c2.set_gone(true);
        }));
        assert!(matches!(ch.read(0, 4096).await, Err(BdevError::Gone { .. })));
        assert!(write().await.is_err() && drive.open().is_err());
        control.set_gone(false);
        assert!(write().await.is_ok());

        control.clear();
        for _ in 0..RULES_MAX {
            assert!(control.add(Rule::always(Op::Flush, Effect::Error)).is_some());
        }
        assert!(control.add(Rule::always(Op::Flush, Effect::Error)).is_none());
    });
}
