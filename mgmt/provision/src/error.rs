//! What goes wrong with the list itself; what goes wrong with a server is a [`crate::fault::Fault`] of its node.

use crate::node::NodeName;

pub type Result<T> = std::result::Result<T, ProvisionError>;

#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error("there is no node {0}; `basalt node list` shows those there are")]
    NoSuchNode(NodeName),
    #[error("there is a node {0} already; remove it, or choose another name")]
    Exists(NodeName),
    #[error("another command works on node {0}; wait until it has ended")]
    Claimed(NodeName),
    #[error("node {0} was changed by another command in the meantime; try again")]
    Changed(NodeName),
    #[error("{0}")]
    Invalid(String),
    #[error("there are {0} nodes already, the most that the list takes")]
    Full(usize),
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("{path} is damaged ({why}); move it away and add the node again, or put back a copy")]
    Damaged { path: String, why: String },
    #[error(transparent)]
    Boot(#[from] basalt_boot::BootError),
    /// Made by tests only: the process was killed here.
    #[error("killed")]
    Killed,
}

impl ProvisionError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
