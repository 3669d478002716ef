//! A draft of `fabric.yaml` from what nodes know of themselves and hear by LLDP. What it cannot know (how a switch proves who it is,
//! which VLANs there shall be) it says.

use super::model::*;
use crate::names::{DeviceName, PortRef};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// What is seen, from any source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// Name of the fabric.
    pub name: String,
    pub nodes: Vec<SeenNode>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenNode {
    pub name: DeviceName,
    #[serde(default)]
    pub rack: Option<String>,
    /// Its storage ports.
    pub ports: Vec<SeenPort>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenPort {
    pub name: String,
    #[serde(default)]
    pub speed_gbps: Option<u32>,
    /// With prefix length.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// What LLDP hears; none while the link is down.
    #[serde(default)]
    pub neighbour: Option<SeenNeighbour>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenNeighbour {
    /// System name.
    pub device: String,
    /// Port id.
    pub port: String,
    #[serde(default)]
    pub port_description: String,
    /// System description: tells the vendor.
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub management_address: Option<String>,
}

/// A fabric, and what a person still has to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Draft {
    pub fabric: Fabric,
    pub open: Vec<String>,
}

/// The fabric that `seen` shows. With `known`, an intent that is there already, everything a person has said in it stays: switches, VLANs,
/// LAGs, links between switches, and what runs over a cable, even where the cable has moved; a node that is not seen is kept, since it
/// may merely be off.
pub fn generate(seen: &Inventory, known: Option<&Fabric>) -> Draft {
    let mut draft = Draft { fabric: known.cloned().unwrap_or_else(|| empty(&seen.name)), open: Vec::new() };
    for node in &seen.nodes {
        draft.node(node);
        for port in &node.ports {
            draft.cable(node, port);
        }
    }
    let here: BTreeSet<&DeviceName> = seen.nodes.iter().map(|node| &node.name).collect();
    let gone = draft.fabric.nodes.iter().filter(|node| !here.contains(&node.name));
    draft
        .open
        .extend(gone.map(|node| format!("{} was not seen; take it out if it is gone for good", node.name)));
    draft.settings();
    draft.fabric.switches.sort_by(|a, b| a.name.cmp(&b.name));
    draft.fabric.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    draft.fabric.links.sort_by(|a, b| a.ends.cmp(&b.ends));
    draft
}

fn empty(name: &str) -> Fabric {
    Fabric {
        version: 1,
        name: name.to_owned(),
        mtu: Mtu::default(),
        roce: Roce::default(),
        vlans: Vec::new(),
        racks: Vec::new(),
        switches: Vec::new(),
        pairs: Vec::new(),
        nodes: Vec::new(),
        lags: Vec::new(),
        links: Vec::new(),
    }
}

impl Draft {
    fn node(&mut self, seen: &SeenNode) {
        let of_port = |port: &SeenPort| {
            let interface = port.name.as_str();
            let all = port.addresses.iter().cloned();
            all.map(|address| InterfaceAddress { interface: interface.into(), address }).collect::<Vec<_>>()
        };
        let addresses: Vec<InterfaceAddress> = seen.ports.iter().flat_map(of_port).collect();
        if let Some(rack) = &seen.rack
            && !self.fabric.racks.iter().any(|r| &r.name == rack)
        {
            self.fabric.racks.push(Rack { name: rack.clone(), place: None });
        }
        match self.fabric.nodes.iter_mut().find(|node| node.name == seen.name) {
            Some(node) => {
                node.rack = seen.rack.clone().or(node.rack.take());
                if !addresses.is_empty() {
                    node.addresses = addresses;
                }
            }
            None => {
                self.fabric.nodes.push(Node { name: seen.name.clone(), rack: seen.rack.clone(), addresses })
            }
        }
    }

    fn cable(&mut self, node: &SeenNode, port: &SeenPort) {
        let near = PortRef { device: node.name.clone(), port: port.name.as_str().into() };
        let Some(heard) = &port.neighbour else {
            if !self.fabric.links.iter().any(|link| link.ends.contains(&near)) {
                self.open.push(format!("{near}: nothing heard by LLDP; plug it in, or leave it out"));
            }
            return;
        };
        let Some(device) = self.switch(node, heard) else { return };
        let far = PortRef { device, port: far_port(heard).into() };
        let moved = |link: &&mut Link| link.ends.contains(&near);
        if let Some(link) = self.fabric.links.iter_mut().find(moved) {
            let end = usize::from(link.ends[0] == near);
            if link.ends[end] != far {
                let was = std::mem::replace(&mut link.ends[end], far);
                let now = &link.ends[end];
                self.open.push(format!(
                    "{near} was in {was} and is in {now}; take the file as it is, or the cable back"
                ));
            }
            link.speed_gbps = link.speed_gbps.or(speed(port));
            return;
        }
        let ends = [near, far];
        let (speed_gbps, vlans, lag) = (speed(port), None, None);
        self.fabric.links.push(Link { ends, speed_gbps, fec: None, vlans, lag, routed: Vec::new() });
    }

    /// The switch's name in the intent; new ones are added. None: not a switch we can drive.
    fn switch(&mut self, node: &SeenNode, heard: &SeenNeighbour) -> Option<DeviceName> {
        let same = |name: &DeviceName| {
            let domain = heard.device.strip_prefix(name.as_str());
            domain.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(switch) = self.fabric.switches.iter().find(|switch| same(&switch.name)) {
            return Some(switch.name.clone());
        }
        let Some(driver) = driver(&heard.description) else {
            let said = if heard.description.is_empty() { "nothing" } else { &heard.description };
            let text =
                format!("{} says '{said}' of itself, which no driver knows; add it by hand", heard.device);
            if !self.open.contains(&text) {
                self.open.push(text);
            }
            return None;
        };
        let name = device_name(&heard.device);
        let address = heard.management_address.clone().unwrap_or_else(|| heard.device.clone());
        self.fabric.switches.push(SwitchIntent {
            name: name.clone(),
            // Nodes hear leaves; spines are heard by leaves alone.
            role: Role::Leaf,
            rack: node.rack.clone(),
            driver,
            management: Management {
                address,
                port: None,
                user: None,
                credentials: None,
                tls: Tls::default(),
                timeout_s: 20,
                interface: None,
            },
            buffer_mib: None,
            breakout: Vec::new(),
            addresses: Vec::new(),
            adopt: false,
        });
        Some(name)
    }

    /// What only a person can say.
    fn settings(&mut self) {
        let silent = |s: &&SwitchIntent| {
            let tls = &s.management.tls;
            !tls.insecure && !tls.plaintext && tls.ca_file.is_none() && tls.pin_sha256.is_none()
        };
        let silent = self.fabric.switches.iter().filter(silent);
        let local = |s: &&SwitchIntent| !s.management.address.starts_with("unix:");
        for switch in silent.filter(local) {
            self.open.push(format!(
                "{}: write management.tls (how it proves who it is), user and credentials",
                switch.name
            ));
        }
        let mut bare: BTreeMap<&DeviceName, usize> = BTreeMap::new();
        for link in &self.fabric.links {
            if link.vlans.is_none() && link.lag.is_none() && link.routed.is_empty() {
                *bare.entry(&link.ends[1].device).or_default() += 1;
            }
        }
        for (switch, links) in bare {
            self.open.push(format!(
                "{switch}: {links} links have neither vlans nor lag nor routed; write what runs over them"
            ));
        }
    }
}

fn speed(port: &SeenPort) -> Option<u32> {
    port.speed_gbps.filter(|gbps| [1, 10, 25, 40, 50, 100, 200, 400, 800].contains(gbps))
}

/// The port as the switch names it: some send a MAC address as the id and the name as its description.
fn far_port(heard: &SeenNeighbour) -> &str {
    let is_mac = heard.port.split(':').count() == 6;
    if (is_mac || heard.port.is_empty()) && !heard.port_description.is_empty() {
        &heard.port_description
    } else {
        &heard.port
    }
}

/// Without the domain, and with nothing that a name may not have.
fn device_name(heard: &str) -> DeviceName {
    let host = if heard.parse::<std::net::IpAddr>().is_ok() {
        heard
    } else {
        heard.split('.').next().unwrap_or(heard)
    };
    let fits = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    host.chars().take(63).map(fits).collect::<String>().trim_start_matches('-').into()
}

/// By the words of the vendors' LLDP system descriptions.
fn driver(description: &str) -> Option<DriverKind> {
    let has = |word: &str| description.to_lowercase().contains(word);
    match () {
        () if has("enterprise sonic") || has("dell") && has("sonic") => Some(DriverKind::DellSonic),
        () if has("sonic") => Some(DriverKind::SonicGnmi),
        () if has("arista") => Some(DriverKind::Eos),
        () if has("cumulus") => Some(DriverKind::Nvue),
        () if has("open vswitch") => Some(DriverKind::Ovs),
        () => None,
    }
}
