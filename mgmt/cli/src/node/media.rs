//! `basalt node media`: images that a server sees as its CD.

use super::outcome::{Ending, Outcome};
use super::{Desk, headings, or_dash, redfish};
use crate::control::CliError;
use crate::output::{Output, print};
use basalt_provision::NodeName;
use basalt_redfish::Bmc;
use basalt_redfish::model::{MediaType, VirtualMedia};
use serde::Serialize;

#[derive(clap::Args)]
pub(super) struct Args {
    node: NodeName,
    /// Address of an image that the BMC fetches
    #[arg(long, value_name = "ADDRESS", conflicts_with = "eject")]
    insert: Option<String>,
    /// Take out what is inserted
    #[arg(long)]
    eject: bool,
    /// Id of the slot; the first for CDs by default
    #[arg(long, value_name = "ID")]
    slot: Option<String>,
}

#[derive(Serialize)]
struct Slot {
    id: String,
    types: Vec<String>,
    image: String,
    inserted: bool,
}

pub(super) async fn media(desk: &Desk, args: &Args, output: Output) -> Result<(), CliError> {
    let slots = desk
        .with_server(&args.node, async |_, server| {
            let path = &server.system.path;
            let slots = server.client.virtual_media(path).await.map_err(redfish)?;
            if let Some(image) = &args.insert {
                let slot = chosen(args, &slots)?;
                if slot.inserted == Some(true) && slot.image.as_deref() != Some(image) {
                    let held = slot.image.as_deref().unwrap_or("an image");
                    let summary = format!("there is {held} in it already; take it out first with --eject");
                    return Err(Outcome::new(Ending::Refused, summary).into());
                }
                server.client.insert_media(slot, image).await.map_err(redfish)?;
            }
            if args.eject {
                server.client.eject_media(chosen(args, &slots)?).await.map_err(redfish)?;
            }
            server.client.virtual_media(path).await.map_err(redfish)
        })
        .await?;
    let slots: Vec<Slot> = slots
        .into_iter()
        .map(|slot| Slot {
            id: slot.id.unwrap_or_default(),
            types: slot.media_types.iter().map(ToString::to_string).collect(),
            image: slot.image.unwrap_or_default(),
            inserted: slot.inserted.unwrap_or(false),
        })
        .collect();
    print(output, &slots, |slots| {
        let mut rows = headings(["SLOT", "TAKES", "INSERTED", "IMAGE"]);
        rows.extend(slots.iter().map(|s| {
            let inserted = if s.inserted { "yes" } else { "no" };
            vec![s.id.clone(), or_dash(&s.types.join(" ")), inserted.into(), or_dash(&s.image)]
        }));
        rows
    })
}

fn chosen<'a>(args: &Args, slots: &'a [VirtualMedia]) -> Result<&'a VirtualMedia, CliError> {
    let found = match &args.slot {
        Some(id) => slots.iter().find(|s| s.id.as_ref() == Some(id)),
        None => {
            let disc = |s: &&VirtualMedia| s.takes(&MediaType::Cd) || s.takes(&MediaType::Dvd);
            slots.iter().find(disc).or_else(|| slots.first())
        }
    };
    found.ok_or_else(|| {
        let summary = format!("{} has no such slot for virtual media", args.node);
        Outcome::new(Ending::Refused, summary).into()
    })
}
