//! What a switch is configured to do, in one grammar for all vendors: a set of small typed objects, each under its key, each
//! with an owner. Planning is then set difference, and a driver's work is to say one object in its vendor's words.

mod mark;
mod object;

pub use mark::{Mark, Owner};
pub use object::{
    Address, Breakout, Dcbx, DscpClass, EcnProfile, FieldChange, Key, Kind, Lag, LagMember, Mclag,
    MclagMember, Object, PfcWatchdog, Port, PortQos, Queue, Scheduling, Vlan, VlanMember,
};

use crate::names::InterfaceName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The configuration of one switch, as read or as wanted.
///
/// A driver that reads inserts what is *configured*, with the owner of each root object (port, VLAN, LAG, profile, ...); objects
/// that hang on an interface follow their interface's owner. It leaves out what is merely the vendor's default and vanishes by
/// itself when something else is configured (untagged membership of VLAN 1), and gives defaults of settings that always have a
/// value (a port's MTU).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SwitchState {
    #[serde(with = "as_list")]
    objects: BTreeMap<Key, Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    object: Object,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
}

impl SwitchState {
    /// Adds an object that follows the owner of its interface, or is nobody's.
    pub fn insert(&mut self, object: impl Into<Object>) {
        let object = object.into();
        self.objects.insert(object.key(), Entry { object, owner: None });
    }

    /// Adds an object with the owner that its own mark names.
    pub fn insert_owned(&mut self, object: impl Into<Object>, owner: Owner) {
        let object = object.into();
        self.objects.insert(object.key(), Entry { object, owner: Some(owner) });
    }

    pub fn remove(&mut self, key: &Key) -> Option<Object> {
        self.objects.remove(key).map(|entry| entry.object)
    }

    pub fn get(&self, key: &Key) -> Option<&Object> {
        self.objects.get(key).map(|entry| &entry.object)
    }

    pub fn contains(&self, key: &Key) -> bool {
        self.objects.contains_key(key)
    }

    /// Whose the object is: by its own mark, else by that of what it hangs on.
    pub fn owner(&self, key: &Key) -> Owner {
        match self.objects.get(key) {
            Some(Entry { owner: Some(owner), .. }) => *owner,
            Some(Entry { object, owner: None }) => {
                self.root_of(object).map_or(Owner::Free, |root| self.owner(&root))
            }
            None => Owner::Free,
        }
    }

    /// What `object` hangs on in this state; none for roots.
    pub fn root_of(&self, object: &Object) -> Option<Key> {
        let interface = object.interface()?;
        // A LAG takes its members' place, so a name that is both is the LAG's.
        [Key::lag(interface), Key::port(interface)].into_iter().find(|key| self.contains(key))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Object)> {
        self.objects.iter().map(|(key, entry)| (key, &entry.object))
    }

    pub fn len(&self) -> usize {
        self.objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    pub fn ports(&self) -> impl Iterator<Item = &Port> {
        self.iter().filter_map(|(_, object)| match object {
            Object::Port(port) => Some(port),
            _ => None,
        })
    }

    pub fn port(&self, name: &InterfaceName) -> Option<&Port> {
        match self.get(&Key::port(name)) {
            Some(Object::Port(port)) => Some(port),
            _ => None,
        }
    }
}

impl<O: Into<Object>> FromIterator<O> for SwitchState {
    fn from_iter<T: IntoIterator<Item = O>>(objects: T) -> Self {
        let mut state = Self::default();
        objects.into_iter().for_each(|object| state.insert(object));
        state
    }
}

/// JSON has no maps with typed keys; the key is in the object anyway.
mod as_list {
    use super::{BTreeMap, Entry, Key};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<Key, Entry>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map.values())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Key, Entry>, D::Error> {
        let list = Vec::<Entry>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|entry| (entry.object.key(), entry)).collect())
    }
}
