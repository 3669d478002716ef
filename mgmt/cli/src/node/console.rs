//! `basalt node console`: the serial console, by what the BMC offers.

use super::outcome::{Ending, Outcome};
use super::{Desk, redfish};
use crate::control::CliError;
use basalt_provision::NodeName;
use basalt_provision::bmc::Endpoint;
use basalt_redfish::Bmc;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(clap::Args)]
pub(super) struct Args {
    node: NodeName,
    /// Print the command instead of running it
    #[arg(long)]
    print: bool,
}

pub(super) async fn console(desk: &Desk, args: &Args) -> Result<(), CliError> {
    let offered = desk
        .with_server(&args.node, async |_, server| {
            let managers = server.client.managers().await.map_err(redfish)?;
            Ok(managers.into_iter().find_map(|m| m.serial_console))
        })
        .await?;
    let refuse = |why: &str| Err(Outcome::new(Ending::Refused, format!("{}: {why}", args.node)).into());
    let Some(offered) = offered else {
        return refuse("its BMC offers no serial console; use its web page");
    };
    if offered.enabled == Some(false) {
        return refuse("its BMC has a serial console that is switched off; switch it on there");
    }
    let node = desk.node(&args.node).await?;
    let host = node.bmc.url.parse::<Endpoint>().map_err(CliError::Failed)?.host;
    let vault = desk.vault_file()?.read()?;
    let Some(credential) = vault.get(&node.bmc.credential) else {
        return refuse("its credentials are not known");
    };
    let has = |kind: &str| offered.kinds.iter().any(|k| k.eq_ignore_ascii_case(kind));
    let mut command = match () {
        _ if has("IPMI") => {
            let mut command = Command::new("ipmitool");
            // -E: the password comes in the environment, where only this user can read it.
            command.args(["-I", "lanplus", "-H", &host, "-U", &credential.user, "-E", "sol", "activate"]);
            command.env("IPMI_PASSWORD", credential.password.as_str());
            command
        }
        _ if has("SSH") => {
            let mut command = Command::new("ssh");
            command.args(["-l", &credential.user, "--", &host]);
            command
        }
        _ => return refuse(&format!("its BMC offers a console by {} alone", offered.kinds.join(", "))),
    };
    if args.print {
        let words = command.get_args().map(|a| a.to_string_lossy().into_owned());
        let words: Vec<String> =
            std::iter::once(command.get_program().to_string_lossy().into_owned()).chain(words).collect();
        println!("{}", words.join(" "));
        return Ok(());
    }
    let failed = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    Err(CliError::Failed(format!("{program} does not start: {failed}; install it, or see --print")))
}
