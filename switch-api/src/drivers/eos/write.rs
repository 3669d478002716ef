//! From a plan to EOS commands. What an object says alone becomes its commands at once; what several objects say together (the
//! VLANs of a port, the members of a LAG, the profile of a port) is written whole, from the state that the plan leads to.

use super::read::lag_of;
use crate::error::Cause;
use crate::intent::{DcbxMode, Fec, LagMode, WatchdogAction};
use crate::names::InterfaceName;
use crate::plan::{Change, Plan};
use crate::state::{
    EcnProfile, Key, Kind, Lag, Mark, Mclag, Object, PfcWatchdog, Port, PortQos, Queue, Scheduling,
    SwitchState,
};
use std::collections::BTreeSet;

/// The commands of `plan`, for a session whose configuration reads as `before`. `queue` is this platform's word for a queue.
pub(super) fn commands(
    before: &SwitchState,
    plan: &Plan,
    mark: &Mark,
    queue: &str,
) -> Result<Vec<String>, Cause> {
    let mut after = before.clone();
    plan.changes.iter().for_each(|change| after.change(change));
    let mut write =
        Write { before, after: &after, mark, queue, commands: Vec::new(), touched: Touched::default() };
    for change in &plan.changes {
        write.change(change)?;
    }
    write.together()?;
    Ok(write.commands)
}

/// What is written whole at the end.
#[derive(Default)]
struct Touched {
    switched: BTreeSet<InterfaceName>,
    lags: BTreeSet<InterfaceName>,
    members: BTreeSet<InterfaceName>,
    profiles: BTreeSet<String>,
    profiled: BTreeSet<InterfaceName>,
}

struct Write<'a> {
    before: &'a SwitchState,
    after: &'a SwitchState,
    mark: &'a Mark,
    queue: &'a str,
    commands: Vec<String>,
    touched: Touched,
}

