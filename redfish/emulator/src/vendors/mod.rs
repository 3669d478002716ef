//! Trees of servers. Each vendor's is the plain one ([`Shape`]) with the vendor's names, places and additions, written from what the
//! vendors publish; the source stands above each.

mod base;
mod components;
mod services;
mod shapes;

pub use base::{Push, Shape};
pub use shapes::{ami, dell, hpe, lenovo, openbmc, plain, supermicro};

use serde_json::{Value, json};

/// An account's resource.
pub(crate) fn account(id: &str, user: &str, role: &str) -> Value {
    json!({
        "@odata.type": "#ManagerAccount.v1_10_0.ManagerAccount", "Id": id, "Name": "User account",
        "UserName": user, "RoleId": role, "Enabled": true, "Locked": false, "Password": null,
        "PasswordChangeRequired": false, "AccountTypes": ["Redfish"],
        "Links": {"Role": {"@odata.id": format!("/redfish/v1/AccountService/Roles/{role}")}},
    })
}
