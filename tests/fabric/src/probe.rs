//! Traffic between nodes, by threads in their namespaces.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const PORT: u16 = 7777;
const WAIT: Duration = Duration::from_millis(250);
/// IPv4 and UDP headers.
const HEADERS: usize = 28;

/// Runs `work` in a thread in the namespace.
pub(crate) fn within<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let path = format!("/run/netns/{namespace}");
    let thread = thread::spawn(move || {
        let file = File::open(&path).map_err(|e| format!("{path}: {e}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| format!("{path}: {e}"))?;
        work()
    });
    thread.join().map_err(|_| "a probe panicked".to_owned())?
}

/// Sends back what it gets, by UDP and TCP, while this value lives.
pub(crate) struct Echo(Arc<AtomicBool>);

impl Echo {
    pub(crate) fn start(namespace: &str) -> Result<Self, String> {
        let ended = Arc::new(AtomicBool::new(false));
        let text = |e: std::io::Error| format!("echo: {e}");
        let (udp, tcp) = within(namespace, move || {
            let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(text)?;
            udp.set_read_timeout(Some(WAIT)).map_err(text)?;
            let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(text)?;
            tcp.set_nonblocking(true).map_err(text)?;
            Ok((udp, tcp))
        })?;
        let end = Arc::clone(&ended);
        thread::spawn(move || {
            let mut frame = vec![0; 65536];
            while !end.load(Ordering::Relaxed) {
                if let Ok((size, from)) = udp.recv_from(&mut frame) {
                    // A lost answer is what the probes look for.
                    let _ = udp.send_to(&frame[..size], from);
                }
            }
        });
        let end = Arc::clone(&ended);
        thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((stream, _)) => drop(thread::spawn(move || echo(stream))),
                    Err(_) => thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Ok(Self(ended))
    }
}

fn echo(mut stream: TcpStream) {
    let mut bytes = vec![0; 65536];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    while let Ok(size @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..size]).is_err() {
            break;
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether an IP packet of `size` bytes comes back from `to`. Linux sets DF on UDP that fits the interface's MTU (path MTU
/// discovery, ip(7)), and every node's is 9000: a packet that does not fit on the way is lost, not cut.
pub(crate) fn passes(namespace: &str, to: Ipv4Addr, size: usize, tries: u32) -> Result<bool, String> {
    within(namespace, move || {
        let text = |e: std::io::Error| format!("probe of {to}: {e}");
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(text)?;
        socket.set_read_timeout(Some(WAIT)).map_err(text)?;
        socket.connect((to, PORT)).map_err(text)?;
        let mut answer = vec![0; 65536];
        for attempt in 0..tries {
            let sent: Vec<u8> =
                (0..size.saturating_sub(HEADERS)).map(|i| (i as u32 + attempt) as u8).collect();
            // No neighbour found shows as an error of a later send: unreachable, which is an answer.
            if socket.send(&sent).is_err() {
                thread::sleep(WAIT);
                continue;
            }
            while let Ok(size) = socket.recv(&mut answer) {
                if answer[..size] == sent {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    })
}

/// Sends `bytes` through a connection and compares what comes back.
pub(crate) fn stream(namespace: &str, to: Ipv4Addr, bytes: usize) -> Result<(), String> {
    within(namespace, move || {
        let text = |e: std::io::Error| format!("TCP to {to}: {e}");
        let address = SocketAddrV4::new(to, PORT).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3)).map_err(text)?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(text)?;
        let sent: Vec<u8> = (0..bytes).map(|i| ((i * 31) >> 3) as u8).collect();
        let mut writer = stream.try_clone().map_err(text)?;
        let copy = sent.clone();
        let writing = thread::spawn(move || writer.write_all(&copy));
        let mut back = vec![0; bytes];
        stream.read_exact(&mut back).map_err(text)?;
        writing.join().map_err(|_| "the writer panicked".to_owned())?.map_err(text)?;
        if back == sent { Ok(()) } else { Err(format!("TCP to {to}: other bytes came back")) }
    })
}
