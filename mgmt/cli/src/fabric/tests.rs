//! The commands against switches in memory.

use super::apply::{Report, may_begin};
use super::outcome::{Ending, Outcome};
use super::plan::Planned;
use super::{check, show};
use basalt_switch_api::engine::{Engine, Options};
use basalt_switch_api::fake::Fake;
use basalt_switch_api::intent::Fabric;
use basalt_switch_api::state::{Key, Owner};
use basalt_switch_api::{DeviceName, Switch, Transaction};
use std::sync::Arc;

const FABRIC: &str = "
version: 1
name: t
vlans: [{name: storage, id: 100}]
switches:
  - {name: leaf-1, role: leaf, driver: ovs, management: {address: 'unix:/x'}}
  - {name: leaf-2, role: leaf, driver: ovs, management: {address: 'unix:/x'}}
nodes: [{name: node-1}]
links:
  - {ends: [node-1/p0, leaf-1/Ethernet0], vlans: {untagged: storage}}
  - {ends: [node-1/p1, leaf-2/Ethernet12], vlans: {untagged: storage}}
";

fn rack() -> (Engine, [Fake; 2]) {
    let fabric = Fabric::from_yaml(FABRIC).unwrap();
    let fakes = ["leaf-1", "leaf-2"].map(|name| Fake::cabled(&fabric, name, Transaction::CommitTimer, 4));
    let switches = fakes.iter().map(|fake| Arc::new(fake.clone()) as Arc<dyn Switch>);
    (Engine::new(fabric, switches.collect::<Vec<_>>(), Options::default()), fakes)
}

fn ending(result: Result<(), Outcome>) -> Option<Ending> {
    result.err().map(|outcome| outcome.ending)
}

#[tokio::test(start_paused = true)]
async fn a_rack_is_planned_applied_and_found_as_wanted() {
    let (engine, _) = rack();
    let planned = Planned::ask(&engine).await;
    assert_eq!(ending(planned.outcome()), Some(Ending::Differs));
    let text = planned.text();
    assert!(text.contains("leaf-1:\n  ~ port Ethernet0: ") && text.contains("+ VLAN 100"), "{text}");
    assert!(text.ends_with("order: leaf-1, then leaf-2\n"), "both lead to node-1: {text}");
    let diff = planned.side_by_side();
    assert!(diff.contains("@@ port Ethernet0 @@\n-description \"\"\n+description "), "{diff}");
    assert!(may_begin(&planned, false).is_ok());
    assert_eq!(
        may_begin(&planned, true).map_err(ending),
        Err(Some(Ending::Differs)),
        "a dry run begins nothing"
    );

    let report = Report::new(engine.apply(&planned.plans).await);
    assert!(report.outcome().is_ok());
    assert!(report.text().contains("changes in force"), "{}", report.text());
    let planned = Planned::ask(&engine).await;
    assert!(planned.outcome().is_ok());
    assert_eq!(planned.text(), "leaf-1: as wanted\nleaf-2: as wanted\n");
    assert_eq!(may_begin(&planned, false).map_err(ending), Err(None));
}

#[tokio::test(start_paused = true)]
async fn check_says_which_port_and_what_was_wanted() {
    let (engine, [_, two]) = rack();
    engine.apply(&Planned::ask(&engine).await.plans).await;
    assert_eq!(check::text(&engine.check().await), "as wanted\n");
    {
        let mut inner = two.inner();
        let mut port = inner.observed.state.port(&"Ethernet12".into()).unwrap().clone();
        port.mtu_bytes = Some(1500);
        inner.observed.state.insert_owned(port, Owner::Ours);
    }
    let findings = engine.check().await;
    assert_eq!(check::text(&findings), "port Ethernet12 on leaf-2: MTU 1500, wanted 9100\n");
    assert_eq!(ending(Outcome::of_findings(&findings)), Some(Ending::Differs));
    two.inner().dead = true;
    assert_eq!(ending(Outcome::of_findings(&engine.check().await)), Some(Ending::NoAnswer));
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_a_switch_is_silent_or_in_other_hands() {
    let (engine, [one, two]) = rack();
    two.inner().dead = true;
    let planned = Planned::ask(&engine).await;
    let Err(Err(outcome)) = may_begin(&planned, false) else { panic!("begun") };
    assert_eq!(outcome.ending, Ending::NoAnswer);
    assert!(outcome.to_string().contains("nothing was changed") && outcome.to_string().contains("--only"));
    assert!(planned.text().contains("leaf-2:\n  ! no connection"), "{}", planned.text());
    two.inner().dead = false;
    let mut port = one.inner().observed.state.port(&"Ethernet0".into()).unwrap().clone();
    port.description = "uplink".into();
    one.inner().observed.state.insert_owned(port, Owner::Foreign);
    let planned = Planned::ask(&engine).await;
    assert_eq!(may_begin(&planned, false).map_err(ending), Err(Some(Ending::Refused)));
}

#[tokio::test(start_paused = true)]
async fn a_change_taken_back_has_an_ending_of_its_own() {
    let (engine, [one, _]) = rack();
    one.inner().path_hangs_on = Some(Key::port(&"Ethernet0".into()));
    let report = Report::new(engine.apply(&Planned::ask(&engine).await.plans).await);
    assert_eq!(ending(report.outcome()), Some(Ending::Interrupted));
    assert!(report.text().contains("rolled back"), "{}", report.text());
}

#[tokio::test(start_paused = true)]
async fn a_saved_plan_is_the_same_plan() {
    let (engine, _) = rack();
    let planned = Planned::ask(&engine).await;
    let path = std::env::temp_dir().join(format!("basalt-fabric-plan-{}.json", std::process::id()));
    std::fs::write(&path, serde_json::to_string(&planned).unwrap()).unwrap();
    let few = engine.only(&["leaf-2".into()]);
    let loaded = Planned::load(&path, &few).unwrap();
    assert_eq!(loaded.plans.len(), 1, "--only holds for a saved plan as well");
    assert_eq!(Planned::load(&path, &engine).unwrap().plans, planned.plans);
    std::fs::write(&path, "{}").unwrap();
    assert!(Planned::load(&path, &engine).unwrap_err().to_string().contains("plan --save"));
    std::fs::remove_file(&path).unwrap();
}

#[tokio::test(start_paused = true)]
async fn show_has_a_line_per_port() {
    let (engine, _) = rack();
    engine.apply(&Planned::ask(&engine).await.plans).await;
    let shown = engine.show().await;
    let one = DeviceName::from("leaf-1");
    let text = show::shown_text(&one, shown[&one].as_ref().unwrap());
    let line = text.lines().find(|line| line.starts_with("Ethernet0 ")).unwrap();
    assert!(line.contains("9100") && line.contains(" 100 ") && line.contains("node-1/p0"), "{text}");
}
