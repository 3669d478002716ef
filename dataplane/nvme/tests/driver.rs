//! The whole driver against the controller in memory, on a virtual clock: the contract of a drive, and every way in
//! which a controller can let it down.

use basalt_bdev::{Bdev, BdevError, DriveRef, Durability};
use basalt_nvme::controller::{Erase, SanitizeState};
use basalt_nvme::mock::{Fault, Mock, MockConfig, MockNamespace};
use basalt_nvme::recovery::Limits;
use basalt_nvme::spec::command::io;
use basalt_nvme::spec::{Sqe, Status};
use basalt_nvme::transport::Transport;
use basalt_nvme::{Controller, NvmeDrive, NvmeError, Timing};
use basalt_reactor::buf::DmaBuf;
use basalt_reactor::sim::Sim;
use basalt_reactor::{self as reactor, CoreId};
use bytes::Bytes;
use proptest::prelude::*;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const BLOCK: usize = 4096;

fn timing() -> Timing {
    Timing {
        command: Duration::from_secs(2),
        abort: Duration::from_secs(1),
        admin: Duration::from_secs(5),
        look: Duration::from_millis(100),
        limits: Limits::default(),
    }
}

/// Runs `f` on core 0 of a simulated node while the mock works.
fn run<T: 'static, F: Future<Output = T> + 'static>(
    mock: &Arc<Mock>,
    cores: u16,
    f: impl FnOnce() -> F,
) -> T {
    let mut sim = Sim::new(1);
    let node = sim.add_node(cores);
    let mock = mock.clone();
    sim.block_on(node, move || {
        reactor::register_poller("mock", move || mock.step());
        f()
    })
}

async fn attach(mock: &Arc<Mock>) -> (Arc<Controller>, Vec<DriveRef>) {
    let controller = Controller::bring_up(mock.clone(), timing()).await.unwrap();
    let drives = NvmeDrive::open_all(&controller, None).await.unwrap();
    (controller, drives)
}

async fn one(mock: &Arc<Mock>) -> (Arc<Controller>, Rc<dyn Bdev>) {
    let (controller, drives) = attach(mock).await;
    (controller, drives[0].open().unwrap())
}

fn filled(byte: u8, len: usize) -> Bytes {
    let mut b = DmaBuf::new(len);
    b.fill(byte);
    b.freeze()
}

fn is_io(opcode: u8) -> impl Fn(u16, &Sqe) -> bool {
    move |qid, sqe| qid > 0 && sqe.opcode == opcode
}

/// A fault for the first `n` commands that match.
fn first(
    n: u32,
    fault: Fault,
    matches: impl Fn(u16, &Sqe) -> bool + Send + 'static,
) -> basalt_nvme::mock::FaultPlan {
    let mut left = n;
    Box::new(move |qid, sqe| {
        if left == 0 || !matches(qid, sqe) {
            return None;
        }
        left -= 1;
        Some(fault)
    })
}

#[derive(Clone, Debug)]
enum Request {
    Write { block: u64, blocks: usize, pieces: usize, byte: u8, durable: bool },
    Read { block: u64, blocks: usize },
    Zero { block: u64, blocks: u64 },
    Unmap { block: u64, blocks: u64 },
    Compare { block: u64, byte: u8, right: bool },
    Flush,
}

const BLOCKS: u64 = 1024;

fn request() -> impl Strategy<Value = Request> {
    // From one page to more than a command takes.
    let place = || (0..BLOCKS - 300, prop_oneof![4 => 1usize..5, 2 => 5usize..40, 1 => 100usize..300]);
    prop_oneof![
        4 => (place(), 1usize..6, any::<u8>(), any::<bool>()).prop_map(|((block, blocks), pieces, byte, durable)| {
            Request::Write { block, blocks, pieces, byte, durable }
        }),
        4 => place().prop_map(|(block, blocks)| Request::Read { block, blocks }),
        1 => (0..BLOCKS - 300, 1u64..300).prop_map(|(block, blocks)| Request::Zero { block, blocks }),
        1 => (0..BLOCKS - 300, 1u64..300).prop_map(|(block, blocks)| Request::Unmap { block, blocks }),
        2 => (0..BLOCKS, any::<u8>(), any::<bool>())
            .prop_map(|(block, byte, right)| Request::Compare { block, byte, right }),
        1 => Just(Request::Flush),
    ]
}

