//! What the SONiC driver makes of CONFIG_DB against SONiC's own models, which the switch itself asks before it takes a Set ("yang
//! validation" of its generic updater), and the same models against rows that are broken on purpose.
//!
//! CONFIG_DB has strings alone; the models have numbers. XML knows no difference between the two, so rows are validated as XML.

mod sonic_support;
#[path = "support/yang.rs"]
mod yang;

use basalt_switch_api::desired::Desired;
use basalt_switch_api::intent::{DriverKind, Fabric};
use basalt_switch_api::{Switch, drivers};
use serde_json::{Value, json};
use sonic_support::gnmi_server::GnmiServer;
use sonic_support::redis_server::RedisServer;
use sonic_support::{OPTIONS, Rows, connection, factory, planned, rack, wanted};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use yang::Yang;

/// How rows of a table are written in its model.
enum Shape {
    /// List and key leaves, by the number of parts of the row's key.
    Lists(&'static [(&'static str, &'static [&'static str])]),
    /// A row is a list of its own: key and value leaf of an entry.
    Map(&'static str, &'static str),
    /// One row, under its key.
    One,
}

use Shape::{Lists, Map, One};

/// Table, model, shape: every table that the driver writes, and those that its rows refer to.
const MODELS: [(&str, &str, Shape); 23] = [
    ("BREAKOUT_CFG", "sonic-breakout_cfg", Lists(&[("BREAKOUT_CFG_LIST", &["port"])])),
    ("CABLE_LENGTH", "sonic-cable-length", Map("port", "length")),
    ("DEVICE_METADATA", "sonic-device_metadata", One),
    ("DSCP_TO_TC_MAP", "sonic-dscp-tc-map", Map("dscp", "tc")),
    (
        "INTERFACE",
        "sonic-interface",
        Lists(&[("INTERFACE_LIST", &["name"]), ("INTERFACE_IPPREFIX_LIST", &["name", "ip-prefix"])]),
    ),
    (
        "LOOPBACK_INTERFACE",
        "sonic-loopback-interface",
        Lists(&[
            ("LOOPBACK_INTERFACE_LIST", &["name"]),
            ("LOOPBACK_INTERFACE_IPPREFIX_LIST", &["name", "ip-prefix"]),
        ]),
    ),
    ("MAP_PFC_PRIORITY_TO_QUEUE", "sonic-pfc-priority-queue-map", Map("pfc_priority", "qindex")),
    ("MCLAG_DOMAIN", "sonic-mclag", Lists(&[("MCLAG_DOMAIN_LIST", &["domain_id"])])),
    (
        "MCLAG_INTERFACE",
        "sonic-mclag",
        Lists(&[("", &[]), ("MCLAG_INTERFACE_LIST", &["domain_id", "if_name"])]),
    ),
    ("PFC_WD", "sonic-pfcwd", Lists(&[("PFC_WD_LIST", &["ifname"])])),
    ("PORT", "sonic-port", Lists(&[("PORT_LIST", &["name"])])),
    ("PORTCHANNEL", "sonic-portchannel", Lists(&[("PORTCHANNEL_LIST", &["name"])])),
    (
        "PORTCHANNEL_INTERFACE",
        "sonic-portchannel",
        Lists(&[
            ("PORTCHANNEL_INTERFACE_LIST", &["name"]),
            ("PORTCHANNEL_INTERFACE_IPPREFIX_LIST", &["name", "ip_prefix"]),
        ]),
    ),
    (
        "PORTCHANNEL_MEMBER",
        "sonic-portchannel",
        Lists(&[("", &[]), ("PORTCHANNEL_MEMBER_LIST", &["name", "port"])]),
    ),
    ("PORT_QOS_MAP", "sonic-port-qos-map", Lists(&[("PORT_QOS_MAP_LIST", &["ifname"])])),
    ("QUEUE", "sonic-queue", Lists(&[("", &[]), ("QUEUE_LIST", &["ifname", "qindex"])])),
    ("SCHEDULER", "sonic-scheduler", Lists(&[("SCHEDULER_LIST", &["name"])])),
    ("TC_TO_PRIORITY_GROUP_MAP", "sonic-tc-priority-group-map", Map("tc", "pg")),
    ("TC_TO_QUEUE_MAP", "sonic-tc-queue-map", Map("tc", "qindex")),
    ("VLAN", "sonic-vlan", Lists(&[("VLAN_LIST", &["name"])])),
    (
        "VLAN_INTERFACE",
        "sonic-vlan",
        Lists(&[
            ("VLAN_INTERFACE_LIST", &["name"]),
            ("VLAN_INTERFACE_IPPREFIX_LIST", &["name", "ip-prefix"]),
        ]),
    ),
    ("VLAN_MEMBER", "sonic-vlan", Lists(&[("", &[]), ("VLAN_MEMBER_LIST", &["name", "port"])])),
    ("WRED_PROFILE", "sonic-wred-profile", Lists(&[("WRED_PROFILE_LIST", &["name"])])),
];

