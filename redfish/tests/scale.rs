//! Five hundred BMCs at once, on two cores, in bounded memory; a slow one delays nobody.

use basalt_redfish::{Bmc, Client, Connection, Credentials, Limits, Trust};
use basalt_redfish_emulator::{Emulator, Fault, Options, vendors};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BMCS: u32 = 500;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn client(emulator: &Emulator, request: Duration) -> Client {
    let options = Options::default();
    let credentials = Credentials::new(options.user, options.password);
    let limits = Limits { request, attempts: 1, ..Limits::default() };
    let connection = Connection {
        port: emulator.port(),
        limits,
        ..Connection::new("127.0.0.1", credentials, Trust::Plaintext)
    };
    Client::new(connection).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_inventories_within_a_minute() {
    // Members one by one, as most BMCs have it: some 50 requests each.
    let shape = vendors::Shape { expand: false, ..vendors::Shape::plain(1) };
    let tree = Arc::new(shape.tree());
    let mut emulators = Vec::new();
    for _ in 0..BMCS {
        emulators.push(Emulator::start(tree.clone()).await);
    }
    // One answers each request half a second late, one never.
    emulators[0].faults("GET /redfish/v1/", Fault::Slow(Duration::from_millis(100)), usize::MAX);
    emulators[1].faults("GET /redfish/v1/Systems", Fault::Hang, usize::MAX);
    let before_kib = resident_kib();
    let begin = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for (number, emulator) in emulators.iter().enumerate() {
        let patience = if number == 1 { 4 } else { 30 };
        let client = client(emulator, Duration::from_secs(patience));
        all.spawn(async move {
            let result = async {
                let system = client.systems().await?.remove(0);
                let inventory = client.inventory(&system.path).await?;
                client.close().await;
                Ok::<_, basalt_redfish::RedfishError>(inventory)
            };
            (number, result.await, client.requests())
        });
    }
    let (mut done, mut last_good, mut peak_kib) = (0, Duration::ZERO, 0);
    while let Some(one) = all.join_next().await {
        let (number, result, requests) = one.unwrap();
        peak_kib = peak_kib.max(resident_kib());
        match number {
            0 => assert!(result.unwrap().problems.is_empty()),
            1 => assert!(result.is_err()),
            _ => {
                let inventory = result.unwrap();
                assert_eq!((inventory.drives().count(), inventory.problems.len()), (4, 0));
                assert!(requests > 40, "{requests}");
                last_good = begin.elapsed();
                done += 1;
            }
        }
    }
    let grown_mib = peak_kib.saturating_sub(before_kib) / 1024;
    eprintln!(
        "{done} inventories in {last_good:.1?}, all in {:.1?}; {grown_mib} MiB more, emulators and clients together",
        begin.elapsed()
    );
    assert_eq!(done, BMCS - 2);
    assert!(last_good < Duration::from_secs(60));
    assert!(last_good < begin.elapsed(), "the slow ones delay nobody");
    assert!(grown_mib < 256, "{grown_mib} MiB");
    assert!(emulators.iter().all(|emulator| emulator.open_sessions() == 0 || emulator.seen().len() < 20));
}
