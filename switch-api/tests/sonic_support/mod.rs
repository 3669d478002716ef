//! What the tests of both ways into SONiC have in common: a switch as it comes, the intent, and what every driver must do.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod gnmi_server;
#[path = "../support/intent.rs"]
mod intent;
pub(crate) mod redis_server;

use basalt_switch_api::connection::{Connection, Limits};
use basalt_switch_api::desired::{Desired, desired};
use basalt_switch_api::intent::{DriverKind, Fabric};
use basalt_switch_api::plan::{Change, Plan};
use basalt_switch_api::retry::RetryPolicy;
use basalt_switch_api::state::{Key, Kind, Mark, Object, Owner};
use basalt_switch_api::tls::Trust;
use basalt_switch_api::verify::FindingKind;
use basalt_switch_api::{ApplyOptions, Cause, DeviceName, Secret, Switch};
pub(crate) use intent::planned;
use serde_json::{Map, Value, json};
use std::time::Duration;

pub(crate) const SECRET: &str = "Tr0ub4dor-and-3";
pub(crate) const OPTIONS: ApplyOptions = ApplyOptions { hold: Duration::ZERO };

/// The rack of the other tests, with SONiC as its spine too.
pub(crate) fn rack() -> Fabric {
    let text = include_str!("../rack.yaml")
        .replace("driver: eos", "driver: sonic_gnmi")
        .replace("spine-1/Ethernet1/1", "spine-1/Ethernet0");
    Fabric::from_yaml(&text).unwrap()
}

pub(crate) fn wanted(fabric: &Fabric, name: &str) -> Desired {
    desired(fabric, fabric.switch(&DeviceName::from(name)).unwrap())
}

pub(crate) fn connection(kind: DriverKind, name: &str, address: &str, port: u16) -> Connection {
    Connection {
        switch: name.into(),
        kind,
        address: address.to_owned(),
        port,
        user: "basalt".to_owned(),
        secret: Secret::new(SECRET),
        trust: Trust::Plaintext,
        identity: None,
        limits: Limits {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(10),
            ..Limits::default()
        },
        retry: RetryPolicy::ONCE,
        mark: Mark::new("rack-a"),
    }
}

/// Where the rows are, behind a server.
pub(crate) trait Rows {
    /// All of CONFIG_DB: table, key, field.
    fn config(&self) -> Value;
    /// Writes one row of a database, as someone else would.
    fn put(&self, database: &str, table: &str, key: &str, fields: &[(&str, &str)]);
    fn delete(&self, database: &str, table: &str, key: &str);
}

