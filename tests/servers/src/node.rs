//! A node as its clients see it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const NFS_PORT: u16 = 20490;

/// A NULL call of NFS version 4 (RFC 5531): an accepted, successful reply means that the data plane serves.
pub(crate) fn nfs_answers(address: &str) -> Result<(), String> {
    let wrong = |e: std::io::Error| format!("NFS at {address}: {e}");
    let mut stream = TcpStream::connect((address, NFS_PORT)).map_err(wrong)?;
    let words: [u32; 10] = [0x6261_7361, 0, 2, 100_003, 4, 0, 0, 0, 0, 0];
    let mut call = (0x8000_0000u32 | 40).to_be_bytes().to_vec();
    call.extend(words.iter().flat_map(|w| w.to_be_bytes()));
    stream.set_read_timeout(Some(Duration::from_secs(60))).map_err(wrong)?;
    let mut reply = [0; 28];
    stream.write_all(&call).and_then(|()| stream.read_exact(&mut reply)).map_err(wrong)?;
    // Same xid, a reply, accepted, empty verifier, success.
    let wanted: Vec<u8> = [0x6261_7361u32, 1, 0, 0, 0, 0].iter().flat_map(|w| w.to_be_bytes()).collect();
    if reply[4..] == wanted[..] { Ok(()) } else { Err(format!("NFS at {address} answers {reply:?}")) }
}
