//! Boot overrides, boot order, BIOS attributes.

use super::Client;
use super::send::Tagged;
use crate::bmc::{Accepted, BootOverride};
use crate::error::{Cause, Result};
use crate::json::{Read, View};
use crate::model::{Bios, Boot, BootOption, BootTarget, Message, OverrideEnabled, ResourcePath, System};
use crate::quirks::Quirk;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What an iLO calls the address that UEFI boots from.
const URL_BOOT_FILE: &str = "UrlBootFile";
/// What an iDRAC calls it, and what belongs to it. Out of the box only HTTPS is taken.
const HTTP_DEVICE_URI: &str = "HttpDev1Uri";
const HTTP_DEVICE: &str = "HttpDev1EnDis";
const HTTP_DEVICE_TLS: &str = "HttpDev1TlsMode";

impl Client {
    pub(super) async fn override_boot(&self, path: &ResourcePath, wanted: &BootOverride) -> Result<Accepted> {
        let read = self.tagged(path).await?;
        let system = System::read(read.view());
        self.check_offered(&system.boot, wanted).await?;
        if wanted.target == BootTarget::UefiHttp && self.has(Quirk::HttpBootByBiosAttribute).await? {
            let uri = self.need(wanted.http_boot_uri.as_ref(), "HTTP boot without an address")?;
            let attributes = BTreeMap::from([(URL_BOOT_FILE.to_owned(), json!(uri))]);
            return self.change_bios(&system, &attributes).await;
        }
        let mut wanted = wanted.clone();
        let mut before = Accepted::default();
        if self.has(Quirk::HttpBootUriInBios).await?
            && let Some(uri) = wanted.http_boot_uri.take()
        {
            before = self.set_http_device(&system, &uri).await?;
        }
        let place = self.boot_place(read, &system).await?;
        let body = self.override_body(&system.boot, &wanted).await?;
        let reply = self.patch(&place, json!({ "Boot": body })).await?;
        let mut accepted = self.accepted(&reply);
        if accepted.task.is_none() {
            self.look_again(&place.path, &wanted, &mut accepted).await?;
        }
        accepted.task = accepted.task.or(before.task);
        accepted.after_reset |= before.after_reset;
        Ok(accepted)
    }

    async fn set_http_device(&self, system: &System, uri: &str) -> Result<Accepted> {
        let known = self.bios_of(system).await?;
        let mut attributes = BTreeMap::from([(HTTP_DEVICE_URI.to_owned(), json!(uri))]);
        let others = [
            (HTTP_DEVICE, "Enabled"),
            (HTTP_DEVICE_TLS, if uri.starts_with("http://") { "None" } else { "OneWay" }),
        ];
        for (key, value) in others {
            if known.attributes.contains_key(key) || known.pending.contains_key(key) {
                attributes.insert(key.to_owned(), json!(value));
            }
        }
        // What is in force already needs no job.
        if attributes.iter().all(|(key, value)| known.attributes.get(key) == Some(value)) {
            return Ok(Accepted::default());
        }
        self.change_bios(system, &attributes).await
    }

    async fn check_offered(&self, boot: &Boot, wanted: &BootOverride) -> Result<()> {
        let offered = &boot.allowed_targets;
        // `None` is often left out of the list and taken all the same.
        if wanted.target == BootTarget::None || offered.is_empty() || offered.contains(&wanted.target) {
            return Ok(());
        }
        let names: Vec<&str> = offered.iter().map(BootTarget::as_str).collect();
        let what = format!("booting from {} (it offers: {})", wanted.target, names.join(", "));
        Err(self.fail(Cause::Unsupported { what }))
    }

    /// Where boot settings are changed.
    async fn boot_place(&self, read: Tagged, system: &System) -> Result<Tagged> {
        if !self.has(Quirk::BootInSettings).await? {
            return Ok(read);
        }
        let settings = system.settings.clone().unwrap_or_else(|| system.path.join("SD"));
        self.tagged(&settings).await
    }

    async fn override_body(&self, now: &Boot, wanted: &BootOverride) -> Result<Map<String, Value>> {
        let mut body = Map::new();
        let mut set = |key: &str, value: &str| body.insert(key.to_owned(), json!(value));
        set("BootSourceOverrideEnabled", wanted.enabled.as_str());
        if wanted.target != BootTarget::None || !self.has(Quirk::BootTargetNoneRefused).await? {
            set("BootSourceOverrideTarget", wanted.target.as_str());
        }
        // By the standard a property that is not sent stays as it is.
        let mode = wanted.mode.as_ref().or(now.mode.as_ref());
        let resend = self.has(Quirk::BootModeResent).await?
            || wanted.mode.as_ref().is_some_and(|m| Some(m) != now.mode.as_ref());
        if let Some(mode) = mode.filter(|_| resend)
            && !self.has(Quirk::BootModeUnknown).await?
        {
            set("BootSourceOverrideMode", mode.as_str());
        }
        if let Some(uri) = &wanted.http_boot_uri {
            set("HttpBootUri", uri);
        }
        if let Some(target) = &wanted.uefi_target {
            set("UefiTargetBootSourceOverride", target);
        }
        Ok(body)
    }

