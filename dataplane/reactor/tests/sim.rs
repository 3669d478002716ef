//! The simulated world: scheduling, time, messages, crashes, network.

use basalt_reactor::sim::{NetFaults, Sim};
use basalt_reactor::sync::{Mutex, Notify, Semaphore, join_all, oneshot};
use basalt_reactor::{self as reactor, CoreId, net};
use bytes::{Bytes, BytesMut};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn sleeps_end_in_order_and_on_time() {
    let mut sim = Sim::new(1);
    let n = sim.add_node(1);
    let log = sim.block_on(n, || async {
        let log = Rc::new(RefCell::new(Vec::new()));
        let start = reactor::now();
        let each = [30, 10, 20].map(|ms| {
            let log = log.clone();
            reactor::spawn(async move {
                reactor::sleep(ms * MS).await;
                log.borrow_mut().push((ms, start.elapsed().as_millis() as u32));
            })
        });
        join_all(each).await;
        log.take()
    });
    assert_eq!(log, [(10, 10), (20, 20), (30, 30)]);
}

#[test]
fn timeout_drops_what_is_late() {
    let mut sim = Sim::new(1);
    let n = sim.add_node(1);
    sim.block_on(n, || async {
        let notify = Notify::new();
        assert_eq!(reactor::timeout(MS, notify.notified()).await, None);
        assert_eq!(notify.waiter_count(), 0, "the dropped waiter has left the queue");
        assert_eq!(reactor::timeout(MS, async { 5 }).await, Some(5));
    });
}

#[test]
fn messages_between_two_cores_keep_their_order() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed);
        let n = sim.add_node(3);
        let log = Arc::new(StdMutex::new(Vec::new()));
        let seen = log.clone();
        sim.block_on(n, move || async move {
            for i in 0..100 {
                let log = log.clone();
                reactor::post(CoreId(2), move || {
                    assert_eq!(reactor::current_core(), CoreId(2));
                    log.lock().unwrap().push(i);
                });
            }
            let last = log.clone();
            let on = reactor::call_on(CoreId(2), move || async move {
                assert_eq!(last.lock().unwrap().len(), 100);
                reactor::current_core()
            });
            assert_eq!(on.await, CoreId(2));
        });
        assert!(seen.lock().unwrap().iter().copied().eq(0..100));
    }
}

/// A run with a bit of everything; returns what the seed decided.
fn medley(seed: u64) -> (u64, u64, Vec<u32>) {
    let mut sim = Sim::new(seed);
    let server = sim.add_node(2);
    let client = sim.add_node(2);
    let order = Arc::new(StdMutex::new(Vec::new()));
    sim.spawn_on(server, || async {
        let l = net::listen("10.0.0.1:2049".parse().unwrap()).await.unwrap();
        loop {
            let s = l.accept().await.unwrap();
            drop(reactor::spawn(async move {
                loop {
                    let (n, buf) = s.read(BytesMut::with_capacity(4096)).await;
                    if n.unwrap_or(0) == 0 || s.write_all(vec![buf.freeze()]).await.is_err() {
                        return;
                    }
                }
            }));
        }
    });
    let log = order.clone();
    let bytes = sim.block_on(client, move || async move {
        reactor::sleep(MS).await;
        let each = (0..20u32).map(|i| {
            let log = log.clone();
            reactor::spawn(async move {
                reactor::call_on(CoreId((i % 2) as u16), move || async move {
                    reactor::sleep(Duration::from_micros(reactor::random_u64() % 50)).await;
                    log.lock().unwrap().push(i);
                })
                .await;
                let s = net::connect("10.0.0.1:2049".parse().unwrap()).await.unwrap();
                s.write_all(vec![Bytes::from(vec![i as u8; 10_000])]).await.unwrap();
                let mut got = 0;
                while got < 10_000 {
                    let (n, buf) = s.read(BytesMut::with_capacity(4096)).await;
                    assert!(buf.iter().all(|&b| b == i as u8));
                    got += n.unwrap();
                }
                got as u64
            })
        });
        join_all(each).await.iter().sum()
    });
    let order = order.lock().unwrap().clone();
    (sim.trace_hash(), bytes, order)
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let runs: Vec<_> = (0..8).map(medley).collect();
    for (seed, run) in runs.iter().enumerate() {
        assert_eq!(run, &medley(seed as u64));
        assert_eq!(run.1, 200_000);
    }
    let mut orders: Vec<_> = runs.iter().map(|r| r.2.clone()).collect();
    let mut hashes: Vec<_> = runs.iter().map(|r| r.0).collect();
    orders.sort();
    orders.dedup();
    hashes.sort();
    hashes.dedup();
    assert_eq!((orders.len(), hashes.len()), (8, 8));
}

