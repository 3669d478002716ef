//! Names, one operation at a time, on one core and on several.

use super::World;
use crate::fs::FileSystem;
use crate::ops::ROOT;
use crate::planted::{self, Planted};
use crate::vfs::*;

fn on_worlds<F: Future<Output = ()> + 'static>(client: impl Fn(FileSystem) -> F) {
    for (cores, slots) in [(1, 1), (1, 6), (3, 6)] {
        let mut w = World::new(11, cores, slots);
        w.run(&client);
        w.assert_sound();
        w.crash(2);
        w.assert_sound();
    }
}

#[test]
fn directories_spread_over_the_shards_for_two_levels() {
    let mut w = World::new(3, 2, 8);
    w.run(|fs| async move {
        let mut slots = std::collections::BTreeSet::new();
        for n in 0..40 {
            let d = fs.mkdir_at(ROOT, &format!("d{n}")).await.unwrap();
            slots.insert(d.slot());
            let f = fs.create_at(d, "file").await.unwrap();
            assert_eq!(f.slot(), d.slot(), "a file is born in its directory's shard");
            let e = fs.mkdir_at(d, &format!("e{n}")).await.unwrap();
            let deep = fs.mkdir_at(e, "deep").await.unwrap();
            assert_eq!(deep.slot(), e.slot(), "deeper ones stay");
        }
        assert_eq!(slots.len(), 8);
        assert_eq!(fs.getattr(ROOT, 0).await.unwrap().nlink, 42);
    });
    w.assert_sound();
}

#[test]
fn rename_as_posix_has_it() {
    on_worlds(|fs| async move {
        let a = fs.mkdir_at(ROOT, "a").await.unwrap();
        let b = fs.mkdir_at(ROOT, "b").await.unwrap();
        let f = fs.create_at(a, "f").await.unwrap();
        fs.put(f, "the contents of f").await.unwrap();
        let g = fs.create_at(b, "g").await.unwrap();
        fs.put(g, "to be replaced").await.unwrap();

        assert_eq!(fs.mv(a, "none", b, "x").await, Err(FsError::NotFound));
        // Over a file, across directories; the file keeps its inode and its contents.
        let before = fs.getattr(f, 0).await.unwrap();
        fs.mv(a, "f", b, "g").await.unwrap();
        assert_eq!(fs.find_at(a, "f").await, Err(FsError::NotFound));
        let after = fs.find_at(b, "g").await.unwrap();
        assert_eq!(after.ino, f);
        assert!(after.change > before.change && after.ctime > before.ctime, "the inode's ctime moves");
        assert_eq!(after.mtime, before.mtime);
        assert_eq!(fs.text(f).await.unwrap(), "the contents of f");
        assert_eq!(fs.getattr(g, 0).await, Err(FsError::Stale));

        // Two names of one inode: nothing happens.
        let (linked, _) = fs.link(&Context::root(), f, a, b"f2").await.unwrap();
        assert_eq!(linked.nlink, 2);
        fs.mv(a, "f2", b, "g").await.unwrap();
        fs.mv(b, "g", b, "g").await.unwrap();
        assert_eq!(fs.find_at(a, "f2").await.unwrap().nlink, 2);

        // Directories: only over empty ones, kinds must agree, never beneath themselves.
        let d = fs.mkdir_at(a, "d").await.unwrap();
        let e = fs.mkdir_at(b, "e").await.unwrap();
        let inner = fs.mkdir_at(d, "inner").await.unwrap();
        assert_eq!(fs.mv(a, "d", b, "g").await, Err(FsError::NotDirectory));
        assert_eq!(fs.mv(b, "g", a, "d").await, Err(FsError::IsDirectory));
        assert_eq!(fs.mv(b, "e", a, "d").await, Err(FsError::NotEmpty));
        assert_eq!(fs.mv(ROOT, "a", inner, "x").await, Err(FsError::Invalid));
        assert_eq!(fs.mv(ROOT, "a", a, "x").await, Err(FsError::Invalid));
        assert_eq!(fs.mv(d, "inner", ROOT, "a").await, Err(FsError::NotEmpty), "an ancestor is never empty");
        assert_eq!((fs.getattr(a, 0).await.unwrap().nlink, fs.getattr(b, 0).await.unwrap().nlink), (3, 3));
        fs.mv(a, "d", b, "e").await.unwrap();
        assert_eq!((fs.getattr(a, 0).await.unwrap().nlink, fs.getattr(b, 0).await.unwrap().nlink), (2, 3));
        assert_eq!(fs.getattr(e, 0).await, Err(FsError::Stale));
        assert_eq!(fs.lookup_parent(&Context::root(), d).await.unwrap().ino, b);
        assert_eq!(fs.lookup_parent(&Context::root(), inner).await.unwrap().ino, d);
        // Within one directory.
        fs.mv(b, "e", b, "e2").await.unwrap();
        assert_eq!(fs.find_at(b, "e2").await.unwrap().ino, d);
        assert_eq!(fs.getattr(b, 0).await.unwrap().nlink, 3);
        assert_eq!(fs.lookup_parent(&Context::root(), ROOT).await.unwrap().ino, ROOT);
    });
}

