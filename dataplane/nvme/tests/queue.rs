//! The queue pair against a scripted completion side: wrap, phase, identifiers, doorbell batching, and answers that no
//! controller may give.

use basalt_nvme::dma::Iova;
use basalt_nvme::mock::{Fault, Mock, MockConfig};
use basalt_nvme::pointer::Segment;
use basalt_nvme::queue::{DataStyle, Doorbell, QueuePair, SubmitError, Violation};
use basalt_nvme::spec::command::{Nsid, io};
use basalt_nvme::spec::registers::{ACQ, AQA, ASQ, CAP, CC, CSTS, Cap, aqa, cc_enabled};
use basalt_nvme::spec::{Sqe, Status};
use basalt_nvme::transport::Transport;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const DEADLINE_NS: u64 = 1000;

fn pair<T>(mock: &Mock, qid: u16, entries: u16) -> QueuePair<T> {
    let cap = Cap(mock.read64(CAP));
    let memory = QueuePair::<T>::allocate(mock.dma(), entries).unwrap();
    let bell = |offset| Doorbell::new(mock.doorbell(offset).unwrap());
    QueuePair::new(
        qid,
        entries,
        memory,
        bell(cap.submission_doorbell(qid)),
        bell(cap.completion_doorbell(qid)),
    )
}

/// An enabled mock with one I/O queue.
fn bring_up(config: MockConfig, entries: u16) -> (Arc<Mock>, QueuePair<u64>, QueuePair<u64>) {
    let mock = Mock::new(config);
    let mut admin = pair(&mock, 0, 16);
    enable(&mock, &mut admin);
    let mut io = pair(&mock, 1, entries);
    create(&mock, &mut admin, &mut io);
    (mock, admin, io)
}

fn enable(mock: &Mock, admin: &mut QueuePair<u64>) {
    mock.write32(AQA, aqa(16));
    mock.write64(ASQ, admin.sq_iova().0);
    mock.write64(ACQ, admin.cq_iova().0);
    mock.write32(CC, cc_enabled(true));
    assert_eq!(mock.read32(CSTS) & 1, 1);
}

fn create(mock: &Mock, admin: &mut QueuePair<u64>, io: &mut QueuePair<u64>) {
    for sqe in [
        Sqe::create_io_cq(1, io.entries(), io.cq_iova().0, None),
        Sqe::create_io_sq(1, io.entries(), io.sq_iova().0),
    ] {
        admin.submit(sqe, &[], DataStyle::Prp, DEADLINE_NS, 0).unwrap();
        admin.ring();
        mock.step();
        let mut status = None;
        assert_eq!(admin.reap(8, |c| status = Some(c.status)), Ok(1));
        assert_eq!(status, Some(Status::SUCCESS));
    }
}

fn read(lba: u64) -> Sqe {
    Sqe::blocks(io::READ, Nsid(1), lba, 1, 0)
}

fn buffer(mock: &Mock) -> (basalt_nvme::dma::DmaRegion, Vec<Segment>) {
    let region = mock.dma().allocate(4096).unwrap();
    let segments = vec![Segment { iova: region.iova(), len: 4096 }];
    (region, segments)
}

