//! Work for an instruction counter: 4 KiB reads of a controller in memory, 32 in flight.
//!
//! ```text
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect=basalt_nvme_overhead_queue target/release/examples/overhead queue 100000
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect=basalt_nvme_overhead_drive target/release/examples/overhead drive 100000
//! ```
//!
//! `queue`: the queue pair alone, submit to reap; `drive`: the whole drive, futures, buffers and tasks included. The
//! controller's own work is counted in neither.

use basalt_bdev::Bdev;
use basalt_nvme::mock::{Mock, MockConfig};
use basalt_nvme::pointer::Segment;
use basalt_nvme::queue::{DataStyle, Doorbell, QueuePair};
use basalt_nvme::spec::Sqe;
use basalt_nvme::spec::command::{Nsid, io};
use basalt_nvme::spec::registers::{ACQ, AQA, ASQ, CAP, CC, Cap, aqa, cc_enabled};
use basalt_nvme::transport::Transport;
use basalt_nvme::{Controller, NvmeDrive, Timing};
use basalt_reactor::sim::Sim;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

const DEPTH: u64 = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let count: u64 = arguments.get(2).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    match arguments.get(1).map(String::as_str) {
        Some("queue") => queue(count),
        Some("drive") => drive(count),
        _ => eprintln!("usage: overhead queue|drive [READS]"),
    }
}

fn queue(count: u64) {
    let mock = Mock::new(MockConfig::default());
    let cap = Cap(mock.read64(CAP));
    let make = |qid, entries| {
        let memory = QueuePair::<u32>::allocate(mock.dma(), entries).expect("memory");
        let bell = |at| Doorbell::new(mock.doorbell(at).expect("a doorbell"));
        QueuePair::new(
            qid,
            entries,
            memory,
            bell(cap.submission_doorbell(qid)),
            bell(cap.completion_doorbell(qid)),
        )
    };
    let mut admin: QueuePair<u32> = make(0, 16);
    mock.write32(AQA, aqa(16));
    mock.write64(ASQ, admin.sq_iova().0);
    mock.write64(ACQ, admin.cq_iova().0);
    mock.write32(CC, cc_enabled(true));
    let mut pair: QueuePair<u32> = make(1, 128);
    for sqe in
        [Sqe::create_io_cq(1, 128, pair.cq_iova().0, None), Sqe::create_io_sq(1, 128, pair.sq_iova().0)]
    {
        admin.submit(sqe, &[], DataStyle::Prp, 0, 0).expect("room");
        admin.ring();
        mock.step();
        admin.reap(1, |_| ()).expect("an honest controller");
    }
    let buffer = mock.dma().allocate(4096).expect("memory");
    let data = [Segment { iova: buffer.iova(), len: 4096 }];
    for round in 0..count / DEPTH {
        basalt_nvme_overhead_queue(&mut pair, &data, round, None);
        mock.step();
        basalt_nvme_overhead_queue(&mut pair, &data, round, Some(DEPTH as usize));
    }
    println!("reads: {}", count / DEPTH * DEPTH);
}

/// One half of a round: submits 32 and rings, or reaps them.
#[unsafe(no_mangle)]
#[inline(never)]
fn basalt_nvme_overhead_queue(pair: &mut QueuePair<u32>, data: &[Segment], round: u64, reap: Option<usize>) {
    match reap {
        None => {
            for i in 0..DEPTH {
                let sqe = Sqe::blocks(io::READ, Nsid(1), (round * 7 + i) % 1000, 1, 0);
                let sent = pair.submit(sqe, data, DataStyle::Prp, round, i as u32);
                assert!(sent.is_ok());
            }
            pair.ring();
        }
        Some(n) => {
            let mut sum = 0u64;
            let done = pair.reap(n, |c| sum += u64::from(c.token)).expect("an honest controller");
            assert!(done == n && sum == DEPTH * (DEPTH - 1) / 2);
        }
    }
}

type Read<'a> = Pin<Box<dyn Future<Output = basalt_bdev::Result<basalt_reactor::buf::DmaBuf>> + 'a>>;

fn drive(count: u64) {
    let mock = Mock::new(MockConfig::default());
    let mut sim = Sim::new(1);
    let node = sim.add_node(1);
    sim.block_on(node, move || async move {
        let world = mock.clone();
        basalt_reactor::register_poller("mock", move || world.step());
        let transport: Arc<dyn Transport> = mock.clone();
        let controller = Controller::bring_up(transport, Timing::default()).await.expect("bring-up");
        let drives = NvmeDrive::open_all(&controller, None).await.expect("drives");
        let bdev: Rc<dyn Bdev> = drives[0].open().expect("a channel");
        let turns = Rc::new(Cell::new(0u64));
        for round in 0..count / DEPTH {
            let mut reads: Vec<Read<'_>> = Vec::with_capacity(DEPTH as usize);
            basalt_nvme_overhead_drive(&mut reads, Some((&bdev, round)));
            // The reactor's turn: doorbell, the controller's work, completions. Counted apart, as `drive-poll`.
            let sleeping = basalt_reactor::sleep(std::time::Duration::from_micros(1));
            sleeping.await;
            while !reads.is_empty() {
                basalt_nvme_overhead_drive(&mut reads, None);
                if !reads.is_empty() {
                    basalt_reactor::sleep(std::time::Duration::from_micros(1)).await;
                }
            }
            turns.set(turns.get() + 1);
        }
        println!("reads: {}", turns.get() * DEPTH);
    });
}

/// Starts 32 reads, or takes what has come of them.
#[unsafe(no_mangle)]
#[inline(never)]
fn basalt_nvme_overhead_drive<'a>(reads: &mut Vec<Read<'a>>, start: Option<(&'a Rc<dyn Bdev>, u64)>) {
    let mut cx = Context::from_waker(Waker::noop());
    if let Some((bdev, round)) = start {
        for i in 0..DEPTH {
            let mut read = bdev.read((round * 7 + i) % 1000 * 4096, 4096);
            assert!(read.as_mut().poll(&mut cx).is_pending());
            reads.push(read);
        }
        return;
    }
    reads.retain_mut(|read| match read.as_mut().poll(&mut cx) {
        Poll::Pending => true,
        Poll::Ready(result) => {
            drop(result.expect("a read"));
            false
        }
    });
}