impl Write<'_> {
    fn say(&mut self, command: impl Into<String>) {
        self.commands.push(command.into());
    }

    /// A line, or its removal.
    fn line(&mut self, words: &str, value: Option<String>) {
        match value {
            Some(value) => self.say(format!("{words} {value}")),
            None => self.say(format!("no {words}")),
        }
    }

    fn change(&mut self, change: &Change) -> Result<(), Cause> {
        let says = |field: &str| change.says(field);
        let gone = matches!(change, Change::Delete { .. });
        match change.object() {
            Object::Breakout(_) => {
                return Err(Cause::Unsupported {
                    what: "a breakout apart from the speed of its lanes".into(),
                });
            }
            Object::Port(port) if gone => self.free_port(port),
            Object::Port(port) => self.port(port, says),
            Object::Vlan(vlan) if gone => self.say(format!("no vlan {}", vlan.id)),
            Object::Vlan(vlan) => {
                self.say(format!("vlan {}", vlan.id));
                self.say(format!("name {}", vlan.name));
                self.say("exit");
            }
            Object::Lag(lag) if gone => self.say(format!("no interface {}", lag.name)),
            Object::Lag(lag) => {
                self.lag(lag, &says);
                if says("mode") || says("fast") {
                    self.touched.lags.insert(lag.name.clone());
                }
            }
            Object::LagMember(member) => {
                self.touched.members.insert(member.port.clone());
                self.touched.switched.insert(member.port.clone());
            }
            Object::Mclag(domain) => self.mclag(domain, gone),
            Object::MclagMember(member) => {
                self.say(format!("interface {}", member.lag));
                self.line("mlag", (!gone).then(|| member.id.to_string()));
                self.say("exit");
            }
            Object::VlanMember(member) => {
                self.touched.switched.insert(member.interface.clone());
            }
            Object::Address(address) => {
                self.touched.switched.insert(address.interface.clone());
            }
            Object::DscpClass(class) => {
                let words = format!("qos map dscp {}", class.dscp);
                self.line(&words, (!gone).then(|| format!("to traffic-class {}", class.traffic_class)));
            }
            Object::EcnProfile(profile) if gone => self.say(format!("no qos profile {}", profile.name)),
            Object::EcnProfile(profile) => {
                self.touched.profiles.insert(profile.name.clone());
            }
            Object::PortQos(qos) => self.port_qos(qos, gone),
            Object::PfcWatchdog(watchdog) => self.watchdog(watchdog, gone)?,
            Object::Queue(queue) => self.queue(queue, gone),
            Object::Dcbx(dcbx) => {
                let mode = match dcbx.mode {
                    DcbxMode::Ieee => Some("ieee"),
                    DcbxMode::Cee => Some("cee"),
                    DcbxMode::Off => None,
                };
                self.say(format!("interface {}", dcbx.port));
                self.line("dcbx mode", mode.filter(|_| !gone).map(str::to_owned));
                self.say("exit");
            }
        }
        Ok(())
    }

    fn port(&mut self, port: &Port, says: impl Fn(&str) -> bool) {
        self.say(format!("interface {}", port.name));
        if says("description") {
            self.line("description", (!port.description.is_empty()).then(|| port.description.clone()));
        }
        if says("enabled") {
            self.say(if port.enabled { "no shutdown" } else { "shutdown" });
        }
        if let Some(gbps) = port.speed_gbps.filter(|_| says("speed_gbps")) {
            self.say(format!("speed {}", speed(gbps)));
        }
        if let Some(fec) = port.fec.filter(|_| says("fec")) {
            self.say(match fec {
                Fec::Rs => "error-correction encoding reed-solomon",
                Fec::Fc => "error-correction encoding fire-code",
                Fec::Off => "no error-correction encoding",
                Fec::Auto => "default error-correction encoding",
            });
        }
        if let Some(mtu) = port.mtu_bytes.filter(|_| says("mtu_bytes")) {
            self.say(format!("mtu {mtu}"));
        }
        self.say("exit");
    }

    /// Back to how it came; what else was on it has changes of its own.
    fn free_port(&mut self, port: &Port) {
        self.say(format!("interface {}", port.name));
        for words in ["no description", "no speed", "default error-correction encoding", "no mtu", "exit"] {
            self.say(words);
        }
    }

    fn lag(&mut self, lag: &Lag, says: &impl Fn(&str) -> bool) {
        self.say(format!("interface {}", lag.name));
        if says("description") {
            self.line("description", (!lag.description.is_empty()).then(|| lag.description.clone()));
        }
        if let Some(mtu) = lag.mtu_bytes.filter(|_| says("mtu_bytes")) {
            self.say(format!("mtu {mtu}"));
        }
        if let Some(links) = lag.min_links.filter(|_| says("min_links")) {
            self.line("port-channel min-links", (links > 1).then(|| links.to_string()));
        }
        self.say("exit");
    }

    fn mclag(&mut self, domain: &Mclag, gone: bool) {
        let interface = format!("interface Vlan{}", domain.peer_vlan);
        let lines = if gone {
            vec![
                "no mlag configuration".to_owned(),
                format!("no {interface}"),
                format!("no vlan {}", domain.peer_vlan),
            ]
        } else {
            vec![
                format!("vlan {}", domain.peer_vlan),
                format!("name {}", self.mark.name("peer")),
                "exit".to_owned(),
                // Loops over the peer link are MLAG's own business.
                format!("no spanning-tree vlan-id {}", domain.peer_vlan),
                interface,
                "no autostate".to_owned(),
                format!("ip address {}/{}", domain.local_address, domain.prefix_length),
                "exit".to_owned(),
                "mlag configuration".to_owned(),
                format!("domain-id {}", self.mark.name(&domain.domain_id.to_string())),
                format!("local-interface Vlan{}", domain.peer_vlan),
                format!("peer-address {}", domain.peer_address),
                format!("peer-link {}", domain.peer_lag),
                "exit".to_owned(),
            ]
        };
        self.commands.extend(lines);
        self.touched.switched.insert(domain.peer_lag.clone());
    }

    fn port_qos(&mut self, qos: &PortQos, gone: bool) {
        let key = Key::new(Kind::PortQos, &qos.port);
        let had = match self.before.get(&key) {
            Some(Object::PortQos(before)) => before.pfc_priorities.clone(),
            _ => BTreeSet::new(),
        };
        let wanted = if gone { BTreeSet::new() } else { qos.pfc_priorities.clone() };
        self.say(format!("interface {}", qos.port));
        self.say(if gone { "no qos trust" } else { "qos trust dscp" });
        self.say(if wanted.is_empty() { "no priority-flow-control" } else { "priority-flow-control on" });
        for priority in had.difference(&wanted) {
            self.say(format!("no priority-flow-control priority {priority}"));
        }
        for priority in &wanted {
            self.say(format!("priority-flow-control priority {priority} no-drop"));
        }
        self.say("exit");
    }

    fn watchdog(&mut self, watchdog: &PfcWatchdog, gone: bool) -> Result<(), Cause> {
        let words = "priority-flow-control pause watchdog";
        self.say(format!("interface {}", watchdog.port));
        if gone {
            for part in ["port timer", "port action", ""] {
                self.say(format!("no {words} {part}").trim_end());
            }
        } else {
            let action = match watchdog.action {
                WatchdogAction::Drop => "drop",
                WatchdogAction::Alert => "notify-only",
                WatchdogAction::Forward => {
                    return Err(Cause::Unsupported { what: "a PFC watchdog that forwards".into() });
                }
            };
            let seconds = |ms: u32| format!("{:.2}", f64::from(ms) / 1000.0);
            self.say(words);
            self.say(format!("{words} port action {action}"));
            self.say(format!(
                "{words} port timer timeout {} polling-interval auto recovery-time {}",
                seconds(watchdog.detection_ms),
                seconds(watchdog.restoration_ms)
            ));
        }
        self.say("exit");
        Ok(())
    }

    fn queue(&mut self, queue: &Queue, gone: bool) {
        self.say(format!("interface {}", queue.port));
        self.say(format!("{} {}", self.queue, queue.queue));
        match queue.scheduling.filter(|_| !gone) {
            Some(Scheduling::Weighted(percent)) => {
                self.say("no priority");
                self.say(format!("bandwidth percent {percent}"));
            }
            Some(Scheduling::Strict) => {
                self.say("priority strict");
                self.say("no bandwidth percent");
            }
            None if gone => {
                self.say("priority strict");
                self.say("no bandwidth percent");
            }
            None => {}
        }
        self.say("exit");
        self.say("exit");
        self.touched.profiled.insert(queue.port.clone());
        let profiles =
            [self.before, self.after].map(|state| self.profile_of(state, &queue.port, queue.queue));
        self.touched.profiles.extend(profiles.into_iter().flatten());
    }

    fn profile_of(&self, state: &SwitchState, port: &InterfaceName, queue: u8) -> Option<String> {
        match state.get(&Key::new(Kind::Queue, format!("{port} {queue}"))) {
            Some(Object::Queue(queue)) => queue.ecn_profile.clone(),
            _ => None,
        }
    }

    fn together(&mut self) -> Result<(), Cause> {
        let touched = std::mem::take(&mut self.touched);
        let mut members = touched.members;
        for (_, object) in self.after.iter() {
            if let Object::LagMember(member) = object
                && touched.lags.contains(&member.lag)
            {
                members.insert(member.port.clone());
            }
        }
        members.iter().for_each(|port| self.member(port));
        for interface in &touched.switched {
            self.switching(interface)?;
        }
        touched.profiles.iter().for_each(|profile| self.profile(profile));
        for port in &touched.profiled {
            self.service_profile(port)?;
        }
        Ok(())
    }

    fn member(&mut self, port: &InterfaceName) {
        let after = self.after;
        let lag = lag_of(after, port).and_then(|name| match after.get(&Key::lag(name)) {
            Some(Object::Lag(lag)) => Some(lag),
            _ => None,
        });
        self.say(format!("interface {port}"));
        match lag {
            Some(lag) => {
                let number = lag.name.as_str().trim_start_matches(|c: char| !c.is_ascii_digit());
                let mode = if lag.mode == LagMode::Static { "on" } else { "active" };
                // The mode of a member cannot be changed in place.
                self.say("no channel-group");
                self.say(format!("channel-group {number} mode {mode}"));
                self.say(if lag.fast == Some(true) { "lacp timer fast" } else { "no lacp timer" });
            }
            None => {
                self.say("no channel-group");
                self.say("no lacp timer");
            }
        }
        self.say("exit");
    }

    /// VLANs and addresses of one interface.
    fn switching(&mut self, interface: &InterfaceName) -> Result<(), Cause> {
        let name = interface.as_str();
        let switchable = name.starts_with("Ethernet") || name.starts_with("Port-Channel");
        if lag_of(self.after, interface).is_some() {
            return Ok(());
        }
        if switchable && name.starts_with("Port-Channel") && !self.after.contains(&Key::lag(interface)) {
            // It went with its LAG.
            return Ok(());
        }
        let (mut addresses, mut untagged, mut tagged) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (_, object) in self.after.iter() {
            match object {
                Object::Address(address) if &address.interface == interface => {
                    addresses.push(address.address.clone());
                }
                Object::VlanMember(member) if &member.interface == interface && member.tagged => {
                    tagged.insert(member.vlan.0);
                }
                Object::VlanMember(member) if &member.interface == interface => untagged.push(member.vlan.0),
                Object::Mclag(domain) if &domain.peer_lag == interface => {
                    tagged.insert(domain.peer_vlan.0);
                }
                _ => {}
            }
        }
        if untagged.len() > 1 {
            return Err(Cause::Unsupported { what: format!("two untagged VLANs on {interface}") });
        }
        self.say(format!("interface {interface}"));
        if switchable {
            self.say(if addresses.is_empty() { "switchport" } else { "no switchport" });
        }
        if addresses.is_empty() && switchable {
            self.vlans(untagged.first().copied(), &tagged);
        } else {
            self.addresses(&addresses);
        }
        self.say("exit");
        Ok(())
    }

    fn vlans(&mut self, untagged: Option<u16>, tagged: &BTreeSet<u16>) {
        let trunk = !tagged.is_empty();
        let all: BTreeSet<u16> = tagged.iter().copied().chain(untagged).collect();
        let list = all.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let untagged = untagged.map(|vlan| vlan.to_string());
        let mode = if trunk { Some("trunk") } else { untagged.as_ref().map(|_| "access") };
        self.line("switchport mode", mode.map(str::to_owned));
        self.line("switchport access vlan", untagged.clone().filter(|_| !trunk));
        self.line("switchport trunk native vlan", untagged.filter(|_| trunk));
        self.line("switchport trunk allowed vlan", trunk.then_some(list));
    }

    fn addresses(&mut self, addresses: &[String]) {
        let (six, four): (Vec<&String>, Vec<&String>) = addresses.iter().partition(|a| a.contains(':'));
        self.say("no ip address");
        self.say("no ipv6 address");
        for (i, address) in four.into_iter().enumerate() {
            self.say(format!("ip address {address}{}", if i > 0 { " secondary" } else { "" }));
        }
        six.into_iter().for_each(|address| self.say(format!("ipv6 address {address}")));
    }

    /// The thresholds, in every queue that a port uses this profile for.
    fn profile(&mut self, name: &str) {
        let users = |state: &SwitchState| -> BTreeSet<u8> {
            let queues = state.iter().filter_map(|(_, object)| match object {
                Object::Queue(queue) if queue.ecn_profile.as_deref() == Some(name) => Some(queue.queue),
                _ => None,
            });
            queues.collect()
        };
        let (had, uses) = (users(self.before), users(self.after));
        let Some(Object::EcnProfile(profile)) = self.after.get(&Key::new(Kind::EcnProfile, name)) else {
            return;
        };
        let EcnProfile { min_bytes, max_bytes, mark_percent, .. } = profile;
        let thresholds = format!(
            "random-detect ecn minimum-threshold {min_bytes} bytes maximum-threshold {max_bytes} bytes max-mark-probability {mark_percent}"
        );
        self.say(format!("qos profile {name}"));
        for queue in uses.union(&had) {
            self.say(format!("{} {queue}", self.queue));
            self.say(if uses.contains(queue) { &thresholds } else { "no random-detect ecn" });
            self.say("exit");
        }
        self.say("exit");
    }

    fn service_profile(&mut self, port: &InterfaceName) -> Result<(), Cause> {
        let of = |state: &SwitchState| -> BTreeSet<String> {
            (0..8).filter_map(|queue| self.profile_of(state, port, queue)).collect()
        };
        let (before, after) = (of(self.before), of(self.after));
        if after.len() > 1 {
            return Err(Cause::Unsupported { what: format!("two ECN profiles on {port}") });
        }
        if before != after {
            self.say(format!("interface {port}"));
            self.line("service-profile", after.into_iter().next());
            self.say("exit");
        }
        Ok(())
    }
}

/// EOS names a speed with its lanes where there are several ways to make it.
fn speed(gbps: u32) -> String {
    match gbps {
        40 => "40g-4".to_owned(),
        50 => "50g-1".to_owned(),
        100 => "100g-4".to_owned(),
        200 => "200g-4".to_owned(),
        400 => "400g-8".to_owned(),
        800 => "800g-8".to_owned(),
        other => format!("{other}g"),
    }
}
