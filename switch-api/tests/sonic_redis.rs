//! The Redis driver against a real Redis: CONFIG_DB as SONiC keeps it, and everything that can go wrong on the way there.

mod sonic_support;

use basalt_switch_api::connection::Connection;
use basalt_switch_api::engine::{Engine, Options};
use basalt_switch_api::intent::{DriverKind, Fec};
use basalt_switch_api::tls::{Fingerprint, Trust};
use basalt_switch_api::{Cause, Secret, Switch, drivers};
use proptest::prelude::*;
use redis::cmd;
use sonic_support::redis_server::RedisServer;
use sonic_support::{OPTIONS, Rows, SECRET, connection, planned, rack, wanted};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};

fn settings(server: &RedisServer, name: &str) -> Connection {
    connection(DriverKind::SonicRedis, name, &server.address(), 0)
}

fn driver(server: &RedisServer, name: &str) -> Arc<dyn Switch> {
    drivers::connect(settings(server, name)).unwrap()
}

#[tokio::test]
async fn leaves_and_spine_become_as_wanted_and_go_back() {
    let server = RedisServer::start("apply");
    for name in ["leaf-1", "leaf-2", "spine-1"] {
        server.load(&sonic_support::factory());
        sonic_support::applies_and_takes_back(&*driver(&server, name), &server).await;
    }
}

#[tokio::test]
async fn drift_is_seen_and_mended() {
    let server = RedisServer::start("drift");
    sonic_support::sees_and_mends_drift(&*driver(&server, "leaf-1"), &server).await;
}

#[tokio::test]
async fn what_must_not_be_is_refused() {
    let server = RedisServer::start("refuse");
    sonic_support::refuses_what_it_must(&*driver(&server, "leaf-1"), &server).await;
}

