//! Where a node is not as its profile says: each difference in plain words.

use crate::profile::{Cable, Drives, Link, Ports, Profile, matches_glob, version_at_least};
use crate::record::{Drive, Nic, Port, Record, Source};
use crate::units::{bytes_text, memory_text};
use serde::Serialize;
use std::fmt;

/// Drives are sold by round numbers.
const SIZE_TOLERANCE_PERCENT: u64 = 5;
/// Firmware keeps some memory for itself.
const MEMORY_TOLERANCE_PERCENT: u64 = 5;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `drives`, `memory`, `port 3c:ec:…`.
    pub part: String,
    pub found: String,
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, expected {}", self.part, self.found, self.expected)
    }
}

/// Nothing where all is as expected. What only a running node can tell is looked at where the node was asked.
pub fn check(profile: &Profile, record: &Record) -> Vec<Difference> {
    let mut found = Findings { record, all: Vec::new() };
    if !profile.is_for(&record.identity.model) {
        found.say("model", &record.identity.model, &profile.models.join(" or "));
    }
    found.processors(profile);
    found.memory(profile);
    for wanted in &profile.drives {
        found.drives(wanted);
    }
    for wanted in &profile.ports {
        found.ports(wanted);
    }
    found.power_and_fans(profile);
    found.firmware(profile);
    if record.sources.contains(&Source::Node) {
        found.node_only(profile);
        for cable in &profile.cabling {
            found.cable(cable);
        }
    }
    found.all
}

struct Findings<'a> {
    record: &'a Record,
    all: Vec<Difference>,
}

