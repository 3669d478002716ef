//! Shows Basalt's promise on a machine without an NFS client: see `--help`.

use std::path::PathBuf;
use std::process::ExitCode;

use basalt_system::demo::{self, Demo};
use basalt_system::server::Binaries;
use clap::Parser;

/// Shows a real kernel client at work while a drive is lost and the data plane killed, without root.
///
/// Starts a data plane of its own in a directory that is thrown away, boots a Linux kernel in user space (Debian's
/// user-mode-linux; /dev/net/tun must be there), copies a tree in over NFS, removes a drive, kills the data plane,
/// and compares. The exit code is 0 if nothing was lost.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Directory for drives and logs; emptied first, removed if all goes well
    #[arg(long, default_value = "var/demo")]
    dir: PathBuf,
    /// The tree to copy
    #[arg(long, default_value = ".")]
    tree: PathBuf,
    /// Size of each of the six sparse drive files
    #[arg(long, default_value = "2GiB")]
    drive_size: String,
    /// The data plane [default: basalt-dataplane beside this program]
    #[arg(long)]
    dataplane: Option<PathBuf>,
}

fn main() -> ExitCode {
    basalt_system::become_part_of_a_guest();
    let arguments = Arguments::parse();
    let result = Binaries::beside_this_one().and_then(|mut binaries| {
        if let Some(dataplane) = arguments.dataplane {
            binaries.dataplane = dataplane;
        }
        demo::run(&Demo {
            binaries,
            dir: arguments.dir,
            tree: arguments.tree,
            drive_size: arguments.drive_size,
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nthe demonstration failed: {error}");
            ExitCode::FAILURE
        }
    }
}
