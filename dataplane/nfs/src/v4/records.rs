//! Client and session records as stored: little-endian, versioned.

use crate::auth::Principal;
use bytes::Bytes;

/// A confirmed client (RFC 8881, section 18.35).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientRecord {
    pub(crate) id: u64,
    /// co_ownerid.
    pub(crate) owner: Bytes,
    pub(crate) verifier: [u8; 8],
    pub(crate) principal: Principal,
    /// The last csa_sequence and the results that it got.
    pub(crate) create_sequence: u32,
    pub(crate) create_reply: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    pub(crate) id: [u8; 16],
    pub(crate) client: u64,
    pub(crate) channel: Channel,
}

/// The fore channel's attributes as granted (RFC 8881, section 18.36.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) max_request: u32,
    pub(crate) max_response: u32,
    pub(crate) max_response_cached: u32,
    pub(crate) max_operations: u32,
    pub(crate) slots: u32,
}

const VERSION: u8 = 1;

struct Cursor<'a>(&'a [u8]);
impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn bytes(&mut self) -> Option<Bytes> {
        let len = self.u32()? as usize;
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(Bytes::copy_from_slice(head))
    }
}

impl ClientRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut v = vec![VERSION];
        v.extend_from_slice(&self.id.to_le_bytes());
        v.extend_from_slice(&self.verifier);
        v.extend_from_slice(&self.principal.flavor.to_le_bytes());
        v.extend_from_slice(&self.principal.uid.to_le_bytes());
        v.extend_from_slice(&self.create_sequence.to_le_bytes());
        for field in [&self.owner, &self.create_reply] {
            v.extend_from_slice(&(field.len() as u32).to_le_bytes());
            v.extend_from_slice(field);
        }
        v
    }
    pub(crate) fn decode(bytes: &[u8]) -> Option<ClientRecord> {
        let mut c = Cursor(bytes);
        if c.take::<1>()? != [VERSION] {
            return None;
        }
        let id = c.u64()?;
        let verifier = c.take()?;
        let principal = Principal { flavor: c.u32()?, uid: c.u32()? };
        let create_sequence = c.u32()?;
        let record = ClientRecord {
            id,
            verifier,
            principal,
            create_sequence,
            owner: c.bytes()?,
            create_reply: c.bytes()?,
        };
        c.0.is_empty().then_some(record)
    }
}

impl SessionRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut v = vec![VERSION];
        v.extend_from_slice(&self.id);
        v.extend_from_slice(&self.client.to_le_bytes());
        let ch = &self.channel;
        for n in [ch.max_request, ch.max_response, ch.max_response_cached, ch.max_operations, ch.slots] {
            v.extend_from_slice(&n.to_le_bytes());
        }
        v
    }
    pub(crate) fn decode(bytes: &[u8]) -> Option<SessionRecord> {
        let mut c = Cursor(bytes);
        if c.take::<1>()? != [VERSION] {
            return None;
        }
        let record = SessionRecord {
            id: c.take()?,
            client: c.u64()?,
            channel: Channel {
                max_request: c.u32()?,
                max_response: c.u32()?,
                max_response_cached: c.u32()?,
                max_operations: c.u32()?,
                slots: c.u32()?,
            },
        };
        c.0.is_empty().then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let c = ClientRecord {
            id: 0x0102,
            owner: Bytes::from_static(b"me"),
            verifier: *b"verifier",
            principal: Principal { flavor: 1, uid: 7 },
            create_sequence: 3,
            create_reply: Bytes::from_static(b"r"),
        };
        assert_eq!(
            c.encode(),
            b"\x01\x02\x01\0\0\0\0\0\0verifier\x01\0\0\0\x07\0\0\0\x03\0\0\0\x02\0\0\0me\x01\0\0\0r"
        );
        assert_eq!(ClientRecord::decode(&c.encode()), Some(c));
        let s = SessionRecord {
            id: *b"0123456789abcdef",
            client: 1,
            channel: Channel {
                max_request: 1,
                max_response: 2,
                max_response_cached: 3,
                max_operations: 4,
                slots: 5,
            },
        };
        assert_eq!(
            s.encode(),
            b"\x010123456789abcdef\x01\0\0\0\0\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05\0\0\0"
        );
        assert_eq!(SessionRecord::decode(&s.encode()), Some(s));
    }

    proptest! {
        #[test]
        fn damage_is_no_panic(b in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = ClientRecord::decode(&b);
            let _ = SessionRecord::decode(&b);
        }
    }
}
