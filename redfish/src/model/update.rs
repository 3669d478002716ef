//! Firmware: what is installed, how it is updated, and the tasks that do it.

use super::base::{Action, Message, ResourcePath, Status};
use super::model;
use super::words::{Health, TaskState};
use crate::time::Timestamp;

model! {
    FirmwareItem {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        version: Option<String> = text("Version"),
        manufacturer: Option<String> = text("Manufacturer"),
        software_id: Option<String> = text("SoftwareId"),
        released: Option<Timestamp> = time("ReleaseDate"),
        updateable: Option<bool> = flag("Updateable"),
        related: Vec<ResourcePath> = links("RelatedItem"),
        status: Status = part("Status"),
    }

    UpdateService {
        path: ResourcePath = path(),
        enabled: Option<bool> = flag("ServiceEnabled"),
        firmware: Option<ResourcePath> = link("FirmwareInventory"),
        software: Option<ResourcePath> = link("SoftwareInventory"),
        simple_update: Option<Action> = action("#UpdateService.SimpleUpdate"),
        /// Takes the image as the body.
        push_uri: Option<ResourcePath> = link("HttpPushUri"),
        /// Takes image and parameters as a form (DSP0266 "multipart HTTP push update").
        multipart_uri: Option<ResourcePath> = link("MultipartHttpPushUri"),
        max_image_bytes: Option<u64> = whole("MaxImageSizeBytes"),
        status: Status = part("Status"),
    }

    Task {
        path: ResourcePath = path(),
        id: Option<String> = text("Id"),
        name: Option<String> = text("Name"),
        state: Option<TaskState> = word("TaskState|JobState"),
        health: Option<Health> = word("TaskStatus|JobStatus"),
        percent: Option<u64> = whole("PercentComplete"),
        started: Option<Timestamp> = time("StartTime"),
        ended: Option<Timestamp> = time("EndTime"),
        messages: Vec<Message> = parts("Messages"),
    }
}
