//! Which namespaces can be drives, and how their blocks are addressed. What cannot is refused in plain words.

use crate::spec::command::{CHECK_GUARD, CHECK_REFERENCE_TAG, PROTECTION_ACTION};
use crate::spec::identify::{CommandSet, IdentifyNamespace};
use basalt_bdev::BLOCK_BYTES;

/// How a namespace is formatted, as far as reads and writes care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// 512 to 4096.
    pub block_bytes: u32,
    pub blocks: u64,
    pub protection: Protection,
}

/// End-to-end protection information (NVM 5.2), 8 bytes per block that the controller makes and checks (PRACT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    /// Reference tag: the low 32 bits of the LBA.
    Type1,
    Type2,
    /// Guard only.
    Type3,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refused {
    #[error(
        "it is a zoned (ZNS) namespace, which takes only sequential writes; use a drive with ordinary namespaces, or delete this one and create it without zones"
    )]
    Zoned,
    #[error("it is a key-value namespace; use a drive with ordinary (NVM) namespaces")]
    KeyValue,
    #[error(
        "it has a command set of number {0} that is not known here; use a drive with ordinary (NVM) namespaces"
    )]
    CommandSet(u8),
    #[error("it is not active; attach it to this controller first")]
    Inactive,
    #[error("its blocks of {0} bytes do not divide 4096; format it with blocks of 512 or 4096 bytes")]
    BlockSize(u64),
    #[error(
        "its blocks carry {0} bytes of metadata that are not protection information; format it without metadata, or with 8 bytes and protection information"
    )]
    Metadata(u16),
    #[error(
        "its blocks carry {0} bytes of metadata with protection information; only 8 bytes can be made by the drive itself; format it without metadata or with 8 bytes"
    )]
    WideMetadata(u16),
    #[error("it holds less than 4096 bytes")]
    TooSmall,
}

impl Format {
    pub fn of(namespace: &IdentifyNamespace, set: CommandSet) -> Result<Format, Refused> {
        match set {
            CommandSet::Nvm => {}
            CommandSet::Zoned => return Err(Refused::Zoned),
            CommandSet::KeyValue => return Err(Refused::KeyValue),
            CommandSet::Other(n) => return Err(Refused::CommandSet(n)),
        }
        let blocks = namespace.size_blocks.get();
        if blocks == 0 {
            return Err(Refused::Inactive);
        }
        let lba = namespace.current_format();
        let block_bytes = 1u64.checked_shl(lba.data_shift.into()).unwrap_or(0);
        if !(512..=BLOCK_BYTES).contains(&block_bytes) {
            return Err(Refused::BlockSize(block_bytes));
        }
        let protection = match (lba.metadata_bytes.get(), namespace.protection_type()) {
            (0, _) => Protection::None,
            (n, 0) => return Err(Refused::Metadata(n)),
            (8, 1) => Protection::Type1,
            (8, 2) => Protection::Type2,
            (8, 3) => Protection::Type3,
            (n, 1..=3) => return Err(Refused::WideMetadata(n)),
            (n, _) => return Err(Refused::Metadata(n)),
        };
        let format = Format { block_bytes: block_bytes as u32, blocks, protection };
        if format.size_bytes() == 0 {
            return Err(Refused::TooSmall);
        }
        Ok(format)
    }

    /// In whole units of 4 KiB.
    pub fn size_bytes(&self) -> u64 {
        let bytes = u128::from(self.blocks) * u128::from(self.block_bytes);
        u64::try_from(bytes).unwrap_or(u64::MAX) / BLOCK_BYTES * BLOCK_BYTES
    }

    pub fn lba(&self, offset_bytes: u64) -> u64 {
        offset_bytes / u64::from(self.block_bytes)
    }

    /// 1-based count of blocks.
    pub fn block_count(&self, len_bytes: u64) -> u32 {
        (len_bytes / u64::from(self.block_bytes)) as u32
    }

    /// CDW12 bits and CDW14 (initial or expected reference tag) of a read, write or compare.
    pub fn protection_words(&self, lba: u64) -> (u32, u32) {
        match self.protection {
            Protection::None => (0, 0),
            Protection::Type1 | Protection::Type2 => {
                (PROTECTION_ACTION | CHECK_GUARD | CHECK_REFERENCE_TAG, lba as u32)
            }
            Protection::Type3 => (PROTECTION_ACTION | CHECK_GUARD, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::identify::LbaFormat;
    use zerocopy::FromZeros;

    fn namespace(data_shift: u8, metadata_bytes: u16, protection: u8) -> IdentifyNamespace {
        let mut ns = IdentifyNamespace::new_zeroed();
        ns.size_blocks = 1000.into();
        ns.format = 2;
        ns.formats[2] = LbaFormat { metadata_bytes: metadata_bytes.into(), data_shift, performance: 0 };
        ns.protection = protection;
        ns
    }

    #[test]
    fn accepted() {
        let of = |ns| Format::of(&ns, CommandSet::Nvm).unwrap();
        let f = of(namespace(9, 0, 0));
        assert_eq!(
            (f.block_bytes, f.size_bytes(), f.lba(8192), f.block_count(4096)),
            (512, 125 * 4096, 16, 8)
        );
        assert_eq!(of(namespace(12, 0, 0)).size_bytes(), 4096000);
        // Type 1 in its first eight bytes.
        let f = of(namespace(12, 8, 9));
        assert_eq!(f.protection, Protection::Type1);
        assert_eq!(f.protection_words(7), (0x3400_0000, 7));
    }

    #[test]
    fn refused_in_words() {
        for (ns, set, words) in [
            (namespace(12, 0, 0), CommandSet::Zoned, "zoned (ZNS)"),
            (namespace(12, 0, 0), CommandSet::KeyValue, "key-value"),
            (namespace(16, 0, 0), CommandSet::Nvm, "65536 bytes"),
            (namespace(255, 0, 0), CommandSet::Nvm, "do not divide"),
            (namespace(12, 8, 0), CommandSet::Nvm, "8 bytes of metadata that are not"),
            (namespace(12, 64, 1), CommandSet::Nvm, "64 bytes"),
            (IdentifyNamespace::new_zeroed(), CommandSet::Nvm, "not active"),
        ] {
            let message = Format::of(&ns, set).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}