#[test]
fn a_crash_drops_tasks_without_polling_them() {
    struct OnDrop(Arc<StdMutex<u32>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
            // Dropping code may talk to its reactor.
            reactor::post(CoreId(1), || panic!("messages of a dead node are not delivered"));
            drop(reactor::spawn(async { panic!("tasks of a dead node are not polled") }));
            Notify::new().notify_all();
        }
    }
    let mut sim = Sim::new(3);
    let n = sim.add_node(2);
    let dropped = Arc::new(StdMutex::new(0));
    let count = dropped.clone();
    sim.spawn_on(n, move || async move {
        for core in [0, 1] {
            for _ in 0..5 {
                let guard = OnDrop(count.clone());
                reactor::call_on(CoreId(core), move || async move {
                    drop(reactor::spawn(async move {
                        let _guard = guard;
                        loop {
                            reactor::sleep(MS).await;
                        }
                    }))
                })
                .await;
            }
        }
        // A task that waits for a task of the other core, and a message on its way.
        reactor::call_on(CoreId(1), || async { reactor::sleep(1000 * MS).await }).await;
    });
    assert!(!sim.run_until(20 * MS, || false));
    assert!(sim.task_count(n) > 10);
    sim.crash(n);
    assert_eq!(*dropped.lock().unwrap(), 10);
    assert!(!sim.is_up(n));
    assert!(!sim.run_until(100 * MS, || false));
    sim.restart(n, 1);
    assert_eq!(sim.task_count(n), 0);
    assert_eq!(sim.block_on(n, || async { reactor::core_count() }), 1);
}

