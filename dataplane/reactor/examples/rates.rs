//! What the executor costs: `cargo run --release -p basalt-reactor --example rates`.

use basalt_reactor::real::{Config, run};
use basalt_reactor::sim::Sim;
use basalt_reactor::sync::join_all;
use basalt_reactor::{self as reactor, CoreId, Instant, net};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

fn report(what: &str, n: u64, start: Instant) {
    let ns = start.elapsed().as_nanos() as f64 / n as f64;
    println!("{what}: {ns:.0} ns each, {:.0} k/s", 1e6 / ns);
}

async fn local() {
    const N: u64 = 1_000_000;
    let start = reactor::now();
    for _ in 0..N {
        reactor::spawn(async {}).await;
    }
    report("spawn and join", N, start);
    let start = reactor::now();
    for _ in 0..N {
        reactor::yield_now().await;
    }
    report("yield", N, start);
    let start = reactor::now();
    for _ in 0..N {
        drop(reactor::buf::DmaBuf::new(4096));
    }
    report("4 KiB buffer from the pool", N, start);
}

async fn between_cores() {
    const N: u64 = 100_000;
    let start = reactor::now();
    for i in 0..N {
        reactor::call_on(CoreId(1), move || async move { i }).await;
    }
    report("call_on, one at a time", N, start);
    let start = reactor::now();
    for _ in 0..N / 64 {
        join_all((0..64).map(|i| reactor::call_on(CoreId(1), move || async move { i }))).await;
    }
    report("call_on, 64 at a time", N, start);
    let count = Arc::new(AtomicU64::new(0));
    let start = reactor::now();
    for _ in 0..N * 10 {
        let count = count.clone();
        reactor::post(CoreId(1), move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
    }
    while count.load(Ordering::Relaxed) < N * 10 {
        reactor::yield_now().await;
    }
    report("post", N * 10, start);
}

async fn echo() {
    const N: u64 = 20_000;
    const CLIENTS: u64 = 16;
    let l = net::listen("127.0.0.1:0".parse().expect("an address")).await.expect("a port");
    let addr = l.local_addr();
    drop(reactor::spawn(async move {
        while let Ok(s) = l.accept().await {
            let d = s.detach();
            reactor::post(CoreId(1), move || {
                let s = d.attach();
                drop(reactor::spawn(async move {
                    let mut buf = BytesMut::with_capacity(8192);
                    loop {
                        let (n, back) = s.read(buf).await;
                        buf = back;
                        if n.unwrap_or(0) == 0 || s.write_all(vec![buf.split().freeze()]).await.is_err() {
                            return;
                        }
                        buf.reserve(8192);
                    }
                }))
            });
        }
    }));
    let start = reactor::now();
    let clients = (0..CLIENTS).map(|_| {
        reactor::spawn(async move {
            let s = net::connect(addr).await.expect("the server");
            let request = Bytes::from(vec![1; 4096]);
            let mut buf = BytesMut::with_capacity(8192);
            for _ in 0..N / CLIENTS {
                s.write_all(vec![request.clone()]).await.expect("a write");
                buf.clear();
                while buf.len() < 4096 {
                    buf.reserve(8192);
                    let (n, back) = s.read(buf).await;
                    assert!(n.is_ok_and(|n| n > 0));
                    buf = back;
                }
            }
        })
    });
    join_all(clients).await;
    report("4 KiB echo over TCP, 16 connections, client and server", N, start);
}

fn simulated() {
    const N: u64 = 1_000_000;
    let mut sim = Sim::new(1);
    let n = sim.add_node(4);
    let real = std::time::Instant::now();
    sim.block_on(n, || async {
        join_all((0..4u16).map(|core| {
            reactor::call_on(CoreId(core), || async {
                for _ in 0..N / 4 {
                    reactor::sleep(Duration::from_micros(10)).await;
                }
            })
        }))
        .await;
    });
    let ns = real.elapsed().as_nanos() as u64 / N;
    println!("simulated sleeps on 4 cores: {ns} ns each; {} virtual ms", sim.now_ns() / 1_000_000);
}

fn main() {
    simulated();
    run(Config { cores: 2, pin: true, idle_spin_us: 50 }, || async {
        local().await;
        between_cores().await;
        echo().await;
    });
}
