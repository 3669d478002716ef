//! Boots the appliance image in QEMU, every way it can be booted, and sees wrong images refused.
//!
//! Software emulation with two virtual CPUs; one machine at a time. Needs root for network boots (a network namespace)
//! and `make image` before.

mod cases;
mod client;
mod cuts;
mod disk;
mod firmware;
mod install;
mod lan;
mod machine;
mod story;
mod tpm;
mod upgrade;
mod work;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "basalt-image-tests", version, about)]
struct Args {
    /// The build's directory: the one with `out`, `builder` and `test-keys`
    #[arg(long, default_value = "target/image")]
    image: PathBuf,
    /// Print the names only
    #[arg(long)]
    list: bool,
    /// Beginnings of names; none: all
    names: Vec<String>,
}

fn main() -> ExitCode {
    basalt_system::become_part_of_a_guest();
    let args = Args::parse();
    let chosen = cases::ALL
        .iter()
        .filter(|(name, _)| args.names.is_empty() || args.names.iter().any(|n| name.starts_with(n.as_str())));
    if args.list {
        chosen.for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    let image = match work::Image::open(&args.image) {
        Ok(image) => image,
        Err(message) => {
            eprintln!("basalt-image-tests: {message}");
            return ExitCode::FAILURE;
        }
    };
    let (mut failed, mut count) = (0, 0);
    for (name, case) in chosen {
        let start = Instant::now();
        count += 1;
        let result = work::Scratch::new(&image, name).and_then(|scratch| case(&image, &scratch));
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(note) => println!("ok      {name:<28} {seconds:6.1} s  {note}"),
            Err(message) => {
                failed += 1;
                println!("FAILED  {name:<28} {seconds:6.1} s  {message}");
            }
        }
    }
    println!("{} of {count} passed", count - failed);
    if failed == 0 && count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