#[test]
fn peers_of_a_crashed_node_are_reset() {
    let mut sim = Sim::new(9);
    let server = sim.add_node(1);
    let client = sim.add_node(1);
    sim.spawn_on(server, || async {
        let l = net::listen("0.0.0.0:111".parse().unwrap()).await.unwrap();
        let _held = l.accept().await.unwrap();
        std::future::pending().await
    });
    let seen = Rc::new(Cell::new(None));
    let out = seen.clone();
    sim.spawn_on(client, move || async move {
        reactor::sleep(MS).await;
        let s = net::connect("10.0.0.1:111".parse().unwrap()).await.unwrap();
        let (r, _) = s.read(BytesMut::with_capacity(10)).await;
        out.set(Some(r.unwrap_err().kind()));
    });
    assert!(!sim.run_until(10 * MS, || seen.get().is_some()));
    sim.crash(server);
    assert!(sim.run_until(10 * MS, || seen.get().is_some()));
    assert_eq!(seen.get(), Some(std::io::ErrorKind::ConnectionReset));
    let refused = sim.block_on(client, || net::connect("10.0.0.1:111".parse().unwrap()));
    assert_eq!(refused.err().unwrap().kind(), std::io::ErrorKind::TimedOut);
    sim.restart(server, 1);
    let refused = sim.block_on(client, || net::connect("10.0.0.1:111".parse().unwrap()));
    assert_eq!(refused.err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_partition_holds_bytes_back_and_a_long_one_resets() {
    for (pause_ms, survives) in [(5_000, true), (20_000, false)] {
        let mut sim = Sim::new(4);
        let a = sim.add_node(1);
        let b = sim.add_node(1);
        sim.spawn_on(a, || async {
            let l = net::listen("10.0.0.1:5".parse().unwrap()).await.unwrap();
            let s = l.accept().await.unwrap();
            loop {
                let (n, buf) = s.read(BytesMut::with_capacity(100)).await;
                if n.unwrap_or(0) == 0 || s.write_all(vec![buf.freeze()]).await.is_err() {
                    return;
                }
            }
        });
        let state = Rc::new(Cell::new(0));
        let st = state.clone();
        sim.spawn_on(b, move || async move {
            reactor::sleep(MS).await;
            let s = net::connect("10.0.0.1:5".parse().unwrap()).await.unwrap();
            st.set(1);
            reactor::sleep(10 * MS).await;
            s.write_all(vec![Bytes::from_static(b"hello")]).await.unwrap();
            let (n, _) = s.read(BytesMut::with_capacity(100)).await;
            st.set(if n.is_ok() { 2 } else { 3 });
        });
        assert!(sim.run_until(5 * MS, || state.get() == 1));
        sim.partition(a, b);
        assert_eq!(sim.run_until(pause_ms * MS, || state.get() != 1), !survives);
        sim.heal(a, b);
        assert!(sim.run_until(10 * MS, || state.get() == if survives { 2 } else { 3 }));
    }
}

#[test]
fn streams_are_ordered_bounded_and_end() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let a = sim.add_node(1);
        let b = sim.add_node(2);
        sim.set_net_faults(NetFaults {
            delay_max_us: 500,
            slow_ppm: 100_000,
            slow_us: 3000,
            ..Default::default()
        });
        let sent = Rc::new(Cell::new(0u32));
        let progress = sent.clone();
        sim.spawn_on(a, move || async move {
            let l = net::listen("10.0.0.1:5".parse().unwrap()).await.unwrap();
            let s = l.accept().await.unwrap();
            for i in 0..100_000u32 {
                s.write_all(vec![Bytes::copy_from_slice(&i.to_le_bytes()), Bytes::new()]).await.unwrap();
                progress.set(i);
            }
        });
        sim.block_on(b, || async move {
            reactor::sleep(MS).await;
            let s = net::connect("10.0.0.1:5".parse().unwrap()).await.unwrap();
            reactor::sleep(2000 * MS).await;
            assert!(sent.get() <= 64 << 10, "the window bounds what is sent unread");
            let d = s.detach();
            let count = reactor::call_on(CoreId(1), move || async move {
                let s = d.attach();
                let mut buf = BytesMut::with_capacity(1 << 20);
                loop {
                    let (n, back) = s.read(buf).await;
                    buf = back;
                    if n.unwrap() == 0 {
                        break;
                    }
                    buf.reserve(4096);
                }
                let values = buf.chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
                assert!(values.eq(0..100_000));
                buf.len() / 4
            });
            assert_eq!(count.await, 100_000);
        });
    }
}

#[test]
fn unix_names_are_per_node() {
    let mut sim = Sim::new(2);
    let a = sim.add_node(1);
    let b = sim.add_node(1);
    let path = std::path::Path::new("/run/basalt.sock");
    sim.block_on(a, || async move {
        let l = net::listen_unix(path).await.unwrap();
        assert_eq!(net::listen_unix(path).await.err().unwrap().kind(), std::io::ErrorKind::AddrInUse);
        let (c, s) = (reactor::spawn(net::connect_unix(path)), l.accept().await.unwrap());
        assert!(c.await.is_ok() && s.peer_addr().is_none());
        drop(l);
        assert!(net::listen_unix(path).await.is_ok());
    });
    assert!(sim.block_on(b, || net::connect_unix(path)).is_err());
}