proptest! {
    /// Any mix of submitting, stepping and reaping: every command completes once, in whatever order, over many wraps.
    #[test]
    fn every_command_completes_once(
        entries in 2u16..40,
        script in proptest::collection::vec((0u8..3, 1usize..20), 50..300),
        late in proptest::collection::vec(0u32..6, 64),
        shadow in any::<bool>(),
    ) {
        let (mock, _admin, mut io) = bring_up(MockConfig { shadow_doorbells: shadow, ..MockConfig::default() }, entries);
        let mut n = 0usize;
        mock.set_faults(Box::new(move |_, _| {
            n += 1;
            Some(late[n % late.len()]).filter(|&l| l > 0).map(Fault::Late)
        }));
        let (_region, data) = buffer(&mock);
        let mut next = 0u64;
        let mut waiting = BTreeMap::new();
        for (what, count) in script {
            match what {
                0 => {
                    for _ in 0..count {
                        match io.submit(read(next % 100), &data, DataStyle::Prp, DEADLINE_NS, next) {
                            Ok(cid) => { waiting.insert(next, cid); }
                            Err((SubmitError::Full, token)) => {
                                prop_assert_eq!(token, next);
                                prop_assert_eq!(io.in_flight(), usize::from(entries) - 1);
                                break;
                            }
                            Err((e, _)) => panic!("{e}"),
                        }
                        next += 1;
                    }
                    io.ring();
                }
                1 => { mock.step(); }
                _ => {
                    let reaped = io.reap(count, |c| {
                        assert!(c.status.is_success());
                        assert!(waiting.remove(&c.token).is_some(), "completed twice");
                    });
                    prop_assert!(reaped.unwrap() <= count);
                }
            }
            prop_assert_eq!(io.in_flight(), waiting.len());
        }
        for _ in 0..200 {
            mock.step();
            io.reap(64, |c| assert!(waiting.remove(&c.token).is_some())).unwrap();
        }
        prop_assert!(waiting.is_empty(), "{} never completed", waiting.len());
    }

    /// Identifiers of commands that have ended are not valid again for long, and never all ones.
    #[test]
    fn identifiers_are_fresh(rounds in 1usize..60) {
        let (mock, _admin, mut io) = bring_up(MockConfig::default(), 3);
        let (_region, data) = buffer(&mock);
        let mut recent = Vec::new();
        for i in 0..rounds {
            let cid = io.submit(read(0), &data, DataStyle::Prp, DEADLINE_NS, i as u64).unwrap();
            prop_assert!(cid.0 != u16::MAX && !recent.contains(&cid));
            recent.push(cid);
            io.ring();
            mock.step();
            prop_assert_eq!(io.reap(8, |_| ()), Ok(1));
        }
    }
}

#[test]
fn one_doorbell_for_a_batch() {
    let (mock, _admin, mut io) = bring_up(MockConfig::default(), 64);
    let (_region, data) = buffer(&mock);
    let before = io.doorbell_writes();
    for i in 0..32 {
        io.submit(read(i), &data, DataStyle::Prp, DEADLINE_NS, i).unwrap();
    }
    assert!(!mock.step(), "nothing is announced yet");
    io.ring();
    io.ring();
    assert_eq!(io.doorbell_writes() - before, 1);
    assert!(mock.step());
    assert_eq!(io.reap(64, |_| ()), Ok(32));
    assert_eq!(io.doorbell_writes() - before, 2);
}

#[test]
fn shadow_doorbells_save_register_writes() {
    use basalt_nvme::queue::Shadow;
    let (mock, mut admin, mut io) =
        bring_up(MockConfig { shadow_doorbells: true, ..MockConfig::default() }, 64);
    let region = || Arc::new(mock.dma().allocate(4096).unwrap());
    let (shadow, event_index) = (region(), region());
    let sqe = Sqe::doorbell_buffer_config(shadow.iova().0, event_index.iova().0);
    admin.submit(sqe, &[], DataStyle::Prp, DEADLINE_NS, 0).unwrap();
    admin.ring();
    mock.step();
    assert_eq!(admin.reap(1, |c| assert!(c.status.is_success())), Ok(1));
    let at = |offset| Some(Shadow { shadow: shadow.clone(), event_index: event_index.clone(), offset });
    io.set_shadow(at(8), at(12));
    let (_region, data) = buffer(&mock);
    let before = io.doorbell_writes();
    let mut done = 0;
    for i in 0..100 {
        io.submit(read(i % 7), &data, DataStyle::Prp, DEADLINE_NS, i).unwrap();
        io.ring();
        // A controller that polls sees the shadow without the register.
        io.submit(read(i % 5), &data, DataStyle::Prp, DEADLINE_NS, i).unwrap();
        io.ring();
        mock.step();
        done += io.reap(64, |_| ()).unwrap();
    }
    assert_eq!(done, 200);
    let writes = io.doorbell_writes() - before;
    assert!(writes <= 300, "{writes} register writes for 200 commands and 100 batches");
}

fn violation(fault: Fault) -> Violation {
    let (mock, _admin, mut io) = bring_up(MockConfig::default(), 8);
    let (_region, data) = buffer(&mock);
    mock.set_faults(Box::new(move |_, _| Some(fault)));
    for i in 0..3 {
        io.submit(read(i), &data, DataStyle::Prp, DEADLINE_NS, i).unwrap();
    }
    io.ring();
    mock.step();
    io.reap(8, |_| ()).unwrap_err()
}

