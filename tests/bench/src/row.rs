//! Rows: printed as they come, written as JSON at the end.

use serde::Serialize;
use std::path::Path;

/// One figure, and its peer's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) bench: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
    pub(crate) peer: Option<String>,
    pub(crate) peer_value: Option<f64>,
    /// Value by peer's value.
    pub(crate) ratio: Option<f64>,
    /// What is durable when the reply leaves.
    pub(crate) durable: String,
    pub(crate) peer_durable: Option<String>,
}

/// What a row's reply promises.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Durable {
    pub(crate) ours: &'static str,
    pub(crate) peer: &'static str,
}

/// Nothing is written, or nothing is kept.
pub(crate) const NOTHING: Durable = Durable { ours: "nothing to keep", peer: "nothing to keep" };

/// The rows of one part.
pub(crate) struct Report {
    name: &'static str,
    rows: Vec<Row>,
    failures: u32,
}

impl Report {
    pub(crate) fn new(name: &'static str) -> Report {
        println!("\n{name}");
        println!("  {:<52} {:>12} {:>12} {:>7}  {:<7} peer", "", "Basalt", "peer", "ratio", "unit");
        Report { name, rows: Vec::new(), failures: 0 }
    }

    /// `peer`: its name and figure.
    pub(crate) fn row(
        &mut self,
        metric: &str,
        unit: &str,
        value: f64,
        peer: Option<(&str, f64)>,
        durable: Durable,
    ) {
        let ratio = peer.filter(|p| p.1 > 0.0).map(|p| value / p.1);
        let row = Row {
            bench: self.name.to_owned(),
            metric: metric.to_owned(),
            unit: unit.to_owned(),
            value: rounded(value),
            peer: peer.map(|p| p.0.to_owned()),
            peer_value: peer.map(|p| rounded(p.1)),
            ratio: ratio.map(rounded),
            durable: durable.ours.to_owned(),
            peer_durable: peer.map(|_| durable.peer.to_owned()),
        };
        let peer_value = peer.map_or(String::new(), |p| short(p.1));
        let ratio = ratio.map_or(String::new(), |r| format!("{r:.2}"));
        let peer_name = peer.map_or("", |p| p.0);
        println!("  {metric:<52} {:>12} {peer_value:>12} {ratio:>7}  {unit:<7} {peer_name}", short(value));
        self.rows.push(row);
    }

    /// A row, or a whole part, that this machine cannot run.
    pub(crate) fn skipped(&self, what: &str, why: &str) {
        println!("  skipped: {what}: {why}");
    }

    /// A row that should have worked.
    pub(crate) fn failed(&mut self, what: &str, why: &str) {
        println!("  FAILED: {what}: {why}");
        self.failures += 1;
    }

    /// Writes the results of this part.
    pub(crate) fn finish(self, results: &Path) -> Result<(), String> {
        let path = results.join(format!("{}.json", self.name));
        let mut text = serde_json::to_string_pretty(&self.rows).map_err(|e| e.to_string())?;
        text.push('\n');
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        if self.failures > 0 {
            return Err(format!("{} rows of {} failed", self.failures, self.name));
        }
        Ok(())
    }
}

/// Four digits are more than these figures are worth.
fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return 0.0;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

fn short(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_four_digits() {
        assert_eq!(rounded(123_456.0), 123_500.0);
        assert_eq!(rounded(0.012_345_6), 0.012_35);
        assert_eq!(rounded(0.0), 0.0);
    }

    #[test]
    fn the_ratio_is_ours_by_theirs() {
        let mut report = Report::new("test");
        report.row("a", "op/s", 50.0, Some(("peer", 200.0)), NOTHING);
        report.row("b", "op/s", 50.0, None, NOTHING);
        assert_eq!(report.rows[0].ratio, Some(0.25));
        let json = serde_json::to_value(&report.rows[1]).unwrap();
        assert!(json["peer"].is_null() && json["peer_value"].is_null() && json["ratio"].is_null());
        assert_eq!(json["value"], 50.0);
    }
}