#[test]
fn semaphore_and_mutex_serve_in_order() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        let n = sim.add_node(1);
        sim.block_on(n, || async {
            let sem = Semaphore::new(3);
            let held = Rc::new(Cell::new(0));
            let each = (0..30).map(|i| {
                let (sem, held) = (sem.clone(), held.clone());
                reactor::spawn(async move {
                    let n = 1 + i % 3;
                    let work = async {
                        let _p = sem.acquire(n).await;
                        held.set(held.get() + n);
                        assert!(held.get() <= 3);
                        reactor::sleep(Duration::from_micros(50)).await;
                        held.set(held.get() - n);
                    };
                    // Some give up, in the queue or while they hold.
                    if i % 5 == 0 {
                        work.await;
                    } else if reactor::timeout(Duration::from_micros(300), sem.acquire(n)).await.is_some() {
                        reactor::yield_now().await;
                    }
                })
            });
            join_all(each).await;
            assert_eq!(sem.available(), 3);

            let m = Rc::new(Mutex::new(Vec::new()));
            let first = m.lock().await;
            let order: Vec<_> = (0..5).collect();
            let mut each = Vec::new();
            for i in order.clone() {
                let m = m.clone();
                each.push(reactor::spawn(async move { m.lock().await.push(i) }));
                reactor::sleep(Duration::from_micros(5)).await;
            }
            assert!(m.try_lock().is_none());
            drop(first);
            join_all(each).await;
            assert_eq!(*m.lock().await, order);
        });
    }
}

#[test]
fn yielding_lets_all_others_run() {
    for seed in 0..50 {
        let mut sim = Sim::new(seed);
        let n = sim.add_node(1);
        sim.block_on(n, || async {
            let ran = Rc::new(Cell::new(0));
            for _ in 0..10 {
                let ran = ran.clone();
                drop(reactor::spawn(async move { ran.set(ran.get() + 1) }));
            }
            reactor::yield_now().await;
            assert_eq!(ran.get(), 10);
        });
    }
}

#[test]
fn cancelled_tasks_and_lost_senders() {
    let mut sim = Sim::new(5);
    let n = sim.add_node(1);
    sim.block_on(n, || async {
        let (tx, rx) = oneshot::channel::<u32>();
        let task = reactor::spawn(async move {
            reactor::sleep(1000 * MS).await;
            tx.send(1);
        });
        reactor::yield_now().await;
        task.cancel();
        assert_eq!(rx.await, None);
        let (tx, rx) = oneshot::channel();
        tx.send(7);
        assert_eq!(rx.await, Some(7));
    });
    assert_eq!(sim.task_count(n), 0);
}

#[test]
fn drain_is_announced() {
    let mut sim = Sim::new(5);
    let n = sim.add_node(2);
    let done = Rc::new(Cell::new(false));
    let d = done.clone();
    sim.spawn_on(n, move || async move {
        assert!(!reactor::draining());
        reactor::call_on(CoreId(1), reactor::drain_requested).await;
        assert!(reactor::draining());
        reactor::drain_requested().await;
        d.set(true);
    });
    assert!(!sim.run_until(10 * MS, || done.get()));
    sim.request_drain(n);
    assert!(sim.run_until(10 * MS, || done.get()));
}

#[test]
fn pollers_are_asked_before_time_moves_on() {
    let mut sim = Sim::new(5);
    let n = sim.add_node(1);
    sim.block_on(n, || async {
        let left = Rc::new(Cell::new(3));
        let (l, notify) = (left.clone(), Rc::new(Notify::new()));
        let n2 = notify.clone();
        reactor::register_poller("test", move || {
            let found = l.get() > 0;
            if found {
                l.set(l.get() - 1);
                n2.notify_all();
            }
            found
        });
        let start = reactor::now();
        while left.get() > 0 {
            notify.notified().await;
        }
        assert!(start.elapsed() < Duration::from_micros(10));
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_deadlock_is_a_panic() {
    let mut sim = Sim::new(5);
    let n = sim.add_node(1);
    sim.block_on(n, std::future::pending::<()>);
}
