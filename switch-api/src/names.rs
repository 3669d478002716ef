//! Names and numbers that must not be mixed up.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;

macro_rules! name {
    ($(#[$meta:meta])* $type:ident) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $type(pub String);

        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl From<&str> for $type {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
        impl From<String> for $type {
            fn from(text: String) -> Self {
                Self(text)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// Name of a switch or a node, as `fabric.yaml` gives it: letters, digits, `-`, `_` and `.`.
    DeviceName
);
name!(
    /// Name of a port, LAG or routed interface as its own device spells it: `Ethernet0`, `swp1`, `Port-Channel7`.
    InterfaceName
);

/// 802.1Q VLAN number, 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct VlanId(#[schemars(range(min = 1, max = 4094))] pub u16);

impl fmt::Display for VlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One end of a cable, written `device/port`. Only the first slash divides: Arista's `leaf-1/Ethernet1/1` is port `Ethernet1/1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortRef {
    pub device: DeviceName,
    pub port: InterfaceName,
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.port)
    }
}

impl FromStr for PortRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((device, port)) if !device.is_empty() && !port.is_empty() => {
                Ok(Self { device: device.into(), port: port.into() })
            }
            _ => Err(format!("'{text}' is not an end of a cable: write device/port, like leaf-1/Ethernet0")),
        }
    }
}

impl Serialize for PortRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PortRef {
    fn schema_name() -> Cow<'static, str> {
        "PortRef".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^[^/]+/.+$",
            "description": "One end of a cable: device/port, like leaf-1/Ethernet0",
        })
    }
}
