//! CONFIG_DB over Redis itself: hashes `TABLE|key`, written under WATCH and MULTI/EXEC.

use super::stream::{self, Bounded};
use super::tables::{Database, Difference, Row, RowChange, Tables};
use super::{Session, Store};
use crate::connection::Connection;
use crate::error::{Cause, Result};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisConnectionInfo, RedisError, Value, cmd, pipe};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::AbortHandle;

/// A row without fields is this field, since Redis has no empty hash.
const NOTHING: &str = "NULL";
/// Rows asked for in one go.
const BATCH: usize = 512;
/// Keys that the largest chassis may have; beyond it is no switch.
const MOST_KEYS: usize = 1 << 20;

pub(super) struct Redis;

pub(super) struct RedisSession {
    connection: Connection,
    redis: MultiplexedConnection,
    /// Drives the connection; ends with the session.
    driver: AbortHandle,
    got: Arc<AtomicU64>,
    /// `got` when the current request was sent.
    before: u64,
}

impl Drop for RedisSession {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[async_trait]
impl Store for Redis {
    type Session = RedisSession;
    const SAVE_ON_SET: bool = false;

    async fn open(&self, connection: &Connection) -> Result<RedisSession> {
        let stream = stream::open(connection, &[]).await?;
        let got = Arc::new(AtomicU64::new(0));
        let bounded = Bounded::new(stream, Arc::clone(&got), connection.limits.body_bytes);
        // Nothing is said before the credentials: a server that wants them answers all else with an error. The time bound is
        // ours (`Connection::timed`), over the whole request.
        let made = MultiplexedConnection::new(&RedisConnectionInfo::default(), bounded).await;
        let (redis, driver) = made.map_err(|e| cause(&e, connection, "hello", 0).at(&connection.switch))?;
        let driver = tokio::spawn(driver).abort_handle();
        let mut session = RedisSession { connection: connection.clone(), redis, driver, got, before: 0 };
        connection.timed("AUTH", session.authenticate()).await?;
        Ok(session)
    }
}

impl RedisSession {
    async fn authenticate(&mut self) -> Result<()> {
        let secret = self.connection.secret.clone();
        if secret.is_empty() {
            return Ok(());
        }
        let user = self.connection.user.clone();
        let named = cmd("AUTH").arg(user).arg(secret.expose()).query_async::<()>(&mut self.redis).await;
        let Err(error) = named else { return Ok(()) };
        if error.is_io_error() {
            return Err(self.fail(&error, "AUTH"));
        }
        // With `requirepass` alone there is one password and no users.
        let plain = cmd("AUTH").arg(secret.expose()).query_async::<()>(&mut self.redis).await;
        plain.map_err(|error| {
            if error.is_io_error() {
                return self.fail(&error, "AUTH");
            }
            let user = self.connection.user.clone();
            Cause::Unauthorised { user }.at(&self.connection.switch)
        })
    }

    fn fail(&self, error: &RedisError, request: &str) -> crate::SwitchError {
        let got = self.got.load(Ordering::Relaxed);
        let cause = if got > self.connection.limits.body_bytes {
            let limit_bytes = self.connection.limits.body_bytes;
            Cause::ReplyTooLarge { request: request.to_owned(), limit_bytes }
        } else {
            cause(error, &self.connection, request, got - self.before)
        };
        cause.at(&self.connection.switch)
    }

    async fn select(&mut self, database: Database) -> Result<()> {
        self.before = self.got.load(Ordering::Relaxed);
        let selected = cmd("SELECT").arg(database.number()).query_async::<()>(&mut self.redis).await;
        selected.map_err(|e| self.fail(&e, database.name()))
    }

    /// Keys of `tables`, as (table, key). A table's name without separator is a row of its own (COUNTERS_PORT_NAME_MAP).
    async fn keys(&mut self, database: Database, tables: &[&str]) -> Result<BTreeSet<(String, String)>> {
        let mut keys = BTreeSet::new();
        let mut cursor = 0u64;
        let mut seen = 0;
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("COUNT").arg(1000);
            let answer = scan.query_async::<(u64, Vec<Vec<u8>>)>(&mut self.redis).await;
            let (next, found) = answer.map_err(|e| self.fail(&e, database.name()))?;
            seen += found.len().max(1);
            for key in found.into_iter().filter_map(|key| String::from_utf8(key).ok()) {
                let (table, rest) = key.split_once(database.separator()).unwrap_or((&key, ""));
                if tables.contains(&table) {
                    keys.insert((table.to_owned(), rest.to_owned()));
                }
            }
            if next == 0 {
                return Ok(keys);
            }
            if seen > MOST_KEYS {
                let request = format!("SCAN of {}", database.name());
                let reason = format!("it has more than {MOST_KEYS} keys");
                let cause = Cause::BadReply { request, reason, expected: "SONiC" };
                return Err(cause.at(&self.connection.switch));
            }
            cursor = next;
        }
    }

