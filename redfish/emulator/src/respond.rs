//! From a request to its answer.

use crate::actions;
use crate::deviation::Deviation;
use crate::patch;
use crate::query;
use crate::reply::{Content, Reply};
use crate::state::State;
use crate::tree::normal;
use base64::Engine as _;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde_json::{Value, json};

pub(crate) const ROOT: &str = "/redfish/v1";

/// A request.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) uri: String,
    /// Without trailing slash and query.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) if_match: Option<String>,
    pub(crate) content_type: String,
    pub(crate) body: Bytes,
    token: Option<String>,
    basic: Option<(String, String)>,
}

impl Asked {
    pub(crate) fn new(head: &Parts, body: Bytes) -> Self {
        let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let basic = header("Authorization").and_then(|value| {
            let text =
                base64::engine::general_purpose::STANDARD.decode(value.strip_prefix("Basic ")?).ok()?;
            let text = String::from_utf8(text).ok()?;
            text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
        });
        Self {
            method: head.method.to_string(),
            uri: head.uri.to_string(),
            path: normal(head.uri.path()).to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            if_match: header("If-Match"),
            content_type: header("Content-Type").unwrap_or_default(),
            token: header("X-Auth-Token"),
            basic,
            body,
        }
    }

    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

pub(crate) fn kind(resource: &Value) -> &str {
    let kind = resource["@odata.type"].as_str().unwrap_or_default();
    kind.trim_start_matches('#').split('.').next().unwrap_or_default()
}

pub(crate) fn answer(state: &mut State, asked: &Asked) -> Reply {
    actions::tick(state);
    if let Some(refusal) = refuse(state, asked) {
        return refusal;
    }
    match asked.method.as_str() {
        "GET" | "HEAD" => get(state, asked),
        "POST" | "PATCH" | "DELETE" => {
            state.changes += 1;
            if state.deviates(Deviation::NotReadyAtFirst) && state.changes % 2 == 1 && !is_login(state, asked)
            {
                let text = "SWC0700: iDRAC is not ready. The configuration values cannot be accessed. Please retry after a few minutes.";
                return Reply::error_of(500, "IDRAC.2.8.SWC0700", text, &[]);
            }
            match asked.method.as_str() {
                "POST" => actions::post(state, asked),
                "PATCH" => patch::patch(state, asked),
                _ => delete(state, asked),
            }
        }
        _ => Reply::not_allowed().with("Allow", "GET, HEAD"),
    }
}

pub(crate) fn sessions_path(state: &State) -> String {
    let root = state.resource(ROOT);
    let linked = root.and_then(|root| root["Links"]["Sessions"]["@odata.id"].as_str());
    linked.unwrap_or("/redfish/v1/SessionService/Sessions").to_owned()
}

fn is_login(state: &State, asked: &Asked) -> bool {
    asked.method == "POST" && normal(&sessions_path(state)) == asked.path
}

/// None: it may go on.
fn refuse(state: &mut State, asked: &Asked) -> Option<Reply> {
    let open = ["/redfish", ROOT, "/redfish/v1/odata", "/redfish/v1/$metadata"];
    let reading = matches!(asked.method.as_str(), "GET" | "HEAD");
    if reading && open.contains(&asked.path.as_str()) || is_login(state, asked) {
        return None;
    }
    if state.locked && asked.token.is_none() {
        return Some(unauthorised(&asked.path, "the account is locked out"));
    }
    match (&asked.token, &asked.basic) {
        (Some(token), _) if state.sessions.contains_key(token) => None,
        (Some(_), _) => Some(unauthorised(&asked.path, "there is no valid session")),
        (None, Some((user, password))) if password_fits(state, user, password) => None,
        (None, Some(_)) => Some(unauthorised(&asked.path, "the credentials are wrong")),
        (None, None) => Some(unauthorised(&asked.path, "credentials are needed")),
    }
}

pub(crate) fn unauthorised(path: &str, why: &str) -> Reply {
    let message = format!(
        "While accessing the resource at '{path}', the service received an authorization error: {why}."
    );
    Reply::error(401, "ResourceAtUriUnauthorized", &message, &[path, why])
        .with("WWW-Authenticate", "Basic realm=\"emulated BMC\"")
}

pub(crate) fn password_fits(state: &mut State, user: &str, password: &str) -> bool {
    if state.passwords.get(user).is_some_and(|right| right == password) {
        state.wrong_passwords = 0;
        return true;
    }
    state.wrong_passwords += 1;
    state.locked |= state.wrong_passwords >= state.options.lock_after;
    false
}

fn get(state: &mut State, asked: &Asked) -> Reply {
    match asked.path.as_str() {
        "/redfish" => return Reply::json(200, json!({ "v1": "/redfish/v1/" })),
        "/redfish/v1/odata" => return Reply::json(200, odata(state)),
        "/redfish/v1/$metadata" => {
            return Reply { content: Content::Xml(state.metadata()), ..Reply::empty(200) };
        }
        _ => {}
    }
    if is_event_stream(state, &asked.path) {
        return Reply { content: Content::Events, ..Reply::empty(200) };
    }
    if let Some(reply) = actions::monitor(state, &asked.path) {
        return reply;
    }
    let Some(resource) = shown(state, &asked.path) else { return Reply::not_found(&asked.path) };
    if !resource.is_object() {
        return Reply::json(200, resource);
    }
    let (mut tag, allow) = (tag_of(&resource), methods(state, asked, &resource));
    if state.deviates(Deviation::WeakTags) {
        tag.insert_str(0, "W/");
    }
    match query::apply(state, resource, asked) {
        Ok(mut body) => {
            body["@odata.etag"] = json!(tag);
            Reply::json(200, body).with("ETag", tag).with("Allow", allow)
        }
        Err(reply) => *reply,
    }
}

/// What the resource takes.
fn methods(state: &State, asked: &Asked, resource: &Value) -> String {
    let kind = kind(resource);
    let mut all = "GET, HEAD".to_owned();
    let creates = [
        "SessionCollection",
        "ManagerAccountCollection",
        "EventDestinationCollection",
        "CertificateCollection",
    ];
    if creates.contains(&kind) {
        all += ", POST";
    }
    if patch::takes(state, &asked.path, kind) {
        all += ", PATCH";
    }
    if DELETABLE.contains(&kind) {
        all += ", DELETE";
    }
    all
}

const DELETABLE: [&str; 5] = ["Session", "ManagerAccount", "EventDestination", "Certificate", "Task"];

fn is_event_stream(state: &State, path: &str) -> bool {
    let service = state.resource("/redfish/v1/EventService");
    service.and_then(|service| service["ServerSentEventUri"].as_str()).is_some_and(|uri| uri == path)
}

fn odata(state: &State) -> Value {
    let root = state.resource(ROOT).and_then(Value::as_object);
    let entries = root.into_iter().flatten().filter_map(|(name, value)| {
        let url = value.get("@odata.id")?.as_str()?;
        Some(json!({"name": name, "kind": "Singleton", "url": url}))
    });
    let mut all = vec![json!({"name": "Service", "kind": "Singleton", "url": "/redfish/v1/"})];
    all.extend(entries);
    json!({"@odata.context": "/redfish/v1/$metadata", "value": all})
}

/// A resource as the BMC shows it.
pub(crate) fn shown(state: &State, path: &str) -> Option<Value> {
    let mut resource = state.resource(path)?.clone();
    if !resource.is_object() {
        return Some(resource);
    }
    if state.deviates(Deviation::NoAllowableValues) {
        strip_allowable(&mut resource);
    }
    let kind = kind(&resource).to_owned();
    if kind == "VirtualMedia" && state.deviates(Deviation::MediaByPatch) {
        resource.as_object_mut()?.remove("Actions");
    }
    if kind == "Bios" && state.deviates(Deviation::PendingShownEarly) {
        let settings = resource["@Redfish.Settings"]["SettingsObject"]["@odata.id"].as_str();
        let pending =
            settings.and_then(|path| state.resource(path)).and_then(|s| s["Attributes"].as_object());
        patch::merge(&mut resource["Attributes"], pending.cloned().unwrap_or_default().into());
    }
    if kind == "ManagerAccount" {
        resource["Password"] = Value::Null;
    }
    if kind == "ComputerSystem" && state.deviates(Deviation::ModeUnknown) {
        let boot = resource["Boot"].as_object_mut();
        boot.into_iter().for_each(|boot| boot.retain(|key, _| !key.starts_with("BootSourceOverrideMode")));
    }
    Some(resource)
}

fn strip_allowable(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object
                .retain(|key, _| !key.ends_with("@Redfish.AllowableValues") && key != "@Redfish.ActionInfo");
            object.values_mut().for_each(strip_allowable);
        }
        Value::Array(list) => list.iter_mut().for_each(strip_allowable),
        _ => {}
    }
}

/// FNV-1a of the resource: it changes when the resource does.
pub(crate) fn tag_of(resource: &Value) -> String {
    let hash = resource
        .to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("\"{hash:016x}\"")
}

fn delete(state: &mut State, asked: &Asked) -> Reply {
    let Some(resource) = state.resource(&asked.path) else { return Reply::not_found(&asked.path) };
    match kind(resource) {
        "Session" => {
            let path = asked.path.clone();
            state.sessions.retain(|_, session| *session != path);
        }
        "ManagerAccount" => {
            if let Some(user) = resource["UserName"].as_str().map(str::to_owned) {
                state.passwords.remove(&user);
            }
        }
        "EventDestination" | "Certificate" | "Task" => {}
        _ => return Reply::not_allowed(),
    }
    state.remove_member(&asked.path);
    Reply::empty(204)
}
