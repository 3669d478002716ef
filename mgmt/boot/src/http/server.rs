//! Connections: how many, how long, with or without TLS.

use super::files::STALLED;
use super::routes::{Caller, Desk};
use crate::error::{BootError, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto::ring::default_provider};

/// A rack that is switched on together; a connection holds under a megabyte.
const MAX_CONNECTIONS: usize = 256;
/// Firmware sends a few hundred bytes of headers.
const MAX_HEADER_BYTES: usize = 16 << 10;
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
const DRAIN: Duration = Duration::from_secs(10);

/// A bound port.
pub struct Listening {
    pub listener: TcpListener,
    pub tls: Option<TlsAcceptor>,
}

/// Certificate chain and key, PEM. The certificate must name this server as nodes call it, and firmware must know its issuer.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let bad = |path: &Path, why: String| {
        BootError::Config(format!(
            "{}: {why}; give a PEM certificate with --cert and its key with --key",
            path.display()
        ))
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|e| bad(certificate, e.to_string()))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad(key, e.to_string()))?;
    let config = ServerConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(certificate, e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| bad(certificate, e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves until `stop` changes; transfers that are under way then have [`DRAIN`] to end.
pub async fn serve(listening: Listening, desk: Arc<Desk>, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // A permit first: beyond the bound, connections wait in the kernel's backlog.
        let permit = tokio::select! {
            permit = room.clone().acquire_owned() => permit,
            _ = stop.changed() => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listening.listener.accept() => accepted,
            _ = stop.changed() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of file descriptors, mostly: it passes when others end.
                tracing::warn!("accepting a connection: {e}");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let (desk, tls, stop) = (desk.clone(), listening.tls.clone(), stop.clone());
        tokio::spawn(async move {
            connection(stream, peer, tls, desk, stop).await;
            drop(permit);
        });
    }
    drop(listening);
    let _ = timeout(DRAIN, room.acquire_many(MAX_CONNECTIONS as u32)).await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    desk: Arc<Desk>,
    stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => exchange(stream, peer, false, desk, stop).await,
        Some(tls) => match timeout(HEADER_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => exchange(stream, peer, true, desk, stop).await,
            Ok(Err(e)) => tracing::info!("{peer}: TLS: {e}"),
            Err(_) => tracing::info!("{peer}: TLS: no handshake in time"),
        },
    }
}

async fn exchange<S>(
    stream: S,
    peer: SocketAddr,
    secure: bool,
    desk: Arc<Desk>,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let began = Instant::now();
    let last_moved_ms = Arc::new(AtomicU64::new(0));
    let moved: Arc<dyn Fn() + Send + Sync> = {
        let last = last_moved_ms.clone();
        Arc::new(move || last.store(began.elapsed().as_millis() as u64, Ordering::Relaxed))
    };
    let service = service_fn(|request| {
        moved();
        let (desk, caller) = (desk.clone(), Caller { peer, secure, moved: moved.clone() });
        async move { Ok::<_, Infallible>(desk.answer(request, caller).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let mut look = interval(Duration::from_secs(5));
    loop {
        tokio::select! {
            ended = &mut serving => {
                if let Err(e) = ended {
                    tracing::debug!("{peer}: {e}");
                }
                return;
            }
            _ = look.tick() => {
                let silent = began.elapsed().saturating_sub(Duration::from_millis(last_moved_ms.load(Ordering::Relaxed)));
                if silent > STALLED + Duration::from_secs(10) {
                    tracing::info!("{peer}: nothing moves; the connection is closed");
                    return;
                }
            }
            _ = stop.changed() => serving.as_mut().graceful_shutdown(),
        }
    }
}
