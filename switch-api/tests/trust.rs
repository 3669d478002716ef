//! Whom a driver believes, against real TLS servers; where credentials come from; and that they never come out again.

use basalt_switch_api::connection::Connection;
use basalt_switch_api::intent::{CredentialsRef, DriverKind, Fabric, Tls};
use basalt_switch_api::tls::{self, Trust};
use basalt_switch_api::{Cause, drivers};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, crypto::ring};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const PASSWORD: &str = "correct-horse-battery-staple";

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("basalt-trust-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = self.0.join(name);
        let mut file = std::fs::File::create(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A certificate authority, and the certificates it has given.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for `name`, valid until the end of `year`.
    fn server(&self, name: &str, year: i32) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

fn sha256_hex(certificate: &CertificateDer<'_>) -> String {
    let rustls::SupportedCipherSuite::Tls13(suite) = ring::cipher_suite::TLS13_AES_128_GCM_SHA256 else {
        panic!("a suite of TLS 1.3")
    };
    suite.common.hash_provider.hash(certificate).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Speaks TLS with everyone who believes this certificate.
async fn serve(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> SocketAddr {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut tls) = acceptor.accept(stream).await {
                let _ = tls.write_all(b"hello").await;
                let _ = tls.shutdown().await;
            }
        }
    });
    address
}

/// What a driver does: the words heard, or why it did not believe.
async fn greet(trust: &Trust, address: SocketAddr) -> Result<String, String> {
    let config = trust.client_config(None).map_err(|e| e.to_string())?.unwrap();
    let name = trust.server_name("127.0.0.1").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let mut heard = String::new();
    tls.map_err(|e| e.to_string())?.read_to_string(&mut heard).await.map_err(|e| e.to_string())?;
    Ok(heard)
}

#[tokio::test]
async fn a_ca_vouches_for_name_and_dates() {
    let directory = Directory::new("ca");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let file = directory.file("ca.pem", &ours.pem(), 0o644);
    let trust = |server_name: Option<&str>| Trust::Ca {
        file: file.clone(),
        server_name: server_name.map(Into::into),
    };

    let (certificate, key) = ours.server("127.0.0.1", 2090);
    let address = serve(certificate, key).await;
    assert_eq!(greet(&trust(None), address).await.unwrap(), "hello");
    let error = greet(&trust(Some("leaf-2.example.org")), address).await.unwrap_err();
    assert!(error.contains("not valid for name") && error.contains("leaf-2"), "wrong name: {error}");

    let (certificate, key) = ours.server("leaf-1.example.org", 2090);
    let address = serve(certificate, key).await;
    assert_eq!(greet(&trust(Some("leaf-1.example.org")), address).await.unwrap(), "hello");
    let error = greet(&trust(None), address).await.unwrap_err();
    assert!(error.contains("not valid for name"), "the address is not its name: {error}");

    let (certificate, key) = ours.server("127.0.0.1", 2020);
    let error = greet(&trust(None), serve(certificate, key).await).await.unwrap_err();
    assert!(error.contains("expired"), "{error}");

    let (certificate, key) = theirs.server("127.0.0.1", 2090);
    let error = greet(&trust(None), serve(certificate, key).await).await.unwrap_err();
    assert!(error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_pin_is_the_certificate_and_nothing_else() {
    let authority = Authority::new("ours");
    // Neither name nor dates fit: that is what pinning is for.
    let (certificate, key) = authority.server("some-switch", 2020);
    let (other, _) = authority.server("some-switch", 2090);
    let (right, wrong) = (sha256_hex(&certificate), sha256_hex(&other));
    let address = serve(certificate, key).await;
    let pinned =
        |pin: &str| tls::trust(&Tls { pin_sha256: Some(pin.into()), ..Tls::default() }, false).unwrap();
    assert_eq!(greet(&pinned(&right), address).await.unwrap(), "hello");
    assert_eq!(greet(&pinned(&right.to_uppercase()), address).await.unwrap(), "hello");
    let error = greet(&pinned(&wrong), address).await.unwrap_err();
    assert!(error.contains(&right) && error.contains("not the pinned one"), "it says what it saw: {error}");
    assert_eq!(greet(&Trust::Insecure, address).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_certificate_without_its_key_is_not_believed() {
    // Who copies the pinned certificate but has another key: the handshake's own signature does not fit.
    let authority = Authority::new("ours");
    let (certificate, _) = authority.server("some-switch", 2090);
    let (_, other_key) = authority.server("some-switch", 2090);
    let pin = sha256_hex(&certificate);
    let provider = ring::default_provider();
    let signer = provider.key_provider.load_private_key(other_key).unwrap();
    #[derive(Debug)]
    struct Impostor(Arc<rustls::sign::CertifiedKey>);
    impl rustls::server::ResolvesServerCert for Impostor {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }
    let impostor = Impostor(Arc::new(rustls::sign::CertifiedKey::new(vec![certificate], signer)));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(impostor));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await;
        }
    });
    let trust = tls::trust(&Tls { pin_sha256: Some(pin), ..Tls::default() }, false).unwrap();
    let error = greet(&trust, address).await.unwrap_err();
    assert!(error.contains("BadSignature"), "{error}");
}

