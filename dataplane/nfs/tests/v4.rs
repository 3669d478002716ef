//! NFSv4.1 and 4.2 over the simulated network: sessions, files, locks, and what outlives a crash.

mod support;

use basalt_nfs::v4::types::{Status, op};
use basalt_nfs::{ExportSpec, Squash};
use basalt_reactor::sim::{NodeId, Sim};
use std::time::Duration;
use support::*;

/// Runs `f` on the client node against a fresh server of `cores` reactors.
fn run<F: Future<Output = ()> + 'static>(cores: u16, f: impl FnOnce(World) -> F) {
    let (mut sim, server, client) = sim(11, cores);
    let world = World::new();
    world.start(&mut sim, server);
    sim.block_on(client, || f(world));
}

#[test]
fn a_file_from_open_to_remove() {
    for cores in [1, 4] {
        run(cores, |world| async move {
            let wire = Wire::connect().await;
            let c = Client4::mount(&wire, "client", 1).await;
            let root = c.root(&wire).await;
            let (id, fh) = c.open(&wire, &root, "file", 3, true).await;
            let data = vec![0xa5; 300_000];
            let ops = write_op(Ops::new().putfh(&fh), &id, 5, &data).getattr(&[4]).op(op::COMMIT, |w| {
                w.u64(0);
                w.u32(0);
            });
            let mut a = c.run(&wire, ops).await;
            a.ok(op::PUTFH);
            let r = a.ok(op::WRITE);
            assert_eq!(r.u32(), Ok(300_000));
            assert_eq!(r.u32(), Ok(0));
            assert_eq!(r.fixed(), Ok(*b"verifier"));
            let r = a.ok(op::GETATTR);
            assert_eq!([(); 3].map(|()| r.u32().unwrap()), [1, 1 << 4, 8]);
            assert_eq!(r.u64(), Ok(300_005));
            assert_eq!(a.ok(op::COMMIT).fixed(), Ok(*b"verifier"));
            let mut a = c.run_uncached(&wire, read_op(Ops::new().putfh(&fh), &id, 0, 1 << 20)).await;
            a.ok(op::PUTFH);
            let r = a.ok(op::READ);
            assert_eq!(r.bool(), Ok(true));
            let got = r.opaque(1 << 20).unwrap();
            assert_eq!((&got[..5], &got[5..]), (&[0; 5][..], &data[..]));
            // A stateid of another file or a made-up one is refused.
            let mut forged = id;
            forged[15] ^= 1;
            for bad in [forged, [9; 16]] {
                let mut a = c.run(&wire, read_op(Ops::new().putfh(&fh), &bad, 0, 1)).await;
                a.ok(op::PUTFH);
                assert_eq!(a.next(op::READ), Status::BAD_STATEID);
            }
            let mut a = c.run(&wire, close_op(Ops::new().putfh(&fh), &id)).await;
            a.ok(op::PUTFH);
            a.ok(op::CLOSE);
            assert_eq!(world.fs.opens(), 0);
            let mut a = c.run(&wire, read_op(Ops::new().putfh(&fh), &id, 0, 1)).await;
            a.ok(op::PUTFH);
            assert_eq!(a.next(op::READ), Status::BAD_STATEID, "closed");
            let remove =
                Ops::new().putfh(&root).op(op::REMOVE, |w| w.opaque(b"file")).putfh(&fh).getattr(&[4]);
            let mut a = c.run(&wire, remove).await;
            a.ok(op::PUTFH);
            let r = a.ok(op::REMOVE);
            assert_eq!(r.bool(), Ok(true));
            assert!(r.u64().unwrap() < r.u64().unwrap());
            a.ok(op::PUTFH);
            assert_eq!(a.next(op::GETATTR), Status::STALE);
        });
    }
}

