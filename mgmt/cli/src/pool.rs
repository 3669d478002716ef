//! `basalt pool`

use crate::control::{CliError, Control, Socket, call, call_long};
use crate::output::{Output, Row, print};
use basalt_pool::catalogue::{PlanDrive, PlannedScheme, plan};
use basalt_pool::{FoundPool, PoolStatus};
use basalt_rpc::size;
use basalt_rpc::types::{DriveOut, Drives, NoParams, PoolCreate, Progress};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a pool of drives
    Create {
        name: String,
        /// File or block device; may be repeated; none: the drives of the node's configuration
        #[arg(long = "drive", value_name = "PATH")]
        drives: Vec<String>,
        /// Data and parity units, such as 4+2; `basalt pool plan` explains
        #[arg(long, value_name = "K+M")]
        scheme: Option<String>,
        /// Overwrite what the drives hold
        #[arg(long)]
        force: bool,
    },
    /// List the pools of this node
    List,
    /// Health, drives and space
    Status,
    /// Take in the pool that stands on drives
    Import {
        #[arg(long = "drive", value_name = "PATH")]
        drives: Vec<String>,
        /// Only say what would be found
        #[arg(long)]
        list: bool,
    },
    /// Schemes for a set of drives: cost, what may fail, usable space; needs no data plane
    Plan {
        /// Number of drives
        #[arg(long)]
        drives: usize,
        /// Size of each, such as 7T
        #[arg(long, value_parser = size::parse)]
        size: u64,
    },
    /// Take a drive out of service
    DriveOut {
        /// Name or index, as `status` shows it
        drive: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        cause: String,
    },
}

type Connect<'a> = dyn Fn() -> Result<Socket, CliError> + Sync + 'a;

pub(crate) fn run(verb: Verb, output: Output, connect: &Connect) -> Result<(), CliError> {
    match verb {
        Verb::Create { name, drives, scheme, force } => {
            let request = PoolCreate { name, drives, scheme, force };
            let made: PoolStatus =
                with_progress(connect, |control| call_long(control, "basalt_pool_create", &request))?;
            print(output, &made, status)
        }
        Verb::List => {
            let all: Vec<PoolStatus> = call(&mut connect()?, "basalt_pool_list", NoParams {})?;
            print(output, &all, |all| list(all))
        }
        Verb::Status => {
            let all: Vec<PoolStatus> = call(&mut connect()?, "basalt_pool_list", NoParams {})?;
            let Some(one) = all.first() else {
                return Err(CliError::Failed(
                    "this node has no pool; `basalt pool create` makes one, `basalt pool import` takes one in"
                        .to_owned(),
                ));
            };
            print(output, one, status)
        }
        Verb::Import { drives, list: true } => {
            let found: Vec<FoundPool> =
                call_long(&mut connect()?, "basalt_pool_discover", Drives { drives })?;
            print(output, &found, |all| found_table(all))
        }
        Verb::Import { drives, list: false } => {
            let imported: PoolStatus = call_long(&mut connect()?, "basalt_pool_import", Drives { drives })?;
            print(output, &imported, status)
        }
        Verb::Plan { drives, size } => {
            if drives > 1000 {
                return Err(CliError::Usage("plan for 1,000 drives at most".to_owned()));
            }
            let drives = vec![PlanDrive { size_bytes: size, domain: None }; drives];
            let schemes = plan(&drives).map_err(|e| CliError::Failed(e.to_string()))?;
            print(output, &schemes, |all| planned(all))
        }
        Verb::DriveOut { drive, cause } => {
            let after: PoolStatus =
                call(&mut connect()?, "basalt_pool_drive_out", DriveOut { drive, cause })?;
            print(output, &after, status)
        }
    }
}

