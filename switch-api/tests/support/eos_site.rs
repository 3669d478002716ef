//! An Arista switch for tests: eAPI's JSON-RPC, a command grammar that refuses what it does not know, configuration sessions and
//! their commit timer. Written from the EOS User Manual ("Configure Session", "eAPI Command Explorer") and knows nothing of the
//! driver.
#![allow(dead_code, unreachable_pub)]

use super::web::{Answer, Seen, Site};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node(pub BTreeMap<String, Node>);

impl Node {
    fn json(&self) -> Value {
        let cmds: Map<String, Value> = self
            .0
            .iter()
            .filter(|(line, below)| !(line.contains("tx-queue ") && below.0.is_empty()))
            .map(|(line, below)| {
                let section = ["interface ", "vlan ", "qos profile ", "uc-tx-queue ", "mlag configuration"];
                let is_section =
                    section.iter().any(|s| line.starts_with(s)) && !line.starts_with("vlan internal");
                (line.clone(), if is_section { below.json() } else { Value::Null })
            })
            .collect();
        json!({"cmds": cmds, "comments": []})
    }

    fn forget(&mut self, key: &[&str]) {
        self.0.retain(|line, _| {
            let words: Vec<&str> = line.split(' ').collect();
            !words.starts_with(key)
        });
    }
}

pub struct Session {
    pub config: Node,
    pub state: &'static str,
}

pub struct EosSite {
    pub version: String,
    pub model: String,
    pub running: Node,
    pub startup: Node,
    pub sessions: BTreeMap<String, Session>,
    /// What comes back when the timer runs out.
    pub pending: Option<(String, Node, Instant)>,
    pub neighbours: Value,
    /// Commands that this user may not use.
    pub forbidden: Option<String>,
    pub counters: BTreeMap<String, Value>,
}

impl EosSite {
    pub fn factory(ports: &[&str]) -> Self {
        let mut running = Node::default();
        for port in ports {
            running.0.entry(format!("interface {port}")).or_default();
        }
        running
            .0
            .entry("interface Management1".to_owned())
            .or_default()
            .0
            .insert("ip address 192.0.2.1/24".into(), Node::default());
        running.0.insert(
            "username admin privilege 15 role network-admin secret sha512 $6$x".into(),
            Node::default(),
        );
        Self {
            version: "4.31.2F".into(),
            model: "DCS-7060CX-32S-F".into(),
            startup: running.clone(),
            running,
            sessions: BTreeMap::new(),
            pending: None,
            neighbours: json!({}),
            forbidden: None,
            counters: BTreeMap::new(),
        }
    }

    /// As an engineer would on the console.
    pub fn console(&mut self, commands: &[&str]) {
        let mut config = self.running.clone();
        let mut path = Vec::new();
        for command in commands {
            configure(&mut config, &mut path, command).unwrap_or_else(|e| panic!("{command}: {e}"));
        }
        self.running = config;
    }

    pub fn expire(&mut self) {
        if let Some((_, _, until)) = &mut self.pending {
            *until = Instant::now();
        }
        self.tick();
    }

    fn tick(&mut self) {
        if self.pending.as_ref().is_some_and(|(_, _, until)| Instant::now() >= *until) {
            let (name, before, _) = self.pending.take().unwrap();
            self.running = before;
            self.sessions.remove(&name);
        }
    }

