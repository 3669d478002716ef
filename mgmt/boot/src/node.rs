//! Who asks: a node is known by the MAC address of a port and by the UUID of its mainboard (SMBIOS type 1). Firmware tells the first
//! in DHCP, iPXE and the booted system tell both.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Written as `52:54:00:12:34:56`; read with `:`, `-` or nothing between the bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

/// Written as `8-4-4-4-12` hexadecimal digits, lower case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// One or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<Uuid>,
}

impl NodeId {
    pub fn is_empty(&self) -> bool {
        self.mac.is_none() && self.uuid.is_none()
    }

    /// The same node, as far as both say: a shared MAC or UUID.
    pub fn is(&self, other: &NodeId) -> bool {
        self.mac.is_some() && self.mac == other.mac || self.uuid.is_some() && self.uuid == other.uuid
    }

    /// What either knows.
    pub fn with(&self, other: &NodeId) -> NodeId {
        NodeId { mac: self.mac.or(other.mac), uuid: self.uuid.or(other.uuid) }
    }
}

impl From<Mac> for NodeId {
    fn from(mac: Mac) -> NodeId {
        NodeId { mac: Some(mac), uuid: None }
    }
}

/// `MAC`, `UUID`.
impl FromStr for NodeId {
    type Err = String;
    fn from_str(text: &str) -> Result<NodeId, String> {
        let mac = text.parse::<Mac>().ok();
        let uuid = text.parse::<Uuid>().ok();
        match (mac, uuid) {
            (None, None) => Err(format!("{text:?} is no MAC address (52:54:00:12:34:56) and no UUID")),
            _ => Ok(NodeId { mac, uuid }),
        }
    }
}
impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.mac, self.uuid) {
            (Some(mac), _) => write!(f, "{mac}"),
            (None, Some(uuid)) => write!(f, "{uuid}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

impl FromStr for Mac {
    type Err = String;
    fn from_str(text: &str) -> Result<Mac, String> {
        let bytes = match text.len() {
            17 if text.as_bytes().iter().skip(2).step_by(3).all(|c| *c == b':' || *c == b'-') => {
                hex_bytes(text)
            }
            12 => hex_bytes(text),
            _ => None,
        };
        bytes.map(Mac).ok_or_else(|| format!("{text:?} is no MAC address such as 52:54:00:12:34:56"))
    }
}
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text: Vec<String> = self.0.iter().map(|b| format!("{b:02x}")).collect();
        f.write_str(&text.join(":"))
    }
}

impl FromStr for Uuid {
    type Err = String;
    fn from_str(text: &str) -> Result<Uuid, String> {
        let dashes = [8, 13, 18, 23];
        let shape = text.len() == 36 && dashes.iter().all(|at| text.as_bytes()[*at] == b'-');
        let bytes = if shape { hex_bytes(text) } else { None };
        bytes.map(Uuid).ok_or_else(|| format!("{text:?} is no UUID"))
    }
}
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let dash = if [4, 6, 8, 10].contains(&i) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

fn hex_bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !matches!(c, ':' | '-'))
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|d| d[0] << 4 | d[1]).collect();
    (digits.len() == 2 * N).then(|| bytes.try_into().ok()).flatten()
}

macro_rules! as_text {
    ($type:ty) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(Mac);
as_text!(Uuid);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
        for text in ["52:54:00:12:34:ab", "52-54-00-12-34-AB", "5254001234ab"] {
            assert_eq!(text.parse::<Mac>().unwrap(), mac, "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:12:34:ab");
        let uuid = "4c4c4544-0042-3510-8052-B4C04F4E3132".parse::<Uuid>().unwrap();
        assert_eq!(uuid.to_string(), "4c4c4544-0042-3510-8052-b4c04f4e3132");
        for bad in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:zz",
            "52:54:00:12:34:5é",
            "4c4c4544004235108052b4c04f4e3132",
            "….….….….….….…",
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
