//! The real world: threads, timers, messages, files, sockets, cancellation, idling, drain.

use basalt_reactor::buf::DmaBuf;
use basalt_reactor::real::{Config, run};
use basalt_reactor::sync::{Notify, join_all};
use basalt_reactor::{self as reactor, CoreId, net, ring};
use bytes::{Bytes, BytesMut};
use std::cell::Cell;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// `request_drain` reaches every node of the process: the test of it runs alone.
static ALONE: RwLock<()> = RwLock::new(());

fn node<T: Send + 'static, F: Future<Output = T> + 'static>(
    cores: u16,
    main: impl FnOnce() -> F + Send + 'static,
) -> T {
    let _shared = ALONE.read().unwrap_or_else(|e| e.into_inner());
    run(Config { cores, ..Config::default() }, main)
}

struct TempDir(PathBuf);
impl TempDir {
    fn new() -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("basalt-reactor-{}-{n}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        TempDir(path)
    }
}
impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn returns_what_main_returns() {
    assert_eq!(node(1, || async { 42 }), 42);
    assert_eq!(run(Config { cores: 2, pin: true, idle_spin_us: 0 }, || async { reactor::core_count() }), 2);
}

#[test]
fn sleeps_take_their_time() {
    node(1, || async {
        let start = reactor::now();
        let each = [30, 10, 20].map(|ms| async move {
            reactor::sleep(ms * MS).await;
            start.elapsed()
        });
        let took = join_all(each).await;
        for (took, ms) in took.iter().zip([30, 10, 20]) {
            assert!(*took >= ms * MS && *took < ms * MS + 500 * MS, "{took:?}");
        }
        assert!(reactor::timeout(5 * MS, std::future::pending::<()>()).await.is_none());
    });
}

#[test]
fn messages_keep_their_order_and_calls_come_back() {
    node(3, || async {
        let log = Arc::new(Mutex::new(Vec::new()));
        for i in 0..10_000 {
            let log = log.clone();
            reactor::post(CoreId(1), move || log.lock().unwrap().push((reactor::current_core(), i)));
        }
        let seen = log.clone();
        let sum = reactor::call_on(CoreId(1), || async move {
            assert!(seen.lock().unwrap().iter().copied().eq((0..10_000).map(|i| (CoreId(1), i))));
            let far = reactor::call_on(CoreId(2), || async {
                reactor::sleep(MS).await;
                u64::from(reactor::current_core().0)
            });
            far.await + 5
        });
        assert_eq!(sum.await, 7);
        // Ping-pong while the others sleep: no wake-up gets lost.
        for i in 0..2000u64 {
            let got = reactor::call_on(CoreId((i % 3) as u16), move || async move { i }).await;
            assert_eq!(got, i);
        }
    });
}

#[test]
fn a_panic_anywhere_ends_the_node() {
    let result = std::panic::catch_unwind(|| {
        node(2, || async {
            reactor::post(CoreId(1), || panic!("on core 1"));
            std::future::pending::<()>().await;
        })
    });
    assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"on core 1"));
}

#[test]
fn what_still_runs_at_the_end_is_dropped() {
    struct OnDrop(Arc<AtomicU64>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            reactor::post(CoreId(0), || ());
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped = Arc::new(AtomicU64::new(0));
    let count = dropped.clone();
    node(2, move || async move {
        for core in [0, 1] {
            let guard = OnDrop(count.clone());
            reactor::post(CoreId(core), move || {
                drop(reactor::spawn(async move {
                    let _guard = guard;
                    let (_tx, rx) = reactor::sync::oneshot::channel::<()>();
                    rx.await
                }))
            });
        }
        reactor::call_on(CoreId(1), || reactor::sleep(5 * MS)).await;
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
}

#[test]
fn files_are_read_and_written() {
    let dir = TempDir::new();
    let path = dir.0.join("file");
    node(1, move || async move {
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let fd = file.as_raw_fd();
        // More pieces than one system call takes.
        let pieces: Vec<_> = (0..3000u32).map(|i| Bytes::copy_from_slice(&i.to_le_bytes())).collect();
        ring::write_at(fd, pieces, 4096, false).await.unwrap();
        ring::write_at(fd, vec![Bytes::from_static(b"tail")], 16096, true).await.unwrap();
        ring::fdatasync(fd).await.unwrap();
        let (n, buf) = ring::read_at(fd, DmaBuf::new(20_000), 4096).await;
        assert_eq!(n.unwrap(), 12_004);
        let values = buf[..12_000].chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap()));
        assert!(values.eq(0..3000));
        assert_eq!(&buf[12_000..12_004], b"tail");
        ring::fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 4096, 4096)
            .await
            .unwrap();
        let (n, buf) = ring::read_at(fd, DmaBuf::new(4096), 4096).await;
        assert_eq!((n.unwrap(), buf.iter().all(|&b| b == 0)), (4096, true));
        let (n, _) = ring::read_at(-1, DmaBuf::new(4096), 0).await;
        assert_eq!(n.unwrap_err().raw_os_error(), Some(libc::EBADF));
    });
}

