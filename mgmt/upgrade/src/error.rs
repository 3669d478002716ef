//! What can go wrong, each with what to do next.

use std::io;

pub type Result<T> = std::result::Result<T, UpgradeError>;

/// Every message names the cause and the next step; [`UpgradeError::exit_code`] tells them apart for programs.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("this is no Basalt bundle: {0}; check that you named the right file")]
    NotABundle(String),
    #[error("the bundle needs a newer reader ({0}); install a release in between first, its notes say which")]
    NewerFormat(String),
    #[error("the bundle is cut short: {have} of {want} bytes; copy it again and compare its size")]
    Truncated { have: u64, want: u64 },
    #[error(
        "the bundle is damaged: {0}; copy it again, and if that does not help ask its vendor for a new one"
    )]
    Damaged(String),
    #[error("the bundle is not trusted: {0}")]
    Untrusted(String),
    #[error("the bundle expired on {expired} and it is {now}; ask its vendor for one that is signed anew")]
    Expired { expired: String, now: String },
    #[error(
        "the keys of the bundle expired on {expired} and it is {now}; ask its vendor for a bundle with newer keys"
    )]
    KeysExpired { expired: String, now: String },
    #[error(
        "the bundle is for other hardware: it names {wanted}, this is {found}; ask for the bundle of this model"
    )]
    WrongHardware { wanted: String, found: String },
    #[error(
        "version {bundle} is older than {running}, which runs: that is refused; to go back to the other slot use `basalt upgrade rollback`"
    )]
    Downgrade { bundle: String, running: String },
    #[error("version {0} is the one that runs; there is nothing to do")]
    SameVersion(String),
    #[error(
        "version {bundle} can only be installed from {minimum} on, and {running} runs; install {minimum} or a release after it first"
    )]
    TooOld { bundle: String, minimum: String, running: String },
    #[error("the disk cannot take it: {0}")]
    Layout(String),
    #[error(
        "the disk is not blank: it holds {0}; nothing was written. Name another one, or add --wipe if its contents may go"
    )]
    NotBlank(String),
    #[error(
        "the disk is in use: it is mounted, runs this node, or is a drive of a pool; unmount it or stop what uses it, or name another one"
    )]
    InUse,
    #[error("{0}")]
    NoWayBack(String),
    #[error(
        "the ESP is full: {need} bytes are needed and {free} are free; remove what does not belong to Basalt from it, then try again"
    )]
    EspFull { need: u64, free: u64 },
    #[error(
        "the file system of the ESP is damaged: {0}; the slot that runs is left as it is. Check it with fsck.fat before the next try"
    )]
    Fat(String),
    #[error(
        "{what} read back differs from what was written, at byte {at}; the drive is failing: replace it, or try again once"
    )]
    ReadBack { what: String, at: u64 },
    #[error("the node is not healthy: {0}")]
    Unhealthy(String),
    #[error("{what}: {source}; what was written so far is kept, and the same command goes on from there")]
    Io { what: String, source: io::Error },
}

impl UpgradeError {
    /// Documented in `docs/operations/upgrade.md`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotABundle(_) | Self::NewerFormat(_) => 10,
            Self::Truncated { .. } | Self::Damaged(_) => 11,
            Self::Untrusted(_) => 12,
            Self::Expired { .. } | Self::KeysExpired { .. } => 13,
            Self::WrongHardware { .. } => 14,
            Self::Downgrade { .. } | Self::SameVersion(_) | Self::TooOld { .. } => 15,
            Self::Layout(_)
            | Self::NotBlank(_)
            | Self::InUse
            | Self::NoWayBack(_)
            | Self::EspFull { .. }
            | Self::Fat(_) => 16,
            Self::ReadBack { .. } | Self::Io { .. } => 17,
            Self::Unhealthy(_) => 18,
        }
    }

    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
