//! The node: its pool, file systems and exports, from start to stop.

use crate::config::Config;
use crate::drives::Opened;
use crate::exports::Exports;
use crate::{drives, methods, supervise};
use basalt_pool::{Pool, PoolError, PoolSpec, Scheme};
use basalt_rpc::RpcError;
use basalt_rpc::types::{DEFAULT_SHARDS, Export, Progress, Squash};
use basalt_shard::{FileSystem, FsSpec};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) started: basalt_reactor::Instant,
    pub(crate) drives: RefCell<Vec<Opened>>,
    pub(crate) pool: RefCell<Option<Pool>>,
    pub(crate) mounted: RefCell<BTreeMap<String, FileSystem>>,
    pub(crate) exports: Exports,
    pub(crate) progress: RefCell<Option<Progress>>,
    /// A create, import or destroy is under way; another has to wait.
    pub(crate) busy: Cell<bool>,
}

/// Runs on reactor 0 until the node drains.
pub(crate) async fn run(config: Config) -> Result<(), String> {
    let address = SocketAddr::new(config.listen, config.nfs_port);
    // Sockets first: a port in use must be found before anything is created or changed.
    let nfs_listener = basalt_nfs::server::listen(address).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("NFS port {address} is in use; stop what listens there, or choose another with BASALT_NFS_PORT")
        }
        _ => format!("cannot listen on {address} for NFS: {e}"),
    })?;
    let address = nfs_listener.local_addr();
    let socket = config.socket();
    let rpc_listener = basalt_reactor::net::listen_unix(&socket)
        .await
        .map_err(|e| format!("cannot listen on {}: {e}", socket.display()))?;
    if !config.listen.is_loopback() {
        tracing::warn!(
            "NFS listens on {address}: every host that reaches it can mount, and exports without squash trust its root"
        );
    }

    let node = Rc::new(Node {
        exports: Exports::new(&config, nfs_listener),
        config,
        started: basalt_reactor::now(),
        drives: RefCell::default(),
        pool: RefCell::default(),
        mounted: RefCell::default(),
        progress: RefCell::default(),
        busy: Cell::new(false),
    });
    basalt_reactor::spawn(basalt_rpc::serve(rpc_listener, Rc::new(methods::registry(&node))));
    node.start_pool().await?;
    supervise::ready();
    let export = node.exports.list().into_iter().next().map(|e| e.path);
    if let Some(path) = &export {
        let host = if address.ip().is_unspecified() { "HOST".to_owned() } else { address.ip().to_string() };
        let port = address.port();
        tracing::info!(
            "clients mount with: mount -t nfs -o vers=4.2,proto=tcp,port={port} {host}:{path} /mnt"
        );
    }
    let export = export.map_or(String::new(), |path| format!(" export={path}"));
    println!("ready pid={} nfs={address}{export}", std::process::id());

    basalt_reactor::drain_requested().await;
    supervise::stopping();
    node.exports.stop().await;
    node.unmount_all().await;
    tracing::info!("stopped");
    Ok(())
}

impl Node {
    /// Imports the pool on the configured drives; where they are blank and the settings say so, makes one.
    async fn start_pool(self: &Rc<Node>) -> Result<(), String> {
        let text = |e: RpcError| e.to_string();
        let paths = drives::configured(&self.config).map_err(|e| e.to_string())?;
        let found = if paths.is_empty() {
            Vec::new()
        } else {
            drives::open(&paths).await.map_err(|e| e.to_string())?
        };
        let first = &self.config.first_start;
        if !basalt_pool::discover(drives::refs(&found)).await.is_empty() {
            self.import(found).await.map_err(text)?;
        } else if first.create {
            self.create_first_pool(found).await?;
        } else {
            tracing::info!("no pool on the drives; waiting for `basalt pool create` or `basalt pool import`");
            self.drives.replace(found);
            return Ok(());
        }
        self.mount_missing().await.map_err(text)?;
        let pool = self.pool().map_err(text)?;
        // A first start that was cut short goes on where it stopped.
        if first.create && pool.name() == first.pool && !Exports::any_ever(&pool).await.map_err(text)? {
            self.create_first_export().await.map_err(text)?;
        }
        self.exports.start(&pool, &self.mounted).await.map_err(text)
    }

    async fn create_first_pool(self: &Rc<Node>, mut found: Vec<Opened>) -> Result<(), String> {
        if self.config.drives.is_empty() {
            drop(found);
            drives::create_missing_files(&self.config).map_err(|e| e.to_string())?;
            let paths = drives::configured(&self.config).map_err(|e| e.to_string())?;
            found = drives::open(&paths).await.map_err(|e| e.to_string())?;
        }
        let first = &self.config.first_start;
        let scheme = match first.scheme.as_str() {
            "" => None,
            text => Some(text.parse::<Scheme>().map_err(|e| e.to_string())?),
        };
        let spec = PoolSpec { name: first.pool.clone(), scheme, force: false };
        self.create(found, spec).await.map_err(|e| e.to_string())
    }

    async fn create_first_export(self: &Rc<Node>) -> Result<(), RpcError> {
        let first = self.config.first_start.clone();
        if !self.mounted.borrow().contains_key(&first.fs) {
            self.create_first_fs(&first.fs).await?;
        }
        let export = Export {
            path: first.export,
            fs: first.fs,
            read_only: false,
            squash: Squash::None,
            anon_uid: 65534,
            anon_gid: 65534,
            clients: Vec::new(),
        };
        self.create_export(export).await.map(|_| ())
    }

