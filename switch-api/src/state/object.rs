//! The objects. An `Option` that is `None` means "not said": wanted so, it is left as it is; read so, the switch does not have the
//! setting. Either way it makes no difference to a plan.

use crate::intent::{DcbxMode, Fec, LagMode, WatchdogAction};
use crate::names::{InterfaceName, VlanId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// Kinds of objects, in the order in which they are made; they are deleted in the opposite order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Breakout,
    Port,
    Vlan,
    Lag,
    LagMember,
    Mclag,
    MclagMember,
    VlanMember,
    Address,
    DscpClass,
    EcnProfile,
    PortQos,
    PfcWatchdog,
    Queue,
    Dcbx,
}

impl Kind {
    pub const ALL: [Self; 15] = [
        Self::Breakout,
        Self::Port,
        Self::Vlan,
        Self::Lag,
        Self::LagMember,
        Self::Mclag,
        Self::MclagMember,
        Self::VlanMember,
        Self::Address,
        Self::DscpClass,
        Self::EcnProfile,
        Self::PortQos,
        Self::PfcWatchdog,
        Self::Queue,
        Self::Dcbx,
    ];

    pub fn words(self) -> &'static str {
        match self {
            Self::Breakout => "breakout",
            Self::Port => "port",
            Self::Vlan => "VLAN",
            Self::Lag => "LAG",
            Self::LagMember => "LAG member",
            Self::Mclag => "multi-chassis LAG domain",
            Self::MclagMember => "multi-chassis LAG",
            Self::VlanMember => "VLAN member",
            Self::Address => "address",
            Self::DscpClass => "DSCP class",
            Self::EcnProfile => "ECN profile",
            Self::PortQos => "lossless class of port",
            Self::PfcWatchdog => "PFC watchdog of port",
            Self::Queue => "queue",
            Self::Dcbx => "DCBX of port",
        }
    }
}

/// Kind and name of an object: at most one object has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub kind: Kind,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, name: impl fmt::Display) -> Self {
        Self { kind, name: name.to_string() }
    }

    pub fn port(name: &InterfaceName) -> Self {
        Self::new(Kind::Port, name)
    }

    pub fn lag(name: &InterfaceName) -> Self {
        Self::new(Kind::Lag, name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.words(), self.name)
    }
}

macro_rules! objects {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_meta])* pub $field: $type),* }

            impl From<$name> for Object {
                fn from(object: $name) -> Self {
                    Self::$name(object)
                }
            }
        )*

        /// One thing that is configured.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Object { $($name($name)),* }

        impl Object {
            pub fn kind(&self) -> Kind {
                match self { $(Self::$name(_) => Kind::$name),* }
            }
        }
    };
}

objects! {
    /// A port split into several. Making or deleting one deletes the port's other objects and makes new ports, so it is always
    /// applied alone, before the rest is planned anew.
    Breakout {
        port: InterfaceName,
        lanes: u8,
        speed_gbps: u32,
    }

    /// A physical port. It is there always: creating one means taking it into use, deleting one means giving it back (mark and
    /// settings removed).
    Port {
        name: InterfaceName,
        /// Begins with the mark; empty when there is none.
        description: String,
        enabled: bool,
        speed_gbps: Option<u32>,
        fec: Option<Fec>,
        mtu_bytes: Option<u32>,
    }

    Vlan {
        id: VlanId,
        /// Begins with the mark.
        name: String,
    }

    Lag {
        name: InterfaceName,
        description: String,
        mode: LagMode,
        fast: Option<bool>,
        min_links: Option<u16>,
        mtu_bytes: Option<u32>,
    }

    /// A port is in one LAG at most.
    LagMember {
        port: InterfaceName,
        lag: InterfaceName,
    }

    /// This switch's half of a pair. One per switch.
    Mclag {
        domain_id: u16,
        /// Without prefix length.
        local_address: String,
        peer_address: String,
        prefix_length: u8,
        peer_lag: InterfaceName,
        peer_vlan: VlanId,
        system_mac: String,
    }

    /// A LAG whose other half is on the mate, under the same number.
    MclagMember {
        lag: InterfaceName,
        id: u16,
    }

    VlanMember {
        vlan: VlanId,
        /// Port or LAG.
        interface: InterfaceName,
        tagged: bool,
    }

    /// An address of a routed port, a LAG, a VLAN's interface or a loopback.
    Address {
        interface: InterfaceName,
        /// With prefix length.
        address: String,
    }

    /// One line of the DSCP map `map`; systems with one global map ignore its name on writing and give it back on reading.
    DscpClass {
        map: String,
        dscp: u8,
        traffic_class: u8,
    }

    /// Thresholds of marking (WRED with ECN).
    EcnProfile {
        name: String,
        min_bytes: u64,
        max_bytes: u64,
        mark_percent: u8,
    }

    /// Trust in DSCP by `map`, and the priorities that are lossless. Traffic class, queue and priority group are the same number
    /// (a driver whose system has maps between them binds the identity).
    PortQos {
        port: InterfaceName,
        map: String,
        pfc_priorities: BTreeSet<u8>,
    }

    PfcWatchdog {
        port: InterfaceName,
        action: WatchdogAction,
        detection_ms: u32,
        restoration_ms: u32,
    }

    Queue {
        port: InterfaceName,
        queue: u8,
        scheduling: Option<Scheduling>,
        ecn_profile: Option<String>,
    }

    Dcbx {
        port: InterfaceName,
        mode: DcbxMode,
    }
}

