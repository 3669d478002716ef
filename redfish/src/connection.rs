//! How a BMC is reached: address, credentials, trust, and the bounds of every exchange.

use crate::credentials::Credentials;
use crate::quirks::QuirkChoice;
use basalt_trust::Trust;
use std::time::Duration;

/// Bounds of every exchange with one BMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub connect: Duration,
    /// One request with its whole answer. iDRACs take up to 30 s for storage while the server boots.
    pub request: Duration,
    /// The largest resources known are BIOS attribute registries of some 2 MB.
    pub body_bytes: u64,
    /// Members of one collection, over all its pages.
    pub members: usize,
    /// Tries in all for a request that may be repeated.
    pub attempts: u32,
    pub first_pause: Duration,
    /// Pauses double up to this; a BMC's own Retry-After is kept to it as well.
    pub longest_pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(60),
            body_bytes: 8 << 20,
            members: 4096,
            attempts: 4,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(10),
        }
    }
}

/// How we prove who we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// A session where the service has them, else basic authentication.
    #[default]
    Auto,
    Session,
    Basic,
}

/// Everything needed to speak to one BMC.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Host name or address.
    pub address: String,
    pub port: u16,
    pub credentials: Credentials,
    pub trust: Trust,
    pub auth: Auth,
    pub limits: Limits,
    pub quirks: QuirkChoice,
    /// Where given, the server must answer with this serial number before anything is changed on it.
    pub expected_serial: Option<String>,
}

impl Connection {
    /// HTTPS on port 443 with the usual bounds.
    pub fn new(address: impl Into<String>, credentials: Credentials, trust: Trust) -> Self {
        let port = if trust == Trust::Plaintext { 80 } else { 443 };
        Self {
            address: address.into(),
            port,
            credentials,
            trust,
            auth: Auth::Auto,
            limits: Limits::default(),
            quirks: QuirkChoice::Detect,
            expected_serial: None,
        }
    }

    /// `host:port` for messages and the Host header.
    pub fn endpoint(&self) -> String {
        match &self.address {
            six if six.contains(':') => format!("[{six}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}
