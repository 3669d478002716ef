//! PATCH: what may be changed, and what changes with it.

use crate::deviation::Deviation;
use crate::reply::Reply;
use crate::respond::{Asked, kind, shown, tag_of};
use crate::state::State;
use serde_json::{Map, Value, json};

/// Properties of each type that take a PATCH.
fn writable(state: &State, kind: &str) -> &'static [&'static str] {
    match kind {
        "ComputerSystem" => &["Boot", "IndicatorLED", "LocationIndicatorActive", "AssetTag", "HostName"],
        "Chassis" => &["IndicatorLED", "LocationIndicatorActive", "AssetTag"],
        "Drive" => &["IndicatorLED", "LocationIndicatorActive"],
        "Manager" => &["DateTime", "DateTimeLocalOffset"],
        "ManagerAccount" => &["Password", "UserName", "RoleId", "Enabled", "Locked"],
        "SecureBoot" => &["SecureBootEnable"],
        "Bios" => &["Attributes"],
        "VirtualMedia" if state.deviates(Deviation::MediaByPatch) => {
            &["Image", "Inserted", "WriteProtected", "UserName", "Password"]
        }
        "SessionService" => &["SessionTimeout", "ServiceEnabled"],
        "EventDestination" => &["Context"],
        "EventService" => &["ServiceEnabled"],
        "ManagerNetworkProtocol" => &["SSH", "IPMI", "SSDP", "NTP"],
        "EthernetInterface" => &["MTUSize", "HostName"],
        _ => &[],
    }
}

/// Whether a PATCH has anything to change there.
pub(crate) fn takes(state: &State, path: &str, kind: &str) -> bool {
    !writable(state, kind).is_empty() && !path.ends_with("/Bios")
}

pub(crate) fn patch(state: &mut State, asked: &Asked) -> Reply {
    let Some(resource) = state.resource(&asked.path) else { return Reply::not_found(&asked.path) };
    let kind = kind(resource).to_owned();
    if let Some(refusal) = check_tag(state, asked, &kind) {
        return refusal;
    }
    let Some(Value::Object(wanted)) = asked.json() else {
        return Reply::error(400, "MalformedJSON", "The request body submitted was malformed JSON.", &[]);
    };
    let allowed = writable(state, &kind);
    if allowed.is_empty() {
        return Reply::not_allowed();
    }
    for key in wanted.keys().filter(|key| !key.starts_with('@')) {
        if !allowed.contains(&key.as_str()) {
            let known = state.resource(&asked.path).is_some_and(|resource| resource.get(key).is_some());
            return if known { Reply::not_writable(key) } else { Reply::unknown_property(key) };
        }
    }
    let result = match kind.as_str() {
        "ComputerSystem" => patch_system(state, &asked.path, &wanted),
        "Bios" => patch_bios(state, &asked.path, &wanted),
        "ManagerAccount" => patch_account(state, &asked.path, &wanted),
        _ => Ok(()),
    };
    if let Err(reply) = result {
        return *reply;
    }
    let merged: Map<String, Value> = wanted
        .into_iter()
        .filter(|(key, _)| !key.starts_with('@') && key != "Boot" && key != "Password")
        .collect();
    if let Some(resource) = state.resource_mut(&asked.path) {
        merge(resource, Value::Object(merged));
    }
    match shown(state, &asked.path) {
        Some(now) => {
            let tag = tag_of(&now);
            Reply::json(200, now).with("ETag", tag)
        }
        None => Reply::empty(204),
    }
}

pub(crate) fn merge(into: &mut Value, change: Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change,
    }
}

fn check_tag(state: &mut State, asked: &Asked, kind: &str) -> Option<Reply> {
    let text = "The ETag supplied did not match the ETag required to change this resource.";
    let failed = || Some(Reply::error(412, "PreconditionFailed", text, &[]));
    let required = "A precondition header or annotation is required to change this resource.";
    let Some(tag) = &asked.if_match else {
        return match kind {
            "ManagerAccount" if state.deviates(Deviation::StarTagRefused) => {
                Some(Reply::error(428, "PreconditionRequired", required, &[]))
            }
            _ if state.deviates(Deviation::TagMandatory) => {
                let text = "The request did not provide the required precondition, such as an If-Match or If-None-Match header.";
                Some(Reply::error_of(428, "Ami.1.0.PreconditionHeaderMissing", text, &[]))
            }
            _ => None,
        };
    };
    if tag == "*" {
        let refused = state.deviates(Deviation::StarTagRefused) || state.deviates(Deviation::TagMandatory);
        return if refused { failed() } else { None };
    }
    if state.deviates(Deviation::TagRefusedOnce) && state.tagged_once.insert(asked.path.clone()) {
        return failed();
    }
    let now = shown(state, &asked.path).map(|resource| tag_of(&resource));
    let weak = tag.starts_with("W/") && state.deviates(Deviation::WeakTags);
    let bare = tag.trim_start_matches("W/");
    if now.as_deref() == Some(bare) && !weak { None } else { failed() }
}

