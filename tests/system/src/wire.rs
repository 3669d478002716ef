//! A small ONC RPC client with the few NFSv3 calls that tests need to send by hand (RFC 5531, RFC 1813).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// NFS program number.
pub const NFS_PROGRAM: u32 = 100_003;
/// MOUNT program number.
pub const MOUNT_PROGRAM: u32 = 100_005;

/// NFS3ERR_STALE.
pub const NFS3ERR_STALE: u32 = 70;
/// NFS3ERR_BADHANDLE.
pub const NFS3ERR_BADHANDLE: u32 = 10_001;

/// Builds XDR (RFC 4506).
#[derive(Debug, Default, Clone)]
pub struct Xdr(pub Vec<u8>);

impl Xdr {
    /// An unsigned integer.
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// An unsigned hyper.
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Variable-length opaque data or a string.
    pub fn opaque(self, bytes: &[u8]) -> Self {
        let mut next = self.u32(bytes.len() as u32);
        next.0.extend_from_slice(bytes);
        next.0.resize(next.0.len().next_multiple_of(4), 0);
        next
    }
}

/// Reads XDR.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> io::Result<&'a [u8]> {
        if len > self.0.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a reply that is too short"));
        }
        let (head, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(head)
    }

    /// An unsigned integer.
    pub fn u32(&mut self) -> io::Result<u32> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Variable-length opaque data.
    pub fn opaque(&mut self) -> io::Result<&'a [u8]> {
        let len = self.u32()? as usize;
        let bytes = self.take(len)?;
        self.take(len.next_multiple_of(4) - len)?;
        Ok(bytes)
    }

    /// Skips bytes.
    pub fn skip(&mut self, len: usize) -> io::Result<()> {
        self.take(len).map(drop)
    }
}

/// What became of a call.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Accepted and done; the result follows.
    Success(Vec<u8>),
    /// Accepted, with this `accept_stat` (1 no program, 2 version, 3 no procedure, 4 garbage, 5 system error).
    Refused(u32),
    /// Denied (wrong RPC version or authentication).
    Denied,
}

/// One connection.
pub struct Client {
    stream: TcpStream,
    xid: u32,
}

impl Client {
    /// Connects to a loopback port.
    pub fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_write_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self { stream, xid: 0x5000 })
    }

    /// Sends raw bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one message as one fragment.
    pub fn send_record(&mut self, message: &[u8]) -> io::Result<()> {
        let mut record = (0x8000_0000 | message.len() as u32).to_be_bytes().to_vec();
        record.extend_from_slice(message);
        self.stream.write_all(&record)
    }

    /// Reads one message, of fragments up to 4 MiB in all.
    pub fn receive_record(&mut self) -> io::Result<Vec<u8>> {
        let mut message = Vec::new();
        loop {
            let mut mark = [0u8; 4];
            self.stream.read_exact(&mut mark)?;
            let mark = u32::from_be_bytes(mark);
            let len = (mark & 0x7fff_ffff) as usize;
            if message.len() + len > 4 << 20 {
                return Err(io::Error::other("a reply of more than 4 MiB"));
            }
            let start = message.len();
            message.resize(start + len, 0);
            self.stream.read_exact(&mut message[start..])?;
            if mark & 0x8000_0000 != 0 {
                return Ok(message);
            }
        }
    }

    /// A call's header with AUTH_SYS as root.
    pub fn header(&mut self, program: u32, version: u32, procedure: u32) -> Xdr {
        self.xid += 1;
        let credential = Xdr::default().u32(0).opaque(b"test").u32(0).u32(0).u32(0);
        Xdr::default()
            .u32(self.xid)
            .u32(0)
            .u32(2)
            .u32(program)
            .u32(version)
            .u32(procedure)
            .u32(1)
            .opaque(&credential.0)
            .u32(0)
            .u32(0)
    }

    /// One call and its reply.
    pub fn call(&mut self, program: u32, version: u32, procedure: u32, arguments: &Xdr) -> io::Result<Reply> {
        let mut message = self.header(program, version, procedure);
        message.0.extend_from_slice(&arguments.0);
        self.send_record(&message.0)?;
        let reply = self.receive_record()?;
        let mut reader = Reader(&reply);
        if reader.u32()? != self.xid || reader.u32()? != 1 {
            return Err(io::Error::other("a reply to something else"));
        }
        if reader.u32()? != 0 {
            return Ok(Reply::Denied);
        }
        reader.u32()?;
        reader.opaque()?;
        match reader.u32()? {
            0 => Ok(Reply::Success(reader.0.to_vec())),
            refused => Ok(Reply::Refused(refused)),
        }
    }

    fn nfs(&mut self, procedure: u32, arguments: &Xdr) -> io::Result<Vec<u8>> {
        match self.call(NFS_PROGRAM, 3, procedure, arguments)? {
            Reply::Success(result) => Ok(result),
            other => Err(io::Error::other(format!("NFSv3 procedure {procedure}: {other:?}"))),
        }
    }

    /// MNT: the root handle of an export, or the status.
    pub fn mount(&mut self, export: &str) -> io::Result<Result<Vec<u8>, u32>> {
        match self.call(MOUNT_PROGRAM, 3, 1, &Xdr::default().opaque(export.as_bytes()))? {
            Reply::Success(result) => {
                let mut reader = Reader(&result);
                match reader.u32()? {
                    0 => Ok(Ok(reader.opaque()?.to_vec())),
                    status => Ok(Err(status)),
                }
            }
            other => Err(io::Error::other(format!("MNT: {other:?}"))),
        }
    }

    /// GETATTR's status.
    pub fn getattr(&mut self, handle: &[u8]) -> io::Result<u32> {
        Reader(&self.nfs(1, &Xdr::default().opaque(handle))?).u32()
    }

    /// CREATE (guarded): the new handle, or the status.
    pub fn create(&mut self, dir: &[u8], name: &[u8]) -> io::Result<Result<Vec<u8>, u32>> {
        // sattr3 with nothing set: six discriminants of 0.
        let arguments = (0..6).fold(Xdr::default().opaque(dir).opaque(name).u32(1), |x, _| x.u32(0));
        let result = self.nfs(8, &arguments)?;
        let mut reader = Reader(&result);
        match reader.u32()? {
            0 if reader.u32()? == 1 => Ok(Ok(reader.opaque()?.to_vec())),
            0 => Err(io::Error::other("CREATE gave no handle")),
            status => Ok(Err(status)),
        }
    }

    /// REMOVE's status.
    pub fn remove(&mut self, dir: &[u8], name: &[u8]) -> io::Result<u32> {
        Reader(&self.nfs(12, &Xdr::default().opaque(dir).opaque(name))?).u32()
    }

    /// READ's status.
    pub fn read(&mut self, handle: &[u8], offset: u64, count: u32) -> io::Result<u32> {
        Reader(&self.nfs(6, &Xdr::default().opaque(handle).u64(offset).u32(count))?).u32()
    }

    /// WRITE's status; stable if `sync`.
    pub fn write(&mut self, handle: &[u8], offset: u64, data: &[u8], sync: bool) -> io::Result<u32> {
        let arguments = Xdr::default()
            .opaque(handle)
            .u64(offset)
            .u32(data.len() as u32)
            .u32(if sync { 2 } else { 0 })
            .opaque(data);
        Reader(&self.nfs(7, &arguments)?).u32()
    }
}
