//! A request that comes again, after a crash too, is answered and not done again.

use super::World;
use crate::ops::ROOT;
use crate::planted::{self, Planted};
use crate::vfs::*;

fn again(replay: ReplayId) -> Context {
    Context { cred: Credentials::root(), replay: Some(replay) }
}
fn v4(sequence: u32) -> ReplayId {
    ReplayId::V4 { session: [3; 16], slot: 5, sequence, op: 2 }
}
fn v3(xid: u32) -> ReplayId {
    ReplayId::V3 { client: 7, xid, checksum: 99 }
}

/// Every operation twice, with a crash between when asked for.
fn twice(ids: impl Fn(u32) -> ReplayId + Copy + 'static, crash: bool) -> Result<(), FsError> {
    let mut w = World::new(6, 3, 5);
    let (d, e) = w.run(|fs| async move {
        (fs.mkdir_at(ROOT, "d").await.unwrap(), fs.mkdir_at(ROOT, "e").await.unwrap())
    });
    assert_ne!(d.slot(), e.slot(), "the seed is chosen so that operations span shards");
    for round in 0..2 {
        for n in 1..=6 {
            let ask = move |fs: crate::fs::FileSystem| async move {
                let cx = again(ids(round * 10 + n));
                let set = SetAttr::default();
                match n {
                    1 => {
                        let made =
                            fs.create(&cx, d, b"f", NodeKind::Regular, CreateHow::Guarded, set).await?;
                        assert!(made.created);
                        Ok(made.attr.ino)
                    }
                    2 => {
                        let made = fs
                            .create(&cx, ROOT, b"sub", NodeKind::Directory, CreateHow::Guarded, set)
                            .await?;
                        Ok(made.attr.ino)
                    }
                    3 => {
                        let f = fs.find_at(d, "f").await?;
                        Ok(fs.link(&cx, f.ino, e, b"link").await?.0.ino)
                    }
                    4 => fs.rename(&cx, d, b"f", e, b"g").await.map(|_| d),
                    5 => {
                        fs.remove(&cx, e, b"g", None).await?;
                        match fs.rm(e, "link").await {
                            Ok(()) | Err(FsError::NotFound) => {}
                            Err(error) => return Err(error),
                        }
                        Ok(e)
                    }
                    _ => fs.remove(&cx, ROOT, b"sub", Some(true)).await.map(|_| d),
                }
            };
            // The link's retry looks its file up by the old name, which is still there.
            let first = w.run(ask)?;
            if crash {
                w.crash(1 + n as u16 % 3);
            }
            let second = w.run(ask)?;
            assert_eq!(first, second, "operation {n}");
        }
    }
    w.assert_sound();
    Ok(())
}
#[test]
fn retries_are_answered_from_the_record() {
    for crash in [false, true] {
        twice(v4, crash).unwrap();
        twice(v3, crash).unwrap();
    }
}

#[test]
fn the_next_sequence_is_another_request() {
    let mut w = World::new(6, 2, 3);
    w.run(|fs| async move {
        let none = SetAttr::default();
        let make =
            async |id| fs.create(&again(id), ROOT, b"f", NodeKind::Regular, CreateHow::Guarded, none).await;
        make(v4(1)).await.unwrap();
        assert!(!make(v4(1)).await.unwrap().dir.atomic);
        assert_eq!(make(v4(2)).await, Err(FsError::Exists));
        assert_eq!(make(v3(1)).await, Err(FsError::Exists));
        fs.release_client(1, &[[3; 16]]).await.unwrap();
        assert_eq!(make(v4(1)).await, Err(FsError::Exists), "the session is gone, and what it had");
    });
}

#[test]
fn the_ring_of_v3_is_bounded() {
    let mut ring = crate::ops::replay::Ring::default();
    let stored = crate::ops::replay::Stored::NOTHING;
    for n in 0..10_000 {
        ring.insert(n, (1, n as u32, 0), stored);
    }
    assert_eq!(ring.len(), crate::ops::replay::RING as usize);
}

#[test]
fn a_lost_record_is_noticed() {
    let mut w = World::new(6, 2, 3);
    planted::set(Some(Planted::LostReplaySlot));
    let second = w.run(|fs| async move {
        let none = SetAttr::default();
        let make =
            async || fs.create(&again(v4(1)), ROOT, b"f", NodeKind::Regular, CreateHow::Guarded, none).await;
        make().await.unwrap();
        make().await
    });
    planted::set(None);
    assert_eq!(second, Err(FsError::Exists));
}