#[test]
fn removing_and_linking() {
    on_worlds(|fs| async move {
        let cx = Context::root();
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        let f = fs.create_at(d, "f").await.unwrap();
        assert_eq!(fs.remove(&cx, ROOT, b"d", None).await, Err(FsError::NotEmpty));
        assert_eq!(fs.remove(&cx, ROOT, b"d", Some(false)).await, Err(FsError::IsDirectory));
        assert_eq!(fs.remove(&cx, d, b"f", Some(true)).await, Err(FsError::NotDirectory));
        assert_eq!(fs.remove(&cx, d, b"nothing", None).await, Err(FsError::NotFound));
        assert_eq!(fs.link(&cx, d, ROOT, b"hard").await, Err(FsError::NotPermitted));
        assert_eq!(fs.link(&cx, f, ROOT, b"d").await, Err(FsError::Exists));
        let (attr, change) = fs.link(&cx, f, ROOT, b"f2").await.unwrap();
        assert_eq!(attr.nlink, 2);
        assert!(change.atomic && change.before.change < change.after.change);
        assert_eq!(fs.getattr(ROOT, 0).await.unwrap(), change.after, "the answer is what is there");
        let change = fs.remove(&cx, d, b"f", None).await.unwrap();
        assert_eq!(fs.getattr(d, 0).await.unwrap(), change.after);
        assert_eq!(fs.find_at(ROOT, "f2").await.unwrap().nlink, 1);
        fs.rm(ROOT, "f2").await.unwrap();
        assert_eq!(fs.getattr(f, 0).await, Err(FsError::Stale));
        assert_eq!(fs.link(&cx, f, ROOT, b"again").await, Err(FsError::Stale));
        fs.remove(&cx, ROOT, b"d", Some(true)).await.unwrap();
        assert_eq!(fs.getattr(d, 0).await, Err(FsError::Stale));
        assert_eq!(fs.create_at(d, "x").await, Err(FsError::Stale));
        assert_eq!(fs.getattr(ROOT, 0).await.unwrap().nlink, 2);
    });
}

#[test]
fn creating() {
    on_worlds(|fs| async move {
        let cx = Context::root();
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        assert_eq!(fs.mkdir_at(ROOT, "d").await, Err(FsError::Exists));
        assert_eq!(fs.create_at(d, "").await, Err(FsError::Invalid));
        assert_eq!(fs.create_at(d, &"n".repeat(256)).await, Err(FsError::NameTooLong));
        let long = "n".repeat(255);
        fs.create_at(d, &long).await.unwrap();
        assert_eq!(fs.find_at(d, &long).await.unwrap().kind, FileType::Regular);

        let set = SetAttr { mode: Some(0o640), size: Some(7), ..SetAttr::default() };
        let made = fs.create(&cx, d, b"u", NodeKind::Regular, CreateHow::Unchecked, set).await.unwrap();
        assert!(made.created && made.attr.size == 7 && made.attr.mode == 0o640);
        assert_eq!(fs.text(made.attr.ino).await.unwrap(), "\0".repeat(7));
        let cut = SetAttr { mode: Some(0o777), size: Some(3), ..SetAttr::default() };
        let again = fs.create(&cx, d, b"u", NodeKind::Regular, CreateHow::Unchecked, cut).await.unwrap();
        assert!(!again.created && again.attr.size == 3 && again.attr.mode == 0o640);
        assert_eq!(again.attr.ino, made.attr.ino);
        let unchecked = |dir, name: &'static [u8]| {
            let (fs, cx) = (fs.clone(), cx.clone());
            async move {
                let none = SetAttr::default();
                fs.create(&cx, dir, name, NodeKind::Regular, CreateHow::Unchecked, none).await
            }
        };
        assert_eq!(unchecked(ROOT, b"d").await, Err(FsError::IsDirectory));

        let exclusive = |v| {
            let (fs, cx) = (fs.clone(), cx.clone());
            async move {
                let none = SetAttr::default();
                fs.create(&cx, d, b"x", NodeKind::Regular, CreateHow::Exclusive(v), none).await
            }
        };
        let first = exclusive([9; 8]).await.unwrap();
        let second = exclusive([9; 8]).await.unwrap();
        assert!(first.created && !second.created && first.attr.ino == second.attr.ino);
        assert_eq!(exclusive([8; 8]).await, Err(FsError::Exists));
        assert_eq!(exclusive([0; 8]).await, Err(FsError::Exists));

        let link = NodeKind::Symlink("over/there".into());
        let s = fs.make(&cx, d, "s", link).await.unwrap();
        let (target, attr) = fs.readlink(&cx, s).await.unwrap();
        assert_eq!((&target[..], attr.size, attr.mode), (&b"over/there"[..], 10, 0o777));
        assert_eq!(fs.readlink(&cx, d).await, Err(FsError::Invalid));
        assert_eq!(unchecked(d, b"s").await, Err(FsError::IsSymlink));
        let long = NodeKind::Symlink("x".repeat(SYMLINK_MAX + 1).into());
        assert_eq!(fs.make(&cx, d, "s2", long).await, Err(FsError::NameTooLong));
        let dev = fs.make(&cx, d, "dev", NodeKind::BlockDevice(8, 1)).await.unwrap();
        assert_eq!(fs.getattr(dev, 0).await.unwrap().rdev, (8, 1));
        for (name, kind) in [("fifo", NodeKind::Fifo), ("sock", NodeKind::Socket)] {
            let ino = fs.make(&cx, d, name, kind).await.unwrap();
            assert_eq!(fs.read(&cx, ino, 0, 1, false).await, Err(FsError::WrongType));
        }
        let fifo = fs.find_at(d, "fifo").await.unwrap();
        assert_eq!(fs.getattr(fifo.ino, fifo.generation + 1).await, Err(FsError::Stale));
        assert_eq!(fs.getattr(Ino::new(500, 1), 0).await, Err(FsError::Stale), "no such slot");
        assert_eq!(fs.find_at(fifo.ino, "x").await, Err(FsError::NotDirectory));
    });
}

