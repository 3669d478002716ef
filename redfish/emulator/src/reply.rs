//! Answers before they are sent.

use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    None,
    Json(Value),
    Xml(String),
    /// Server-sent events follow.
    Events,
}

impl Reply {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), content: Content::Json(body) }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: Content::None }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// DSP0266 "Error responses", with a message of the registry Base.
    pub(crate) fn error(status: u16, key: &str, message: &str, args: &[&str]) -> Self {
        Self::error_of(status, &format!("Base.1.18.{key}"), message, args)
    }

    pub(crate) fn error_of(status: u16, id: &str, message: &str, args: &[&str]) -> Self {
        let info = json!({
            "@odata.type": "#Message.v1_2_1.Message",
            "MessageId": id,
            "Message": message,
            "MessageArgs": args,
            "MessageSeverity": "Critical",
            "Severity": "Critical",
            "Resolution": "None.",
        });
        let code = "Base.1.18.GeneralError";
        let text = "A general error has occurred. See ExtendedInfo for more information.";
        Self::json(status, json!({"error": {"code": code, "message": text, "@Message.ExtendedInfo": [info]}}))
    }

    pub(crate) fn not_found(path: &str) -> Self {
        let message = format!("The resource at the URI '{path}' was not found.");
        Self::error(404, "ResourceMissingAtURI", &message, &[path])
    }

    pub(crate) fn not_allowed() -> Self {
        Self::error(405, "OperationNotAllowed", "The HTTP method is not allowed on this resource.", &[])
    }

    pub(crate) fn not_writable(property: &str) -> Self {
        let message =
            format!("The property {property} is a read-only property and cannot be assigned a value.");
        Self::error(400, "PropertyNotWritable", &message, &[property])
    }

    pub(crate) fn unknown_property(property: &str) -> Self {
        let message =
            format!("The property {property} is not in the list of valid properties for the resource.");
        Self::error(400, "PropertyUnknown", &message, &[property])
    }

    pub(crate) fn not_in_list(property: &str, value: &Value) -> Self {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let message = format!(
            "The value '{value}' for the property {property} is not in the list of acceptable values."
        );
        Self::error(400, "PropertyValueNotInList", &message, &[&value, property])
    }

    pub(crate) fn missing(parameter: &str) -> Self {
        let message =
            format!("The action requires the parameter {parameter} to be present in the request body.");
        Self::error(400, "ActionParameterMissing", &message, &[parameter])
    }
}