#[tokio::test]
async fn ports_are_split_after_the_old_ones_are_gone() {
    let server = RedisServer::start("split");
    sonic_support::splits_ports(&*driver(&server, "leaf-1"), &server).await;

    // orchagent takes its time to let go of the port.
    server.load(&sonic_support::factory());
    server.put("APPL_DB", "PORT_TABLE", "Ethernet24", &[("oper_status", "up")]);
    let mut fabric = rack();
    let split = basalt_switch_api::intent::Breakout { port: "Ethernet24".into(), lanes: 2, speed_gbps: 50 };
    fabric.switches[0].breakout.push(split);
    let switch = driver(&server, "leaf-1");
    let stage = planned(&*switch, &wanted(&fabric, "leaf-1")).await.first_stage();
    let applying = tokio::spawn({
        let switch = Arc::clone(&switch);
        async move { switch.apply(&stage, OPTIONS).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(server.config()["PORT"].get("Ethernet24").is_none(), "deleted, and not yet made anew");
    server.delete("APPL_DB", "PORT_TABLE", "Ethernet24");
    applying.await.unwrap().unwrap();
    assert_eq!(server.config()["PORT"]["Ethernet26"]["lanes"], "26,27");
}

#[tokio::test]
async fn the_engine_applies_and_watches() {
    let server = RedisServer::start("engine");
    let fabric = rack();
    for (port, far, _) in fabric.links_of(&"leaf-1".into()) {
        let fields = [("lldp_rem_sys_name", far.device.as_str()), ("lldp_rem_port_id", far.port.as_str())];
        server.put("APPL_DB", "LLDP_ENTRY_TABLE", port.as_str(), &fields);
    }
    let options = Options {
        settle: Duration::from_millis(200),
        look_every: Duration::from_millis(50),
        between_waves: Duration::ZERO,
        ..Options::default()
    };
    let engine = Engine::new(fabric, [driver(&server, "leaf-1")], options);
    let plans = engine.plan().await.into_iter().map(|(name, plan)| (name, plan.unwrap())).collect();
    let results = engine.apply(&plans).await;
    assert!(results.values().all(|r| r.as_ref().is_ok_and(|a| a.findings.is_empty())), "{results:?}");
    let to_do = results.values().next().unwrap().as_ref().unwrap().to_do.clone().unwrap();
    assert!(to_do.contains("sudo config save -y") && !to_do.contains("save_on_set"), "{to_do}");
    assert!(engine.check().await.is_empty());
}

#[tokio::test]
async fn neighbours_links_counters_and_identity() {
    let server = RedisServer::start("observe");
    let lldp = [
        ("lldp_rem_sys_name", "node-1"),
        ("lldp_rem_port_id", "0c:42:a1:00:00:02"),
        ("lldp_rem_port_id_subtype", "3"),
        ("lldp_rem_port_desc", "p0"),
    ];
    server.put("APPL_DB", "LLDP_ENTRY_TABLE", "Ethernet0", &lldp);
    server.put("APPL_DB", "LLDP_ENTRY_TABLE", "eth0", &lldp);
    let port = [("oper_status", "up"), ("mtu", "9100"), ("speed", "100000")];
    server.put("APPL_DB", "PORT_TABLE", "Ethernet0", &port);
    server.put("STATE_DB", "PORT_TABLE", "Ethernet0", &[("speed", "40000"), ("fec", "rs")]);
    server.put("STATE_DB", "EEPROM_INFO", "0x23", &[("Value", "MT1822K07815"), ("Name", "Serial Number")]);
    server.put(
        "COUNTERS_DB",
        "COUNTERS_PORT_NAME_MAP",
        "",
        &[("Ethernet0", "oid:0x1"), ("PortChannel1", "oid:0x9")],
    );
    server.put("COUNTERS_DB", "COUNTERS_QUEUE_NAME_MAP", "", &[("Ethernet0:3", "oid:0x2")]);
    let counters = [
        ("SAI_PORT_STAT_IF_IN_OCTETS", "18446744073709551615"),
        ("SAI_PORT_STAT_IF_IN_UCAST_PKTS", "7"),
        ("SAI_PORT_STAT_PFC_3_RX_PKTS", "12"),
        ("SAI_PORT_STAT_IF_IN_FEC_CORRECTABLE_FRAMES", "N/A"),
    ];
    server.put("COUNTERS_DB", "COUNTERS", "oid:0x1", &counters);
    let queue =
        [("SAI_QUEUE_STAT_WRED_ECN_MARKED_PACKETS", "5"), ("PFC_WD_QUEUE_STATS_DEADLOCK_DETECTED", "1")];
    server.put("COUNTERS_DB", "COUNTERS", "oid:0x2", &queue);
    server.put("CONFIG_DB", "INTERFACE", "Ethernet28|192.0.2.11/24", &[]);

    let switch = driver(&server, "leaf-1");
    let observed = switch.read().await.unwrap();
    assert_eq!(observed.neighbours.len(), 1);
    let heard = &observed.neighbours[0];
    assert_eq!((heard.device.as_str(), heard.device_port.as_str()), ("node-1", "p0"));
    let link = &observed.links["Ethernet0"];
    assert_eq!(
        (link.up, link.speed_gbps, link.mtu_bytes, link.fec),
        (true, Some(40), Some(9100), Some(Fec::Rs))
    );
    let counters = switch.counters().await.unwrap();
    let port = &counters.ports["Ethernet0"];
    assert_eq!((port.rx_bytes, port.rx_packets, port.fec_corrected), (u64::MAX, 7, 0));
    let queue = &port.queues[&3];
    assert_eq!((queue.pfc_rx_frames, queue.ecn_marked_packets, queue.watchdog_storms), (12, 5, 1));
    let identity = switch.discover().await.unwrap();
    assert_eq!((identity.serial.as_str(), identity.host_name.as_str()), ("MT1822K07815", "sonic"));
    assert!(observed.management.is_empty());

    server.put("CONFIG_DB", "VERSIONS", "DATABASE", &[("VERSION", "version_1_0_4")]);
    let error = switch.discover().await.unwrap_err();
    assert!(matches!(error.cause, Cause::VersionMismatch { .. }), "{error}");
    server.delete("CONFIG_DB", "DEVICE_METADATA", "localhost");
    let error = switch.discover().await.unwrap_err();
    assert!(error.to_string().contains("is this really a SONiC switch?"), "{error}");
}

#[tokio::test]
async fn credentials_are_needed_and_never_shown() {
    let server = RedisServer::start("auth");
    let mut wrong = settings(&server, "leaf-1");
    wrong.secret = Secret::new("not-the-password");
    let error = drivers::connect(wrong).unwrap().read().await.unwrap_err();
    assert_eq!(error.cause, Cause::Unauthorised { user: "basalt".into() });
    assert!(!format!("{error} {error:?}").contains("not-the-password"));
    let mut none = settings(&server, "leaf-1");
    none.secret = Secret::default();
    let error = drivers::connect(none).unwrap().read().await.unwrap_err();
    assert_eq!(error.cause, Cause::Unauthorised { user: "basalt".into() });

    // A user of its own who may look and not touch.
    let mut admin = server.admin("CONFIG_DB");
    let rule = [
        "SETUSER",
        "basalt",
        "on",
        &format!(">{SECRET}x"),
        "~*",
        "+@read",
        "+select",
        "+watch",
        "+multi",
        "+exec",
    ];
    let _: () = cmd("ACL").arg(&rule[..]).query(&mut admin).unwrap();
    let mut reader = settings(&server, "leaf-1");
    reader.secret = Secret::new(format!("{SECRET}x"));
    let switch = drivers::connect(reader).unwrap();
    let before = server.config();
    let plan = planned(&*switch, &wanted(&rack(), "leaf-1")).await;
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Forbidden { .. }), "{error}");
    assert!(!format!("{error:?}").contains(SECRET));
    assert_eq!(server.config(), before, "nothing of the transaction is in force");
}

#[tokio::test]
async fn a_full_or_read_only_redis_says_so() {
    let server = RedisServer::start("full");
    let switch = driver(&server, "leaf-1");
    let plan = planned(&*switch, &wanted(&rack(), "leaf-1")).await;
    let mut admin = server.admin("CONFIG_DB");
    let _: () = cmd("CONFIG").arg(&["SET", "maxmemory", "1"]).query(&mut admin).unwrap();
    let before = server.config();
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Rejected { .. }), "{error}");
    assert_eq!(server.config(), before);
}