/// Carries out a request on drive and model, and compares.
async fn both(bdev: &Rc<dyn Bdev>, model: &mut [u8], request: Request) -> Result<(), BdevError> {
    let range = |block: u64, blocks: usize| block as usize * BLOCK..(block as usize + blocks) * BLOCK;
    match request {
        Request::Write { block, blocks, pieces, byte, durable } => {
            let mut data = Vec::new();
            let mut left = blocks;
            for i in 0..pieces {
                let n = if i + 1 == pieces { left } else { left / 2 };
                data.push(filled(byte.wrapping_add(i as u8), n * BLOCK));
                left -= n;
            }
            let whole: Vec<u8> = data.iter().flat_map(|d| d.iter().copied()).collect();
            let durability = if durable { Durability::Durable } else { Durability::Cached };
            bdev.write(block * BLOCK as u64, data, durability).await?;
            model[range(block, blocks)].copy_from_slice(&whole);
        }
        Request::Read { block, blocks } => {
            let found = bdev.read(block * BLOCK as u64, blocks * BLOCK).await?;
            assert!(found[..] == model[range(block, blocks)], "block {block}, {blocks} blocks");
        }
        Request::Zero { block, blocks } => {
            bdev.write_zeroes(block * BLOCK as u64, blocks * BLOCK as u64).await?;
            model[range(block, blocks as usize)].fill(0);
        }
        Request::Unmap { block, blocks } => {
            // This controller zeroes what is deallocated.
            bdev.unmap(block * BLOCK as u64, blocks * BLOCK as u64).await?;
            model[range(block, blocks as usize)].fill(0);
        }
        Request::Compare { block, byte, right } => {
            let now = &model[range(block, 1)];
            let expect = if right { Bytes::copy_from_slice(now) } else { filled(!now[0], BLOCK) };
            let done = bdev.compare_and_write(block * BLOCK as u64, expect, filled(byte, BLOCK)).await?;
            assert_eq!(done, right);
            if done {
                model[range(block, 1)].fill(byte);
            }
        }
        Request::Flush => bdev.flush().await?,
    }
    Ok(())
}

