//! The gNMI driver against a gNMI server that keeps the rules, and that server against an independent client.

mod sonic_support;
#[path = "support/yang.rs"]
mod yang;

use basalt_switch_api::connection::Connection;
use basalt_switch_api::engine::{Engine, Options};
use basalt_switch_api::intent::{DriverKind, Fec};
use basalt_switch_api::retry::RetryPolicy;
use basalt_switch_api::tls::{Fingerprint, Trust};
use basalt_switch_api::{Cause, Secret, Switch, WayBack, drivers};
use proptest::prelude::*;
use serde_json::{Value, json};
use sonic_support::gnmi_server::GnmiServer;
use sonic_support::{OPTIONS, Rows, SECRET, connection, planned, rack, wanted};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tonic::Code;

fn settings(server: &GnmiServer, name: &str) -> Connection {
    connection(DriverKind::SonicGnmi, name, "127.0.0.1", server.port)
}

fn driver(server: &GnmiServer, name: &str) -> Arc<dyn Switch> {
    drivers::connect(settings(server, name)).unwrap()
}

#[tokio::test]
async fn leaves_and_spine_become_as_wanted_and_go_back() {
    let server = GnmiServer::start(None).await;
    for name in ["leaf-1", "leaf-2", "spine-1"] {
        server.load(&sonic_support::factory());
        sonic_support::applies_and_takes_back(&*driver(&server, name), &server).await;
    }
    server.load(&sonic_support::factory());
    let switch = driver(&server, "leaf-1");
    let plan = planned(&*switch, &wanted(&rack(), "leaf-1")).await;
    let before = server.state().sets;
    switch.apply(&plan, OPTIONS).await.unwrap();
    assert_eq!(server.state().sets, before + 1, "one plan is one transaction");
}

#[tokio::test]
async fn drift_is_seen_and_mended() {
    let server = GnmiServer::start(None).await;
    sonic_support::sees_and_mends_drift(&*driver(&server, "leaf-1"), &server).await;
}

#[tokio::test]
async fn what_must_not_be_is_refused() {
    let server = GnmiServer::start(None).await;
    sonic_support::refuses_what_it_must(&*driver(&server, "leaf-1"), &server).await;
}

#[tokio::test]
async fn ports_are_split() {
    let server = GnmiServer::start(None).await;
    sonic_support::splits_ports(&*driver(&server, "leaf-1"), &server).await;
}

/// Operational state as the OpenConfig models have it.
fn openconfig_interfaces() -> Value {
    json!({"openconfig-interfaces:interfaces": {"interface": [{
        "name": "Ethernet0",
        "config": {"name": "Ethernet0", "type": "iana-if-type:ethernetCsmacd"},
        "state": {"name": "Ethernet0", "type": "iana-if-type:ethernetCsmacd", "mtu": 9100, "oper-status": "UP"},
        "openconfig-if-ethernet:ethernet": {"state": {
            "port-speed": "openconfig-if-ethernet:SPEED_40GB", "fec-mode": "openconfig-if-ethernet:FEC_RS528",
        }},
    }]}})
}

fn openconfig_lldp() -> Value {
    json!({"openconfig-lldp:interfaces": {"interface": [{
        "name": "Ethernet0",
        "config": {"name": "Ethernet0"},
        "neighbors": {"neighbor": [{"id": "1", "state": {
            "id": "1", "system-name": "node-1", "port-id": "0c:42:a1:00:00:02", "port-id-type": "MAC_ADDRESS",
            "port-description": "p0", "chassis-id": "0c:42:a1:00:00:02", "chassis-id-type": "MAC_ADDRESS",
        }}]},
    }]}})
}

/// What the test's switch answers is what the models allow, so what is read from it is no invention.
#[test]
fn the_openconfig_answers_are_valid_by_the_models() {
    let test = "the_openconfig_answers_are_valid_by_the_models";
    let models = ["openconfig-interfaces", "openconfig-if-ethernet", "openconfig-lldp", "iana-if-type"];
    let Some(yang) = yang::Yang::open(test, "openconfig", &models, &["-i", "-t", "get"]) else { return };
    let lldp =
        json!({"openconfig-lldp:lldp": {"interfaces": openconfig_lldp()["openconfig-lldp:interfaces"]}});
    for (answer, good, bad) in [
        (openconfig_interfaces(), "\"UP\"", "\"UPWARDS\""),
        (openconfig_interfaces(), "SPEED_40GB", "SPEED_41GB"),
        (openconfig_interfaces(), "FEC_RS528", "FEC_RS529"),
        (lldp.clone(), "system-name", "name-of-the-system"),
        (lldp, "MAC_ADDRESS", "MAC"),
    ] {
        let text = answer.to_string();
        yang.check("json", &text).unwrap_or_else(|e| panic!("{e}\n{answer:#}"));
        let broken = text.replace(good, bad);
        assert_ne!(broken, text, "{good}");
        assert!(yang.check("json", &broken).is_err(), "{bad} was let through");
    }
}