    fn run(&mut self, commands: &[String]) -> Result<Vec<Value>, (usize, i64, String, String)> {
        let mut results = Vec::new();
        let mut session: Option<String> = None;
        let mut path: Vec<String> = Vec::new();
        let mut enabled = false;
        for (i, command) in commands.iter().enumerate() {
            let invalid = |reason: &str| (i, 1002, "invalid command".to_owned(), reason.to_owned());
            if self.forbidden.as_ref().is_some_and(|f| command.contains(f.as_str())) {
                return Err((i, 1005, "permission denied".into(), "permission to run command denied".into()));
            }
            let words: Vec<&str> = command.split(' ').collect();
            let result = match (words.as_slice(), session.clone()) {
                (["enable"], _) => {
                    enabled = true;
                    json!({})
                }
                (["show", "version"], _) => json!({
                    "modelName": self.model, "serialNumber": "JPE1", "version": self.version,
                    "systemMacAddress": "00:1c:73:00:00:01", "memTotal": 8000000,
                }),
                (["show", "hostname"], _) => json!({"hostname": "leaf-1", "fqdn": "leaf-1.example.org"}),
                (["show", "running-config"], _) if enabled => {
                    let mut shown = self.running.json();
                    shown["header"] = json!(["! device: leaf-1"]);
                    shown
                }
                (["show", "interfaces"], _) => self.interfaces(),
                (["show", "lldp", "neighbors", "detail"], _) => json!({"lldpNeighbors": self.neighbours}),
                (["show", "configuration", "sessions"], _) if enabled => {
                    let sessions: Map<String, Value> = self
                        .sessions
                        .iter()
                        .map(|(name, s)| {
                            (name.clone(), json!({"state": s.state, "commitUser": "", "instances": {}}))
                        })
                        .collect();
                    json!({"sessions": sessions, "maxSavedSessions": 1, "maxOpenSessions": 5})
                }
                (["show", ..], _) if self.counters.contains_key(command) => self.counters[command].clone(),
                (["write", "memory"], None) if enabled => {
                    self.startup = self.running.clone();
                    json!({"messages": ["Copy completed successfully."]})
                }
                (["configure", "session", name], None) if enabled => {
                    let open = self.sessions.values().filter(|s| s.state == "pending").count();
                    if open >= 5 && !self.sessions.contains_key(*name) {
                        return Err(invalid("Maximum number of pending sessions has been reached"));
                    }
                    let running = self.running.clone();
                    let entry = self.sessions.entry((*name).to_owned());
                    let found = entry.or_insert(Session { config: running, state: "pending" });
                    if found.state != "pending" {
                        return Err(invalid("Cannot enter session that is already committed"));
                    }
                    session = Some((*name).to_owned());
                    json!({})
                }
                (["configure", "session", name, "commit"], None) if enabled => {
                    self.tick();
                    match self.pending.take() {
                        Some((pending, _, _)) if pending == *name => {
                            self.sessions.get_mut(*name).unwrap().state = "completed";
                        }
                        other => {
                            self.pending = other;
                            return Err(invalid("Session does not exist or has no pending commit timer"));
                        }
                    }
                    json!({})
                }
                (["configure", "session", name, "abort"], None) if enabled => {
                    match self.pending.take() {
                        Some((pending, before, _)) if pending == *name => self.running = before,
                        other => self.pending = other,
                    }
                    if self.sessions.remove(*name).is_none() {
                        return Err(invalid("Cannot abort a session that does not exist"));
                    }
                    json!({})
                }
                (["commit", rest @ ..], Some(name)) => {
                    if self.pending.is_some() {
                        return Err(invalid(
                            "Cannot commit session due to another session pending commit timer",
                        ));
                    }
                    let before = self.running.clone();
                    self.running = self.sessions[&name].config.clone();
                    let state = match rest {
                        [] => "completed",
                        ["timer", time] => {
                            let parts: Vec<u64> = time.split(':').map(|p| p.parse().unwrap()).collect();
                            let seconds = parts[0] * 3600 + parts[1] * 60 + parts[2];
                            assert!(parts.len() == 3 && parts[2] < 60 && seconds > 0, "{time}");
                            let until = Instant::now() + Duration::from_secs(seconds);
                            self.pending = Some((name.clone(), before, until));
                            "pendingCommitTimer"
                        }
                        _ => return Err(invalid("Invalid input")),
                    };
                    self.sessions.get_mut(&name).unwrap().state = state;
                    session = None;
                    json!({})
                }
                (_, Some(name)) => {
                    let config = &mut self.sessions.get_mut(&name).unwrap().config;
                    configure(config, &mut path, command).map_err(|reason| invalid(&reason))?;
                    json!({})
                }
                _ => return Err(invalid(&format!("Invalid input (at token 0: '{}')", words[0]))),
            };
            results.push(result);
        }
        Ok(results)
    }

