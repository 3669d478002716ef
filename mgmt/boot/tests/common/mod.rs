//! A boot service on loopback, and a client that speaks bytes.
#![allow(dead_code, unreachable_pub)]

use basalt_boot::decision::Action;
use basalt_boot::service::{Https, Service, Settings, Stores};
use basalt_boot::store::FileStore;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

pub struct Running {
    pub dir: PathBuf,
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub store: FileStore,
    stop: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn dir(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("basalt-boot-{}-{name}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(path.join("images")).unwrap();
    path
}

pub fn image(dir: &Path, version: &str, bytes: &[u8]) {
    let images = dir.join("images");
    for kind in ["-netboot.efi", ".vmlinuz", ".initrd", ".root"] {
        std::fs::write(images.join(format!("basalt_{version}{kind}")), bytes).unwrap();
    }
    let script = format!("#!ipxe\nkernel basalt_{version}.vmlinuz quiet basalt.root=ab:1:cd\nboot\n");
    std::fs::write(images.join(format!("basalt_{version}.ipxe")), script).unwrap();
}

pub async fn start(name: &str, unknown: Action, certificate: Option<(PathBuf, PathBuf)>) -> Running {
    let dir = dir(name);
    image(&dir, "1.0.0", b"old");
    image(&dir, "1.10.0", &(0..1_000_000u32).flat_map(|i| (i % 251).to_le_bytes()).collect::<Vec<u8>>());
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let store = FileStore::open(&dir.join("boot")).unwrap();
    let shared = Arc::new(store.clone());
    let settings = Settings {
        images: dir.join("images"),
        run_dir: dir.join("run"),
        listen: loopback,
        https: certificate.map(|(certificate, key)| Https { listen: loopback, certificate, key }),
        unknown,
        network: None,
        dnsmasq: "dnsmasq".into(),
        dnsmasq_user: None,
        ipxe_dir: dir.join("ipxe"),
    };
    let stores = Stores { decisions: shared.clone(), tokens: shared.clone(), events: shared };
    let service = Service::bind(settings, stores).await.unwrap();
    let (http, https) = (service.http, service.https);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move { service.run(stopped, || ()).await.unwrap() });
    Running { dir, http, https, store, stop }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One request on a connection of its own.
pub async fn ask(to: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    answer(bytes)
}

pub fn answer(bytes: Vec<u8>) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("no end of headers");
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    Answer { status: head[9..12].parse().unwrap(), head, body: bytes[end + 4..].to_vec() }
}

pub async fn get(to: SocketAddr, path: &str) -> Answer {
    ask(to, "GET", path, "", "").await
}