/// Of others; the driver at most deletes rows in them.
const NOT_OURS: [&str; 3] = ["BUFFER_PG", "FEATURE", "VERSIONS"];

/// Free text by the models: nothing to break but its length.
const FREE: [(&str, &str); 6] = [
    ("VLAN", "description"),
    ("BREAKOUT_CFG", "brkout_mode"),
    ("PORT", "alias"),
    ("PORT", "description"),
    ("PORT", "lanes"),
    ("PORTCHANNEL", "description"),
];

/// "Placeholder field to create instance": any text of any length.
const ANYTHING: (&str, &str) = ("MCLAG_INTERFACE", "if_type");

fn open(test: &str) -> Option<Yang> {
    // Some conditions speak of modules that none of these imports.
    let mut modules = vec!["sonic-device_metadata", "sonic-mirror-session", "sonic-static-anycast-gateway"];
    for (_, module, _) in &MODELS {
        if !modules.contains(module) {
            modules.push(module);
        }
    }
    Yang::open(test, "sonic", &modules, &["-t", "config"])
}

fn xml(config: &Value) -> String {
    // Several tables may be of one model, whose container may stand but once.
    let mut models: BTreeMap<&str, String> = BTreeMap::new();
    for (table, rows) in config.as_object().unwrap() {
        if NOT_OURS.contains(&table.as_str()) {
            continue;
        }
        let Some((_, module, shape)) = MODELS.iter().find(|(name, ..)| name == table) else {
            panic!("the driver writes {table}, and no model of it is named here");
        };
        let text = models.entry(module).or_default();
        *text += &format!("<{table}>");
        for (key, row) in rows.as_object().unwrap() {
            let fields = row.as_object().unwrap().iter().map(|(name, value)| (name, value.as_str().unwrap()));
            *text += &match shape {
                One => element(key, &fields.map(|(name, value)| leaf(name, value)).collect::<String>()),
                Map(entry, value_leaf) => {
                    let entries = fields
                        .map(|(name, value)| element(table, &(leaf(entry, name) + &leaf(value_leaf, value))));
                    element(&format!("{table}_LIST"), &(leaf("name", key) + &entries.collect::<String>()))
                }
                Lists(lists) => {
                    let parts: Vec<&str> = key.split('|').collect();
                    let Some((list, leaves)) =
                        lists.get(parts.len() - 1).filter(|(list, _)| !list.is_empty())
                    else {
                        panic!("{table}|{key}: the model has no such key");
                    };
                    let keys = leaves.iter().zip(parts).map(|(name, part)| leaf(name, part));
                    let fields = fields.map(|(name, value)| leaf(name, value));
                    element(list, &keys.chain(fields).collect::<String>())
                }
            };
        }
        *text += &format!("</{table}>\n");
    }
    let whole = |(module, inner): (&&str, &String)| {
        format!("<{module} xmlns=\"http://github.com/sonic-net/{module}\">{inner}</{module}>\n")
    };
    models.iter().map(whole).collect()
}

fn element(name: &str, inner: &str) -> String {
    format!("<{name}>{inner}</{name}>")
}

fn leaf(name: &str, value: &str) -> String {
    element(name, &value.replace('&', "&amp;").replace('<', "&lt;"))
}

fn must_be_valid(yang: &Yang, what: &str, config: &Value) {
    yang.check("xml", &xml(config)).unwrap_or_else(|e| panic!("{what}: {e}"));
}

/// Everything that is ever in force on the way to what is wanted, back, there again, and to nothing of ours.
async fn whole_life(yang: &Yang, server: &GnmiServer, fabric: &Fabric, name: &str) {
    server.load(&factory());
    must_be_valid(yang, "as it comes", &server.config());
    let settings = connection(DriverKind::SonicGnmi, name, "127.0.0.1", server.port);
    let switch = drivers::connect(settings).unwrap();
    let desired = wanted(fabric, name);
    server.state().history.clear();
    apply_all(&*switch, &desired).await;
    let plan = planned(&*switch, &Desired { state: Default::default(), ..desired.clone() }).await;
    let pending = switch.apply(&plan, OPTIONS).await.unwrap();
    switch.roll_back(&pending).await.unwrap();
    switch.apply(&plan, OPTIONS).await.unwrap();
    let history = std::mem::take(&mut server.state().history);
    assert!(history.len() >= 4, "{} Sets", history.len());
    for (i, config) in history.iter().enumerate() {
        must_be_valid(yang, &format!("{name}, after Set {}", i + 1), config);
    }
}