#[test]
fn names_in_directories() {
    run(2, |_| async move {
        let wire = Wire::connect().await;
        let c = Client4::mount(&wire, "client", 1).await;
        let root = c.root(&wire).await;
        let mkdir = |name: &'static str| {
            move |w: &mut basalt_nfs::xdr::Writer| {
                w.u32(2);
                w.opaque(name.as_bytes());
                bitmap(w, &[33]);
                w.opaque(&0o755u32.to_be_bytes());
            }
        };
        let ops = Ops::new()
            .putfh(&root)
            .op(op::CREATE, mkdir("dir"))
            .plain(op::GETFH)
            .plain(op::LOOKUPP)
            .plain(op::GETFH);
        let mut a = c.run(&wire, ops).await;
        a.ok(op::PUTFH);
        let r = a.ok(op::CREATE);
        let _: [u8; 20] = r.fixed().unwrap();
        for _ in 0..r.count(3).unwrap() {
            r.u32().unwrap();
        }
        let dir = a.ok(op::GETFH).opaque(128).unwrap();
        a.ok(op::LOOKUPP);
        assert_eq!(a.ok(op::GETFH).opaque(128).unwrap(), root);
        let mut a = c.run(&wire, Ops::new().putfh(&root).op(op::CREATE, mkdir("dir"))).await;
        a.ok(op::PUTFH);
        assert_eq!(a.next(op::CREATE), Status::EXIST);
        for (name, want) in [("", Status::INVAL), (".", Status::BADNAME), ("a/b", Status::BADCHAR)] {
            let mut a = c.run(&wire, Ops::new().putfh(&root).lookup(name)).await;
            a.ok(op::PUTFH);
            assert_eq!(a.next(op::LOOKUP), want);
        }
        let mut a = c.run(&wire, Ops::new().putfh(&root).lookup(&"n".repeat(256))).await;
        a.ok(op::PUTFH);
        assert_eq!(a.next(op::LOOKUP), Status::NAMETOOLONG);
        for i in 0..200 {
            let (id, fh) = c.open(&wire, &dir, &format!("file{i:03}"), 1, true).await;
            let mut a = c.run(&wire, close_op(Ops::new().putfh(&fh), &id)).await;
            a.ok(op::PUTFH);
            a.ok(op::CLOSE);
        }
        // Listed in pieces of 1 KiB, each name once.
        let (mut cookie, mut names) = (0, Vec::new());
        loop {
            let list = Ops::new().putfh(&dir).op(op::READDIR, |w| {
                w.u64(cookie);
                w.u64(0);
                w.u32(1024);
                w.u32(1024);
                bitmap(w, &[1, 20, 33]);
            });
            let mut a = c.run(&wire, list).await;
            a.ok(op::PUTFH);
            let r = a.ok(op::READDIR);
            let before = r.remaining();
            r.u64().unwrap();
            while r.bool().unwrap() {
                cookie = r.u64().unwrap();
                names.push(String::from_utf8(r.opaque(255).unwrap().to_vec()).unwrap());
                for _ in 0..r.count(3).unwrap() {
                    r.u32().unwrap();
                }
                assert_eq!(r.opaque(64).unwrap().len(), 16);
            }
            let eof = r.bool().unwrap();
            assert!(before - r.remaining() <= 1024);
            if eof {
                break;
            }
        }
        assert_eq!(names.len(), 200);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 200);
        // Rename over an existing name, link, and a symlink read back.
        let ops = Ops::new()
            .putfh(&dir)
            .plain(op::SAVEFH)
            .putfh(&root)
            .op(op::RENAME, |w| {
                w.opaque(b"file000");
                w.opaque(b"moved");
            })
            .lookup("moved")
            .plain(op::SAVEFH)
            .putfh(&dir)
            .op(op::LINK, |w| w.opaque(b"again"))
            .lookup("again")
            .getattr(&[35]);
        let mut a = c.run(&wire, ops).await;
        assert_eq!(a.status, Status::OK);
        for n in [op::PUTFH, op::SAVEFH, op::PUTFH] {
            a.ok(n);
        }
        let _: [u8; 40] = a.ok(op::RENAME).fixed().unwrap();
        for n in [op::LOOKUP, op::SAVEFH, op::PUTFH] {
            a.ok(n);
        }
        let _: [u8; 20] = a.ok(op::LINK).fixed().unwrap();
        a.ok(op::LOOKUP);
        let r = a.ok(op::GETATTR);
        let _: [u8; 16] = r.fixed().unwrap();
        assert_eq!(r.u32(), Ok(2));
        let symlink = Ops::new().putfh(&root).op(op::CREATE, |w| {
            w.u32(5);
            w.opaque(b"over/there");
            w.opaque(b"link");
            bitmap(w, &[]);
            w.u32(0);
        });
        let mut a = c.run(&wire, symlink.plain(op::READLINK)).await;
        a.ok(op::PUTFH);
        let r = a.ok(op::CREATE);
        let _: [u8; 24] = r.fixed().unwrap();
        assert_eq!(&a.ok(op::READLINK).opaque(100).unwrap()[..], b"over/there");
        let mut a = c.run(&wire, Ops::new().putfh(&root).lookup("link").lookup("x")).await;
        a.ok(op::PUTFH);
        a.ok(op::LOOKUP);
        assert_eq!(a.next(op::LOOKUP), Status::SYMLINK);
    });
}

