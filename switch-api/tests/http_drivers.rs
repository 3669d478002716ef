//! What can go wrong under every HTTP driver: TLS, time, size, rate, half answers, and secrets that must not get out.

#[path = "support/dell_site.rs"]
mod dell_site;
#[path = "support/eos_site.rs"]
mod eos_site;
#[path = "support/intent.rs"]
mod intent;
#[path = "support/nvue_site.rs"]
mod nvue_site;
#[path = "support/web.rs"]
mod web;

use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::tls::{Fingerprint, Trust};
use basalt_switch_api::{ApplyOptions, Cause, Secret, Switch};
use dell_site::DellSite;
use eos_site::EosSite;
use nvue_site::NvueSite;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing_subscriber::fmt::MakeWriter;
use web::{Answer, Certificates, Fault, PASSWORD, Seen, Site, Tls, Web};

const ETHERNET: [&str; 6] = ["Ethernet0", "Ethernet4", "Ethernet8", "Ethernet12", "Ethernet16", "Ethernet20"];
const SWP: [&str; 6] = ["swp1", "swp2", "swp3", "swp4", "swp5", "swp6"];
const KINDS: [DriverKind; 3] = [DriverKind::Eos, DriverKind::Nvue, DriverKind::DellSonic];

fn site(kind: DriverKind) -> Box<dyn Site> {
    match kind {
        DriverKind::Nvue => Box::new(NvueSite::factory(&SWP)),
        DriverKind::DellSonic => Box::new(DellSite::factory(&ETHERNET)),
        _ => Box::new(EosSite::factory(&ETHERNET)),
    }
}

impl Site for Box<dyn Site> {
    fn answer(&mut self, request: &Seen) -> Answer {
        (**self).answer(request)
    }
}

fn connect(connection: basalt_switch_api::connection::Connection) -> Arc<dyn Switch> {
    basalt_switch_api::drivers::connect(connection).unwrap()
}

/// Gone with its files when dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("basalt-http-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn ca_file(&self, certificates: &Certificates) -> std::path::PathBuf {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = self.0.join(format!("{number}.pem"));
        std::fs::write(&file, &certificates.ca_pem).unwrap();
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn a_switch_is_believed_by_its_ca_or_its_pin_and_not_otherwise() {
    let folder = Folder::new("ca");
    let (good, other) = (Certificates::new(), Certificates::new());
    let expired = Certificates::valid_until(2001);
    for kind in KINDS {
        let web = Web::start_tls(site(kind), Tls::On(good.server.clone())).await;
        connect(web.connection(kind, Trust::Pin(Fingerprint(good.pin)))).discover().await.unwrap();
        let stranger = Trust::Ca { file: folder.ca_file(&other), server_name: None };
        let error = connect(web.connection(kind, stranger)).discover().await.unwrap_err();
        assert!(
            matches!(&error.cause, Cause::Tls { reason, .. } if reason.contains("invalid peer certificate")),
            "{error}"
        );
    }
    let web = Web::start_tls(site(DriverKind::Eos), Tls::On(good.server.clone())).await;
    let old = Web::start_tls(site(DriverKind::Eos), Tls::On(expired.server.clone())).await;
    let ca = |c: &Certificates, name: Option<&str>| Trust::Ca {
        file: folder.ca_file(c),
        server_name: name.map(str::to_owned),
    };
    let ask = |web: &Web<Box<dyn Site>>, trust: Trust| {
        let switch = connect(web.connection(DriverKind::Eos, trust));
        async move { switch.discover().await.map(drop) }
    };
    ask(&web, ca(&good, None)).await.unwrap();
    ask(&web, ca(&good, Some("leaf-1.example"))).await.unwrap();
    ask(&web, Trust::Pin(Fingerprint(good.pin))).await.unwrap();
    ask(&web, Trust::Insecure).await.unwrap();
    // A pin says: this certificate, whatever its dates.
    ask(&old, Trust::Pin(Fingerprint(expired.pin))).await.unwrap();
    for (web, trust, word) in [
        (&web, ca(&other, None), "invalid peer certificate"),
        (&web, ca(&good, Some("leaf-2.example")), "not valid for name"),
        (&web, Trust::Pin(Fingerprint(other.pin)), "not the pinned one"),
        (&old, ca(&expired, None), "expired"),
    ] {
        let error = ask(web, trust).await.unwrap_err();
        assert!(
            matches!(&error.cause, Cause::Tls { reason, .. } if reason.contains(word)),
            "{word}: {error}"
        );
        assert!(error.to_string().contains("set management.tls.ca_file or pin_sha256"), "{error}");
    }
    // TLS spoken to a switch without it, and the other way round.
    let plain = Web::start(site(DriverKind::Eos)).await;
    let error = ask(&plain, Trust::Insecure).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Tls { .. } | Cause::Unreachable { .. }), "{error}");
    let error = ask(&web, Trust::Plaintext).await.unwrap_err();
    assert!(matches!(error.cause, Cause::BadReply { .. } | Cause::PartialReply { .. }), "{error}");
}