impl Findings<'_> {
    fn say(&mut self, part: &str, found: &str, expected: &str) {
        let found = if found.is_empty() { "nothing" } else { found };
        self.all.push(Difference { part: part.into(), found: found.into(), expected: expected.into() });
    }

    /// What could not be read is said as that, never as missing.
    fn unread(&mut self, part: &str, expected: &str) -> bool {
        let why =
            self.record.unread.iter().find(|u| u.part == part).map(|u| format!("not known ({})", u.why));
        why.is_some_and(|why| {
            self.say(part, &why, expected);
            true
        })
    }

    fn count(&mut self, part: &str, found: usize, wanted: Option<u32>) {
        if let Some(wanted) = wanted
            && found as u64 != u64::from(wanted)
        {
            self.say(part, &found.to_string(), &wanted.to_string());
        }
    }

    fn processors(&mut self, profile: &Profile) {
        let Some(wanted) = &profile.processors else { return };
        if self.unread("processors", "to be compared") {
            return;
        }
        self.count("processors", self.record.processors.len(), wanted.count);
        for cpu in &self.record.processors {
            let part = format!("processor {}", cpu.socket);
            if let Some(model) = &wanted.model
                && !matches_glob(model, &cpu.model)
            {
                self.say(&part, &cpu.model, model);
            }
            if let Some(cores) = wanted.cores
                && cpu.cores != cores
            {
                self.say(&part, &format!("{} cores", cpu.cores), &format!("{cores} cores"));
            }
        }
    }

    fn memory(&mut self, profile: &Profile) {
        let Some(wanted) = &profile.memory else { return };
        if self.unread("memory", "to be compared") {
            return;
        }
        if let Some(least) = wanted.at_least
            && self.record.memory_bytes.saturating_mul(100)
                < least.0.saturating_mul(100 - MEMORY_TOLERANCE_PERCENT)
        {
            let least = format!("at least {}", memory_text(least.0));
            self.say("memory", &memory_text(self.record.memory_bytes), &least);
        }
        self.count("memory modules", self.record.dimms.len(), wanted.modules);
    }

    fn drives(&mut self, wanted: &Drives) {
        let text = drives_text(wanted);
        if self.unread("drives", &text) {
            return;
        }
        let fits = |d: &&Drive| {
            wanted.model.as_ref().is_none_or(|m| matches_glob(m, &d.model))
                && wanted.size.is_none_or(|s| near(d.bytes, s.0))
                && wanted.protocol.as_ref().is_none_or(|p| same_protocol(p, &d.protocol))
        };
        let fitting: Vec<&Drive> = self.record.drives.iter().filter(fits).collect();
        if fitting.len() as u64 != u64::from(wanted.count) {
            let others = self.record.drives.len() - fitting.len();
            let others = if others > 0 { format!(" (and {others} of another kind)") } else { String::new() };
            self.say("drives", &format!("{}{others}", fitting.len()), &text);
        }
        for drive in fitting {
            let part = format!("drive {}", drive_name(drive));
            if let Some(least) = &wanted.firmware
                && !version_at_least(&drive.firmware, least)
            {
                self.say(&part, &format!("firmware {}", drive.firmware), &format!("at least {least}"));
            }
            if let (Some(most), Some(used)) = (wanted.used_at_most_percent, drive.used_percent)
                && used > most
            {
                self.say(&part, &format!("{used} % worn"), &format!("at most {most} %"));
            }
        }
    }

    fn ports(&mut self, wanted: &Ports) {
        let text = ports_text(wanted);
        if self.unread("ports", &text) {
            return;
        }
        let asked_node = self.record.sources.contains(&Source::Node);
        let all = self.record.nics.iter().flat_map(|nic| nic.ports.iter().map(move |port| (nic, port)));
        let fits = |(nic, port): &(&Nic, &Port)| {
            wanted.model.as_ref().is_none_or(|m| matches_glob(m, &nic.model))
                // Speed is that of the link: a port that is down shows none and is not another kind for it.
                && wanted.speed.is_none_or(|s| port.link_up == Some(false) || port.speed_mbps.is_none_or(|m| m == 0 || m == s.0))
        };
        let fitting: Vec<(&Nic, &Port)> = all.filter(fits).collect();
        if (fitting.len() as u64) < u64::from(wanted.count) {
            let ports = self.record.nics.iter().map(|n| n.ports.len()).sum::<usize>();
            self.say("ports", &format!("{} of {ports} that are there", fitting.len()), &text);
        }
        // A few more ports than wanted need no link: the best ones count.
        let spare = fitting.len().saturating_sub(wanted.count as usize);
        let down: Vec<&(&Nic, &Port)> = fitting.iter().filter(|(_, p)| p.link_up == Some(false)).collect();
        if wanted.link == Some(Link::Up) && down.len() > spare {
            for (_, port) in down.iter().skip(spare) {
                self.say(&format!("port {}", port_name(port)), "no link", "a link");
            }
        }
        let silent = fitting.iter().filter(|(_, p)| p.rdma.is_empty()).count();
        if asked_node && wanted.rdma == Some(true) && silent > spare {
            let found = format!("{} ports with RDMA", fitting.len() - silent);
            self.say("ports", &found, &wanted.count.to_string());
        }
        let mut seen = Vec::new();
        for (nic, _) in &fitting {
            if let Some(least) = &wanted.firmware
                && !version_at_least(&nic.firmware, least)
                && !seen.contains(&&nic.name)
            {
                seen.push(&nic.name);
                let part = format!("network adapter {}", nic.name);
                self.say(&part, &format!("firmware {}", nic.firmware), &format!("at least {least}"));
            }
        }
    }

    fn power_and_fans(&mut self, profile: &Profile) {
        if let Some(wanted) = &profile.power_supplies
            && !self.unread("power supplies", "to be compared")
        {
            self.count("power supplies", self.record.power_supplies.len(), wanted.count);
            for psu in &self.record.power_supplies {
                if let Some(watts) = wanted.watts
                    && psu.watts != 0
                    && psu.watts < watts
                {
                    let part = format!("power supply {}", psu.name);
                    self.say(&part, &format!("{} W", psu.watts), &format!("at least {watts} W"));
                }
            }
        }
        if let Some(wanted) = &profile.fans
            && !self.unread("fans", "to be compared")
        {
            self.count("fans", self.record.fans.len(), Some(wanted.count));
        }
    }

    fn firmware(&mut self, profile: &Profile) {
        if profile.firmware.is_empty() || self.unread("firmware", "to be compared") {
            return;
        }
        for (component, least) in &profile.firmware {
            let named = |id: &str, name: &str| matches_glob(component, id) || matches_glob(component, name);
            let mut versions: Vec<(String, String)> = self
                .record
                .firmware
                .iter()
                // Some BMCs list what was there before, and what comes with the next restart.
                .filter(|f| !f.id.starts_with("Previous-") && !f.id.starts_with("Available-"))
                .filter(|f| named(&f.id, &f.name))
                .map(|f| (f.name.clone(), f.version.clone()))
                .collect();
            if versions.is_empty() && named("BIOS", "BIOS") && !self.record.bios_version.is_empty() {
                versions.push(("BIOS".into(), self.record.bios_version.clone()));
            }
            if versions.is_empty() && named("BMC", "BMC") {
                versions.extend(self.record.bmc.iter().map(|b| ("BMC".into(), b.firmware.clone())));
            }
            if versions.is_empty() {
                self.say(
                    &format!("firmware {component}"),
                    "not listed by its BMC",
                    &format!("at least {least}"),
                );
            }
            for (name, version) in versions {
                if !version_at_least(&version, least) {
                    self.say(&format!("firmware {name}"), &version, &format!("at least {least}"));
                }
            }
        }
    }

    fn node_only(&mut self, profile: &Profile) {
        let lacking: Vec<&str> = profile
            .cpu_features
            .iter()
            .filter(|f| !self.record.cpu_features.contains(f))
            .map(String::as_str)
            .collect();
        if !lacking.is_empty() {
            self.say("processor features", &format!("no {}", lacking.join(", ")), "all of them");
        }
        let on = !self.record.iommu_groups.is_empty();
        if let Some(wanted) = profile.iommu
            && wanted != on
        {
            let word = |on| if on { "on" } else { "off" };
            self.say("IOMMU", word(on), word(wanted));
        }
        if let Some(wanted) = &profile.hugepages {
            let pages: u64 = self.record.numa.iter().filter_map(|n| n.hugepages.get(&wanted.size.0)).sum();
            if pages < wanted.at_least {
                let size = memory_text(wanted.size.0);
                self.say(
                    "hugepages",
                    &format!("{pages} of {size}"),
                    &format!("at least {} of {size}", wanted.at_least),
                );
            }
        }
    }

    fn cable(&mut self, cable: &Cable) {
        let all = self.record.nics.iter().flat_map(|n| &n.ports);
        let named = |p: &&Port| [&p.name, &p.interface, &p.mac].iter().any(|n| matches_glob(&cable.port, n));
        match all.into_iter().find(named) {
            None => {
                self.say(&format!("port {}", cable.port), "not there", &format!("a cable to {}", cable.to))
            }
            Some(port) if port.neighbour.is_empty() => {
                let part = format!("port {}", port_name(port));
                self.say(&part, "nobody heard at the other end", &format!("a cable to {}", cable.to));
            }
            Some(port) if !matches_glob(&cable.to, &port.neighbour) => {
                let part = format!("port {}", port_name(port));
                let found = format!("a cable to {}", port.neighbour);
                self.say(&part, &found, &format!("one to {}", cable.to));
            }
            Some(_) => {}
        }
    }
}

