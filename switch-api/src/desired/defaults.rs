//! What each vendor's guides set where the intent is silent. Sources are beside the numbers.

use crate::intent::{DriverKind, Fec};
use crate::names::InterfaceName;

/// One vendor's defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    pub mtu_bytes: u32,
    /// Detection and restoration of the PFC watchdog.
    pub watchdog_ms: (u32, u32),
    /// Marking at 100 Gb/s: from, full at, percent.
    ecn_100g: (u64, u64, u8),
    /// Packet buffer of the usual 100G leaf.
    pub buffer_mib: u32,
    lag_prefix: &'static str,
}

impl Defaults {
    pub fn of(kind: DriverKind) -> Self {
        match kind {
            // sonic-buildimage: MTU 9100 is the PORT table's default (platform port_config); WRED_PROFILE AZURE_LOSSLESS
            // in files/build_templates/qos_config.j2 marks green from 1 MiB, full at 2 MiB, 5 percent; sonic-utilities
            // pfcwd: 200 ms detection. 400 ms restoration as in SONiC's PFC watchdog test plan.
            //
            // Dell Enterprise SONiC User Guide, "RoCE": `roce enable` sets DSCP 26 to TC 3, 48 to TC 6, PFC on 3 and the same
            // WRED thresholds as the community's lossless profile.
            DriverKind::SonicGnmi | DriverKind::SonicRedis | DriverKind::DellSonic => Self {
                mtu_bytes: 9100,
                watchdog_ms: (200, 400),
                ecn_100g: (1 << 20, 2 << 20, 5),
                buffer_mib: 32,
                lag_prefix: "PortChannel",
            },
            // Arista EOS User Manual: the largest MTU is 9214, ECN is off until thresholds are given. These lie within what
            // deployment guides use on 100G (Broadcom, "Lossless Network for AI/ML/Storage/HPC with RDMA", 2024): our choice.
            DriverKind::Eos => Self {
                mtu_bytes: 9214,
                watchdog_ms: (200, 400),
                ecn_100g: (500_000, 1_500_000, 20),
                buffer_mib: 32,
                lag_prefix: "Port-Channel",
            },
            // Cumulus Linux User Guide, "RDMA over Converged Ethernet": `nv set qos roce` marks TC 3 from about 150 kB to about
            // 1.5 MB (NVIDIA Onyx, "RoCE Commands": min 150, max 1500), RoCE weighted 50 percent, CNP strict; MTU 9216 is the
            // default; "PFC watchdog": polls every 100 ms, three times.
            DriverKind::Nvue => Self {
                mtu_bytes: 9216,
                watchdog_ms: (300, 300),
                ecn_100g: (150_000, 1_501_500, 100),
                buffer_mib: 32,
                lag_prefix: "bond",
            },
            // Software: no lossless class; the MTU that suits all the others.
            DriverKind::Ovs => Self {
                mtu_bytes: 9100,
                watchdog_ms: (200, 400),
                ecn_100g: (1 << 20, 2 << 20, 5),
                buffer_mib: 32,
                lag_prefix: "lag",
            },
        }
    }

    /// Marking thresholds (from, full at, percent) for a port of this speed.
    ///
    /// The vendors' numbers are for ports up to 100 Gb/s. A threshold is a delay, so above that it grows with the speed (DCQCN,
    /// Zhu et al., SIGCOMM 2015, section 4), but never so far that one queue may hold a sixteenth of the buffer before every
    /// packet is marked: PFC must stay the exception.
    pub fn ecn(&self, speed_gbps: u32, buffer_mib: u32) -> (u64, u64, u8) {
        let (min, max, percent) = self.ecn_100g;
        let grown = |bytes: u64| bytes * u64::from(speed_gbps.max(100)) / 100;
        let most = (u64::from(buffer_mib) << 20) / 16;
        let max_bytes = grown(max).min(most).max(1);
        (grown(min).min(max_bytes / 2).max(1), max_bytes, percent)
    }

    /// Name of the LAG with this number.
    pub fn lag_name(&self, id: u16) -> InterfaceName {
        format!("{}{id}", self.lag_prefix).into()
    }

    /// Error correction that the speed asks for (IEEE 802.3: clause 91 for 25G and 100G, 134 and 119 for PAM4 lanes).
    pub fn fec(speed_gbps: u32) -> Option<Fec> {
        (speed_gbps >= 25 && speed_gbps != 40).then_some(Fec::Rs)
    }
}