#[test]
fn retries_are_answered_from_the_slot() {
    run(1, |world| async move {
        let wire = Wire::connect().await;
        let c = Client4::mount(&wire, "client", 1).await;
        let root = c.root(&wire).await;
        let mkdir = || {
            Ops::new().putfh(&root).op(op::CREATE, |w| {
                w.u32(2);
                w.opaque(b"once");
                bitmap(w, &[]);
                w.u32(0);
            })
        };
        let seq = c.next(1);
        let mut first = compound(&wire, c.with_sequence(mkdir(), 1, seq, true)).await;
        let mut again = compound(&wire, c.with_sequence(mkdir(), 1, seq, true)).await;
        assert_eq!(first.r.rest(), again.r.rest());
        assert_eq!((first.status, again.status), (Status::OK, Status::OK));
        first.sequence();
        again.sequence();
        assert_eq!(world.fs.lock().deduplicated, 0, "the slot answered, not the file system");
        // Another request under the same sequence.
        let mut a = compound(&wire, c.with_sequence(Ops::new().putfh(&root), 1, seq, true)).await;
        assert_eq!(a.next(op::SEQUENCE), Status::SEQ_FALSE_RETRY);
        // An error in SEQUENCE leaves the slot alone.
        let mut a = compound(&wire, c.with_sequence(Ops::new(), 1, seq + 2, true)).await;
        assert_eq!(a.next(op::SEQUENCE), Status::SEQ_MISORDERED);
        let mut a = compound(&wire, c.with_sequence(Ops::new(), c.slots, 1, true)).await;
        assert_eq!(a.next(op::SEQUENCE), Status::BADSLOT);
        let mut a = compound(&wire, c.with_sequence(Ops::new(), 1, seq + 1, true)).await;
        a.sequence();
        c.next(1);
        // A large reply that was not to be kept.
        let (id, fh) = c.open(&wire, &root, "f", 3, true).await;
        c.run(&wire, write_op(Ops::new().putfh(&fh), &id, 0, &[1; 50_000])).await;
        let read = || read_op(Ops::new().putfh(&fh), &id, 0, 50_000);
        let seq = c.next(1);
        let a = compound(&wire, c.with_sequence(read(), 1, seq, false)).await;
        assert_eq!(a.status, Status::OK);
        let mut a = compound(&wire, c.with_sequence(read(), 1, seq, false)).await;
        assert_eq!(a.status, Status::RETRY_UNCACHED_REP);
        a.sequence();
        // Kept replies have a size; what exceeds it says so.
        let a = compound(&wire, c.with_sequence(read(), 1, c.next(1), true)).await;
        assert_eq!(a.status, Status::REP_TOO_BIG_TO_CACHE);
    });
}

#[test]
fn rules_of_compounds() {
    run(1, |_| async move {
        let wire = Wire::connect().await;
        let mut ops = Ops::new().plain(op::PUTROOTFH);
        ops.minor = 0;
        let a = compound(&wire, ops).await;
        assert_eq!((a.status, a.count), (Status::MINOR_VERS_MISMATCH, 0));
        let a = compound(&wire, Ops::new()).await;
        assert_eq!((a.status, a.count), (Status::OK, 0));
        let mut a = compound(&wire, Ops::new().plain(op::PUTROOTFH)).await;
        assert_eq!(a.next(op::PUTROOTFH), Status::OP_NOT_IN_SESSION);
        let mut a = compound(&wire, Ops::new().plain(9999)).await;
        assert_eq!(a.next(op::ILLEGAL), Status::OP_ILLEGAL);
        let mut a = compound(&wire, exchange_id("x", 1, 0).plain(op::PUTROOTFH)).await;
        assert_eq!(a.next(op::EXCHANGE_ID), Status::NOT_ONLY_OP);
        let c = Client4::mount(&wire, "client", 1).await;
        let mut a = c.run(&wire, c.with_sequence(Ops::new(), 1, 1, false)).await;
        assert_eq!(a.next(op::SEQUENCE), Status::SEQUENCE_POS);
        let mut a = c.run(&wire, Ops::new().plain(op::GETFH)).await;
        assert_eq!(a.next(op::GETFH), Status::NOFILEHANDLE);
        let mut a = c.run(&wire, Ops::new().plain(op::PUTROOTFH).plain(op::CLONE)).await;
        a.ok(op::PUTROOTFH);
        assert_eq!(a.next(op::CLONE), Status::NOTSUPP);
        let mut many = Ops::new();
        for _ in 0..20 {
            many = many.plain(op::PUTROOTFH);
        }
        let mut a = compound(&wire, c.with_sequence(many, 2, 1, false)).await;
        assert_eq!(a.next(op::SEQUENCE), Status::TOO_MANY_OPS);
        let mut minor1 = c.with_sequence(Ops::new().plain(op::SEEK), 3, 1, false);
        minor1.minor = 1;
        let mut a = compound(&wire, minor1).await;
        a.sequence();
        assert_eq!(a.next(op::ILLEGAL), Status::OP_ILLEGAL);
        for fh in [&b""[..], b"short", &[0; 60], &[1; 128]] {
            let mut a = c.run(&wire, Ops::new().putfh(fh)).await;
            assert_eq!(a.next(op::PUTFH), Status::BADHANDLE);
        }
    });
}