/// CONFIG_DB of a 100G switch of eight ports with the factory's QoS, a VLAN of someone else's, and a routed port.
pub(crate) fn factory() -> Value {
    let mut config = Map::new();
    let mut set = |table: &str, key: &str, row: Value| {
        let rows = config.entry(table).or_insert_with(|| json!({}));
        rows.as_object_mut().unwrap().insert(key.to_owned(), row);
    };
    set(
        "DEVICE_METADATA",
        "localhost",
        json!({"hostname": "sonic", "hwsku": "ACS-MSN2700", "mac": "0c:42:a1:00:00:01", "type": "LeafRouter"}),
    );
    set("VERSIONS", "DATABASE", json!({"VERSION": "version_202305_01"}));
    for i in 0..8 {
        let port = format!("Ethernet{}", i * 4);
        let lanes = (0..4).map(|lane| (i * 4 + lane).to_string()).collect::<Vec<_>>().join(",");
        let row = json!({
            "admin_status": "up", "alias": format!("etp{}", i + 1), "index": (i + 1).to_string(),
            "lanes": lanes, "speed": "100000", "mtu": "1500",
        });
        set("PORT", &port, row);
        let maps = json!({
            "dscp_to_tc_map": "AZURE", "tc_to_queue_map": "AZURE", "tc_to_pg_map": "AZURE",
            "pfc_to_queue_map": "AZURE", "pfc_enable": "3,4", "pfcwd_sw_enable": "3,4",
        });
        set("PORT_QOS_MAP", &port, maps);
        set(
            "QUEUE",
            &format!("{port}|3-4"),
            json!({"wred_profile": "AZURE_LOSSLESS", "scheduler": "scheduler.1"}),
        );
        set("QUEUE", &format!("{port}|0"), json!({"scheduler": "scheduler.0"}));
        set("BREAKOUT_CFG", &port, json!({"brkout_mode": "1x100G[40G]"}));
        set("BUFFER_PG", &format!("{port}|0"), json!({"profile": "ingress_lossy_profile"}));
    }
    let lengths: Map<String, Value> = (0..8).map(|i| (format!("Ethernet{}", i * 4), json!("5m"))).collect();
    set("CABLE_LENGTH", "AZURE", lengths.into());
    let same: Map<String, Value> = (0..8).map(|n| (n.to_string(), json!(n.to_string()))).collect();
    set("DSCP_TO_TC_MAP", "AZURE", json!({"3": "3", "4": "4", "46": "5"}));
    set("TC_TO_QUEUE_MAP", "AZURE", same.clone().into());
    set("TC_TO_PRIORITY_GROUP_MAP", "AZURE", same.clone().into());
    set("MAP_PFC_PRIORITY_TO_QUEUE", "AZURE", same.into());
    let profile = json!({
        "ecn": "ecn_all", "green_min_threshold": "1048576", "green_max_threshold": "2097152",
        "green_drop_probability": "5", "wred_green_enable": "true",
    });
    set("WRED_PROFILE", "AZURE_LOSSLESS", profile);
    set("SCHEDULER", "scheduler.0", json!({"type": "DWRR", "weight": "14"}));
    set("SCHEDULER", "scheduler.1", json!({"type": "DWRR", "weight": "15"}));
    set("VLAN", "Vlan1000", json!({"vlanid": "1000"}));
    set("VLAN_MEMBER", "Vlan1000|Ethernet28", json!({"tagging_mode": "untagged"}));
    set("INTERFACE", "Ethernet4", json!({}));
    set("INTERFACE", "Ethernet4|10.0.0.2/31", json!({}));
    set("FEATURE", "lldp", json!({"state": "enabled"}));
    config.into()
}

/// Apply, read, plan: nothing left. Then back, and every row is as it was.
pub(crate) async fn applies_and_takes_back(switch: &dyn Switch, rows: &dyn Rows) {
    let fabric = rack();
    let desired = wanted(&fabric, switch.name().as_str());
    let before = rows.config();
    let plan = planned(switch, &desired).await;
    assert!(plan.refusals.is_empty(), "{plan}");
    assert!(plan.changes.len() >= 10, "{plan}");
    let pending = switch.apply(&plan, OPTIONS).await.unwrap();
    let left = planned(switch, &desired).await;
    assert!(left.is_empty(), "{left}");
    let wrong = switch.verify(&desired).await.unwrap();
    assert!(wrong.iter().all(|f| f.kind == FindingKind::MissingNeighbour), "{wrong:?}");

    let after = rows.config();
    assert_eq!(after["VLAN"]["Vlan1000"], before["VLAN"]["Vlan1000"], "someone else's VLAN");
    assert_eq!(
        after["PORT_QOS_MAP"]["Ethernet28"], before["PORT_QOS_MAP"]["Ethernet28"],
        "a port that we do not use"
    );
    assert_eq!(after["FEATURE"], before["FEATURE"]);
    assert_eq!(after["DSCP_TO_TC_MAP"]["AZURE"], before["DSCP_TO_TC_MAP"]["AZURE"]);

    switch.roll_back(&pending).await.unwrap();
    assert_eq!(rows.config(), before);
    // Asked again, since the first answer might have been lost.
    switch.roll_back(&pending).await.unwrap();
    assert_eq!(rows.config(), before);

    // Without the memory of the rows (another process): the plan's inverse brings the objects back.
    let pending = switch.apply(&plan, OPTIONS).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    switch.roll_back(&pending).await.unwrap();
    let again = planned(switch, &desired).await;
    let keys = |plan: &Plan| plan.changes.iter().map(Change::key).collect::<Vec<_>>();
    assert_eq!(keys(&again), keys(&plan));
}