/// How a queue gets its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduling {
    Strict,
    /// Deficit weighted round robin; the share in percent.
    Weighted(u8),
}

/// A field that differs, as shown to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    pub field: String,
    pub before: String,
    pub after: String,
}

impl Object {
    pub fn key(&self) -> Key {
        let name = match self {
            Self::Breakout(o) => o.port.to_string(),
            Self::Port(o) => o.name.to_string(),
            Self::Vlan(o) => o.id.to_string(),
            Self::Lag(o) => o.name.to_string(),
            Self::LagMember(o) => o.port.to_string(),
            Self::Mclag(_) => "domain".to_owned(),
            Self::MclagMember(o) => o.lag.to_string(),
            Self::VlanMember(o) => format!("{} {}", o.vlan, o.interface),
            Self::Address(o) => format!("{} {}", o.interface, o.address),
            Self::DscpClass(o) => format!("{} {}", o.map, o.dscp),
            Self::EcnProfile(o) => o.name.clone(),
            Self::PortQos(o) => o.port.to_string(),
            Self::PfcWatchdog(o) => o.port.to_string(),
            Self::Queue(o) => format!("{} {}", o.port, o.queue),
            Self::Dcbx(o) => o.port.to_string(),
        };
        Key { kind: self.kind(), name }
    }

    /// The port or LAG it hangs on and whose owner it shares; none for roots.
    pub fn interface(&self) -> Option<&InterfaceName> {
        match self {
            Self::LagMember(o) => Some(&o.port),
            Self::MclagMember(o) => Some(&o.lag),
            Self::VlanMember(o) => Some(&o.interface),
            Self::Address(o) => Some(&o.interface),
            Self::PortQos(o) => Some(&o.port),
            Self::PfcWatchdog(o) => Some(&o.port),
            Self::Queue(o) => Some(&o.port),
            Self::Dcbx(o) => Some(&o.port),
            Self::Breakout(_) | Self::Port(_) | Self::Vlan(_) | Self::Lag(_) | Self::Mclag(_) => None,
            Self::DscpClass(_) | Self::EcnProfile(_) => None,
        }
    }

    /// Every interface whose traffic a change of this object may stop.
    pub fn interfaces(&self) -> Vec<&InterfaceName> {
        match self {
            Self::Breakout(o) => vec![&o.port],
            Self::Port(o) => vec![&o.name],
            Self::Lag(o) => vec![&o.name],
            Self::LagMember(o) => vec![&o.port, &o.lag],
            Self::Mclag(o) => vec![&o.peer_lag],
            _ => self.interface().into_iter().collect(),
        }
    }

    /// Fields in which `wanted` says something other than `self`, both of one key. Unsaid on either side: no difference.
    pub fn differences(&self, wanted: &Self) -> Vec<FieldChange> {
        let (before, after) = (self.fields(), wanted.fields());
        let changed = after.iter().filter_map(|(field, after)| {
            let before = before.iter().find(|(f, _)| f == field).map(|(_, value)| value)?;
            (before != after).then(|| FieldChange {
                field: field.clone(),
                before: before.clone(),
                after: after.clone(),
            })
        });
        changed.collect()
    }

    /// `self` with everything that `wanted` says.
    pub(crate) fn overlaid(&self, wanted: &Self) -> Self {
        let merged = (serde_json::to_value(self), serde_json::to_value(wanted));
        let (Ok(serde_json::Value::Object(mut all)), Ok(serde_json::Value::Object(said))) = merged else {
            return wanted.clone();
        };
        all.extend(said.into_iter().filter(|(_, value)| !value.is_null()));
        serde_json::from_value(all.into()).unwrap_or_else(|_| wanted.clone())
    }

    /// What is said, field by field, in words; without the `kind`.
    pub fn fields(&self) -> Vec<(String, String)> {
        let Ok(serde_json::Value::Object(map)) = serde_json::to_value(self) else { return Vec::new() };
        let said = map.into_iter().filter(|(field, value)| field != "kind" && !value.is_null());
        said.map(|(field, value)| (field, words(&value))).collect()
    }
}

fn words(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) if text.contains(' ') => format!("\"{text}\""),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "none".to_owned(),
        Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join(","),
        Value::Object(map) => {
            map.iter().map(|(k, v)| format!("{k} {}", words(v))).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}