#[test]
fn space_and_holes() {
    run(1, |_| async move {
        let wire = Wire::connect().await;
        let c = Client4::mount(&wire, "client", 1).await;
        let root = c.root(&wire).await;
        let (id, fh) = c.open(&wire, &root, "f", 3, true).await;
        c.run(&wire, write_op(Ops::new().putfh(&fh), &id, 0, &[7; 1000])).await;
        let range = |number, offset: u64, len: u64| {
            Ops::new().putfh(&fh).op(number, move |w| {
                w.fixed(&id);
                w.u64(offset);
                w.u64(len);
            })
        };
        for (offset, len, want) in [
            (0, 500, Ok(1000)),
            (500, 4000, Ok(4500)),
            (0, 0, Err(Status::INVAL)),
            (u64::MAX, 2, Err(Status::INVAL)),
            (0, 1 << 40, Err(Status::NOSPC)),
        ] {
            let mut a = c.run(&wire, range(op::ALLOCATE, offset, len).getattr(&[4])).await;
            a.ok(op::PUTFH);
            match (a.next(op::ALLOCATE), want) {
                (Status::OK, Ok(size)) => {
                    let r = a.ok(op::GETATTR);
                    let _: [u8; 12] = r.fixed().unwrap();
                    assert_eq!(r.u64(), Ok(size));
                }
                (got, want) => assert_eq!(Err(got), want),
            }
        }
        let mut a = c.run(&wire, range(op::DEALLOCATE, 0, 600)).await;
        a.ok(op::PUTFH);
        a.ok(op::DEALLOCATE);
        let mut a = c.run(&wire, read_op(Ops::new().putfh(&fh), &id, 599, 2)).await;
        a.ok(op::PUTFH);
        let r = a.ok(op::READ);
        r.bool().unwrap();
        assert_eq!(&r.opaque(2).unwrap()[..], [0, 7]);
        for (offset, want) in [(0, Status::OK), (4500, Status::NXIO)] {
            let seek = Ops::new().putfh(&fh).op(op::SEEK, |w| {
                w.fixed(&id);
                w.u64(offset);
                w.u32(0);
            });
            let mut a = c.run(&wire, seek).await;
            a.ok(op::PUTFH);
            assert_eq!(a.next(op::SEEK), want);
        }
    });
}

