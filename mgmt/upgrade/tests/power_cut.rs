//! Every prefix of what an upgrade writes leaves a disk that boots: read by a partition table reader and a FAT of other
//! people, booted by a model of systemd-boot, with the roots compared byte for byte.

mod common;

use basalt_upgrade::bless::{RolledBack, bless, roll_back};
use basalt_upgrade::install::install;
use basalt_upgrade::media::Step;
use common::{Reader, Release, check_with_fsck, checked, disk, files, recorder};

fn old() -> Release {
    Release::new("1.0.0", 40, 3000)
}
fn running() -> Release {
    Release::new("1.1.0", 50, 5000)
}
fn new() -> Release {
    Release::new("1.2.0", 300, 40_000)
}

#[test]
fn every_prefix_of_an_upgrade_boots() {
    let (old, running, new) = (old(), running(), new());
    // The idle slot: an older version that was healthy once; one that was found bad; nothing.
    for idle in [Some("basalt_1.0.0.efi"), Some("basalt_1.0.0+0-3.efi"), None] {
        let mut on_esp: Vec<(&str, &[u8])> = vec![("basalt_1.1.0.efi", &running.uki)];
        on_esp.extend(idle.map(|name| (name, &old.uki[..])));
        let start = disk(&on_esp, [&running.root, if idle.is_some() { &old.root } else { &[] }]);
        let (recorder, target) = recorder(start.clone());
        let installed =
            install(&checked(new.bundle()), &target, Some(&running.id), &mut |_, _, _| ()).unwrap();
        assert_eq!((installed.partition, installed.file.as_str()), ("basalt-root-b", "basalt_1.2.0+3.efi"));
        let reader = Reader::new(&start, &[&old, &running, &new]);
        assert_eq!(reader.boots(&start).as_deref(), Some("1.1.0"));
        assert_eq!(reader.boots(&recorder.bytes()).as_deref(), Some("1.2.0"));
        let (cuts, seen) = reader.walk(&start, &recorder.steps());
        assert!(cuts > 10 && seen["1.1.0"] > 10, "{cuts} {seen:?}");
        assert!(seen.keys().all(|v| v == "1.1.0" || v == "1.2.0"), "{seen:?}");
        check_with_fsck(&recorder.bytes(), reader.esp.clone());
    }
}

#[test]
fn goes_on_after_a_failure_at_every_write() {
    let (running, new) = (running(), new());
    let start = disk(&[("basalt_1.1.0.efi", &running.uki)], [&running.root, &[]]);
    let (whole, target) = recorder(start.clone());
    let bundle = checked(new.bundle());
    install(&bundle, &target, Some(&running.id), &mut |_, _, _| ()).unwrap();
    let writes = whole.steps().iter().filter(|s| matches!(s, Step::Write { .. })).count() as u64;
    let reader = Reader::new(&start, &[&running, &new]);
    for fail_after in 0..writes {
        let failing =
            std::sync::Arc::new(basalt_upgrade::media::Recorder::new(start.clone()).fail_after(fail_after));
        let target = basalt_upgrade::node::Disk::Whole(failing.clone());
        let error = install(&bundle, &target, Some(&running.id), &mut |_, _, _| ()).unwrap_err();
        assert_eq!(error.exit_code(), 17, "{error}");
        assert!(error.to_string().contains("the same command goes on"), "{error}");
        let (again, target) = recorder(failing.bytes());
        install(&bundle, &target, Some(&running.id), &mut |_, _, _| ()).unwrap();
        let after = again.bytes();
        assert_eq!(reader.boots(&after).as_deref(), Some("1.2.0"), "after {fail_after} writes");
        assert_eq!(files(&after, reader.esp.clone()).len(), 2, "after {fail_after} writes");
        if fail_after % 8 == 0 {
            check_with_fsck(&after, reader.esp.clone());
        }
    }
}

