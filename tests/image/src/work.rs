//! The image under test, and a directory for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Image {
    pub(crate) dir: PathBuf,
    pub(crate) version: String,
    /// What the build signed into the slot's boot image.
    pub(crate) cmdline: String,
}

impl Image {
    pub(crate) fn open(dir: &Path) -> Result<Image, String> {
        let dir =
            fs::canonicalize(dir).map_err(|e| format!("{}: {e}; run `make image` first", dir.display()))?;
        let path = dir.join("out/manifest.json");
        let text = fs::read_to_string(&path)
            .map_err(|e| format!("{}: {e}; run `make image` first", path.display()))?;
        let manifest: serde_json::Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
        let version = manifest["version"].as_str().ok_or("the manifest names no version")?.to_owned();
        let path = dir.join(format!("out/basalt_{version}.cmdline"));
        let cmdline =
            fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?.trim().to_owned();
        Ok(Image { dir, version, cmdline })
    }

    /// `out/basalt_VERSION` with `suffix`.
    pub(crate) fn output(&self, suffix: &str) -> PathBuf {
        self.dir.join(format!("out/basalt_{}{suffix}", self.version))
    }

    /// A file of the builder chroot.
    pub(crate) fn builder(&self, path: &str) -> PathBuf {
        self.dir.join("builder").join(path)
    }

    /// A program of the builder chroot, with the chroot's own libraries, on files of the host.
    pub(crate) fn builder_program(&self, path: &str) -> Command {
        let mut command = Command::new(self.builder("lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(self.builder("usr/lib/x86_64-linux-gnu")).arg(self.builder(path));
        command
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.dir.join("test-keys").join(name)
    }
}

/// Removed when the test ends, but for its console log.
pub(crate) struct Scratch {
    pub(crate) dir: PathBuf,
    pub(crate) log: PathBuf,
}

impl Scratch {
    pub(crate) fn new(image: &Image, name: &str) -> Result<Scratch, String> {
        let flat = name.replace(['/', ' ', ','], "-");
        let (dir, logs) = (image.dir.join("test").join(&flat), image.dir.join("logs"));
        let _ = fs::remove_dir_all(&dir);
        for path in [&dir, &logs] {
            fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(Scratch { dir, log: logs.join(format!("{flat}.console")) })
    }

    /// A sparse file that serves as a drive.
    pub(crate) fn drive(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        let made = fs::File::create(&path).and_then(|f| f.set_len(1 << 30));
        made.map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command to its end; its output if it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}