#[test]
fn impossible_answers_are_found_out() {
    assert!(matches!(violation(Fault::Twice), Violation::NotInFlight { qid: 1, .. }));
    assert!(matches!(violation(Fault::WrongCid), Violation::NotInFlight { qid: 1, .. }));
    assert_eq!(violation(Fault::WrongQueue), Violation::WrongQueue { qid: 1, named: 2 });
    assert_eq!(violation(Fault::BadHead), Violation::BadHead { qid: 1, head: 8, entries: 8 });
}

#[test]
fn a_restart_sends_what_was_in_flight_again() {
    let (mock, mut admin, mut io) = bring_up(MockConfig::default(), 16);
    let (_region, data) = buffer(&mock);
    mock.set_faults(Box::new(|qid, sqe| (qid == 1 && sqe.cdw10.get() % 2 == 1).then_some(Fault::Swallow)));
    for i in 0..10 {
        io.submit(read(i), &data, DataStyle::Prp, DEADLINE_NS, i).unwrap();
    }
    io.ring();
    mock.step();
    let mut done = Vec::new();
    io.reap(16, |c| done.push(c.token)).unwrap();
    assert_eq!(done, [0, 2, 4, 6, 8]);
    assert_eq!(io.overdue(DEADLINE_NS - 1, 16), []);
    assert_eq!(io.overdue(DEADLINE_NS, 16).len(), 5);
    assert_eq!(io.overdue(DEADLINE_NS, 2).len(), 2);

    mock.clear_faults();
    mock.write32(CC, 0);
    assert_eq!(mock.read32(CSTS), 0);
    let given_up = io.restart(2 * DEADLINE_NS, |f| f.token != 9);
    assert_eq!(given_up, [9]);
    assert!(admin.restart(0, |_| false).is_empty());
    enable(&mock, &mut admin);
    create(&mock, &mut admin, &mut io);
    io.ring();
    mock.step();
    done.clear();
    io.reap(16, |c| done.push(c.token)).unwrap();
    done.sort();
    assert_eq!(done, [1, 3, 5, 7]);
    assert_eq!(io.in_flight(), 0);
}

#[test]
fn fused_pairs_enter_together_or_not_at_all() {
    let (mock, _admin, mut io) = bring_up(MockConfig { fused: true, ..MockConfig::default() }, 3);
    let (region, data) = buffer(&mock);
    let compare = Sqe::blocks(io::COMPARE, Nsid(1), 0, 1, 0);
    let write = Sqe::blocks(io::WRITE, Nsid(1), 0, 1, 0);
    let ours = mock.dma().allocate(4096).unwrap();
    ours.write(0, &[7; 4096]);
    let new = vec![Segment { iova: ours.iova(), len: 4096 }];
    let answers = |io: &mut QueuePair<u64>| {
        io.ring();
        mock.step();
        let mut all = Vec::new();
        io.reap(8, |c| all.push((c.token, c.status))).unwrap();
        all
    };
    io.submit_fused([compare, write], [&data, &new], DataStyle::Prp, 0, [1, 2]).unwrap();
    assert_eq!(answers(&mut io), [(1, Status::SUCCESS), (2, Status::SUCCESS)]);
    assert_eq!(mock.media(0, 0, 4096), [7; 4096]);
    // Now the block is 7s, and zeroes are expected.
    region.zero(0, 4096);
    io.submit_fused([compare, write], [&data, &data], DataStyle::Prp, 0, [3, 4]).unwrap();
    assert_eq!(answers(&mut io), [(3, Status::new(2, 0x85)), (4, Status::new(0, 0x0a))]);
    assert_eq!(mock.media(0, 0, 4096), [7; 4096]);
    io.submit(read(0), &data, DataStyle::Prp, 0, 5).unwrap();
    let full = io.submit_fused([compare, write], [&data, &new], DataStyle::Prp, 0, [6, 7]);
    assert!(matches!(full, Err((SubmitError::Full, [6, 7]))));
    assert_eq!(answers(&mut io), [(5, Status::SUCCESS)]);
}

#[test]
fn a_pointer_that_cannot_be_built_leaves_the_queue_as_it_was() {
    let (_mock, _admin, mut io) = bring_up(MockConfig::default(), 4);
    let crooked = [Segment { iova: Iova(0x1_0001), len: 4096 }];
    let refused = io.submit(read(0), &crooked, DataStyle::Prp, 0, 1);
    assert!(matches!(refused, Err((SubmitError::Pointer(_), 1))));
    assert_eq!((io.in_flight(), io.room()), (0, 3));
}