#[tokio::test]
async fn tls_proves_the_switch() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let port = free_port().await;
    let directory = std::env::temp_dir().join(format!("basalt-sonic-tls-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let (certificate, secret) = (directory.join("cert.pem"), directory.join("key.pem"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&secret, key.signing_key.serialize_pem()).unwrap();
    let paths = [certificate.to_str().unwrap(), secret.to_str().unwrap()];
    let server = RedisServer::with(
        "tls",
        &[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            paths[0],
            "--tls-key-file",
            paths[1],
            "--tls-ca-cert-file",
            paths[0],
            "--tls-auth-clients",
            "no",
        ],
    );
    let to = |trust: Trust, port: u16| {
        let mut settings = connection(DriverKind::SonicRedis, "leaf-1", "127.0.0.1", port);
        settings.trust = trust;
        drivers::connect(settings).unwrap()
    };
    let named = Trust::Ca { file: certificate.clone(), server_name: Some("localhost".into()) };
    assert_eq!(to(named, port).discover().await.unwrap().host_name, "sonic");
    let other = Trust::Ca { file: certificate.clone(), server_name: Some("leaf-2".into()) };
    for trust in [other, Trust::Pin(Fingerprint([7; 32]))] {
        let error = to(trust, port).discover().await.unwrap_err();
        assert!(matches!(error.cause, Cause::Tls { .. }), "{error}");
    }
    drop(server);
    let error = to(Trust::Insecure, port).discover().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable { .. }), "{error}");
    std::fs::remove_dir_all(directory).ok();
}

async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Stands between driver and Redis, and does something when the driver says `MULTI`.
#[derive(Clone, Copy)]
enum Meddle {
    /// Someone else writes first.
    Write,
    /// The answer to EXEC is lost.
    SwallowAnswer,
    /// The answer to the first request of rows breaks off.
    CutReply,
}

async fn meddler(server: Arc<RedisServer>, meddle: Meddle) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let far = UnixStream::connect(server.socket()).await.unwrap();
                let (mut near_in, mut near_out) = near.into_split();
                let (mut far_in, mut far_out) = far.into_split();
                let (tell, told) = tokio::sync::watch::channel(false);
                let answers = tokio::spawn(async move {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(n @ 1..) = far_in.read(&mut buffer).await {
                        if *told.borrow() {
                            if matches!(meddle, Meddle::CutReply) {
                                near_out.write_all(&buffer[..n / 2]).await.ok();
                            }
                            break;
                        }
                        if near_out.write_all(&buffer[..n]).await.is_err() {
                            break;
                        }
                    }
                });
                let mut buffer = vec![0; 1 << 16];
                let mut written = false;
                while let Ok(n @ 1..) = near_in.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
                    match meddle {
                        Meddle::Write if text.contains("MULTI") && !written => {
                            server.put("CONFIG_DB", "PORT", "Ethernet0", &[("mtu", "4000")]);
                            written = true;
                        }
                        Meddle::SwallowAnswer if text.contains("MULTI") => drop(tell.send(true)),
                        Meddle::CutReply if text.contains("HGETALL") => drop(tell.send(true)),
                        _ => {}
                    }
                    if far_out.write_all(&buffer[..n]).await.is_err() {
                        break;
                    }
                }
                answers.await.ok();
            });
        }
    });
    port
}

