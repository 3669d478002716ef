//! `basalt top`: what the node is doing, from two looks at its counters.

use crate::control::{CliError, Control, call};
use crate::output::{Output, Row, print, render};
use basalt_rpc::size;
use basalt_rpc::types::{NoParams, OpCounters, Top};
use std::io::IsTerminal;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds between two looks
    #[arg(long, short, default_value_t = 2.0)]
    interval: f64,
    /// Print once and stop
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(args: Args, output: Output, control: &mut dyn Control) -> Result<(), CliError> {
    if !(0.1..=3600.0).contains(&args.interval) {
        return Err(CliError::Usage("the interval is from 0.1 to 3600 seconds".to_owned()));
    }
    let mut before: Top = call(control, "basalt_top", NoParams {})?;
    loop {
        std::thread::sleep(Duration::from_secs_f64(args.interval));
        let now: Top = call(control, "basalt_top", NoParams {})?;
        if output != Output::Table {
            print(output, &now, |_| Vec::new())?;
        } else {
            if std::io::stdout().is_terminal() && !args.once {
                print!("\x1b[H\x1b[2J");
            }
            print!("{}", render(&table(&before, &now)));
        }
        if args.once {
            return Ok(());
        }
        before = now;
    }
}

fn table(before: &Top, now: &Top) -> Vec<Row> {
    let seconds = (now.uptime_ms.saturating_sub(before.uptime_ms)).max(1) as f64 / 1000.0;
    let mut rows =
        vec![["OPERATION", "PER S", "BYTES PER S", "ERRORS", "MEAN US"].map(String::from).to_vec()];
    for op in &now.operations {
        let then = before.operations.iter().find(|o| o.name == op.name).cloned().unwrap_or_default();
        let count = op.count.saturating_sub(then.count);
        if count == 0 {
            continue;
        }
        let OpCounters { bytes, errors, total_us, .. } = op;
        rows.push(vec![
            op.name.clone(),
            format!("{:.0}", count as f64 / seconds),
            size::show((bytes.saturating_sub(then.bytes) as f64 / seconds) as u64),
            errors.saturating_sub(then.errors).to_string(),
            (total_us.saturating_sub(then.total_us) / count).to_string(),
        ]);
    }
    rows.push(Vec::new());
    rows.push(["DRIVE", "READ PER S", "WRITTEN PER S", "", ""].map(String::from).to_vec());
    for drive in &now.drives {
        let then = before.drives.iter().find(|d| d.name == drive.name).cloned().unwrap_or_default();
        let rate = |new: u64, old: u64| size::show((new.saturating_sub(old) as f64 / seconds) as u64);
        rows.push(vec![
            drive.name.clone(),
            rate(drive.read_bytes, then.read_bytes),
            rate(drive.written_bytes, then.written_bytes),
        ]);
    }
    rows
}
