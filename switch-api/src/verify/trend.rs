//! What two readings of the counters say about the time between them.

use super::{Finding, FindingKind, Severity};
use crate::desired::Desired;
use crate::names::InterfaceName;
use crate::state::Object;
use crate::switch::Counters;
use std::collections::BTreeSet;
use std::time::Duration;

/// Bit error ratio after correction that IEEE 802.3 allows is about 1e-12; before correction RS-544 copes with some 1e-5
/// corrected codewords. More corrected codewords per second than this is a link on its way out.
const FEC_CORRECTED_PER_S: u64 = 10_000;
/// A pause now and then is what PFC is for; this many per second and ECN is not doing its work.
const PFC_FRAMES_PER_S: u64 = 1_000;

/// Findings from what one switch counted in the time `between` two readings ([`Counters::since`]).
pub fn trend(desired: &Desired, counted: &Counters, between: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let device = &desired.switch;
    let lossless: BTreeSet<(&InterfaceName, u8)> = desired
        .state
        .iter()
        .filter_map(|(_, object)| if let Object::PortQos(qos) = object { Some(qos) } else { None })
        .flat_map(|qos| qos.pfc_priorities.iter().map(|priority| (&qos.port, *priority)))
        .collect();
    let seconds = between.as_secs().max(1);
    for (port, counted) in &counted.ports {
        let mut say = |severity, kind, text: String| {
            findings.push(Finding::new(severity, kind, device, text).at(port));
        };
        let errors = [
            ("receive errors", counted.rx_errors),
            ("transmit errors", counted.tx_errors),
            ("frames with a wrong checksum", counted.fcs_errors),
            ("codewords beyond correction", counted.fec_uncorrectable),
        ];
        for (what, new) in errors.into_iter().filter(|(_, new)| *new > 0) {
            let text = format!("{new} {what} in {seconds} s; clean or change cable and optics");
            say(Severity::Error, FindingKind::Errors, text);
        }
        let corrected = counted.fec_corrected;
        if corrected / seconds > FEC_CORRECTED_PER_S {
            let text = format!(
                "{corrected} codewords corrected in {seconds} s; the link will fail, change cable or optics"
            );
            say(Severity::Warning, FindingKind::Errors, text);
        }
        for (queue, counted) in &counted.queues {
            let storms = counted.watchdog_storms;
            if storms > 0 {
                let text = format!(
                    "queue {queue}: the PFC watchdog stopped {storms} pause storms; look at the NIC at the far end"
                );
                say(Severity::Error, FindingKind::PfcStorm, text);
            }
            let (dropped, paused) = (counted.dropped_packets, counted.pfc_rx_frames + counted.pfc_tx_frames);
            if dropped > 0 && lossless.contains(&(port, *queue)) {
                let text = format!(
                    "queue {queue}: {dropped} packets of a lossless class dropped in {seconds} s; check PFC at both ends"
                );
                say(Severity::Error, FindingKind::Congestion, text);
            }
            if paused / seconds > PFC_FRAMES_PER_S {
                let marked = counted.ecn_marked_packets;
                let text = format!(
                    "queue {queue}: {paused} pauses in {seconds} s and {marked} packets marked; ECN should act first"
                );
                say(Severity::Warning, FindingKind::Congestion, text);
            }
        }
    }
    findings
}