/// Section 18.35.4's cases.
#[test]
fn exchange_id_cases() {
    run(2, |world| async move {
        const UPDATE: u32 = 0x4000_0000;
        const CONFIRMED: u32 = 0x8000_0000;
        let wire = Wire::connect().await;
        let other = Wire::connect().await.user(1000);
        async fn ask(wire: &Wire, verifier: u64, flags: u32) -> Result<(u64, u32, u32), Status> {
            let mut a = compound(wire, exchange_id("owner", verifier, flags)).await;
            match a.next(op::EXCHANGE_ID) {
                Status::OK => Ok((a.r.u64().unwrap(), a.r.u32().unwrap(), a.r.u32().unwrap())),
                e => Err(e),
            }
        }
        assert_eq!(ask(&wire, 1, UPDATE).await, Err(Status::NOENT));
        let (unconfirmed, _, flags) = ask(&wire, 1, 0).await.unwrap();
        assert_eq!(flags & CONFIRMED, 0);
        let (id, seq, _) = ask(&wire, 1, 0).await.unwrap();
        assert_ne!(id, unconfirmed, "an unconfirmed record is replaced");
        let mut a = compound(&wire, create_session(unconfirmed, seq)).await;
        assert_eq!(a.next(op::CREATE_SESSION), Status::STALE_CLIENTID);
        let mut a = compound(&other, create_session(id, seq)).await;
        assert_eq!(a.next(op::CREATE_SESSION), Status::CLID_INUSE);
        let mut a = compound(&wire, create_session(id, seq + 1)).await;
        assert_eq!(a.next(op::CREATE_SESSION), Status::SEQ_MISORDERED);
        let first = compound(&wire, create_session(id, seq)).await.r;
        let again = compound(&wire, create_session(id, seq)).await.r;
        assert_eq!(first.rest(), again.rest(), "CREATE_SESSION's reply is kept");
        let (same, _, flags) = ask(&wire, 1, 0).await.unwrap();
        assert_eq!((same, flags & CONFIRMED), (id, CONFIRMED));
        assert_eq!(ask(&wire, 1, UPDATE).await.unwrap().0, id);
        assert_eq!(ask(&wire, 2, UPDATE).await, Err(Status::NOT_SAME));
        assert_eq!(ask(&other, 1, UPDATE).await, Err(Status::PERM));
        assert_eq!(ask(&other, 1, 0).await, Err(Status::CLID_INUSE));
        assert_eq!(ask(&wire, 1, CONFIRMED).await, Err(Status::INVAL));
        // The client restarts: its old state goes when the new record is confirmed, not before.
        let (new, seq, _) = ask(&wire, 2, 0).await.unwrap();
        assert_ne!(new, id);
        assert!(world.fs.lock().released.is_empty());
        let mut a = compound(&wire, create_session(new, seq)).await;
        a.ok(op::CREATE_SESSION);
        assert_eq!(world.fs.lock().released, [id]);
        let mut a = compound(&wire, create_session(id, 2)).await;
        assert_eq!(a.next(op::CREATE_SESSION), Status::STALE_CLIENTID);
    });
}

#[test]
fn sessions_and_clients_end() {
    run(2, |_| async move {
        let wire = Wire::connect().await;
        let c = Client4::mount(&wire, "client", 1).await;
        let destroy_client = |id: u64| Ops::new().op(op::DESTROY_CLIENTID, move |w| w.u64(id));
        let mut a = compound(&wire, destroy_client(c.id)).await;
        assert_eq!(a.next(op::DESTROY_CLIENTID), Status::CLIENTID_BUSY);
        let session = c.session;
        let destroy = || Ops::new().op(op::DESTROY_SESSION, |w| w.fixed(&session));
        let mut bind = compound(
            &wire,
            Ops::new().op(op::BIND_CONN_TO_SESSION, |w| {
                w.fixed(&session);
                w.u32(3);
                w.bool(false);
            }),
        )
        .await;
        bind.ok(op::BIND_CONN_TO_SESSION);
        let mut a = compound(&wire, destroy()).await;
        a.ok(op::DESTROY_SESSION);
        let mut a = compound(&wire, destroy()).await;
        assert_eq!(a.next(op::DESTROY_SESSION), Status::BADSESSION);
        let mut a = compound(&wire, c.with_sequence(Ops::new(), 0, c.next(0), false)).await;
        assert_eq!(a.next(op::SEQUENCE), Status::BADSESSION);
        let mut a = compound(&wire, destroy_client(c.id)).await;
        a.ok(op::DESTROY_CLIENTID);
        let mut a = compound(&wire, destroy_client(c.id)).await;
        assert_eq!(a.next(op::DESTROY_CLIENTID), Status::STALE_CLIENTID);
    });
}

fn lock_op(ops: Ops, c: &Client4, open: &[u8; 16], owner: &str, offset: u64, len: u64) -> Ops {
    let id = c.id;
    ops.op(op::LOCK, |w| {
        w.u32(2);
        w.bool(false);
        w.u64(offset);
        w.u64(len);
        w.bool(true);
        w.u32(0);
        w.fixed(open);
        w.u32(0);
        w.u64(id);
        w.opaque(owner.as_bytes());
    })
}
fn unlock_op(ops: Ops, lock: &[u8; 16]) -> Ops {
    ops.op(op::LOCKU, |w| {
        w.u32(2);
        w.u32(0);
        w.fixed(lock);
        w.u64(0);
        w.u64(u64::MAX);
    })
}

