//! Records on disk: what changed is seen, trends grow, damage is said.

use basalt_inventory::record::{Drive, Record, Smart, Source};
use basalt_inventory::store::RecordStore;

#[test]
fn changes_and_trends_are_kept() {
    let dir = std::env::temp_dir().join(format!("basalt-records-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let store = RecordStore::open(&dir).unwrap();
    let record = |day: u64, firmware: &str| Record {
        taken_s: 1_700_000_000 + day * 86_400,
        sources: vec![Source::Bmc, Source::Node],
        drives: vec![Drive {
            serial: "D1".into(),
            firmware: firmware.into(),
            smart: Some(Smart { used_percent: day as u32, spare_percent: 100, ..Smart::default() }),
            ..Drive::default()
        }],
        ..Record::default()
    };
    assert_eq!(store.keep("n1", &record(0, "1")).unwrap().len(), 0, "the first is no change");
    for day in 1..20 {
        assert_eq!(store.keep("n1", &record(day, "1")).unwrap().len(), 0);
    }
    let changes = store.keep("n1", &record(20, "2")).unwrap();
    assert_eq!(changes[0].to_string(), "drive D1: firmware was 1, is 2");
    let history = store.history("n1").unwrap();
    assert_eq!(history.changes.len(), 1);
    let days = history.trends["D1"].forecast(10).worn_out_in_days.unwrap();
    assert!((78..=82).contains(&days), "{days}");
    assert_eq!(store.latest("n1").unwrap().unwrap(), record(20, "2"));
    assert!(store.latest("n2").unwrap().is_none());
    for bad in ["", "../n1", ".n", "a/b"] {
        assert!(store.latest(bad).is_err(), "{bad:?}");
    }
    std::fs::write(dir.join("n1.record.json"), b"{").unwrap();
    assert!(store.latest("n1").unwrap_err().to_string().contains("inspect the node again"));
    store.forget("n1").unwrap();
    assert!(store.latest("n1").unwrap().is_none());
    std::fs::remove_dir_all(&dir).unwrap();
}
