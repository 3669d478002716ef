//! From the intent for all to the configuration of one switch.

mod defaults;

pub use defaults::Defaults;

use crate::intent::{DriverKind, Fabric, Lag, Link, Membership, SwitchIntent, WatchdogAction};
use crate::names::{DeviceName, InterfaceName, PortRef};
use crate::state::{
    Address, Breakout, Dcbx, DscpClass, EcnProfile, LagMember, Mark, Mclag, MclagMember, Owner, PfcWatchdog,
    Port, PortQos, Queue, Scheduling, SwitchState, Vlan, VlanMember,
};
use std::collections::{BTreeMap, BTreeSet};

/// What one switch shall be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    pub switch: DeviceName,
    pub kind: DriverKind,
    pub state: SwitchState,
    /// What should be heard at each cabled port.
    pub cabling: BTreeMap<InterfaceName, PortRef>,
    /// Take over what someone else has described.
    pub adopt: bool,
    /// The data interface by which it is managed, as the intent says.
    pub management: Option<InterfaceName>,
}

/// What `switch` shall be: the intent, and the vendor's defaults where it is silent.
pub fn desired(fabric: &Fabric, switch: &SwitchIntent) -> Desired {
    let defaults = Defaults::of(switch.driver);
    let mut build = Build {
        fabric,
        switch,
        defaults,
        mark: Mark::new(&fabric.name),
        mtu_bytes: fabric.mtu.switch_bytes.unwrap_or(defaults.mtu_bytes),
        state: SwitchState::default(),
        vlans: BTreeSet::new(),
    };
    build.breakouts();
    build.links();
    build.lags();
    build.pair();
    build.addresses();
    build.vlans();
    build.class();
    Desired {
        switch: switch.name.clone(),
        kind: switch.driver,
        state: build.state,
        cabling: fabric.links_of(&switch.name).map(|(near, far, _)| (near.clone(), far.clone())).collect(),
        adopt: switch.adopt,
        management: switch.management.interface.clone(),
    }
}

struct Build<'a> {
    fabric: &'a Fabric,
    switch: &'a SwitchIntent,
    defaults: Defaults,
    mark: Mark,
    mtu_bytes: u32,
    state: SwitchState,
    /// Names of the VLANs that this switch carries.
    vlans: BTreeSet<&'a str>,
}

impl<'a> Build<'a> {
    fn breakouts(&mut self) {
        for split in &self.switch.breakout {
            let (port, lanes, speed_gbps) = (split.port.clone(), split.lanes, split.speed_gbps);
            self.state.insert_owned(Breakout { port, lanes, speed_gbps }, Owner::Ours);
        }
    }

    fn links(&mut self) {
        for (port, far, link) in self.fabric.links_of(&self.switch.name) {
            self.state.insert(Port {
                name: port.clone(),
                description: self.mark.describe(&far.to_string()),
                enabled: true,
                speed_gbps: link.speed_gbps,
                fec: link.fec.or_else(|| link.speed_gbps.and_then(Defaults::fec)),
                mtu_bytes: Some(self.mtu_bytes),
            });
            if let Some(vlans) = &link.vlans {
                self.members(port, vlans);
            }
            self.routed(port, &link.routed);
            self.port_class(port, link);
        }
    }

    fn members(&mut self, interface: &InterfaceName, membership: &'a Membership) {
        let untagged = membership.untagged.iter().map(|name| (name, false));
        let tagged = membership.tagged.iter().map(|name| (name, true));
        for (name, tagged) in untagged.chain(tagged) {
            let Some(vlan) = self.fabric.vlan(name) else { continue };
            self.vlans.insert(name);
            self.state.insert(VlanMember { vlan: vlan.id, interface: interface.clone(), tagged });
        }
    }

    fn routed(&mut self, interface: &InterfaceName, ends: &[crate::intent::RoutedEnd]) {
        for end in ends.iter().filter(|end| end.device == self.switch.name) {
            self.state.insert(Address { interface: interface.clone(), address: end.address.clone() });
        }
    }

    fn lags(&mut self) {
        let fabric = self.fabric;
        for lag in &fabric.lags {
            let name = self.defaults.lag_name(lag.id);
            let mut far = BTreeSet::new();
            for (port, end, _) in fabric.links_of(&self.switch.name).filter(|(_, _, l)| belongs(l, lag)) {
                self.state.insert(LagMember { port: port.clone(), lag: name.clone() });
                far.insert(end.device.as_str());
            }
            if far.is_empty() {
                continue;
            }
            let to = far.into_iter().collect::<Vec<_>>().join("+");
            self.state.insert(crate::state::Lag {
                name: name.clone(),
                description: self.mark.describe(&format!("{} {to}", lag.name)),
                mode: lag.mode,
                fast: Some(lag.fast),
                min_links: Some(lag.min_links),
                mtu_bytes: Some(self.mtu_bytes),
            });
            if let Some(vlans) = &lag.vlans {
                self.members(&name, vlans);
            }
            self.routed(&name, &lag.routed);
            if self.spans_pair(lag) {
                self.state.insert(MclagMember { lag: name, id: lag.id });
            }
        }
    }

    /// Whether `lag` also has members on the mate, and is not the link between the two.
    fn spans_pair(&self, lag: &Lag) -> bool {
        let Some(pair) = self.fabric.pair_of(&self.switch.name) else { return false };
        let mate = pair.mate(&self.switch.name);
        pair.peer_lag != lag.name
            && self
                .fabric
                .links_of(mate)
                .any(|(_, far, link)| belongs(link, lag) && far.device != self.switch.name)
    }

