//! `basalt node firmware`: what runs, and an update of one component.

use super::outcome::{Ending, Outcome};
use super::{Desk, headings, or_dash, redfish};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_provision::NodeName;
use basalt_provision::server::{Server, UpdateState};
use basalt_redfish::Bmc;
use serde::Serialize;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Args {
    node: NodeName,
    /// Component to update, by its id or name in the list
    #[arg(long, requires = "file", value_name = "COMPONENT")]
    update: Option<String>,
    /// File or address of its firmware
    #[arg(long, requires = "update", value_name = "FILE")]
    file: Option<String>,
    /// Update a server that runs Basalt: it may restart
    #[arg(long)]
    in_use: bool,
    /// Seconds that the update may take
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=86400), value_name = "SECONDS")]
    limit: u64,
}

#[derive(Serialize)]
struct Item {
    id: String,
    name: String,
    version: String,
    updateable: Option<bool>,
}

pub(super) async fn firmware(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let items = desk
        .with_server(&args.node, async |node, server| {
            if let (Some(component), Some(file)) = (&args.update, &args.file) {
                if node.state == basalt_provision::State::Running && !args.in_use {
                    return Err(CliError::Usage(format!(
                        "{} runs; drain it first, or say --in-use where a restart does no harm",
                        node.name
                    )));
                }
                update(&server, component, file, Duration::from_secs(args.limit)).await?;
            }
            let items = server.client.firmware().await.map_err(redfish)?;
            Ok(items
                .into_iter()
                .map(|i| Item {
                    id: i.id.unwrap_or_default(),
                    name: i.name.unwrap_or_default(),
                    version: i.version.unwrap_or_default(),
                    updateable: i.updateable,
                })
                .collect::<Vec<_>>())
        })
        .await?;
    print(output, &items, |items| {
        let mut rows = headings(["ID", "NAME", "VERSION", "UPDATEABLE"]);
        rows.extend(items.iter().map(|i| {
            let updateable = i.updateable.map_or("-".into(), |u| if u { "yes".into() } else { "no".into() });
            vec![or_dash(&i.id), or_dash(&i.name), or_dash(&i.version), updateable]
        }));
        rows
    })
}

async fn update(
    server: &basalt_provision::bmc::Opened,
    component: &str,
    file: &str,
    limit: Duration,
) -> Result<(), CliError> {
    let before = server.firmware_version(component).await?;
    let Some(before) = before else {
        return Err(
            Outcome::new(Ending::Refused, format!("its BMC knows no firmware named {component}")).into()
        );
    };
    eprintln!("{component} is at {before}; handing over {file}");
    let task = server.begin_update(component, file).await?;
    let watched = async {
        let mut said = None;
        loop {
            match server.update_state(&task).await {
                Ok(UpdateState::Done) => return Ok(()),
                Ok(UpdateState::Failed { why }) => {
                    let summary = format!("the update of {component} failed: {why}");
                    return Err(CliError::from(Outcome::new(Ending::Failed, summary)));
                }
                Ok(UpdateState::Running { percent }) if percent != said => {
                    said = percent;
                    eprintln!("{component}: {} %", percent.unwrap_or(0));
                }
                Ok(UpdateState::Running { .. }) => {}
                // A BMC that updates itself is away for a while.
                Err(fault) if fault.kind.passes() => {}
                Err(fault) => return Err(fault.into()),
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    let late = || {
        let summary = format!(
            "the update of {component} still runs after {} s; it goes on in the BMC",
            limit.as_secs()
        );
        Err(CliError::from(Outcome::new(Ending::NoAnswer, summary)))
    };
    tokio::time::timeout(limit, watched).await.unwrap_or_else(|_| late())
}
