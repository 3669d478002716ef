//! What Open vSwitch's database may answer besides what was asked for: each gives one clear cause. The exchanges are RFC 7047's.

use basalt_switch_api::connection::{Connection, Limits};
use basalt_switch_api::intent::DriverKind;
use basalt_switch_api::plan::{Change, Plan};
use basalt_switch_api::retry::RetryPolicy;
use basalt_switch_api::state::{Mark, Vlan};
use basalt_switch_api::tls::Trust;
use basalt_switch_api::{ApplyOptions, Cause, Switch, VlanId, drivers};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Answers of a server: the request in, the bytes out; none closes the connection.
type Answer = fn(&Value) -> Option<String>;

async fn switch(answer: Answer, trust: Trust) -> Arc<dyn Switch> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, answer));
        }
    });
    let limits =
        Limits { connect: Duration::from_secs(2), request: Duration::from_millis(500), body_bytes: 1 << 16 };
    let connection = Connection {
        switch: "s1".into(),
        kind: DriverKind::Ovs,
        address: "127.0.0.1".to_owned(),
        port,
        user: "basalt".to_owned(),
        secret: Default::default(),
        trust,
        identity: None,
        limits,
        retry: RetryPolicy::ONCE,
        mark: Mark::new("a"),
    };
    drivers::connect(connection).unwrap()
}

async fn serve(mut stream: TcpStream, answer: Answer) {
    let mut received = Vec::new();
    while stream.read_buf(&mut received).await.is_ok_and(|n| n > 0) {
        // An answer to our echo and the next request may come in one piece.
        let mut messages = serde_json::Deserializer::from_slice(&received).into_iter::<Value>();
        let mut answers = Vec::new();
        let mut taken = 0;
        while let Some(Ok(request)) = messages.next() {
            taken = messages.byte_offset();
            answers.push(answer(&request));
        }
        received.drain(..taken);
        for text in answers {
            match text {
                Some(text) if stream.write_all(text.as_bytes()).await.is_ok() => {}
                _ => return,
            }
        }
    }
}

fn reply(request: &Value, result: Value) -> Option<String> {
    Some(json!({"id": request["id"], "result": result, "error": null}).to_string())
}

/// A switch with one bridge and no ports, without companion.
fn healthy(request: &Value) -> Option<String> {
    let uuid = |n: u8| json!(["uuid", format!("00000000-0000-0000-0000-00000000000{n}")]);
    match request["method"].as_str()? {
        "lock" => reply(request, json!({"locked": true})),
        "unlock" => reply(request, json!({})),
        "get_schema" => reply(request, json!({"version": "8.3.1"})),
        _ => {
            let results = request["params"].as_array()?.iter().skip(1).map(|operation| {
                let rows = match (operation["op"].as_str(), operation["table"].as_str()) {
                    (Some("select"), Some("Open_vSwitch")) => {
                        json!([{"_uuid": uuid(1), "next_cfg": 3, "cur_cfg": 3, "external_ids": ["map", [["hostname", "s1"]]]}])
                    }
                    (Some("select"), Some("Bridge")) => {
                        json!([{"_uuid": uuid(2), "name": "br0", "datapath_type": "netdev", "ports": ["set", []], "external_ids": ["map", []]}])
                    }
                    _ => json!([]),
                };
                json!({"rows": rows})
            });
            let results: Vec<Value> = results.collect();
            reply(request, json!(results))
        }
    }
}

async fn read_fails(answer: Answer) -> Cause {
    switch(answer, Trust::Plaintext).await.read().await.unwrap_err().cause
}

#[tokio::test]
async fn the_server_may_ask_whether_we_live_and_say_what_nobody_asked() {
    let answer: Answer = |request| {
        let chatter = json!({"method": "update", "params": [], "id": null}).to_string();
        let echo = json!({"method": "echo", "params": ["are you there"], "id": "echo"}).to_string();
        match request.get("method") {
            // Our answer to its echo needs none.
            None => Some(String::new()),
            Some(_) => Some(chatter + &healthy(request)? + &echo),
        }
    };
    let switch = switch(answer, Trust::Plaintext).await;
    let identity = switch.discover().await.unwrap();
    assert_eq!((identity.model.as_str(), identity.host_name.as_str()), ("br0 (userspace datapath)", "s1"));
}

#[tokio::test]
async fn each_failure_has_its_own_cause() {
    assert!(matches!(read_fails(|_| None).await, Cause::PartialReply { got_bytes: 0, .. }));
    let cut: Answer = |request| healthy(request).map(|text| text[..20].to_owned());
    assert!(matches!(read_fails(cut).await, Cause::TimedOut { .. }));
    assert!(matches!(read_fails(|_| Some("SSH-2.0-OpenSSH_9.2\r\n".into())).await, Cause::BadReply { .. }));
    assert!(matches!(
        read_fails(|_| Some(format!("{{\"a\":\"{}", "x".repeat(1 << 17)))).await,
        Cause::ReplyTooLarge { .. }
    ));
    let no_database: Answer = |request| match request["method"].as_str()? {
        "transact" => {
            Some(json!({"id": request["id"], "result": null, "error": "unknown database"}).to_string())
        }
        _ => healthy(request),
    };
    assert!(matches!(read_fails(no_database).await, Cause::VersionMismatch { .. }));

    let old: Answer = |request| match request["method"].as_str()? {
        "get_schema" => reply(request, json!({"version": "7.3.0"})),
        _ => healthy(request),
    };
    let error = switch(old, Trust::Plaintext).await.discover().await.unwrap_err();
    assert!(error.to_string().contains("7.3.0") && error.to_string().contains("7.14"), "{error}");

    let not_tls = switch(|_| None, Trust::Insecure).await.read().await.unwrap_err();
    assert!(
        matches!(not_tls.cause, Cause::Tls { .. } | Cause::TimedOut { .. } | Cause::Unreachable { .. }),
        "{not_tls}"
    );
}

#[tokio::test]
async fn a_refused_transaction_says_what_was_refused() {
    fn failing(request: &Value, word: &str) -> Option<String> {
        let operations = request["params"].as_array()?;
        if operations.iter().all(|operation| operation["op"] != "mutate") {
            return healthy(request);
        }
        reply(request, json!([{"error": word, "details": "because"}]))
    }
    let vlan = Vlan { id: VlanId(100), name: "basalt_a_storage".to_owned() };
    let plan = Plan {
        switch: "s1".into(),
        changes: vec![Change::Create { after: vlan.into() }],
        refusals: Vec::new(),
        notes: Vec::new(),
    };
    let options = ApplyOptions { hold: Duration::from_secs(1) };
    type IsRight = fn(&Cause) -> bool;
    let refused: [(Answer, IsRight); 3] = [
        (|r| failing(r, "timed out"), |c| matches!(c, Cause::Conflict { .. })),
        (|r| failing(r, "permission error"), |c| matches!(c, Cause::Forbidden { .. })),
        (
            |r| failing(r, "constraint violation"),
            |c| matches!(c, Cause::Rejected { reason, .. } if reason.contains("because")),
        ),
    ];
    for (answer, right) in refused {
        let error = switch(answer, Trust::Plaintext).await.apply(&plan, options).await.unwrap_err();
        assert!(right(&error.cause), "{error}");
    }
}