/// Drift in any row that matters is seen and mended, rows of others are not.
pub(crate) async fn sees_and_mends_drift(switch: &dyn Switch, rows: &dyn Rows) {
    let fabric = rack();
    let desired = wanted(&fabric, switch.name().as_str());
    let plan = planned(switch, &desired).await;
    let pending = switch.apply(&plan, OPTIONS).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    let good = rows.config();
    for (table, key, field, value) in [
        ("PORT", "Ethernet0", "mtu", "1500"),
        ("PORT", "Ethernet0", "fec", "none"),
        ("PORT", "Ethernet0", "admin_status", "down"),
        ("VLAN_MEMBER", "Vlan100|Ethernet0", "tagging_mode", "tagged"),
        ("PORTCHANNEL", "PortChannel13", "min_links", "2"),
        ("PORTCHANNEL", "PortChannel13", "system_mac", "02:00:00:00:00:99"),
        ("DSCP_TO_TC_MAP", "basalt_rack-a_roce", "26", "4"),
        ("TC_TO_QUEUE_MAP", "basalt_rack-a_roce", "3", "4"),
        ("TC_TO_PRIORITY_GROUP_MAP", "basalt_rack-a_roce", "3", "0"),
        ("PORT_QOS_MAP", "Ethernet0", "pfc_enable", "3,4"),
        ("PORT_QOS_MAP", "Ethernet0", "pfcwd_sw_enable", "4"),
        ("PORT_QOS_MAP", "Ethernet0", "tc_to_pg_map", "AZURE"),
        ("PFC_WD", "Ethernet0", "action", "alert"),
        ("WRED_PROFILE", "basalt_rack-a_ecn100", "ecn", "ecn_none"),
        ("WRED_PROFILE", "basalt_rack-a_ecn100", "green_max_threshold", "1"),
        ("QUEUE", "Ethernet0|3", "wred_profile", "AZURE_LOSSLESS"),
        ("SCHEDULER", "basalt_rack-a_dwrr60", "weight", "1"),
        ("MCLAG_DOMAIN", "1", "peer_ip", "10.0.0.9"),
    ] {
        assert_ne!(good[table][key][field], value, "the case changes nothing: {table}|{key} {field}");
        rows.put("CONFIG_DB", table, key, &[(field, value)]);
        let plan = planned(switch, &desired).await;
        assert!(!plan.changes.is_empty(), "{table}|{key} {field} {value} is not seen");
        assert!(plan.changes.len() <= 16, "{table}|{key}: {plan}");
        let pending = switch.apply(&plan, OPTIONS).await.unwrap_or_else(|e| panic!("{e}\n{plan}"));
        switch.confirm(&pending).await.unwrap();
        let left = planned(switch, &desired).await;
        assert!(left.is_empty(), "{table}|{key} {field}: {left}");
        assert_eq!(rows.config()[table][key][field], good[table][key][field], "{table}|{key} {field}");
    }
    // A row that goes is missed.
    for (table, key) in
        [("QUEUE", "Ethernet0|3"), ("MCLAG_INTERFACE", "1|PortChannel13"), ("VLAN", "Vlan100")]
    {
        rows.delete("CONFIG_DB", table, key);
        let plan = planned(switch, &desired).await;
        let pending = switch.apply(&plan, OPTIONS).await.unwrap_or_else(|e| panic!("{e}\n{plan}"));
        switch.confirm(&pending).await.unwrap();
        assert_eq!(rows.config()[table][key], good[table][key], "{table}|{key}");
    }
}

