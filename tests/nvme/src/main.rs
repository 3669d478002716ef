//! The NVMe driver where it runs for real: in a guest with emulated NVMe controllers behind an emulated Intel IOMMU.
//!
//! ```text
//!   this program, host side                 QEMU (software emulation)
//!   ┌─────────────┐  serial line: results  ┌──────────────────────────────────┐
//!   │ runner      │◄───────────────────────┤ Debian's kernel, intel_iommu=on  │
//!   │ QMP: remove,│───────────────────────►│ init = this program, guest side  │
//!   │ add, slow   │                        │ vfio-pci ── NVMe, NVMe, NVMe ... │
//!   └─────────────┘                        └──────────────────────────────────┘
//! ```
//!
//! * [`image`]: kernel and initramfs; [`qemu`]: the machine; [`runner`]: the host's part of each test.
//! * [`guest`]: what runs inside, as init.
//! * [`protocol`]: the lines between the two.

mod guest;
mod image;
mod protocol;
mod qemu;
mod runner;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Tests and measures the NVMe driver in an emulated machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Kernel packages, images and logs [default: nvme-vm beside the directory of this program]
    #[arg(long, global = true)]
    dir: Option<PathBuf>,
    /// Print the guest's console as it comes
    #[arg(long, global = true)]
    console: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Boots the guest and runs its tests
    Run {
        /// Only tests whose name contains this
        #[arg(default_value = "")]
        filter: String,
    },
    /// Measures this driver beside the kernel's in the same guest; prints one JSON line per figure
    Bench {
        #[arg(long, default_value_t = 5)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::main();
    }
    let arguments = Arguments::parse();
    let dir = arguments.dir.unwrap_or_else(|| {
        let own = std::env::current_exe().unwrap_or_default();
        own.parent()
            .and_then(|d| d.parent())
            .map_or_else(|| "nvme-vm".into(), |target| target.join("nvme-vm"))
    });
    let outcome = match arguments.command {
        Command::Run { filter } => runner::run(&dir, &filter, arguments.console),
        Command::Bench { seconds } => runner::bench(&dir, seconds, arguments.console),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("basalt-nvme-tests: {e}");
            ExitCode::FAILURE
        }
    }
}
