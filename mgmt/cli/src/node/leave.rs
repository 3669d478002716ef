//! `basalt node login`, `replace` and `remove`.

use super::add::{BmcArgs, credential, presented, who};
use super::{Desk, headings, or_dash, secret};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_provision::fault::{Fault, FaultKind};
use basalt_provision::node::{BmcAddress, Identity};
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
    let (bmc, identity) = opened(desk, &node, &args.bmc, args.bmc.serial.as_deref()).await?;
    let node = desk.list().replace(&args.node, bmc, identity).await?;
    told(output, &node)
}

#[derive(clap::Args)]
pub(super) struct LoginArgs {
    node: NodeName,
    #[command(flatten)]
    bmc: BmcArgs,
}

/// The same server by another way in: nothing else of the node changes.
pub(super) async fn login(desk: &Desk, args: &LoginArgs, output: Output) -> Result<(), CliError> {
    let node = desk.node(&args.node).await?;
    let serial = Some(node.identity.serial.as_str()).filter(|s| !s.is_empty());
    let (bmc, identity) = opened(desk, &node, &args.bmc, serial).await?;
    if let Some(why) = node.identity.differs(&identity) {
        let cause = format!("the BMC at {} answers for {why}; nothing was changed there", bmc.url);
        return Err(Fault::new(FaultKind::OtherServer, cause).into());
    }
    let node = desk.list().change(&args.node, |node| node.bmc = bmc).await?;
    told(output, &node)
}

/// A BMC that lets us in as `args` say, and who it belongs to; what opened it is kept.
async fn opened(
    desk: &Desk,
    node: &Node,
    args: &BmcArgs,
    serial: Option<&str>,
) -> Result<(BmcAddress, Identity), CliError> {
    let file = desk.vault_file()?;
    let mut vault = file.read()?;
    let fresh = credential(args)?;
    if let Some(fresh) = &fresh {
        vault = vault.with(&args.credential, fresh.clone());
    }
    let url = args.bmc.as_ref().map_or_else(|| node.bmc.url.clone(), ToString::to_string);
    let endpoint: basalt_provision::bmc::Endpoint = url.parse().map_err(CliError::Failed)?;
    let same_place = url == node.bmc.url && !args.accept_certificate;
    let certificate_sha256 = match args.certificate {
        _ if endpoint.plaintext => None,
        Some(pin) => Some(pin.to_string()),
        None if same_place && node.bmc.certificate_sha256.is_some() => node.bmc.certificate_sha256.clone(),
        None if desk.common.ca.is_some() => None,
        None => Some(presented(&endpoint, !args.accept_certificate).await?),
    };
    let named = if fresh.is_some() { args.credential.clone() } else { node.bmc.credential.clone() };
    let bmc = BmcAddress { url, credential: named, certificate_sha256 };
    let identity = who(vault, desk.limits(), desk.common.ca.clone(), &bmc, serial).await?;
    if let Some(fresh) = fresh {
        file.change(&args.credential, Some(fresh))?;
    }
    Ok((bmc, identity))
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
