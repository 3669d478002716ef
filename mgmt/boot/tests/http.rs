//! The HTTP server as firmware, iPXE and nodes see it.

mod common;

use basalt_boot::decision::{Action, Decision, Decisions};
use basalt_boot::event::{Events, Step};
use basalt_boot::node::NodeId;
use basalt_boot::now_s;
use basalt_boot::token::{Tokens, Use};
use common::{Running, answer, ask, get, start};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MAC: &str = "52:54:00:00:00:01";

async fn decide(running: &Running, action: Action, version: Option<&str>) {
    let node: NodeId = MAC.parse().unwrap();
    let decision = Decision {
        node,
        action,
        version: version.map(str::to_owned),
        disk: None,
        wipe: false,
        note: String::new(),
        decided_s: now_s(),
    };
    running.store.decide(decision).await.unwrap();
}

async fn steps(running: &Running) -> Vec<(Step, String)> {
    // Events of transfers come a moment after their last byte.
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.store.recent(None, 100).await.unwrap().into_iter().map(|e| (e.step, e.detail)).collect()
}

#[tokio::test]
async fn files_and_ranges() {
    let running = start("files", Action::Diskless, None).await;
    let whole = std::fs::read(running.dir.join("images/basalt_1.10.0.root")).unwrap();
    let path = "/boot/v1/files/basalt_1.10.0.root";
    let all = get(running.http, path).await;
    assert_eq!((all.status, all.body == whole), (200, true));
    assert!(all.head.contains("accept-ranges: bytes") && all.head.contains("content-length: 4000000"));
    // Firmware that doubles slashes gets the file, not a redirection.
    let doubled = get(running.http, "//boot/v1//files/basalt_1.10.0.root").await;
    assert_eq!((doubled.status, doubled.body.len()), (200, whole.len()));
    let head = ask(running.http, "HEAD", path, "", "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert!(head.head.contains("content-length: 4000000"));
    let tag = head.head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().to_owned();
    for (range, first, count) in
        [("bytes=0-9", 0, 10), ("bytes=300000-600000", 300_000, 300_001), ("bytes=-5", 3_999_995, 5)]
    {
        let part =
            ask(running.http, "GET", path, &format!("Range: {range}\r\nIf-Range: {tag}\r\n"), "").await;
        assert_eq!((part.status, &part.body[..]), (206, &whole[first..first + count]), "{range}");
        assert!(
            part.head.contains(&format!("content-range: bytes {first}-{}/4000000", first + count - 1)),
            "{}",
            part.head
        );
    }
    let stale = ask(running.http, "GET", path, "Range: bytes=0-9\r\nIf-Range: \"other\"\r\n", "").await;
    assert_eq!((stale.status, stale.body.len()), (200, whole.len()));
    let beyond = ask(running.http, "GET", path, "Range: bytes=4000000-\r\n", "").await;
    assert_eq!((beyond.status, beyond.head.contains("content-range: bytes */4000000")), (416, true));
    for (path, status) in [
        ("/boot/v1/files/basalt_9.9.9.root", 404),
        ("/boot/v1/files/../boot/tokens.json", 404),
        ("/boot/v1/files/%2e%2e%2fboot%2ftokens.json", 404),
        ("/boot/v1/files/", 405),
        ("/", 404),
        ("/etc/passwd", 404),
    ] {
        assert_eq!(get(running.http, path).await.status, status, "{path}");
    }
    assert_eq!(ask(running.http, "DELETE", path, "", "").await.status, 405);
}

#[tokio::test]
async fn each_decision_gets_its_script() {
    let running = start("scripts", Action::Quarantine, None).await;
    let start = get(running.http, "/autoexec.ipxe").await.text();
    assert!(
        start.contains(&format!(
            "chain --replace http://{}/boot/v1/script.ipxe?mac=${{netX/mac}}",
            running.http
        )),
        "{start}"
    );
    let script = async |platform: &str| {
        get(running.http, &format!("/boot/v1/script.ipxe?mac=52%3A54%3A00:00:00:01&platform={platform}"))
            .await
            .text()
    };
    assert!(script("pcbios").await.contains("nothing was decided for this node"));
    decide(&running, Action::Diskless, None).await;
    let bios = script("pcbios").await;
    assert!(
        bios.contains("basalt_1.10.0.vmlinuz quiet basalt.root=ab:1:cd basalt.boot=http://127.0.0.1:"),
        "{bios}"
    );
    assert!(script("efi").await.contains("chain http://127.0.0.1:"));
    decide(&running, Action::Install, Some("1.0.0")).await;
    assert!(script("pcbios").await.contains("basalt_1.0.0.vmlinuz"));
    decide(&running, Action::Install, Some("7.7.7")).await;
    assert!(script("pcbios").await.contains("version 7.7.7 has no image"));
    decide(&running, Action::Local, None).await;
    assert!(script("pcbios").await.contains("sanboot"));
    let seen: Vec<Step> =
        steps(&running).await.into_iter().map(|s| s.0).filter(|s| *s != Step::Decided).collect();
    assert_eq!(
        seen,
        [Step::Ignored, Step::Script, Step::Script, Step::Script, Step::Failed, Step::Script, Step::Script]
    );
}

#[tokio::test]
async fn uefi_http_boot_gets_the_image_that_was_decided_for_its_address() {
    let running = start("uefi", Action::Diskless, None).await;
    let image = get(running.http, "/boot/v1/uefi.efi").await;
    assert_eq!((image.status, image.body.len()), (200, 4_000_000));
    assert!(image.head.contains("content-type: application/efi"));
    // The node at this address says who it is once; then its own decision counts.
    decide(&running, Action::Install, Some("1.0.0")).await;
    get(running.http, &format!("/boot/v1/script.ipxe?mac={MAC}&platform=efi")).await;
    assert_eq!(get(running.http, "/boot/v1/uefi.efi").await.body, b"old");
    decide(&running, Action::Quarantine, None).await;
    let refused = get(running.http, "/boot/v1/uefi.efi").await;
    assert_eq!((refused.status, refused.text().contains("quarantine was decided")), (404, true));
    let seen = steps(&running).await;
    assert!(seen.contains(&(Step::Fetching, "basalt_1.10.0-netboot.efi".into())), "{seen:?}");
    assert!(seen.contains(&(Step::Fetched, "basalt_1.10.0-netboot.efi".into())), "{seen:?}");
    assert!(seen.contains(&(Step::Ignored, "no image over HTTP: quarantine".into())), "{seen:?}");
}

#[tokio::test]
async fn plan_and_tokens() {
    let running = start("plan", Action::Quarantine, None).await;
    let plan = format!("/boot/v1/plan?mac={MAC}&uuid=00000000-0000-0000-0000-000000000001");
    assert_eq!(get(running.http, "/boot/v1/plan").await.status, 400);
    let refused = get(running.http, &plan).await;
    assert_eq!((refused.status, refused.text().contains("quarantine")), (403, true));
    decide(&running, Action::Install, None).await;
    let read = async |path: &str| -> serde_json::Value {
        serde_json::from_slice(&get(running.http, path).await.body).unwrap()
    };
    let first = read(&plan).await;
    assert_eq!((first["action"].as_str(), first["version"].as_str()), (Some("install"), Some("1.10.0")));
    assert!(first["files"]["root"].as_str().unwrap().ends_with("/boot/v1/files/basalt_1.10.0.root"));
    // Power cut before joining: the next boot gets a new token, the old one is worthless.
    let second = read(&plan).await;
    let (old, token) = (first["token"].as_str().unwrap(), second["token"].as_str().unwrap());
    let node: NodeId = MAC.parse().unwrap();
    running.store.redeem(old, Use::Join, &node, now_s()).await.unwrap_err();
    running.store.redeem(token, Use::Join, &node, now_s()).await.unwrap();
    running.store.redeem(token, Use::Join, &node, now_s()).await.unwrap_err();
    // A node that nobody decided about and that brings a token is expected.
    let (brought, _) = running.store.make(None, now_s(), 60).await.unwrap();
    let stranger = read(&format!("/boot/v1/plan?mac=52:54:00:00:00:09&token={brought}")).await;
    assert_eq!(
        (stranger["action"].as_str(), stranger["token"].as_str()),
        (Some("diskless"), Some(&brought[..]))
    );
    let stolen = get(running.http, &format!("/boot/v1/plan?mac=52:54:00:00:00:0a&token={brought}")).await;
    assert_eq!((stolen.status, stolen.text().contains("belongs to another node")), (403, true));
}

/// The disk to install on is in the plan; when the node says that it is done, the answer comes after the decision has changed.
#[tokio::test]
async fn an_installation_is_planned_once() {
    let running = start("install", Action::Quarantine, None).await;
    let node: NodeId = MAC.parse().unwrap();
    let decision = Decision {
        node,
        action: Action::Install,
        version: Some("1.10.0".into()),
        disk: Some("S1".into()),
        wipe: true,
        note: String::new(),
        decided_s: 5,
    };
    running.store.decide(decision).await.unwrap();
    let uuid = "00000000-0000-0000-0000-000000000001";
    let plan = async |more: &str| -> serde_json::Value {
        let path = format!("/boot/v1/plan?mac={MAC}&uuid={uuid}{more}");
        serde_json::from_slice(&get(running.http, &path).await.body).unwrap()
    };
    let first = plan("").await;
    assert_eq!(
        (&first["action"], &first["disk"], &first["wipe"]),
        (&"install".into(), &"S1".into(), &true.into())
    );
    assert_eq!((&first["decided_s"], &first["pinned"]), (&5.into(), &true.into()));
    let events = steps(&running).await.len();
    let again = plan("&again=1").await;
    assert_eq!((&again["action"], again["token"].is_null()), (&"install".into(), true));
    assert_eq!(steps(&running).await.len(), events, "looking again is no step of a boot");
    let body = format!(r#"{{"mac":"{MAC}","uuid":"{uuid}","step":"installed","detail":"Basalt 1.10.0"}}"#);
    assert_eq!(ask(running.http, "POST", "/boot/v1/events", "", &body).await.status, 204);
    let after = plan("").await;
    assert_eq!((&after["action"], &after["version"]), (&"local".into(), &"1.10.0".into()));
    assert_eq!((after["disk"].is_null(), &after["wipe"]), (true, &false.into()));
    let last = steps(&running).await;
    assert!(last.contains(&(Step::Decided, "local 1.10.0, since it has installed".into())), "{last:?}");
}

#[tokio::test]
async fn nodes_report_and_strangers_are_bounded() {
    let running = start("report", Action::Diskless, None).await;
    let post = async |body: &str| ask(running.http, "POST", "/boot/v1/events", "", body).await.status;
    assert_eq!(post(&format!(r#"{{"mac":"{MAC}","step":"ready","detail":"nfs=1.2.3.4"}}"#)).await, 204);
    assert_eq!(post(&format!(r#"{{"mac":"{MAC}","step":"failed","detail":"no\u001b drive"}}"#)).await, 204);
    for bad in [
        "",
        "{}",
        r#"{"step":"ready"}"#,
        &format!(r#"{{"mac":"{MAC}","step":"decided"}}"#),
        &"x".repeat(5000),
        &"[".repeat(4000),
    ] {
        assert_eq!(post(bad).await, 400, "{bad}");
    }
    assert_eq!(
        steps(&running).await,
        [(Step::Ready, "nfs=1.2.3.4".into()), (Step::Failed, "no  drive".into())]
    );
    // Headers beyond the bound, and no HTTP at all.
    for bytes in [
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000)),
        "\0\x01\x02nonsense\r\n\r\n".into(),
    ] {
        let mut stream = TcpStream::connect(running.http).await.unwrap();
        let _ = stream.write_all(bytes.as_bytes()).await;
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got).await;
        if !got.is_empty() {
            assert!((400..500).contains(&answer(got).status));
        }
    }
    assert_eq!(get(running.http, "/autoexec.ipxe").await.status, 200);
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_an_event() {
    let running = start("broken", Action::Diskless, None).await;
    let big = std::fs::File::create(running.dir.join("images/basalt_1.0.0.disk")).unwrap();
    big.set_len(200 << 20).unwrap();
    let mut stream = TcpStream::connect(running.http).await.unwrap();
    stream.write_all(b"GET /boot/v1/files/basalt_1.0.0.disk HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).await.unwrap();
    drop(stream);
    for _ in 0..100 {
        if steps(&running).await.contains(&(Step::FetchFailed, "basalt_1.0.0.disk".into())) {
            return;
        }
    }
    panic!("{:?}", steps(&running).await);
}

#[tokio::test]
async fn the_same_over_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let keys = std::env::temp_dir().join(format!("basalt-boot-tls-{}", std::process::id()));
    std::fs::create_dir_all(&keys).unwrap();
    std::fs::write(keys.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(keys.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let running = start("tls", Action::Diskless, Some((keys.join("cert.pem"), keys.join("key.pem")))).await;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(running.https.unwrap()).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream
        .write_all(b"GET /autoexec.ipxe HTTP/1.1\r\nHost: localhost:8443\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let answer = answer(bytes);
    assert_eq!(answer.status, 200);
    assert!(
        answer.text().contains("chain --replace https://localhost:8443/boot/v1/script.ipxe"),
        "{}",
        answer.text()
    );
    std::fs::remove_dir_all(keys).unwrap();
}