#[test]
fn a_ca_file_that_is_none_is_refused_before_anything_is_sent() {
    let directory = Directory::new("no-ca");
    for (name, text) in
        [("empty.pem", ""), ("odd.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")]
    {
        let file = directory.file(name, text, 0o644);
        let refused = Trust::Ca { file, server_name: None }.client_config(None).unwrap_err();
        let error = Cause::from(refused).to_string();
        assert!(error.contains(name) && error.contains("management.tls.ca_file"), "{error}");
    }
    let gone = Trust::Ca { file: directory.0.join("gone.pem"), server_name: None };
    assert!(gone.client_config(None).unwrap_err().to_string().contains("gone.pem"));
}

/// One switch of this kind at `address`.
fn fabric(kind: &str, address: SocketAddr, credentials: Option<CredentialsRef>) -> Fabric {
    let text = format!(
        "version: 1\nname: t\nswitches:\n  - {{name: leaf-1, role: leaf, driver: {kind}, management: \
         {{address: {}, port: {}, user: basalt, timeout_s: 1, tls: {{plaintext: true}}}}}}\n",
        address.ip(),
        address.port()
    );
    let mut fabric = Fabric::from_yaml(&text).unwrap();
    fabric.switches[0].management.credentials = credentials;
    fabric
}

fn connection(credentials: CredentialsRef) -> Result<Connection, String> {
    let fabric = fabric("eos", "127.0.0.1:1".parse().unwrap(), Some(credentials));
    Connection::of(&fabric, &fabric.switches[0]).map_err(|e| e.to_string())
}

#[test]
fn credentials_come_from_a_private_file_or_the_environment() {
    let directory = Directory::new("credentials");
    let file = |path: PathBuf| connection(CredentialsRef { file: Some(path), env: None });
    let env = |name: &str| connection(CredentialsRef { file: None, env: Some(name.into()) });

    let good = file(directory.file("good", &format!("{PASSWORD}\nsecond line\n"), 0o600)).unwrap();
    assert_eq!(good.secret.expose(), PASSWORD);
    assert!(!format!("{good:?} {good:#?}").contains(PASSWORD), "the settings can be logged");
    let error = file(directory.file("shared", PASSWORD, 0o644)).unwrap_err();
    assert!(
        error.contains("mode 644") && error.contains("chmod 600") && !error.contains(PASSWORD),
        "{error}"
    );
    assert!(file(directory.file("group", PASSWORD, 0o640)).is_err());
    assert!(file(directory.0.join("gone")).unwrap_err().contains("gone"));

    // A variable that cargo sets: changing the environment of a running program is not safe.
    assert_eq!(env("CARGO_PKG_NAME").unwrap().secret.expose(), "basalt-switch-api");
    let error = env("BASALT_NO_SUCH_VARIABLE").unwrap_err();
    assert!(error.contains("BASALT_NO_SUCH_VARIABLE") && error.contains("not set"), "{error}");
}

/// Sends back whatever it hears, in the shape of an error: some switches quote the request in theirs.
async fn parrot() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut heard = vec![0; 16 << 10];
                let n = stream.read(&mut heard).await.unwrap_or(0);
                let body = format!("rejected: {} {PASSWORD}", String::from_utf8_lossy(&heard[..n]));
                let head = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            });
        }
    });
    address
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

/// Everything that any crate says at the finest level, with every driver, against a switch that quotes the password.
#[tokio::test]
async fn no_secret_in_logs_or_errors() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let directory = Directory::new("logs");
    let file = directory.file("password", PASSWORD, 0o600);
    let kinds = [
        (DriverKind::SonicGnmi, "sonic_gnmi"),
        (DriverKind::SonicRedis, "sonic_redis"),
        (DriverKind::DellSonic, "dell_sonic"),
        (DriverKind::Eos, "eos"),
        (DriverKind::Nvue, "nvue"),
        (DriverKind::Ovs, "ovs"),
    ];
    let mut said = String::new();
    for (kind, name) in kinds {
        let address = parrot().await;
        let credentials = CredentialsRef { file: Some(file.clone()), env: None };
        let fabric = fabric(name, address, Some(credentials));
        let mut connection = Connection::of(&fabric, &fabric.switches[0]).unwrap();
        assert_eq!((connection.kind, connection.secret.expose()), (kind, PASSWORD));
        connection.retry.attempts = 1;
        said += &format!("{connection:?}\n");
        match drivers::connect(connection) {
            Ok(switch) => {
                for error in [switch.discover().await.unwrap_err(), switch.read().await.unwrap_err()] {
                    said += &format!("{name}: {error} {error:?}\n");
                    assert!(!matches!(error.cause, Cause::Unsupported { .. }), "{error}");
                }
            }
            Err(error) => said += &format!("{error}\n"),
        }
    }
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    // "basalt:correct-..." as HTTP's basic authentication writes it.
    let basic = "YmFzYWx0OmNvcnJlY3QtaG9yc2UtYmF0dGVyeS1zdGFwbGU=";
    for text in [&said, &logged] {
        let at = [PASSWORD, basic].iter().find_map(|secret| text.find(secret));
        assert!(at.is_none(), "{}", &text[at.unwrap_or(0).saturating_sub(200)..]);
    }
}