#[test]
fn locks() {
    run(4, |world| async move {
        let wire = Wire::connect().await;
        let a = Client4::mount(&wire, "a", 1).await;
        let b = Client4::mount(&wire, "b", 1).await;
        let root = a.root(&wire).await;
        let (open_a, fh) = a.open(&wire, &root, "f", 3, true).await;
        let (open_b, _) = b.open(&wire, &root, "f", 3, false).await;
        let mut r = a.run(&wire, lock_op(Ops::new().putfh(&fh), &a, &open_a, "1", 10, 10)).await;
        r.ok(op::PUTFH);
        let lock: [u8; 16] = r.ok(op::LOCK).fixed().unwrap();
        let mut r = b.run(&wire, lock_op(Ops::new().putfh(&fh), &b, &open_b, "1", 15, 1)).await;
        r.ok(op::PUTFH);
        assert_eq!(r.next(op::LOCK), Status::DENIED);
        assert_eq!((r.r.u64(), r.r.u64(), r.r.u32(), r.r.u64()), (Ok(10), Ok(10), Ok(2), Ok(a.id)));
        let free = |id: [u8; 16]| Ops::new().op(op::FREE_STATEID, move |w| w.fixed(&id));
        let mut r = a.run(&wire, free(lock)).await;
        assert_eq!(r.next(op::FREE_STATEID), Status::LOCKS_HELD);
        let mut r = a.run(&wire, unlock_op(Ops::new().putfh(&fh), &lock)).await;
        r.ok(op::PUTFH);
        let newer: [u8; 16] = r.ok(op::LOCKU).fixed().unwrap();
        assert_eq!((newer[3], &newer[4..]), (lock[3] + 1, &lock[4..]));
        let mut r = a.run(&wire, unlock_op(Ops::new().putfh(&fh), &lock)).await;
        r.ok(op::PUTFH);
        assert_eq!(r.next(op::LOCKU), Status::OLD_STATEID);
        let mut r = a.run(&wire, free(newer)).await;
        r.ok(op::FREE_STATEID);
        let mut r = b.run(&wire, lock_op(Ops::new().putfh(&fh), &b, &open_b, "1", 15, 1)).await;
        r.ok(op::PUTFH);
        r.ok(op::LOCK);
        let mut r = b.run(&wire, lock_op(Ops::new().putfh(&fh), &b, &open_b, "1", 15, 0)).await;
        r.ok(op::PUTFH);
        assert_eq!(r.next(op::LOCK), Status::INVAL);
        // CLOSE gives the locks of that open back.
        let mut r = b.run(&wire, close_op(Ops::new().putfh(&fh), &open_b)).await;
        r.ok(op::PUTFH);
        r.ok(op::CLOSE);
        assert_eq!(world.fs.locks(), 0);
    });
}

#[test]
fn share_modes_and_upgrades() {
    run(1, |world| async move {
        let wire = Wire::connect().await;
        let a = Client4::mount(&wire, "a", 1).await;
        let b = Client4::mount(&wire, "b", 1).await;
        let root = a.root(&wire).await;
        let (read_only, fh) = a.open(&wire, &root, "f", 1, true).await;
        let mut r = a.run(&wire, write_op(Ops::new().putfh(&fh), &read_only, 0, b"x")).await;
        r.ok(op::PUTFH);
        assert_eq!(r.next(op::WRITE), Status::OPENMODE);
        let (both, _) = a.open(&wire, &root, "f", 3, false).await;
        assert_eq!((both[3], &both[4..]), (2, &read_only[4..]), "one state per owner and file");
        let mut r = a.run(&wire, write_op(Ops::new().putfh(&fh), &both, 0, b"x")).await;
        r.ok(op::PUTFH);
        r.ok(op::WRITE);
        let mut r =
            b.run(&wire, Ops::new().putfh(&root).op(op::OPEN, |w| b.open_args(w, "f", 1, 2, false))).await;
        r.ok(op::PUTFH);
        assert_eq!(r.next(op::OPEN), Status::SHARE_DENIED);
        let downgrade = Ops::new().putfh(&fh).op(op::OPEN_DOWNGRADE, |w| {
            w.fixed(&both);
            w.u32(0);
            w.u32(1);
            w.u32(0);
        });
        let mut r = a.run(&wire, downgrade).await;
        r.ok(op::PUTFH);
        let down: [u8; 16] = r.ok(op::OPEN_DOWNGRADE).fixed().unwrap();
        let mut r =
            b.run(&wire, Ops::new().putfh(&root).op(op::OPEN, |w| b.open_args(w, "f", 1, 2, false))).await;
        r.ok(op::PUTFH);
        r.ok(op::OPEN);
        // Its own deny mode does not keep an owner out.
        let mut r =
            b.run(&wire, Ops::new().putfh(&root).op(op::OPEN, |w| b.open_args(w, "f", 3, 2, false))).await;
        r.ok(op::PUTFH);
        r.ok(op::OPEN);
        let mut r = a.run(&wire, close_op(Ops::new().putfh(&fh), &down)).await;
        r.ok(op::PUTFH);
        r.ok(op::CLOSE);
        assert!(world.fs.opens() >= 1);
    });
}

