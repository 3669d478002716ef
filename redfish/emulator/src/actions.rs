//! POST: actions, new members, updates; and what happens by itself as time goes.

use crate::deviation::Deviation;
use crate::reply::Reply;
use crate::respond::{Asked, kind, password_fits, sessions_path, unauthorised};
use crate::state::{Boot, RunningTask, State};
use crate::tree::normal;
use serde_json::{Value, json};
use std::time::Instant;

const TASKS: &str = "/redfish/v1/TaskService/Tasks";
const MONITORS: &str = "/redfish/v1/TaskService/TaskMonitors";
/// When nothing else is known.
const NOW: &str = "2026-01-01T00:00:00Z";

pub(crate) fn post(state: &mut State, asked: &Asked) -> Reply {
    let path = asked.path.clone();
    if normal(&sessions_path(state)) == path {
        return log_in(state, asked);
    }
    if let Some((owner, action)) = path.split_once("/Actions/") {
        return act(state, asked, owner, action);
    }
    if is_push(state, &path) {
        return push(state, asked);
    }
    let Some(resource) = state.resource(&path) else { return Reply::not_found(&path) };
    match kind(resource) {
        "ManagerAccountCollection" => add_account(state, asked),
        "EventDestinationCollection" => add_subscription(state, asked),
        "CertificateCollection" => add_certificate(state, asked),
        "JobCollection" | "DellJobCollection" => {
            Reply::error(400, "ResourceInUse", "A job is already scheduled for this target.", &[])
        }
        _ => Reply::not_allowed(),
    }
}

fn body(asked: &Asked) -> Result<Value, Reply> {
    if asked.body.is_empty() {
        return Ok(json!({}));
    }
    match asked.json() {
        Some(json) if json.is_object() => Ok(json),
        _ => Err(Reply::error(400, "MalformedJSON", "The request body submitted was malformed JSON.", &[])),
    }
}

/// A new member of a collection: shown as it stands, with its place.
fn created(state: &mut State, collection: &str, path: String, resource: Value) -> Reply {
    state.insert(&path, resource);
    state.add_member(collection, &path);
    Reply::json(201, state.resource(&path).cloned().unwrap_or_default()).with("Location", path)
}

fn log_in(state: &mut State, asked: &Asked) -> Reply {
    let json = match body(asked) {
        Ok(json) => json,
        Err(reply) => return reply,
    };
    let (Some(user), Some(password)) = (json["UserName"].as_str(), json["Password"].as_str()) else {
        return Reply::error(
            400,
            "PropertyMissing",
            "The property UserName or Password is missing.",
            &["UserName"],
        );
    };
    if state.locked {
        return unauthorised(&asked.path, "the account is locked out");
    }
    if !password_fits(state, user, password) {
        return unauthorised(&asked.path, "the credentials are wrong");
    }
    if state.sessions.len() >= state.options.max_sessions {
        let text = "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.";
        return Reply::error(503, "SessionLimitExceeded", text, &[]);
    }
    let id = state.fresh();
    let path = format!("{}/{id}", asked.path);
    let token = format!("token-{id}-{:08x}", id.wrapping_mul(0x9e37_79b9) & 0xffff_ffff);
    let session = json!({
        "@odata.type": "#Session.v1_6_0.Session", "Id": id.to_string(), "Name": "Session",
        "UserName": user, "SessionType": "Redfish", "CreatedTime": NOW,
    });
    state.sessions.insert(token.clone(), path.clone());
    created(state, &asked.path, path, session).with("X-Auth-Token", token)
}

