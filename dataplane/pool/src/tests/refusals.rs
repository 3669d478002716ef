//! Bad input: every refusal in words, nothing overwritten.

use super::*;
use crate::geometry::Layout;

/// The whole of a drive that matters: head and tail.
fn picture(d: &SimDrive) -> Vec<u8> {
    let mut all = d.peek(0, (3 * MIB) as usize);
    all.extend(d.peek(255 * MIB, MIB as usize));
    all
}

fn create_error(w: &mut World, drives: Vec<DriveRef>, spec: PoolSpec) -> String {
    let before: Vec<Vec<u8>> = w.drives.iter().map(picture).collect();
    let error = w.run(|| async move {
        Pool::create(drives, &spec, |_, _| ()).await.map(|_| ()).unwrap_err().to_string()
    });
    assert!(w.drives.iter().map(picture).eq(before), "something was written");
    error
}

fn import_error(w: &mut World, drives: Vec<DriveRef>) -> String {
    let before: Vec<Vec<u8>> = w.drives.iter().map(picture).collect();
    let error = w.run(|| async move { Pool::import(drives).await.map(|_| ()).unwrap_err().to_string() });
    assert!(w.drives.iter().map(picture).eq(before), "something was written");
    error
}

fn import_status(w: &mut World, which: impl IntoIterator<Item = usize>) -> PoolStatus {
    let drives = w.refs(which);
    w.run(|| async move {
        let pool = Pool::import(drives).await.unwrap();
        let status = pool.status().await.unwrap();
        pool.close().await.unwrap();
        status
    })
}

#[test]
fn creation_refuses_what_cannot_be_kept() {
    let mut w = World::new(1, 6);
    let five = w.refs(0..5);
    assert!(create_error(&mut w, five, spec(Some("4+2"))).contains("needs 6 drives"));
    let all = w.all();
    assert!(create_error(&mut w, all.clone(), spec(Some("6+0"))).contains("would lose everything"));
    let mut unnamed = spec(None);
    unnamed.name = "no good/name".into();
    assert!(create_error(&mut w, all, unnamed).contains("no pool name"));
    let twice = w.refs([0, 1, 2, 1]);
    assert!(create_error(&mut w, twice, spec(None)).contains("given twice"));
    let small = SimDrive::new("small", 10 * MIB, false);
    let mut drives = w.refs(0..2);
    drives.push(small.drive());
    assert!(create_error(&mut w, drives, spec(None)).contains("drive small has 10 MiB"));
}

#[test]
fn creation_spares_what_the_drives_hold() {
    let mut w = World::new(2, 3);
    w.drives[1].poke(0x438, b"\x53\xef");
    let all = w.all();
    let error = create_error(&mut w, all.clone(), spec(None));
    assert!(error.contains("d1 holds an ext2/3/4 file system"), "{error}");
    let mut force = spec(None);
    force.force = true;
    w.run(|| async move { Pool::create(all, &force, |_, _| ()).await.unwrap().close().await.unwrap() });
    let all = w.all();
    let error = create_error(&mut w, all, spec(None));
    assert!(error.contains("belongs to pool tank"), "{error}");
    assert!(!w.drives[1].peek(0x438, 2).eq(b"\x53\xef"));
}

#[test]
fn import_names_what_is_wrong() {
    let mut w = World::new(3, 6);
    let all = w.all();
    assert!(import_error(&mut w, all).contains("no pool was found on 6 drives"));
    let (first, second) = (w.refs(0..3), w.refs(3..6));
    w.run(|| async move {
        let mut other = spec(None);
        other.name = "other".into();
        Pool::create(first, &spec(None), |_, _| ()).await.unwrap().close().await.unwrap();
        Pool::create(second, &other, |_, _| ()).await.unwrap().close().await.unwrap();
    });
    let all = w.all();
    let error = import_error(&mut w, all);
    assert!(error.contains("2 pools") && error.contains("tank") && error.contains("other"), "{error}");

    let all = w.all();
    w.run(|| async move {
        let pool = Pool::import_named(all.clone(), "other").await.unwrap();
        assert_eq!(pool.status().await.unwrap().health, "healthy");
        pool.close().await.unwrap();
        let nothing = Pool::import_named(all, "third").await.map(|_| ()).unwrap_err();
        assert!(nothing.to_string().contains("no pool was found"), "{nothing}");
    });

    // A copy of a drive beside its original.
    let copy = SimDrive::new("copy", 256 * MIB, false);
    copy.poke(0, &w.drives[0].peek(0, (40 * MIB) as usize));
    let mut drives = w.refs(0..3);
    drives.push(copy.drive());
    let error = import_error(&mut w, drives);
    assert!(error.contains("d0 and copy are duplicates"), "{error}");

    let short = SimDrive::new("short", 200 * MIB, false);
    short.poke(0, &w.drives[0].peek(0, (40 * MIB) as usize));
    let mut drives = w.refs(1..3);
    drives.push(short.drive());
    let error = import_error(&mut w, drives);
    assert!(error.contains("short is truncated"), "{error}");

    let one = w.refs([1]);
    let error = import_error(&mut w, one);
    assert!(error.contains("1 of the 3 root copies"), "{error}");
}