/// Someone else's description, a change under our hands, what SONiC cannot say.
pub(crate) async fn refuses_what_it_must(switch: &dyn Switch, rows: &dyn Rows) {
    let fabric = rack();
    let desired = wanted(&fabric, switch.name().as_str());
    let before = rows.config();
    rows.put("CONFIG_DB", "PORT", "Ethernet0", &[("description", "uplink to the office")]);
    let state = switch.read().await.unwrap().state;
    assert_eq!(state.owner(&Key::new(Kind::Port, "Ethernet0")), Owner::Foreign);
    assert!(!switch.plan(&state, &desired).refusals.is_empty());
    rows.put("CONFIG_DB", "PORT", "Ethernet0", &[("description", "")]);

    let plan = planned(switch, &desired).await;
    rows.put("CONFIG_DB", "PORT", "Ethernet0", &[("mtu", "4000")]);
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(matches!(error.cause, Cause::Conflict { .. }), "{error}");

    let only = |change: Change| Plan {
        switch: switch.name().clone(),
        changes: vec![change],
        refusals: Vec::new(),
        notes: Vec::new(),
    };
    let port = |name: &str| {
        let Some(Object::Port(port)) = desired.state.get(&Key::new(Kind::Port, "Ethernet0")) else {
            panic!()
        };
        Object::from(basalt_switch_api::state::Port { name: name.into(), ..port.clone() })
    };
    let create = |after: Object| only(Change::Create { after });
    let address = |interface: &str, address: &str| {
        create(
            basalt_switch_api::state::Address { interface: interface.into(), address: address.into() }.into(),
        )
    };
    for (plan, said) in [
        (create(port("Ethernet999")), "no such port"),
        (create(port("Ethernet0|x")), "must not contain"),
        (address("swp1", "10.0.0.0/31"), "interfaces are called"),
    ] {
        let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    rows.put("CONFIG_DB", "PFC_WD", "GLOBAL", &[("POLL_INTERVAL", "400")]);
    let plan = planned(switch, &desired).await;
    let error = switch.apply(&plan, OPTIONS).await.unwrap_err();
    assert!(error.to_string().contains("POLL_INTERVAL of 400 ms"), "{error}");
    rows.delete("CONFIG_DB", "PFC_WD", "GLOBAL");
    rows.put("CONFIG_DB", "PORT", "Ethernet0", &[("mtu", "1500")]);
    let mut after = rows.config();
    after["PORT"]["Ethernet0"].as_object_mut().unwrap().remove("description");
    assert_eq!(after, before, "what was refused left no trace");
}

/// 4x25G and whole again.
pub(crate) async fn splits_ports(switch: &dyn Switch, rows: &dyn Rows) {
    let mut fabric = rack();
    let leaf = fabric.switches.iter_mut().find(|s| &s.name == switch.name()).unwrap();
    let split = basalt_switch_api::intent::Breakout { port: "Ethernet24".into(), lanes: 4, speed_gbps: 25 };
    leaf.breakout.push(split);
    let before = rows.config();
    let desired = wanted(&fabric, switch.name().as_str());
    let stage = planned(switch, &desired).await.first_stage();
    assert_eq!(stage.changes.len(), 1, "{stage}");
    let pending = switch.apply(&stage, OPTIONS).await.unwrap();
    let split = rows.config();
    for (name, lanes, alias) in
        [("Ethernet24", "24", "etp7/1"), ("Ethernet25", "25", "etp7/2"), ("Ethernet27", "27", "etp7/4")]
    {
        let row = &split["PORT"][name];
        assert_eq!(
            (&row["lanes"], &row["speed"], &row["alias"]),
            (&json!(lanes), &json!("25000"), &json!(alias))
        );
        assert_eq!(split["CABLE_LENGTH"]["AZURE"][name], "5m");
    }
    assert!(split["QUEUE"].as_object().unwrap().keys().all(|key| !key.starts_with("Ethernet24|")));
    assert!(split["PORT_QOS_MAP"].get("Ethernet24").is_none());
    assert_eq!(split["PORT"]["Ethernet28"], before["PORT"]["Ethernet28"]);
    let state = switch.read().await.unwrap().state;
    assert!(switch.plan(&state, &desired).changes.iter().all(|c| c.object().kind() != Kind::Breakout));

    switch.roll_back(&pending).await.unwrap();
    assert_eq!(rows.config(), before);

    let pending = switch.apply(&stage, OPTIONS).await.unwrap();
    switch.confirm(&pending).await.unwrap();
    switch.roll_back(&pending).await.unwrap();
    let whole = rows.config();
    assert_eq!(whole["BREAKOUT_CFG"]["Ethernet24"]["brkout_mode"], "1x100G");
    for field in ["lanes", "alias", "speed", "index"] {
        assert_eq!(whole["PORT"]["Ethernet24"][field], before["PORT"]["Ethernet24"][field], "{field}");
    }
    assert!(whole["PORT"].get("Ethernet25").is_none());
}
