//! ONC RPC version 2 (RFC 5531): record marking, call headers, reply headers.

use crate::auth::Auth;
use crate::xdr::{Malformed, Reader, Writer, padding, pieces_len};
use bytes::{Buf, BufMut, Bytes, BytesMut};

pub const PROGRAM_NFS: u32 = 100_003;
pub const PROGRAM_MOUNT: u32 = 100_005;

/// Largest READ or WRITE.
pub const IO_MAX_BYTES: u32 = 1 << 20;
/// Largest record: a 1 MiB WRITE with its compound, headers and credentials, and some slack.
pub const RECORD_MAX_BYTES: usize = (1 << 20) + (64 << 10);
/// A record may come in any number of fragments; an empty one that is not the last carries nothing, so a run of them is
/// a sender that wants us busy.
const FRAGMENTS_MAX: u32 = 4096;

const LAST_FRAGMENT: u32 = 1 << 31;
const RPC_VERSION: u32 = 2;
const OPAQUE_AUTH_MAX: usize = 400;

const FLAVOR_NONE: u32 = 0;
const FLAVOR_SYS: u32 = 1;

/// auth_stat values used here (RFC 5531, section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthStat {
    BadCred = 1,
    RejectedVerf = 4,
    TooWeak = 5,
}

/// A parsed call; `args` starts at the procedure's arguments.
#[derive(Clone, Debug)]
pub struct Call {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    pub auth: Auth,
    pub args: Reader,
}

/// Why a record is not a call to be executed.
#[derive(Debug)]
pub enum Refused {
    /// Not even an answer is possible: the connection's framing cannot be trusted.
    Hopeless,
    Answered(Vec<Bytes>),
}
impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Refused {
        Refused::Hopeless
    }
}

pub fn parse_call(record: Bytes) -> Result<Call, Refused> {
    let mut r = Reader::new(record);
    let xid = r.u32()?;
    if r.u32()? != 0 {
        return Err(Refused::Hopeless); // a reply: we make no calls
    }
    if r.u32()? != RPC_VERSION {
        let mut w = Writer::new();
        w.u32(xid);
        w.u32(1); // REPLY
        w.u32(1); // MSG_DENIED
        w.u32(0); // RPC_MISMATCH
        w.u32(RPC_VERSION);
        w.u32(RPC_VERSION);
        return Err(Refused::Answered(w.finish()));
    }
    let (program, version, procedure) = (r.u32()?, r.u32()?, r.u32()?);
    let flavor = r.u32()?;
    let body = r.opaque(OPAQUE_AUTH_MAX).map_err(|_| denied(xid, AuthStat::BadCred))?;
    let _verf_flavor = r.u32()?;
    r.opaque(OPAQUE_AUTH_MAX).map_err(|_| denied(xid, AuthStat::RejectedVerf))?;
    let auth = match flavor {
        FLAVOR_NONE => Auth::None,
        FLAVOR_SYS => Auth::parse_sys(body).map_err(|_| denied(xid, AuthStat::BadCred))?,
        // RPCSEC_GSS and others: say which flavour is missing by refusing the credential.
        _ => return Err(denied(xid, AuthStat::TooWeak)),
    };
    Ok(Call { xid, program, version, procedure, auth, args: r })
}

fn denied(xid: u32, why: AuthStat) -> Refused {
    Refused::Answered(auth_error(xid, why))
}

/// MSG_DENIED, AUTH_ERROR.
pub fn auth_error(xid: u32, why: AuthStat) -> Vec<Bytes> {
    let mut w = Writer::new();
    for v in [xid, 1, 1, 1, why as u32] {
        w.u32(v);
    }
    w.finish()
}

/// accept_stat (RFC 5531, section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    ProgUnavail,
    ProgMismatch { low: u32, high: u32 },
    ProcUnavail,
    GarbageArgs,
}

fn accepted(xid: u32, stat: u32) -> Writer {
    let mut w = Writer::new();
    // REPLY, MSG_ACCEPTED, verifier AUTH_NONE of length 0.
    for v in [xid, 1, 0, 0, 0, stat] {
        w.u32(v);
    }
    w
}

/// SUCCESS with the procedure's results.
pub fn success(xid: u32, results: Vec<Bytes>) -> Vec<Bytes> {
    let mut w = accepted(xid, 0);
    for piece in results {
        w.raw(piece);
    }
    w.finish()
}

pub fn not_executed(xid: u32, why: Accept) -> Vec<Bytes> {
    let w = match why {
        Accept::ProgUnavail => accepted(xid, 1),
        Accept::ProgMismatch { low, high } => {
            let mut w = accepted(xid, 2);
            w.u32(low);
            w.u32(high);
            w
        }
        Accept::ProcUnavail => accepted(xid, 3),
        Accept::GarbageArgs => accepted(xid, 4),
    };
    w.finish()
}

/// Puts the record mark in front of a message.
pub fn framed(message: Vec<Bytes>) -> Vec<Bytes> {
    let len = pieces_len(&message) as u32;
    let mut out = Vec::with_capacity(message.len() + 1);
    out.push(Bytes::copy_from_slice(&(len | LAST_FRAGMENT).to_be_bytes()));
    out.extend(message);
    out
}

