//! Case by case: locks, bounds, failing flushes, the filter, a clean stop.

use super::super::store::Store;
use super::super::{Index, Inner, Stop, Tuning};
use super::memory::{Media, MemoryStore};
use crate::keys::tag;
use crate::vfs::FsError;
use basalt_pool::Lsn;
use basalt_reactor::sim::Sim;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

fn world<F: Future<Output = ()> + 'static>(f: impl FnOnce() -> F) {
    let mut sim = Sim::new(1);
    let node = sim.add_node(1);
    sim.block_on(node, f);
}
fn open(media: &Rc<RefCell<Media>>, tuning: Tuning) -> (Rc<Index>, Rc<MemoryStore>) {
    let (store, recovery) = MemoryStore::open(media);
    let inner = Inner::restore(store.clone(), recovery, tuning).unwrap();
    inner.start_background();
    (Rc::new(Index { inner, shard_store: None }), store)
}
fn fresh(tuning: Tuning) -> (Rc<Index>, Rc<MemoryStore>) {
    open(&Rc::default(), tuning)
}
fn key(n: u32) -> Vec<u8> {
    [&[tag::INODE][..], &n.to_be_bytes()].concat()
}
async fn put(index: &Index, n: u32, value: &[u8]) {
    index
        .run(|t| {
            t.put(key(n), value.to_vec());
            Ok(())
        })
        .await
        .unwrap();
}
async fn get(index: &Index, n: u32) -> Option<Vec<u8>> {
    index.run(|t| t.get(&key(n))).await.unwrap().map(|v| v.to_vec())
}

#[test]
fn locked_keys_are_waited_for_and_passed_by_their_own_transaction() {
    world(|| async {
        let (index, _) = fresh(Tuning::default());
        put(&index, 1, b"old").await;
        index.run(|t| t.lock(key(1), 77)).await.unwrap();
        // Another transaction may not lock it, its own may again.
        assert_eq!(index.run(|t| t.lock(key(1), 78)).await, Err(FsError::Delay));
        index.run(|t| t.lock(key(1), 77)).await.unwrap();

        let finished = Rc::new(Cell::new(0));
        let spawn = |f: Box<dyn Fn(Rc<Index>) -> basalt_reactor::LocalBoxFuture<'static, ()>>| {
            let (f, finished) = (f(index.clone()), finished.clone());
            drop(basalt_reactor::spawn(async move {
                f.await;
                finished.set(finished.get() + 1);
            }));
        };
        spawn(Box::new(|i| {
            Box::pin(async move { assert_eq!(get(&i, 1).await.as_deref(), Some(&b"new"[..])) })
        }));
        spawn(Box::new(|i| {
            Box::pin(async move {
                let all = i.run(|t| t.scan(&key(0), &key(9), 10)).await.unwrap();
                assert_eq!(&all.last().unwrap().1[..], b"new");
            })
        }));
        spawn(Box::new(|i| Box::pin(async move { put(&i, 1, b"blind").await })));
        // Stops short of the lock, so does not wait.
        put(&index, 0, b"zero").await;
        assert_eq!(index.run(|t| t.scan(&key(0), &key(9), 1)).await.unwrap().len(), 1);
        basalt_reactor::sleep(Duration::from_secs(100)).await;
        assert_eq!(finished.get(), 0);

        let got = index.run(|t| {
            t.enter(77);
            let got = t.get(&key(1))?;
            t.put(key(1), b"new".to_vec());
            Ok(got)
        });
        assert_eq!(got.await.unwrap().as_deref(), Some(&b"old"[..]));
        assert_eq!(finished.get(), 0);
        index.unlock(77);
        basalt_reactor::sleep(Duration::from_secs(1)).await;
        assert_eq!(finished.get(), 3);
        assert_eq!(get(&index, 1).await.as_deref(), Some(&b"blind"[..]));
    });
}

#[test]
fn a_lock_of_a_transaction_that_failed_is_not_taken() {
    world(|| async {
        let (index, _) = fresh(Tuning::default());
        let failed = index.run(|t| {
            t.lock(key(1), 5)?;
            t.put(key(1), vec![1]);
            Err::<(), _>(Stop::Fs(FsError::NotEmpty))
        });
        assert_eq!(failed.await, Err(FsError::NotEmpty));
        assert_eq!(get(&index, 1).await, None);
        index.relock(key(1), 6);
        assert_eq!(index.run(|t| t.lock(key(1), 5)).await, Err(FsError::Delay));
    });
}

