//! Query parameters (DSP0266 "Query parameters") and pages.

use crate::deviation::Deviation;
use crate::reply::Reply;
use crate::respond::{Asked, kind, shown};
use crate::state::State;
use serde_json::{Value, json};

/// `%24expand=%2E` and the like.
fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16));
        if byte == b'%' {
            if let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) {
                out.push((high * 16 + low) as u8);
            }
        } else {
            out.push(if byte == b'+' { b' ' } else { byte });
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(crate) fn apply(state: &State, mut body: Value, asked: &Asked) -> Result<Value, Box<Reply>> {
    let query = decoded(&asked.query);
    let (mut skip, mut top, mut expand, mut paged) = (0_usize, usize::MAX, None, false);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = || {
            let message = format!(
                "The value '{value}' for the query parameter {key} is of a different type than the parameter can accept."
            );
            Box::new(Reply::error(400, "QueryParameterValueTypeError", &message, &[value, key]))
        };
        match key {
            "$skip" => skip = value.parse().map_err(|_| bad())?,
            "$top" => {
                top = value.parse().map_err(|_| bad())?;
                paged = true;
            }
            "$expand" if value.starts_with(['.', '*', '~']) => expand = Some(value.to_owned()),
            "$expand" => return Err(bad()),
            _ if key.starts_with('$') => {
                let message = format!("The querying parameter {key} is not supported.");
                return Err(Box::new(Reply::error(501, "QueryNotSupported", &message, &[])));
            }
            _ => {}
        }
    }
    if let Some(members) = body.get("Members").and_then(Value::as_array) {
        let count = members.len();
        let page = state.options.page_members.unwrap_or(usize::MAX).min(top);
        let end = skip.saturating_add(page).min(count);
        body["Members"] = Value::Array(members.get(skip..end).unwrap_or_default().to_vec());
        if end < count && !paged {
            let kept: String = expand.iter().map(|expand| format!("&$expand={expand}")).collect();
            body["Members@odata.nextLink"] = json!(format!("{}?$skip={end}{kept}", asked.path));
        }
    }
    // The schema has the entries stand in their collection (OData.AutoExpand).
    if expand.is_none() && kind(&body) == "LogEntryCollection" {
        expand = Some(".".to_owned());
    }
    if let Some(expand) = expand {
        let subordinate = expand.starts_with('.');
        let all = expand.starts_with('*');
        let object = body.as_object_mut().into_iter().flatten();
        for (key, value) in object {
            let is_link = key == "Links";
            if all || subordinate != is_link {
                fill(state, value, subordinate.then_some(asked.path.as_str()));
            }
        }
    }
    Ok(body)
}

/// Puts resources in the place of their links, one level deep.
fn fill(state: &State, value: &mut Value, below: Option<&str>) {
    match value {
        Value::Object(object) if object.len() == 1 && object.contains_key("@odata.id") => {
            let Some(path) = object["@odata.id"].as_str().map(str::to_owned) else { return };
            if below.is_some_and(|below| !path.starts_with(below)) {
                return;
            }
            let Some(mut resource) = shown(state, &path) else { return };
            if state.deviates(Deviation::ExpandWrong)
                && let Some(object) = resource.as_object_mut()
            {
                object.retain(|key, _| key.starts_with('@') || key == "Id" || key == "Name");
            }
            *value = resource;
        }
        Value::Object(object) => object.values_mut().for_each(|value| fill(state, value, below)),
        Value::Array(list) => list.iter_mut().for_each(|value| fill(state, value, below)),
        _ => {}
    }
}
