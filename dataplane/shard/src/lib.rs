//! The file system.
pub mod vfs;