/// Runs a long call and, on a terminal, shows how far it is, asking over a second connection.
fn with_progress<T>(
    connect: &Connect,
    work: impl FnOnce(&mut dyn Control) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let mut control = connect()?;
    if !std::io::stderr().is_terminal() {
        return work(&mut control);
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let Ok(mut watch) = connect() else { return };
            while !done.load(Ordering::Relaxed) {
                if let Ok(Some(p)) = call::<Option<Progress>>(&mut watch, "basalt_progress", NoParams {}) {
                    let percent = p.done_bytes * 100 / p.total_bytes.max(1);
                    eprint!("\r{}: {percent:3} % of {}  ", p.what, size::show(p.total_bytes));
                    let _ = std::io::stderr().flush();
                }
                std::thread::sleep(Duration::from_millis(200));
            }
            eprint!("\r\x1b[K");
        });
        let result = work(&mut control);
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn heading<const N: usize>(names: [&str; N]) -> Row {
    names.map(String::from).to_vec()
}

fn list(all: &[PoolStatus]) -> Vec<Row> {
    let mut rows = vec![heading(["NAME", "HEALTH", "SCHEME", "DRIVES", "SIZE", "AVAILABLE"])];
    rows.extend(all.iter().map(|p| {
        vec![
            p.name.clone(),
            p.health.clone(),
            p.scheme.to_string(),
            p.drives.len().to_string(),
            size::show(p.capacity.total_bytes),
            size::show(p.capacity.available_bytes),
        ]
    }));
    rows
}

fn status(pool: &PoolStatus) -> Vec<Row> {
    let scheme = match pool.effective_scheme {
        Some(now) if now != pool.scheme => format!("{}, new segments {now}", pool.scheme),
        _ => pool.scheme.to_string(),
    };
    let mut rows = vec![
        vec!["pool".to_owned(), format!("{} ({})", pool.name, pool.uuid)],
        vec!["health".to_owned(), pool.health.clone()],
    ];
    rows.extend(pool.reasons.iter().map(|r| vec![String::new(), r.clone()]));
    rows.extend([
        vec!["scheme".to_owned(), format!("{scheme}; may fail: {}", pool.may_fail)],
        vec![
            "space".to_owned(),
            format!(
                "{} available of {}",
                size::show(pool.capacity.available_bytes),
                size::show(pool.capacity.total_bytes)
            ),
        ],
        vec![
            "segments".to_owned(),
            format!(
                "{} open, {} sealed, {} free, {} with units missing, {} lost",
                pool.segments.open,
                pool.segments.sealed,
                pool.segments.free,
                pool.segments.reduced,
                pool.segments.lost
            ),
        ],
    ]);
    let mut text: Vec<Row> = rows;
    text.push(Vec::new());
    text.push(heading(["DRIVE", "STATE", "SIZE", "USED", "NAME AND CAUSE"]));
    text.extend(pool.drives.iter().map(|d| {
        let state = format!("{:?}", d.state).to_lowercase();
        let used = d.aus_used as u64 * 100 / d.aus.max(1) as u64;
        let cause = d.cause.as_ref().map_or(String::new(), |c| format!(": {c}"));
        vec![
            d.index.to_string(),
            state,
            size::show(d.size_bytes),
            format!("{used} %"),
            format!("{}{cause}", d.name),
        ]
    }));
    text
}

fn planned(all: &[PlannedScheme]) -> Vec<Row> {
    let mut rows = vec![heading(["SCHEME", "OVERHEAD", "USABLE", "MAY FAIL", "NOTES"])];
    rows.extend(all.iter().map(|p| {
        let mut notes = p.notes.clone();
        if p.recommended {
            notes.insert(0, "recommended".to_owned());
        }
        vec![
            p.scheme.to_string(),
            format!("{} %", p.overhead_percent),
            size::show(p.usable_bytes),
            p.may_fail.clone(),
            notes.join("; "),
        ]
    }));
    rows
}

fn found_table(all: &[FoundPool]) -> Vec<Row> {
    let mut rows = vec![heading(["POOL", "UUID", "DRIVES FOUND", "DRIVES IN ALL"])];
    rows.extend(all.iter().map(|p| {
        vec![p.name.clone(), p.uuid.to_string(), p.drives.len().to_string(), p.drive_count.to_string()]
    }));
    rows
}