fn config() -> impl Strategy<Value = MockConfig> {
    let namespace = (prop_oneof![Just(512u32), Just(4096)], 0u8..4);
    let flags = proptest::collection::vec(any::<bool>(), 8);
    (namespace, flags, 0u8..8, 8u16..64).prop_map(|((block_bytes, protection), flags, shift, entries)| {
        MockConfig {
            namespaces: vec![MockNamespace {
                size_bytes: BLOCKS * BLOCK as u64,
                block_bytes,
                metadata_bytes: if protection > 0 { 8 } else { 0 },
                protection,
                zoned: false,
            }],
            queue_entries: entries,
            max_transfer_shift: shift,
            sgl: flags[0],
            shadow_doorbells: flags[1],
            fused: flags[2],
            compare: flags[3],
            write_zeroes: flags[4],
            volatile_cache: flags[5],
            maps_buffers: flags[6],
            ..MockConfig::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Any controller, any requests: what a drive in memory would say.
    #[test]
    fn a_drive_like_any_other(config in config(), requests in proptest::collection::vec(request(), 1..30)) {
        let mock = Mock::new(config);
        let world = mock.clone();
        run(&mock, 1, move || async move {
            let (_controller, bdev) = one(&world).await;
            let mut model = vec![0; BLOCKS as usize * BLOCK];
            for request in requests {
                both(&bdev, &mut model, request).await.unwrap();
            }
        });
        prop_assert_eq!(mock.enables(), 1);
    }

    /// Whatever the controller does wrong: every request ends, none twice, and what was read is what was written.
    #[test]
    fn a_misbehaving_controller_never_lies_to_us(
        config in config(),
        faults in proptest::collection::vec((0u64..40, 0u8..10), 1..12),
        requests in proptest::collection::vec(request(), 10..60),
    ) {
        let mock = Mock::new(config);
        let mut n = 0;
        mock.set_faults(Box::new(move |qid, _| {
            if qid == 0 {
                return None;
            }
            n += 1;
            let kind = faults.iter().find(|f| f.0 == n)?.1;
            Some(match kind {
                0 => Fault::Swallow,
                1 => Fault::Twice,
                2 => Fault::WrongCid,
                3 => Fault::WrongQueue,
                4 => Fault::BadHead,
                5 => Fault::Die,
                6 => Fault::Status(Status::new(0, 0x21)),
                7 => Fault::Status(Status::new(2, 0x81)),
                8 => Fault::Late(3),
                _ => Fault::Leave,
            })
        }));
        let world = mock.clone();
        run(&mock, 1, move || async move {
            let (_controller, bdev) = one(&world).await;
            let mut model = vec![0; BLOCKS as usize * BLOCK];
            for request in requests {
                let started = reactor::now();
                let outcome = both(&bdev, &mut model, request).await;
                assert!(started.elapsed() < Duration::from_secs(60), "took {:?}", started.elapsed());
                if outcome.is_err() {
                    // What a failed write left behind is unknown: look, as a caller would have to.
                    for block in 0..BLOCKS {
                        match bdev.read(block * BLOCK as u64, BLOCK).await {
                            Ok(found) => model[block as usize * BLOCK..][..BLOCK].copy_from_slice(&found),
                            Err(BdevError::Gone { .. }) => return,
                            Err(_) => {}
                        }
                    }
                }
            }
        });
    }
}

#[test]
fn an_overdue_command_is_aborted_and_sent_again() {
    let mock = Mock::new(MockConfig::default());
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (_controller, bdev) = one(&world).await;
        world.set_faults(first(1, Fault::Swallow, is_io(io::READ)));
        let started = reactor::now();
        assert_eq!(bdev.read(0, BLOCK).await.unwrap()[..], [0; BLOCK]);
        assert!(started.elapsed() >= timing().command && started.elapsed() < timing().command * 2);
        assert_eq!((world.log().aborts, world.enables()), (1, 1), "an abort was enough");
    });
}

#[test]
fn where_an_abort_does_not_help_a_reset_does() {
    let mock = Mock::new(MockConfig { aborts: false, ..MockConfig::default() });
    let world = mock.clone();
    run(&mock, 3, move || async move {
        let (_controller, drives) = attach(&world).await;
        let drive = drives[0].clone();
        // Load from three reactors, each with a queue of its own, while one command hangs.
        let plan: basalt_nvme::mock::FaultPlan = {
            let mut n = 0;
            Box::new(move |qid, _| {
                n += u32::from(qid == 2);
                (qid == 2 && n == 50).then_some(Fault::Swallow)
            })
        };
        world.set_faults(plan);
        let done = Arc::new(AtomicU32::new(0));
        let each = (0..3u16).map(|core| {
            let (drive, done) = (drive.clone(), done.clone());
            reactor::spawn(reactor::call_on(CoreId(core), move || async move {
                let bdev = drive.open().unwrap();
                for i in 0..400u64 {
                    let at = (u64::from(core) * 300 + i % 300) * BLOCK as u64;
                    let byte = (i % 251) as u8 + 1;
                    bdev.write(at, vec![filled(byte, BLOCK)], Durability::Cached).await.unwrap();
                    assert_eq!(bdev.read(at, BLOCK).await.unwrap()[..], [byte; BLOCK]);
                    done.fetch_add(1, Ordering::Relaxed);
                    reactor::sleep(Duration::from_millis(10)).await;
                }
            }))
        });
        for task in each.collect::<Vec<_>>() {
            task.await;
        }
        assert_eq!(done.load(Ordering::Relaxed), 1200);
        assert_eq!((world.log().aborts, world.enables()), (1, 2));
    });
}

#[test]
fn one_reset_for_everything_that_hangs() {
    let mock = Mock::new(MockConfig { aborts: false, ..MockConfig::default() });
    let world = mock.clone();
    run(&mock, 2, move || async move {
        let (_controller, drives) = attach(&world).await;
        world.set_faults(first(40, Fault::Swallow, is_io(io::WRITE)));
        let cores = (0..2u16).map(|core| {
            let drive = drives[0].clone();
            reactor::spawn(reactor::call_on(CoreId(core), move || async move {
                let bdev = drive.open().unwrap();
                let writes = (0..20u64).map(|i| {
                    let bdev = bdev.clone();
                    let at = (u64::from(core) * 20 + i) * BLOCK as u64;
                    reactor::spawn(async move {
                        bdev.write(at, vec![filled(core as u8 + 1, BLOCK)], Durability::Durable).await
                    })
                });
                for write in writes.collect::<Vec<_>>() {
                    write.await.unwrap();
                }
            }))
        });
        for core in cores.collect::<Vec<_>>() {
            core.await;
        }
        assert_eq!(world.enables(), 2);
        assert_eq!(world.media(0, 20 * BLOCK as u64, BLOCK), [2; BLOCK]);
    });
}

#[test]
fn commands_that_never_end_end_in_an_error() {
    let mock = Mock::new(MockConfig::default());
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (_controller, bdev) = one(&world).await;
        world.set_faults(first(u32::MAX, Fault::Swallow, is_io(io::READ)));
        let error = bdev.read(0, BLOCK).await.unwrap_err();
        assert!(error.to_string().contains("ran out of time"), "{error}");
        // Writes are well.
        bdev.write(0, vec![filled(1, BLOCK)], Durability::Durable).await.unwrap();
    });
}