/// What is wrong with a byte stream that cannot be continued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    #[error("a record of more than {RECORD_MAX_BYTES} bytes")]
    TooLong,
    #[error("a record in more than {FRAGMENTS_MAX} fragments")]
    TooManyFragments,
}

/// Takes records out of a byte stream (RFC 5531, section 11).
#[derive(Debug, Default)]
pub struct Deframer {
    /// Earlier fragments of the record being received.
    partial: BytesMut,
    fragments: u32,
}

impl Deframer {
    /// The next whole record, cut from the front of `input`; `None` when more must be read first. A record in one
    /// fragment is sliced, not copied. `input` is left with room for what is missing.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Bytes>, FramingError> {
        loop {
            let Some(mark) = input.get(..4) else {
                input.reserve(READ_CHUNK_BYTES);
                return Ok(None);
            };
            let mark = u32::from_be_bytes([mark[0], mark[1], mark[2], mark[3]]);
            let len = (mark & !LAST_FRAGMENT) as usize;
            if self.partial.len() + len > RECORD_MAX_BYTES {
                return Err(FramingError::TooLong);
            }
            if input.len() < 4 + len {
                let missing = 4 + len - input.len();
                input.reserve(missing.max(READ_CHUNK_BYTES));
                return Ok(None);
            }
            input.advance(4);
            let fragment = input.split_to(len);
            self.fragments += 1;
            if mark & LAST_FRAGMENT != 0 {
                self.fragments = 0;
                if self.partial.is_empty() {
                    return Ok(Some(fragment.freeze()));
                }
                self.partial.put_slice(&fragment);
                return Ok(Some(self.partial.split().freeze()));
            }
            if self.fragments >= FRAGMENTS_MAX {
                return Err(FramingError::TooManyFragments);
            }
            self.partial.put_slice(&fragment);
        }
    }
}

/// Spare room offered to each read of a connection.
pub const READ_CHUNK_BYTES: usize = 64 << 10;

/// Builds a call, for tests and for the clients in the test suites.
pub fn build_call(xid: u32, program: u32, version: u32, procedure: u32, auth: &Auth, args: &[u8]) -> Bytes {
    let mut w = Writer::new();
    for v in [xid, 0, RPC_VERSION, program, version, procedure] {
        w.u32(v);
    }
    auth.encode(&mut w);
    w.u32(FLAVOR_NONE);
    w.u32(0);
    w.raw(Bytes::copy_from_slice(args));
    debug_assert_eq!(padding(args.len()), 0);
    w.finish_contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fragment(data: &[u8], last: bool) -> Vec<u8> {
        let mut v = (data.len() as u32 | if last { LAST_FRAGMENT } else { 0 }).to_be_bytes().to_vec();
        v.extend_from_slice(data);
        v
    }

    proptest! {
        /// However the sender cuts records into fragments and the network cuts the stream, the same records come out.
        #[test]
        fn any_cut_gives_the_same_records(
            records in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..4), 1..5),
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let mut wire = Vec::new();
            for r in &records {
                for (i, f) in r.iter().enumerate() {
                    wire.extend(fragment(f, i + 1 == r.len()));
                }
            }
            let mut d = Deframer::default();
            let mut input = BytesMut::new();
            let mut got = Vec::new();
            let mut cuts = cuts.iter().cycle();
            let mut at = 0;
            while at < wire.len() {
                let n = (*cuts.next().unwrap()).min(wire.len() - at);
                input.put_slice(&wire[at..at + n]);
                at += n;
                while let Some(r) = d.next(&mut input).unwrap() {
                    got.push(r.to_vec());
                }
            }
            let want: Vec<Vec<u8>> = records.iter().map(|r| r.concat()).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn random_records_never_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_call(Bytes::from(data));
        }
    }

    #[test]
    fn oversize_is_refused_before_it_is_buffered() {
        let mut d = Deframer::default();
        let mut input = BytesMut::from(&(LAST_FRAGMENT | (RECORD_MAX_BYTES as u32 + 1)).to_be_bytes()[..]);
        assert_eq!(d.next(&mut input), Err(FramingError::TooLong));
        let mut d = Deframer::default();
        let mut input = BytesMut::new();
        for _ in 0..FRAGMENTS_MAX {
            input.put_slice(&fragment(b"", false));
        }
        assert_eq!(d.next(&mut input), Err(FramingError::TooManyFragments));
    }

    #[test]
    fn refusals() {
        let mut bytes = build_call(9, PROGRAM_NFS, 4, 0, &Auth::None, &[]).to_vec();
        assert!(parse_call(Bytes::from(bytes.clone())).is_ok());
        bytes[11] = 3; // RPC version
        let Err(Refused::Answered(reply)) = parse_call(Bytes::from(bytes.clone())) else { panic!() };
        assert_eq!(reply.concat()[4..16], [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0]);
        bytes[11] = 2;
        bytes[27] = 6; // RPCSEC_GSS
        let Err(Refused::Answered(reply)) = parse_call(Bytes::from(bytes)) else { panic!() };
        assert_eq!(reply.concat()[16..], [0, 0, 0, 5]);
    }
}
