//! The services of a tree: root, sessions, accounts, events, tasks, updates.

use super::account;
use super::base::{Push, Shape, link, ok, put_collection};
use crate::tree::Tree;
use serde_json::{Value, json};

const V1: &str = "/redfish/v1";

pub(super) fn put(tree: &mut Tree, shape: &Shape) {
    put_root(tree, shape);
    if shape.sessions {
        let path = format!("{V1}/SessionService");
        tree.put(
            &path,
            json!({
                "@odata.type": "#SessionService.v1_1_9.SessionService", "Id": "SessionService", "Name": "Session Service",
                "ServiceEnabled": true, "SessionTimeout": 1800, "Status": ok(), "Sessions": link(&format!("{path}/Sessions")),
            }),
        );
        put_collection(tree, &format!("{path}/Sessions"), "Session", "Sessions", Vec::new());
    }
    put_accounts(tree);
    put_events(tree, shape);
    let tasks = format!("{V1}/TaskService");
    tree.put(
        &tasks,
        json!({
            "@odata.type": "#TaskService.v1_2_0.TaskService", "Id": "TaskService", "Name": "Task Service",
            "ServiceEnabled": true, "Status": ok(), "Tasks": link(&format!("{tasks}/Tasks")),
        }),
    );
    put_collection(tree, &format!("{tasks}/Tasks"), "Task", "Tasks", Vec::new());
    put_updates(tree, shape);
}

fn put_root(tree: &mut Tree, shape: &Shape) {
    let mut root = json!({
        "@odata.type": "#ServiceRoot.v1_15_0.ServiceRoot", "Id": "RootService", "Name": "Root Service",
        "RedfishVersion": shape.redfish_version, "Vendor": shape.vendor, "Product": shape.product, "UUID": shape.uuid,
        "Systems": link(&format!("{V1}/Systems")),
        "Chassis": link(&format!("{V1}/Chassis")),
        "Managers": link(&format!("{V1}/Managers")),
        "AccountService": link(&format!("{V1}/AccountService")),
        "EventService": link(&format!("{V1}/EventService")),
        "Tasks": link(&format!("{V1}/TaskService")),
        "UpdateService": link(&format!("{V1}/UpdateService")),
        "Links": {},
        "ProtocolFeaturesSupported": {
            "ExcerptQuery": false, "FilterQuery": false, "OnlyMemberQuery": false, "SelectQuery": false,
            "ExpandQuery": {"ExpandAll": shape.expand, "Levels": shape.expand, "Links": shape.expand, "NoLinks": shape.expand},
        },
    });
    if shape.expand {
        root["ProtocolFeaturesSupported"]["ExpandQuery"]["MaxLevels"] = json!(1);
    }
    if shape.sessions {
        root["SessionService"] = link(&format!("{V1}/SessionService"));
        root["Links"]["Sessions"] = link(&format!("{V1}/SessionService/Sessions"));
    }
    tree.put(V1, root);
}

fn put_accounts(tree: &mut Tree) {
    let path = format!("{V1}/AccountService");
    tree.put(
        &path,
        json!({
            "@odata.type": "#AccountService.v1_13_0.AccountService", "Id": "AccountService", "Name": "Account Service",
            "ServiceEnabled": true, "MinPasswordLength": 8, "AccountLockoutThreshold": 5, "AccountLockoutDuration": 600,
            "AccountLockoutCounterResetAfter": 600,
            "Status": ok(), "Accounts": link(&format!("{path}/Accounts")), "Roles": link(&format!("{path}/Roles")),
        }),
    );
    let accounts = vec![("1".to_owned(), account("1", "root", "Administrator"))];
    put_collection(tree, &format!("{path}/Accounts"), "ManagerAccount", "Accounts", accounts);
    let role = |id: &str, privileges: &[&str]| {
        let role = json!({
            "@odata.type": "#Role.v1_3_1.Role", "Id": id, "Name": "User role", "RoleId": id, "IsPredefined": true,
            "AssignedPrivileges": privileges,
        });
        (id.to_owned(), role)
    };
    let roles = vec![
        role(
            "Administrator",
            &["Login", "ConfigureManager", "ConfigureUsers", "ConfigureComponents", "ConfigureSelf"],
        ),
        role("Operator", &["Login", "ConfigureComponents", "ConfigureSelf"]),
        role("ReadOnly", &["Login", "ConfigureSelf"]),
    ];
    put_collection(tree, &format!("{path}/Roles"), "Role", "Roles", roles);
}

fn put_events(tree: &mut Tree, shape: &Shape) {
    let path = format!("{V1}/EventService");
    let mut service = json!({
        "@odata.type": "#EventService.v1_10_0.EventService", "Id": "EventService", "Name": "Event Service",
        "ServiceEnabled": true, "DeliveryRetryAttempts": 3, "DeliveryRetryIntervalSeconds": 30, "Status": ok(),
        "EventFormatTypes": ["Event"], "Subscriptions": link(&format!("{path}/Subscriptions")),
        "Actions": {"#EventService.SubmitTestEvent": {"target": format!("{path}/Actions/EventService.SubmitTestEvent")}},
    });
    if shape.event_stream {
        service["ServerSentEventUri"] = json!(format!("{path}/SSE"));
    }
    tree.put(&path, service);
    put_collection(tree, &format!("{path}/Subscriptions"), "EventDestination", "Subscriptions", Vec::new());
}

fn put_updates(tree: &mut Tree, shape: &Shape) {
    let path = format!("{V1}/UpdateService");
    let mut service = json!({
        "@odata.type": "#UpdateService.v1_12_0.UpdateService", "Id": "UpdateService", "Name": "Update Service",
        "ServiceEnabled": true, "Status": ok(), "FirmwareInventory": link(&format!("{path}/FirmwareInventory")),
        "MaxImageSizeBytes": 268_435_456u64,
        "Actions": {"#UpdateService.SimpleUpdate": {
            "target": format!("{path}/Actions/UpdateService.SimpleUpdate"),
            "TransferProtocol@Redfish.AllowableValues": ["HTTP", "HTTPS"],
        }},
    });
    match shape.push {
        Push::None => {}
        Push::Plain => service["HttpPushUri"] = json!(format!("{path}/update")),
        Push::Multipart => service["MultipartHttpPushUri"] = json!(format!("{path}/upload")),
    }
    tree.put(&path, service);
    let item = |id: &str, name: &str, version: &str, related: String| -> (String, Value) {
        let item = json!({
            "@odata.type": "#SoftwareInventory.v1_10_0.SoftwareInventory", "Id": id, "Name": name, "Version": version,
            "Updateable": true, "Status": ok(), "RelatedItem": [link(&related)], "RelatedItem@odata.count": 1,
        });
        (id.to_owned(), item)
    };
    let items = vec![
        item("BIOS", "System BIOS", shape.bios_version, shape.system()),
        item("BMC", "BMC firmware", shape.manager_firmware, shape.manager()),
    ];
    put_collection(tree, &format!("{path}/FirmwareInventory"), "SoftwareInventory", "Firmware", items);
}
