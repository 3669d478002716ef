//! What an operator does wrong, or a network has in it: one clear message each, and nothing else touched.

use crate::common::{client, connection, limits, system_path};
use basalt_redfish::discovery::{ProbeOptions, presented_certificate, probe_all};
use basalt_redfish::{Auth, Bmc, Cause, Client, Connection, Credentials, Fingerprint, PowerAction, Trust};
use basalt_redfish_emulator::{Emulator, Fault, Options, Tls, vendors};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::net::TcpListener;

#[tokio::test]
async fn a_wrong_password_is_tried_once() {
    for auth in [Auth::Auto, Auth::Basic, Auth::Session] {
        let emulator =
            Emulator::start_with(vendors::plain(1), Options { lock_after: 2, ..Options::default() }).await;
        let credentials = Credentials::new("root", "wrong");
        let client = Client::new(Connection { credentials, auth, ..connection(&emulator) }).unwrap();
        let error = client.systems().await.unwrap_err();
        assert!(matches!(&error.cause, Cause::Unauthorised { user } if user == "root"), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
        assert_eq!(emulator.resource("/redfish/v1/Systems/1").unwrap()["PowerState"], "Off");
        let good = crate::common::client(&emulator);
        assert_eq!(good.systems().await.unwrap().len(), 1, "not locked by one try ({auth:?})");
    }
}

#[tokio::test]
async fn a_locked_account_is_called_locked() {
    let emulator = Emulator::start(vendors::plain(1)).await;
    emulator.lock_account();
    let error = client(&emulator).systems().await.unwrap_err();
    assert!(matches!(error.cause, Cause::AccountLocked { .. }), "{error}");
    let seen = emulator.seen();
    assert_eq!(seen.iter().filter(|seen| seen.status == 401).count(), 1, "{seen:?}");
}

#[tokio::test]
async fn certificates_pinned_changed_expired_and_by_a_ca() {
    let tls = |tls| Options { tls, ..Options::default() };
    let emulator = Emulator::start_with(vendors::plain(1), tls(Tls::On)).await;
    let at = |trust| Connection { trust, ..connection(&emulator) };
    let pin = presented_certificate("127.0.0.1", emulator.port(), Duration::from_secs(10)).await.unwrap();
    assert_eq!(pin, Fingerprint::of(&emulator.certificate_der().unwrap()));
    let pinned = Client::new(at(Trust::Pin(pin))).unwrap();
    assert_eq!(pinned.systems().await.unwrap().len(), 1);

    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("redfish-ca-{}.pem", std::process::id()));
    std::fs::write(&file, emulator.ca_pem().unwrap()).unwrap();
    let ca = || Trust::Ca { file: file.clone(), server_name: None };
    assert_eq!(Client::new(at(ca())).unwrap().systems().await.unwrap().len(), 1);

    emulator.change_certificate();
    let requests = emulator.requests();
    let error = Client::new(at(Trust::Pin(pin))).unwrap().systems().await.unwrap_err();
    let now = Fingerprint::of(&emulator.certificate_der().unwrap()).to_string();
    assert!(matches!(&error.cause, Cause::CertificateChanged { presented } if *presented == now), "{error}");
    let error = Client::new(at(ca())).unwrap().systems().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Tls { .. }), "{error}");
    assert_eq!(emulator.requests(), requests, "nothing is said to a stranger");

    let old = Emulator::start_with(vendors::plain(1), tls(Tls::Expired)).await;
    std::fs::write(&file, old.ca_pem().unwrap()).unwrap();
    let expired = Connection { trust: ca(), ..connection(&old) };
    let error = Client::new(expired).unwrap().systems().await.unwrap_err();
    assert!(matches!(error.cause, Cause::CertificateExpired { .. }), "{error}");
    std::fs::remove_file(&file).unwrap();
    let error = Client::new(Connection { trust: ca(), ..connection(&old) }).err().unwrap();
    assert!(error.to_string().contains("CA file"), "{error}");
}

#[tokio::test]
async fn another_server_is_not_touched() {
    let (dell, _) = vendors::dell(7);
    for (tree, right) in [(vendors::plain(7), "CN00000007"), (dell, "ST00007")] {
        let emulator = Emulator::start(tree).await;
        let with = |serial: &str| {
            let expected_serial = Some(serial.to_owned());
            Client::new(Connection { expected_serial, ..connection(&emulator) }).unwrap()
        };
        let other = with("XX1");
        let path = system_path(&other).await;
        let error = other.power(&path, PowerAction::On).await.unwrap_err();
        assert!(matches!(&error.cause, Cause::WrongServer { expected, .. } if expected == "XX1"), "{error}");
        assert!(other.set_indicator(&path, true).await.is_err());
        assert!(emulator.boots().is_empty());
        with(right).power(&path, PowerAction::On).await.unwrap();
        assert_eq!(emulator.boots().len(), 1);
    }
}

#[tokio::test]
async fn other_devices_of_a_subnet_are_passed_over() {
    // Nobody, a web server that is no BMC, something that does not speak HTTP, something that says nothing, and a BMC, on one port.
    let silent = TcpListener::bind(("127.0.0.7", 0)).await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let at = async |last: u8| TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await.unwrap();
    let web = Emulator::start_on(at(8).await, vendors::plain(1), Options::default());
    web.faults("GET", Fault::Body("<html>a printer</html>".to_owned()), usize::MAX);
    let ssh = Emulator::start_on(at(9).await, vendors::plain(1), Options::default());
    ssh.faults("CONNECT", Fault::Noise, usize::MAX);
    let bmc = Emulator::start_on(at(10).await, vendors::plain(3), Options::default());
    let range: basalt_redfish::discovery::AddressRange = "127.0.0.5-12".parse().unwrap();
    let options = ProbeOptions {
        port,
        plaintext: true,
        patience: Duration::from_millis(1500),
        ..ProbeOptions::default()
    };
    let found = probe_all(range.addresses(), &options).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].address, IpAddr::from([127, 0, 0, 10]));
    assert_eq!(found[0].service.vendor.as_deref(), Some("Contoso"));
    assert!(
        bmc.seen().iter().all(|seen| seen.method == "GET" && seen.path == "/redfish/v1/"),
        "looked at, no more"
    );
}

#[tokio::test]
async fn what_is_no_bmc_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let nobody = Connection {
        port,
        limits: limits(),
        ..Connection::new("127.0.0.1", Credentials::default(), Trust::Plaintext)
    };
    let error = Client::new(nobody).unwrap().systems().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Unreachable { .. }), "{error}");
    let emulator = Emulator::start(vendors::plain(1)).await;
    for (fault, expected) in [
        (Fault::Body("{}".to_owned()), "no Redfish service"),
        (Fault::Status(404, String::new()), "no Redfish service"),
        (Fault::Body("<html>".to_owned()), "is this really a Redfish service?"),
    ] {
        emulator.fault("GET", fault);
        let error = client(&emulator).systems().await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}
