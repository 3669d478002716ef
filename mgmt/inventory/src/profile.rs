//! What is expected of a node, as YAML that people write. What a profile does not mention is not looked at.
//!
//! ```yaml
//! version: 1
//! name: flash-24
//! processors: {count: 2, model: "*Xeon*8358*"}
//! memory: {at_least: 512GiB}
//! drives:
//!   - {count: 24, size: 3.84TB, protocol: NVMe, firmware: "1.2.3"}
//! ports:
//!   - {count: 2, speed: 200G, link: up, rdma: true}
//! firmware: {BIOS: "1.8.2"}
//! cabling:
//!   - {port: "NIC.Slot.3-1", to: "leaf-1/*"}
//! ```

use crate::units::parse_bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("{0}; see docs/operations/servers.md for what a profile may say")]
    Invalid(String),
    #[error("this profile is of version {0}; this program knows version 1")]
    Version(u32),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub version: u32,
    pub name: String,
    /// Models that this profile is for, `*` for anything; all by default.
    #[serde(default)]
    pub models: Vec<String>,
    #[serde(default)]
    pub processors: Option<Processors>,
    #[serde(default)]
    pub memory: Option<Memory>,
    #[serde(default)]
    pub drives: Vec<Drives>,
    #[serde(default)]
    pub ports: Vec<Ports>,
    #[serde(default)]
    pub power_supplies: Option<Supplies>,
    #[serde(default)]
    pub fans: Option<Fans>,
    /// Component, by id or name with `*`, to the lowest version.
    #[serde(default)]
    pub firmware: BTreeMap<String, String>,
    #[serde(default)]
    pub cpu_features: Vec<String>,
    /// Devices stand in IOMMU groups.
    #[serde(default)]
    pub iommu: Option<bool>,
    #[serde(default)]
    pub hugepages: Option<Hugepages>,
    #[serde(default)]
    pub cabling: Vec<Cable>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Processors {
    #[serde(default)]
    pub count: Option<u32>,
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub cores: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    #[serde(default)]
    pub at_least: Option<Size>,
    #[serde(default)]
    pub modules: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drives {
    pub count: u32,
    #[serde(default)]
    pub model: Option<String>,
    /// As sold: within 5 % counts as equal.
    #[serde(default)]
    pub size: Option<Size>,
    #[serde(default)]
    pub protocol: Option<String>,
    /// The lowest version.
    #[serde(default)]
    pub firmware: Option<String>,
    #[serde(default)]
    pub used_at_most_percent: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ports {
    pub count: u32,
    /// Of the adapter.
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub speed: Option<Speed>,
    #[serde(default)]
    pub link: Option<Link>,
    #[serde(default)]
    pub rdma: Option<bool>,
    /// Of the adapter, the lowest version.
    #[serde(default)]
    pub firmware: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    Up,
    Any,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supplies {
    #[serde(default)]
    pub count: Option<u32>,
    #[serde(default)]
    pub watts: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fans {
    pub count: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hugepages {
    pub size: Size,
    pub at_least: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cable {
    /// Name, interface or MAC address.
    pub port: String,
    /// `SWITCH/PORT`, as LLDP names them; `*` for anything.
    pub to: String,
}

/// Bytes, written as `3.84TB` or `512GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

/// Mb/s, written as `25G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum TextOrNumber {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Size, D::Error> {
        match TextOrNumber::deserialize(d)? {
            TextOrNumber::Number(bytes) => Ok(Size(bytes)),
            TextOrNumber::Text(text) => parse_bytes(&text).map(Size).ok_or_else(|| {
                serde::de::Error::custom(format!("{text:?} is no size such as 3.84TB or 512GiB"))
            }),
        }
    }
}
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Speed {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Speed, D::Error> {
        let (number, text) = match TextOrNumber::deserialize(d)? {
            TextOrNumber::Number(mbps) => (Some(mbps), String::new()),
            TextOrNumber::Text(text) => {
                let trimmed = text.trim().trim_end_matches(|c: char| "bits/ps".contains(c));
                let (digits, factor) = match trimmed.strip_suffix(['G', 'g']) {
                    Some(digits) => (digits, 1000),
                    None => (trimmed.strip_suffix(['M', 'm']).unwrap_or(trimmed), 1),
                };
                (digits.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(factor)), text)
            }
        };
        number.map(Speed).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no speed such as 25G")))
    }
}
impl Serialize for Speed {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u64(self.0)
    }
}

impl Profile {
    pub fn from_yaml(text: &str) -> Result<Profile, ProfileError> {
        let profile: Profile =
            serde_saphyr::from_str(text).map_err(|e| ProfileError::Invalid(e.to_string()))?;
        match profile.version {
            1 => Ok(profile),
            other => Err(ProfileError::Version(other)),
        }
    }

    pub fn is_for(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|pattern| matches_glob(pattern, model))
    }
}

/// `*` stands for anything; upper and lower case are the same.
pub fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_lowercase(), text.trim().to_lowercase());
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Versions compare number by number, words as words: 1.10 is newer than 1.9, and 1.0 the same as 1.0.0.
pub fn version_at_least(version: &str, wanted: &str) -> bool {
    compare_versions(version, wanted) != Ordering::Less
}