#[test]
fn a_controller_that_stays_down_fails_everything_in_words() {
    let mock = Mock::new(MockConfig::default());
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (controller, bdev) = one(&world).await;
        world.jam();
        world.set_faults(first(1, Fault::Die, is_io(io::WRITE)));
        let error = bdev.write(0, vec![filled(1, BLOCK)], Durability::Cached).await.unwrap_err();
        assert!(error.to_string().contains("has failed"), "{error}");
        let error = bdev.read(0, BLOCK).await.unwrap_err();
        assert!(error.to_string().contains("replace it"), "{error}");
        assert!(matches!(controller.health().await, Err(NvmeError::Failed(..) | NvmeError::Gone(_))));
    });
}

#[test]
fn removal_ends_everything_at_once() {
    for announced in [false, true] {
        let mock = Mock::new(MockConfig::default());
        let world = mock.clone();
        run(&mock, 2, move || async move {
            let (controller, drives) = attach(&world).await;
            let (a, b) = (drives[0].open().unwrap(), drives[0].clone());
            world.set_faults(first(8, Fault::Swallow, is_io(io::READ)));
            let flights: Vec<_> = (0..8u64)
                .map(|i| {
                    let a = a.clone();
                    reactor::spawn(async move { a.read(i * BLOCK as u64, BLOCK).await })
                })
                .collect();
            let other = reactor::spawn(reactor::call_on(CoreId(1), move || async move {
                let bdev = b.open().unwrap();
                loop {
                    if let Err(e) = bdev.write(0, vec![filled(1, BLOCK)], Durability::Cached).await {
                        return e;
                    }
                    reactor::sleep(Duration::from_millis(5)).await;
                }
            }));
            reactor::sleep(Duration::from_millis(500)).await;
            if announced {
                world.announce_departure();
            } else {
                world.pull();
            }
            let started = reactor::now();
            for f in flights {
                assert!(matches!(f.await, Err(BdevError::Gone { .. })));
            }
            assert!(matches!(other.await, BdevError::Gone { .. }));
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            assert!(matches!(a.flush().await, Err(BdevError::Gone { .. })));
            assert!(matches!(controller.health().await, Err(NvmeError::Gone(_))));
            assert!(matches!(drives[0].open(), Err(BdevError::Gone { .. })));
        });
    }
}

