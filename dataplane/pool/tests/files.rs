//! A pool on files in the real world: created, imported by another node with another number of reactors.

use basalt_bdev::DriveRef;
use basalt_bdev::uring::UringDrive;
use basalt_pool::{Pool, PoolError, PoolSpec, Scheme, inspect};
use basalt_reactor::real::{Config, run};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const GIB: u64 = 1 << 30;

struct TempDir(PathBuf);
impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn config(cores: u16) -> Config {
    Config { cores, ..Config::default() }
}

#[test]
fn six_sparse_files_make_a_pool_that_another_start_imports() {
    let dir =
        TempDir(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("pool-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0).unwrap();
    let paths: Vec<PathBuf> = (0..6).map(|n| dir.0.join(format!("drive{n}"))).collect();
    let create = paths.clone();
    let prewritten = Arc::new(AtomicU64::new(0));
    let seen = prewritten.clone();
    run(config(1), move || async move {
        let drives: Vec<DriveRef> =
            create.iter().map(|p| UringDrive::create_file(p, 2 * GIB).unwrap()).collect();
        let spec = PoolSpec { name: "tank".into(), scheme: None, force: false };
        let started = basalt_reactor::now();
        let pool = Pool::create(drives, &spec, |done, _| seen.store(done, Ordering::Relaxed)).await.unwrap();
        println!("create: {:?}", started.elapsed());
        assert_eq!(pool.scheme(), Scheme { k: 4, m: 2 });
        let status = pool.status().await.unwrap();
        assert!(status.segments.free > 930, "{:?}", status.segments);
        // Two file systems of 16 shards fit.
        pool.create_shards(32).await.unwrap();
        let started = basalt_reactor::now();
        for n in 0..20u8 {
            pool.meta_write(vec![(b"fs/x".to_vec(), Some(vec![n]))]).await.unwrap();
        }
        println!("20 root commits: {:?}", started.elapsed());
    });
    // Journal areas are on the disk, the rest is holes.
    let on_disk: u64 = paths.iter().map(|p| std::fs::metadata(p).unwrap().blocks() * 512).sum();
    let prewritten = prewritten.load(Ordering::Relaxed);
    assert!((prewritten..prewritten + prewritten / 2).contains(&on_disk), "{on_disk} of {prewritten}");

    run(config(2), move || async move {
        let open = || -> Vec<DriveRef> { paths[1..].iter().map(|p| UringDrive::open(p).unwrap()).collect() };
        let drives = open();
        let again = PoolSpec { name: "other".into(), scheme: None, force: false };
        let refused = Pool::create(drives.clone(), &again, |_, _| ()).await.map(|_| ()).unwrap_err();
        assert!(
            matches!(&refused, PoolError::Refused(why) if why.contains("belongs to pool tank")),
            "{refused}"
        );
        let started = basalt_reactor::now();
        let pool = Pool::import(drives.clone()).await.unwrap();
        println!("import: {:?}", started.elapsed());
        assert_eq!(pool.status().await.unwrap().health, "degraded, no spare");
        let there = pool.to_ref();
        let value = basalt_reactor::call_on(basalt_reactor::CoreId(1), move || async move {
            there.attach().await.unwrap().meta_get(b"fs/x").await.unwrap()
        })
        .await;
        assert_eq!(value, Some(vec![19]));
        pool.close().await.unwrap();
        assert_eq!(inspect::root(drives).await.error, None);
    });
}