#[tokio::test]
async fn what_runs_is_read_by_openconfig_or_else_natively() {
    let server = GnmiServer::start(None).await;
    server.state().openconfig.insert("openconfig-interfaces:interfaces".into(), openconfig_interfaces());
    server.state().openconfig.insert("openconfig-lldp:lldp".into(), openconfig_lldp());
    let lldp = [("lldp_rem_sys_name", "node-1"), ("lldp_rem_port_id", "p0"), ("lldp_rem_port_desc", "p0")];
    server.put("APPL_DB", "LLDP_ENTRY_TABLE", "Ethernet0", &lldp);
    server.put(
        "APPL_DB",
        "PORT_TABLE",
        "Ethernet0",
        &[("oper_status", "up"), ("mtu", "9100"), ("speed", "40000")],
    );
    server.put("STATE_DB", "PORT_TABLE", "Ethernet0", &[("fec", "rs")]);
    server.put("COUNTERS_DB", "COUNTERS_PORT_NAME_MAP", "", &[("Ethernet0", "oid:0x1")]);
    server.put("COUNTERS_DB", "COUNTERS_QUEUE_NAME_MAP", "", &[("Ethernet0:3", "oid:0x2")]);
    server.put("COUNTERS_DB", "COUNTERS", "oid:0x1", &[("SAI_PORT_STAT_IF_IN_OCTETS", "77")]);
    server.put("COUNTERS_DB", "COUNTERS", "oid:0x2", &[("SAI_QUEUE_STAT_PACKETS", "5")]);
    let switch = driver(&server, "leaf-1");
    for models in [vec!["sonic-db", "openconfig-interfaces", "openconfig-lldp"], vec!["sonic-db"]] {
        server.state().models = models;
        let observed = switch.read().await.unwrap();
        let heard = &observed.neighbours[0];
        assert_eq!((heard.device.as_str(), heard.device_port.as_str()), ("node-1", "p0"));
        let link = &observed.links["Ethernet0"];
        assert_eq!(
            (link.up, link.speed_gbps, link.mtu_bytes, link.fec),
            (true, Some(40), Some(9100), Some(Fec::Rs))
        );
    }
    let counters = switch.counters().await.unwrap();
    assert_eq!(
        (counters.ports["Ethernet0"].rx_bytes, counters.ports["Ethernet0"].queues[&3].tx_packets),
        (77, 5)
    );
    assert_eq!(switch.discover().await.unwrap().host_name, "sonic");
}

#[tokio::test]
async fn the_engine_takes_back_what_cut_a_neighbour_off() {
    let server = GnmiServer::start(None).await;
    server.state().models = vec!["sonic-db"];
    let fabric = rack();
    for (port, far, _) in fabric.links_of(&"leaf-1".into()) {
        let fields = [("lldp_rem_sys_name", far.device.as_str()), ("lldp_rem_port_id", far.port.as_str())];
        server.put("APPL_DB", "LLDP_ENTRY_TABLE", port.as_str(), &fields);
    }
    let before = server.config();
    let options = Options {
        settle: Duration::from_millis(300),
        grace: Duration::from_millis(400),
        look_every: Duration::from_millis(50),
        between_waves: Duration::ZERO,
        ..Options::default()
    };
    let engine = Engine::new(fabric, [driver(&server, "leaf-1")], options);
    let plans = engine.plan().await.into_iter().map(|(name, plan)| (name, plan.unwrap())).collect();
    let watcher = server.clone();
    let cut = tokio::spawn(async move {
        let sets = watcher.state().sets;
        while watcher.state().sets == sets {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        watcher.delete("APPL_DB", "LLDP_ENTRY_TABLE", "Ethernet0");
    });
    let results = engine.apply(&plans).await;
    cut.await.unwrap();
    let error = results.values().next().unwrap().as_ref().unwrap_err();
    assert!(matches!(error.cause, Cause::LostNeighbours { back: WayBack::Done, .. }), "{error}");
    assert_eq!(server.config(), before);
}

#[tokio::test]
async fn each_status_has_one_plain_message() {
    let server = GnmiServer::start(None).await;
    let switch = driver(&server, "leaf-1");
    let plan = planned(&*switch, &wanted(&rack(), "leaf-1")).await;
    let before = server.config();
    for (call, code, said) in [
        ("Set", Code::Unimplemented, "upgrade the switch"),
        ("Set", Code::InvalidArgument, "the switch rejected the Set: because"),
        ("Set", Code::Internal, "the switch rejected the Set: because"),
        ("Set", Code::Aborted, "someone else changed the configuration"),
        ("Set", Code::PermissionDenied, "user 'basalt' may not Set"),
        ("Set", Code::Unauthenticated, "refused the credentials of user 'basalt'"),
        ("Set", Code::ResourceExhausted, "limits our rate"),
        ("Set", Code::DeadlineExceeded, "no answer to 'Set' within 10 s"),
        ("Set", Code::Unavailable, "no connection to 127.0.0.1"),
        ("Get", Code::Unimplemented, "upgrade the switch"),
        ("Capabilities", Code::Unimplemented, "upgrade the switch"),
    ] {
        server.state().fail = Some((call, code, format!("because of basalt:{SECRET}")));
        let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(said), "{code:?}: {text}");
        assert!(!format!("{error:?}").contains(SECRET), "{text}");
        assert_eq!(server.config(), before);
    }
    server.state().fail = None;
    // All of a Set or nothing.
    server.state().refuse = Some("WRED_PROFILE");
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(error.to_string().contains("WRED_PROFILE does not validate"), "{error}");
    assert_eq!(server.config(), before);
}