#[tokio::test]
async fn whatever_goes_wrong_has_one_clear_message() {
    for kind in KINDS {
        let web = Web::start(site(kind)).await;
        let switch = web.switch(kind);
        let wrong = connect(basalt_switch_api::connection::Connection {
            secret: Secret::new("wrong"),
            ..web.connection(kind, Trust::Plaintext)
        });
        let error = wrong.discover().await.unwrap_err();
        assert_eq!(error.cause, Cause::Unauthorised { user: "basalt".into() });
        // Transient ones are tried again.
        let busy = || Fault::Status(503, vec![("retry-after", "1".into())], "<html>busy</html>".into());
        web.fault("", busy());
        web.fault("", Fault::CutAfter(20));
        switch.discover().await.unwrap();
        for _ in 0..3 {
            web.fault("", Fault::Status(429, vec![("retry-after", "7".into())], String::new()));
        }
        let error = switch.discover().await.unwrap_err();
        let limited = Cause::RateLimited { retry_after: Some(Duration::from_secs(7)), attempts: 3 };
        assert_eq!(error.cause, limited);
        for _ in 0..3 {
            web.fault("", Fault::CutAfter(20));
        }
        let error = switch.read().await.unwrap_err();
        assert!(matches!(error.cause, Cause::PartialReply { .. }), "{error}");
        web.fault("", Fault::Flood(2 << 20));
        let error = switch.read().await.unwrap_err();
        assert!(matches!(error.cause, Cause::ReplyTooLarge { limit_bytes: 1_048_576, .. }), "{error}");
        web.fault("", Fault::Status(200, vec![], "<html>It works!</html>".into()));
        let error = switch.read().await.unwrap_err();
        assert!(
            matches!(&error.cause, Cause::BadReply { reason, .. } if reason.contains("It works")),
            "{error}"
        );
        web.fault("", Fault::Status(302, vec![("location", "http://elsewhere/".into())], String::new()));
        let error = switch.read().await.unwrap_err();
        assert!(error.to_string().contains("redirection"), "{error}");
        web.fault("", Fault::Noise);
        let error = switch.discover().await.unwrap_err();
        assert!(matches!(error.cause, Cause::BadReply { .. }), "{error}");
        let error = connect(basalt_switch_api::connection::Connection {
            port: 1,
            ..web.connection(kind, Trust::Plaintext)
        })
        .discover()
        .await
        .unwrap_err();
        assert!(matches!(error.cause, Cause::Unreachable { .. }), "{error}");
    }
}