    /// BMCs take overrides that have no effect: what it says now counts.
    async fn look_again(
        &self,
        place: &ResourcePath,
        wanted: &BootOverride,
        accepted: &mut Accepted,
    ) -> Result<()> {
        let boot = Boot::read(View(&self.get(place).await?).at("Boot"));
        let mut wrong = Vec::new();
        let mut differs = |name: &str, now: Option<&str>, wanted: &str| {
            if let Some(now) = now
                && now != wanted
            {
                wrong.push(format!("{name} is {now}, not {wanted}"));
            }
        };
        let enabled_now = boot.enabled.as_ref();
        if wanted.enabled != OverrideEnabled::Disabled {
            differs("the target", boot.target.as_ref().map(BootTarget::as_str), wanted.target.as_str());
            if let Some(mode) = &wanted.mode {
                differs("the mode", boot.mode.as_ref().map(|mode| mode.as_str()), mode.as_str());
            }
            if enabled_now == Some(&OverrideEnabled::Disabled) {
                differs("the override", Some("Disabled"), wanted.enabled.as_str());
            } else if let Some(now) = enabled_now.filter(|now| **now != wanted.enabled) {
                // It boots from the right place; for how long is for the caller to know.
                let text = format!("the override is {now}, though {} was asked for", wanted.enabled);
                accepted.messages.push(Message { text: Some(text), ..Message::default() });
            }
        } else if let Some(now) = enabled_now {
            differs("the override", Some(now.as_str()), "Disabled");
        }
        if wrong.is_empty() {
            return Ok(());
        }
        let reason = format!("taken, and without effect: {}", wrong.join(", "));
        let request = format!("PATCH {place}");
        Err(self.fail(Cause::Rejected { request, status: 200, reason, message_ids: Vec::new() }))
    }

    pub(super) async fn options_of(&self, path: &ResourcePath) -> Result<Vec<BootOption>> {
        let system: System = self.read(path).await?;
        self.optional_collection(system.boot.options.as_ref()).await
    }

    pub(super) async fn order_boot(&self, path: &ResourcePath, order: &[String]) -> Result<Accepted> {
        let read = self.tagged(path).await?;
        let system = System::read(read.view());
        if system.boot.order.is_empty() {
            return Err(self.fail(Cause::Unsupported { what: "a boot order".to_owned() }));
        }
        if let Some(unknown) = order.iter().find(|reference| !system.boot.order.contains(reference)) {
            let reason =
                format!("the server has no boot option {unknown} (it has: {})", system.boot.order.join(", "));
            return Err(self.fail(Cause::Settings { what: "boot order".to_owned(), reason }));
        }
        // Those that are not named keep their order behind the others: some BMCs take whole lists only.
        let rest = system.boot.order.iter().filter(|reference| !order.contains(reference));
        let whole: Vec<&String> = order.iter().chain(rest).collect();
        let settings = match &system.settings {
            Some(settings) if self.has(Quirk::BootInSettings).await? => self.tagged(settings).await?,
            _ => read,
        };
        let reply = self.patch(&settings, json!({"Boot": {"BootOrder": whole}})).await?;
        let accepted = self.accepted(&reply);
        let after_reset = settings.path != *path || accepted.task.is_some();
        Ok(Accepted { after_reset, ..accepted })
    }

    pub(super) async fn bios_of(&self, system: &System) -> Result<Bios> {
        let path = self.need(system.bios.as_ref(), "BIOS attributes")?;
        let json = self.get(path).await?;
        let view = View(&json);
        let attributes = |view: View<'_>| -> BTreeMap<String, Value> {
            let object = view.at("Attributes").0.as_object();
            let entries = object.into_iter().flatten().take(8192);
            entries.filter(|(key, _)| !key.contains('@')).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let settings = view.link("@Redfish.Settings>SettingsObject");
        let mut bios = Bios {
            path: path.clone(),
            attributes: attributes(view),
            pending: BTreeMap::new(),
            registry: view.text("AttributeRegistry"),
            settings: settings.clone(),
        };
        if let Some(settings) = settings {
            bios.pending = attributes(View(&self.get(&settings).await?));
            if self.has(Quirk::BiosShowsPendingEarly).await? {
                // What is pending is not known to be in force, whatever the attributes say.
                bios.attributes.retain(|key, _| !bios.pending.contains_key(key));
            } else {
                // Many list everything among the pending.
                bios.pending.retain(|key, value| bios.attributes.get(key) != Some(value));
            }
        }
        Ok(bios)
    }

    pub(super) async fn change_bios(
        &self,
        system: &System,
        wanted: &BTreeMap<String, Value>,
    ) -> Result<Accepted> {
        let bios = self.bios_of(system).await?;
        let known = |key: &String| bios.attributes.contains_key(key) || bios.pending.contains_key(key);
        if let Some(unknown) = wanted.keys().find(|key| !known(key)) {
            return Err(self.fail(Cause::Unsupported { what: format!("the BIOS attribute {unknown}") }));
        }
        let place = self.tagged(bios.settings.as_ref().unwrap_or(&bios.path)).await?;
        let mut body = json!({ "Attributes": wanted });
        if self.has(Quirk::BiosNeedsApplyTime).await? {
            // The PATCH makes the job; none is made besides.
            body["@Redfish.SettingsApplyTime"] =
                json!({"@odata.type": "#Settings.v1_3_0.PreferredApplyTime", "ApplyTime": "OnReset"});
        }
        let reply = self.patch(&place, body).await?;
        Ok(Accepted { after_reset: true, ..self.accepted(&reply) })
    }
}