fn act(state: &mut State, asked: &Asked, owner: &str, action: &str) -> Reply {
    let Some(resource) = state.resource(owner) else { return Reply::not_found(owner) };
    let declared = resource["Actions"].as_object().is_some_and(|actions| {
        actions.values().any(|a| a["target"].as_str().is_some_and(|target| normal(target) == asked.path))
    });
    if !declared || (kind(resource) == "VirtualMedia" && state.deviates(Deviation::MediaByPatch)) {
        return Reply::not_found(&asked.path);
    }
    let allowed = |parameter: &str| -> Option<Vec<Value>> {
        let entry = resource["Actions"]
            .as_object()?
            .values()
            .find(|a| a["target"].as_str().is_some_and(|t| normal(t) == asked.path))?;
        entry[format!("{parameter}@Redfish.AllowableValues")].as_array().cloned()
    };
    let json = match body(asked) {
        Ok(json) => json,
        Err(reply) => return reply,
    };
    let reset_types = allowed("ResetType");
    match action {
        "ComputerSystem.Reset" | "Manager.Reset" => {
            let Some(kind) = json["ResetType"].as_str() else { return Reply::missing("ResetType") };
            let usual = [
                "On",
                "ForceOff",
                "GracefulShutdown",
                "GracefulRestart",
                "ForceRestart",
                "PowerCycle",
                "Nmi",
                "PushPowerButton",
            ];
            let fits = reset_types.map_or(usual.contains(&kind), |list| list.contains(&json!(kind)));
            if !fits {
                return Reply::not_in_list("ResetType", &json["ResetType"]);
            }
            if action == "Manager.Reset" { restart_manager(state) } else { reset_system(state, owner, kind) }
        }
        "VirtualMedia.InsertMedia" => {
            let Some(image) = json["Image"].as_str() else { return Reply::missing("Image") };
            if state.resource(owner).is_some_and(|slot| slot["Inserted"] == json!(true)) {
                return Reply::error(409, "ResourceInUse", "Media is inserted already.", &[]);
            }
            let protected = json.get("WriteProtected").cloned().unwrap_or(json!(true));
            insert_media(state, owner, Some(image), protected);
            Reply::empty(204)
        }
        "VirtualMedia.EjectMedia" => {
            insert_media(state, owner, None, json!(true));
            Reply::empty(204)
        }
        "LogService.ClearLog" => {
            let entries = format!("{owner}/Entries");
            let members: Vec<String> = state
                .resource(&entries)
                .and_then(|entries| entries["Members"].as_array())
                .into_iter()
                .flatten()
                .filter_map(|member| member["@odata.id"].as_str().map(str::to_owned))
                .collect();
            members.iter().for_each(|member| state.remove_member(member));
            Reply::empty(204)
        }
        "EventService.SubmitTestEvent" => {
            let message = json["Message"].as_str().unwrap_or("A test event.").to_owned();
            state.emit("Alert", &message, json["Severity"].as_str().unwrap_or("OK"), None);
            Reply::empty(204)
        }
        "SecureBoot.ResetKeys" => {
            if let Some(secure_boot) = state.resource_mut(owner) {
                let setup = json["ResetKeysType"] != json!("ResetAllKeysToDefault");
                secure_boot["SecureBootMode"] = json!(if setup { "SetupMode" } else { "UserMode" });
            }
            Reply::empty(204)
        }
        "UpdateService.SimpleUpdate" => {
            let Some(uri) = json["ImageURI"].as_str() else { return Reply::missing("ImageURI") };
            let targets = json["Targets"].as_array().cloned().unwrap_or_default();
            update(state, uri, &targets)
        }
        _ => Reply::error(501, "ActionNotSupported", "The action is not supported.", &[action]),
    }
}

fn insert_media(state: &mut State, slot: &str, image: Option<&str>, protected: Value) {
    if let Some(slot) = state.resource_mut(slot) {
        slot["Image"] = json!(image);
        slot["ImageName"] = json!(image.map(|image| image.rsplit('/').next().unwrap_or(image)));
        slot["Inserted"] = json!(image.is_some());
        slot["ConnectedVia"] = json!(if image.is_some() { "URI" } else { "NotConnected" });
        slot["WriteProtected"] = protected;
    }
}

fn reset_system(state: &mut State, system: &str, kind: &str) -> Reply {
    let on = state.resource(system).is_some_and(|system| system["PowerState"] == json!("On"));
    let (off_first, on_after) = match kind {
        "On" | "ForceOn" => (false, !on),
        "ForceOff" | "GracefulShutdown" => (on, false),
        "PushPowerButton" => (on, !on),
        "Nmi" => (false, false),
        _ => (on, true),
    };
    let takes = state.options.power_takes;
    if off_first && on_after || takes.is_zero() {
        if off_first {
            switch(state, system, false);
        }
        if on_after && takes.is_zero() {
            switch(state, system, true);
        }
    }
    if !takes.is_zero() && (off_first || on_after) {
        if let Some(system) = state.resource_mut(system) {
            system["PowerState"] = json!(if on_after { "PoweringOn" } else { "PoweringOff" });
        }
        state.switching.push((Instant::now() + takes, system.to_owned(), on_after));
    }
    Reply::empty(204)
}