#[tokio::test]
async fn silence_of_any_vendor_ends_in_time() {
    for kind in KINDS {
        let web = Web::start(site(kind)).await;
        let mut connection = web.connection(kind, Trust::Plaintext);
        connection.limits.request = Duration::from_millis(100);
        let switch = connect(connection);
        for _ in 0..3 {
            web.fault("", Fault::Silence);
        }
        let begin = Instant::now();
        let error = switch.read().await.unwrap_err();
        assert!(error.to_string().contains("no answer to '"), "{error}");
        assert!(matches!(error.cause, Cause::TimedOut { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(2), "{kind:?}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn silence_ends_in_time_and_the_connection_is_made_anew() {
    let web = Web::start(site(DriverKind::Eos)).await;
    let connection = basalt_switch_api::connection::Connection {
        limits: basalt_switch_api::connection::Limits {
            request: Duration::from_millis(200),
            ..web.connection(DriverKind::Eos, Trust::Plaintext).limits
        },
        ..web.connection(DriverKind::Eos, Trust::Plaintext)
    };
    let switch = connect(connection);
    for _ in 0..3 {
        web.fault("", Fault::Silence);
    }
    let begin = Instant::now();
    let error = switch.read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::TimedOut { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    switch.read().await.unwrap();
    let connections = *web.connections.lock().unwrap();
    for _ in 0..5 {
        switch.read().await.unwrap();
    }
    assert_eq!(*web.connections.lock().unwrap(), connections, "kept alive");
    switch.discover().await.unwrap();
    assert_eq!(*web.connections.lock().unwrap(), connections + 1, "discover proves the way anew");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;
    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

#[tokio::test]
async fn credentials_get_into_no_log_and_no_error() {
    use base64::Engine as _;
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("basalt:{PASSWORD}"));
    let echo = format!("{{\"error\": \"bad header Authorization: Basic {basic}, password {PASSWORD}\"}}");
    for kind in KINDS {
        let web = Web::start(site(kind)).await;
        let switch = web.switch(kind);
        let mut said = vec![format!("{:?}", web.connection(kind, Trust::Plaintext))];
        switch.discover().await.unwrap();
        switch.read().await.unwrap();
        for status in [200, 400, 404, 409, 412, 500, 503] {
            for _ in 0..3 {
                web.fault("", Fault::Status(status, vec![], echo.clone()));
            }
            for result in [switch.read().await.map(drop), switch.discover().await.map(drop)] {
                said.extend(result.err().map(|e| format!("{e} {e:?}")));
            }
            web.faults.lock().unwrap().clear();
        }
        assert!(said.len() > 5);
        for text in &said {
            assert!(!text.contains(PASSWORD) && !text.contains(&basic), "{text}");
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("answered"), "the log is really captured: {log}");
    assert!(!log.contains(PASSWORD) && !log.contains(&basic), "{log}");
}

/// A switch that answers by its rules, but for one place in one answer.
struct Mad {
    site: Box<dyn Site>,
    seed: usize,
    with: Value,
}

fn places(value: &Value) -> usize {
    1 + match value {
        Value::Object(map) => map.values().map(places).sum(),
        Value::Array(list) => list.iter().map(places).sum(),
        _ => 0,
    }
}

fn replace(value: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *value = with.clone();
        *at = usize::MAX;
        return;
    }
    *at -= 1;
    match value {
        Value::Object(map) => map.values_mut().for_each(|v| {
            if *at != usize::MAX {
                replace(v, at, with);
            }
        }),
        Value::Array(list) => list.iter_mut().for_each(|v| {
            if *at != usize::MAX {
                replace(v, at, with);
            }
        }),
        _ => {}
    }
}

impl Site for Mad {
    fn answer(&mut self, request: &Seen) -> Answer {
        let mut answer = self.site.answer(request);
        if let Ok(mut body) = serde_json::from_str::<Value>(&answer.body) {
            let mut at = self.seed % places(&body);
            replace(&mut body, &mut at, &self.with);
            answer.body = body.to_string();
        }
        answer
    }
}

fn arbitrary_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        "[ -~]{0,12}",
        Just("999999999999999999999".to_owned()),
        Just("1-4094,4095-9".to_owned()),
        Just("é\u{0}\u{202e}".to_owned()),
        Just("interface Ethernet0".to_owned()),
        Just("3x".to_owned()),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((word.clone(), inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Nothing that a switch answers makes a driver panic, wait without end, or take what is not so.
    #[test]
    fn no_answer_makes_a_driver_panic(kind in 0_usize..3, seed in any::<usize>(), with in arbitrary_json(), whole in any::<bool>()) {
        let kind = KINDS[kind];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut ready = site(kind);
            if !whole {
                // A switch that is configured has more to get wrong.
                ready = configured(kind, ready).await;
            }
            let seed = if whole { 0 } else { seed };
            let web = Web::start(Mad { site: ready, seed, with }).await;
            let switch = web.switch(kind);
            let wanted = intent::leaf(&intent::fabric(name(kind), ports(kind), ""));
            let _ = switch.discover().await;
            let _ = switch.counters().await;
            if let Ok(observed) = switch.read().await {
                let plan = switch.plan(&observed.state, &wanted);
                let _ = switch.verify(&wanted).await;
                let limits = tokio::time::timeout(Duration::from_secs(5), switch.apply(&plan, ApplyOptions { hold: Duration::from_secs(60) }));
                let _ = limits.await;
            }
        });
    }
}

fn name(kind: DriverKind) -> &'static str {
    match kind {
        DriverKind::Nvue => "nvue",
        DriverKind::DellSonic => "dell_sonic",
        _ => "eos",
    }
}

fn ports(kind: DriverKind) -> [&'static str; 6] {
    if kind == DriverKind::Nvue { SWP } else { ETHERNET }
}

/// The site after the driver has made it as wanted.
async fn configured(kind: DriverKind, site: Box<dyn Site>) -> Box<dyn Site> {
    let web = Web::start(site).await;
    let switch = web.switch(kind);
    let wanted = intent::leaf(&intent::fabric(name(kind), ports(kind), ""));
    let plan = switch.plan(&switch.read().await.unwrap().state, &wanted);
    let pending = switch.apply(&plan, ApplyOptions { hold: Duration::from_secs(60) }).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let empty: Box<dyn Site> = Box::new(EosSite::factory(&[]));
    std::mem::replace(&mut *web.site(), empty)
}

#[test]
fn replacing_reaches_every_place() {
    let value = json!({"a": [1, {"b": 2}], "c": 3});
    for at in 0..places(&value) {
        let mut changed = value.clone();
        replace(&mut changed, &mut { at }, &json!("x"));
        assert_ne!(changed, value, "{at}");
    }
}