#[test]
fn every_prefix_of_blessing_and_of_going_back_boots() {
    let (running, new) = (running(), new());
    let esp: [(&str, &[u8]); 2] = [("basalt_1.1.0.efi", &running.uki), ("basalt_1.2.0+2-1.efi", &new.uki)];
    let start = disk(&esp, [&running.root, &new.root]);
    let reader = Reader::new(&start, &[&running, &new]);
    let (blessed, target) = recorder(start.clone());
    assert!(bless(&target, &new.id).unwrap());
    assert_eq!(blessed.steps().len(), 2, "one sector and a flush");
    let (_, seen) = reader.walk(&start, &blessed.steps());
    assert!(seen.keys().eq(["1.2.0"]), "{seen:?}");
    assert!(files(&blessed.bytes(), reader.esp.clone()).contains_key("basalt_1.2.0.efi"));
    assert!(!bless(&target, &new.id).unwrap(), "nothing more to do");
    check_with_fsck(&blessed.bytes(), reader.esp.clone());

    let start = blessed.bytes();
    let (back, target) = recorder(start.clone());
    assert_eq!(roll_back(&target, &new.id).unwrap(), RolledBack::To { version: running.version });
    reader.walk(&start, &back.steps());
    assert_eq!(reader.boots(&back.bytes()).as_deref(), Some("1.1.0"));
    check_with_fsck(&back.bytes(), reader.esp.clone());
    let error = roll_back(&target, &running.id).unwrap_err();
    assert!(error.to_string().contains("version 1.2.0 was found bad"), "{error}");
}

#[test]
fn names_across_two_sectors_and_full_directories() {
    let (running, new) = (running(), new());
    // Other people's files fill the directory to different points, so that ours meet sector and cluster ends.
    for strangers in 0..14 {
        let names: Vec<String> = (0..strangers).map(|i| format!("stranger-{i}.conf")).collect();
        let mut on_esp: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"x"[..])).collect();
        on_esp.push(("basalt_1.1.0.efi", &running.uki));
        on_esp.push(("basalt_1.2.0+2-1.efi", &new.uki));
        let start = disk(&on_esp, [&running.root, &new.root]);
        let reader = Reader::new(&start, &[&running, &new]);
        let (blessed, target) = recorder(start.clone());
        bless(&target, &new.id).unwrap();
        reader.walk(&start, &blessed.steps());
        check_with_fsck(&blessed.bytes(), reader.esp.clone());
        // The next upgrade adds a name at the end.
        let next = Release::new("1.3.0", 20, 2000);
        let start = blessed.bytes();
        let reader = Reader::new(&start, &[&running, &new, &next]);
        let (after, target) = recorder(start.clone());
        install(&checked(next.bundle()), &target, Some(&new.id), &mut |_, _, _| ()).unwrap();
        reader.walk(&start, &after.steps());
        assert_eq!(reader.boots(&after.bytes()).as_deref(), Some("1.3.0"));
        check_with_fsck(&after.bytes(), reader.esp.clone());
    }
}

/// What a power cut in the middle of a rename by others leaves: two names for one file.
#[test]
fn sweeps_up_after_others() {
    let (running, new) = (running(), new());
    for second in ["basalt_1.2.0+1-2.efi", "basalt_1.2.0.efi"] {
        let on_esp: [(&str, &[u8]); 3] =
            [("basalt_1.1.0.efi", &running.uki), ("basalt_1.2.0+2-1.efi", &new.uki), (second, b"")];
        let mut bytes = disk(&on_esp, [&running.root, &new.root]);
        let reader = Reader::new(&bytes, &[&running, &new]);
        let size = (new.uki.len() as u32).to_le_bytes();
        let entries: Vec<usize> = (reader.esp.clone()).step_by(32).collect();
        let first =
            *entries.iter().find(|at| bytes[**at + 28..][..4] == size && bytes[**at] == b'B').unwrap();
        let empty = entries.iter().find(|at| {
            bytes[**at] == b'B'
                && bytes[**at + 8..][..3] == *b"EFI"
                && bytes[**at + 20..][..12] != bytes[first + 20..][..12]
                && bytes[**at + 28..][..4] == [0; 4]
        });
        let empty = *empty.unwrap();
        bytes.copy_within(first + 20..first + 22, empty + 20);
        bytes.copy_within(first + 26..first + 32, empty + 26);
        assert_eq!(files(&bytes, reader.esp.clone()).values().filter(|c| **c == new.uki).count(), 2);
        let (swept, target) = recorder(bytes);
        bless(&target, &new.id).unwrap();
        let left = files(&swept.bytes(), reader.esp.clone());
        assert_eq!(left.keys().collect::<Vec<_>>(), ["basalt_1.1.0.efi", "basalt_1.2.0.efi"]);
        assert_eq!(left["basalt_1.2.0.efi"], new.uki);
        check_with_fsck(&swept.bytes(), reader.esp);
    }
}