#[test]
fn strangers_are_left_alone_and_named() {
    let mut w = World::new(4, 4);
    let three = w.refs(0..3);
    w.run(
        || async move { Pool::create(three, &spec(None), |_, _| ()).await.unwrap().close().await.unwrap() },
    );
    w.drives[3].poke(0, b"XFSB");
    let before = picture(&w.drives[3]);
    let status = import_status(&mut w, 0..4);
    assert_eq!(status.health, "healthy");
    assert!(status.reasons.iter().any(|r| r.contains("d3") && r.contains("xfs")), "{:?}", status.reasons);
    assert_eq!(picture(&w.drives[3]), before);
}

#[test]
fn damaged_label_copies_are_repaired() {
    let mut w = World::new(5, 3);
    w.create(None);
    let offsets = Layout::label_offsets(256 * MIB);
    for offset in &offsets[..3] {
        w.drives[1].corrupt(*offset);
    }
    let drive = w.drives[1].drive();
    let view = w.run(|| async move { inspect::labels(drive).await });
    assert_eq!(view.good_copies, [false, false, false, true]);
    assert_eq!(import_status(&mut w, 0..3).health, "healthy");
    let drive = w.drives[1].drive();
    let view = w.run(|| async move { inspect::labels(drive).await });
    assert_eq!(view.good_copies, [true; 4]);

    // All four gone: the drive is no longer one of the pool.
    for offset in offsets {
        w.drives[1].corrupt(offset);
    }
    let status = import_status(&mut w, 0..3);
    assert_eq!(status.health, "degraded, no spare");
    assert_eq!(status.drives[1].state, DriveState::Missing);
    assert!(status.reasons.iter().any(|r| r.contains("d1: damaged Basalt label")), "{:?}", status.reasons);
}

#[test]
fn a_missing_drive_stays_out_when_it_returns() {
    let mut w = World::new(6, 6);
    w.create(None);
    let status = import_status(&mut w, [0, 2, 3, 4, 5]);
    assert_eq!(status.health, "degraded, no spare");
    assert_eq!(status.drives[1].state, DriveState::Missing);
    let status = import_status(&mut w, 0..6);
    assert_eq!(status.drives[1].state, DriveState::Out);
    assert!(status.reasons.iter().any(|r| r.contains("stale")), "{:?}", status.reasons);
    // Two more, one after the other: the root copies have moved on meanwhile.
    let status = import_status(&mut w, [0, 1, 3, 4, 5]);
    assert_eq!(status.effective_scheme, Some(Scheme { k: 2, m: 2 }));
    assert_eq!(status.root_copies, [0, 3, 4, 5].map(DriveIndex));
    let stale = w.refs([1, 2]);
    let error = import_error(&mut w, stale);
    assert!(error.contains("root copies"), "{error}");
}

#[test]
fn too_many_missing_drives_are_named_before_anything_is_written() {
    let mut w = World::new(7, 7);
    let all = w.all();
    w.run(|| async move {
        let pool = Pool::create(all, &spec(Some("5+1")), |_, _| ()).await.unwrap();
        let id = pool.create_shards(1).await.unwrap()[0];
        let epoch = pool.grant_shard(id).await.unwrap().epoch;
        pool.grant_segments(id, epoch, Class::Data, 7).await.unwrap();
        pool.close().await.unwrap();
    });
    // Root copies are on drives 0 to 2, so it is the data that decides here.
    let some = w.refs(0..5);
    let error = import_error(&mut w, some);
    assert!(error.contains("too many drives are missing") && error.contains("segments"), "{error}");
    let status = import_status(&mut w, 0..6);
    assert_eq!(status.health, "degraded");
}

#[test]
fn an_unreadable_root_copy_does_not_stop_an_import() {
    let mut w = World::new(8, 6);
    w.create(None);
    // Root areas of one drive overwritten, as by a stray dd.
    w.drives[0].poke(2 * MIB, &vec![0xa5; (36 * MIB) as usize]);
    let status = import_status(&mut w, 0..6);
    assert_eq!(status.health, "healthy");
    let view = {
        let all = w.all();
        w.run(|| async move { inspect::root(all).await })
    };
    let newest: Vec<u64> = view.copies.iter().filter(|c| c.index.0 < 5).map(|c| c.sequence).collect();
    assert!(newest.iter().all(|s| *s == newest[0]), "the copy was not made whole: {newest:?}");
}

#[test]
fn drives_of_unequal_size_make_a_pool() {
    let mut w = World::new(9, 3);
    w.drives.push(SimDrive::new("big", 400 * MIB, false));
    w.create(Some("2+1"));
    let status = import_status(&mut w, 0..4);
    assert_eq!(status.health, "healthy");
    assert!(status.drives[3].aus > status.drives[0].aus);
}
