//! Boot service: brings servers up over the network, by what was decided for each, and sees how far each one got.
//!
//! `basalt boot serve` runs it alone; the agent embeds it with stores of its own. `docs/operations/boot.md` says how to use it.
//!
//! | | |
//! |---|---|
//! | [`node`] | who asks: MAC address, system UUID |
//! | [`decision`] | install, diskless, local, quarantine; trait [`Decisions`] |
//! | [`token`] | one-shot tokens, each good for one boot and one join; trait [`Tokens`] |
//! | [`event`] | one event for each step of a boot, and which boot hangs; trait [`Events`] |
//! | [`store`] | the three traits on files that survive a crash |
//! | [`images`] | the versions that can be booted |
//! | [`dnsmasq`] | DHCP, proxyDHCP and TFTP by a supervised child |
//! | [`ipxe`] | scripts |
//! | [`http`] | the server that nodes fetch from and report to |
//! | [`service`] | all of it together |

mod clock;
pub mod decision;
pub mod dnsmasq;
mod error;
pub mod event;
pub mod http;
pub mod images;
pub mod ipxe;
pub mod node;
pub mod service;
pub mod store;
pub mod token;

pub use clock::now_s;
pub use decision::Decisions;
pub use error::{BootError, Result};
pub use event::Events;
pub use token::Tokens;