    fn pair(&mut self) {
        let fabric = self.fabric;
        let Some(pair) = fabric.pair_of(&self.switch.name) else { return };
        let Some(lag) = fabric.lag(&pair.peer_lag) else { return };
        let mine = usize::from(pair.switches[0] != self.switch.name);
        let bare = |text: &str| text.split('/').next().unwrap_or_default().to_owned();
        let prefix = pair.peer_addresses[mine].split('/').nth(1).and_then(|p| p.parse().ok());
        let peer_lag = self.defaults.lag_name(lag.id);
        if lag.vlans.is_none() {
            // What either switch carries must be able to cross to the other when a node's link fails.
            let both: BTreeSet<&str> = pair
                .switches
                .iter()
                .flat_map(|s| fabric.links_of(s))
                .flat_map(|(_, _, link)| carried(fabric, link))
                .collect();
            for vlan in both.iter().filter_map(|name| fabric.vlan(name)) {
                self.vlans.insert(&vlan.name);
                self.state.insert(VlanMember { vlan: vlan.id, interface: peer_lag.clone(), tagged: true });
            }
        }
        let domain = Mclag {
            domain_id: pair.domain_id,
            local_address: bare(&pair.peer_addresses[mine]),
            peer_address: bare(&pair.peer_addresses[1 - mine]),
            prefix_length: prefix.unwrap_or(31),
            peer_lag,
            peer_vlan: pair.peer_vlan,
            system_mac: pair.system_mac.to_lowercase(),
        };
        self.state.insert_owned(domain, Owner::Ours);
    }

    fn addresses(&mut self) {
        for own in &self.switch.addresses {
            self.state.insert(Address { interface: own.interface.clone(), address: own.address.clone() });
        }
    }

    fn vlans(&mut self) {
        for vlan in self.vlans.iter().filter_map(|name| self.fabric.vlan(name)) {
            self.state.insert_owned(Vlan { id: vlan.id, name: self.mark.name(&vlan.name) }, Owner::Ours);
        }
    }

    fn class_map(&self) -> String {
        self.mark.name("roce")
    }

    fn class(&mut self) {
        let roce = &self.fabric.roce;
        if !roce.enabled {
            return;
        }
        for (dscp, traffic_class) in
            [(roce.dscp, roce.traffic_class), (roce.cnp.dscp, roce.cnp.traffic_class)]
        {
            self.state.insert_owned(DscpClass { map: self.class_map(), dscp, traffic_class }, Owner::Ours);
        }
    }

    fn port_class(&mut self, port: &InterfaceName, link: &Link) {
        let roce = &self.fabric.roce;
        if !roce.enabled {
            return;
        }
        let port = port.clone();
        let profile = self.ecn_profile(link.speed_gbps.unwrap_or(100));
        let lossless = roce.pfc.enabled.then_some(roce.traffic_class);
        self.state.insert(PortQos {
            port: port.clone(),
            map: self.class_map(),
            pfc_priorities: lossless.into_iter().collect(),
        });
        let (detection_ms, restoration_ms) = self.defaults.watchdog_ms;
        let (enabled, action, detection_ms, restoration_ms) = match &roce.pfc.watchdog {
            Some(w) => (w.enabled, w.action, w.detection_ms, w.restoration_ms),
            None => (true, WatchdogAction::Drop, detection_ms, restoration_ms),
        };
        if roce.pfc.enabled && enabled {
            self.state.insert(PfcWatchdog { port: port.clone(), action, detection_ms, restoration_ms });
        }
        self.state.insert(Queue {
            port: port.clone(),
            queue: roce.traffic_class,
            scheduling: Some(Scheduling::Weighted(roce.bandwidth_percent)),
            ecn_profile: Some(profile.name.clone()),
        });
        self.state.insert(Queue {
            port: port.clone(),
            queue: roce.cnp.traffic_class,
            scheduling: Some(Scheduling::Strict),
            ecn_profile: None,
        });
        self.state.insert(Dcbx { port, mode: roce.dcbx });
        self.state.insert_owned(profile, Owner::Ours);
    }

    fn ecn_profile(&self, speed_gbps: u32) -> EcnProfile {
        let buffer_mib = self.switch.buffer_mib.unwrap_or(self.defaults.buffer_mib);
        let own = &self.fabric.roce.ecn;
        let row = own.iter().find(|r| speed_gbps <= r.up_to_gbps && buffer_mib >= r.at_least_buffer_mib);
        let (min_bytes, max_bytes, mark_percent) = match row {
            Some(row) => (row.min_bytes, row.max_bytes, row.mark_percent),
            None => self.defaults.ecn(speed_gbps, buffer_mib),
        };
        EcnProfile { name: self.mark.name(&format!("ecn{speed_gbps}")), min_bytes, max_bytes, mark_percent }
    }
}

fn belongs(link: &Link, lag: &Lag) -> bool {
    link.lag.as_deref() == Some(&lag.name)
}

/// Names of the VLANs on a link, or on the LAG that it is a member of.
fn carried<'a>(fabric: &'a Fabric, link: &'a Link) -> Vec<&'a str> {
    let of_lag = link.lag.as_deref().and_then(|name| fabric.lag(name)).and_then(|lag| lag.vlans.as_ref());
    let memberships = [link.vlans.as_ref(), of_lag];
    memberships
        .into_iter()
        .flatten()
        .flat_map(|m| m.untagged.iter().chain(&m.tagged))
        .map(String::as_str)
        .collect()
}
