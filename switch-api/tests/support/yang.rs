//! The vendors' published models, by yanglint: where both are there.
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a payload is checked with.
pub struct Yang {
    dir: PathBuf,
    /// As yanglint takes them: files, and the folders beside.
    modules: Vec<PathBuf>,
    options: Vec<&'static str>,
}

impl Yang {
    /// `folder` of `YANG_DIR` (else of `shared/data/yang` beside the checkout); none, and said so, where that or yanglint is absent.
    pub fn open(test: &str, folder: &str, modules: &[&str], options: &[&'static str]) -> Option<Self> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/yang");
        let dir = std::env::var_os("YANG_DIR").map_or(beside, PathBuf::from);
        let own = dir.join(folder);
        let yanglint = Command::new("yanglint").arg("--version").output();
        if !own.is_dir() || yanglint.is_err() {
            println!("SKIPPED {test}: no yanglint or no models (YANG_DIR)");
            return None;
        }
        let modules = modules.iter().map(|module| own.join(format!("{module}.yang"))).collect();
        Some(Self { dir, modules, options: options.to_vec() })
    }

    /// Why the models refuse `text`, which is JSON or XML by `kind`.
    pub fn check(&self, kind: &str, text: &str) -> Result<(), String> {
        self.check_each(kind, &[text.to_owned()])
    }

    /// Each text by itself; the models are read once.
    pub fn check_each(&self, kind: &str, texts: &[String]) -> Result<(), String> {
        // Tests run beside each other.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("basalt-yang-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let files: Vec<PathBuf> = (0..texts.len()).map(|n| folder.join(format!("{n}.{kind}"))).collect();
        files.iter().zip(texts).for_each(|(file, text)| std::fs::write(file, text).unwrap());
        let output = Command::new("yanglint")
            .arg("-Q")
            .args(&self.options)
            .args(["sonic", "openconfig"].iter().flat_map(|f| [PathBuf::from("-p"), self.dir.join(f)]))
            .args(&self.modules)
            .args(&files)
            .output();
        std::fs::remove_dir_all(&folder).unwrap();
        let output = output.unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}
