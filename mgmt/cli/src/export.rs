//! `basalt export`

use crate::control::{CliError, Control, call};
use crate::output::{Output, Row, print};
use basalt_rpc::types::{Export, Name, NoParams, Squash};

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Offer a file system to clients
    Create {
        /// Where clients mount it, such as /data
        path: String,
        #[arg(long)]
        fs: String,
        #[arg(long)]
        read_only: bool,
        /// Whose requests are done as the anonymous user
        #[arg(long, value_enum, default_value_t = SquashArg::None)]
        squash: SquashArg,
        #[arg(long, default_value_t = 65534)]
        anon_uid: u32,
        #[arg(long, default_value_t = 65534)]
        anon_gid: u32,
        /// Address or network (CIDR) that may mount it; may be repeated; none: everyone who reaches the listen address
        #[arg(long = "client", value_name = "CIDR")]
        clients: Vec<String>,
    },
    /// List exports
    List,
    /// Withdraw an export; the file system stays
    Delete { path: String },
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum SquashArg {
    /// Nobody's
    None,
    /// Root's
    Root,
    /// Everybody's
    All,
}

pub(crate) fn run(verb: Verb, output: Output, control: &mut dyn Control) -> Result<(), CliError> {
    match verb {
        Verb::Create { path, fs, read_only, squash, anon_uid, anon_gid, clients } => {
            let squash = match squash {
                SquashArg::None => Squash::None,
                SquashArg::Root => Squash::Root,
                SquashArg::All => Squash::All,
            };
            let export = Export { path, fs, read_only, squash, anon_uid, anon_gid, clients };
            let made: Export = call(control, "basalt_export_create", export)?;
            print(output, &vec![made], |m| table(m))
        }
        Verb::List => {
            let all: Vec<Export> = call(control, "basalt_export_list", NoParams {})?;
            print(output, &all, |all| table(all))
        }
        Verb::Delete { path } => call(control, "basalt_export_delete", Name { name: path }),
    }
}

fn table(all: &[Export]) -> Vec<Row> {
    let mut rows = vec![["PATH", "FS", "ACCESS", "SQUASH", "CLIENTS"].map(String::from).to_vec()];
    rows.extend(all.iter().map(|e| {
        vec![
            e.path.clone(),
            e.fs.clone(),
            if e.read_only { "read-only" } else { "read-write" }.to_owned(),
            format!("{:?}", e.squash).to_lowercase(),
            if e.clients.is_empty() { "any".to_owned() } else { e.clients.join(",") },
        ]
    }));
    rows
}