/// The data plane is killed; with another number of reactors it comes back, and the client goes on as if nothing was.
#[test]
fn state_outlives_a_crash() {
    let (mut sim, server, client) = sim(3, 4);
    let world = World::new();
    world.start(&mut sim, server);
    let (c, root, id, fh, lock) = sim.block_on(client, || async move {
        let wire = Wire::connect().await;
        let c = Client4::mount(&wire, "client", 1).await;
        let root = c.root(&wire).await;
        let (id, fh) = c.open(&wire, &root, "f", 3, true).await;
        let mut r = c.run(&wire, lock_op(Ops::new().putfh(&fh), &c, &id, "1", 0, 5)).await;
        r.ok(op::PUTFH);
        let lock: [u8; 16] = r.ok(op::LOCK).fixed().unwrap();
        let remove = Ops::new().putfh(&root).op(op::CREATE, |w| {
            w.u32(2);
            w.opaque(b"dir");
            bitmap(w, &[]);
            w.u32(0);
        });
        c.run(&wire, remove).await;
        (c, root, id, fh, lock)
    });
    restart(&mut sim, server, &world, 2);
    let fs = world.fs.clone();
    sim.block_on(client, || async move {
        let wire = Wire::connect().await;
        // The last request before the crash again: its reply was lost, its effect was not.
        let retry = Ops::new().putfh(&root).op(op::CREATE, |w| {
            w.u32(2);
            w.opaque(b"dir");
            bitmap(w, &[]);
            w.u32(0);
        });
        let a = compound(&wire, c.with_sequence(retry, 0, c.last(0), true)).await;
        assert_eq!(a.status, Status::OK);
        assert_eq!(fs.lock().deduplicated, 1);
        // The open and the lock are known by their stateids.
        assert_eq!(fs.opens(), 0);
        let mut a = c.run(&wire, write_op(Ops::new().putfh(&fh), &id, 0, b"after")).await;
        a.ok(op::PUTFH);
        a.ok(op::WRITE);
        assert_eq!(fs.opens(), 1);
        let mut wrong = lock;
        wrong[5] ^= 1;
        let mut a = c.run(&wire, unlock_op(Ops::new().putfh(&fh), &wrong)).await;
        a.ok(op::PUTFH);
        assert_eq!(a.next(op::LOCKU), Status::BAD_STATEID);
        assert_eq!(fs.locks(), 1);
        let mut a = c.run(&wire, unlock_op(Ops::new().putfh(&fh), &lock)).await;
        a.ok(op::PUTFH);
        a.ok(op::LOCKU);
        assert_eq!(fs.locks(), 0);
        // The same owner opens again and gets the same state, so one CLOSE ends it.
        let (again, _) = c.open(&wire, &root, "f", 1, false).await;
        assert_eq!(again[4..], id[4..]);
        let mut a = c.run(&wire, close_op(Ops::new().putfh(&fh), &again)).await;
        a.ok(op::PUTFH);
        a.ok(op::CLOSE);
        assert_eq!(fs.opens(), 0);
        // What is closed now stays closed.
        let mut a = c.run(&wire, write_op(Ops::new().putfh(&fh), &again, 0, b"x")).await;
        a.ok(op::PUTFH);
        assert_ne!(a.next(op::WRITE), Status::OK);
    });
}

fn restart(sim: &mut Sim, server: NodeId, world: &World, cores: u16) {
    sim.crash(server);
    world.fs.forget_opens();
    sim.restart(server, cores);
    world.start(sim, server);
}

