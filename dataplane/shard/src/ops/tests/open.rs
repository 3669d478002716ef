//! Opens, files removed while open, and locks, across restarts.

use super::World;
use crate::ops::ROOT;
use crate::planted::{self, Planted};
use crate::vfs::*;

const READ: Share = Share { access: 1, deny: 0 };
const BOTH: Share = Share { access: 3, deny: 0 };

#[test]
fn a_removed_file_lives_until_it_is_closed() {
    for fault in [None, Some(Planted::OrphanForgotten)] {
        let mut w = World::new(2, 2, 4);
        let f = w.run(|fs| async move {
            let cx = Context::root();
            let d = fs.mkdir_at(ROOT, "d").await.unwrap();
            let f = fs.create_at(d, "f").await.unwrap();
            fs.put(f, "still here").await.unwrap();
            // Away from its shard, so that the last name goes in a transaction across shards.
            fs.mv(d, "f", ROOT, "f").await.unwrap();
            fs.open(&cx, f, 1, READ, true).await.unwrap();
            fs.open(&cx, f, 2, BOTH, true).await.unwrap();
            f
        });
        planted::set(fault);
        w.run(move |fs| async move {
            fs.rm(ROOT, "f").await.unwrap();
            assert_eq!(fs.getattr(f, 0).await.unwrap().nlink, 0);
            assert_eq!(fs.text(f).await.unwrap(), "still here");
            fs.close(f, 2, BOTH).await.unwrap();
            assert_eq!(fs.text(f).await.unwrap(), "still here");
        });
        let faults = w.check();
        planted::set(None);
        if fault.is_some() {
            assert!(!faults.is_empty(), "the planted fault is found");
            continue;
        }
        assert!(faults.is_empty(), "{faults:?}");
        w.crash(3);
        w.run(move |fs| async move {
            let cx = Context::root();
            // The client that holds it may open again, and reads on meanwhile; another never knew it.
            assert_eq!(fs.text(f).await.unwrap(), "still here");
            fs.open(&cx, f, 1, READ, false).await.unwrap();
            fs.close(f, 1, READ).await.unwrap();
            assert_eq!(fs.getattr(f, 0).await, Err(FsError::Stale));
            assert_eq!(fs.open(&cx, f, 1, READ, false).await, Err(FsError::Stale));
        });
        w.assert_sound();
        assert_eq!(w.run(move |fs| async move { fs.getattr(f, 0).await }), Err(FsError::Stale));
    }
}

#[test]
fn a_client_that_is_gone_lets_go_of_everything() {
    let mut w = World::new(2, 2, 4);
    let (f, g) = w.run(|fs| async move {
        let cx = Context::root();
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        let f = fs.create_at(d, "f").await.unwrap();
        let g = fs.create_at(d, "g").await.unwrap();
        fs.put(f, "contents").await.unwrap();
        fs.open(&cx, f, 1, READ, true).await.unwrap();
        fs.open(&cx, g, 1, Share { access: 3, deny: 3 }, true).await.unwrap();
        assert_eq!(fs.open(&cx, g, 2, READ, true).await, Err(FsError::ShareDenied));
        fs.lock(&cx, g, &owner(1, "a"), range(0, 10, true)).await.unwrap().unwrap();
        fs.rm(d, "f").await.unwrap();
        (f, g)
    });
    // What is volatile goes with a crash, what is not is released without having been opened again.
    w.crash(2);
    w.run(move |fs| async move {
        let cx = Context::root();
        let conflict = fs.lock(&cx, g, &owner(2, "b"), range(5, 1, false)).await.unwrap().unwrap_err();
        assert_eq!(conflict, LockConflict { owner: owner(1, "a"), range: range(0, 10, true) });
        fs.release_client(1, &[]).await.unwrap();
        fs.lock(&cx, g, &owner(2, "b"), range(5, 1, false)).await.unwrap().unwrap();
        assert_eq!(fs.getattr(f, 0).await, Err(FsError::Stale));
        fs.open(&cx, g, 2, READ, true).await.unwrap();
    });
    w.assert_sound();
}

fn owner(client: u64, name: &'static str) -> LockOwner {
    LockOwner { client, owner: name.into() }
}
fn range(offset: u64, length: u64, write: bool) -> LockRange {
    LockRange { offset, length, write }
}

#[test]
fn locks_conflict_upgrade_and_survive() {
    let mut w = World::new(2, 2, 4);
    let f = w.run(|fs| async move {
        let cx = Context::root();
        let f = fs.create_at(ROOT, "f").await.unwrap();
        let (a, b) = (owner(1, "a"), owner(1, "b"));
        fs.lock(&cx, f, &a, range(0, 100, false)).await.unwrap().unwrap();
        fs.lock(&cx, f, &b, range(50, 100, false)).await.unwrap().unwrap();
        let up = fs.lock(&cx, f, &a, range(0, 100, true)).await.unwrap();
        assert_eq!(up, Err(LockConflict { owner: b.clone(), range: range(50, 100, false) }));
        fs.lock(&cx, f, &a, range(0, 50, true)).await.unwrap().unwrap();
        fs.unlock(&cx, f, &b, 0, u64::MAX).await.unwrap();
        assert!(!fs.holds_locks(f, &b).await.unwrap() && fs.holds_locks(f, &a).await.unwrap());
        let seen = fs.test_lock(f, &b, range(0, u64::MAX, false)).await.unwrap();
        assert_eq!(seen, Some(LockConflict { owner: a.clone(), range: range(0, 50, true) }));
        assert_eq!(fs.test_lock(f, &b, range(50, 1, false)).await.unwrap(), None);
        assert_eq!(fs.test_lock(f, &a, range(0, 1, true)).await.unwrap(), None);
        assert_eq!(fs.lock(&cx, f, &a, range(5, 0, true)).await, Err(FsError::Invalid));
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        assert_eq!(fs.lock(&cx, d, &a, range(5, 1, true)).await, Err(FsError::IsDirectory));
        f
    });
    w.crash(1);
    w.run(move |fs| async move {
        let seen = fs.test_lock(f, &owner(9, "z"), range(60, 10, true)).await.unwrap();
        assert_eq!(seen, Some(LockConflict { owner: owner(1, "a"), range: range(50, 50, false) }));
        fs.rm(ROOT, "f").await.unwrap();
    });
    w.assert_sound();
}
