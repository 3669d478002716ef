//! Figures for the one who asks: `cargo test --release -p basalt-shard speed -- --ignored --nocapture`.

use super::*;
use basalt_bdev::malloc::MallocDrive;
use basalt_pool::{PoolSpec, Scheme};
use std::time::Duration;

const MIB: usize = 1 << 20;

#[test]
#[ignore = "a measurement"]
fn sequential_and_small() {
    basalt_reactor::real::run(basalt_reactor::real::Config::default(), || async {
        let drives = (0..6).map(|n| MallocDrive::create(&format!("m{n}"), 1 << 30)).collect();
        let spec = PoolSpec { name: "p".into(), scheme: Some(Scheme { k: 4, m: 2 }), force: false };
        let pool = Pool::create(drives, &spec, |_, _| ()).await.expect("creates");
        let shard = pool.create_shards(1).await.expect("creates")[0];
        let s = open_in(pool, shard).await;
        s.data.set_limits(128 << 20, 64 << 20);
        let f = Ino(5);
        s.create(f).await;
        let piece = Bytes::from(noise(MIB));
        let total = 1024;
        let rate = |what: &str, took: Duration| {
            println!("{what}: {:.0} MiB/s", total as f64 / took.as_secs_f64());
        };
        for pass in ["write", "overwrite"] {
            let t = basalt_reactor::now();
            for i in 0..total {
                let data = vec![piece.clone()];
                s.data.write(f, (i * MIB) as u64, data, Stability::Unstable, [0; 8], &any).await.unwrap();
            }
            s.data.commit(f, 0, 0).await.unwrap();
            rate(pass, t.elapsed());
        }
        for (what, times) in [("read", 1), ("read of 64 MiB again and again", total / 64)] {
            let t = basalt_reactor::now();
            for _ in 0..times {
                for i in 0..total / times {
                    let r = s.data.read(f, (i * MIB) as u64, MIB as u32, &any).await.unwrap();
                    assert_eq!(r.data.iter().map(|d| d.len()).sum::<usize>(), MIB);
                }
            }
            rate(what, t.elapsed());
        }
        let n = 20_000;
        let t = basalt_reactor::now();
        for _ in 0..n {
            let at = below(16384) * 4096;
            let data = vec![piece.slice(..4096)];
            s.data.write(f, at as u64, data, Stability::FileSync, [0; 8], &any).await.unwrap();
        }
        println!("4 KiB FileSync: {:.1} us", t.elapsed().as_micros() as f64 / n as f64);
        let t = basalt_reactor::now();
        for _ in 0..n {
            s.data.read(f, (below(16384) * 4096) as u64, 4096, &any).await.unwrap();
        }
        println!("4 KiB cached read: {:.2} us", t.elapsed().as_micros() as f64 / n as f64);
        let t = basalt_reactor::now();
        for i in 0..n {
            let data = vec![piece.slice(..4096)];
            s.data.write(f, (i * 4096) as u64, data, Stability::Unstable, [0; 8], &any).await.unwrap();
        }
        println!("4 KiB unstable write: {:.2} us", t.elapsed().as_micros() as f64 / n as f64);
    });
}
