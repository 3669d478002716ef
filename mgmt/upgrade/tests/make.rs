//! Making a disk, and giving its last partition more room: at every prefix of what is written the disk is blank or boots, and before
//! and after growing every reader sees a whole table. Read by a partition table reader and a FAT of other people.

mod common;

use basalt_upgrade::gpt::{Sizes, grow_state};
use basalt_upgrade::install::install;
use basalt_upgrade::make::{Contents, Made, Recipe, contents, make_disk};
use basalt_upgrade::media::{Media, Recorder, Step};
use basalt_upgrade::node::Disk;
use basalt_upgrade::slots::status;
use common::{Reader, Release, check_with_fsck, checked, every_cut, files, partitions, partitions_of};
use gpt::disk::LogicalBlockSize::{Lb512, Lb4096};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const SMALL: Sizes = Sizes { esp_bytes: 34 * MIB, root_bytes: 2 * MIB, least_state_bytes: MIB };
const BOOT_LOADER: &[u8] = b"MZ systemd-boot, as far as these tests look";

fn recipe() -> Recipe<'static> {
    Recipe { boot_loader: BOOT_LOADER, wipe: false, sector_bytes: 512, sizes: SMALL, seed: [7; 16] }
}

fn release() -> Release {
    Release::new("1.2.0", 300, 40_000)
}

fn make(disk: &Arc<Recorder>, recipe: &Recipe<'_>) -> basalt_upgrade::Result<Made> {
    let media: Arc<dyn Media> = disk.clone();
    make_disk(&checked(release().bundle()), &media, recipe, &mut |_, _, _| ())
}

fn recorder(bytes: Vec<u8>) -> Arc<Recorder> {
    Arc::new(Recorder::new(bytes))
}

/// Old data everywhere but where it would be seen: clusters that look used, roots, a file system in the middle of state.
fn dirty_but_blank(len: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|i| (i >> 3) as u8 | 1).collect();
    bytes[..MIB as usize].fill(0);
    bytes[(len - MIB) as usize..].fill(0);
    bytes
}

fn open(bytes: &[u8]) -> gpt::GptDisk<std::io::Cursor<Vec<u8>>> {
    let config = gpt::GptConfig::new().logical_block_size(Lb512);
    config.open_from_device(std::io::Cursor::new(bytes.to_vec())).unwrap()
}

fn has_mbr(bytes: &[u8]) -> bool {
    bytes[510..512] == [0x55, 0xaa] && bytes[450] == 0xee
}

/// Blank by our rule and for everybody who needs an MBR, or a disk that boots, with a state partition that is seen as blank.
fn look(bytes: &[u8], release: &Release, what: &str) -> bool {
    if !has_mbr(bytes) {
        assert!(bytes[..512].iter().all(|b| *b == 0), "{what}: something in the first sector");
        let found = contents(&Recorder::new(bytes.to_vec()), 512).unwrap();
        assert!(matches!(found, Contents::Blank | Contents::Interrupted), "{what}: {found:?}");
        return false;
    }
    let reader = Reader::new(bytes, &[release]);
    assert_eq!(reader.boots(bytes).as_deref(), Some("1.2.0"), "{what}");
    let state = partitions(bytes)["basalt-state"].clone();
    assert!(bytes[state][..MIB as usize].iter().all(|b| *b == 0), "{what}: state is not blank");
    true
}

#[test]
fn every_prefix_of_making_a_disk_is_blank_or_boots() {
    let release = release();
    let start = dirty_but_blank(SMALL.least_disk_bytes());
    let disk = recorder(start.clone());
    let made = make(&disk, &recipe()).unwrap();
    assert_eq!((made.file.as_str(), made.state_bytes, made.wiped), ("basalt_1.2.0+3.efi", MIB, None));
    let (mut booted, mut interrupted) = (0, 0);
    // Blank disks are alike to the reader, so only what changes its ends is looked at in full.
    let cuts = every_cut(&start, &disk.steps(), &mut |bytes, what, i| {
        if look(bytes, &release, &format!("{what} {i}")) {
            booted += 1;
        } else if bytes[512..1024].iter().any(|b| *b != 0) {
            interrupted += 1;
        }
    });
    assert!(cuts > 100 && booted >= 1 && interrupted >= 1, "{cuts} {booted} {interrupted}");
    let bytes = disk.bytes();
    check_with_fsck(&bytes, partitions(&bytes)["basalt-esp"].clone());
    for path in ["EFI/BOOT/BOOTX64.EFI", "EFI/systemd/systemd-bootx64.efi"] {
        assert_eq!(
            common::file(&bytes, partitions(&bytes)["basalt-esp"].clone(), path),
            BOOT_LOADER,
            "{path}"
        );
    }
    let conf = common::file(&bytes, partitions(&bytes)["basalt-esp"].clone(), "loader/loader.conf");
    assert!(conf.starts_with(b"timeout 0\neditor no\n"));
}