    async fn fetch(
        &mut self,
        database: Database,
        keys: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Tables> {
        let mut tables = Tables::default();
        let keys: Vec<(String, String)> = keys.into_iter().collect();
        for batch in keys.chunks(BATCH) {
            let mut request = pipe();
            for (table, key) in batch {
                request.cmd("HGETALL").arg(redis_key(database, table, key));
            }
            let answer = request.query_async::<Vec<Vec<(Vec<u8>, Vec<u8>)>>>(&mut self.redis).await;
            let rows = answer.map_err(|e| self.fail(&e, database.name()))?;
            for ((table, key), fields) in batch.iter().zip(rows) {
                // Deleted between the two requests.
                if fields.is_empty() {
                    continue;
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields = fields.iter().map(|(field, value)| (text(field), text(value)));
                *tables.row(table, key) = fields.filter(|(field, _)| field != NOTHING).collect();
            }
        }
        Ok(tables)
    }
}

fn redis_key(database: Database, table: &str, key: &str) -> String {
    if key.is_empty() { table.to_owned() } else { format!("{table}{}{key}", database.separator()) }
}

#[async_trait]
impl Session for RedisSession {
    async fn tables(&mut self, database: Database, tables: &[&str]) -> Result<Tables> {
        self.select(database).await?;
        let keys = self.keys(database, tables).await?;
        self.fetch(database, keys).await
    }

    async fn rows(&mut self, database: Database, table: &str, keys: &[&String]) -> Result<Tables> {
        self.select(database).await?;
        self.fetch(database, keys.iter().map(|key| (table.to_owned(), (*key).clone()))).await
    }

    async fn commit(&mut self, change: &Difference, base: &Tables) -> Result<()> {
        let database = Database::Config;
        self.select(database).await?;
        let mut watch = cmd("WATCH");
        change.names().for_each(|(table, key)| {
            watch.arg(redis_key(database, table, key));
        });
        watch.query_async::<()>(&mut self.redis).await.map_err(|e| self.fail(&e, "WATCH"))?;
        let now = self.fetch(database, change.names().cloned().collect::<Vec<_>>()).await?;
        let conflict = |key: String| {
            let reason = format!("{key} changed while we wrote");
            Cause::Conflict { reason }.at(&self.connection.switch)
        };
        if let Some((table, key)) = change.names().find(|(t, k)| now.get(t, k) != base.get(t, k)) {
            return Err(conflict(redis_key(database, table, key)));
        }
        // Spelled out, so that the error of the first command that was refused is the one we get.
        let mut transaction = pipe();
        transaction.cmd("MULTI");
        // What goes, goes first: the daemons hear of the rows in this order.
        let (gone, rest): (Vec<_>, Vec<_>) = change.iter().partition(|(_, c)| matches!(c, RowChange::Delete));
        for ((table, key), change) in gone.into_iter().chain(rest) {
            let name = redis_key(database, table, key);
            let empty = Row::new();
            queue(&mut transaction, &name, change, base.get(table, key).unwrap_or(&empty));
        }
        transaction.cmd("EXEC");
        let answers = transaction.query_async::<Vec<Value>>(&mut self.redis).await;
        match answers.map_err(|e| self.fail(&e, "EXEC"))?.last() {
            Some(Value::Array(_)) => Ok(()),
            _ => Err(conflict("a row".to_owned())),
        }
    }
}

fn queue(transaction: &mut redis::Pipeline, name: &str, change: &RowChange, before: &Row) {
    match change {
        RowChange::Delete => {
            transaction.cmd("DEL").arg(name);
        }
        RowChange::Create(row) if row.is_empty() => {
            transaction.cmd("HSET").arg(name).arg(NOTHING).arg(NOTHING);
        }
        RowChange::Create(row) => {
            let fields: Vec<(&String, &String)> = row.iter().collect();
            transaction.cmd("HSET").arg(name).arg(fields);
        }
        RowChange::Fields { set, unset } => {
            if !set.is_empty() {
                let fields: Vec<(&String, &String)> = set.iter().collect();
                transaction.cmd("HSET").arg(name).arg(fields);
            }
            // The last field to go takes the row with it, and a row that gets its first is no longer empty.
            if set.is_empty() && before.len() == unset.len() {
                transaction.cmd("HSET").arg(name).arg(NOTHING).arg(NOTHING);
            } else if before.is_empty() {
                transaction.cmd("HDEL").arg(name).arg(NOTHING);
            }
            if !unset.is_empty() {
                transaction.cmd("HDEL").arg(name).arg(unset.iter().collect::<Vec<_>>());
            }
        }
    }
}

/// What a Redis error means for us. Its texts are the server's; the secret is taken out of them.
fn cause(error: &RedisError, connection: &Connection, request: &str, got_bytes: u64) -> Cause {
    let text = error.to_string();
    let text = connection.secret.redact(&text);
    let user = connection.user.clone();
    let request = request.to_owned();
    match error.code() {
        Some("NOAUTH" | "WRONGPASS") => return Cause::Unauthorised { user },
        Some("NOPERM") => return Cause::Forbidden { user, request: format!("use {request}") },
        Some("LOADING" | "BUSY" | "MASTERDOWN" | "TRYAGAIN" | "CLUSTERDOWN") => {
            return Cause::Unreachable { endpoint: connection.endpoint(), reason: text };
        }
        Some("READONLY" | "OOM" | "MISCONF" | "EXECABORT" | "NOREPLICAS") => {
            return Cause::Rejected { path: "CONFIG_DB".to_owned(), reason: text };
        }
        _ => {}
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => Cause::Unauthorised { user },
        ErrorKind::IoError if got_bytes > 0 => Cause::PartialReply { request, got_bytes },
        ErrorKind::IoError => Cause::Unreachable { endpoint: connection.endpoint(), reason: text },
        _ => Cause::BadReply { request, reason: text, expected: "SONiC" },
    }
}