    fn interfaces(&self) -> Value {
        let mut all = Map::new();
        for (line, below) in &self.running.0 {
            let Some(name) = line.strip_prefix("interface Ethernet") else { continue };
            let value = |words: &str| below.0.keys().find_map(|l| l.strip_prefix(words).map(str::to_owned));
            let up = !below.0.contains_key("shutdown");
            let gbps: u64 = value("speed ").and_then(|s| s.split('g').next()?.parse().ok()).unwrap_or(100);
            let routed = below.0.contains_key("no switchport");
            all.insert(
                format!("Ethernet{name}"),
                json!({
                    "name": format!("Ethernet{name}"),
                    "lineProtocolStatus": if up { "up" } else { "down" },
                    "interfaceStatus": if up { "connected" } else { "disabled" },
                    "forwardingModel": if routed { "routed" } else { "bridged" },
                    "bandwidth": gbps * 1_000_000_000,
                    "mtu": if routed { value("mtu ").map_or(1500, |m| m.parse().unwrap()) } else { 9214 },
                    "interfaceCounters": {
                        "inOctets": 1000, "outOctets": 2000, "inUcastPkts": 10, "inMulticastPkts": 1,
                        "inBroadcastPkts": 1, "outUcastPkts": 20, "outMulticastPkts": 0, "outBroadcastPkts": 0,
                        "totalInErrors": 3, "totalOutErrors": 0, "inDiscards": 4, "outDiscards": 5,
                        "inputErrorsDetail": {"fcsErrors": 2, "symbolErrors": 0},
                    },
                }),
            );
        }
        json!({"interfaces": all})
    }
}

impl Site for EosSite {
    fn answer(&mut self, request: &Seen) -> Answer {
        self.tick();
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/command-api") {
            return Answer::empty(404);
        }
        let call = &request.body;
        let error = |code: i64, message: &str, data: Value| {
            let error = json!({"code": code, "message": message, "data": data});
            Answer::json(200, json!({"jsonrpc": "2.0", "id": call["id"], "error": error}))
        };
        if call["jsonrpc"] != "2.0" || call["method"] != "runCmds" {
            return error(-32600, "Invalid request", Value::Null);
        }
        let commands: Vec<String> = match serde_json::from_value(call["params"]["cmds"].clone()) {
            Ok(commands) => commands,
            Err(_) => return error(-32602, "Invalid params", Value::Null),
        };
        assert_eq!(call["params"]["format"], "json");
        match self.run(&commands) {
            Ok(results) => Answer::json(200, json!({"jsonrpc": "2.0", "id": call["id"], "result": results})),
            Err((at, code, kind, reason)) => {
                let mut data = vec![json!({}); at];
                data.push(json!({"errors": [reason]}));
                let message =
                    format!("CLI command {} of {} '{}' failed: {kind}", at + 1, commands.len(), commands[at]);
                error(code, &message, data.into())
            }
        }
    }
}

