//! The guest's kernel, from Debian's package without installing it, and an initramfs with this program as init.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Image {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// Modules that the guest loads, in this order, after what they need.
pub(crate) const MODULES: [&str; 3] = ["vfio_iommu_type1", "vfio-pci", "nvme"];
/// Debian 12 (security) and 13 both have a 6.12.
const KERNEL_PACKAGES: [&str; 2] = ["linux-image-6.12-amd64", "linux-image-amd64"];

pub(crate) fn build(dir: &Path) -> Result<Image, String> {
    let text = |e: std::io::Error| e.to_string();
    fs::create_dir_all(dir).map_err(text)?;
    let dir = dir.canonicalize().map_err(text)?;
    let root = dir.join("kernel");
    if find(&root.join("boot"), "vmlinuz").is_none() {
        unpack_kernel(&dir, &root)?;
    }
    let kernel = find(&root.join("boot"), "vmlinuz").ok_or("the kernel package holds no vmlinuz")?;
    let initramfs = dir.join("initramfs.cpio");
    let mut cpio = Cpio::create(&initramfs).map_err(text)?;
    for d in ["dev", "proc", "sys", "modules", "tmp"] {
        cpio.directory(d).map_err(text)?;
    }
    add_program(&mut cpio)?;
    add_modules(&mut cpio, &dir, &root)?;
    cpio.finish().map_err(text)?;
    Ok(Image { kernel, initramfs })
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn find(dir: &Path, prefix: &str) -> Option<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir).ok()?.flatten().map(|e| e.path()).collect();
    all.sort();
    all.into_iter().find(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix)))
}

/// The package that the meta-package depends on.
fn unpack_kernel(dir: &Path, root: &Path) -> Result<(), String> {
    let depends = |package: &str| -> Option<String> {
        let text = run(Command::new("apt-cache").args(["depends", package])).ok()?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix("Depends: linux-image-"))?;
        Some(format!("linux-image-{line}"))
    };
    let package =
        KERNEL_PACKAGES.iter().find_map(|p| depends(p)).ok_or("apt knows no linux-image of 6.12")?;
    println!("fetching {package}");
    run(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(dir))?;
    let deb = find(dir, &package).ok_or_else(|| format!("{package} was not downloaded"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&deb).arg(root))?;
    fs::remove_file(deb).map_err(|e| e.to_string())
}

/// This executable and the libraries that it needs.
fn add_program(cpio: &mut Cpio) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let bytes = fs::read(&own).map_err(|e| e.to_string())?;
    cpio.file("init", 0o755, &bytes).map_err(|e| e.to_string())?;
    let list = run(Command::new("ldd").arg(&own))?;
    let paths = list.split_whitespace().filter(|w| w.starts_with('/'));
    for path in paths.collect::<BTreeSet<_>>() {
        let bytes = fs::read(path).map_err(|e| format!("{path}: {e}"))?;
        cpio.file(path.trim_start_matches('/'), 0o755, &bytes).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Decompressed, in `modules/NN-name.ko`, so that the guest loads them by order of name.
fn add_modules(cpio: &mut Cpio, dir: &Path, root: &Path) -> Result<(), String> {
    let lib = if root.join("lib/modules").exists() {
        root.join("lib/modules")
    } else {
        root.join("usr/lib/modules")
    };
    let tree = find(&lib, "6.").ok_or("the kernel package holds no modules")?;
    let mut order = Vec::new();
    for name in MODULES {
        resolve(&tree, name, dir, &mut order)?;
    }
    for (i, (name, bytes)) in order.iter().enumerate() {
        cpio.file(&format!("modules/{i:02}-{name}.ko"), 0o644, bytes).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn resolve(tree: &Path, name: &str, dir: &Path, order: &mut Vec<(String, Vec<u8>)>) -> Result<(), String> {
    let plain = name.replace('-', "_");
    if order.iter().any(|(n, _)| *n == plain) {
        return Ok(());
    }
    let path = walk(tree, &plain).ok_or_else(|| format!("the kernel package holds no module {name}"))?;
    let bytes = read_module(&path, dir)?;
    for needed in depends(&bytes) {
        resolve(tree, &needed, dir, order)?;
    }
    order.push((plain, bytes));
    Ok(())
}

fn walk(dir: &Path, plain: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = walk(&path, plain) {
                return Some(found);
            }
            continue;
        }
        let name = path.file_name()?.to_str()?;
        if name.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == plain) {
            return Some(path);
        }
    }
    None
}

fn read_module(path: &Path, dir: &Path) -> Result<Vec<u8>, String> {
    let plain = dir.join("module.ko");
    let xz = path.extension().is_some_and(|e| e == "xz");
    if !xz {
        return fs::read(path).map_err(|e| e.to_string());
    }
    let out = File::create(&plain).map_err(|e| e.to_string())?;
    let status =
        Command::new("xz").arg("-dc").arg(path).stdout(out).status().map_err(|e| format!("xz: {e}"))?;
    if !status.success() {
        return Err(format!("xz cannot unpack {}", path.display()));
    }
    fs::read(&plain).map_err(|e| e.to_string())
}

/// The `depends=` line of a module's information.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|w| w == KEY) else { return Vec::new() };
    let text = module[at + KEY.len()..].split(|&b| b == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

/// The kernel's initramfs format (Documentation/driver-api/early-userspace/buffer-format.rst, "newc").
struct Cpio {
    out: BufWriter<File>,
    written: usize,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Cpio {
    fn create(path: &Path) -> std::io::Result<Cpio> {
        Ok(Cpio {
            out: BufWriter::new(File::create(path)?),
            written: 0,
            inode: 1,
            directories: BTreeSet::new(),
        })
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn pad(&mut self) -> std::io::Result<()> {
        let n = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 3][..n])
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> std::io::Result<()> {
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let mut header = "070701".to_owned();
        for f in fields {
            header += &format!("{f:08x}");
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(data)?;
        self.pad()
    }

    fn directory(&mut self, name: &str) -> std::io::Result<()> {
        if !self.directories.insert(name.to_owned()) {
            return Ok(());
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.entry(name, 0o040_755, &[])
    }

    fn file(&mut self, name: &str, mode: u32, data: &[u8]) -> std::io::Result<()> {
        if let Some((parent, _)) = name.rsplit_once('/') {
            self.directory(parent)?;
        }
        self.entry(name, 0o100_000 | mode, data)
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.out.flush()
    }
}
