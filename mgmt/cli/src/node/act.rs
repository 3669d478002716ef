//! `basalt node power`, `boot`, `locate`, `logs`: one question or one order to one BMC.

use super::{Desk, headings, or_dash, redfish};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_provision::NodeName;
use basalt_redfish::model::{BootMode, BootTarget, OverrideEnabled};
use basalt_redfish::{Bmc, BootOverride, PowerAction};
use serde::Serialize;

#[derive(Clone, Copy, clap::ValueEnum)]
enum PowerVerb {
    Status,
    On,
    /// Asks the operating system
    Off,
    ForceOff,
    /// Asks the operating system
    Restart,
    ForceRestart,
    Cycle,
    Nmi,
}

#[derive(clap::Args)]
pub(super) struct PowerArgs {
    node: NodeName,
    #[arg(value_enum, default_value = "status")]
    action: PowerVerb,
}

#[derive(Serialize)]
struct PowerShown {
    node: String,
    power: String,
    boot_progress: String,
}

pub(super) async fn power(desk: &Desk, args: &PowerArgs, output: Output) -> Result<(), CliError> {
    let action = match args.action {
        PowerVerb::Status => None,
        PowerVerb::On => Some(PowerAction::On),
        PowerVerb::Off => Some(PowerAction::GracefulOff),
        PowerVerb::ForceOff => Some(PowerAction::ForceOff),
        PowerVerb::Restart => Some(PowerAction::GracefulRestart),
        PowerVerb::ForceRestart => Some(PowerAction::ForceRestart),
        PowerVerb::Cycle => Some(PowerAction::PowerCycle),
        PowerVerb::Nmi => Some(PowerAction::Nmi),
    };
    let shown = desk
        .with_server(&args.node, async |node, server| {
            let path = &server.system.path;
            if let Some(action) = action {
                server.client.power(path, action).await.map_err(redfish)?;
            }
            let system = server.client.system(path).await.map_err(redfish)?;
            Ok(PowerShown {
                node: node.name.to_string(),
                power: system.power_state.map_or_else(String::new, |p| p.to_string()),
                boot_progress: system.boot_progress.unwrap_or_default(),
            })
        })
        .await?;
    print(output, &shown, |s| {
        let mut rows = headings(["NODE", "POWER", "BOOT"]);
        rows.push(vec![s.node.clone(), or_dash(&s.power), or_dash(&s.boot_progress)]);
        rows
    })
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum BootVerb {
    Pxe,
    Http,
    Disk,
    Cd,
    Usb,
    BiosSetup,
    /// By its own boot order
    Default,
}

#[derive(clap::Args)]
pub(super) struct BootArgs {
    node: NodeName,
    /// Where it boots from next; none shows it
    #[arg(value_enum)]
    from: Option<BootVerb>,
    /// At every start, not at the next one alone
    #[arg(long, requires = "from")]
    always: bool,
    /// Old BIOS instead of UEFI
    #[arg(long, requires = "from")]
    legacy: bool,
    /// Address for `http`
    #[arg(long, requires = "from")]
    url: Option<String>,
}

#[derive(Serialize)]
struct BootShown {
    node: String,
    override_enabled: String,
    target: String,
    mode: String,
    order: Vec<String>,
    /// In force from the next start on, says the BMC.
    after_reset: bool,
}

pub(super) async fn boot(desk: &Desk, args: &BootArgs, output: Output) -> Result<(), CliError> {
    let wanted = args.from.map(|from| {
        let target = match from {
            BootVerb::Default => return BootOverride::none(),
            BootVerb::Pxe => BootTarget::Pxe,
            BootVerb::Http => BootTarget::UefiHttp,
            BootVerb::Disk => BootTarget::Hdd,
            BootVerb::Cd => BootTarget::Cd,
            BootVerb::Usb => BootTarget::Usb,
            BootVerb::BiosSetup => BootTarget::BiosSetup,
        };
        BootOverride {
            target,
            enabled: if args.always { OverrideEnabled::Continuous } else { OverrideEnabled::Once },
            mode: Some(if args.legacy { BootMode::Legacy } else { BootMode::Uefi }),
            http_boot_uri: args.url.clone(),
            uefi_target: None,
        }
    });
    let shown = desk
        .with_server(&args.node, async |node, server| {
            let path = &server.system.path;
            let mut after_reset = false;
            if let Some(wanted) = &wanted {
                after_reset =
                    server.client.set_boot_override(path, wanted).await.map_err(redfish)?.after_reset;
            }
            let boot = server.client.system(path).await.map_err(redfish)?.boot;
            Ok(BootShown {
                node: node.name.to_string(),
                override_enabled: boot.enabled.map_or_else(String::new, |e| e.to_string()),
                target: boot.target.map_or_else(String::new, |t| t.to_string()),
                mode: boot.mode.map_or_else(String::new, |m| m.to_string()),
                order: boot.order,
                after_reset,
            })
        })
        .await?;
    print(output, &shown, |s| {
        let mut rows = headings(["NODE", "OVERRIDE", "TARGET", "MODE", "ORDER"]);
        let order = or_dash(&s.order.join(" "));
        rows.push(vec![
            s.node.clone(),
            or_dash(&s.override_enabled),
            or_dash(&s.target),
            or_dash(&s.mode),
            order,
        ]);
        rows
    })
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Light {
    On,
    Off,
}

#[derive(clap::Args)]
pub(super) struct LocateArgs {
    node: NodeName,
    #[arg(value_enum, default_value = "on")]
    light: Light,
    /// Serial number of one of its drives
    #[arg(long, value_name = "SERIAL")]
    drive: Option<String>,
}

pub(super) async fn locate(desk: &Desk, args: &LocateArgs) -> Result<(), CliError> {
    let lit = matches!(args.light, Light::On);
    desk.with_server(&args.node, async |node, server| {
        let path = match &args.drive {
            None => server.system.path.clone(),
            Some(serial) => {
                let storage = server.client.storage(&server.system).await.map_err(redfish)?;
                let mut drives = storage.into_iter().flat_map(|s| s.drives);
                let found = drives.find(|d| d.serial_number.as_deref().map(str::trim) == Some(serial));
                found.map(|d| d.path).ok_or_else(|| {
                    CliError::Usage(format!(
                        "{} has no drive {serial}; `basalt node show {}` lists them",
                        node.name, node.name
                    ))
                })?
            }
        };
        server.client.set_indicator(&path, lit).await.map_err(redfish)
    })
    .await
}

#[derive(clap::Args)]
pub(super) struct LogsArgs {
    node: NodeName,
    /// At most so many of each log
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

#[derive(Serialize)]
struct LogLine {
    log: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_s: Option<i64>,
    severity: String,
    message: String,
}

pub(super) async fn logs(desk: &Desk, args: &LogsArgs, output: Output) -> Result<(), CliError> {
    let lines = desk
        .with_server(&args.node, async |_, server| {
            let mut lines = Vec::new();
            for log in server.client.log_services(&server.system.path).await.map_err(redfish)? {
                let name = log.id.clone().or_else(|| log.name.clone()).unwrap_or_default();
                for entry in server.client.log_entries(&log, args.limit.into()).await.map_err(redfish)? {
                    lines.push(LogLine {
                        log: name.clone(),
                        at_s: entry.created.map(|t| t.0),
                        severity: entry.severity.map_or_else(String::new, |s| s.to_string()),
                        // What a BMC says is not to move the cursor.
                        message: basalt_provision::node::clipped(
                            entry.message.as_deref().unwrap_or_default(),
                        ),
                    });
                }
            }
            Ok(lines)
        })
        .await?;
    print(output, &lines, |lines| {
        let mut rows = headings(["AT", "LOG", "SEVERITY", "MESSAGE"]);
        rows.extend(lines.iter().map(|l| {
            let at =
                l.at_s.and_then(|s| u64::try_from(s).ok()).map_or("-".into(), basalt_upgrade::time::rfc3339);
            vec![at, or_dash(&l.log), or_dash(&l.severity), l.message.clone()]
        }));
        rows
    })
}
