//! A connection of bytes to a switch: TCP or a local socket, with TLS where the intent says whom to trust.

use crate::connection::Connection;
use crate::error::{Cause, Result};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

pub(super) type Stream = Box<dyn Duplex>;

/// Connects within the time bound, and proves whom we speak to.
pub(super) async fn open(connection: &Connection, alpn: &[&[u8]]) -> Result<Stream> {
    let fail = |cause: Cause| cause.at(&connection.switch);
    let endpoint = connection.endpoint();
    match tokio::time::timeout(connection.limits.connect, dial(connection, alpn)).await {
        Ok(opened) => opened.map_err(fail),
        Err(_) => {
            let reason = format!("no answer within {} s", connection.limits.connect.as_secs());
            Err(fail(Cause::Unreachable { endpoint, reason }))
        }
    }
}

async fn dial(connection: &Connection, alpn: &[&[u8]]) -> Result<Stream, Cause> {
    let endpoint = connection.endpoint();
    let unreachable = |e: io::Error| Cause::Unreachable { endpoint: endpoint.clone(), reason: e.to_string() };
    if let Some(path) = connection.address.strip_prefix("unix:") {
        return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?));
    }
    let address = (connection.address.as_str(), connection.port);
    let tcp = TcpStream::connect(address).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let Some(mut config) = connection.client_config()? else { return Ok(Box::new(tcp)) };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let name = connection.trust.server_name(&connection.address)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let stream = tls.map_err(|e| {
        crate::tls::failure(&endpoint, &e)
            .unwrap_or(Cause::Tls { endpoint: endpoint.clone(), reason: e.to_string() })
    })?;
    Ok(Box::new(stream))
}

/// Counts what comes in, and ends when that is more than a switch has to say.
pub(super) struct Bounded {
    inner: Stream,
    got: Arc<AtomicU64>,
    limit: u64,
}

impl Bounded {
    pub(super) fn new(inner: Stream, got: Arc<AtomicU64>, limit: u64) -> Self {
        Self { inner, got, limit }
    }
}

impl AsyncRead for Bounded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        let more = (buffer.filled().len() - before) as u64;
        let got = self.got.fetch_add(more, Ordering::Relaxed) + more;
        if got > self.limit {
            return Poll::Ready(Err(io::Error::other("the reply is too large")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
