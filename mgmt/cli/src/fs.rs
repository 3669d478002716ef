//! `basalt fs`

use crate::control::{CliError, Control, call, call_long};
use crate::output::{Output, Row, print};
use basalt_rpc::types::{FsCreate, Name, NoParams};
use serde_json::Value;

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a file system
    Create {
        name: String,
        /// Shards: units of parallelism and fail-over, fixed for the life of the file system
        #[arg(long, default_value_t = 16)]
        shards: u16,
    },
    /// List file systems
    List,
    /// Show one file system
    Show { name: String },
    /// Delete a file system and everything in it
    Destroy {
        name: String,
        /// Really
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) fn run(verb: Verb, output: Output, control: &mut dyn Control) -> Result<(), CliError> {
    match verb {
        Verb::Create { name, shards } => {
            let made: Value = call_long(control, "basalt_fs_create", FsCreate { name, shards })?;
            print(output, &made, |m| table(std::slice::from_ref(m)))
        }
        Verb::List => {
            let all: Vec<Value> = call(control, "basalt_fs_list", NoParams {})?;
            print(output, &all, |all| table(all))
        }
        Verb::Show { name } => {
            let one: Value = call(control, "basalt_fs_show", Name { name })?;
            print(output, &one, |one| {
                let fields = one.as_object().into_iter().flatten();
                fields.map(|(k, v)| vec![k.clone(), text(v)]).collect()
            })
        }
        Verb::Destroy { name, yes: false } => Err(CliError::Usage(format!(
            "this deletes file system {name} and everything in it; say so with --yes"
        ))),
        Verb::Destroy { name, yes: true } => call_long(control, "basalt_fs_destroy", Name { name }),
    }
}

/// A JSON value without quotes.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string())
}

fn table(all: &[Value]) -> Vec<Row> {
    let mut rows = vec![["NAME", "ID", "SHARDS", "MOUNTED"].map(String::from).to_vec()];
    rows.extend(all.iter().map(|f| ["name", "id", "shards", "mounted"].map(|k| text(&f[k])).to_vec()));
    rows
}