fn near(found: u64, wanted: u64) -> bool {
    u128::from(found.abs_diff(wanted)) * 100 <= u128::from(wanted) * u128::from(SIZE_TOLERANCE_PERCENT)
}

/// Some BMCs call an NVMe drive by its bus.
fn same_protocol(wanted: &str, found: &str) -> bool {
    let one = |p: &str| if p.eq_ignore_ascii_case("pcie") { "nvme".to_owned() } else { p.to_lowercase() };
    one(wanted) == one(found)
}

pub(crate) fn drive_name(drive: &Drive) -> String {
    match (drive.serial.as_str(), drive.slot.as_str()) {
        ("", "") => drive.device.clone(),
        ("", slot) => slot.to_owned(),
        (serial, "") => serial.to_owned(),
        (serial, slot) => format!("{serial} in {slot}"),
    }
}

fn port_name(port: &Port) -> &str {
    [&port.name, &port.interface].into_iter().find(|n| !n.is_empty()).unwrap_or(&port.mac)
}

fn drives_text(wanted: &Drives) -> String {
    let mut words = vec![wanted.count.to_string()];
    words.extend(wanted.protocol.clone());
    words.extend(wanted.model.clone());
    words.extend(wanted.size.map(|s| format!("of {}", bytes_text(s.0))));
    words.join(" ")
}

fn ports_text(wanted: &Ports) -> String {
    let mut words = vec![wanted.count.to_string()];
    words.extend(wanted.model.clone());
    words.extend(wanted.speed.map(|s| match s.0 {
        mbps if mbps >= 1000 && mbps.is_multiple_of(1000) => format!("of {} Gb/s", mbps / 1000),
        mbps => format!("of {mbps} Mb/s"),
    }));
    words.join(" ")
}
