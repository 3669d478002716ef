//! Settings of the node: `basalt.toml` in its directory, overridden by the environment.

use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything of this node lives; not settable in the file that lies in it.
    #[serde(skip)]
    pub(crate) dir: PathBuf,
    pub(crate) listen: IpAddr,
    pub(crate) nfs_port: u16,
    pub(crate) nfs_lease_s: u32,
    /// Reactors; 0: one per CPU.
    pub(crate) cores: u16,
    /// As `tracing`'s filters: `info`, `debug`, `basalt_pool=trace`, ...
    pub(crate) log: String,
    /// Block devices, files, or PCI addresses of NVMe controllers (`0000:3b:00.0`), which are then taken from the kernel.
    /// Empty: file-backed drives, below.
    pub(crate) drives: Vec<PathBuf>,
    pub(crate) file_drives: FileDrives,
    pub(crate) first_start: FirstStart,
}

/// Sparse files that stand in for drives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FileDrives {
    pub(crate) count: u16,
    /// Such as `2GiB`.
    pub(crate) size: String,
    /// Relative to the node's directory.
    pub(crate) dir: PathBuf,
}

/// What is made when every drive is blank.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct FirstStart {
    /// False: the node waits for `basalt pool create`.
    pub(crate) create: bool,
    pub(crate) pool: String,
    /// `k+m`; empty: the catalogue picks.
    pub(crate) scheme: String,
    pub(crate) fs: String,
    pub(crate) export: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            dir: "./var".into(),
            listen: IpAddr::from([127, 0, 0, 1]),
            nfs_port: 20490,
            nfs_lease_s: 90,
            cores: 0,
            log: "info".to_owned(),
            drives: Vec::new(),
            file_drives: FileDrives::default(),
            first_start: FirstStart::default(),
        }
    }
}
impl Default for FileDrives {
    fn default() -> FileDrives {
        FileDrives { count: 6, size: "2GiB".to_owned(), dir: "drives".into() }
    }
}
impl Default for FirstStart {
    fn default() -> FirstStart {
        FirstStart {
            create: true,
            pool: "pool0".to_owned(),
            scheme: String::new(),
            fs: "data".to_owned(),
            export: "/data".to_owned(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{path} cannot be read: {cause}")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{path} is not a valid configuration: {cause}")]
    Malformed { path: PathBuf, cause: Box<toml::de::Error> },
    #[error("environment variable {name}={value}: {cause}")]
    Variable { name: &'static str, value: String, cause: String },
    #[error("{0}")]
    Invalid(String),
}

impl Config {
    /// `$BASALT_DIR/basalt.toml` where there is one, then the environment (`get` looks a variable up).
    pub(crate) fn load(get: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let dir = PathBuf::from(get("BASALT_DIR").unwrap_or_else(|| "./var".to_owned()));
        let mut config = Config::read(&dir.join("basalt.toml"))?;
        config.dir = dir;
        config.apply_environment(&get)?;
        config.validate()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Config, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|cause| ConfigError::Malformed { path: path.to_owned(), cause: Box::new(cause) }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(cause) => Err(ConfigError::Unreadable { path: path.to_owned(), cause }),
        }
    }

    fn apply_environment(&mut self, get: &impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        fn parse<T: std::str::FromStr>(
            get: &impl Fn(&str) -> Option<String>,
            name: &'static str,
            to: &mut T,
        ) -> Result<(), ConfigError>
        where
            T::Err: std::fmt::Display,
        {
            if let Some(value) = get(name).filter(|v| !v.is_empty()) {
                *to = value.parse().map_err(|e: T::Err| ConfigError::Variable {
                    name,
                    value: value.clone(),
                    cause: e.to_string(),
                })?;
            }
            Ok(())
        }
        parse(get, "BASALT_LISTEN", &mut self.listen)?;
        parse(get, "BASALT_NFS_PORT", &mut self.nfs_port)?;
        parse(get, "BASALT_NFS_LEASE_S", &mut self.nfs_lease_s)?;
        parse(get, "BASALT_CORES", &mut self.cores)?;
        parse(get, "BASALT_LOG", &mut self.log)?;
        parse(get, "BASALT_DRIVES", &mut self.file_drives.count)?;
        parse(get, "BASALT_DRIVE_SIZE", &mut self.file_drives.size)?;
        parse(get, "BASALT_SCHEME", &mut self.first_start.scheme)?;
        if let Some(dir) = get("BASALT_DRIVE_DIR").filter(|v| !v.is_empty()) {
            // Relative to where the command runs, as a shell's user expects.
            self.file_drives.dir = std::path::absolute(&dir).map_err(|e| ConfigError::Variable {
                name: "BASALT_DRIVE_DIR",
                value: dir,
                cause: e.to_string(),
            })?;
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let invalid = |why: String| Err(ConfigError::Invalid(why));
        if self.cores > 64 {
            return invalid(format!("{} cores: a node runs 64 reactors at most", self.cores));
        }
        if !(1..=3600).contains(&self.nfs_lease_s) {
            return invalid(format!("NFS lease of {} s: choose 1 to 3600", self.nfs_lease_s));
        }
        if self.drives.is_empty() && !(1..=64).contains(&self.file_drives.count) {
            return invalid(format!("{} file-backed drives: choose 1 to 64", self.file_drives.count));
        }
        let size_bytes = self.file_drive_bytes()?;
        // Told before any file is made: a start with a better size finds nothing of this one.
        if self.drives.is_empty() && size_bytes < basalt_pool::MIN_DRIVE_BYTES {
            let least_mib = basalt_pool::MIN_DRIVE_BYTES >> 20;
            return invalid(format!(
                "file-backed drives of {}: a drive needs at least {least_mib} MiB",
                self.file_drives.size
            ));
        }
        Ok(())
    }

    pub(crate) fn file_drive_bytes(&self) -> Result<u64, ConfigError> {
        basalt_rpc::size::parse(&self.file_drives.size).map_err(ConfigError::Invalid)
    }
    pub(crate) fn file_drive_dir(&self) -> PathBuf {
        self.dir.join(&self.file_drives.dir)
    }
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir().join("dataplane.sock")
    }
    pub(crate) fn core_count(&self) -> u16 {
        match self.cores {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().min(64)) as u16,
            n => n,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = std::env::temp_dir().join(format!("basalt-config-{}-{:p}", std::process::id(), &file));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("basalt.toml"), file).unwrap();
        let result = Config::load(|name| match name {
            "BASALT_DIR" => Some(dir.to_str().unwrap().to_owned()),
            _ => variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()),
        });
        std::fs::remove_dir_all(&dir).unwrap();
        result
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config =
            load("nfs_port = 7\nlisten = \"::1\"\n[file_drives]\ncount = 3", &[("BASALT_NFS_PORT", "9")])
                .unwrap();
        assert_eq!((config.nfs_port, config.file_drives.count), (9, 3));
        assert_eq!(config.listen, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn bad_settings_are_named() {
        for (file, variables, word) in [
            ("colour = 1", vec![], "colour"),
            ("", vec![("BASALT_NFS_PORT", "many")], "BASALT_NFS_PORT"),
            ("", vec![("BASALT_DRIVE_SIZE", "2 parsecs")], "parsecs"),
            ("", vec![("BASALT_DRIVE_SIZE", "255MiB")], "at least 256 MiB"),
            ("", vec![("BASALT_DRIVES", "0")], "choose 1 to 64"),
            ("cores = 100", vec![], "64 reactors"),
        ] {
            let message = load(file, &variables).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}