#[test]
fn many_requests_at_once() {
    let dir = TempDir::new();
    let path = dir.0.join("file");
    node(1, move || async move {
        let file = std::fs::File::options().read(true).write(true).create_new(true).open(path).unwrap();
        let fd = file.as_raw_fd();
        // Far more than the submission queue holds.
        let writes = (0..2000u64).map(|i| {
            reactor::spawn(async move {
                ring::write_at(fd, vec![Bytes::from(vec![i as u8; 512])], i * 512, false).await
            })
        });
        let writes: Vec<_> = writes.collect();
        for w in writes {
            w.await.unwrap();
        }
        for i in (0..2000u64).step_by(37) {
            let (n, buf) = ring::read_at(fd, DmaBuf::new(512), i * 512).await;
            assert!(n.unwrap() == 512 && buf.iter().all(|&b| b == i as u8));
        }
    });
}

async fn echo(s: net::Stream) {
    loop {
        let (n, buf) = s.read(BytesMut::with_capacity(8192)).await;
        if n.unwrap_or(0) == 0 || s.write_all(vec![buf.freeze()]).await.is_err() {
            return;
        }
    }
}

async fn exchange(s: &net::Stream, pieces: usize) {
    let all: Vec<_> = (0..pieces).map(|i| Bytes::from(vec![i as u8; 100])).collect();
    let expect = all.concat();
    let (sent, got) = (s.write_all(all), async {
        let mut got = BytesMut::with_capacity(expect.len());
        while got.len() < expect.len() {
            let (n, back) = s.read(got).await;
            got = back;
            assert!(n.unwrap() > 0);
        }
        got
    });
    let both: [reactor::LocalBoxFuture<'_, Option<BytesMut>>; 2] = [
        Box::pin(async {
            sent.await.unwrap();
            None
        }),
        Box::pin(async { Some(got.await) }),
    ];
    let got = join_all(both).await.pop().unwrap().unwrap();
    assert!(got == expect);
}

#[test]
fn tcp_carries_bytes_and_moves_between_cores() {
    node(2, || async {
        let l = net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = l.local_addr();
        drop(reactor::spawn(async move {
            loop {
                let d = l.accept().await.unwrap().detach();
                reactor::post(CoreId(1), move || drop(reactor::spawn(echo(d.attach()))));
            }
        }));
        let clients = (0..20).map(|_| {
            reactor::spawn(async move {
                let s = net::connect(addr).await.unwrap();
                assert_eq!(s.peer_addr(), Some(addr));
                // More pieces than one system call takes, and more bytes than the sockets hold.
                exchange(&s, 5000).await;
                let s = s.detach().attach();
                exchange(&s, 3).await;
                s.shutdown();
                let (n, _) = s.read(BytesMut::with_capacity(1)).await;
                assert_eq!(n.unwrap(), 0);
                assert!(s.write_all(vec![Bytes::from_static(b"x")]).await.is_err());
            })
        });
        join_all(clients).await;
        let nobody = net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr();
        assert_eq!(net::connect(nobody).await.err().unwrap().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(net::listen(addr).await.err().unwrap().kind(), ErrorKind::AddrInUse);
    });
}

#[test]
fn unix_sockets_replace_stale_files_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new();
    let path = dir.0.join("basalt.sock");
    node(1, move || async move {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "stale");
        let l = net::listen_unix(&path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(net::listen_unix(&path).await.err().unwrap().kind(), ErrorKind::AddrInUse);
        drop(reactor::spawn(async move {
            loop {
                drop(reactor::spawn(echo(l.accept().await.unwrap())));
            }
        }));
        let s = net::connect_unix(&path).await.unwrap();
        assert_eq!(s.peer_addr(), None);
        exchange(&s, 2000).await;
        let file = path.with_file_name("file");
        std::fs::write(&file, "precious").unwrap();
        assert!(net::listen_unix(&file).await.is_err());
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    });
}

