//! The three traits on files of one directory: for `basalt boot serve` alone, and for every command beside it.
//!
//! | file | |
//! |---|---|
//! | `decisions.json`, `tokens.json` | replaced whole: written beside, made durable, renamed |
//! | `events.log`, `.1` … | a line per event, CRC-32C first; a torn line is skipped; the oldest file goes |
//! | `lock` | held during each change, so that several processes may work on one directory |

mod log;
pub(crate) mod table;

use crate::decision::{Decision, Decisions};
use crate::error::{BootError, Result};
use crate::event::{Event, Events, Step};
use crate::node::NodeId;
use crate::token::{Token, Tokens, Use};
use async_trait::async_trait;
use log::EventLog;
use std::path::{Path, PathBuf};
use table::Table;

/// A data hall; a table of that many is 2 MB of JSON.
const MAX_DECISIONS: usize = 10_000;
const MAX_TOKENS: usize = 10_000;

/// All three stores. Cheap to clone; nothing is kept in memory.
#[derive(Clone, Debug)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// Makes the directory if it is not there, readable by its owner alone.
    pub fn open(dir: &Path) -> Result<FileStore> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(BootError::io(format!("making {}", dir.display())))?;
        Ok(FileStore { dir: dir.to_owned() })
    }

    fn decisions(&self) -> Table<Decision> {
        Table::new(&self.dir, "decisions.json")
    }
    fn tokens(&self) -> Table<Token> {
        Table::new(&self.dir, "tokens.json")
    }
    fn events(&self) -> EventLog {
        EventLog::new(&self.dir)
    }

    /// File access on a thread where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FileStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        tokio::task::spawn_blocking(move || work(&store))
            .await
            .map_err(|e| BootError::Config(format!("a file operation ended early: {e}")))?
    }
}

#[async_trait]
impl Decisions for FileStore {
    async fn decide(&self, decision: Decision) -> Result<()> {
        self.blocking(move |store| {
            store.decisions().change(|all| {
                all.retain(|d| !d.node.is(&decision.node));
                if all.len() >= MAX_DECISIONS {
                    return Err(BootError::Full(
                        all.len(),
                        "forget nodes that are gone with `basalt boot decide NODE default`",
                    ));
                }
                all.push(decision.clone());
                Ok(())
            })?;
            let disk = decision.disk.as_ref().map(|d| format!("on {d}"));
            let words = [Some(decision.action.name().to_owned()), decision.version.clone(), disk];
            let words: Vec<String> =
                words.into_iter().flatten().chain(decision.wipe.then(|| "wiping it".to_owned())).collect();
            store.events().append(&Event::new(
                decision.decided_s,
                decision.node,
                Step::Decided,
                &words.join(" "),
            ))
        })
        .await
    }

    async fn forget(&self, node: &NodeId) -> Result<bool> {
        let node = *node;
        self.blocking(move |store| {
            store.decisions().change(|all| {
                let before = all.len();
                all.retain(|d| !d.node.is(&node));
                Ok(all.len() < before)
            })
        })
        .await
    }

    async fn for_node(&self, node: &NodeId) -> Result<Option<Decision>> {
        let node = *node;
        self.blocking(move |store| {
            let all = store.decisions().read()?;
            // Of equal ones the first.
            Ok(all.into_iter().rev().filter(|d| d.node.is(&node)).max_by_key(|d| d.decided_s))
        })
        .await
    }

    async fn installed(&self, node: &NodeId, now_s: u64) -> Result<usize> {
        let node = *node;
        self.blocking(move |store| {
            let changed = store.decisions().change(|all| {
                let mine = all.iter_mut().filter(|d| d.node.is(&node));
                let changed = mine.filter_map(|d| {
                    *d = d.once_installed(now_s)?;
                    Some(d.clone())
                });
                Ok(changed.collect::<Vec<_>>())
            })?;
            for decision in &changed {
                let version = decision.version.as_deref().unwrap_or("");
                let detail = format!("{} {version}", decision.action.name());
                let detail = format!("{}, since it has installed", detail.trim());
                store.events().append(&Event::new(now_s, decision.node, Step::Decided, &detail))?;
            }
            Ok(changed.len())
        })
        .await
    }

    async fn all(&self) -> Result<Vec<Decision>> {
        self.blocking(|store| store.decisions().read()).await
    }
}

#[async_trait]
impl Tokens for FileStore {
    async fn make(&self, node: Option<NodeId>, now_s: u64, valid_s: u64) -> Result<(String, Token)> {
        self.blocking(move |store| {
            let (text, token) = Token::make(node, now_s, valid_s)?;
            store.tokens().change(|all| {
                // What can never be used again makes room.
                all.retain(|t| t.expires_s >= now_s);
                if all.len() >= MAX_TOKENS {
                    return Err(BootError::Full(all.len(), "revoke some with `basalt boot token revoke ID`"));
                }
                all.push(token.clone());
                Ok(())
            })?;
            Ok((text, token))
        })
        .await
    }

    async fn redeem(&self, secret: &str, purpose: Use, node: &NodeId, now_s: u64) -> Result<Token> {
        let (secret, node) = (secret.to_owned(), *node);
        self.blocking(move |store| {
            let id = Token::id_of(&secret)?;
            let used = store.tokens().change(|all| {
                let token = all.iter_mut().find(|t| t.id == id);
                let token =
                    token.ok_or_else(|| BootError::Token("nobody made it, or it was revoked".into()))?;
                token.redeem(&secret, purpose, &node, now_s)?;
                Ok(token.clone())
            })?;
            let what = if purpose == Use::Boot { "boot" } else { "join" };
            store.events().append(&Event::new(now_s, node, Step::TokenUsed, &format!("{what} {id}")))?;
            Ok(used)
        })
        .await
    }

    async fn revoke(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.blocking(move |store| {
            store.tokens().change(|all| {
                let before = all.len();
                all.retain(|t| t.id != id);
                Ok(all.len() < before)
            })
        })
        .await
    }

    async fn all(&self) -> Result<Vec<Token>> {
        self.blocking(|store| store.tokens().read()).await
    }
}

#[async_trait]
impl Events for FileStore {
    async fn record(&self, event: Event) -> Result<()> {
        self.blocking(move |store| store.events().append(&event)).await
    }

    async fn recent(&self, node: Option<&NodeId>, limit: usize) -> Result<Vec<Event>> {
        let node = node.copied();
        self.blocking(move |store| {
            let mut all = store.events().read()?;
            all.retain(|e| node.is_none_or(|n| n.is(&e.node)));
            Ok(all.split_off(all.len().saturating_sub(limit)))
        })
        .await
    }
}
