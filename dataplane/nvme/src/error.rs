//! What can go wrong with a controller, and what to do about it.

use crate::dma::DmaError;
use crate::format::Refused;
use crate::spec::Status;

#[derive(Clone, Debug, thiserror::Error)]
pub enum NvmeError {
    #[error("{0}: gone; it was removed or lost its link")]
    Gone(String),
    #[error("{0}: does not answer ({1}); power-cycle or replace it")]
    Failed(String, String),
    #[error("{0}: is being reset; try again in a moment")]
    Resetting(String),
    #[error("{name}: {what} did not end within {ms} ms")]
    Timeout { name: String, what: &'static str, ms: u64 },
    #[error("{name}: {what}: {status}")]
    Status { name: String, what: &'static str, status: Status },
    #[error("{name}: {why}")]
    Unsuitable { name: String, why: String },
    #[error("{name}: namespace {nsid} cannot be used: {why}")]
    Namespace { name: String, nsid: u32, why: Refused },
    #[error("{0}: has no namespace; create one first")]
    NoNamespace(String),
    #[error("{name}: all {granted} queue pairs are in use; run fewer reactors (BASALT_CORES)")]
    NoQueue { name: String, granted: u16 },
    #[error("{name}: {cause}")]
    Dma { name: String, cause: DmaError },
    #[error("{0}: is in use; stop what uses it first")]
    InUse(String),
    #[error("{name}: {cause}")]
    Vfio { name: String, cause: String },
    #[error("{name}: {what} is not supported by this drive")]
    Unsupported { name: String, what: &'static str },
}

pub type Result<T> = std::result::Result<T, NvmeError>;
