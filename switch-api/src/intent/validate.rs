//! What the grammar alone cannot say: names that exist, numbers in range, ends used once.

use super::model::*;
use super::read::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// More than these help nobody.
const MAX_PROBLEMS: usize = 100;

pub(super) fn problems(fabric: &Fabric) -> Vec<Problem> {
    let mut check = Check { fabric, found: Vec::new() };
    check.head();
    check.roce();
    check.vlans();
    check.switches();
    check.pairs();
    check.lags();
    check.links();
    check.found
}

struct Check<'a> {
    fabric: &'a Fabric,
    found: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn wrong(&mut self, field: impl Into<String>, cause: impl Into<String>, next: impl Into<String>) {
        if self.found.len() < MAX_PROBLEMS {
            let (field, cause, next) = (field.into(), cause.into(), next.into());
            self.found.push(Problem { field, line: None, cause, next });
        }
    }

    fn unique<K: Ord + ToString>(&mut self, list: &str, field: &str, keys: impl Iterator<Item = K>) {
        let mut first = BTreeMap::new();
        for (i, key) in keys.enumerate() {
            let text = key.to_string();
            if let Some(j) = first.insert(key, i) {
                let path = format!("{list}[{i}]{}{field}", if field.is_empty() { "" } else { "." });
                self.wrong(path, format!("'{text}' is already used by {list}[{j}]"), "give each its own");
            }
        }
    }

    fn head(&mut self) {
        let fabric = self.fabric;
        if fabric.version != 1 {
            self.wrong("version", format!("{} is not known", fabric.version), "write version: 1");
        }
        self.mark_part("name", &fabric.name);
        if !(1280..=9216).contains(&fabric.mtu.host_bytes) {
            self.wrong(
                "mtu.host_bytes",
                format!("{} is out of range", fabric.mtu.host_bytes),
                "9000 is usual for storage",
            );
        }
        if let Some(bytes) = fabric.mtu.switch_bytes {
            if !(1500..=9416).contains(&bytes) {
                self.wrong(
                    "mtu.switch_bytes",
                    format!("{bytes} is out of range"),
                    "write 9100 to 9216, or leave it out",
                );
            } else if bytes < fabric.mtu.host_bytes + 100 && fabric.mtu.host_bytes > 1500 {
                // VLAN, MPLS or VXLAN headers on the way must fit on top of the hosts' packets.
                let cause = format!("{bytes} leaves no room above the hosts' {}", fabric.mtu.host_bytes);
                self.wrong("mtu.switch_bytes", cause, "write at least 100 bytes more, 9216 at most");
            }
        }
        self.unique("racks", "name", fabric.racks.iter().map(|r| &r.name[..]));
        self.unique("nodes", "name", fabric.nodes.iter().map(|n| n.name.as_str()));
        for (i, node) in fabric.nodes.iter().enumerate() {
            self.device(&format!("nodes[{i}].name"), node.name.as_str());
            self.rack(&format!("nodes[{i}].rack"), node.rack.as_deref());
            for (j, own) in node.addresses.iter().enumerate() {
                self.prefix(&format!("nodes[{i}].addresses[{j}].address"), &own.address);
            }
        }
    }

    fn roce(&mut self) {
        let roce = &self.fabric.roce;
        for (field, dscp) in [("roce.dscp", roce.dscp), ("roce.cnp.dscp", roce.cnp.dscp)] {
            if dscp > 63 {
                self.wrong(field, format!("{dscp} is no DSCP"), "write 0 to 63; RoCE uses 26, its CNPs 48");
            }
        }
        for (field, class) in
            [("roce.traffic_class", roce.traffic_class), ("roce.cnp.traffic_class", roce.cnp.traffic_class)]
        {
            if class > 7 {
                self.wrong(field, format!("{class} is no traffic class"), "write 0 to 7");
            }
        }
        if roce.dscp == roce.cnp.dscp || roce.traffic_class == roce.cnp.traffic_class {
            let cause = "RDMA and its congestion notifications share a class, so notifications would wait behind paused data";
            self.wrong("roce.cnp", cause, "give them another DSCP and traffic class (48 and 6 are usual)");
        }
        if !(1..=95).contains(&roce.bandwidth_percent) {
            self.wrong(
                "roce.bandwidth_percent",
                format!("{} is out of range", roce.bandwidth_percent),
                "write 1 to 95",
            );
        }
        if let Some(watchdog) = &roce.pfc.watchdog {
            for (field, ms) in
                [("detection_ms", watchdog.detection_ms), ("restoration_ms", watchdog.restoration_ms)]
            {
                // SONiC's model: 100 to 5000 and 100 to 60000.
                if !(100..=60_000).contains(&ms) {
                    self.wrong(
                        format!("roce.pfc.watchdog.{field}"),
                        format!("{ms} is out of range"),
                        "write 100 to 60000",
                    );
                }
            }
        }
        for (i, row) in roce.ecn.iter().enumerate() {
            if row.min_bytes == 0 || row.min_bytes > row.max_bytes {
                let cause =
                    format!("min_bytes {} is not between 1 and max_bytes {}", row.min_bytes, row.max_bytes);
                self.wrong(
                    format!("roce.ecn[{i}].min_bytes"),
                    cause,
                    "marking begins at min_bytes and is full at max_bytes",
                );
            }
            if !(1..=100).contains(&row.mark_percent) {
                self.wrong(
                    format!("roce.ecn[{i}].mark_percent"),
                    format!("{} is out of range", row.mark_percent),
                    "write 1 to 100",
                );
            }
        }
    }

    fn vlans(&mut self) {
        let fabric = self.fabric;
        self.unique("vlans", "name", fabric.vlans.iter().map(|v| &v.name[..]));
        self.unique("vlans", "id", fabric.vlans.iter().map(|v| v.id));
        for (i, vlan) in fabric.vlans.iter().enumerate() {
            self.mark_part(&format!("vlans[{i}].name"), &vlan.name);
            if !(1..=4094).contains(&vlan.id.0) {
                self.wrong(format!("vlans[{i}].id"), format!("{} is no VLAN", vlan.id), "write 2 to 4094");
            } else if vlan.id.0 == 1 {
                self.wrong(
                    format!("vlans[{i}].id"),
                    "VLAN 1 is every switch's default and nobody's own",
                    "write 2 to 4094",
                );
            }
        }
    }

    fn switches(&mut self) {
        let fabric = self.fabric;
        self.unique("switches", "name", fabric.switches.iter().map(|s| s.name.as_str()));
        let nodes: BTreeSet<_> = fabric.nodes.iter().map(|n| &n.name).collect();
        for (i, switch) in fabric.switches.iter().enumerate() {
            let at = format!("switches[{i}]");
            self.device(&format!("{at}.name"), switch.name.as_str());
            self.rack(&format!("{at}.rack"), switch.rack.as_deref());
            if nodes.contains(&switch.name) {
                self.wrong(format!("{at}.name"), "a node has the same name", "give each device its own name");
            }
            self.management(&format!("{at}.management"), switch);
            for (j, split) in switch.breakout.iter().enumerate() {
                if ![2, 4, 8].contains(&split.lanes) {
                    self.wrong(
                        format!("{at}.breakout[{j}].lanes"),
                        format!("a port does not split into {}", split.lanes),
                        "write 2, 4 or 8",
                    );
                }
            }
            for (j, own) in switch.addresses.iter().enumerate() {
                self.prefix(&format!("{at}.addresses[{j}].address"), &own.address);
            }
        }
    }

    fn management(&mut self, at: &str, switch: &SwitchIntent) {
        let management = &switch.management;
        if management.address.is_empty() {
            self.wrong(format!("{at}.address"), "is empty", "write the switch's host name or address");
        }
        if !(1..=600).contains(&management.timeout_s) {
            self.wrong(
                format!("{at}.timeout_s"),
                format!("{} is out of range", management.timeout_s),
                "write 1 to 600",
            );
        }
        if let Some(reference) = &management.credentials
            && reference.file.is_some() == reference.env.is_some()
        {
            self.wrong(
                format!("{at}.credentials"),
                "names not exactly one source",
                "write either file: PATH or env: NAME",
            );
        }
        let local = management.address.starts_with("unix:");
        let tls = &management.tls;
        if tls.plaintext && (tls.insecure || tls.ca_file.is_some() || tls.pin_sha256.is_some()) {
            self.wrong(format!("{at}.tls"), "asks for TLS and for none", "leave out plaintext, or the rest");
        } else if !local
            && !tls.plaintext
            && !tls.insecure
            && tls.ca_file.is_none()
            && tls.pin_sha256.is_none()
        {
            let next =
                "write ca_file or pin_sha256; insecure: true believes anyone, plaintext: true uses no TLS";
            self.wrong(format!("{at}.tls"), "does not say how the switch proves who it is", next);
        }
        if tls.certificate_file.is_some() != tls.key_file.is_some() {
            let next = "write certificate_file and key_file, or neither";
            self.wrong(format!("{at}.tls"), "names a certificate without its key, or a key alone", next);
        }
        if let Some(pin) = &tls.pin_sha256
            && pin.chars().filter(char::is_ascii_hexdigit).count() != 64
        {
            self.wrong(format!("{at}.tls.pin_sha256"), "is no SHA-256", "write 64 hexadecimal digits");
        }
    }

    fn pairs(&mut self) {
        let fabric = self.fabric;
        self.unique("pairs", "name", fabric.pairs.iter().map(|p| &p.name[..]));
        let mut member_of = BTreeMap::new();
        for (i, pair) in fabric.pairs.iter().enumerate() {
            let at = format!("pairs[{i}]");
            if pair.switches[0] == pair.switches[1] {
                self.wrong(
                    format!("{at}.switches"),
                    "names one switch twice",
                    "name the two switches of the pair",
                );
            }
            for (j, name) in pair.switches.iter().enumerate() {
                if fabric.switch(name).is_none() {
                    self.wrong(
                        format!("{at}.switches[{j}]"),
                        format!("'{name}' is no switch"),
                        "name one of switches",
                    );
                }
                if let Some(other) = member_of.insert(name, i).filter(|other| *other != i) {
                    self.wrong(
                        format!("{at}.switches[{j}]"),
                        format!("'{name}' is already in pairs[{other}]"),
                        "a switch has one mate",
                    );
                }
                self.prefix(&format!("{at}.peer_addresses[{j}]"), &pair.peer_addresses[j]);
            }
            if fabric.lag(&pair.peer_lag).is_none() {
                self.wrong(
                    format!("{at}.peer_lag"),
                    format!("'{}' is no LAG", pair.peer_lag),
                    "name one of lags",
                );
            }
            if !(2..=4094).contains(&pair.peer_vlan.0) {
                self.wrong(
                    format!("{at}.peer_vlan"),
                    format!("{} is no VLAN", pair.peer_vlan),
                    "write 2 to 4094, or leave it out",
                );
            }
            if !mac(&pair.system_mac) {
                self.wrong(
                    format!("{at}.system_mac"),
                    format!("'{}' is no MAC address", pair.system_mac),
                    "write 02:00:00:00:00:01",
                );
            }
        }
    }

    fn lags(&mut self) {
        let fabric = self.fabric;
        self.unique("lags", "name", fabric.lags.iter().map(|l| &l.name[..]));
        self.unique("lags", "id", fabric.lags.iter().map(|l| l.id));
        for (i, lag) in fabric.lags.iter().enumerate() {
            let at = format!("lags[{i}]");
            if !(1..=999).contains(&lag.id) {
                self.wrong(format!("{at}.id"), format!("{} is out of range", lag.id), "write 1 to 999");
            }
            self.membership(&format!("{at}.vlans"), lag.vlans.as_ref());
            self.routed(&format!("{at}.routed"), &lag.routed);
            let members: Vec<_> =
                fabric.links.iter().filter(|l| l.lag.as_deref() == Some(&lag.name)).collect();
            if members.is_empty() {
                self.wrong(
                    format!("{at}.name"),
                    "no link is a member",
                    format!("write lag: {} at its links", lag.name),
                );
            }
            self.same_switch_or_pair(&at, &members);
        }
    }

    /// A LAG's ends on each side are one device, or the two switches of one pair.
    fn same_switch_or_pair(&mut self, at: &str, members: &[&Link]) {
        let fabric = self.fabric;
        let groups: BTreeSet<BTreeSet<String>> = members
            .iter()
            .map(|link| {
                let side = |end: &crate::PortRef| match fabric.pair_of(&end.device) {
                    Some(pair) if !link.ends.iter().all(|e| pair.switches.contains(&e.device)) => {
                        format!("pair {}", pair.name)
                    }
                    _ => end.device.to_string(),
                };
                link.ends.iter().map(side).collect()
            })
            .collect();
        if groups.len() > 1 {
            let next =
                "its links run between the same two devices, or to the two switches of one pair (see pairs)";
            self.wrong(format!("{at}.name"), "its links end at different devices", next);
        }
    }

    fn links(&mut self) {
        let fabric = self.fabric;
        let ends = fabric.links.iter().flat_map(|l| &l.ends);
        let mut first = BTreeMap::new();
        for (n, end) in ends.enumerate() {
            let (i, j) = (n / 2, n % 2);
            if let Some(before) = first.insert(end, i) {
                self.wrong(
                    format!("links[{i}].ends[{j}]"),
                    format!("{end} is already an end of links[{before}]"),
                    "a port takes one cable",
                );
            }
            let known =
                fabric.switch(&end.device).is_some() || fabric.nodes.iter().any(|n| n.name == end.device);
            if !known {
                let next = "name a device of switches or nodes";
                self.wrong(
                    format!("links[{i}].ends[{j}]"),
                    format!("there is no device '{}'", end.device),
                    next,
                );
            }
        }
        for (i, link) in fabric.links.iter().enumerate() {
            let at = format!("links[{i}]");
            if link.ends[0].device == link.ends[1].device {
                self.wrong(
                    format!("{at}.ends"),
                    "both ends are at one device",
                    "name the two devices the cable joins",
                );
            }
            if link.speed_gbps.is_some_and(|s| ![1, 10, 25, 40, 50, 100, 200, 400, 800].contains(&s)) {
                let next = "write 1, 10, 25, 40, 50, 100, 200, 400 or 800";
                self.wrong(format!("{at}.speed_gbps"), "no Ethernet has this speed", next);
            }
            let uses = [link.vlans.is_some(), link.lag.is_some(), !link.routed.is_empty()];
            if uses.iter().filter(|u| **u).count() > 1 {
                self.wrong(
                    at.clone(),
                    "it has more than one of vlans, lag and routed",
                    "a LAG's VLANs and addresses stand at the LAG",
                );
            }
            if let Some(name) = &link.lag
                && fabric.lag(name).is_none()
            {
                self.wrong(format!("{at}.lag"), format!("'{name}' is no LAG"), "name one of lags");
            }
            self.membership(&format!("{at}.vlans"), link.vlans.as_ref());
            self.routed(&format!("{at}.routed"), &link.routed);
        }
    }

    fn membership(&mut self, at: &str, membership: Option<&Membership>) {
        let Some(membership) = membership else { return };
        let untagged = membership.untagged.iter().map(|name| (format!("{at}.untagged"), name));
        let tagged =
            membership.tagged.iter().enumerate().map(|(i, name)| (format!("{at}.tagged[{i}]"), name));
        let mut seen = BTreeSet::new();
        for (field, name) in untagged.chain(tagged) {
            if self.fabric.vlan(name).is_none() {
                self.wrong(field.clone(), format!("'{name}' is no VLAN"), "name one of vlans");
            }
            if !seen.insert(name) {
                self.wrong(
                    field,
                    format!("'{name}' is there twice"),
                    "a port is in a VLAN once, tagged or untagged",
                );
            }
        }
    }

    fn routed(&mut self, at: &str, ends: &[RoutedEnd]) {
        for (i, end) in ends.iter().enumerate() {
            if self.fabric.switch(&end.device).is_none() {
                self.wrong(
                    format!("{at}[{i}].device"),
                    format!("'{}' is no switch", end.device),
                    "name one of switches",
                );
            }
            self.prefix(&format!("{at}[{i}].address"), &end.address);
        }
    }

    fn prefix(&mut self, field: &str, text: &str) {
        let fits = text.split_once('/').is_some_and(|(address, length)| {
            let most = match address.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => 32,
                Ok(IpAddr::V6(_)) => 128,
                Err(_) => return false,
            };
            length.parse::<u8>().is_ok_and(|length| length <= most)
        });
        if !fits {
            self.wrong(
                field,
                format!("'{text}' is no address with prefix length"),
                "write it like 10.0.0.1/31",
            );
        }
    }

    fn rack(&mut self, field: &str, rack: Option<&str>) {
        if let Some(rack) = rack
            && !self.fabric.racks.iter().any(|r| r.name == rack)
        {
            self.wrong(field, format!("'{rack}' is no rack"), "name one of racks");
        }
    }

    fn device(&mut self, field: &str, name: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // Names are given to commands; one with a dash in front would be taken for an option.
        if name.is_empty() || name.len() > 63 || !name.chars().all(fits) || name.starts_with('-') {
            self.wrong(
                field,
                format!("'{name}' is no device name"),
                "write 1 to 63 letters, digits, '-', '_' and '.', no '-' in front",
            );
        }
    }

    /// Parts of ownership marks: EOS takes 32 characters for a VLAN's name, and the mark is `basalt_FABRIC_VLAN`.
    fn mark_part(&mut self, field: &str, name: &str) {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if name.is_empty() || name.len() > 12 || !name.chars().all(fits) {
            self.wrong(
                field,
                format!("'{name}' cannot be part of a mark"),
                "write 1 to 12 letters, digits and '-'",
            );
        }
    }
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|p| p.len() == 2 && u8::from_str_radix(p, 16).is_ok())
}
