//! DHCPv4 messages (RFC 2131, 2132): what a client sends and what it takes from an answer.

use std::net::Ipv4Addr;
use std::time::Duration;

const MAGIC: [u8; 4] = [99, 130, 83, 99];
const FIXED_BYTES: usize = 240;
/// The address of Basalt's boot service; 224 to 254 are for the site (RFC 3942).
const BOOT_SERVICE: u8 = 224;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lease {
    pub(crate) address: Ipv4Addr,
    pub(crate) mask: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    pub(crate) gateway: Option<Ipv4Addr>,
    pub(crate) dns: Vec<Ipv4Addr>,
    pub(crate) host_name: Option<String>,
    pub(crate) mtu: Option<u16>,
    /// Where the boot service is.
    pub(crate) boot: Option<String>,
    pub(crate) lasts: Duration,
}

pub(crate) struct Request<'a> {
    pub(crate) kind: Kind,
    pub(crate) xid: u32,
    pub(crate) mac: [u8; 6],
    /// Our own address while renewing.
    pub(crate) current: Option<Ipv4Addr>,
    /// The offer that is asked for.
    pub(crate) offer: Option<&'a Lease>,
}

impl Request<'_> {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut m = vec![0; FIXED_BYTES];
        m[0..3].copy_from_slice(&[1, 1, 6]); // BOOTREQUEST, Ethernet, address length
        m[4..8].copy_from_slice(&self.xid.to_be_bytes());
        match self.current {
            Some(address) => m[12..16].copy_from_slice(&address.octets()),
            // Answers come by broadcast while we have no address.
            None => m[10] = 0x80,
        }
        m[28..34].copy_from_slice(&self.mac);
        m[236..240].copy_from_slice(&MAGIC);
        let mut option = |code: u8, value: &[u8]| {
            m.extend([code, value.len() as u8]);
            m.extend(value);
        };
        option(53, &[self.kind as u8]);
        if let Some(offer) = self.offer {
            option(50, &offer.address.octets());
            option(54, &offer.server.octets());
        }
        option(57, &1500u16.to_be_bytes());
        option(60, b"basalt");
        option(55, &[1, 3, 6, 12, 26, 51, 54, BOOT_SERVICE]);
        m.push(255);
        // Some relays drop what is shorter than BOOTP's 300 bytes.
        m.resize(m.len().max(300), 0);
        m
    }
}

/// The kind and contents of an answer to `xid`; `None` for anything that is not one.
pub(crate) fn decode(m: &[u8], xid: u32, mac: [u8; 6]) -> Option<(Kind, Lease)> {
    if m.len() < FIXED_BYTES
        || m[0] != 2
        || m[4..8] != xid.to_be_bytes()
        || m[28..34] != mac
        || m[236..240] != MAGIC
    {
        return None;
    }
    let mut kind = None;
    let mut lease = Lease {
        address: address(&m[16..20])?,
        mask: Ipv4Addr::new(255, 255, 255, 0),
        server: Ipv4Addr::UNSPECIFIED,
        gateway: None,
        dns: Vec::new(),
        host_name: None,
        mtu: None,
        boot: None,
        lasts: Duration::from_secs(3600),
    };
    let mut options = &m[FIXED_BYTES..];
    loop {
        match options {
            [] | [255, ..] => break,
            [0, rest @ ..] => options = rest,
            [code, length, rest @ ..] => {
                let value = rest.get(..usize::from(*length))?;
                options = &rest[usize::from(*length)..];
                match *code {
                    53 => kind = message_kind(*value.first()?),
                    1 => lease.mask = address(value)?,
                    3 => lease.gateway = address(value.get(..4)?),
                    6 => lease.dns = value.chunks_exact(4).take(3).filter_map(address).collect(),
                    12 => lease.host_name = host_name(value),
                    26 => lease.mtu = Some(u16::from_be_bytes(value.try_into().ok()?)).filter(|m| *m >= 1280),
                    51 => {
                        let seconds = u32::from_be_bytes(value.try_into().ok()?);
                        lease.lasts = Duration::from_secs(u64::from(seconds.max(60)));
                    }
                    54 => lease.server = address(value)?,
                    BOOT_SERVICE => lease.boot = url(value),
                    _ => {}
                }
            }
            [_] => return None,
        }
    }
    Some((kind?, lease))
}

