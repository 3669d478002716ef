//! Where the fabric is not as it should be, one sentence per place.

mod cabling;
mod configured;
pub mod mtu;
mod trend;

pub use trend::trend;

use crate::desired::Desired;
use crate::names::{DeviceName, InterfaceName};
use crate::plan::Plan;
use crate::switch::Observed;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Works, and less well than it should.
    Warning,
    /// Does not work as wanted.
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// Configured otherwise than wanted.
    Drift,
    /// Named by the intent, owned by someone else.
    NotOwned,
    WrongCable,
    MissingNeighbour,
    LinkDown,
    /// Configured as wanted, running otherwise.
    LinkDiffers,
    PathMtu,
    Errors,
    Congestion,
    PfcStorm,
    /// The switch could not be asked.
    NoAnswer,
}

/// One thing that is not as it should be: "port Ethernet12 on leaf-2: MTU 1500, wanted 9100".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    pub severity: Severity,
    pub kind: FindingKind,
    pub device: DeviceName,
    pub port: Option<InterfaceName>,
    /// What is so, and what was wanted.
    pub text: String,
}

impl Finding {
    pub fn new(severity: Severity, kind: FindingKind, device: &DeviceName, text: impl Into<String>) -> Self {
        Self { severity, kind, device: device.clone(), port: None, text: text.into() }
    }

    pub fn at(mut self, port: &InterfaceName) -> Self {
        self.port = Some(port.clone());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Some(port) => write!(f, "port {port} on {}: {}", self.device, self.text),
            None => write!(f, "{}: {}", self.device, self.text),
        }
    }
}

/// Everything about one switch: configuration (as its `plan` tells), running links, cabling.
pub fn switch(plan: &Plan, observed: &Observed, desired: &Desired) -> Vec<Finding> {
    let mut findings = configured::drift(plan);
    findings.extend(configured::running(observed, desired));
    findings.extend(cabling::cabling(observed, desired));
    findings
}
