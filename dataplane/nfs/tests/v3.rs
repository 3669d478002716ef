//! NFSv3 and MOUNT over the simulated network.

mod support;

use basalt_nfs::rpc::{PROGRAM_MOUNT, PROGRAM_NFS};
use basalt_nfs::xdr::{Reader, Writer};
use bytes::Bytes;
use support::*;

fn run<F: Future<Output = ()> + 'static>(cores: u16, f: impl FnOnce(World) -> F) {
    let (mut sim, server, client) = sim(5, cores);
    let world = World::new();
    world.start(&mut sim, server);
    sim.block_on(client, || f(world));
}

fn args(f: impl FnOnce(&mut Writer)) -> Writer {
    let mut w = Writer::new();
    f(&mut w);
    w
}

async fn mount(wire: &Wire, path: &str) -> Result<Bytes, u32> {
    let mut r = wire.call(PROGRAM_MOUNT, 3, 1, args(|w| w.opaque(path.as_bytes()))).await;
    match r.u32().unwrap() {
        0 => Ok(r.opaque(64).unwrap()),
        e => Err(e),
    }
}

fn no_attributes(w: &mut Writer) {
    for _ in 0..6 {
        w.u32(0);
    }
}

fn skip_post_op(r: &mut Reader) {
    assert!(r.bool().unwrap());
    let _: [u8; 84] = r.fixed().unwrap();
}

#[test]
fn mount_and_a_file() {
    run(3, |_| async move {
        let wire = Wire::connect().await;
        assert_eq!(mount(&wire, "/nothing").await, Err(2));
        assert_eq!(mount(&wire, "/database").await, Err(2));
        let root = mount(&wire, "/data").await.unwrap();
        let mut r = wire.call(PROGRAM_MOUNT, 3, 5, Writer::new()).await;
        assert_eq!(r.bool(), Ok(true));
        assert_eq!(&r.opaque(100).unwrap()[..], b"/data");
        let create = |mode: u32| {
            let root = root.clone();
            args(move |w| {
                w.opaque(&root);
                w.opaque(b"f");
                w.u32(mode);
                if mode == 2 { w.u64(77) } else { no_attributes(w) }
            })
        };
        let mut r = wire.v3(8, create(2)).await;
        assert_eq!(r.u32(), Ok(0));
        assert_eq!(r.bool(), Ok(true));
        let fh = r.opaque(64).unwrap();
        assert_eq!(wire.v3(8, create(2)).await.u32(), Ok(0), "same verifier");
        assert_eq!(wire.v3(8, create(1)).await.u32(), Ok(17));
        let data: Vec<u8> = (0..100_001).map(|i| i as u8).collect();
        let mut r = wire
            .v3(
                7,
                args(|w| {
                    w.opaque(&fh);
                    w.u64(0);
                    w.u32(data.len() as u32);
                    w.u32(2);
                    w.opaque(&data);
                }),
            )
            .await;
        assert_eq!(r.u32(), Ok(0));
        assert!(r.bool().unwrap());
        let _: [u8; 24] = r.fixed().unwrap();
        skip_post_op(&mut r);
        assert_eq!((r.u32(), r.u32()), (Ok(100_001), Ok(2)));
        let mut r = wire
            .v3(
                6,
                args(|w| {
                    w.opaque(&fh);
                    w.u64(1);
                    w.u32(1 << 20);
                }),
            )
            .await;
        assert_eq!(r.u32(), Ok(0));
        skip_post_op(&mut r);
        assert_eq!((r.u32(), r.bool()), (Ok(100_000), Ok(true)));
        assert_eq!(r.opaque(1 << 20).unwrap()[..], data[1..]);
        assert_eq!(r.remaining(), 0);
        // A guard that no longer holds.
        let mut r = wire
            .v3(
                2,
                args(|w| {
                    w.opaque(&fh);
                    w.u32(1);
                    w.u32(0o600);
                    for _ in 0..5 {
                        w.u32(0);
                    }
                    w.bool(true);
                    w.u64(1);
                }),
            )
            .await;
        assert_eq!(r.u32(), Ok(10002));
        for (procedure, want) in [(18u32, 84 + 4 + 52), (19, 84 + 4 + 48), (20, 84 + 4 + 24)] {
            let mut r = wire.v3(procedure, args(|w| w.opaque(&root))).await;
            assert_eq!(r.u32(), Ok(0));
            assert_eq!(r.remaining(), want, "procedure {procedure}");
        }
        for bad in [&[0u8; 60][..], b"x", b""] {
            assert_eq!(wire.v3(1, args(|w| w.opaque(bad))).await.u32(), Ok(10001));
        }
    });
}