    /// With as many shards as usual, or on small drives as many as their journals have room for.
    async fn create_first_fs(self: &Rc<Node>, name: &str) -> Result<(), RpcError> {
        let pool = self.pool()?;
        let mut shards = DEFAULT_SHARDS;
        loop {
            match FileSystem::create(&pool, &FsSpec { name: name.to_owned(), shards }).await {
                Err(PoolError::NoSpace(_)) if shards > 1 => shards /= 2,
                made => break made.map_err(refused)?,
            }
        }
        if shards < DEFAULT_SHARDS {
            tracing::info!(
                "the drives are small: file system {name} has {shards} shards instead of {DEFAULT_SHARDS}"
            );
        }
        self.mount(name).await
    }

    pub(crate) fn pool(&self) -> Result<Pool, RpcError> {
        self.pool.borrow().clone().ok_or_else(|| {
            RpcError::not_found("this node has no pool yet; `basalt pool create` makes one, `basalt pool import` takes one in")
        })
    }

    /// Drives for a command: the named ones, or those of the configuration.
    pub(crate) async fn open_drives(&self, named: &[String]) -> Result<Vec<Opened>, RpcError> {
        let refused = |e: drives::DrivesError| RpcError::refused(e.to_string());
        if named.is_empty() {
            if self.pool.borrow().is_none() && !self.drives.borrow().is_empty() {
                return Ok(self.drives.borrow().clone());
            }
            return drives::open(&drives::configured(&self.config).map_err(refused)?).await.map_err(refused);
        }
        let paths: Vec<PathBuf> = named.iter().map(PathBuf::from).collect();
        for path in &paths {
            if drives::pci_name(path).is_none() && !path.exists() {
                return Err(RpcError::refused(format!("{}: no such file or device", path.display())));
            }
        }
        let opened = drives::open(&paths).await.map_err(refused)?;
        if opened.len() < paths.len() {
            return Err(RpcError::refused("not every named drive can be opened; the log says why"));
        }
        Ok(opened)
    }

    pub(crate) async fn create(self: &Rc<Node>, drives: Vec<Opened>, spec: PoolSpec) -> Result<(), RpcError> {
        if self.pool.borrow().is_some() {
            return Err(RpcError::refused("this node has a pool; one data plane runs one pool"));
        }
        let what = format!("creating pool {}", spec.name);
        let node = self.clone();
        let result = Pool::create(drives::refs(&drives), &spec, move |done_bytes, total_bytes| {
            node.progress.replace(Some(Progress { what: what.clone(), done_bytes, total_bytes }));
        })
        .await;
        self.progress.replace(None);
        self.adopt(result.map_err(refused)?, drives);
        Ok(())
    }

    pub(crate) async fn import(&self, drives: Vec<Opened>) -> Result<(), RpcError> {
        if self.pool.borrow().is_some() {
            return Err(RpcError::refused("this node has a pool; one data plane runs one pool"));
        }
        let pool = Pool::import(drives::refs(&drives)).await.map_err(refused)?;
        self.adopt(pool, drives);
        Ok(())
    }

    fn adopt(&self, pool: Pool, drives: Vec<Opened>) {
        tracing::info!("pool {} ({})", pool.name(), pool.uuid());
        self.drives.replace(drives);
        self.pool.replace(Some(pool));
    }

    /// Mounts every file system of the pool and serves its exports.
    pub(crate) async fn mount_all(self: &Rc<Node>) -> Result<(), RpcError> {
        self.mount_missing().await?;
        self.exports.start(&self.pool()?, &self.mounted).await
    }

    async fn mount_missing(&self) -> Result<(), RpcError> {
        for info in FileSystem::list(&self.pool()?).await.map_err(refused)? {
            if !self.mounted.borrow().contains_key(&info.name) {
                self.mount(&info.name).await?;
            }
        }
        Ok(())
    }

    async fn mount(&self, name: &str) -> Result<(), RpcError> {
        let fs = FileSystem::mount(&self.pool()?.to_ref(), name).await.map_err(refused)?;
        self.mounted.borrow_mut().insert(name.to_owned(), fs);
        Ok(())
    }

    pub(crate) async fn create_fs(self: &Rc<Node>, spec: &FsSpec) -> Result<(), RpcError> {
        let pool = self.pool()?;
        FileSystem::create(&pool, spec).await.map_err(refused)?;
        self.mount(&spec.name).await
    }

    pub(crate) async fn destroy_fs(&self, name: &str) -> Result<(), RpcError> {
        if let Some(export) = self.exports.list().into_iter().find(|e| e.fs == name) {
            return Err(RpcError::refused(format!(
                "file system {name} is exported as {}; withdraw that first with `basalt export delete {}`",
                export.path, export.path
            )));
        }
        let pool = self.pool()?;
        let mounted = self.mounted.borrow_mut().remove(name);
        if let Some(fs) = mounted {
            fs.unmount().await.map_err(refused)?;
        }
        FileSystem::destroy(&pool, name).await.map_err(refused)
    }

    pub(crate) async fn create_export(&self, export: Export) -> Result<Export, RpcError> {
        let fs = self.mounted.borrow().get(&export.fs).cloned();
        let fs = fs.ok_or_else(|| {
            RpcError::not_found(format!("no file system {}; `basalt fs list` names them", export.fs))
        })?;
        self.exports.create(&self.pool()?, export.clone(), &fs).await?;
        Ok(export)
    }

    async fn unmount_all(&self) {
        for (name, fs) in self.mounted.take() {
            if let Err(e) = fs.unmount().await {
                tracing::error!(
                    "file system {name} did not stop cleanly ({e}); its journal will be replayed"
                );
            }
        }
    }
}

pub(crate) fn refused(e: basalt_pool::PoolError) -> RpcError {
    RpcError::refused(e.to_string())
}