#[test]
fn cookies_go_on_where_they_stopped() {
    on_worlds(|fs| async move {
        let cx = Context::root();
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        for n in 0..50 {
            fs.create_at(d, &format!("n{n}")).await.unwrap();
        }
        let all = fs.ls(d).await.unwrap();
        assert_eq!(all.len(), 50);
        let half = fs.readdir(&cx, d, 0, 25, false).await.unwrap();
        assert!(!half.eof && half.entries.len() == 25 && half.entries.iter().all(|e| e.attr.is_none()));
        // The entry of the cookie goes away, others come and go: those that stay are seen exactly once.
        let cookie = half.entries[24].cookie;
        fs.rm(d, std::str::from_utf8(&half.entries[24].name).unwrap()).await.unwrap();
        fs.create_at(d, "new").await.unwrap();
        let rest = fs.readdir(&cx, d, cookie, 100, false).await.unwrap();
        assert!(rest.eof);
        let rest: Vec<_> = rest.entries.iter().filter(|e| e.name != "new").map(|e| e.ino).collect();
        assert_eq!(rest, all[25..].iter().map(|e| e.ino).collect::<Vec<_>>());
        let end = fs.readdir(&cx, d, all[49].cookie, 10, true).await.unwrap();
        assert!(end.eof && end.entries.is_empty());
        assert_eq!(fs.readdir(&cx, d, u64::MAX, 10, true).await, Err(FsError::BadCookie));
        assert_eq!(fs.readdir(&cx, d, 2, 100, true).await.unwrap().entries.len(), 50);
    });
}

/// With a hash of few values: a second name of the same hash is refused, replacing and renaming in place still work.
#[test]
fn equal_hashes_are_refused() {
    let mut w = World::new(1, 2, 3);
    planted::set(Some(Planted::WeakNameHash));
    w.run(|fs| async move {
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        let mut made = Vec::new();
        let mut refused = 0;
        for n in 0..30 {
            match fs.create_at(d, &format!("n{n}")).await {
                Ok(_) => made.push(format!("n{n}")),
                Err(FsError::NoSpace) => refused += 1,
                Err(e) => panic!("{e}"),
            }
        }
        assert!(made.len() <= 4 && refused >= 26);
        let listed = fs.ls(d).await.unwrap();
        assert_eq!(listed.len(), made.len());
        assert!(listed.windows(2).all(|w| w[0].cookie < w[1].cookie));
        fs.rm(d, &made[0]).await.unwrap();
        fs.create_at(d, &made[0]).await.unwrap();
        if made.len() > 1 {
            fs.mv(d, &made[0], d, &made[1]).await.unwrap();
        }
    });
    w.assert_sound();
    planted::set(None);
}

#[test]
fn stopping_cleanly_and_starting_again() {
    let mut w = World::new(4, 3, 5);
    w.run(|fs| async move {
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        let f = fs.create_at(d, "f").await.unwrap();
        let data = vec!["unstable".into()];
        fs.write(&Context::root(), f, 0, data, Stability::Unstable, false).await.unwrap();
        fs.mv(d, "f", ROOT, "g").await.unwrap();
        fs.unmount().await.unwrap();
        assert_eq!(fs.getattr(ROOT, 0).await, Err(FsError::Delay));
    });
    w.crash(1);
    w.run(|fs| async move {
        let g = fs.find_at(ROOT, "g").await.unwrap();
        assert_eq!(fs.text(g.ino).await.unwrap(), "unstable");
    });
    w.assert_sound();
}