fn compare_versions(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    for i in 0..a.len().max(b.len()) {
        let order = match (a.get(i), b.get(i)) {
            (Some(Part::Number(x)), Some(Part::Number(y))) => x.cmp(y),
            (Some(Part::Word(x)), Some(Part::Word(y))) => x.cmp(y),
            // A number outranks a word: 1.0.1 is newer than 1.0rc.
            (Some(Part::Number(_)), Some(Part::Word(_))) => Ordering::Greater,
            (Some(Part::Word(_)), Some(Part::Number(_))) => Ordering::Less,
            (Some(Part::Number(0)), None) | (None, Some(Part::Number(0))) => Ordering::Equal,
            (Some(_), None) => Ordering::Greater,
            (None, Some(_)) => Ordering::Less,
            (None, None) => Ordering::Equal,
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

enum Part {
    Number(u64),
    Word(String),
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut run = String::new();
    let mut end = |run: &mut String| {
        if !run.is_empty() {
            parts.push(match run.parse() {
                Ok(number) => Part::Number(number),
                Err(_) => Part::Word(run.to_lowercase()),
            });
            run.clear();
        }
    };
    for c in text.trim().chars().take(128) {
        let same = run.chars().last().is_some_and(|l| l.is_ascii_digit() == c.is_ascii_digit());
        if !c.is_alphanumeric() || !same {
            end(&mut run);
        }
        if c.is_alphanumeric() {
            run.push(c);
        }
    }
    end(&mut run);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions() {
        for (newer, older) in [
            ("1.10.0", "1.9.9"),
            ("2.1.3", "2.1"),
            ("22.31.1014", "22.31.1009"),
            ("1.0.1", "1.0rc"),
            ("7.00.00.172", "6.10.80.00"),
        ] {
            assert!(version_at_least(newer, older) && !version_at_least(older, newer), "{newer} {older}");
        }
        assert!(version_at_least("1.0", "1.0.0") && version_at_least("1.0.0", "1.0"));
    }

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("*Xeon*8358*", "Intel(R) Xeon(R) Platinum 8358 CPU", true),
            ("leaf-1/*", "leaf-1/Ethernet12", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches_glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn mistakes_in_a_profile_are_named() {
        let error = Profile::from_yaml("version: 1\nname: x\ndrives: [{cuont: 3}]").unwrap_err().to_string();
        assert!(error.contains("cuont"), "{error}");
        let error =
            Profile::from_yaml("version: 1\nname: x\nmemory: {at_least: lots}").unwrap_err().to_string();
        assert!(error.contains("lots") && error.contains("512GiB"), "{error}");
        assert!(matches!(Profile::from_yaml("version: 2\nname: x"), Err(ProfileError::Version(2))));
        let profile = Profile::from_yaml("version: 1\nname: x\nports: [{count: 2, speed: 200Gb/s}]").unwrap();
        assert_eq!(profile.ports[0].speed, Some(Speed(200_000)));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_read(text in ".{0,400}") {
            let _ = Profile::from_yaml(&text);
        }
        #[test]
        fn comparing_versions_is_an_order(a in "[0-9a-c.]{0,8}", b in "[0-9a-c.]{0,8}") {
            prop_assert_eq!(compare_versions(&a, &b), compare_versions(&b, &a).reverse());
            prop_assert_eq!(compare_versions(&a, &a), Ordering::Equal);
        }
        #[test]
        fn a_glob_of_the_text_itself_matches(text in "[a-zA-Z0-9 ./-]{0,20}") {
            prop_assert!(matches_glob(text.trim(), &text));
            let starred = format!("*{}*", text.trim());
            prop_assert!(matches_glob(&starred, &text));
        }
    }
}