#[test]
fn namespaces_that_cannot_be_drives_are_refused_and_named() {
    let odd = |n: MockNamespace| MockConfig { namespaces: vec![n], ..MockConfig::default() };
    let usual = MockNamespace::default();
    for (namespace, words) in [
        (MockNamespace { zoned: true, ..usual.clone() }, "zoned (ZNS)"),
        (
            MockNamespace { metadata_bytes: 8, ..usual.clone() },
            "metadata that are not protection information",
        ),
        (MockNamespace { metadata_bytes: 64, protection: 1, ..usual.clone() }, "64 bytes of metadata"),
        (MockNamespace { block_bytes: 65536, ..usual.clone() }, "65536 bytes"),
    ] {
        let mock = Mock::new(odd(namespace));
        let world = mock.clone();
        let error = run(&mock, 1, move || async move {
            let controller = Controller::bring_up(world, timing()).await.unwrap();
            NvmeDrive::open_all(&controller, None).await.err().unwrap().to_string()
        });
        assert!(error.contains(words) && error.contains("namespace 1"), "{error}");
    }
}

#[test]
fn several_namespaces_share_a_queue_and_are_opened_once() {
    let namespaces = vec![
        MockNamespace::default(),
        MockNamespace { zoned: true, ..MockNamespace::default() },
        MockNamespace { block_bytes: 512, ..MockNamespace::default() },
    ];
    let mock = Mock::new(MockConfig { namespaces, ..MockConfig::default() });
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (controller, drives) = attach(&world).await;
        let names: Vec<_> = drives.iter().map(|d| d.info().name.clone()).collect();
        assert_eq!(names, ["mockn1", "mockn3"]);
        let (a, c) = (drives[0].open().unwrap(), drives[1].open().unwrap());
        assert_eq!(controller.queue_cores().len(), 1);
        a.write(0, vec![filled(1, BLOCK)], Durability::Cached).await.unwrap();
        c.write(0, vec![filled(3, BLOCK)], Durability::Cached).await.unwrap();
        assert_eq!(world.media(0, 0, BLOCK), [1; BLOCK]);
        assert_eq!(world.media(2, 0, BLOCK), [3; BLOCK]);
        assert!(matches!(NvmeDrive::open_all(&controller, Some(1)).await, Err(NvmeError::InUse(_))));
        drop((a, c));
        reactor::sleep(Duration::from_millis(100)).await;
        assert_eq!(controller.queue_cores().len(), 0, "idle queues are given back");
        drop(drives);
        assert_eq!(NvmeDrive::open_all(&controller, Some(1)).await.unwrap().len(), 1);
    });
}

#[test]
fn a_queue_number_used_again_starts_afresh() {
    for shadow_doorbells in [false, true] {
        let mock = Mock::new(MockConfig { shadow_doorbells, ..MockConfig::default() });
        let world = mock.clone();
        run(&mock, 1, move || async move {
            let (controller, drives) = attach(&world).await;
            for round in 1..5u64 {
                let bdev = drives[0].open().unwrap();
                let started = reactor::now();
                for i in 0..round {
                    bdev.read(i * BLOCK as u64, BLOCK).await.unwrap();
                }
                assert!(started.elapsed() < Duration::from_secs(1), "round {round}: {:?}", started.elapsed());
                assert_eq!(controller.queue_cores()[0].0, 1);
                drop(bdev);
                reactor::sleep(Duration::from_millis(50)).await;
                assert!(controller.queue_cores().is_empty());
            }
        });
        assert_eq!(mock.log().aborts, 0);
    }
}

#[test]
fn too_many_reactors_are_refused_in_words() {
    let mock = Mock::new(MockConfig { queues: 1, ..MockConfig::default() });
    let world = mock.clone();
    run(&mock, 2, move || async move {
        let (_controller, drives) = attach(&world).await;
        let _first = drives[0].open().unwrap();
        let drive = drives[0].clone();
        let error =
            reactor::call_on(CoreId(1), move || async move { drive.open().err().unwrap().to_string() }).await;
        assert!(error.contains("all 1 queue pairs"), "{error}");
    });
}

