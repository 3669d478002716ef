//! Virtual servers behind BMCs that others wrote: libvirt and QEMU (BIOS and UEFI) with sushy-tools before them, driven by
//! `basalt node`, and the whole story from blank servers to nodes that serve.
//!
//! Needs root, `tests/setup servers` and an image (`make image` or `make image-short`). Everything runs in namespaces of its own and
//! in memory: nothing is left of it, however it ends.

mod basalt;
mod bmc;
mod cases;
mod domain;
mod installed;
mod namespace;
mod node;
mod rack;
mod story;
mod terminal;
mod world;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "basalt-server-tests", version, about)]
struct Args {
    /// The build's directory of the image: the one with `out` and `builder`
    #[arg(long, default_value = "target/image")]
    image: PathBuf,
    /// Python environment with sushy-tools
    #[arg(long, default_value = "target/servers-test/venv")]
    venv: PathBuf,
    /// Where logs are kept
    #[arg(long, default_value = "target/servers-test/logs")]
    logs: PathBuf,
    /// The program `basalt`; beside this one by default
    #[arg(long)]
    basalt: Option<PathBuf>,
    /// Print the names only
    #[arg(long)]
    list: bool,
    /// Beginnings of names; none: all
    names: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let chosen: Vec<&cases::Case> = cases::ALL
        .iter()
        .filter(|(name, _)| args.names.is_empty() || args.names.iter().any(|n| name.starts_with(n.as_str())))
        .collect();
    if args.list {
        chosen.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if let Some(ended) = namespace::enter() {
        return ended;
    }
    let world = match world::World::new(&args.image, &args.venv, &args.logs, args.basalt.as_deref()) {
        Ok(world) => world,
        Err(message) => {
            eprintln!("basalt-server-tests: {message}");
            return ExitCode::FAILURE;
        }
    };
    let begin = Instant::now();
    let mut bench = cases::Bench::new(&world);
    let mut failed = 0;
    for (name, case) in &chosen {
        let start = Instant::now();
        let result = case(&mut bench);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(note) => println!("ok      {name:<26} {seconds:6.1} s  {note}"),
            Err(message) => {
                failed += 1;
                println!("FAILED  {name:<26} {seconds:6.1} s  {message}");
            }
        }
    }
    let seconds = begin.elapsed().as_secs();
    println!(
        "{} of {} passed in {seconds} s; logs in {}",
        chosen.len() - failed,
        chosen.len(),
        world.logs.display()
    );
    if failed == 0 && !chosen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
