//! POSIX permissions, as operations enforce them.

use super::World;
use crate::ops::ROOT;
use crate::vfs::*;

fn user(uid: u32) -> Context {
    Context { cred: Credentials { uid, gid: uid, groups: vec![100] }, replay: None }
}
fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

#[test]
fn directories_are_guarded() {
    let mut w = World::new(1, 2, 4);
    w.run(|fs| async move {
        let root = Context::root();
        let (ann, bob) = (user(1), user(2));
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        assert_eq!(fs.make(&ann, d, "x", NodeKind::Regular).await, Err(FsError::Access));
        assert_eq!(fs.make(&ann, ROOT, "x", NodeKind::Directory).await, Err(FsError::Access));
        fs.setattr(&root, d, mode(0o1777), None, false).await.unwrap();
        let f = fs.make(&ann, d, "f", NodeKind::Regular).await.unwrap();
        assert_eq!(fs.getattr(f, 0).await.unwrap().uid, 1);
        // Sticky: another may neither remove, nor rename away, nor replace.
        fs.make(&bob, d, "g", NodeKind::Regular).await.unwrap();
        assert_eq!(fs.remove(&bob, d, b"f", None).await, Err(FsError::NotPermitted));
        assert_eq!(fs.rename(&bob, d, b"f", d, b"h").await, Err(FsError::NotPermitted));
        assert_eq!(fs.rename(&bob, d, b"g", d, b"f").await, Err(FsError::NotPermitted));
        fs.rename(&ann, d, b"f", d, b"h").await.unwrap();
        fs.setattr(&root, d, mode(0o777), None, false).await.unwrap();
        fs.remove(&bob, d, b"h", None).await.unwrap();

        fs.setattr(&root, d, mode(0o711), None, false).await.unwrap();
        assert_eq!(fs.readdir(&ann, d, 0, 10, true).await, Err(FsError::Access));
        fs.lookup(&ann, d, b"g").await.unwrap();
        fs.setattr(&root, d, mode(0o744), None, false).await.unwrap();
        assert_eq!(fs.lookup(&ann, d, b"g").await, Err(FsError::Access));
        assert_eq!(fs.access(&ann, d, 0x3f).await.unwrap().0, ACCESS_READ);
        assert_eq!(fs.access(&root, d, 0x3f).await.unwrap().0, 0x1f);

        // Moving a directory elsewhere writes its `..`.
        fs.setattr(&root, d, mode(0o777), None, false).await.unwrap();
        let sub = fs.make(&ann, d, "sub", NodeKind::Directory).await.unwrap();
        let e = fs.make(&bob, d, "e", NodeKind::Directory).await.unwrap();
        fs.setattr(&root, e, mode(0o777), None, false).await.unwrap();
        assert_eq!(fs.rename(&bob, d, b"sub", e, b"sub").await, Err(FsError::Access));
        fs.rename(&bob, d, b"sub", d, b"sub2").await.unwrap();
        fs.rename(&ann, d, b"sub2", e, b"sub").await.unwrap();
        assert_eq!(fs.lookup_parent(&root, sub).await.unwrap().ino, e);
    });
    w.assert_sound();
}

#[test]
fn setgid_directories_hand_their_group_down() {
    let mut w = World::new(1, 2, 4);
    w.run(|fs| async move {
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        let set = SetAttr { gid: Some(100), mode: Some(0o2777), ..SetAttr::default() };
        fs.setattr(&Context::root(), d, set, None, false).await.unwrap();
        let ann = user(1);
        let f = fs.make(&ann, d, "f", NodeKind::Regular).await.unwrap();
        let sub = fs.make(&ann, d, "sub", NodeKind::Directory).await.unwrap();
        let (f, sub) = (fs.getattr(f, 0).await.unwrap(), fs.getattr(sub, 0).await.unwrap());
        assert_eq!((f.gid, f.mode), (100, 0o755));
        assert_eq!((sub.gid, sub.mode), (100, 0o2755));
        let other = SetAttr { gid: Some(77), ..SetAttr::default() };
        let denied = fs.create(&ann, d, b"g", NodeKind::Regular, CreateHow::Guarded, other).await;
        assert_eq!(denied, Err(FsError::NotPermitted));
        let other = SetAttr { uid: Some(2), ..SetAttr::default() };
        let denied = fs.create(&ann, d, b"g", NodeKind::Regular, CreateHow::Guarded, other).await;
        assert_eq!(denied, Err(FsError::NotPermitted));
    });
}