#[test]
fn begins_anew_after_a_failure_at_every_write() {
    let release = release();
    let start = dirty_but_blank(SMALL.least_disk_bytes());
    let whole = recorder(start.clone());
    make(&whole, &recipe()).unwrap();
    let writes = whole.steps().iter().filter(|s| matches!(s, Step::Write { .. })).count() as u64;
    // Every write from the table on, and some before.
    for fail_after in (0..writes).filter(|n| n % 29 == 0 || n + 6 > writes) {
        let failing = Arc::new(Recorder::new(start.clone()).fail_after(fail_after));
        let error = make(&failing, &recipe()).unwrap_err();
        assert_eq!(error.exit_code(), 17, "{error}");
        let again = recorder(failing.bytes());
        make(&again, &recipe()).unwrap();
        assert!(look(&again.bytes(), &release, "after a failure"), "after {fail_after} writes");
    }
}

#[test]
fn a_disk_with_data_is_left_as_it_is_until_it_may_be_wiped() {
    let len = SMALL.least_disk_bytes();
    for (at, byte, said) in
        [(0x439u64, 0xef, "not known"), (len - 1, 1, "not known"), (511, 0xaa, "not known")]
    {
        let mut bytes = dirty_but_blank(len);
        bytes[at as usize] = byte;
        let disk = recorder(bytes.clone());
        let error = make(&disk, &recipe()).unwrap_err();
        assert_eq!(error.exit_code(), 16);
        assert!(error.to_string().contains(said) && error.to_string().contains("--wipe"), "{error}");
        assert!(disk.steps().is_empty() && disk.bytes() == bytes, "nothing is written");
        let made = make(&disk, &Recipe { wipe: true, ..recipe() }).unwrap();
        assert!(made.wiped.is_some() && look(&disk.bytes(), &release(), "wiped"));
    }
    let mut ext4 = dirty_but_blank(len);
    ext4[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    assert!(make(&recorder(ext4), &recipe()).unwrap_err().to_string().contains("ext4"));
}

#[test]
fn a_disk_of_basalt_is_known_and_every_prefix_of_wiping_it_boots_or_is_known_not_to() {
    let disk = recorder(dirty_but_blank(SMALL.least_disk_bytes()));
    make(&disk, &recipe()).unwrap();
    let before = disk.bytes();
    let error = make(&recorder(before.clone()), &recipe()).unwrap_err();
    assert!(error.to_string().contains("Basalt already (partitions basalt-esp, basalt-root-a"), "{error}");
    let again = recorder(before.clone());
    let other = Recipe { wipe: true, seed: [9; 16], ..recipe() };
    make(&again, &other).unwrap();
    let release = release();
    every_cut(&before, &again.steps(), &mut |bytes, what, i| {
        // Either what stood there, or nothing, or what was written; while it is cleared, perhaps neither.
        if has_mbr(bytes) {
            assert_eq!(Reader::new(bytes, &[&release]).boots(bytes).as_deref(), Some("1.2.0"), "{what} {i}");
        }
    });
    assert!(look(&again.bytes(), &release, "wiped"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let small = recorder(vec![0; (SMALL.least_disk_bytes() - 512) as usize]);
    let error = make(&small, &recipe()).unwrap_err().to_string();
    assert!(error.contains("41 MiB") && error.contains("larger"), "{error}");
    let disk = recorder(vec![0; SMALL.least_disk_bytes() as usize]);
    let odd = Recipe { boot_loader: b"#!/bin/sh", ..recipe() };
    assert!(make(&disk, &odd).unwrap_err().to_string().contains("boot loader"));
    let tight = Recipe { sizes: Sizes { root_bytes: MIB, ..SMALL }, ..recipe() };
    assert!(make(&disk, &tight).unwrap_err().to_string().contains("larger ones"));
    assert!(disk.steps().is_empty());
}

/// Sectors of 4 KiB; FAT32 with such needs 256 MiB.
#[test]
fn sectors_of_4096_bytes() {
    let sizes = Sizes { esp_bytes: 272 * MIB, ..SMALL };
    let disk = recorder(vec![0; (sizes.least_disk_bytes() + MIB) as usize]);
    let made = make(&disk, &Recipe { sector_bytes: 4096, sizes, ..recipe() }).unwrap();
    assert_eq!(made.state_bytes, 2 * MIB);
    let bytes = disk.bytes();
    let places = partitions_of(&bytes, Lb4096);
    let esp = places["basalt-esp"].clone();
    assert_eq!(esp.start as u64, MIB);
    assert_eq!(files(&bytes, esp.clone())["basalt_1.2.0+3.efi"], release().uki);
    assert!(bytes[places["basalt-root-a"].clone()].starts_with(&release().root));
    check_with_fsck(&bytes, esp);
    assert!(has_mbr(&bytes) && matches!(contents(&Recorder::new(bytes), 4096).unwrap(), Contents::Holds(_)));
}

/// What comes out takes upgrades like a disk that was written with dd.
#[test]
fn the_next_version_is_installed_beside_it() {
    let disk = recorder(vec![0; SMALL.least_disk_bytes() as usize]);
    make(&disk, &recipe()).unwrap();
    let media: Arc<dyn Media> = disk.clone();
    let target = Disk::Whole(media);
    let running = release();
    basalt_upgrade::bless::bless(&target, &running.id).unwrap();
    let next = Release::new("1.3.0", 20, 2000);
    install(&checked(next.bundle()), &target, Some(&running.id), &mut |_, _, _| ()).unwrap();
    let names: Vec<String> =
        status(&target, Some(&running.id)).unwrap().slots.into_iter().map(|s| s.file).collect();
    assert_eq!(names, ["basalt_1.3.0+3.efi", "basalt_1.2.0.efi"]);
    let bytes = disk.bytes();
    assert_eq!(Reader::new(&bytes, &[&running, &next]).boots(&bytes).as_deref(), Some("1.3.0"));
    check_with_fsck(&bytes, partitions(&bytes)["basalt-esp"].clone());
}

#[test]
fn state_grows_into_a_larger_disk_and_every_prefix_has_a_whole_table() {
    let disk = recorder(vec![0; SMALL.least_disk_bytes() as usize]);
    make(&disk, &recipe()).unwrap();
    assert_eq!(grow_state(&*recorder(disk.bytes())).unwrap(), None, "nothing to gain");
    let mut start = disk.bytes();
    let small = partitions(&start);
    start.resize(start.len() + 5 * MIB as usize, 0);
    let larger = recorder(start.clone());
    let grown = grow_state(&*larger).unwrap().unwrap();
    assert_eq!((grown.number, grown.before_bytes, grown.len_bytes), (4, MIB, 6 * MIB));
    assert_eq!(grown.start_bytes, small["basalt-state"].start as u64);
    let (mut before, mut after) = (0, 0);
    every_cut(&start, &larger.steps(), &mut |bytes, what, i| {
        // Linux reads the primary alone unless it is told otherwise.
        assert!(has_mbr(bytes), "{what} {i}");
        let table = open(bytes);
        table.primary_header().unwrap_or_else(|e| panic!("{what} {i}: primary header: {e}"));
        let found = partitions(bytes);
        // Which checks the primary's sums; the next boot goes on where this one stopped.
        let next = recorder(bytes.to_vec());
        grow_state(&*next).unwrap_or_else(|e| panic!("{what} {i}: {e}"));
        assert_eq!(partitions(&next.bytes())["basalt-state"].len() as u64, 6 * MIB, "{what} {i}");
        for name in ["basalt-esp", "basalt-root-a", "basalt-root-b"] {
            assert_eq!(found[name], small[name], "{what} {i}");
        }
        match found["basalt-state"].len() as u64 {
            len if len == MIB => before += 1,
            len if len == 6 * MIB => after += 1,
            other => panic!("{what} {i}: state has {other} bytes"),
        }
    });
    assert!(before > 2 && after > 2, "{before} {after}");
    let bytes = larger.bytes();
    let table = open(&bytes);
    let (primary, backup) = (table.primary_header().unwrap(), table.backup_header().unwrap());
    assert_eq!((backup.current_lba, primary.backup_lba), (bytes.len() as u64 / 512 - 1, backup.current_lba));
    assert_eq!((primary.part_start, &primary.crc32_parts), (2, &backup.crc32_parts));
    assert_eq!(grow_state(&*larger).unwrap(), None, "it has grown");
    assert!(look(&bytes, &release(), "grown"));
}

#[test]
fn only_the_last_partition_grows_and_damage_is_an_error() {
    let error = grow_state(&*recorder(vec![0; 8 * MIB as usize])).unwrap_err();
    assert_eq!(error.exit_code(), 16);
    let disk = recorder(vec![0; SMALL.least_disk_bytes() as usize]);
    make(&disk, &recipe()).unwrap();
    let mut bytes = disk.bytes();
    bytes.resize(bytes.len() + 5 * MIB as usize, 0);
    for at in [520, 600, 1024 + 3 * 128 + 40] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        let bad = recorder(bad);
        grow_state(&*bad).unwrap_err();
        assert!(bad.steps().is_empty());
    }
    // Another partition behind it.
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(Lb512)
        .open_from_device(std::io::Cursor::new(&mut bytes[..]))
        .unwrap();
    let mut all = table.partitions().clone();
    let state = all.values_mut().find(|p| p.name == "basalt-state").unwrap();
    state.name = "other".into();
    table.update_partitions(all).unwrap();
    table.write().unwrap();
    let other = recorder(bytes);
    assert_eq!(grow_state(&*other).unwrap(), None);
    assert!(other.steps().is_empty());
}
