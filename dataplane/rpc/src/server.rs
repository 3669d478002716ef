//! Connections: cut the byte stream into JSON values, answer each in turn.

use crate::registry::{Registry, failure};
use crate::{MAX_MESSAGE_BYTES, RpcError, code};
use basalt_reactor::net::{Listener, Stream};
use basalt_reactor::spawn;
use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use std::rc::Rc;

const READ_BYTES: usize = 64 << 10;

/// Accepts and answers until the node drains.
pub async fn serve(listener: Listener, registry: Rc<Registry>) {
    while !basalt_reactor::draining() {
        match listener.accept().await {
            Ok(stream) => {
                let registry = registry.clone();
                spawn(async move {
                    if let Err(e) = connection(&stream, &registry).await {
                        tracing::debug!("JSON-RPC connection ended: {e}");
                    }
                });
            }
            Err(e) => {
                tracing::warn!("JSON-RPC socket: accept failed: {e}");
                basalt_reactor::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: &Stream, registry: &Registry) -> std::io::Result<()> {
    let mut input = BytesMut::with_capacity(READ_BYTES);
    loop {
        match next_value(&mut input) {
            Next::Value(message) => {
                if let Some(answer) = registry.answer(message).await {
                    send(stream, &answer).await?;
                }
            }
            Next::Malformed(why) => {
                // Where the next value would start cannot be known any more.
                let error = RpcError::new(code::PARSE, format!("the request is not JSON: {why}"));
                return send(stream, &failure(Value::Null, error)).await;
            }
            Next::Incomplete if input.len() > MAX_MESSAGE_BYTES => {
                let error = RpcError::new(
                    code::INVALID_REQUEST,
                    format!("a request may have {MAX_MESSAGE_BYTES} bytes at most"),
                );
                return send(stream, &failure(Value::Null, error)).await;
            }
            Next::Incomplete => {
                input.reserve(READ_BYTES);
                let (result, buffer) = stream.read(input).await;
                input = buffer;
                if result? == 0 {
                    return Ok(());
                }
            }
        }
    }
}

async fn send(stream: &Stream, answer: &Value) -> std::io::Result<()> {
    stream.write_all(vec![Bytes::from(answer.to_string())]).await
}

#[derive(Debug, PartialEq)]
enum Next {
    Value(Value),
    Incomplete,
    Malformed(String),
}

/// Takes one whole value off the front of `input`.
fn next_value(input: &mut BytesMut) -> Next {
    let mut values = serde_json::Deserializer::from_slice(input).into_iter::<Value>();
    match values.next() {
        // A bare number or word may go on in the next packet; requests are objects or arrays, which end themselves.
        Some(Ok(value)) => {
            let end = values.byte_offset();
            input.advance(end);
            Next::Value(value)
        }
        Some(Err(e)) if e.is_eof() => Next::Incomplete,
        Some(Err(e)) => Next::Malformed(e.to_string()),
        None => {
            input.clear();
            Next::Incomplete
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_cut_without_delimiters() {
        let mut input = BytesMut::from("{\n  \"a\": 1\n}{\"b\":[2]}\n\n {\"c\"");
        assert_eq!(next_value(&mut input), Next::Value(json!({"a": 1})));
        assert_eq!(next_value(&mut input), Next::Value(json!({"b": [2]})));
        assert_eq!(next_value(&mut input), Next::Incomplete);
        input.extend_from_slice(b": 3}");
        assert_eq!(next_value(&mut input), Next::Value(json!({"c": 3})));
        assert_eq!(next_value(&mut input), Next::Incomplete);
    }

    #[test]
    fn nonsense_is_malformed_and_deep_nesting_does_not_overflow() {
        assert!(matches!(next_value(&mut BytesMut::from("{]")), Next::Malformed(_)));
        let deep = "[".repeat(100_000);
        assert!(matches!(next_value(&mut BytesMut::from(deep.as_str())), Next::Malformed(_)));
    }

    #[test]
    fn answers_follow_the_specification() {
        let mut registry = Registry::default();
        registry.method("add", |(a, b): (i64, i64)| async move { Ok(a + b) });
        let mut sim = basalt_reactor::sim::Sim::new(1);
        let node = sim.add_node(1);
        sim.block_on(node, || async move {
            let add = json!({"jsonrpc": "2.0", "id": 7, "method": "add", "params": [1, 2]});
            assert_eq!(registry.answer(add).await, Some(json!({"jsonrpc": "2.0", "id": 7, "result": 3})));
            assert_eq!(registry.answer(json!({"method": "add", "params": [1, 2]})).await, None);
            for (request, code) in [
                (json!({"id": 1, "method": "nope"}), code::METHOD_NOT_FOUND),
                (json!({"id": 1, "method": "add", "params": ["x"]}), code::INVALID_PARAMS),
                (json!({"id": 1}), code::INVALID_REQUEST),
                (json!([]), code::INVALID_REQUEST),
                (json!(5), code::INVALID_REQUEST),
            ] {
                let answer = registry.answer(request.clone()).await.unwrap();
                assert_eq!(answer["error"]["code"], code, "{request}");
            }
            let batch = json!([{"id": 1, "method": "add", "params": [1, 1]}, {"id": 2, "method": "nope"}]);
            assert_eq!(registry.answer(batch).await.unwrap().as_array().unwrap().len(), 2);
        });
    }
}