#[test]
fn listing_and_renaming() {
    run(1, |_| async move {
        let wire = Wire::connect().await;
        let root = mount(&wire, "/data").await.unwrap();
        let name_in = |dir: &Bytes, name: &str| {
            let (dir, name) = (dir.clone(), name.to_owned());
            args(move |w| {
                w.opaque(&dir);
                w.opaque(name.as_bytes());
            })
        };
        for i in 0..100 {
            let mut w = name_in(&root, &format!("dir{i}"));
            no_attributes(&mut w);
            assert_eq!(wire.v3(9, w).await.u32(), Ok(0));
        }
        for plus in [false, true] {
            let (mut cookie, mut names) = (0, Vec::new());
            loop {
                let w = args(|w| {
                    w.opaque(&root);
                    w.u64(cookie);
                    w.u64(0);
                    w.u32(1500);
                    if plus {
                        w.u32(3000);
                    }
                });
                let mut r = wire.v3(if plus { 17 } else { 16 }, w).await;
                assert_eq!(r.u32(), Ok(0));
                assert!(r.remaining() <= 3000);
                skip_post_op(&mut r);
                r.u64().unwrap();
                while r.bool().unwrap() {
                    r.u64().unwrap();
                    names.push(r.opaque(255).unwrap());
                    cookie = r.u64().unwrap();
                    if plus {
                        skip_post_op(&mut r);
                        assert!(r.bool().unwrap());
                        r.opaque(64).unwrap();
                    }
                }
                if r.bool().unwrap() {
                    break;
                }
            }
            assert_eq!(&names[..2], [&b"."[..], b".."]);
            assert_eq!(names.len(), 102);
        }
        let mut w = name_in(&root, "dir1");
        w.append(name_in(&root, "renamed"));
        assert_eq!(wire.v3(14, w).await.u32(), Ok(0));
        assert_eq!(wire.v3(3, name_in(&root, "dir1")).await.u32(), Ok(2));
        let mut r = wire.v3(3, name_in(&root, "renamed")).await;
        assert_eq!(r.u32(), Ok(0));
        let dir = r.opaque(64).unwrap();
        assert_eq!(mount(&wire, "/data/renamed").await, Ok(dir.clone()));
        let mut r = wire.v3(3, name_in(&dir, "..")).await;
        assert_eq!(r.u32(), Ok(0));
        assert_eq!(r.opaque(64).unwrap(), root);
        assert_eq!(wire.v3(12, name_in(&root, "renamed")).await.u32(), Ok(21));
        assert_eq!(wire.v3(13, name_in(&root, "renamed")).await.u32(), Ok(0));
    });
}

/// The same call again, over the same connection, over another one, and after a crash.
#[test]
fn retries_are_done_once() {
    let (mut sim, server, client) = sim(6, 2);
    let world = World::new();
    world.start(&mut sim, server);
    let fs = world.fs.clone();
    let call = sim.block_on(client, || async move {
        let wire = Wire::connect().await;
        let root = mount(&wire, "/data").await.unwrap();
        let call = wire.build(
            PROGRAM_NFS,
            3,
            9,
            args(|w| {
                w.opaque(&root);
                w.opaque(b"once");
                no_attributes(w);
            }),
        );
        let first = wire.record(call.clone()).await.unwrap();
        assert_eq!(accepted(first.clone()).u32(), Ok(0));
        assert_eq!(wire.record(call.clone()).await.unwrap(), first);
        assert_eq!(fs.lock().deduplicated, 0, "answered by the cache");
        // The next connection is another reactor's, whose cache knows nothing; the file system does.
        let other = Wire::connect().await;
        assert_eq!(other.record(call.clone()).await.unwrap(), first);
        assert_eq!(fs.lock().deduplicated, 1);
        call
    });
    sim.crash(server);
    sim.restart(server, 1);
    world.start(&mut sim, server);
    let fs = world.fs.clone();
    sim.block_on(client, || async move {
        let wire = Wire::connect().await;
        assert_eq!(accepted(wire.record(call).await.unwrap()).u32(), Ok(0));
        assert_eq!(fs.lock().deduplicated, 2);
    });
}

#[test]
fn versions_and_procedures() {
    run(1, |_| async move {
        let wire = Wire::connect().await;
        let stat = |program, version, procedure| {
            let record = wire.build(program, version, procedure, Writer::new());
            let wire = &wire;
            async move {
                let mut r = Reader::new(wire.record(record).await.unwrap());
                let head: [u8; 20] = r.fixed().unwrap();
                assert_eq!(head[4..], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                r.u32().unwrap()
            }
        };
        for (program, version) in [(PROGRAM_NFS, 3), (PROGRAM_NFS, 4), (PROGRAM_MOUNT, 3)] {
            assert_eq!(stat(program, version, 0).await, 0);
            assert_eq!(stat(program, version, 22).await, 3, "PROC_UNAVAIL");
        }
        assert_eq!(stat(PROGRAM_NFS, 2, 0).await, 2, "PROG_MISMATCH");
        assert_eq!(stat(PROGRAM_MOUNT, 1, 1).await, 2);
        assert_eq!(stat(100_000, 2, 0).await, 1, "no portmapper");
        assert_eq!(stat(PROGRAM_NFS, 3, 1).await, 4, "GARBAGE_ARGS");
    });
}
