//! Whom a client of the management plane believes, and what it proves itself with. BMCs and switches are alike here: their
//! certificates are mostly their own, so that trust is a CA, one pinned certificate, or said aloud to be none; and some
//! echo in their errors what they were sent, so that secrets are blotted out of what is quoted.

mod certain;
mod fingerprint;
mod secret;
mod trust;

pub use certain::changed;
pub use fingerprint::Fingerprint;
pub use secret::Secret;
pub use trust::{BadSetting, Identity, Trust};
