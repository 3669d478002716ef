//! The stores survive a crash at any byte, and several processes at once; tokens are good once.

use basalt_boot::BootError;
use basalt_boot::decision::{Action, Decision, Decisions};
use basalt_boot::event::{Event, Events, Step, nodes};
use basalt_boot::node::NodeId;
use basalt_boot::store::FileStore;
use basalt_boot::token::{Tokens, Use};
use std::path::PathBuf;

struct Dir(PathBuf);
impl Dir {
    fn new(name: &str) -> Dir {
        let path = std::env::temp_dir().join(format!("basalt-boot-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Dir(path)
    }
    fn store(&self) -> FileStore {
        FileStore::open(&self.0).unwrap()
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn node(text: &str) -> NodeId {
    text.parse().unwrap()
}
fn both(mac: &str, uuid: &str) -> NodeId {
    node(mac).with(&node(uuid))
}
const MAC: &str = "52:54:00:00:00:01";
const OTHER: &str = "52:54:00:00:00:02";
const UUID: &str = "00000000-0000-0000-0000-000000000001";

fn decision(node: NodeId, action: Action) -> Decision {
    Decision { node, action, version: None, disk: None, wipe: false, note: String::new(), decided_s: 7 }
}

/// What an installation may do holds once: whoever opens the store afterwards finds `local`, with the same version.
#[tokio::test]
async fn an_installation_that_is_done_is_not_decided_any_more() {
    let dir = Dir::new("installed");
    let store = dir.store();
    let install = Decision {
        version: Some("1.2.3".into()),
        disk: Some("S1".into()),
        wipe: true,
        note: "rack 4".into(),
        ..decision(both(MAC, UUID), Action::Install)
    };
    store.decide(install.clone()).await.unwrap();
    store.decide(decision(node(OTHER), Action::Diskless)).await.unwrap();
    assert_eq!(store.installed(&node(OTHER), 9).await.unwrap(), 0, "it was not to install");
    assert_eq!(dir.store().for_node(&node(MAC)).await.unwrap(), Some(install.clone()));
    assert_eq!(store.installed(&node(UUID), 9).await.unwrap(), 1);
    let after = dir.store().for_node(&node(MAC)).await.unwrap().unwrap();
    let wanted = Decision { action: Action::Local, disk: None, wipe: false, decided_s: 9, ..install.clone() };
    assert_eq!(after, wanted);
    assert_eq!(store.installed(&node(MAC), 10).await.unwrap(), 0, "told twice");
    // Another port of the same node, decided with the first: what it may do is over as well.
    store
        .decide(Decision { node: node("52:54:00:00:00:03"), decided_s: 7, ..install.clone() })
        .await
        .unwrap();
    let other_port = both("52:54:00:00:00:03", UUID);
    assert_eq!(dir.store().for_node(&other_port).await.unwrap().unwrap().action, Action::Local);
    let told: Vec<String> = store.recent(None, 10).await.unwrap().into_iter().map(|e| e.detail).collect();
    assert_eq!(
        told,
        [
            "install 1.2.3 on S1 wiping it",
            "diskless",
            "local 1.2.3, since it has installed",
            "install 1.2.3 on S1 wiping it"
        ]
    );
}

#[tokio::test]
async fn decisions_are_kept_one_per_node() {
    let dir = Dir::new("decisions");
    let store = dir.store();
    store.decide(decision(node(MAC), Action::Install)).await.unwrap();
    store.decide(decision(both(MAC, UUID), Action::Local)).await.unwrap();
    store.decide(decision(node(OTHER), Action::Quarantine)).await.unwrap();
    let again = dir.store();
    assert_eq!(Decisions::all(&again).await.unwrap().len(), 2);
    for who in [node(MAC), node(UUID), both(MAC, UUID)] {
        assert_eq!(again.for_node(&who).await.unwrap().unwrap().action, Action::Local);
    }
    assert!(again.forget(&node(UUID)).await.unwrap());
    assert!(!again.forget(&node(UUID)).await.unwrap());
    assert_eq!(store.for_node(&node(MAC)).await.unwrap(), None);
}

#[tokio::test]
async fn what_a_crash_leaves_beside_the_file_does_no_harm() {
    let dir = Dir::new("leftover");
    let store = dir.store();
    store.decide(decision(node(MAC), Action::Install)).await.unwrap();
    for torn in ["", "{", "{\"format\":1,\"rows\":[{\"mac\""] {
        std::fs::write(dir.0.join("decisions.json.new"), torn).unwrap();
        assert_eq!(Decisions::all(&store).await.unwrap().len(), 1);
    }
    store.decide(decision(node(OTHER), Action::Install)).await.unwrap();
    assert_eq!(Decisions::all(&store).await.unwrap().len(), 2);
    // The file itself is never half there; if something else damages it, the message says what to do.
    std::fs::write(dir.0.join("decisions.json"), "{").unwrap();
    let error = Decisions::all(&store).await.unwrap_err().to_string();
    assert!(error.contains("decisions.json is damaged") && error.contains("move it away"), "{error}");
    let newer = r#"{"format":2,"rows":[]}"#;
    std::fs::write(dir.0.join("decisions.json"), newer).unwrap();
    assert!(store.decide(decision(node(MAC), Action::Local)).await.is_err());
    assert_eq!(std::fs::read_to_string(dir.0.join("decisions.json")).unwrap(), newer, "left as it was");
}

#[tokio::test]
async fn an_event_log_cut_at_any_byte_gives_what_was_whole() {
    let dir = Dir::new("events");
    let store = dir.store();
    for i in 0..4 {
        store.record(Event::new(i, node(MAC), Step::Asked, "ä detail")).await.unwrap();
    }
    let path = dir.0.join("events.log");
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let lines = whole[..cut].iter().filter(|b| **b == b'\n').count();
        let before = store.recent(None, 100).await.unwrap();
        // A last line that lacks only its line feed is whole.
        assert!(before.len() == lines || before.len() == lines + 1, "{cut}");
        if cut % 5 == 0 {
            store.record(Event::new(99, node(MAC), Step::Ready, "")).await.unwrap();
            let after = store.recent(None, 100).await.unwrap();
            assert_eq!((after.len(), after.last().unwrap().at_s), (before.len() + 1, 99), "{cut}");
        }
    }
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    std::fs::write(&path, &flipped).unwrap();
    assert_eq!(store.recent(None, 100).await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_event_log_is_bounded() {
    let dir = Dir::new("bounded");
    let store = dir.store();
    let line = std::fs::read(dir.0.join("events.log")).map_or(0, |b| b.len());
    assert_eq!(line, 0);
    // A file that is nearly full is what a long life leaves.
    store.record(Event::new(1, node(MAC), Step::Asked, "")).await.unwrap();
    let one = std::fs::read(dir.0.join("events.log")).unwrap();
    let full = one.repeat((1 << 20) / one.len());
    for round in 0..6 {
        std::fs::write(dir.0.join("events.log"), &full).unwrap();
        for _ in 0..3 {
            store.record(Event::new(round, node(MAC), Step::Ready, &"x".repeat(1000))).await.unwrap();
        }
    }
    let total: u64 = std::fs::read_dir(&dir.0).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(total < 5 << 20, "{total}");
    let newest = store.recent(None, 1).await.unwrap();
    assert_eq!((newest[0].at_s, newest[0].detail.len()), (5, 256));
}

#[tokio::test]
async fn a_token_is_good_for_one_node_one_boot_and_one_join() {
    let dir = Dir::new("tokens");
    let store = dir.store();
    let (text, token) = store.make(None, 100, 50).await.unwrap();
    let on_disk = std::fs::read_to_string(dir.0.join("tokens.json")).unwrap();
    assert!(!on_disk.contains(text.rsplit('.').next().unwrap()), "the secret is not kept");
    let why = |e: BootError| e.to_string();
    let me = both(MAC, UUID);
    // Joining first would be as good; wrong secrets, strangers and nobody are not.
    let wrong = format!("bst1.{}.{}", token.id, "0".repeat(32));
    assert!(why(store.redeem(&wrong, Use::Boot, &me, 101).await.unwrap_err()).contains("secret is wrong"));
    assert!(why(store.redeem("bst1.x.y", Use::Boot, &me, 101).await.unwrap_err()).contains("nobody made it"));
    assert!(why(store.redeem("hello", Use::Boot, &me, 101).await.unwrap_err()).contains("not of the form"));
    assert!(
        why(store.redeem(&text, Use::Boot, &NodeId::default(), 101).await.unwrap_err()).contains("who it is")
    );
    store.redeem(&text, Use::Boot, &me, 101).await.unwrap();
    assert!(
        why(store.redeem(&text, Use::Boot, &node(OTHER), 102).await.unwrap_err()).contains("another node")
    );
    // Power was cut: the same node boots again, known by one of its names.
    dir.store().redeem(&text, Use::Boot, &node(UUID), 110).await.unwrap();
    assert!(
        why(store.redeem(&text, Use::Join, &node(OTHER), 111).await.unwrap_err()).contains("another node")
    );
    store.redeem(&text, Use::Join, &node(MAC), 111).await.unwrap();
    for purpose in [Use::Boot, Use::Join] {
        assert!(why(store.redeem(&text, purpose, &me, 112).await.unwrap_err()).contains("joined already"));
    }
    let (late, _) = store.make(Some(me), 100, 50).await.unwrap();
    assert!(why(store.redeem(&late, Use::Boot, &me, 151).await.unwrap_err()).contains("expired"));
    let (gone, made) = store.make(None, 100, 50).await.unwrap();
    assert!(store.revoke(&made.id).await.unwrap());
    assert!(store.redeem(&gone, Use::Boot, &me, 101).await.is_err());
    // Expired ones make room.
    store.make(None, 1000, 50).await.unwrap();
    assert_eq!(Tokens::all(&store).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_many_that_join_with_one_token_one_wins() {
    let dir = Dir::new("race");
    let store = dir.store();
    let (text, _) = store.make(None, 0, 1000).await.unwrap();
    let racers: Vec<_> = (0..16)
        .map(|i| {
            // Each opens the files itself, as processes do.
            let (store, text) = (dir.store(), text.clone());
            tokio::spawn(async move {
                store.redeem(&text, Use::Join, &node(&format!("52:54:00:00:01:{i:02x}")), 1).await.is_ok()
            })
        })
        .collect();
    let mut winners = 0;
    for racer in racers {
        winners += usize::from(racer.await.unwrap());
    }
    assert_eq!(winners, 1);
}

#[test]
fn a_boot_that_hangs_is_seen_and_where() {
    let at = |at_s, who: NodeId, step| Event::new(at_s, who, step, "");
    let events = [
        at(0, node(MAC), Step::Asked),
        at(1, node(MAC), Step::Leased),
        at(2, both(MAC, UUID), Step::Fetching),
        at(60, node(UUID), Step::Fetched),
        at(60, node(OTHER), Step::Asked),
        at(61, node(OTHER), Step::Ready),
        at(62, node(OTHER), Step::TokenUsed),
        at(63, NodeId::default(), Step::Fetched),
    ];
    let soon = nodes(&events, 100);
    assert_eq!(soon.len(), 2);
    assert_eq!((soon[0].node, soon[0].step, soon[0].hung.clone()), (both(MAC, UUID), Step::Fetched, None));
    let late = nodes(&events, 500);
    let why = late[0].hung.as_deref().unwrap();
    assert!(why.contains("nothing for 440 s") && why.contains("Secure Boot"), "{why}");
    assert_eq!((late[1].step, late[1].hung.clone()), (Step::Ready, None));
}

#[test]
fn what_nodes_say_is_made_safe() {
    let event = Event::new(0, node(MAC), Step::Failed, &format!("a\u{1b}[31m\nb{}", "é".repeat(300)));
    assert!(
        event.detail.len() <= 256
            && !event.detail.contains(char::is_control)
            && event.detail.starts_with("a [31m b")
    );
}
