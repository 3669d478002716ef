//! What a bundle says about itself, and whether it suits a node.

use crate::error::{Result, UpgradeError};
use crate::time::rfc3339;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Parts are hashed in pieces of this size, so that what is written is checked again while it is written.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// The ESP has 1 GiB and a root partition 512 MiB; a bundle beyond that fits no disk of ours.
pub const MAX_PART_BYTES: u64 = 4 << 30;

/// `MAJOR.MINOR.PATCH`, compared number by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> std::result::Result<Version, String> {
        let numbers: Vec<u32> = text
            .split('.')
            // Only one spelling for each version: it becomes a file name.
            .filter_map(|n| n.parse().ok().filter(|v: &u32| v.to_string() == n))
            .collect();
        match (&numbers[..], text.split('.').count()) {
            ([major, minor, patch], 3) => Ok(Version(*major, *minor, *patch)),
            _ => Err(format!("{text:?} is no version such as 1.2.3")),
        }
    }
}
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}
impl TryFrom<String> for Version {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Version, String> {
        text.parse()
    }
}
impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Version, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// JSON; fields that a reader does not know are ignored, what it must know is a feature flag of the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub product: String,
    pub version: Version,
    pub architecture: String,
    pub created: u64,
    pub expires: u64,
    /// The oldest version that this one may be installed from.
    pub minimum_version: Version,
    /// Patterns over `VENDOR/PRODUCT` of the mainboard's firmware; `*` matches any run of characters.
    pub hardware: Vec<String>,
    pub root_hash: String,
    pub root_data_blocks: u64,
    pub root_salt: String,
    #[serde(default)]
    pub notes: String,
    pub chunk_bytes: u64,
    pub parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The kernel image that goes to the ESP.
    Uki,
    /// The bytes of a root partition, verity data included.
    Root,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub kind: Kind,
    pub size_bytes: u64,
    pub sha256: String,
    /// SHA-256 of each [`CHUNK_BYTES`].
    pub chunks: Vec<String>,
}

/// What a manifest is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// None where no Basalt runs, as on the machine of whoever makes a bundle.
    pub version: Option<Version>,
    pub architecture: String,
    /// `VENDOR/PRODUCT`
    pub hardware: String,
}

impl Manifest {
    /// Shape and bounds; called once the signatures are known to be right.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |why: &str| Err(UpgradeError::Damaged(format!("its manifest {why}")));
        if self.product != "basalt" {
            return bad("is for another product");
        }
        if self.chunk_bytes != CHUNK_BYTES || self.hardware.len() > 1024 {
            return bad("has sizes this version does not know");
        }
        if self.parts.iter().map(|p| p.kind).ne([Kind::Uki, Kind::Root]) {
            return bad("does not name exactly a kernel image and a root");
        }
        for part in &self.parts {
            let chunks = part.size_bytes.div_ceil(CHUNK_BYTES);
            if part.size_bytes == 0 || part.size_bytes > MAX_PART_BYTES || chunks != part.chunks.len() as u64
            {
                return bad("has sizes that do not fit each other");
            }
        }
        Ok(())
    }

    /// Not expired, right hardware, right version: the first thing that is wrong.
    pub fn suits(&self, node: &Node, now_s: u64) -> Result<()> {
        self.not_expired(now_s)?;
        let fits_hardware = self.hardware.iter().any(|pattern| matches(pattern, &node.hardware));
        if self.architecture != node.architecture || !fits_hardware {
            return Err(UpgradeError::WrongHardware {
                wanted: format!("{} on {}", self.hardware.join(" or "), self.architecture),
                found: format!("{} on {}", node.hardware, node.architecture),
            });
        }
        let Some(running) = node.version else { return Ok(()) };
        if self.version == running {
            return Err(UpgradeError::SameVersion(running.to_string()));
        }
        let (bundle, running_text) = (self.version.to_string(), running.to_string());
        if self.version < running {
            return Err(UpgradeError::Downgrade { bundle, running: running_text });
        }
        if running < self.minimum_version {
            let minimum = self.minimum_version.to_string();
            return Err(UpgradeError::TooOld { bundle, minimum, running: running_text });
        }
        Ok(())
    }

    pub fn not_expired(&self, now_s: u64) -> Result<()> {
        match now_s > self.expires {
            true => Err(UpgradeError::Expired { expired: rfc3339(self.expires), now: rfc3339(now_s) }),
            false => Ok(()),
        }
    }

    pub fn part(&self, kind: Kind) -> Option<&Part> {
        self.parts.iter().find(|p| p.kind == kind)
    }
}

/// `*` for any run of characters, everything else for itself, capitals or not. Linear in pattern times text.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.to_lowercase());
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        let v = |t: &str| t.parse::<Version>();
        assert!(v("1.10.0").unwrap() > v("1.9.9").unwrap());
        for bad in
            ["", "1", "1.2", "1.2.3.4", "1.2.x", "01.2.3", "1.2.3-rc1", "1..3", "+1.2.3", "1.2.99999999999"]
        {
            assert!(v(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, text, yes) in [
            ("*", "QEMU/Standard PC", true),
            ("Dell Inc./PowerEdge R7*", "Dell Inc./PowerEdge R7625", true),
            ("Dell Inc./PowerEdge R7*", "Dell Inc./PowerEdge R6625", false),
            ("*/powerEDGE*25", "Dell Inc./PowerEdge R7625", true),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXb", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), yes, "{pattern} {text}");
        }
    }
}