/// Breakouts first, as the engine does it.
async fn apply_all(switch: &dyn Switch, desired: &Desired) {
    for _ in 0..2 {
        let plan = planned(switch, desired).await.first_stage();
        assert!(plan.refusals.is_empty(), "{plan}");
        let pending = switch.apply(&plan, OPTIONS).await.unwrap();
        switch.roll_back(&pending).await.unwrap();
        let pending = switch.apply(&plan, OPTIONS).await.unwrap();
        switch.confirm(&pending).await.unwrap();
    }
    let left = planned(switch, desired).await;
    assert!(left.is_empty(), "{left}");
}

/// With a breakout on top.
fn split() -> Fabric {
    let mut fabric = rack();
    let split = basalt_switch_api::intent::Breakout { port: "Ethernet24".into(), lanes: 4, speed_gbps: 25 };
    fabric.switches[0].breakout.push(split);
    fabric
}

#[tokio::test]
async fn everything_written_is_valid_by_sonics_models() {
    let Some(yang) = open("everything_written_is_valid_by_sonics_models") else { return };
    let server = GnmiServer::start(None).await;
    for name in ["leaf-1", "leaf-2", "spine-1"] {
        whole_life(&yang, &server, &rack(), name).await;
    }
    whole_life(&yang, &server, &split(), "leaf-1").await;

    // And the rows as Redis has them.
    let redis = RedisServer::start("yang");
    let settings = connection(DriverKind::SonicRedis, "leaf-1", &redis.address(), 0);
    let switch: Arc<dyn Switch> = drivers::connect(settings).unwrap();
    apply_all(&*switch, &wanted(&rack(), "leaf-1")).await;
    must_be_valid(&yang, "leaf-1 by Redis", &redis.config());
}

/// One row of each table, each field of it and its key, made wrong: the models find every one.
#[tokio::test]
async fn what_is_broken_on_purpose_is_refused() {
    let Some(yang) = open("what_is_broken_on_purpose_is_refused") else { return };
    let server = GnmiServer::start(None).await;
    let mut broken = BTreeSet::new();
    for (fabric, name) in [(rack(), "leaf-1"), (rack(), "spine-1"), (split(), "leaf-1")] {
        server.load(&factory());
        let settings = connection(DriverKind::SonicGnmi, name, "127.0.0.1", server.port);
        let switch = drivers::connect(settings).unwrap();
        apply_all(&*switch, &wanted(&fabric, name)).await;
        let good = server.config();
        must_be_valid(&yang, name, &good);
        let before = factory();
        for (table, rows) in good.as_object().unwrap() {
            if NOT_OURS.contains(&table.as_str()) {
                continue;
            }
            // Rows that the driver wrote or changed.
            let ours = rows.as_object().unwrap().iter().filter(|(key, row)| before[table][*key] != **row);
            for (key, row) in ours {
                let mut breaks = vec![("no_such_field".to_owned(), json!("1"))];
                breaks.extend(row.as_object().unwrap().keys().map(|field| (field.clone(), json!("~"))));
                for (field, value) in breaks {
                    let value = if FREE.contains(&(table, &field)) { json!("x".repeat(300)) } else { value };
                    if ANYTHING == (table, &field) || !broken.insert((table.clone(), field.clone())) {
                        continue;
                    }
                    let mut bad = good.clone();
                    bad[table][key][&field] = value;
                    let refused = yang.check("xml", &xml(&bad)).is_err();
                    assert!(refused, "{table}|{key}: a wrong {field} was let through");
                }
                if broken.insert((table.clone(), "|key".to_owned())) {
                    let mut bad = good.clone();
                    let rows = bad[table].as_object_mut().unwrap();
                    let row = rows.remove(key).unwrap();
                    let parts = key.split('|').count();
                    rows.insert(vec!["~".repeat(300); parts].join("|"), row);
                    assert!(yang.check("xml", &xml(&bad)).is_err(), "{table}: a wrong key was let through");
                }
            }
        }
    }
    let tables: BTreeSet<&str> = broken.iter().map(|(table, _)| table.as_str()).collect();
    let never = ["CABLE_LENGTH", "DEVICE_METADATA", "PORTCHANNEL_INTERFACE"];
    let missing: Vec<_> =
        MODELS.iter().map(|(t, ..)| *t).filter(|t| !tables.contains(t) && !never.contains(t)).collect();
    assert!(missing.is_empty(), "no row of {missing:?} was written, so none was broken");
    println!("{} ways to break {} tables, all refused", broken.len(), tables.len());
}