#[test]
fn a_lease_ends_and_takes_the_state_along() {
    run(2, |world| async move {
        let wire = Wire::connect().await;
        let a = Client4::mount(&wire, "a", 1).await;
        let b = Client4::mount(&wire, "b", 1).await;
        let root = a.root(&wire).await;
        let (open, fh) = a.open(&wire, &root, "f", 3, true).await;
        a.run(&wire, lock_op(Ops::new().putfh(&fh), &a, &open, "1", 0, 5)).await;
        for _ in 0..8 {
            basalt_reactor::sleep(Duration::from_secs(30)).await;
            b.run(&wire, Ops::new()).await;
        }
        let mut r = compound(&wire, a.with_sequence(Ops::new(), 0, a.next(0), false)).await;
        assert_eq!(r.next(op::SEQUENCE), Status::BADSESSION);
        assert_eq!(world.fs.lock().released, [a.id]);
        assert_eq!((world.fs.opens(), world.fs.locks()), (0, 0));
        b.run(&wire, Ops::new()).await;
    });
}

#[test]
fn exports_and_the_pseudo_root() {
    run(1, |world| async move {
        let mut ro = ExportSpec::new(2, "/more/of/it");
        ro.read_only = true;
        ro.squash = Squash::None;
        world.export(ro);
        let mut closed = ExportSpec::new(3, "/closed");
        closed.clients = vec!["192.0.2.0/24".into()];
        world.export(closed);
        let mut squashed = ExportSpec::new(4, "/squashed");
        squashed.squash = Squash::Root;
        world.export(squashed);
        let wire = Wire::connect().await;
        let c = Client4::mount(&wire, "client", 1).await;
        let list = Ops::new().plain(op::PUTROOTFH).op(op::READDIR, |w| {
            w.u64(0);
            w.u64(0);
            w.u32(4096);
            w.u32(4096);
            bitmap(w, &[]);
        });
        let mut a = c.run(&wire, list).await;
        a.ok(op::PUTROOTFH);
        let r = a.ok(op::READDIR);
        r.u64().unwrap();
        let mut names = Vec::new();
        while r.bool().unwrap() {
            r.u64().unwrap();
            names.push(r.opaque(255).unwrap());
            let _: [u8; 8] = r.fixed().unwrap();
        }
        names.sort();
        assert_eq!(names, ["data", "more", "squashed"].map(str::as_bytes));
        let ops = Ops::new()
            .plain(op::PUTROOTFH)
            .lookup("more")
            .lookup("of")
            .lookup("it")
            .plain(op::GETFH)
            .getattr(&[8, 55]);
        let mut a = c.run(&wire, ops).await;
        a.ok(op::PUTROOTFH);
        for _ in 0..3 {
            a.ok(op::LOOKUP);
        }
        let ro = a.ok(op::GETFH).opaque(128).unwrap();
        a.ok(op::GETATTR);
        let mut a =
            c.run(&wire, Ops::new().putfh(&ro).op(op::OPEN, |w| c.open_args(w, "f", 2, 0, true))).await;
        a.ok(op::PUTFH);
        assert_eq!(a.next(op::OPEN), Status::ROFS);
        let mut a = c.run(&wire, Ops::new().plain(op::PUTROOTFH).lookup("closed")).await;
        a.ok(op::PUTROOTFH);
        assert_eq!(a.next(op::LOOKUP), Status::ACCESS);
        let mut a = c.run(&wire, Ops::new().plain(op::PUTROOTFH).op(op::REMOVE, |w| w.opaque(b"data"))).await;
        a.ok(op::PUTROOTFH);
        assert_eq!(a.next(op::REMOVE), Status::ROFS);
        // Root is nobody there.
        let ops = Ops::new()
            .plain(op::PUTROOTFH)
            .lookup("squashed")
            .op(op::OPEN, |w| c.open_args(w, "s", 3, 0, true))
            .getattr(&[36]);
        let mut a = c.run(&wire, ops).await;
        assert_eq!(a.status, Status::OK);
        assert!(a.r.rest().windows(5).any(|w| w == b"65534"));
        a.ok(op::PUTROOTFH);
        // Removed: gone at once, while the other exports go on.
        world.exports.remove("/more/of/it").unwrap();
        let mut a = c.run(&wire, Ops::new().putfh(&ro)).await;
        assert_eq!(a.next(op::PUTFH), Status::STALE);
        c.root(&wire).await;
    });
}
