//! PCI addresses, and drives named by them.

use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    pub domain: u32,
    pub bus: u8,
    pub device: u8,
    pub function: u8,
}

/// `0000:00:04.0`, `nvme:0000:00:04.0`, with `nN` behind it for namespace N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriveName {
    pub address: PciAddress,
    pub nsid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a PCI address such as 0000:00:04.0")]
pub struct NotAnAddress;

impl FromStr for PciAddress {
    type Err = NotAnAddress;
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let hex = |s: &str, digits: std::ops::RangeInclusive<usize>| {
            let fine = digits.contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit());
            u32::from_str_radix(s, 16).ok().filter(|_| fine).ok_or(NotAnAddress)
        };
        let (domain, rest) = text.split_once(':').ok_or(NotAnAddress)?;
        let (bus, rest) = rest.split_once(':').ok_or(NotAnAddress)?;
        let (device, function) = rest.split_once('.').ok_or(NotAnAddress)?;
        let address = PciAddress {
            domain: hex(domain, 4..=8)?,
            bus: hex(bus, 2..=2)? as u8,
            device: hex(device, 2..=2)? as u8,
            function: hex(function, 1..=1)? as u8,
        };
        if address.device < 32 && address.function < 8 { Ok(address) } else { Err(NotAnAddress) }
    }
}

impl std::fmt::Display for PciAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl PciAddress {
    pub(super) fn sysfs(self) -> PathBuf {
        PathBuf::from("/sys/bus/pci/devices").join(self.to_string())
    }
    pub fn present(self) -> bool {
        self.sysfs().exists()
    }
}

impl FromStr for DriveName {
    type Err = NotAnAddress;
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let text = text.strip_prefix("nvme:").unwrap_or(text);
        let (address, nsid) = match text.rsplit_once('n') {
            Some((address, n)) => (address, Some(n.parse().map_err(|_| NotAnAddress)?)),
            None => (text, None),
        };
        Ok(DriveName { address: address.parse()?, nsid: nsid.filter(|&n| n > 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let at = |text: &str| text.parse::<DriveName>();
        let name = at("nvme:0000:3b:1f.7n12").unwrap();
        assert_eq!((name.address.to_string().as_str(), name.nsid), ("0000:3b:1f.7", Some(12)));
        assert_eq!(at("0000:00:04.0").unwrap().nsid, None);
        assert_eq!(at("10000:00:04.0").unwrap().address.domain, 0x10000);
        for bad in [
            "/dev/nvme0n1",
            "0000:00:04",
            "00:04.0",
            "0000:00:20.0",
            "0000:00:04.8",
            "0000:0:04.0",
            "+000:00:04.0",
            "x",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
