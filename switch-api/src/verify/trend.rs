//! What two readings of the counters say about the time between them.

use super::{Finding, FindingKind, Severity};
use crate::names::DeviceName;
use crate::switch::{Counters, PortCounters};
use std::time::Duration;

/// Bit error ratio after correction that IEEE 802.3 allows is about 1e-12; before correction RS-544 copes with some 1e-5
/// corrected codewords. More corrected codewords per second than this is a link on its way out.
const FEC_CORRECTED_PER_S: u64 = 10_000;
/// A pause now and then is what PFC is for; this many per second and ECN is not doing its work.
const PFC_FRAMES_PER_S: u64 = 1_000;

/// Findings from the counters of one switch, `earlier` and `later`, `between` apart. A counter that went back (restart) is taken
/// as counting from zero.
pub fn trend(device: &DeviceName, earlier: &Counters, later: &Counters, between: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let seconds = between.as_secs().max(1);
    let none = PortCounters::default();
    for (port, now) in &later.ports {
        let was = earlier.ports.get(port).unwrap_or(&none);
        let mut say = |severity, kind, text: String| {
            findings.push(Finding::new(severity, kind, device, text).at(port));
        };
        let errors = [
            ("receive errors", was.rx_errors, now.rx_errors),
            ("transmit errors", was.tx_errors, now.tx_errors),
            ("frames with a wrong checksum", was.fcs_errors, now.fcs_errors),
            ("codewords beyond correction", was.fec_uncorrectable, now.fec_uncorrectable),
        ];
        for (what, was, now) in errors {
            let new = since(was, now);
            if new > 0 {
                say(
                    Severity::Error,
                    FindingKind::Errors,
                    format!("{new} {what} in {seconds} s; clean or change cable and optics"),
                );
            }
        }
        let corrected = since(was.fec_corrected, now.fec_corrected);
        if corrected / seconds > FEC_CORRECTED_PER_S {
            let text = format!(
                "{corrected} codewords corrected in {seconds} s; the link will fail, change cable or optics"
            );
            say(Severity::Warning, FindingKind::Errors, text);
        }
        for (queue, now) in &now.queues {
            let was = was.queues.get(queue).cloned().unwrap_or_default();
            let storms = since(was.watchdog_storms, now.watchdog_storms);
            if storms > 0 {
                let text = format!(
                    "queue {queue}: the PFC watchdog stopped {storms} pause storms; look at the NIC at the far end"
                );
                say(Severity::Error, FindingKind::PfcStorm, text);
            }
            let dropped = since(was.dropped_packets, now.dropped_packets);
            if dropped > 0 && (now.pfc_tx_frames > 0 || now.pfc_rx_frames > 0) {
                let text = format!(
                    "queue {queue}: {dropped} packets of a lossless class dropped in {seconds} s; check PFC at both ends"
                );
                say(Severity::Error, FindingKind::Congestion, text);
            }
            let paused =
                since(was.pfc_rx_frames, now.pfc_rx_frames) + since(was.pfc_tx_frames, now.pfc_tx_frames);
            if paused / seconds > PFC_FRAMES_PER_S {
                let marked = since(was.ecn_marked_packets, now.ecn_marked_packets);
                let text = format!(
                    "queue {queue}: {paused} pauses in {seconds} s and {marked} packets marked; ECN should act first"
                );
                say(Severity::Warning, FindingKind::Congestion, text);
            }
        }
    }
    findings
}

fn since(was: u64, now: u64) -> u64 {
    if now >= was { now - was } else { now }
}
