//! Files through io_uring, on whatever file system the temporary directory and /dev/shm are.

use basalt_bdev::uring::UringDrive;
use basalt_bdev::{BdevError, DriveRef, Durability};
use basalt_reactor::real::{Config, run};
use basalt_reactor::sync::join_all;
use basalt_reactor::{self as reactor, CoreId};
use bytes::Bytes;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

struct TempDir(PathBuf);
impl TempDir {
    fn within(parent: &Path) -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("basalt-bdev-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }
    fn file(&self) -> PathBuf {
        self.0.join("drive")
    }
}
impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The places to test on: disk-backed and memory-backed file systems differ in O_DIRECT and fallocate.
fn places() -> Vec<PathBuf> {
    let all = [std::env::temp_dir(), PathBuf::from("/dev/shm"), PathBuf::from(env!("CARGO_TARGET_TMPDIR"))];
    all.into_iter().filter(|p| p.is_dir()).collect()
}

fn block(b: u8) -> Bytes {
    Bytes::from(vec![b; 4096])
}

async fn firsts(drive: &DriveRef, blocks: u64) -> Vec<u8> {
    let got = drive.open().unwrap().read(0, (blocks * 4096) as usize).await.unwrap();
    for b in got.chunks(4096) {
        assert!(b.iter().all(|x| *x == b[0]));
    }
    got.chunks(4096).map(|b| b[0]).collect()
}

#[test]
fn reads_writes_holes_and_swaps() {
    for place in places() {
        let dir = TempDir::within(&place);
        let path = dir.file();
        run(Config { cores: 2, ..Config::default() }, move || async move {
            let drive = UringDrive::create_file(&path, (1 << 20) + 5).unwrap();
            assert_eq!((drive.info().size_bytes, drive.info().volatile_cache), (1 << 20, true));
            let ch = drive.open().unwrap();
            // Unaligned pieces are copied, aligned ones are not.
            let odd = vec![Bytes::from(vec![1; 1000]), Bytes::from(vec![1; 7192])];
            ch.write(0, odd, Durability::Cached).await.unwrap();
            let aligned = basalt_reactor::buf::DmaBuf::from_slice(&[2; 8192]).freeze();
            let even = vec![aligned.slice(..4096), aligned.slice(4096..)];
            ch.write(8192, even, Durability::Durable).await.unwrap();
            ch.flush().await.unwrap();
            assert_eq!(firsts(&drive, 5).await, [1, 1, 2, 2, 0]);
            ch.unmap(4096, 4096).await.unwrap();
            ch.write_zeroes(8192, 4096).await.unwrap();
            assert_eq!(firsts(&drive, 5).await, [1, 0, 0, 2, 0]);
            assert!(ch.compare_and_write(4096, block(0), block(7)).await.unwrap());
            assert!(!ch.compare_and_write(4096, block(0), block(8)).await.unwrap());
            assert!(ch.compare_and_write(4096, block(7), Bytes::new()).await.is_err());
            assert_eq!(firsts(&drive, 3).await, [1, 7, 0]);
            for (offset, len) in [(1 << 20, 4096), (0, 4095), (17, 4096), (0, (1 << 20) + 4096)] {
                assert!(matches!(ch.read(offset, len).await, Err(BdevError::OutOfRange { .. })));
            }
            let far = drive.clone();
            let seen = reactor::call_on(CoreId(1), move || async move { firsts(&far, 3).await });
            assert_eq!(seen.await, [1, 7, 0]);
        });
    }
}

#[test]
fn a_drive_is_opened_once() {
    let dir = TempDir::within(&std::env::temp_dir());
    let drive = UringDrive::create_file(&dir.file(), 1 << 20).unwrap();
    let again = UringDrive::open(&dir.file()).err().unwrap();
    assert!(again.to_string().contains("open as a drive already"), "{again}");
    assert!(UringDrive::create_file(&dir.file(), 1 << 20).is_err());
    drop(drive);
    drop(UringDrive::open(&dir.file()).unwrap());
    let socket = dir.0.join("socket");
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for bad in [&dir.0.join("nothing"), &dir.0, &socket] {
        assert!(matches!(UringDrive::open(bad), Err(BdevError::Open { .. })), "{}", bad.display());
    }
    let empty = dir.0.join("empty");
    std::fs::write(&empty, "too small").unwrap();
    assert!(UringDrive::open(&empty).err().unwrap().to_string().contains("4096"));
}

#[test]
fn a_file_that_shrank_is_an_error() {
    let dir = TempDir::within(&std::env::temp_dir());
    let path = dir.file();
    run(Config::default(), move || async move {
        let drive = UringDrive::create_file(&path, 1 << 20).unwrap();
        let ch = drive.open().unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
        assert!(ch.read(0, 8192).await.is_ok());
        match ch.read(4096, 8192).await {
            Err(BdevError::Io { op: "read", cause, .. }) => assert!(cause.contains("shorter"), "{cause}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn swaps_from_many_tasks_and_cores_are_atomic() {
    let dir = TempDir::within(&std::env::temp_dir());
    let path = dir.file();
    run(Config { cores: 2, ..Config::default() }, move || async move {
        let drive = UringDrive::create_file(&path, 1 << 20).unwrap();
        let each = (0..20u16).map(|i| {
            let drive = drive.clone();
            reactor::spawn(reactor::call_on(CoreId(i % 2), move || async move {
                let ch = drive.open().unwrap();
                let mut won = 0;
                // Each tries to count up from what it read.
                for _ in 0..5 {
                    let old = Bytes::from_owner(ch.read(0, 4096).await.unwrap());
                    let new = block(old[0] + 1);
                    won += u8::from(ch.compare_and_write(0, old, new).await.unwrap());
                }
                won
            }))
        });
        let won: u8 = join_all(each).await.iter().sum();
        assert_eq!(firsts(&drive, 1).await, [won]);
        assert!(won >= 5);
    });
}

#[test]
fn many_requests_in_flight_and_some_given_up() {
    let dir = TempDir::within(&std::env::temp_dir());
    let path = dir.file();
    run(Config::default(), move || async move {
        let drive = UringDrive::create_file(&path, 64 << 20).unwrap();
        let ch = drive.open().unwrap();
        let writes = (0..1024u64).map(|i| {
            let ch = ch.clone();
            reactor::spawn(
                async move { ch.write(i * 65536, vec![block(i as u8); 4], Durability::Cached).await },
            )
        });
        for w in writes.collect::<Vec<_>>() {
            w.await.unwrap();
        }
        for i in 0..1024u64 {
            let us = std::time::Duration::from_micros(i % 40);
            if let Some(got) = reactor::timeout(us, ch.read(i * 65536, 65536)).await {
                let got = got.unwrap();
                assert!(got[..16384].iter().all(|&b| b == i as u8) && got[16384..].iter().all(|&b| b == 0));
            }
        }
    });
}

/// Needs root, to mount a small file system of its own; elsewhere the system tests cover it.
#[test]
fn a_full_host_is_told_apart_from_a_broken_drive() {
    let dir = TempDir::within(&std::env::temp_dir());
    let path = dir.file();
    let mount_point = std::ffi::CString::new(dir.0.to_str().unwrap()).unwrap();
    // In a thread and mount namespace of its own: gone with the thread.
    std::thread::spawn(move || {
        let null = std::ptr::null();
        // SAFETY: valid C strings and null pointers, as mount(2) takes them.
        let mounted = unsafe {
            libc::unshare(libc::CLONE_NEWNS) == 0
                && libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()) == 0
                && libc::mount(
                    c"none".as_ptr(),
                    mount_point.as_ptr(),
                    c"tmpfs".as_ptr(),
                    0,
                    c"size=256k".as_ptr().cast(),
                ) == 0
        };
        if !mounted {
            eprintln!("not allowed to mount: skipped");
            return;
        }
        run(Config::default(), move || async move {
            let drive = UringDrive::create_file(&path, 1 << 20).unwrap();
            let ch = drive.open().unwrap();
            let mut errors = Vec::new();
            for i in 0..128 {
                if let Err(e) = ch.write(i * 8192, vec![block(1); 2], Durability::Durable).await {
                    errors.push(e);
                }
            }
            let full = BdevError::HostFull { drive: drive.info().name.clone() };
            assert!(errors.len() > 32 && errors.iter().all(|e| *e == full), "{errors:?}");
            // Room again, and the drive goes on.
            ch.unmap(0, 64 << 10).await.unwrap();
            ch.write(1 << 19, vec![block(2); 2], Durability::Durable).await.unwrap();
        });
    })
    .join()
    .unwrap();
}

/// `BASALT_TEST_BLOCK_DEVICE=/dev/loop0 cargo test -p basalt-bdev -- --ignored`: the device's contents are destroyed.
#[test]
#[ignore = "needs a block device to spare"]
fn a_block_device() {
    let path =
        PathBuf::from(std::env::var_os("BASALT_TEST_BLOCK_DEVICE").expect("a block device to overwrite"));
    run(Config::default(), move || async move {
        let drive = UringDrive::open(&path).unwrap();
        eprintln!("{:?}", drive.info());
        assert!(drive.info().size_bytes >= 1 << 20 && drive.info().backend == "uring");
        let busy = UringDrive::open(&path).err().unwrap();
        assert!(busy.to_string().contains("in use"), "{busy}");
        let ch = drive.open().unwrap();
        for durability in [Durability::Cached, Durability::Durable] {
            ch.write(0, vec![block(3); 8], durability).await.unwrap();
        }
        ch.write_zeroes(4096, 8192).await.unwrap();
        ch.unmap(16384, 4096).await.unwrap();
        ch.flush().await.unwrap();
        assert_eq!(firsts(&drive, 8).await, [3, 0, 0, 3, 0, 3, 3, 3]);
        assert!(ch.compare_and_write(0, block(3), block(4)).await.unwrap());
        let end = drive.info().size_bytes - 4096;
        ch.write(end, vec![block(5)], Durability::Durable).await.unwrap();
        assert_eq!(ch.read(end, 4096).await.unwrap()[0], 5);
        assert!(ch.read(end, 8192).await.is_err());
    });
}
