//! dnsmasq answers DHCP and TFTP: no Rust library does proxyDHCP, and its quirks with firmware of twenty years are known. It runs
//! as a supervised child with a configuration made here; what it logs becomes events.

mod child;
mod config;
mod log;

pub use child::{Child, News};
pub use config::{Addresses, Dhcp, Network, hosts, main, tftp_name};
pub use log::{Line, parse};
