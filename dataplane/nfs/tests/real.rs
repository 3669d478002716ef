//! The server on real threads and loopback TCP.

mod support;

use basalt_nfs::Config;
use basalt_nfs::v4::types::op;
use basalt_reactor::real;
use basalt_reactor::sync::join_all;
use std::net::SocketAddr;
use support::*;

/// Several clients on several connections and reactors write, read back and stop; the next start knows them.
#[test]
fn clients_on_loopback() {
    let world = World::new();
    let config = real::Config { cores: 2, pin: false, idle_spin_us: 0 };
    let kept = world.clone();
    let client = real::run(config.clone(), move || async move {
        let server = kept.serve(Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), [7; 16], b"real")).await;
        let address = server.local_addr();
        let clients = join_all((0..6).map(|n| async move {
            let wire = Wire::connect_to(address).await;
            let c = Client4::mount(&wire, &format!("client {n}"), 1).await;
            let root = c.root(&wire).await;
            let (id, fh) = c.open(&wire, &root, &format!("file {n}"), 3, true).await;
            for chunk in 0..4u64 {
                let data = vec![n as u8 * 16 + chunk as u8; 1 << 20];
                let mut a = c.run(&wire, write_op(Ops::new().putfh(&fh), &id, chunk << 20, &data)).await;
                a.ok(op::PUTFH);
                assert_eq!(a.ok(op::WRITE).u32(), Ok(1 << 20));
            }
            // The other connection of the client: the session does not care which one it is.
            let other = Wire::connect_to(address).await;
            for chunk in 0..4u64 {
                let read = read_op(Ops::new().putfh(&fh), &id, chunk << 20, 1 << 20);
                let mut a = c.run_uncached(&other, read).await;
                a.ok(op::PUTFH);
                let r = a.ok(op::READ);
                r.bool().unwrap();
                let got = r.opaque(1 << 20).unwrap();
                assert!(got.len() >= (1 << 20) - 4096);
                assert!(got.iter().all(|b| *b == n as u8 * 16 + chunk as u8));
            }
            (c, fh, id)
        }))
        .await;
        let stats = server.stats().await;
        assert_eq!((stats.clients, stats.sessions, stats.states), (6, 6, 6));
        assert_eq!(stats.bytes_written, 24 << 20);
        assert_eq!(stats.ops["v4.write"].calls, 24);
        server.stop().await;
        clients.into_iter().next().unwrap()
    });
    let (c, fh, id) = client;
    world.fs.forget_opens();
    real::run(config, move || async move {
        let server = world.serve(Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), [7; 16], b"real")).await;
        let wire = Wire::connect_to(server.local_addr()).await;
        let mut a = c.run(&wire, close_op(Ops::new().putfh(&fh), &id)).await;
        a.ok(op::PUTFH);
        a.ok(op::CLOSE);
        server.stop().await;
    });
}