#[test]
fn a_queue_deeper_than_itself() {
    let mock = Mock::new(MockConfig { queue_entries: 8, ..MockConfig::default() });
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (_controller, bdev) = one(&world).await;
        let all: Vec<_> = (0..200u64)
            .map(|i| {
                let bdev = bdev.clone();
                reactor::spawn(async move {
                    bdev.write(i * BLOCK as u64, vec![filled(i as u8, BLOCK)], Durability::Cached).await
                })
            })
            .collect();
        for task in all {
            task.await.unwrap();
        }
        for i in 0..200 {
            assert_eq!(world.media(0, i * BLOCK as u64, BLOCK), [i as u8; BLOCK]);
        }
    });
}

#[test]
fn dropped_requests_leave_nothing_behind() {
    let mock = Mock::new(MockConfig { queue_entries: 16, ..MockConfig::default() });
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (_controller, bdev) = one(&world).await;
        for i in 0..100u64 {
            let read = bdev.read(i * BLOCK as u64, 3 * BLOCK);
            reactor::timeout(Duration::from_nanos(1 + i * 50), read).await;
            let write = bdev.write(i * BLOCK as u64, vec![filled(1, BLOCK)], Durability::Cached);
            reactor::timeout(Duration::from_nanos(1 + i * 30), write).await;
        }
        // All fifteen places are free again.
        reactor::sleep(Duration::from_millis(1)).await;
        let all: Vec<_> = (0..15u64)
            .map(|i| {
                let bdev = bdev.clone();
                reactor::spawn(async move { bdev.read(i * BLOCK as u64, BLOCK).await.map(drop) })
            })
            .collect();
        for task in all {
            task.await.unwrap();
        }
    });
}

#[test]
fn health_firmware_format_and_sanitize() {
    let mock = Mock::new(MockConfig::default());
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (controller, drives) = attach(&world).await;
        let health = controller.health().await.unwrap();
        assert_eq!((health.temperature_c, health.power_on_hours, health.warnings.len()), (37, 42, 0));
        let slots = controller.firmware_slots().await.unwrap();
        assert_eq!(
            (slots.active, slots.next, slots.revisions),
            (1, None, vec!["1.0".to_owned(), String::new()])
        );

        let bdev = drives[0].open().unwrap();
        controller.update_firmware(&[7; 10_000], 2).await.unwrap();
        assert_eq!(world.log().firmware_bytes, 10_000);
        bdev.write(0, vec![filled(1, BLOCK)], Durability::Cached).await.unwrap();
        reactor::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.enables(), 2, "reset to activate it");
        assert_eq!(bdev.read(0, BLOCK).await.unwrap()[..], [1; BLOCK]);
        assert!(controller.update_firmware(&[1, 2, 3], 1).await.is_err());

        assert!(matches!(controller.format(1, 0, 0, false).await, Err(NvmeError::InUse(_))));
        drop(bdev);
        drop(drives);
        reactor::sleep(Duration::from_millis(10)).await;
        controller.format(1, 0, 0, true).await.unwrap();
        assert_eq!(world.log().formats, 1);
        controller.sanitize(Erase::Block).await.unwrap();
        assert_eq!(controller.sanitize_state().await.unwrap(), SanitizeState::Done);
        assert!(matches!(controller.sanitize(Erase::Overwrite).await, Err(NvmeError::Unsupported { .. })));
    });
}

#[test]
fn events_are_heard_again_and_again() {
    let mock = Mock::new(MockConfig::default());
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (_controller, _drives) = attach(&world).await;
        for _ in 0..10 {
            let before = world.log().commands;
            world.raise_event(0x0002_0101);
            reactor::sleep(Duration::from_millis(300)).await;
            // The log page that acknowledges it, and a new request.
            assert!(world.log().commands >= before + 2);
        }
    });
}

#[test]
fn a_clean_end_shuts_the_controller_down() {
    let mock = Mock::new(MockConfig::default());
    let world = mock.clone();
    run(&mock, 1, move || async move {
        let (controller, bdev) = one(&world).await;
        bdev.flush().await.unwrap();
        drop((controller, bdev));
        reactor::sleep(Duration::from_secs(1)).await;
    });
    let csts = mock.read32(basalt_nvme::spec::registers::CSTS);
    assert_eq!(csts & 1, 0, "disabled");
}
