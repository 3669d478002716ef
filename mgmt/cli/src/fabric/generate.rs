//! `basalt fabric generate`: a draft of `fabric.yaml` from what nodes know and hear.

use super::read;
use crate::control::CliError;
use crate::output::{Output, print_text};
use basalt_switch_api::intent::{self, Fabric, Inventory};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Nodes, their ports, and what these hear by LLDP, in JSON (see docs/operations/fabric.md)
    inventory: PathBuf,
    /// What was said before, in this fabric.yaml, stays
    #[arg(long, value_name = "PATH")]
    known: Option<PathBuf>,
}

/// More than a hall of nodes needs.
const MAX_BYTES: u64 = 16 << 20;

pub(super) fn generate(args: &Args, output: Output) -> Result<(), CliError> {
    let seen = inventory(&args.inventory)?;
    let known = args.known.as_deref().map(read).transpose()?;
    let draft = intent::generate(&seen, known.as_ref());
    print_text(output, &draft.fabric, Fabric::to_yaml)?;
    let open: String = draft.open.iter().map(|open| format!("still to say: {open}\n")).collect();
    super::progress::say(&open);
    Ok(())
}

fn inventory(path: &Path) -> Result<Inventory, CliError> {
    let wrong =
        |reason: String| CliError::Usage(format!("{}: {reason}; give an inventory in JSON", path.display()));
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if size > MAX_BYTES {
        return Err(wrong(format!("{size} bytes are more than the {MAX_BYTES} allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))
}
