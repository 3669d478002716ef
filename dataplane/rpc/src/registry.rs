//! Methods by name, with typed parameters and results.

use crate::{RpcError, code};
use basalt_reactor::LocalBoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;

type Handler = Rc<dyn Fn(Value) -> LocalBoxFuture<'static, Result<Value, RpcError>>>;

/// The methods that one socket answers.
#[derive(Default)]
pub struct Registry {
    methods: BTreeMap<&'static str, Handler>,
}

impl Registry {
    /// Adds a method. Parameters it does not know are refused if `P` says `deny_unknown_fields`; a missing `params` is `{}`.
    ///
    /// # Panics
    /// When the name is taken: two parts of the program claim one method.
    pub fn method<P, R, F, Fut>(&mut self, name: &'static str, f: F)
    where
        P: DeserializeOwned,
        R: Serialize,
        F: Fn(P) -> Fut + 'static,
        Fut: Future<Output = Result<R, RpcError>> + 'static,
    {
        let f = Rc::new(f);
        let handler: Handler = Rc::new(move |params| {
            let f = f.clone();
            Box::pin(async move {
                let params = serde_json::from_value(params).map_err(|e| {
                    RpcError::new(code::INVALID_PARAMS, format!("invalid parameters for {name}: {e}"))
                })?;
                let result = f(params).await?;
                serde_json::to_value(result).map_err(|e| RpcError::new(code::INTERNAL, e.to_string()))
            })
        });
        assert!(self.methods.insert(name, handler).is_none(), "method {name} is registered twice");
    }

    pub fn names(&self) -> Vec<&'static str> {
        self.methods.keys().copied().collect()
    }

    /// Answers one parsed message: a request, or a batch of them. `None`: only notifications, nothing to say.
    pub(crate) async fn answer(&self, message: Value) -> Option<Value> {
        match message {
            Value::Array(batch) if batch.is_empty() => {
                Some(failure(Value::Null, RpcError::new(code::INVALID_REQUEST, "the batch is empty")))
            }
            Value::Array(batch) => {
                let mut answers = Vec::new();
                for request in batch {
                    answers.extend(self.answer_one(request).await);
                }
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
            request => self.answer_one(request).await,
        }
    }

    async fn answer_one(&self, request: Value) -> Option<Value> {
        let Value::Object(mut request) = request else {
            return Some(failure(
                Value::Null,
                RpcError::new(code::INVALID_REQUEST, "a request is a JSON object"),
            ));
        };
        let id = request.remove("id");
        let answer_id = id.clone().unwrap_or(Value::Null);
        let Some(Value::String(method)) = request.remove("method") else {
            return Some(failure(
                answer_id,
                RpcError::new(code::INVALID_REQUEST, "the request names no method"),
            ));
        };
        let params = match request.remove("params") {
            None | Some(Value::Null) => Value::Object(Default::default()),
            Some(params) => params,
        };
        let result = match self.methods.get(method.as_str()).cloned() {
            Some(handler) => handler(params).await,
            None => Err(RpcError::new(code::METHOD_NOT_FOUND, format!("no method {method}"))),
        };
        id.as_ref()?;
        Some(match result {
            Ok(result) => serde_json::json!({"jsonrpc": "2.0", "id": answer_id, "result": result}),
            Err(error) => failure(answer_id, error),
        })
    }
}

pub(crate) fn failure(id: Value, error: RpcError) -> Value {
    serde_json::json!({"jsonrpc": "2.0", "id": id, "error": error})
}