fn message_kind(code: u8) -> Option<Kind> {
    [Kind::Offer, Kind::Ack, Kind::Nak].into_iter().find(|k| *k as u8 == code)
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// RFC 1123 names only: it goes to the kernel and into certificates.
fn host_name(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (!text.is_empty() && text.len() <= 63 && text.bytes().all(fine)).then(|| text.to_owned())
}

/// Printable, of a length that fits a request; what it means is looked at where it is used.
fn url(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    (text.starts_with("http://") && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn answer(options: &[u8]) -> Vec<u8> {
        let mut m = Request { kind: Kind::Discover, xid: 7, mac: MAC, current: None, offer: None }.encode();
        m.truncate(FIXED_BYTES);
        m[0] = 2;
        m[16..20].copy_from_slice(&[10, 0, 0, 9]);
        m.extend(options);
        m
    }

    #[test]
    fn an_ack_is_read() {
        let options = [
            53, 1, 5, 0, 1, 4, 255, 255, 0, 0, 3, 4, 10, 0, 0, 1, 6, 8, 1, 1, 1, 1, 2, 2, 2, 2, 12, 2, b'n',
            b'1', 26, 2, 0x23, 0x28, 51, 4, 0, 0, 2, 0, 54, 4, 10, 0, 0, 2, 224, 14, b'h', b't', b't', b'p',
            b':', b'/', b'/', b'1', b'.', b'1', b'.', b'1', b'.', b'1', 255,
        ];
        let (kind, lease) = decode(&answer(&options), 7, MAC).unwrap();
        assert_eq!(kind, Kind::Ack);
        assert_eq!(lease.mask, Ipv4Addr::new(255, 255, 0, 0));
        assert_eq!(lease.gateway, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!((lease.dns.len(), lease.host_name.as_deref(), lease.mtu), (2, Some("n1"), Some(9000)));
        assert_eq!((lease.lasts, lease.boot.as_deref()), (Duration::from_secs(512), Some("http://1.1.1.1")));
    }

    #[test]
    fn nothing_that_is_broken_is_taken() {
        let good = answer(&[53, 1, 2, 54, 4, 10, 0, 0, 2, 255]);
        assert!(decode(&good, 7, MAC).is_some());
        assert!(decode(&good, 8, MAC).is_none());
        assert!(decode(&good, 7, [9; 6]).is_none());
        // Every cut either keeps the message kind or is no message; none may panic.
        for length in 0..good.len() {
            let _ = decode(&good[..length], 7, MAC);
        }
        for options in [&[53][..], &[53, 9, 1], &[51, 3, 0, 0, 0], &[1, 1, 0], &[53, 1, 200]] {
            assert!(decode(&answer(options), 7, MAC).is_none(), "{options:?}");
        }
        let odd_name = answer(&[53, 1, 2, 12, 3, b'a', b'/', b'b', 255]);
        assert_eq!(decode(&odd_name, 7, MAC).unwrap().1.host_name, None);
        let odd_url = answer(&[53, 1, 2, 224, 9, b'h', b't', b't', b'p', b':', b'/', b'/', b'\n', b'a', 255]);
        assert_eq!(decode(&odd_url, 7, MAC).unwrap().1.boot, None);
    }

    #[test]
    fn requests_have_the_length_relays_want() {
        let m = Request { kind: Kind::Discover, xid: 1, mac: MAC, current: None, offer: None }.encode();
        assert_eq!((m.len(), m[0], m[10]), (300, 1, 0x80));
    }
}