#[tokio::test]
async fn other_versions_wrong_passwords_and_silence() {
    let server = GnmiServer::start(None).await;
    let mut wrong = settings(&server, "leaf-1");
    wrong.secret = Secret::new("not-the-password");
    let error = drivers::connect(wrong).unwrap().discover().await.unwrap_err();
    assert_eq!(error.cause, Cause::Unauthorised { user: "basalt".into() });

    server.state().models = vec!["openconfig-interfaces"];
    let error = driver(&server, "leaf-1").discover().await.unwrap_err();
    assert!(
        matches!(&error.cause, Cause::VersionMismatch { needed, .. } if needed.contains("sonic-db")),
        "{error}"
    );
    server.state().models = vec!["sonic-db"];
    server.state().encodings = vec![];
    let error = driver(&server, "leaf-1").discover().await.unwrap_err();
    assert!(error.to_string().contains("without JSON_IETF"), "{error}");
    server.state().encodings = vec![sonic_support::gnmi_server::json_ietf()];

    // Limited once, then served: the retry is ours.
    server.state().fail = Some(("Get", Code::ResourceExhausted, "too many requests".into()));
    let mut patient = settings(&server, "leaf-1");
    patient.retry =
        RetryPolicy { attempts: 3, first_pause: Duration::from_millis(20), ..RetryPolicy::default() };
    let error = drivers::connect(patient).unwrap().discover().await.unwrap_err();
    assert!(matches!(error.cause, Cause::RateLimited { attempts: 3, .. }), "{error}");
    server.state().fail = None;

    let mut small = settings(&server, "leaf-1");
    small.limits.body_bytes = 1000;
    let error = drivers::connect(small).unwrap().read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::ReplyTooLarge { limit_bytes: 1000, .. }), "{error}");

    server.state().delay = Duration::from_secs(3);
    let mut hasty = settings(&server, "leaf-1");
    hasty.limits.request = Duration::from_millis(200);
    let error = drivers::connect(hasty).unwrap().discover().await.unwrap_err();
    assert!(matches!(error.cause, Cause::TimedOut { .. }), "{error}");

    let mut nobody = settings(&server, "leaf-1");
    nobody.port = 1;
    let error = drivers::connect(nobody).unwrap().discover().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn half_an_answer_is_named_and_nothing_concluded() {
    let server = GnmiServer::start(None).await;
    // A message of 256 bytes is announced (gRPC over HTTP/2, "Length-Prefixed-Message"), and 20 come.
    let mut half = vec![0, 0, 0, 1, 0];
    half.extend([7; 20]);
    server.state().raw = Some(half);
    let error = driver(&server, "leaf-1").read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::PartialReply { got_bytes: 1.., .. }), "{error}");
}

/// A change outlasts a restart only if the switch saves it, and the driver cannot ask for that: whoever applies is told.
#[tokio::test]
async fn what_is_left_to_do_by_hand_is_said() {
    let server = GnmiServer::start(None).await;
    let switch = driver(&server, "leaf-1");
    let desired = wanted(&rack(), "leaf-1");
    let said = |plan: &basalt_switch_api::plan::Plan| plan.to_string().contains("sudo config save -y");
    let plan = planned(&*switch, &desired).await;
    assert!(said(&plan) && plan.to_string().contains("save_on_set"), "{plan}");
    assert!(switch.to_last().is_some());
    for table in ["GNMI", "TELEMETRY"] {
        server.put("CONFIG_DB", table, "gnmi", &[("save_on_set", "true")]);
        let plan = planned(&*switch, &desired).await;
        assert!(!said(&plan) && switch.to_last().is_none(), "{plan}");
        server.put("CONFIG_DB", table, "gnmi", &[("save_on_set", "false")]);
    }
    let pending = switch.apply(&plan, OPTIONS).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let left = planned(&*switch, &desired).await;
    assert!(left.is_empty() && !said(&left), "nothing to do, nothing to save: {left}");
}