#[test]
fn dropped_requests_leave_their_memory_to_the_kernel() {
    node(1, || async {
        let l = net::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = l.local_addr();
        for round in 0..50 {
            // An accept that nobody waits for any more must not swallow the next connection for good.
            assert!(reactor::timeout(Duration::ZERO, l.accept()).await.is_none());
            let c = net::connect(addr).await.unwrap();
            let s = l.accept().await.unwrap();
            assert!(
                reactor::timeout(Duration::from_micros(round), c.read(BytesMut::with_capacity(1 << 16)))
                    .await
                    .is_none()
            );
            // Memory freed too early would be handed out here, and written to by the cancelled read.
            let canary = vec![0u8; 1 << 16];
            s.write_all(vec![Bytes::from(vec![0xff; 1 << 12])]).await.unwrap();
            reactor::yield_now().await;
            assert!(canary.iter().all(|&b| b == 0));
            // A write that the peer does not take, given up.
            let big = vec![Bytes::from(vec![1; 32 << 20])];
            assert!(reactor::timeout(MS, s.write_all(big)).await.is_none());
        }
    });
}

#[test]
fn an_idle_node_uses_no_cpu_and_wakes_at_once() {
    fn cpu_ns() -> u64 {
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a valid place for the result.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut ts) };
        ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
    }
    node(2, || async {
        for core in [0, 1] {
            let used = reactor::call_on(CoreId(core), || async {
                let before = cpu_ns();
                reactor::sleep(300 * MS).await;
                cpu_ns() - before
            });
            let used = used.await;
            assert!(used < 6_000_000, "{used} ns of CPU in 300 ms of idling");
        }
    });
}

#[test]
fn tasks_do_not_starve_timers() {
    node(1, || async {
        let stop = Rc::new(Cell::new(false));
        for _ in 0..3 {
            let stop = stop.clone();
            drop(reactor::spawn(async move {
                while !stop.get() {
                    reactor::yield_now().await;
                }
            }));
        }
        reactor::sleep(5 * MS).await;
        stop.set(true);
    });
}

#[test]
fn pollers_are_asked() {
    node(1, || async {
        let notify = Rc::new(Notify::new());
        let (n, mut calls) = (notify.clone(), 0);
        reactor::register_poller("test", move || {
            calls += 1;
            if calls == 100 {
                n.notify_all();
            }
            calls == 100
        });
        reactor::timeout(1000 * MS, notify.notified()).await.expect("polled 100 times in a second");
    });
}

#[test]
fn drain_reaches_every_core() {
    let _alone = ALONE.write().unwrap_or_else(|e| e.into_inner());
    for _ in 0..2 {
        let at_start = run(Config { cores: 2, ..Config::default() }, || async {
            let before = reactor::draining();
            let other = reactor::spawn(reactor::call_on(CoreId(1), reactor::drain_requested));
            reactor::sleep(2 * MS).await;
            std::thread::spawn(basalt_reactor::real::request_drain);
            reactor::drain_requested().await;
            other.await;
            assert!(reactor::draining());
            before
        });
        assert!(!at_start, "a former run's drain is not this one's");
    }
}

#[test]
fn randomness_is_random() {
    let (a, b) = node(1, || async {
        let mut big = [0; 1000];
        reactor::fill_random(&mut big);
        assert!(big.chunks(50).all(|c| c.iter().any(|&b| b != 0)));
        (reactor::random_u64(), reactor::random_u64())
    });
    assert_ne!(a, b);
}
