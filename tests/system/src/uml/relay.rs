//! Carries the guest's TCP connections to the server on the host.
//!
//! The listening sockets live in the guest's network, handed over by the runner; the connections to the server
//! are made by this process, in the host's network. When one side ends, the other is reset, as if the server's
//! machine itself had gone.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::sys;

/// What passed through a relay.
#[derive(Debug, Default)]
pub struct RelayCounters {
    /// Connections that reached the server.
    pub connected: AtomicU64,
    /// Connections that the server did not take.
    pub refused: AtomicU64,
}

/// Relays every connection of the listener to a loopback port until the guest ends.
pub(crate) fn serve(listener: TcpListener, port: u16, counters: Arc<RelayCounters>) {
    thread::spawn(move || {
        while let Ok((guest, _)) = listener.accept() {
            let counters = Arc::clone(&counters);
            thread::spawn(move || {
                let _ = relay(guest, port, &counters);
            });
        }
    });
}

fn relay(guest: TcpStream, port: u16, counters: &RelayCounters) -> io::Result<()> {
    sys::reset_on_close(guest.as_raw_fd());
    let server = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Ok(server) => server,
        Err(error) => {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
    };
    counters.connected.fetch_add(1, Ordering::Relaxed);
    guest.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_guest, to_server) = (guest.try_clone()?, server.try_clone()?);
    let upward = thread::spawn(move || pump(from_guest, to_server));
    pump(server, guest);
    let _ = upward.join();
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0u8; 256 * 1024];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
