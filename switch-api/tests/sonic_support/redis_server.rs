//! A Redis of Debian's on a socket of its own, as SONiC starts it, and a way to stand between it and a driver.

use super::{Rows, SECRET};
use redis::{Commands, Connection, cmd};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct RedisServer {
    child: Child,
    directory: PathBuf,
}

impl RedisServer {
    /// With CONFIG_DB as it comes.
    pub(crate) fn start(name: &str) -> Self {
        Self::with(name, &[])
    }

    pub(crate) fn with(name: &str, more: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("basalt-sonic-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--databases", "16"])
            .args(["--loglevel", "warning", "--requirepass", SECRET, "--dir"])
            .arg(&directory)
            .arg("--unixsocket")
            .arg(directory.join("redis.sock"))
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is there (tests/setup test installs it)");
        let server = Self { child, directory };
        server.load(&super::factory());
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("redis.sock")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn admin(&self, database: &str) -> Connection {
        let number = match database {
            "APPL_DB" => 0,
            "COUNTERS_DB" => 2,
            "CONFIG_DB" => 4,
            "STATE_DB" => 6,
            other => panic!("{other}"),
        };
        let url = format!("redis+unix://{}?db={number}&pass={SECRET}", self.socket().display());
        let client = redis::Client::open(url).unwrap();
        let begin = Instant::now();
        loop {
            match client.get_connection() {
                Ok(connection) => return connection,
                Err(error) if begin.elapsed() > Duration::from_secs(10) => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn load(&self, config: &Value) {
        let mut connection = self.admin("CONFIG_DB");
        let _: () = cmd("FLUSHALL").query(&mut connection).unwrap();
        let _: () = connection.set("CONFIG_DB_INITIALIZED", "1").unwrap();
        for (table, rows) in config.as_object().unwrap() {
            for (key, row) in rows.as_object().unwrap() {
                let fields: Vec<(&str, &str)> =
                    row.as_object().unwrap().iter().map(|(f, v)| (f.as_str(), v.as_str().unwrap())).collect();
                self.put("CONFIG_DB", table, key, &fields);
            }
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

fn name(database: &str, table: &str, key: &str) -> String {
    let separator = if matches!(database, "CONFIG_DB" | "STATE_DB") { '|' } else { ':' };
    if key.is_empty() { table.to_owned() } else { format!("{table}{separator}{key}") }
}

impl Rows for RedisServer {
    fn config(&self) -> Value {
        let mut connection = self.admin("CONFIG_DB");
        let keys: Vec<String> = connection.keys("*|*").unwrap();
        let mut config = Map::new();
        for name in keys {
            let (table, key) = name.split_once('|').unwrap();
            let mut row: BTreeMap<String, String> = connection.hgetall(&name).unwrap();
            if row.len() == 1 {
                row.remove("NULL");
            }
            assert!(!row.contains_key("NULL"), "{name} is empty and is not");
            let rows = config.entry(table).or_insert_with(|| json!({}));
            rows.as_object_mut().unwrap().insert(key.to_owned(), json!(row));
        }
        config.into()
    }

    fn put(&self, database: &str, table: &str, key: &str, fields: &[(&str, &str)]) {
        let fields = if fields.is_empty() { &[("NULL", "NULL")] } else { fields };
        let _: () = self.admin(database).hset_multiple(name(database, table, key), fields).unwrap();
    }

    fn delete(&self, database: &str, table: &str, key: &str) {
        let _: () = self.admin(database).del(name(database, table, key)).unwrap();
    }
}