#[test]
fn attributes_are_guarded() {
    let mut w = World::new(1, 2, 4);
    w.run(|fs| async move {
        let root = Context::root();
        let (ann, bob) = (user(1), user(2));
        let d = fs.mkdir_at(ROOT, "d").await.unwrap();
        fs.setattr(&root, d, mode(0o777), None, false).await.unwrap();
        let f = fs.make(&ann, d, "f", NodeKind::Regular).await.unwrap();
        let none = SetAttr::default();
        let denied = async |cx: &Context, set: SetAttr| fs.setattr(cx, f, set, None, false).await.err();
        assert_eq!(denied(&bob, mode(0o777)).await, Some(FsError::NotPermitted));
        assert_eq!(denied(&bob, SetAttr { uid: Some(2), ..none }).await, Some(FsError::NotPermitted));
        assert_eq!(denied(&ann, SetAttr { uid: Some(2), ..none }).await, Some(FsError::NotPermitted));
        assert_eq!(denied(&ann, SetAttr { gid: Some(55), ..none }).await, Some(FsError::NotPermitted));
        assert_eq!(denied(&ann, SetAttr { uid: Some(1), gid: Some(100), ..none }).await, None);
        let then = SetTime::To(WallTime { sec: 5, nsec: 6 });
        assert_eq!(denied(&bob, SetAttr { mtime: Some(then), ..none }).await, Some(FsError::NotPermitted));
        assert_eq!(denied(&bob, SetAttr { mtime: Some(SetTime::Now), ..none }).await, Some(FsError::Access));
        assert_eq!(denied(&bob, SetAttr { size: Some(9), ..none }).await, Some(FsError::Access));
        fs.setattr(&ann, f, mode(0o666), None, false).await.unwrap();
        assert_eq!(denied(&bob, SetAttr { mtime: Some(SetTime::Now), ..none }).await, None);
        assert_eq!(denied(&bob, SetAttr { size: Some(9), ..none }).await, None);
        assert_eq!(fs.getattr(f, 0).await.unwrap().size, 9);
        assert_eq!(denied(&ann, SetAttr { size: Some(u64::MAX), ..none }).await, Some(FsError::FileTooBig));
        let dir_size = fs.setattr(&root, d, SetAttr { size: Some(1), ..none }, None, false).await;
        assert_eq!(dir_size.err(), Some(FsError::IsDirectory));

        // Times over unstable writes hold.
        let data = vec!["hello".into()];
        fs.write(&ann, f, 0, data, Stability::Unstable, false).await.unwrap();
        fs.setattr(&ann, f, SetAttr { mtime: Some(then), ..none }, None, false).await.unwrap();
        assert_eq!(fs.getattr(f, 0).await.unwrap().mtime, WallTime { sec: 5, nsec: 6 });
        fs.commit(&ann, f, 0, 0).await.unwrap();
        assert_eq!(fs.getattr(f, 0).await.unwrap().mtime, WallTime { sec: 5, nsec: 6 });

        // The guard of NFSv3.
        let at = fs.getattr(f, 0).await.unwrap();
        let (before, after) = fs.setattr(&ann, f, mode(0o600), Some(at.ctime), false).await.unwrap();
        assert_eq!(before.ctime, at.ctime);
        assert!(after.change > before.change && after.ctime > before.ctime);
        assert_eq!(fs.setattr(&ann, f, mode(0o644), Some(at.ctime), false).await, Err(FsError::NotSync));

        // Privileges go with a change of owner or contents by ordinary users.
        fs.setattr(&ann, f, mode(0o6777), None, false).await.unwrap();
        fs.setattr(&root, f, SetAttr { gid: Some(1), ..none }, None, false).await.unwrap();
        assert_eq!(fs.getattr(f, 0).await.unwrap().mode, 0o777);
        fs.setattr(&ann, f, mode(0o6777), None, false).await.unwrap();
        let wrote = fs.write(&bob, f, 0, vec!["x".into()], Stability::FileSync, false).await.unwrap();
        assert_eq!(wrote.after.mode, 0o777);
        assert_eq!(fs.getattr(f, 0).await.unwrap().mode, 0o777);

        fs.setattr(&ann, f, mode(0o0), None, false).await.unwrap();
        assert_eq!(fs.read(&bob, f, 0, 1, false).await, Err(FsError::Access));
        fs.read(&ann, f, 0, 1, false).await.unwrap();
        fs.read(&bob, f, 0, 1, true).await.unwrap();
    });
    w.assert_sound();
}
