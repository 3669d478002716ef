//! Field upgrade of a node: one signed file in, the idle slot of the disk out, and a way back at every moment.
//!
//! What an operator does with it stands in `docs/operations/upgrade.md`, where the parts of a disk are in
//! `docs/operations/image.md`, and why signatures are checked by code of our own in
//! `docs/decisions/`.
//!
//! | | |
//! |---|---|
//! | [`bundle`] | the file: header, key chain, manifest, signatures, parts; reading and making it |
//! | [`manifest`] | what a bundle says about itself, and whether it suits a node |
//! | [`trust`] | keys, thresholds, rotation, expiry |
//! | [`media`], [`gpt`], [`fat`] | a disk as bytes, its partitions, the ESP's file system |
//! | [`uki`], [`verity`] | what a kernel image and a root partition say about themselves |
//! | [`slots`] | which slots a disk has, and which of them the boot loader would take |
//! | [`install`] | writes the idle slot |
//! | [`make`] | lays a disk out and writes its first slot |
//! | [`bless`] | the health gate, blessing and rolling back |

pub mod bless;
pub mod bundle;
mod error;
pub mod fat;
pub mod gpt;
pub mod install;
pub mod make;
pub mod manifest;
pub mod media;
pub mod node;
pub mod slots;
pub mod time;
pub mod trust;
pub mod uki;
pub mod verity;

pub use error::{Result, UpgradeError};