fn switch(state: &mut State, system: &str, on: bool) {
    if let Some(system) = state.resource_mut(system) {
        system["PowerState"] = json!(if on { "On" } else { "Off" });
        if system.get("BootProgress").is_some() {
            system["BootProgress"] = json!({ "LastState": if on { "OSRunning" } else { "None" } });
        }
    }
    let words = if on { "The server was turned on." } else { "The server was turned off." };
    state.emit("StatusChange", words, "OK", Some(system));
    if on {
        boot(state, system);
    }
}

/// The server starts: what was set for the next boot comes into force.
fn boot(state: &mut State, system: &str) {
    apply_bios(state, system);
    apply_secure_boot(state, system);
    let settings = format!("{system}/SD");
    if let Some(pending) = state.resource(&settings).map(|settings| settings["Boot"].clone())
        && let Some(system) = state.resource_mut(system)
    {
        crate::patch::merge(&mut system["Boot"], pending);
    }
    let Some(resource) = state.resource(system) else { return };
    let now = resource["Boot"].clone();
    let text = |key: &str| now[key].as_str().map(str::to_owned);
    let enabled = text("BootSourceOverrideEnabled").unwrap_or_default();
    let overridden = matches!(enabled.as_str(), "Once" | "Continuous");
    let mut target = text("BootSourceOverrideTarget").filter(|_| overridden).unwrap_or("None".to_owned());
    let mut uri = text("HttpBootUri").filter(|_| target == "UefiHttp");
    let bios_attribute = |name: &str| {
        let bios = resource["Bios"]["@odata.id"].as_str().and_then(|path| state.resource(path));
        let value = bios.and_then(|bios| bios["Attributes"][name].as_str()).filter(|value| !value.is_empty());
        value.map(str::to_owned)
    };
    if target == "UefiHttp" && state.deviates(Deviation::HttpUriInBios) {
        let plain_refused = bios_attribute("HttpDev1TlsMode").as_deref() != Some("None");
        let enabled = bios_attribute("HttpDev1EnDis").as_deref() == Some("Enabled");
        let fits = |uri: &String| enabled && !(plain_refused && uri.starts_with("http://"));
        uri = bios_attribute("HttpDev1Uri").filter(fits);
    }
    if state.deviates(Deviation::HttpOverrideWithoutEffect)
        && let Some(file) = bios_attribute("UrlBootFile")
    {
        (target, uri) = ("UefiHttp".to_owned(), Some(file));
    }
    let mode = text("BootSourceOverrideMode").unwrap_or_default();
    let media = inserted_media(state);
    state.boots.push(Boot { system: system.to_owned(), target, mode, uri, media });
    if enabled == "Once" {
        for path in [system, &settings] {
            if let Some(resource) = state.resource_mut(path) {
                let done =
                    json!({"BootSourceOverrideEnabled": "Disabled", "BootSourceOverrideTarget": "None"});
                crate::patch::merge(resource, json!({ "Boot": done }));
            }
        }
    }
}

fn inserted_media(state: &State) -> Vec<String> {
    let mut all = Vec::new();
    for prefix in ["/redfish/v1/Systems/", "/redfish/v1/Managers/"] {
        if let Some(path) = state.find(prefix, "VirtualMedia")
            && let Some(image) = state.resource(&path).and_then(|slot| slot["Image"].as_str())
        {
            all.push(image.to_owned());
        }
    }
    all
}

