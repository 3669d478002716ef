//! Firmware inventory and updates.

use super::Client;
use crate::bmc::{Accepted, UpdateImage, UpdateRequest};
use crate::error::{Cause, Result};
use crate::http::{Body, Method, Request};
use crate::model::{FirmwareItem, ResourcePath, UpdateService};
use crate::quirks::Quirk;
use serde::Serialize;
use serde_json::json;

/// Separates the parts of a form; in an image it would have to stand by chance.
const BOUNDARY: &str = "basalt-8f1c5d6e2b7a4930-form";

impl Client {
    pub(super) async fn updates(&self) -> Result<UpdateService> {
        let path = self.root().await?.service.update_service.clone();
        let path = self.need(path, "an update service")?;
        self.read(&path).await
    }

    pub(super) async fn firmware_items(&self) -> Result<Vec<FirmwareItem>> {
        if self.root().await?.service.update_service.is_none() {
            return Ok(Vec::new());
        }
        let service = self.updates().await?;
        self.optional_collection(service.firmware.as_ref()).await
    }

    pub(super) async fn update(&self, update: &UpdateRequest) -> Result<Accepted> {
        let service = self.updates().await?;
        let reply = match &update.image {
            UpdateImage::Uri { .. } => {
                let action =
                    self.need(service.simple_update.as_ref(), "updating from an address (SimpleUpdate)")?;
                self.post_body(&action.target, simple_update(update)).await?
            }
            UpdateImage::Content { file_name, bytes } => {
                if let Some(limit) = service.max_image_bytes.filter(|limit| bytes.len() as u64 > *limit) {
                    let reason = format!("the image has {} bytes, the BMC takes {limit}", bytes.len());
                    return Err(self.fail(Cause::Settings { what: file_name.clone(), reason }));
                }
                self.push(&service, update, file_name, bytes).await?
            }
        };
        let accepted = self.accepted(&reply);
        if accepted.unattended && !self.has(Quirk::AcceptedWithoutTask).await? {
            let reason = "202 without a task: nothing says how it goes on".to_owned();
            return Err(self.fail(Cause::Unknown { request: "firmware update".to_owned(), reason }));
        }
        Ok(accepted)
    }

    async fn push(
        &self,
        service: &UpdateService,
        update: &UpdateRequest,
        file_name: &str,
        bytes: &[u8],
    ) -> Result<crate::http::Reply> {
        self.prove_identity().await?;
        let (path, body) = if let Some(path) = &service.multipart_uri {
            (path, form(update, file_name, bytes))
        } else if let Some(path) = &service.push_uri {
            let content_type = "application/octet-stream".to_owned();
            (path, Body::Raw { content_type, bytes: bytes.to_vec().into() })
        } else {
            return Err(self.fail(Cause::Unsupported { what: "sending it an image".to_owned() }));
        };
        let mut request = Request::new(Method::POST, path.as_str());
        request.body = body;
        self.send(&request).await
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SimpleUpdate<'a> {
    #[serde(rename = "ImageURI")]
    uri: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer_protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    targets: &'a [ResourcePath],
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(rename = "@Redfish.OperationApplyTime", skip_serializing_if = "Option::is_none")]
    apply_time: Option<&'a str>,
}

fn simple_update(update: &UpdateRequest) -> Body {
    let UpdateImage::Uri { uri, protocol, credentials } = &update.image else { return Body::None };
    Body::secret(&SimpleUpdate {
        uri,
        transfer_protocol: protocol.as_ref().map(|protocol| protocol.as_str()),
        targets: &update.targets,
        username: credentials.as_ref().map(|credentials| credentials.user.as_str()),
        password: credentials.as_ref().map(|credentials| credentials.password.expose()),
        apply_time: update.apply_time.as_deref(),
    })
}

/// DSP0266 "Multipart HTTP push update": the parameters first, then the image.
fn form(update: &UpdateRequest, file_name: &str, bytes: &[u8]) -> Body {
    let targets: Vec<&str> = update.targets.iter().map(ResourcePath::as_str).collect();
    let mut parameters = json!({ "Targets": targets });
    if let Some(time) = &update.apply_time {
        parameters["@Redfish.OperationApplyTime"] = json!(time);
    }
    let name: String = file_name.chars().filter(|c| c.is_ascii_graphic() && !"\"\\".contains(*c)).collect();
    let mut body = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"UpdateParameters\"\r\n\
         Content-Type: application/json\r\n\r\n{parameters}\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"UpdateFile\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(bytes);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    Body::Raw { content_type: format!("multipart/form-data; boundary={BOUNDARY}"), bytes: body.into() }
}
