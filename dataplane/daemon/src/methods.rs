//! The methods of the node's socket: SPDK's names where SPDK has the method, `basalt_*` for the rest.

use crate::node::{Node, refused};
use basalt_bdev::BLOCK_BYTES;
use basalt_pool::{PoolSpec, Scheme};
use basalt_rpc::types::{DriveOut, Drives, Export, FsCreate, Name, NoParams, PoolCreate};
use basalt_rpc::{Registry, RpcError, code};
use basalt_shard::{FileSystem, FsSpec};
use serde::Deserialize;
use serde_json::{Value, json};
use std::rc::Rc;

pub(crate) fn registry(node: &Rc<Node>) -> Registry {
    let mut registry = Registry::default();
    core(&mut registry, node);
    pool(&mut registry, node);
    file_systems(&mut registry, node);
    exports(&mut registry, node);
    let mut names = registry.names();
    names.push("rpc_get_methods");
    registry.method("rpc_get_methods", move |_: GetMethods| {
        let names = names.clone();
        async move { Ok(names) }
    });
    registry
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetMethods {
    // SPDK's parameters; Basalt has neither start-up states nor aliases, so all methods are current.
    #[serde(default)]
    #[allow(dead_code)]
    current: bool,
    #[serde(default)]
    #[allow(dead_code)]
    include_aliases: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KillInstance {
    sig_name: String,
}

/// Registers a method whose handler gets the node.
macro_rules! method {
    ($registry:expr, $node:expr, $name:literal, |$n:ident, $p:ident: $t:ty| $body:expr) => {{
        let node = $node.clone();
        $registry.method($name, move |$p: $t| {
            let $n = node.clone();
            async move { $body }
        });
    }};
}

fn core(registry: &mut Registry, node: &Rc<Node>) {
    let version = env!("CARGO_PKG_VERSION");
    method!(registry, node, "spdk_get_version", |_n, _p: NoParams| {
        let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
        let mut part = || parts.next().unwrap_or(0);
        Ok(json!({
            "version": format!("Basalt {version}"),
            "fields": {"major": part(), "minor": part(), "patch": part(), "suffix": ""},
        }))
    });
    method!(registry, node, "framework_wait_init", |_n, _p: NoParams| Ok(true));
    method!(registry, node, "framework_get_reactors", |_n, _p: NoParams| {
        let reactors: Vec<Value> =
            (0..basalt_reactor::core_count()).map(|core| json!({"lcore": core})).collect();
        Ok(json!({"reactors": reactors}))
    });
    method!(registry, node, "spdk_kill_instance", |_n, p: KillInstance| {
        match p.sig_name.as_str() {
            "SIGINT" | "SIGTERM" => {
                basalt_reactor::real::request_drain();
                Ok(true)
            }
            other => {
                Err(RpcError::new(code::INVALID_PARAMS, format!("signal {other}: only SIGINT and SIGTERM")))
            }
        }
    });
    method!(registry, node, "bdev_get_bdevs", |n, _p: NoParams| {
        let drives = n.drives.borrow();
        let list: Vec<Value> = drives
            .iter()
            .map(|opened| {
                let info = opened.drive.info();
                json!({
                    "name": info.name,
                    "product_name": info.backend,
                    "block_size": BLOCK_BYTES,
                    "num_blocks": info.size_bytes / BLOCK_BYTES,
                    "claimed": n.pool.borrow().is_some(),
                })
            })
            .collect();
        Ok(list)
    });
    method!(registry, node, "basalt_top", |n, _p: NoParams| {
        let drives = n.drives.borrow().clone();
        Ok(n.exports.top(n.started, &drives).await)
    });
    method!(registry, node, "basalt_progress", |n, _p: NoParams| Ok(n.progress.borrow().clone()));
}

fn pool(registry: &mut Registry, node: &Rc<Node>) {
    method!(registry, node, "basalt_pool_create", |n, p: PoolCreate| {
        let scheme = match &p.scheme {
            None => None,
            Some(text) => {
                Some(text.parse::<Scheme>().map_err(|e| RpcError::new(code::INVALID_PARAMS, e.to_string()))?)
            }
        };
        let _turn = Turn::take(&n)?;
        let drives = n.open_drives(&p.drives).await?;
        n.create(drives, PoolSpec { name: p.name, scheme, force: p.force }).await?;
        n.mount_all().await?;
        n.pool()?.status().await.map_err(refused)
    });
    method!(registry, node, "basalt_pool_import", |n, p: Drives| {
        let _turn = Turn::take(&n)?;
        n.import(n.open_drives(&p.drives).await?).await?;
        n.mount_all().await?;
        n.pool()?.status().await.map_err(refused)
    });
    method!(registry, node, "basalt_pool_list", |n, _p: NoParams| {
        Ok(match n.pool() {
            Ok(pool) => vec![pool.status().await.map_err(refused)?],
            Err(_) => Vec::new(),
        })
    });
    method!(registry, node, "basalt_pool_discover", |n, p: Drives| {
        Ok(basalt_pool::discover(crate::drives::refs(&n.open_drives(&p.drives).await?)).await)
    });
    method!(registry, node, "basalt_pool_drive_out", |n, p: DriveOut| {
        let pool = n.pool()?;
        let status = pool.status().await.map_err(refused)?;
        let drive =
            status.drives.iter().find(|d| d.name == p.drive || d.index.to_string() == p.drive).ok_or_else(
                || RpcError::not_found(format!("no drive {}; `basalt pool status` names them", p.drive)),
            )?;
        let cause = if p.cause.is_empty() { "taken out by the operator" } else { &p.cause };
        pool.drive_out(drive.index, cause).await.map_err(refused)?;
        pool.status().await.map_err(refused)
    });
}

fn file_systems(registry: &mut Registry, node: &Rc<Node>) {
    method!(registry, node, "basalt_fs_create", |n, p: FsCreate| {
        let _turn = Turn::take(&n)?;
        let name = p.name.clone();
        n.create_fs(&FsSpec { name: p.name, shards: p.shards }).await?;
        show_fs(&n, &name).await
    });
    method!(registry, node, "basalt_fs_list", |n, _p: NoParams| {
        let pool = n.pool()?;
        let mut list = FileSystem::list(&pool).await.map_err(refused)?;
        list.iter_mut().for_each(|info| info.mounted = n.mounted.borrow().contains_key(&info.name));
        Ok(list)
    });
    method!(registry, node, "basalt_fs_show", |n, p: Name| show_fs(&n, &p.name).await);
    method!(registry, node, "basalt_fs_destroy", |n, p: Name| {
        let _turn = Turn::take(&n)?;
        n.destroy_fs(&p.name).await
    });
}

async fn show_fs(node: &Node, name: &str) -> Result<Value, RpcError> {
    let pool = node.pool()?;
    let info = FileSystem::list(&pool).await.map_err(refused)?.into_iter().find(|i| i.name == name);
    let Some(mut info) = info else {
        return Err(RpcError::not_found(format!("no file system {name}; `basalt fs list` names them")));
    };
    let fs = node.mounted.borrow().get(name).cloned();
    info.mounted = fs.is_some();
    let mut shown = serde_json::to_value(info).map_err(|e| RpcError::new(code::INTERNAL, e.to_string()))?;
    if let Some(fs) = fs {
        let stat = fs.vfs().statfs().await.map_err(|e| RpcError::refused(e.to_string()))?;
        shown["total_bytes"] = stat.total_bytes.into();
        shown["available_bytes"] = stat.available_bytes.into();
    }
    Ok(shown)
}

fn exports(registry: &mut Registry, node: &Rc<Node>) {
    method!(registry, node, "basalt_export_create", |n, p: Export| n.create_export(p).await);
    method!(registry, node, "basalt_export_list", |n, _p: NoParams| Ok(n.exports.list()));
    method!(registry, node, "basalt_export_delete", |n, p: Name| n.exports.delete(&n.pool()?, &p.name).await);
}

/// One change of pool or file systems at a time.
struct Turn(Rc<Node>);
impl Turn {
    fn take(node: &Rc<Node>) -> Result<Turn, RpcError> {
        if node.busy.replace(true) {
            return Err(RpcError::refused(
                "another create, import or destroy is under way; try again when it is done",
            ));
        }
        Ok(Turn(node.clone()))
    }
}
impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}
