//! `basalt node discover`: who answers as a BMC.

use super::outcome::{Ending, Outcome};
use super::{Desk, headings, or_dash};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_provision::bmc::Endpoint;
use basalt_provision::{NodeStore, State};
use basalt_redfish::discovery::{AddressRange, Found, ProbeOptions, SsdpOptions, probe, probe_all, search};
use serde::Serialize;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Args {
    /// 10.0.0.0/24, 10.0.0.10-40, 10.0.0.7; several are possible
    #[arg(value_name = "RANGE", required_unless_present = "ssdp")]
    ranges: Vec<AddressRange>,
    /// Ports to try
    #[arg(long, value_delimiter = ',', default_value = "443")]
    port: Vec<u16>,
    /// Without TLS
    #[arg(long)]
    plaintext: bool,
    /// Ask the local network for Redfish services (SSDP) as well
    #[arg(long)]
    ssdp: bool,
    /// Seconds that an address may take
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60), value_name = "SECONDS")]
    patience: u64,
}

#[derive(Serialize)]
struct Row {
    url: String,
    vendor: String,
    product: String,
    redfish: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<String>,
    /// The node of the list that has this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
}

pub(super) async fn discover(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let mut found: Vec<Found> = Vec::new();
    let options = |port: u16| ProbeOptions {
        port,
        plaintext: args.plaintext,
        patience: Duration::from_secs(args.patience),
        at_once: desk.common.parallel.into(),
    };
    for port in &args.port {
        let addresses = args.ranges.iter().flat_map(|r| r.addresses());
        found.extend(probe_all(addresses, &options(*port)).await);
    }
    if args.ssdp {
        let heard = search(&SsdpOptions::default()).await.map_err(super::failed)?;
        for (address, port) in heard {
            if found.iter().all(|f| (f.address, f.port) != (address, port)) {
                found.extend(probe(address, &options(port)).await);
            }
        }
    }
    let known = desk.store.all().await?;
    let rows: Vec<Row> = found
        .into_iter()
        .map(|f| {
            let endpoint = Endpoint { host: f.address.to_string(), port: f.port, plaintext: args.plaintext };
            let url = endpoint.to_string();
            let node = known.iter().find(|n| n.state != State::Removed && n.bmc.url == url);
            Row {
                node: node.map(|n| n.name.to_string()),
                vendor: f.service.vendor.unwrap_or_default(),
                product: f.service.product.unwrap_or_default(),
                redfish: f.service.redfish_version.unwrap_or_default(),
                certificate_sha256: f.certificate.map(|c| c.to_string()),
                url,
            }
        })
        .collect();
    print(output, &rows, |rows| {
        let mut table = headings(["BMC", "VENDOR", "PRODUCT", "REDFISH", "CERTIFICATE", "NODE"]);
        table.extend(rows.iter().map(|r| {
            let certificate =
                r.certificate_sha256.as_deref().map_or("-".into(), |c| format!("{}…", &c[..16]));
            let node = r.node.clone().unwrap_or_else(|| "-".into());
            vec![
                r.url.clone(),
                or_dash(&r.vendor),
                or_dash(&r.product),
                or_dash(&r.redfish),
                certificate,
                node,
            ]
        }));
        table
    })?;
    match rows.is_empty() {
        false => Ok(()),
        true => Err(Outcome::new(
            Ending::NoAnswer,
            "no BMC answers there: check range, port, and that this machine reaches the management network",
        )
        .into()),
    }
}