/// Patterns by context: `#` a number, `*` a word, `...` the rest; how many words are the key of the line.
const GRAMMAR: &[(&str, &str, usize)] = &[
    ("config", "qos map dscp # to traffic-class #", 4),
    ("interface", "description ...", 1),
    ("interface", "shutdown", 1),
    ("interface", "speed *", 1),
    ("interface", "error-correction encoding *", 2),
    ("interface", "mtu #", 1),
    ("interface", "switchport mode *", 2),
    ("interface", "switchport access vlan #", 3),
    ("interface", "switchport trunk native vlan #", 4),
    ("interface", "switchport trunk allowed vlan *", 4),
    ("interface", "channel-group # mode *", 1),
    ("interface", "lacp timer *", 2),
    ("interface", "port-channel min-links #", 2),
    ("interface", "mlag #", 1),
    ("interface", "qos trust *", 2),
    ("interface", "priority-flow-control on", 2),
    ("interface", "priority-flow-control priority # no-drop", 3),
    ("interface", "priority-flow-control pause watchdog", 3),
    ("interface", "priority-flow-control pause watchdog port action *", 5),
    (
        "interface",
        "priority-flow-control pause watchdog port timer timeout * polling-interval * recovery-time *",
        5,
    ),
    ("interface", "dcbx mode *", 2),
    ("interface", "service-profile *", 1),
    ("vlan", "name *", 1),
    ("mlag", "domain-id *", 1),
    ("mlag", "local-interface *", 1),
    ("mlag", "peer-address *", 1),
    ("mlag", "peer-link *", 1),
    ("queue", "bandwidth percent #", 2),
    (
        "queue",
        "random-detect ecn minimum-threshold # bytes maximum-threshold # bytes max-mark-probability #",
        2,
    ),
];

fn configure(root: &mut Node, path: &mut Vec<String>, command: &str) -> Result<(), String> {
    let words: Vec<&str> = command.split(' ').collect();
    if words == ["exit"] {
        path.pop();
        return Ok(());
    }
    let no = words[0] == "no" || words[0] == "default";
    let bare = if no { &words[1..] } else { &words[..] };
    // Sections can be entered from anywhere at or below where they belong.
    match bare {
        ["interface", _] | ["vlan", _] | ["qos", "profile", _] | ["mlag", "configuration"] => {
            path.clear();
            let line = bare.join(" ");
            if let Some(port) = bare.get(1).filter(|_| bare[0] == "interface") {
                let known =
                    ["Ethernet", "Port-Channel", "Vlan", "Loopback"].iter().any(|k| port.starts_with(k));
                if !known || port.starts_with("Ethernet") && !root.0.contains_key(&line) {
                    return Err(format!("Invalid input (at token 1: '{port}')"));
                }
                if no && port.starts_with("Port-Channel") {
                    let group = port.trim_start_matches("Port-Channel").to_owned();
                    root.0.values_mut().for_each(|node| node.forget(&["channel-group", &group]));
                }
            }
            if no {
                root.0.remove(&line);
            } else {
                root.0.entry(line.clone()).or_default();
                path.push(line);
            }
            return Ok(());
        }
        _ => {}
    }
    let kind = match path.last().map(String::as_str) {
        None => "config",
        Some(line) if line.contains("tx-queue") => "queue",
        Some(line) if line.starts_with("interface") => "interface",
        Some(line) if line.starts_with("vlan") => "vlan",
        Some(line) if line.starts_with("mlag") => "mlag",
        Some(_) => "profile",
    };
    let joined = path.last().filter(|_| kind == "interface").cloned();
    let mut node = &mut *root;
    for line in path.iter() {
        node = node.0.entry(line.clone()).or_default();
    }
    match (kind, words.as_slice()) {
        ("interface" | "profile", ["uc-tx-queue", number]) if number.parse::<u8>().is_ok_and(|n| n < 8) => {
            node.0.entry(command.to_owned()).or_default();
            path.push(command.to_owned());
            return Ok(());
        }
        ("config", ["no", "spanning-tree", "vlan-id", _])
        | ("interface", ["no", "autostate" | "switchport"]) => {
            node.0.insert(command.to_owned(), Node::default());
            return Ok(());
        }
        ("interface", ["switchport"]) => {
            node.0.remove("no switchport");
            node.forget(&["ip"]);
            return Ok(());
        }
        ("interface", ["no", "error-correction", "encoding"]) => {
            node.forget(&["error-correction"]);
            node.0.insert(command.to_owned(), Node::default());
            return Ok(());
        }
        ("queue", ["no", "priority"]) => {
            node.0.insert(command.to_owned(), Node::default());
            return Ok(());
        }
        ("queue", ["priority", "strict"]) => {
            node.0.remove("no priority");
            return Ok(());
        }
        ("interface", ["ip", "address", address]) if address.contains('/') => {
            node.0.retain(|line, _| !line.starts_with("ip address ") || line.ends_with(" secondary"));
            node.0.insert(command.to_owned(), Node::default());
            return Ok(());
        }
        ("interface", ["ip", "address", _, "secondary"] | ["ipv6", "address", _]) => {
            node.0.insert(command.to_owned(), Node::default());
            return Ok(());
        }
        ("interface", ["no", "ip" | "ipv6", "address"]) => {
            node.forget(&words[1..]);
            return Ok(());
        }
        ("interface", ["no", "priority-flow-control"]) => {
            node.0.remove("priority-flow-control on");
            return Ok(());
        }
        ("interface", ["no", "priority-flow-control", "pause", "watchdog"]) => {
            node.0.remove("priority-flow-control pause watchdog");
            return Ok(());
        }
        _ => {}
    }
    for (context, pattern, key) in GRAMMAR.iter().filter(|(context, _, _)| *context == kind) {
        let parts: Vec<&str> = pattern.split(' ').collect();
        let fits = |(part, word): (&&str, &&str)| match *part {
            "#" => word.parse::<u64>().is_ok(),
            "*" => true,
            literal => literal == *word,
        };
        if no {
            if bare.len() >= *key && bare.len() <= parts.len() && parts.iter().zip(bare).all(fits) {
                node.forget(&bare[..*key]);
                if words[..] == ["default", "error-correction", "encoding"] {
                    node.0.remove("no error-correction encoding");
                }
                return Ok(());
            }
            continue;
        }
        let rest = parts.last() == Some(&"...");
        let same = if rest { words.len() >= parts.len() } else { words.len() == parts.len() };
        if !same || !parts.iter().filter(|p| **p != "...").zip(&words).all(fits) {
            continue;
        }
        check(context, &words)?;
        node.forget(&words[..*key]);
        if words[0] == "error-correction" {
            node.0.remove("no error-correction encoding");
        }
        node.0.insert(command.to_owned(), Node::default());
        if let (["channel-group", number, ..], Some(_)) = (words.as_slice(), joined) {
            root.0.entry(format!("interface Port-Channel{number}")).or_default();
        }
        return Ok(());
    }
    Err(format!("Invalid input (at token 0: '{}')", words[0]))
}