fn patch_system(state: &mut State, path: &str, wanted: &Map<String, Value>) -> Result<(), Box<Reply>> {
    let Some(boot) = wanted.get("Boot") else { return Ok(()) };
    let Some(boot) = boot.as_object() else {
        return Err(Box::new(Reply::error(
            400,
            "PropertyValueTypeError",
            "Boot is no object.",
            &["", "Boot"],
        )));
    };
    let is_settings = path.ends_with("/SD");
    if state.deviates(Deviation::BootInSettings) && !is_settings {
        return Err(Box::new(Reply::not_writable("Boot")));
    }
    let base = path.strip_suffix("/SD").unwrap_or(path);
    let known = state.resource(base).map(|system| system["Boot"].clone()).unwrap_or_default();
    let no_mode = state.deviates(Deviation::ModeUnknown);
    let refuse = |key: &str, value: &Value| Err(Box::new(Reply::not_in_list(key, value)));
    let list = |key: &str, usual: &[&str]| -> Vec<String> {
        let given = known[format!("{key}@Redfish.AllowableValues")].as_array();
        let given = given.map(|list| list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect());
        given.unwrap_or_else(|| usual.iter().map(|v| (*v).to_owned()).collect())
    };
    for (key, value) in boot {
        let text = value.as_str().unwrap_or_default().to_owned();
        let fits = match key.as_str() {
            "BootSourceOverrideTarget" if text == "None" => !state.deviates(Deviation::NoneTargetRefused),
            "BootSourceOverrideTarget" => {
                list(key, &["Pxe", "UefiHttp", "Hdd", "Cd", "Usb", "BiosSetup"]).contains(&text)
            }
            "BootSourceOverrideEnabled" => ["Disabled", "Once", "Continuous"].contains(&text.as_str()),
            "BootSourceOverrideMode" if no_mode => return Err(Box::new(Reply::unknown_property(key))),
            "BootSourceOverrideMode" => list(key, &["UEFI", "Legacy"]).contains(&text),
            "HttpBootUri" if state.deviates(Deviation::HttpUriInBios) => {
                return Err(Box::new(Reply::unknown_property(key)));
            }
            "HttpBootUri" | "UefiTargetBootSourceOverride" => value.is_string() || value.is_null(),
            "BootOrder" => {
                let now = known["BootOrder"].as_array().cloned().unwrap_or_default();
                value.as_array().is_some_and(|order| {
                    order.len() == now.len() && now.iter().all(|option| order.contains(option))
                })
            }
            _ => return Err(Box::new(Reply::unknown_property(key))),
        };
        if !fits {
            return refuse(key, value);
        }
    }
    let mut change = Value::Object(boot.clone());
    if state.deviates(Deviation::HttpOverrideWithoutEffect)
        && boot.get("BootSourceOverrideTarget") == Some(&json!("UefiHttp"))
    {
        return Ok(());
    }
    if state.deviates(Deviation::ModeFallsToLegacy)
        && boot.contains_key("BootSourceOverrideTarget")
        && !boot.contains_key("BootSourceOverrideMode")
    {
        change["BootSourceOverrideMode"] = json!("Legacy");
    }
    if state.deviates(Deviation::AlwaysContinuous)
        && boot.get("BootSourceOverrideEnabled") == Some(&json!("Once"))
    {
        change["BootSourceOverrideEnabled"] = json!("Continuous");
    }
    if boot.get("BootSourceOverrideEnabled") == Some(&json!("Disabled")) {
        change["BootSourceOverrideTarget"] = json!("None");
    }
    if let Some(system) = state.resource_mut(path) {
        merge(&mut system["Boot"], change);
    }
    Ok(())
}

fn patch_bios(state: &mut State, path: &str, wanted: &Map<String, Value>) -> Result<(), Box<Reply>> {
    let base = path.rsplit_once('/').map_or(path, |(base, _)| base);
    let base = if path.ends_with("/Bios") { path } else { base };
    let known = state.resource(base).map(|bios| bios["Attributes"].clone()).unwrap_or_default();
    if path == base {
        return Err(Box::new(Reply::not_writable("Attributes")));
    }
    for key in wanted.get("Attributes").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
        if known.get(key).is_none() {
            return Err(Box::new(Reply::unknown_property(key)));
        }
    }
    let with_time = wanted.contains_key("@Redfish.SettingsApplyTime");
    let armed = with_time || !state.deviates(Deviation::BiosJobOnlyWithApplyTime);
    if armed {
        state.armed_bios.insert(path.to_owned());
    }
    Ok(())
}

fn patch_account(state: &mut State, path: &str, wanted: &Map<String, Value>) -> Result<(), Box<Reply>> {
    let user = |state: &State| {
        state.resource(path).and_then(|account| account["UserName"].as_str()).unwrap_or_default().to_owned()
    };
    let old = user(state);
    let new = wanted.get("UserName").and_then(Value::as_str).unwrap_or(&old).to_owned();
    let password = wanted.get("Password").and_then(Value::as_str).map(str::to_owned);
    if password.as_ref().is_some_and(|password| password.len() < 8) {
        let text =
            "The value provided for the property Password does not meet the policy: at least 8 characters.";
        return Err(Box::new(Reply::error(400, "PropertyValueFormatError", text, &["***", "Password"])));
    }
    let before = state.passwords.remove(&old);
    if let Some(password) = password.or(before).filter(|_| !new.is_empty()) {
        state.passwords.insert(new, password);
    }
    Ok(())
}
