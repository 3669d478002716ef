//! `fabric.yaml`: what is taken, and what is said about what is not.

use basalt_switch_api::intent::{Fabric, IntentError, Problem, schema};

const RACK: &str = include_str!("rack.yaml");

fn problems(text: &str) -> Vec<Problem> {
    match Fabric::from_yaml(text) {
        Err(IntentError::Invalid(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// The line on which `needle` stands in the file, counted from 1.
fn line_of(text: &str, needle: &str) -> Option<u64> {
    text.lines().position(|line| line.contains(needle)).map(|i| i as u64 + 1)
}

#[test]
fn a_rack_is_read_and_written_back() {
    let fabric = Fabric::from_yaml(RACK).unwrap();
    assert_eq!(fabric.switches.len(), 3);
    assert_eq!(fabric.links[6].ends[1].port.as_str(), "Ethernet1/1");
    assert_eq!(Fabric::from_yaml(&fabric.to_yaml()).unwrap(), fabric);
}

/// What people are given to begin with is taken, becomes objects on every switch, and fits the published schema's fields.
#[test]
fn the_example_is_taken() {
    let text = include_str!("../examples/fabric.yaml");
    let fabric = Fabric::from_yaml(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((fabric.switches.len(), fabric.nodes.len()), (3, 4));
    for switch in &fabric.switches {
        let desired = basalt_switch_api::desired::desired(&fabric, switch);
        assert!(desired.state.len() > 15, "{}", switch.name);
    }
    let ways = basalt_switch_api::verify::mtu::probes(&fabric);
    assert!(ways.len() >= 6, "{ways:?}");
    let published = schema();
    let known = published["properties"].as_object().unwrap();
    let written: Vec<&str> = text.lines().filter(|l| l.starts_with(char::is_alphabetic)).collect();
    for line in written {
        let field = line.split(':').next().unwrap();
        assert!(known.contains_key(field), "{field} is not in the schema");
    }
}

#[test]
fn each_problem_names_field_line_cause_and_next_step() {
    let cases = [
        (
            "untagged: storage-a}}",
            "untagged: storage-z}}",
            "links[0].vlans.untagged",
            "no VLAN",
            "name one of vlans",
        ),
        (
            "leaf-1/Ethernet4]",
            "leaf-1/Ethernet0]",
            "links[2].ends[1]",
            "already an end of links[0]",
            "one cable",
        ),
        ("id: 200", "id: 100", "vlans[1].id", "already used by vlans[0]", "its own"),
        ("speed_gbps: 400", "speed_gbps: 300", "links[6].speed_gbps", "no Ethernet", "write 1, 10"),
        ("10.0.0.1/31", "10.0.0.1/64", "links[6].routed[1].address", "no address", "write it like"),
        ("10.255.0.1/32", "10.255.0", "switches[2].addresses[0].address", "no address", "write it like"),
        ("  host_bytes: 9000", "  host_bytes: 90000", "mtu.host_bytes", "out of range", "9000"),
        ("peer_lag: peer", "peer_lag: pear", "pairs[0].peer_lag", "no LAG", "lags"),
        ("domain_id: 1", "domain_id: 1\n    peer_vlan: 5000", "pairs[0].peer_vlan", "no VLAN", "4094"),
        (
            "192.0.2.12, user: basalt, tls: {insecure: true}",
            "192.0.2.12",
            "switches[1].management.tls",
            "does not say",
            "ca_file",
        ),
        (
            "node-3/p1, leaf-2/Ethernet8",
            "node-2/p1, leaf-2/Ethernet8",
            "lags[1].name",
            "different devices",
            "pair",
        ),
    ];
    for (from, to, field, cause, next) in &cases {
        assert!(RACK.contains(from), "{from}");
        let text = RACK.replacen(from, to, 1);
        let found = problems(&text);
        let problem = found.iter().find(|p| p.field == *field).unwrap_or_else(|| panic!("{to}: {found:?}"));
        assert!(problem.cause.contains(cause) && problem.next.contains(next), "{problem}");
        assert!(problem.line.is_some(), "{problem}");
    }
    let text = RACK.replacen("speed_gbps: 400", "speed_gbps: 300", 1);
    assert_eq!(problems(&text)[0].line, line_of(&text, "speed_gbps: 300"));
    let text = RACK.replacen("peer_lag: peer", "peer_lag: pear", 1);
    assert_eq!(problems(&text)[0].line, line_of(&text, "pear"));
    let shown = problems(&text)[0].to_string();
    assert!(
        shown.starts_with("line ") && shown.contains("pairs[0].peer_lag: 'pear' is no LAG; name one of lags"),
        "{shown}"
    );
}

#[test]
fn the_parser_says_where_as_well() {
    let text = RACK.replacen("domain_id: 1", "domian_id: 1", 1);
    let found = problems(&text);
    assert_eq!(found[0].line, line_of(&text, "domian_id"));
    assert!(found[0].cause.contains("domian_id"), "{}", found[0]);
    // A secret has no place in the file.
    let text = RACK.replacen("user: basalt", "user: basalt, password: hunter2", 1);
    assert!(problems(&text)[0].cause.contains("password"));
    assert!(!problems("{{{").is_empty());
    assert!(!problems("").is_empty());
}

#[test]
fn aliases_cannot_blow_up_the_reader() {
    let mut bomb = String::from("version: 1\nname: x\nswitches: []\na0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 9].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(!problems(&bomb).is_empty());
}

/// The published schema is what the types say. `UPDATE_SCHEMA=1 cargo test` writes it anew.
#[test]
fn the_published_schema_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/fabric.schema.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&schema()).unwrap());
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap();
    assert!(published == now, "{path} is out of date; run UPDATE_SCHEMA=1 cargo test -p basalt-switch-api");
}
