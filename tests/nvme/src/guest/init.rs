//! File systems, modules, log.

use basalt_system::sys;
use std::fs::{self, File};
use std::path::Path;

pub(super) fn bring_up() -> Result<(), String> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        sys::mount(kind, Path::new(target), kind, 0, "").map_err(|e| format!("mount {target}: {e}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir("/modules").map_err(|e| e.to_string())?.flatten().map(|e| e.path()).collect();
    modules.sort();
    for path in modules {
        let file = File::open(&path).map_err(|e| e.to_string())?;
        match sys::finit_module(&file, false) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(format!("load {}: {e}", path.display()));
            }
            _ => {}
        }
    }
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_ansi(false).without_time().init();
    Ok(())
}