fn certificate() -> (rcgen::CertifiedKey<rcgen::KeyPair>, TlsAcceptor) {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let secret = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], secret)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (key, TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test]
async fn tls_proves_the_switch() {
    let (key, acceptor) = certificate();
    let server = GnmiServer::start(Some(acceptor)).await;
    let file = std::env::temp_dir().join(format!("basalt-gnmi-ca-{}.pem", std::process::id()));
    std::fs::write(&file, key.cert.pem()).unwrap();
    let with = |trust: Trust| {
        let mut settings = settings(&server, "leaf-1");
        settings.trust = trust;
        drivers::connect(settings).unwrap()
    };
    let named = |name: &str| Trust::Ca { file: file.clone(), server_name: Some(name.to_owned()) };
    assert_eq!(with(named("localhost")).discover().await.unwrap().host_name, "sonic");
    assert_eq!(with(Trust::Insecure).discover().await.unwrap().host_name, "sonic");
    for trust in [named("leaf-2"), Trust::Pin(Fingerprint([7; 32]))] {
        let error = with(trust).discover().await.unwrap_err();
        assert!(matches!(error.cause, Cause::Tls { .. }), "{error}");
    }
    let error = with(Trust::Plaintext).discover().await.unwrap_err();
    assert!(error.cause.is_transient(), "{error}");
    std::fs::remove_file(file).ok();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn arbitrary_replies_never_panic(reply in proptest::collection::vec(any::<u8>(), 0..64)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = GnmiServer::start(None).await;
            server.state().raw = Some(reply);
            let mut settings = settings(&server, "leaf-1");
            settings.limits.request = Duration::from_millis(200);
            prop_assert!(drivers::connect(settings).unwrap().discover().await.is_err());
            Ok(())
        })?;
    }

    /// Well-formed messages with nonsense in them: read as something, or refused.
    #[test]
    fn nonsense_in_tables_never_panics(text in "[ -~]{0,6}", number in any::<i64>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = GnmiServer::start(None).await;
            let mut config = sonic_support::factory();
            for table in ["PORT", "QUEUE", "PORT_QOS_MAP", "BREAKOUT_CFG", "VLAN", "INTERFACE"] {
                for row in config[table].as_object_mut().unwrap().values_mut() {
                    let fields = row.as_object_mut().unwrap();
                    fields.values_mut().enumerate().for_each(|(i, value)| {
                        *value = if i % 2 == 0 { json!(text) } else { json!([number, null, {"a": text}]) };
                    });
                }
                config[table][&text] = json!(number);
            }
            server.load(&config);
            driver(&server, "leaf-1").read().await.ok();
        });
    }
}

/// pygnmi in a virtual environment beside the build; none where PyPI cannot be reached.
fn pygnmi() -> Option<PathBuf> {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let venv = target.join("venv-pygnmi");
    let python = venv.join("bin/python");
    let run = |program: &std::path::Path, arguments: &[&str]| {
        std::process::Command::new(program).args(arguments).output().is_ok_and(|o| o.status.success())
    };
    if run(&python, &["-c", "import pygnmi.client"]) {
        return Some(python);
    }
    let made = run("python3".as_ref(), &["-m", "venv", venv.to_str()?]);
    let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "pygnmi==0.8.15"];
    (made && run(&python, &quiet)).then_some(python)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_client_holds_the_server_to_the_protocol() {
    let Some(python) = tokio::task::spawn_blocking(pygnmi).await.unwrap() else {
        eprintln!("skipped: pygnmi cannot be installed from PyPI");
        return;
    };
    let server = GnmiServer::start(None).await;
    server.state().openconfig.insert("openconfig-interfaces:interfaces".into(), openconfig_interfaces());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sonic_support/pygnmi_client.py");
    let mut command = tokio::process::Command::new(python);
    command.arg(script).arg(server.port.to_string()).arg(SECRET);
    let output = command.output().await.unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let config = server.config();
    assert_eq!(config["PORT"]["Ethernet0"]["mtu"], "9100");
    assert_eq!(config["VLAN"]["Vlan77"]["vlanid"], "77");
    assert!(config["VLAN"].get("Vlan1000").is_none());
    // The driver reads what the other client wrote.
    let state = driver(&server, "leaf-1").read().await.unwrap().state;
    assert_eq!(state.port(&"Ethernet0".into()).unwrap().mtu_bytes, Some(9100));
}