#[tokio::test]
async fn a_write_of_someone_else_is_a_conflict() {
    let server = Arc::new(RedisServer::start("race"));
    let port = meddler(Arc::clone(&server), Meddle::Write).await;
    let settings = connection(DriverKind::SonicRedis, "leaf-1", "127.0.0.1", port);
    let switch = drivers::connect(settings).unwrap();
    let plan = planned(&*switch, &wanted(&rack(), "leaf-1")).await;
    let mut expected = server.config();
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Conflict { .. }), "{error}");
    expected["PORT"]["Ethernet0"]["mtu"] = "4000".into();
    assert_eq!(server.config(), expected, "only the other's write is there");
}

#[tokio::test]
async fn a_lost_answer_is_transient_and_a_cut_one_named() {
    let server = Arc::new(RedisServer::start("lost"));
    let port = meddler(Arc::clone(&server), Meddle::SwallowAnswer).await;
    let settings = connection(DriverKind::SonicRedis, "leaf-1", "127.0.0.1", port);
    let switch = drivers::connect(settings).unwrap();
    let desired = wanted(&rack(), "leaf-1");
    let plan = planned(&*switch, &desired).await;
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(error.cause.is_transient(), "{error}");
    assert!(planned(&*switch, &desired).await.is_empty(), "it went through all the same");

    let port = meddler(Arc::clone(&server), Meddle::CutReply).await;
    let settings = connection(DriverKind::SonicRedis, "leaf-1", "127.0.0.1", port);
    let error = drivers::connect(settings).unwrap().read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::PartialReply { .. }), "{error}");
}

/// A server that answers everything with `reply`.
async fn parrot(reply: Vec<u8>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let reply = reply.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&reply).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

fn impatient(port: u16) -> Connection {
    let mut settings = connection(DriverKind::SonicRedis, "leaf-1", "127.0.0.1", port);
    settings.limits.request = Duration::from_millis(200);
    settings
}

#[tokio::test]
async fn silence_nonsense_and_floods_are_told_apart() {
    let error = drivers::connect(impatient(parrot(Vec::new()).await)).unwrap().read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::TimedOut { .. }), "{error}");
    let http = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec();
    let error = drivers::connect(impatient(parrot(http).await)).unwrap().read().await.unwrap_err();
    assert!(error.to_string().starts_with("leaf-1: "), "{error}");

    let server = RedisServer::start("flood");
    let mut settings = settings(&server, "leaf-1");
    settings.limits.body_bytes = 2000;
    let error = drivers::connect(settings).unwrap().read().await.unwrap_err();
    assert!(matches!(error.cause, Cause::ReplyTooLarge { limit_bytes: 2000, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever answers, there is an error and no panic.
    #[test]
    fn arbitrary_replies_never_panic(reply in prop_oneof![
        proptest::collection::vec(any::<u8>(), 1..64),
        "[+:*$%~-][0-9]{0,4}\r\n([+:*$-][0-9a-z]{0,4}\r\n){0,4}".prop_map(String::into_bytes),
    ]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut settings = impatient(parrot(reply).await);
            settings.limits.request = Duration::from_millis(40);
            let switch = drivers::connect(settings).unwrap();
            prop_assert!(switch.discover().await.is_err());
            Ok(())
        })?;
    }
}

/// Every row whose fields are nonsense is read as something, without a panic.
#[tokio::test]
async fn nonsense_in_rows_is_read() {
    let server = RedisServer::start("nonsense");
    let factory = sonic_support::factory();
    for value in ["", "-1", "x", "99999999999999999999", "4x4294967295G", "0,1,,,", "\u{0}|", "255x1G"] {
        for (table, rows) in factory.as_object().unwrap() {
            for (key, row) in rows.as_object().unwrap().iter().filter(|(key, _)| key.contains("Ethernet24")) {
                let fields: Vec<(&str, &str)> =
                    row.as_object().unwrap().keys().map(|f| (f.as_str(), value)).collect();
                server.put("CONFIG_DB", table, key, &fields);
            }
        }
        server.put("CONFIG_DB", "QUEUE", "Ethernet24|3-99999", &[("scheduler", value)]);
        server.put("CONFIG_DB", "MCLAG_DOMAIN", value, &[("source_ip", value)]);
        server.put("CONFIG_DB", "VLAN", &format!("Vlan{value}"), &[]);
        driver(&server, "leaf-1").read().await.unwrap();
    }
}