/// Ranges that the manual gives.
fn check(_: &str, words: &[&str]) -> Result<(), String> {
    let number = |at: usize| words[at].parse::<u64>().unwrap_or(u64::MAX);
    let one_of = |at: usize, values: &[&str]| values.contains(&words[at]);
    let fine = match words[0] {
        "mtu" => (68..=9214).contains(&number(1)),
        "speed" => one_of(
            1,
            &["10g", "25g", "40g-4", "50g-1", "50g-2", "100g-2", "100g-4", "200g-4", "400g-8", "800g-8"],
        ),
        "error-correction" => one_of(2, &["reed-solomon", "fire-code"]),
        "channel-group" => (1..=2000).contains(&number(1)) && one_of(3, &["on", "active", "passive"]),
        "lacp" => one_of(2, &["fast", "normal"]),
        "dcbx" => one_of(2, &["ieee", "cee", "none"]),
        "bandwidth" => (1..=100).contains(&number(2)),
        "name" => words[1].len() <= 32,
        "priority-flow-control" if words.len() == 11 => {
            let seconds = |at: usize| words[at].parse::<f64>().unwrap_or(-1.0);
            (0.01..=60.0).contains(&seconds(6)) && (0.01..=60.0).contains(&seconds(10))
        }
        _ => true,
    };
    if fine { Ok(()) } else { Err(format!("Invalid input (at token 1: '{}')", words[1])) }
}