fn apply_bios(state: &mut State, system: &str) {
    let Some(bios) = state.resource(system).and_then(|s| s["Bios"]["@odata.id"].as_str()).map(str::to_owned)
    else {
        return;
    };
    let settings =
        state.resource(&bios).and_then(|b| b["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str());
    let Some(settings) = settings.map(str::to_owned) else { return };
    if !state.armed_bios.remove(&settings) {
        return;
    }
    let pending =
        state.resource(&settings).map(|settings| settings["Attributes"].clone()).unwrap_or_default();
    if let Some(bios) = state.resource_mut(&bios) {
        crate::patch::merge(&mut bios["Attributes"], pending);
    }
    if let Some(settings) = state.resource_mut(&settings) {
        settings["Attributes"] = json!({});
    }
}

fn apply_secure_boot(state: &mut State, system: &str) {
    let path = state.resource(system).and_then(|s| s["SecureBoot"]["@odata.id"].as_str()).map(str::to_owned);
    if let Some(secure_boot) = path.and_then(|path| state.resource_mut(&path)) {
        let enabled = secure_boot["SecureBootEnable"] == json!(true);
        secure_boot["SecureBootCurrentBoot"] = json!(if enabled { "Enabled" } else { "Disabled" });
    }
}

fn restart_manager(state: &mut State) -> Reply {
    state.gone_until = Some(Instant::now() + state.options.restart_takes);
    state.end_sessions();
    Reply::empty(204).with("Connection", "close")
}

fn add_account(state: &mut State, asked: &Asked) -> Reply {
    let json = match body(asked) {
        Ok(json) => json,
        Err(reply) => return reply,
    };
    let (Some(user), Some(password)) = (json["UserName"].as_str(), json["Password"].as_str()) else {
        return Reply::error(
            400,
            "PropertyMissing",
            "The property UserName or Password is missing.",
            &["UserName"],
        );
    };
    if state.passwords.contains_key(user) {
        return Reply::error(
            400,
            "ResourceAlreadyExists",
            "The account exists already.",
            &["ManagerAccount", "UserName", user],
        );
    }
    let role = json["RoleId"].as_str().unwrap_or("ReadOnly");
    let id = state.fresh().to_string();
    let path = format!("{}/{id}", asked.path);
    let account = crate::vendors::account(&id, user, role);
    state.passwords.insert(user.to_owned(), password.to_owned());
    created(state, &asked.path, path, account)
}

fn add_subscription(state: &mut State, asked: &Asked) -> Reply {
    let json = match body(asked) {
        Ok(json) => json,
        Err(reply) => return reply,
    };
    let Some(destination) = json["Destination"].as_str() else { return Reply::missing("Destination") };
    let id = state.fresh().to_string();
    let path = format!("{}/{id}", asked.path);
    let subscription = json!({
        "@odata.type": "#EventDestination.v1_13_3.EventDestination", "Id": id, "Name": "Subscription",
        "Destination": destination, "Context": json["Context"].as_str().unwrap_or_default(), "Protocol": "Redfish",
        "SubscriptionType": "RedfishEvent", "EventFormatType": "Event",
        "Status": {"State": "Enabled", "Health": "OK"},
    });
    created(state, &asked.path, path, subscription)
}

fn add_certificate(state: &mut State, asked: &Asked) -> Reply {
    let json = match body(asked) {
        Ok(json) => json,
        Err(reply) => return reply,
    };
    let Some(pem) = json["CertificateString"].as_str() else { return Reply::missing("CertificateString") };
    let id = state.fresh().to_string();
    let path = format!("{}/{id}", asked.path);
    let certificate = json!({
        "@odata.type": "#Certificate.v1_7_0.Certificate", "Id": id, "Name": "Certificate",
        "CertificateString": pem, "CertificateType": "PEM",
    });
    created(state, &asked.path, path, certificate)
}

fn is_push(state: &State, path: &str) -> bool {
    let service = state.resource("/redfish/v1/UpdateService");
    let is = |key: &str| service.is_some_and(|service| service[key].as_str() == Some(path));
    is("HttpPushUri") || is("MultipartHttpPushUri")
}

fn push(state: &mut State, asked: &Asked) -> Reply {
    let Some((_, boundary)) = asked.content_type.split_once("boundary=") else {
        return update(state, "image.bin", &[]);
    };
    let text = String::from_utf8_lossy(&asked.body);
    let parts: Vec<&str> = text.split(&format!("--{}", boundary.trim_matches('"'))).collect();
    let part = |name: &str| parts.iter().find(|part| part.contains(&format!("name=\"{name}\""))).copied();
    let Some(parameters) = part("UpdateParameters").and_then(|part| part.split_once("\r\n\r\n")) else {
        return Reply::missing("UpdateParameters");
    };
    let Ok(parameters) = serde_json::from_str::<Value>(parameters.1.trim_end()) else {
        return Reply::error(400, "MalformedJSON", "UpdateParameters is malformed.", &[]);
    };
    let Some(file) = part("UpdateFile") else { return Reply::missing("UpdateFile") };
    let name = file
        .split_once("filename=\"")
        .and_then(|(_, rest)| rest.split_once('"'))
        .map_or("image.bin", |(name, _)| name);
    let targets = parameters["Targets"].as_array().cloned().unwrap_or_default();
    update(state, name, &targets)
}

/// `bios-2.10.bin` makes version 2.10; an image with `bad` in its name fails.
fn update(state: &mut State, image: &str, targets: &[Value]) -> Reply {
    if state.deviates(Deviation::UpdatesNeedLicence) {
        let text = "Not licensed to perform this request. The following licenses DCMS or OOB were needed.";
        return Reply::error_of(403, "SMC.1.0.OemLicenseNotPassed", text, &["DCMS"]);
    }
    let name = image.rsplit('/').next().unwrap_or(image);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let version = stem.rsplit_once('-').map_or("2.0.0", |(_, version)| version);
    let mut items: Vec<String> = targets.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect();
    if items.is_empty() {
        items.extend(state.find("/redfish/v1/UpdateService/FirmwareInventory/", "SoftwareInventory"));
    }
    if let Some(unknown) = items.iter().find(|item| state.resource(item).is_none()) {
        return Reply::not_in_list("Targets", &json!(unknown));
    }
    let effects = items.into_iter().map(|item| (item, "Version".to_owned(), json!(version))).collect();
    let fails = image.contains("bad").then(|| "The image is not signed by the vendor.".to_owned());
    let task = start_task(state, "Firmware update", effects, fails);
    if state.deviates(Deviation::NoTask) {
        return Reply::empty(202);
    }
    let shown = state.resource(&task).cloned().unwrap_or_default();
    let monitor = task.replace(TASKS, MONITORS);
    Reply::json(202, shown).with("Location", monitor).with("Retry-After", "1")
}

fn start_task(
    state: &mut State,
    name: &str,
    effects: Vec<(String, String, Value)>,
    fails: Option<String>,
) -> String {
    let id = state.fresh().to_string();
    let path = format!("{TASKS}/{id}");
    let task = json!({
        "@odata.type": "#Task.v1_7_2.Task", "Id": id, "Name": name, "TaskState": "Running", "TaskStatus": "OK",
        "PercentComplete": 0, "StartTime": NOW, "TaskMonitor": format!("{MONITORS}/{id}"), "Messages": [],
    });
    state.insert(&path, task);
    state.add_member(TASKS, &path);
    state.tasks.insert(path.clone(), RunningTask { began: Instant::now(), effects, fails });
    path
}

/// The answer of a task monitor, if this is one.
pub(crate) fn monitor(state: &State, path: &str) -> Option<Reply> {
    let task = path.strip_prefix(MONITORS).map(|id| format!("{TASKS}{id}"))?;
    let Some(resource) = state.resource(&task) else { return Some(Reply::not_found(path)) };
    if state.tasks.contains_key(&task) {
        return Some(Reply::json(202, resource.clone()).with("Location", path).with("Retry-After", "1"));
    }
    Some(Reply::json(200, resource.clone()))
}

/// What time does: tasks go on, servers turn on and off.
pub(crate) fn tick(state: &mut State) {
    let now = Instant::now();
    let (due, later): (Vec<_>, Vec<_>) =
        std::mem::take(&mut state.switching).into_iter().partition(|(when, ..)| *when <= now);
    state.switching = later;
    for (_, system, on) in due {
        switch(state, &system, on);
    }
    let takes = state.options.task_takes.max(std::time::Duration::from_millis(1));
    let paths: Vec<String> = state.tasks.keys().cloned().collect();
    for path in paths {
        let Some(task) = state.tasks.get(&path) else { continue };
        let share = (now - task.began).as_secs_f64() / takes.as_secs_f64();
        if share < 1.0 {
            if let Some(resource) = state.resource_mut(&path) {
                resource["PercentComplete"] = json!((share * 100.0) as u64);
            }
            continue;
        }
        let Some(task) = state.tasks.remove(&path) else { continue };
        if task.fails.is_none() {
            for (resource, key, value) in task.effects {
                if let Some(resource) = state.resource_mut(&resource) {
                    resource[key] = value;
                }
            }
        }
        if let Some(resource) = state.resource_mut(&path) {
            resource["PercentComplete"] = json!(100);
            resource["EndTime"] = json!(NOW);
            resource["TaskState"] = json!(if task.fails.is_some() { "Exception" } else { "Completed" });
            if let Some(reason) = &task.fails {
                resource["TaskStatus"] = json!("Critical");
                resource["Messages"] = json!([{
                    "@odata.type": "#Message.v1_2_1.Message", "MessageId": "Update.1.2.VerificationFailed",
                    "Message": reason, "MessageSeverity": "Critical", "Resolution": "None.",
                }]);
            }
        }
    }
}
