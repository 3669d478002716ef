//! `basalt`: the command line of a Basalt node. A noun, a verb, `--output table|json|yaml`.
//!
//! Exit codes: 0 done; 1 refused or failed, with the cause and the next step on standard error; 2 wrong usage;
//! 3 no data plane answers; 4 no such thing; 10 to 18 why a bundle or a disk was refused (`upgrade.rs`);
//! 20 to 23 how the storage fabric stands (`fabric/outcome.rs`); 30 to 36 how servers stand (`node/outcome.rs`).

mod boot;
mod control;
mod export;
mod fabric;
mod fs;
mod inspect;
mod node;
mod output;
mod pool;
mod top;
mod upgrade;

use clap::{CommandFactory, Parser, Subcommand};
use control::{CliError, Socket};
use output::Output;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "basalt", version, about = "Control a Basalt storage node", propagate_version = true)]
struct Args {
    /// Socket of the data plane
    #[arg(long, global = true, env = "BASALT_SOCKET", value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Directory of the node; its socket is DIR/run/dataplane.sock
    #[arg(long, global = true, env = "BASALT_DIR", default_value = "./var", value_name = "DIR")]
    dir: PathBuf,
    /// How results are printed
    #[arg(long, short, global = true, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Subcommand)]
enum Noun {
    /// Pools of drives
    #[command(subcommand)]
    Pool(pool::Verb),
    /// File systems
    #[command(subcommand)]
    Fs(fs::Verb),
    /// What NFS clients can mount
    #[command(subcommand)]
    Export(export::Verb),
    /// Operations per second, throughput and latency, live
    Top(top::Args),
    /// What stands on drives, read without a data plane
    #[command(subcommand)]
    Inspect(inspect::Verb),
    /// Network boot: the service, decisions, tokens, events
    #[command(subcommand)]
    Boot(boot::Verb),
    /// Servers: from bare metal to running nodes, inventory, power
    Node(node::Args),
    /// Switches of the storage fabric: what they shall be, made so and checked
    #[command(subcommand)]
    Fabric(fabric::Verb),
    /// Field upgrade: bundles, slots, going back
    #[command(subcommand)]
    Upgrade(upgrade::Verb),
    /// Call a method of the data plane by name
    Rpc {
        method: String,
        /// Parameters, a JSON object or array
        #[arg(default_value = "{}")]
        params: String,
    },
    /// Print a completion script
    Completion { shell: clap_complete::Shell },
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("basalt: {e}");
            e.exit_code()
        }
    }
}

fn run(args: Args) -> Result<(), CliError> {
    let socket = args.socket.unwrap_or_else(|| args.dir.join("run/dataplane.sock"));
    let connect = || Socket::connect(&socket);
    let output = args.output;
    match args.noun {
        Noun::Pool(verb) => pool::run(verb, output, &connect),
        Noun::Fs(verb) => fs::run(verb, output, &mut connect()?),
        Noun::Export(verb) => export::run(verb, output, &mut connect()?),
        Noun::Top(verb) => top::run(verb, output, &mut connect()?),
        Noun::Inspect(verb) => inspect::run(verb, output),
        Noun::Boot(verb) => boot::run(verb, output, &args.dir),
        Noun::Node(node) => node::run(node, output, &args.dir),
        Noun::Fabric(verb) => fabric::run(verb, output),
        Noun::Upgrade(verb) => {
            let connect = || Ok(Box::new(connect()?) as Box<dyn control::Control>);
            upgrade::run(verb, output, &args.dir, &connect)
        }
        Noun::Rpc { method, params } => {
            let params: serde_json::Value = serde_json::from_str(&params)
                .map_err(|e| CliError::Usage(format!("the parameters are not JSON: {e}")))?;
            let result: serde_json::Value = control::call(&mut connect()?, &method, params)?;
            let output = if output == Output::Table { Output::Json } else { output };
            output::print(output, &result, |_| Vec::new())
        }
        Noun::Completion { shell } => {
            clap_complete::generate(shell, &mut Args::command(), "basalt", &mut std::io::stdout());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options that collide (with `--version`, say) panic only when their command is used.
    #[test]
    fn every_command_parses() {
        Args::command().debug_assert();
    }
}
