//! What the image build cannot say in a line of shell: its SBOM and its manifest.

mod manifest;
mod sbom;

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "basalt-image",
    version,
    about = "SBOM and manifest of the appliance image, on standard output"
)]
enum Command {
    /// CycloneDX 1.6 over Debian packages and crates
    Sbom {
        #[arg(long)]
        version: String,
        /// Seconds since 1970
        #[arg(long)]
        time: u64,
        /// Lines of name, version, architecture, source, source version, SHA-256, separated by tabs
        #[arg(long)]
        debs: PathBuf,
        /// Lines of `name vVERSION|LICENCE`, as `cargo tree` prints them
        #[arg(long)]
        crates: PathBuf,
    },
    /// Size and digest of each file, and what the image is
    Manifest(manifest::Facts),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Sbom { version, time, debs, crates } => sbom::make(&version, time, &debs, &crates),
        Command::Manifest(facts) => facts.manifest(),
    };
    match result {
        Ok(json) => {
            println!("{json:#}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("basalt-image: {message}");
            ExitCode::FAILURE
        }
    }
}
