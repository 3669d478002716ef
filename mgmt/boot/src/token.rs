//! One-shot tokens. A token is good for one node: the first node that boots with it owns it, may boot with it again until it has joined
//! (a power cut must not strand it), and may join the cluster with it once.
//!
//! A token is `bst1.ID.SECRET`. Stores keep a SHA-256 of the secret: it has 128 random bits, so a hash without salt or stretching
//! gives nothing away, and comparing hashes byte by byte leaks nothing either.

use crate::error::{BootError, Result};
use crate::node::NodeId;
use async_trait::async_trait;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "bst1";

/// A token as a store keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: String,
    pub secret_sha256: String,
    /// The node it was made for, or that booted with it first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    pub made_s: u64,
    pub expires_s: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub joined_s: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    Boot,
    Join,
}

/// The tokens that were made and not revoked.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Makes a token; the secret is returned once and cannot be read again. `node`: only that one may use it.
    async fn make(&self, node: Option<NodeId>, now_s: u64, valid_s: u64) -> Result<(String, Token)>;
    /// Uses it. What was used is durable when this returns.
    async fn redeem(&self, secret: &str, purpose: Use, node: &NodeId, now_s: u64) -> Result<Token>;
    async fn revoke(&self, id: &str) -> Result<bool>;
    async fn all(&self) -> Result<Vec<Token>>;
}

impl Token {
    /// A new one and what its owner is given.
    pub fn make(node: Option<NodeId>, now_s: u64, valid_s: u64) -> Result<(String, Token)> {
        let mut random = [0; 24];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| BootError::Token("the system gives no random numbers".into()))?;
        let (id, secret) = (hex(&random[..8]), hex(&random[8..]));
        let token = Token {
            secret_sha256: hash(&secret),
            node,
            made_s: now_s,
            expires_s: now_s.saturating_add(valid_s),
            booted_s: None,
            joined_s: None,
            id: id.clone(),
        };
        Ok((format!("{PREFIX}.{id}.{secret}"), token))
    }

    /// The id in a token's text.
    pub fn id_of(text: &str) -> Result<&str> {
        match text.split('.').collect::<Vec<_>>()[..] {
            [PREFIX, id, _] => Ok(id),
            _ => Err(BootError::Token("it is not of the form bst1.ID.SECRET".into())),
        }
    }

    /// Marks it used, or says why not.
    pub fn redeem(&mut self, text: &str, purpose: Use, node: &NodeId, now_s: u64) -> Result<()> {
        let refuse = |why: &str| Err(BootError::Token(why.into()));
        let secret = text.rsplit('.').next().unwrap_or_default();
        if hash(secret) != self.secret_sha256 {
            return refuse("its secret is wrong");
        }
        if node.is_empty() {
            return refuse("the node did not say who it is");
        }
        if self.joined_s.is_some() {
            return refuse("its node has joined already; make a new one");
        }
        if now_s > self.expires_s {
            return refuse("it has expired; make a new one");
        }
        if self.node.is_some_and(|owner| !owner.is(node)) {
            return refuse("it belongs to another node");
        }
        self.node = Some(self.node.map_or(*node, |owner| owner.with(node)));
        match purpose {
            Use::Boot => self.booted_s = Some(now_s),
            Use::Join => self.joined_s = Some(now_s),
        }
        Ok(())
    }
}

fn hash(secret: &str) -> String {
    hex(digest(&SHA256, secret.as_bytes()).as_ref())
}
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
