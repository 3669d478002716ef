//! Bringing the guest up: file systems, network, NFS modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::sys;
use crate::uml::GUEST_ADDRESS;

/// The guest's vector network device.
const INTERFACE: &str = "vec0";

pub(super) fn bring_up() -> io::Result<()> {
    // The root is the host's, read-only: what must be writable is memory.
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run"), ("tmpfs", "/mnt")] {
        sys::mount(kind, Path::new(target), kind, 0, "")
            .map_err(|e| io::Error::new(e.kind(), format!("mount {kind} on {target}: {e}")))?;
    }
    for dir in ["/run/home", "/run/tmp"] {
        fs::create_dir_all(dir)?;
    }
    // The network device takes memory without waiting, and one refusal puts it into an error that it never leaves (in_error of
    // vector_kern.c in 6.1): a guest full of dirty pages then hangs for ever. So some stays free.
    fs::write("/proc/sys/vm/min_free_kbytes", "65536")?;
    // The agent has one thread at this point.
    set_environment();
    sys::clear_umask();
    sys::configure_interface("lo", std::net::Ipv4Addr::LOCALHOST)?;
    sys::configure_interface(INTERFACE, GUEST_ADDRESS)
        .map_err(|e| io::Error::new(e.kind(), format!("configure {INTERFACE}: {e}")))?;
    if let Err(error) = sys::enable_gro(INTERFACE) {
        eprintln!("guest: generic receive offload stays off ({error}); large reads may stall");
    }
    load_nfs()
}

fn set_environment() {
    let variables = [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/run/home"),
        ("TMPDIR", "/run/tmp"),
        ("LC_ALL", "C"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_COUNT", "2"),
        ("GIT_CONFIG_KEY_0", "safe.directory"),
        ("GIT_CONFIG_VALUE_0", "*"),
        ("GIT_CONFIG_KEY_1", "init.defaultBranch"),
        ("GIT_CONFIG_VALUE_1", "main"),
    ];
    for (name, value) in variables {
        sys::set_variable(name, value);
    }
}

fn load_nfs() -> io::Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    let root = ["/usr/lib/uml/modules", "/lib/modules", "/usr/lib/modules"]
        .iter()
        .map(|dir| Path::new(dir).join(&release))
        .find(|dir| dir.join("modules.dep").is_file());
    // A kernel with NFS built in needs no modules.
    let Some(root) = root else { return Ok(()) };
    let dependencies = read_dependencies(&root)?;
    let mut loaded = BTreeSet::new();
    for wanted in ["nfs", "nfsv3", "nfsv4"] {
        let Some(path) = dependencies.keys().find(|path| module_name(path) == wanted) else { continue };
        load(&root, path, &dependencies, &mut loaded)?;
    }
    Ok(())
}

fn read_dependencies(root: &Path) -> io::Result<BTreeMap<String, Vec<String>>> {
    let text = fs::read_to_string(root.join("modules.dep"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, needs)| (module.to_owned(), needs.split_whitespace().map(str::to_owned).collect()))
        .collect())
}

fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

fn load(
    root: &Path,
    module: &str,
    dependencies: &BTreeMap<String, Vec<String>>,
    loaded: &mut BTreeSet<String>,
) -> io::Result<()> {
    if !loaded.insert(module.to_owned()) {
        return Ok(());
    }
    for needed in dependencies.get(module).into_iter().flatten() {
        load(root, needed, dependencies, loaded)?;
    }
    let path: PathBuf = root.join(module);
    let compressed = !module.ends_with(".ko");
    match sys::finit_module(&File::open(&path)?, compressed) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(error.kind(), format!("load {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
