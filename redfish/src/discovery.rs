//! Finding BMCs: by SSDP (DSP0266 "Discovery"), by asking every address of a subnet, or from a list. Looking needs no credentials
//! and sends none: only `GET /redfish/v1/`.

mod probe;
mod range;
mod ssdp;

pub use probe::{Found, ProbeOptions, presented_certificate, probe, probe_all};
pub use range::{AddressRange, RangeError};
pub use ssdp::{SsdpOptions, search};
