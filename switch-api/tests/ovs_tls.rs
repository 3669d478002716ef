//! The Open vSwitch driver by TLS with a real ovsdb-server, which shows a certificate and wants to see ours (`ssl:`, as
//! ovsdb-server(1) has it): a CA is made here, a wrong one is refused, and each way to fail has one message.

use basalt_switch_api::connection::Connection;
use basalt_switch_api::intent::Fabric;
use basalt_switch_api::{Cause, Switch, SwitchError, drivers};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Debian keeps daemons out of a user's search path.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
    command
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `NAME.pem` and `NAME.key`.
    fn sign(&self, folder: &Path, name: &str, subject: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![subject.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let files = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&files.1, std::fs::Permissions::from_mode(0o600)).unwrap();
        files
    }
}

/// A database of one bridge; gone with its folder when dropped.
struct Database {
    folder: PathBuf,
    child: Child,
    port: u16,
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// `more`: options besides; `remote` with port 0, so that the kernel chooses.
fn database(name: &str, remote: &str, ours: &Authority) -> Database {
    let folder = std::env::temp_dir().join(format!("basalt-ovs-tls-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, ours.0.pem()).unwrap();
    let (certificate, key) = ours.sign(&folder, "switch", "127.0.0.1");
    let file = folder.join("conf.db");
    let made = program("ovsdb-tool")
        .arg("create")
        .arg(&file)
        .arg("/usr/share/openvswitch/vswitch.ovsschema")
        .status();
    assert!(made.expect("Open vSwitch is there (tests/setup fabric installs it)").success());
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let socket = format!("unix:{}", text(&folder.join("db.sock")));
    let child = program("ovsdb-server")
        .arg(&file)
        .arg(format!("--remote=p{socket}"))
        .arg(format!("--remote={remote}"))
        .args([format!("--private-key={}", text(&key)), format!("--certificate={}", text(&certificate))])
        .arg(format!("--ca-cert={}", text(&ca)))
        .args(["-vconsole:info", "--unixctl=none"])
        .envs([("OVS_RUNDIR", &folder), ("OVS_LOGDIR", &folder), ("OVS_DBDIR", &folder)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut database = Database { folder, child, port: 0 };
    let begin = Instant::now();
    while database.port == 0 {
        let log = std::fs::read_to_string(database.folder.join("log")).unwrap();
        let port = log.split("listening on port ").nth(1).and_then(|rest| rest.split_whitespace().next());
        database.port = port.and_then(|port| port.parse().ok()).unwrap_or(0);
        assert!(begin.elapsed() < Duration::from_secs(20), "{log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let bridge = ["--no-wait", "--timeout=10", "init", "--", "add-br", "br0"];
    let made = program("ovs-vsctl").arg(format!("--db={socket}")).args(bridge).status().unwrap();
    assert!(made.success());
    database
}

/// By way of `fabric.yaml`, as everybody comes.
fn switch(database: &Database, tls: &str) -> Result<Arc<dyn Switch>, SwitchError> {
    let yaml = format!(
        "version: 1\nname: t\nroce: {{enabled: false}}\nswitches:\n  - {{name: s1, role: leaf, driver: ovs, management: {{address: 127.0.0.1, port: {}, timeout_s: 5, tls: {{{tls}}}}}}}\n",
        database.port
    );
    let fabric = Fabric::from_yaml(&yaml).unwrap_or_else(|e| panic!("{e}"));
    let mut connection = Connection::of(&fabric, &fabric.switches[0])?;
    connection.retry.attempts = 1;
    drivers::connect(connection)
}

async fn refused(database: &Database, tls: &str) -> Cause {
    let error = switch(database, tls).unwrap().discover().await.unwrap_err();
    let said = error.to_string();
    assert!(!said.contains('\n') && said.contains(&format!("127.0.0.1:{}", database.port)), "{said}");
    error.cause
}

#[tokio::test]
async fn a_real_server_and_we_believe_each_other_by_a_ca() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let database = database("mutual", "pssl:0:127.0.0.1", &ours);
    let folder = &database.folder;
    let (certificate, key) = ours.sign(folder, "basalt", "basalt");
    let own = format!("certificate_file: {}, key_file: {}", text(&certificate), text(&key));
    let ca = format!("ca_file: {}", text(&folder.join("ca.pem")));
    let identity = switch(&database, &format!("{ca}, {own}")).unwrap().discover().await.unwrap();
    assert_eq!(
        (identity.vendor.as_str(), identity.model.as_str()),
        ("Open vSwitch", "br0 (kernel datapath)")
    );
    switch(&database, &format!("{ca}, {own}")).unwrap().read().await.unwrap();

    // A CA that has not signed it.
    let other = folder.join("theirs.pem");
    std::fs::write(&other, theirs.0.pem()).unwrap();
    let cause = refused(&database, &format!("ca_file: {}, {own}", text(&other))).await;
    assert!(matches!(&cause, Cause::Tls { reason, .. } if reason.contains("UnknownIssuer")), "{cause}");
    assert!(cause.to_string().contains("set management.tls.ca_file"), "{cause}");
    // Another name than the certificate's.
    let cause = refused(&database, &format!("{ca}, server_name: s2.example.org, {own}")).await;
    assert!(matches!(&cause, Cause::Tls { reason, .. } if reason.contains("not valid for name")), "{cause}");

    // Without a certificate of ours, and with one that the server's CA has not signed.
    let (foreign, foreign_key) = theirs.sign(folder, "foreign", "basalt");
    let foreign = format!("certificate_file: {}, key_file: {}", text(&foreign), text(&foreign_key));
    for tls in [ca.clone(), format!("{ca}, {foreign}")] {
        let cause = refused(&database, &tls).await;
        assert!(matches!(cause, Cause::OwnCertificate { .. }), "{tls}: {cause}");
        assert!(cause.to_string().contains("management.tls.certificate_file"), "{cause}");
    }

    // No TLS where it is wanted.
    let error = switch(&database, "plaintext: true").unwrap().discover().await.unwrap_err();
    let said =
        matches!(error.cause, Cause::PartialReply { .. } | Cause::BadReply { .. } | Cause::TimedOut { .. });
    assert!(said, "{error}");

    // A key that others can read is not used, one that is another's neither.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = switch(&database, &format!("{ca}, {own}")).err().unwrap().to_string();
    assert!(error.contains("basalt.key") && error.contains("chmod 600"), "{error}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mixed = format!("{ca}, certificate_file: {}, key_file: {}", text(&certificate), text(&foreign_key));
    let error = switch(&database, &mixed).unwrap().discover().await.unwrap_err().to_string();
    assert!(error.contains("certificate_file") && error.contains("does not fit its key"), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let ours = Authority::new("ours");
    let database = database("plain", "ptcp:0:127.0.0.1", &ours);
    switch(&database, "plaintext: true").unwrap().discover().await.unwrap();
    let ca = format!("ca_file: {}", text(&database.folder.join("ca.pem")));
    let error = switch(&database, &ca).unwrap().discover().await.unwrap_err();
    assert!(matches!(error.cause, Cause::Tls { .. }), "{error}");
}