#[test]
fn an_operation_that_never_gets_further_is_given_up() {
    world(|| async {
        let (index, _) = fresh(Tuning { attempts: 50, ..Tuning::default() });
        let mut attempts = 0;
        let stuck = index.run(|_| {
            attempts += 1;
            Err::<(), _>(Stop::Wait(Box::pin(async { Ok(()) })))
        });
        assert_eq!(stuck.await, Err(FsError::Delay));
        assert_eq!(attempts, 50);
        // What it waits for can fail; that is its answer.
        let failed = index.run(|_| Err::<(), _>(Stop::Wait(Box::pin(async { Err(FsError::Io) }))));
        assert_eq!(failed.await, Err(FsError::Io));
    });
}

#[test]
fn answers_and_errors_wait_for_what_they_rest_on() {
    world(|| async {
        let (index, store) = fresh(Tuning::default());
        let done = index
            .run_nowait(|t| {
                t.put(key(1), vec![1]);
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!((done.lsn, done.observed), (Some(Lsn(1)), Lsn(1)));
        assert_eq!(store.durable_lsn(), Lsn(0));
        let done = index.run_nowait(|t| t.get(&key(1))).await.unwrap();
        assert_eq!((done.lsn, done.observed), (None, Lsn(1)));
        assert_eq!(store.durable_lsn(), Lsn(0));
        let refused = index.run_nowait(|t| match t.get(&key(1))? {
            Some(_) => Err::<(), _>(Stop::Fs(FsError::Exists)),
            None => Ok(()),
        });
        assert_eq!(refused.await.err(), Some(FsError::Exists));
        assert_eq!(store.durable_lsn(), Lsn(1));
        // A name that was deleted a moment ago is not reported missing before the deletion is durable.
        index
            .run_nowait(|t| {
                t.delete(key(1));
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(get(&index, 1).await, None);
        assert_eq!(store.durable_lsn(), Lsn(2));
        index
            .run_nowait(|t| {
                t.put(key(2), vec![1]);
                Ok(())
            })
            .await
            .unwrap();
        index.run(|t| t.scan(&key(0), &[], 10)).await.unwrap();
        assert_eq!(store.durable_lsn(), Lsn(3));
    });
}

#[test]
fn a_full_pool_stops_writers_only_when_the_journal_is_full_and_ends_with_it() {
    world(|| async {
        let tuning = Tuning { flush_journal_bytes: 1000, ..Tuning::default() };
        let (index, store) = fresh(tuning);
        store.room_bytes.set(4000);
        store.fail_writes.set(u32::MAX);
        let mut taken = 0;
        let refused = loop {
            let n = taken;
            match index
                .run(|t| {
                    t.put(key(n), vec![7; 50]);
                    Ok(())
                })
                .await
            {
                Ok(()) => taken += 1,
                Err(e) => break e,
            }
        };
        assert_eq!(refused, FsError::NoSpace);
        assert!(taken > 20, "{taken}");
        assert_eq!(index.flush().await, Err(FsError::NoSpace));
        // Readers go on, and everything is there.
        for n in 0..taken {
            assert!(get(&index, n).await.is_some());
        }
        store.fail_writes.set(0);
        put(&index, taken, b"there is room again").await;
        index.flush().await.unwrap();
        assert!(index.stats().runs >= 1);
        for n in 0..=taken {
            assert!(get(&index, n).await.is_some());
        }
    });
}

#[test]
fn absent_names_cost_no_data_blocks() {
    world(|| async {
        let (index, store) = fresh(Tuning::default());
        for n in 0..2000 {
            index
                .run_nowait(|t| {
                    t.put(key(n * 2), vec![1; 100]);
                    Ok(())
                })
                .await
                .unwrap();
        }
        index.flush().await.unwrap();
        assert_eq!((index.stats().runs, index.stats().memtable_entries), (1, 0));
        store.reads.set(0);
        for n in 0..1000 {
            assert_eq!(get(&index, n * 2 + 1).await, None);
        }
        // The top, its partitions, and the few that the filter lets through.
        assert!(store.reads.get() < 25, "{}", store.reads.get());
        // Two tasks that miss the same block read it once.
        let reads = async |gets: usize| {
            index.set_cache_bytes(0);
            index.set_cache_bytes(1 << 20);
            store.reads.set(0);
            let all = basalt_reactor::sync::join_all((0..gets).map(|_| get(&index, 500))).await;
            assert!(all.iter().all(Option::is_some));
            store.reads.get()
        };
        assert_eq!(reads(1).await, reads(9).await);
    });
}

#[test]
fn a_clean_stop_leaves_nothing_to_replay() {
    world(|| async {
        let media = Rc::default();
        let (index, _) = open(&media, Tuning::default());
        for n in 0..300 {
            put(&index, n, b"kept").await;
        }
        for n in 0..100 {
            index
                .run(|t| {
                    t.delete(key(n));
                    Ok(())
                })
                .await
                .unwrap();
        }
        index.close().await.unwrap();
        let (store, recovery) = MemoryStore::open(&media);
        assert!(recovery.records.is_empty());
        let inner = Inner::restore(store.clone(), recovery, Tuning::default()).unwrap();
        let index = Rc::new(Index { inner, shard_store: None });
        assert_eq!(store.reads.get(), 0, "opening reads no run");
        assert_eq!(index.run(|t| t.scan(&[], &[], 1000)).await.unwrap().len(), 200);
    });
}

#[test]
fn pages_wait_for_whom_to_pack_them() {
    world(|| async {
        let (index, _) = fresh(Tuning::default());
        let page = || [&[tag::PAGE][..], b"1"].concat();
        index
            .run(|t| {
                t.put(page(), vec![1]);
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(index.flush().await, Err(FsError::Delay));
        assert_eq!(index.page_lsn(&page()), Some(Lsn(1)));
        let weak = Rc::downgrade(&index);
        index.set_pack_pages(Rc::new(move |pages| {
            let index = weak.upgrade().unwrap();
            Box::pin(async move {
                let unpack = index.run_nowait(|t| {
                    pages.iter().for_each(|p| t.delete(p.key.to_vec()));
                    Ok(())
                });
                unpack.await.map(|_| ())
            })
        }));
        index.flush().await.unwrap();
        assert_eq!(index.page_lsn(&page()), None);
        assert_eq!(index.run(|t| t.get(&page())).await.unwrap(), None);
    });
}

#[test]
fn too_large_a_transaction_is_refused_whole() {
    world(|| async {
        let (index, store) = fresh(Tuning::default());
        let big = index.run(|t| {
            t.put(key(1), vec![0; 3 << 20]);
            t.put(key(2), vec![0]);
            Ok(())
        });
        assert_eq!(big.await, Err(FsError::Resource));
        assert_eq!((get(&index, 2).await, store.last_lsn()), (None, Lsn(0)));
    });
}

/// The promise is a first reply within 2 s of a kill with full journals: sixteen shards of 8 MiB.
#[test]
fn replay_is_fast() {
    let mut records = Vec::new();
    let mut bytes = 0;
    for n in 0u32.. {
        let mut w = super::super::record::Writer::new();
        w.put(&key(n), &[1; 150]);
        w.put(
            &[&[tag::DIRENT][..], &n.wrapping_mul(2654435761).to_be_bytes(), b"some-file-name"].concat(),
            &[2; 10],
        );
        bytes += w.bytes().len();
        records.push((Lsn(u64::from(n) + 1), bytes::Bytes::copy_from_slice(w.bytes())));
        if bytes > 8 << 20 {
            break;
        }
    }
    let (store, _) = MemoryStore::open(&Rc::default());
    let recovery = basalt_pool::store::Recovery { checkpoint: None, checkpoint_lsn: Lsn(0), records };
    let n = recovery.records.len();
    let began = std::time::Instant::now();
    let inner = Inner::restore(store, recovery, Tuning::default()).unwrap();
    println!("{n} records in {:?}, {} bytes of memtable", began.elapsed(), inner.stats().memtable_bytes);
    assert!(began.elapsed() < Duration::from_secs(2), "even alone, unoptimised, on a busy machine");
}
