//! 64 switches of 32 ports in real time, each answering after a while as real ones do: seconds in all, bounded memory, a bound on
//! how many are asked at once, and a slow one that holds up nobody but itself.

use async_trait::async_trait;
use basalt_switch_api::engine::{Engine, Options, Step};
use basalt_switch_api::fake::Fake;
use basalt_switch_api::intent::Fabric;
use basalt_switch_api::plan::Plan;
use basalt_switch_api::verify::FindingKind;
use basalt_switch_api::{
    ApplyOptions, Capabilities, Cause, Counters, DeviceName, Identity, Observed, Pending, Result, Switch,
    Transaction,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SWITCHES: usize = 64;
const PORTS: usize = 32;
/// A driver's own bound on one request, short for the test.
const LIMIT: Duration = Duration::from_secs(2);

fn hall() -> Fabric {
    let mut text = String::from("version: 1\nname: hall\nvlans: [{name: storage, id: 100}]\nswitches:\n");
    for s in 0..SWITCHES {
        text.push_str(&format!(
            "  - {{name: leaf-{s}, role: leaf, driver: eos, management: {{address: 192.0.2.{s}, tls: {{insecure: true}}}}}}\n"
        ));
    }
    text.push_str("nodes:\n");
    (0..SWITCHES * PORTS).for_each(|n| text.push_str(&format!("  - {{name: node-{n}}}\n")));
    text.push_str("links:\n");
    for n in 0..SWITCHES * PORTS {
        let (leaf, port) = (n / PORTS, n % PORTS * 4);
        text.push_str(&format!(
            "  - {{ends: [node-{n}/p0, leaf-{leaf}/Ethernet{port}], speed_gbps: 100, vlans: {{untagged: storage}}}}\n"
        ));
    }
    Fabric::from_yaml(&text).unwrap()
}

/// How many are spoken to at this moment, and at most so far.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// A switch that takes its time, reached by a driver that waits no longer than its limit.
struct Far {
    fake: Fake,
    delay: Duration,
    gauge: Arc<Gauge>,
}

impl Far {
    async fn after_a_while<T>(&self, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let now = self.gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.gauge.most.fetch_max(now, Ordering::SeqCst);
        let slow = async {
            tokio::time::sleep(self.delay).await;
            work.await
        };
        let answer = tokio::time::timeout(LIMIT, slow).await;
        self.gauge.now.fetch_sub(1, Ordering::SeqCst);
        answer
            .unwrap_or_else(|_| Err(Cause::TimedOut { request: "read".into(), after: LIMIT }.at(self.name())))
    }
}

#[async_trait]
impl Switch for Far {
    fn name(&self) -> &DeviceName {
        self.fake.name()
    }
    fn capabilities(&self) -> Capabilities {
        self.fake.capabilities()
    }
    async fn discover(&self) -> Result<Identity> {
        self.after_a_while(self.fake.discover()).await
    }
    async fn read(&self) -> Result<Observed> {
        self.after_a_while(self.fake.read()).await
    }
    async fn apply(&self, plan: &Plan, options: ApplyOptions) -> Result<Pending> {
        self.after_a_while(self.fake.apply(plan, options)).await
    }
    async fn confirm(&self, pending: &Pending) -> Result<()> {
        self.after_a_while(self.fake.confirm(pending)).await
    }
    async fn counters(&self) -> Result<Counters> {
        self.after_a_while(self.fake.counters()).await
    }
}

/// Peak of this process's memory so far, KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn engine(fabric: &Fabric, delay: impl Fn(usize) -> Duration) -> (Engine, Vec<Fake>, Arc<Gauge>) {
    let gauge = Arc::new(Gauge::default());
    let fake = |s: usize| Fake::cabled(fabric, &format!("leaf-{s}"), Transaction::Atomic, PORTS);
    let fakes: Vec<Fake> = (0..SWITCHES).map(fake).collect();
    let far = |(s, fake): (usize, &Fake)| {
        Arc::new(Far { fake: fake.clone(), delay: delay(s), gauge: Arc::clone(&gauge) }) as Arc<dyn Switch>
    };
    let switches: Vec<_> = fakes.iter().enumerate().map(far).collect();
    (Engine::new(fabric.clone(), switches, Options::default()), fakes, gauge)
}

#[tokio::test]
async fn sixty_four_switches_in_seconds_and_a_slow_one_delays_nobody_else() {
    let fabric = hall();
    let before_kib = peak_kib();
    // 20 to 80 ms, as management processors answer; one is stuck.
    let stuck = DeviceName::from("leaf-5");
    let (engine, fakes, gauge) = engine(&fabric, |s| match s {
        5 => Duration::from_secs(3600),
        s => Duration::from_millis(20 + (s as u64 * 7) % 60),
    });
    let answered: Arc<Mutex<BTreeMap<DeviceName, Instant>>> = Arc::default();
    let note = Arc::clone(&answered);
    let engine = engine.watched_by(move |switch, step| {
        if matches!(step, Step::Done | Step::Failed) {
            note.lock().unwrap().insert(switch.clone(), Instant::now());
        }
    });

    let begin = Instant::now();
    let plans = engine.plan().await;
    let took = begin.elapsed();
    let times = std::mem::take(&mut *answered.lock().unwrap());
    let others = times.iter().filter(|(name, _)| **name != stuck).map(|(_, at)| *at - begin).max().unwrap();
    assert!(
        matches!(&plans[&stuck], Err(e) if matches!(e.cause, Cause::TimedOut { .. })),
        "{:?}",
        plans[&stuck]
    );
    let good: Vec<&Plan> = plans.values().flatten().collect();
    assert_eq!(good.len(), SWITCHES - 1);
    assert!(good.iter().all(|plan| plan.changes.len() > PORTS));
    // 63 switches of some 50 ms, 16 at a time and one place taken: a quarter of a second, the rest is computing.
    assert!(others < LIMIT, "the others were kept waiting: {others:?}");
    assert!(took < LIMIT + Duration::from_secs(2), "{took:?}");
    let most = gauge.most.load(Ordering::SeqCst);
    let bound = Options::default().parallel;
    assert!(most <= bound && most > bound / 2, "{most} at once, {bound} allowed");

    // As wanted but for one port, verified.
    for (fake, plan) in fakes.iter().filter_map(|fake| Some((fake, plans[fake.name()].as_ref().ok()?))) {
        let mut inner = fake.inner();
        plan.changes.iter().for_each(|change| inner.observed.state.change(change));
    }
    let mut port = fakes[9].inner().observed.state.port(&"Ethernet12".into()).unwrap().clone();
    port.mtu_bytes = Some(1500);
    fakes[9].inner().observed.state.insert_owned(port, basalt_switch_api::state::Owner::Ours);
    let begin = Instant::now();
    let findings = engine.check().await;
    let checked = begin.elapsed();
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(findings.len(), 2, "{text:?}");
    assert!(findings.iter().any(|f| f.kind == FindingKind::NoAnswer && f.device == stuck));
    assert!(text.contains(&"port Ethernet12 on leaf-9: MTU 1500, wanted 9214".to_owned()), "{text:?}");
    assert!(checked < LIMIT + Duration::from_secs(2), "{checked:?}");
    let grown_mib = (peak_kib() - before_kib) / 1024;
    println!(
        "64 switches: planned in {took:?} (all but the stuck one {others:?}), checked in {checked:?}, {grown_mib} MiB"
    );
    assert!(grown_mib < 128, "{grown_mib} MiB");
}
