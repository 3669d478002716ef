//! A bundle: everything that an upgrade needs, in one file.
//!
//! | bytes | what |
//! |---|---|
//! | 64 | [`format::Header`]: lengths of what follows |
//! | `roots_len` | key chain: the roots since the oldest that is still in the field, each with its signatures |
//! | `manifest_len` | [`Manifest`](crate::manifest::Manifest), JSON |
//! | `signatures_len` | signatures over header, key chain and manifest |
//! | `payload_len` | the parts, one behind the other, nothing between them and nothing behind |
//!
//! The manifest holds the SHA-256 of every MiB of every part, so the signatures cover every byte of the file. Reading goes in
//! steps that the types enforce: [`Bundle::open`] looks at nothing but lengths, [`Bundle::authenticate`] checks who signed it,
//! [`Authentic::check_payload`] reads the file once from end to end, and [`Checked::chunk`] checks each piece again when it is
//! taken, so a file that changes in between (a stick, a share) is caught before it reaches the disk.

mod build;
pub mod format;
mod read;

pub use build::{Recipe, build};
pub use read::{Authentic, Bundle, Checked, Source};
