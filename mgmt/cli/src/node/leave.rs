//! `basalt node replace` and `remove`.

use super::add::{BmcArgs, credential, presented, who};
use super::{Desk, headings, or_dash, secret};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_provision::node::BmcAddress;
use basalt_provision::server::{BootSource, Server};
use basalt_provision::{Node, NodeName};
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct ReplaceArgs {
    node: NodeName,
    #[command(flatten)]
    bmc: BmcArgs,
}

pub(super) async fn replace(desk: &Desk, args: &ReplaceArgs, output: Output) -> Result<(), CliError> {
    let node = desk.node(&args.node).await?;
    let file = desk.vault_file()?;
    let mut vault = file.read()?;
    let fresh = credential(&args.bmc)?;
    if let Some(fresh) = &fresh {
        vault = vault.with(&args.bmc.credential, fresh.clone());
    }
    let url = args.bmc.bmc.as_ref().map_or_else(|| node.bmc.url.clone(), ToString::to_string);
    let endpoint: basalt_provision::bmc::Endpoint = url.parse().map_err(CliError::Failed)?;
    let certificate_sha256 = match args.bmc.certificate {
        _ if endpoint.plaintext => None,
        Some(pin) => Some(pin.to_string()),
        None if desk.common.ca.is_some() => None,
        None => Some(presented(&endpoint, !args.bmc.accept_certificate).await?),
    };
    let credential_name =
        if fresh.is_some() { args.bmc.credential.clone() } else { node.bmc.credential.clone() };
    let bmc = BmcAddress { url, credential: credential_name, certificate_sha256 };
    let identity =
        who(vault, desk.limits(), desk.common.ca.clone(), &bmc, args.bmc.serial.as_deref()).await?;
    if let Some(fresh) = fresh {
        file.change(&args.bmc.credential, Some(fresh))?;
    }
    let node = desk.list().replace(&args.node, bmc, identity).await?;
    told(output, &node)
}

#[derive(clap::Args)]
pub(super) struct RemoveArgs {
    node: NodeName,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Set its boot source back to what its own boot order says, if its BMC answers
    #[arg(long)]
    reset_boot: bool,
}

pub(super) async fn remove(desk: &Desk, args: &RemoveArgs, output: Output) -> Result<(), CliError> {
    let node = desk.node(&args.node).await?;
    let question =
        format!("Take {} ({}) out of the list? Its server is left as it is.", node.name, node.state);
    if !args.yes && !secret::agreed(&question) {
        return Err(CliError::Usage("not removed; say --yes where nobody can be asked".into()));
    }
    if args.reset_boot {
        let reset = desk.with_server(&args.node, async |_, server| {
            let done =
                tokio::time::timeout(Duration::from_secs(60), server.set_boot(&BootSource::Normal)).await;
            done.unwrap_or(Ok(())).map_err(CliError::from)
        });
        // A node must be removable whatever its BMC does.
        if let Err(error) = reset.await {
            eprintln!("its boot source was not set back: {error}");
        }
    }
    let node = desk.list().remove(&args.node, "an operator removed it").await?;
    told(output, &node)
}

fn told(output: Output, node: &Node) -> Result<(), CliError> {
    print(output, node, |node| {
        let mut rows = headings(["NODE", "STATE", "BMC", "SERIAL"]);
        rows.push(vec![
            node.name.to_string(),
            node.state.to_string(),
            node.bmc.url.clone(),
            or_dash(&node.identity.serial),
        ]);
        rows
    })
}
