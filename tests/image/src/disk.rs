//! A copy of the disk image, to boot from and to damage.

use crate::work::{Image, Scratch, run};
use std::fs::OpenOptions;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) esp: Range<u64>,
    pub(crate) roots: [Range<u64>; 2],
}

impl Disk {
    /// Sparse, so it costs little.
    pub(crate) fn copy(image: &Image, scratch: &Scratch) -> Result<Disk, String> {
        let path = scratch.dir.join("disk");
        run(Command::new("cp").arg("--sparse=always").arg(image.output(".disk")).arg(&path))?;
        Disk::open(image, path)
    }

    /// A disk that has Basalt's partitions.
    pub(crate) fn open(image: &Image, path: PathBuf) -> Result<Disk, String> {
        let table = run(image.builder_program("usr/sbin/sfdisk").arg("--dump").arg(&path))?;
        let place = |name: &str| -> Result<Range<u64>, String> {
            let line =
                table.lines().find(|l| l.contains(name)).ok_or_else(|| format!("no partition {name}"))?;
            let number = |key: &str| {
                let text = line.split(key).nth(1).and_then(|t| t.split(',').next()).map(str::trim);
                let sectors = text.and_then(|s| s.parse::<u64>().ok());
                sectors.map(|s| s * 512).ok_or_else(|| format!("no {key} in {line:?}"))
            };
            let start = number("start=")?;
            Ok(start..start + number("size=")?)
        };
        Ok(Disk {
            esp: place("basalt-esp")?,
            roots: [place("basalt-root-a")?, place("basalt-root-b")?],
            path,
        })
    }

    /// More room behind the last partition, as on a larger disk.
    pub(crate) fn enlarge(&self, bytes: u64) -> Result<(), String> {
        let file = OpenOptions::new().write(true).open(&self.path);
        let enlarged = file.and_then(|f| f.set_len(f.metadata()?.len() + bytes));
        enlarged.map_err(|e| format!("{}: {e}", self.path.display()))
    }

    /// Another one with the same bytes.
    pub(crate) fn duplicate(&self, path: PathBuf) -> Result<Disk, String> {
        run(Command::new("cp").arg("--sparse=always").arg(&self.path).arg(&path))?;
        Ok(Disk { path, esp: self.esp.clone(), roots: self.roots.clone() })
    }

    fn mtools(&self, image: &Image, program: &str) -> Command {
        // mtools of the builder chroot, with its own libraries.
        let root = image.dir.join("builder");
        let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
        command
            .arg("--library-path")
            .arg(root.join("usr/lib/x86_64-linux-gnu"))
            .arg(root.join("usr/bin").join(program));
        command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(format!(
            "{}@@{}",
            self.path.display(),
            self.esp.start
        ));
        command
    }

    /// Puts `file` into the ESP in place of the slot's boot image.
    pub(crate) fn replace_uki(&self, image: &Image, file: &Path) -> Result<(), String> {
        self.put_slot(image, file, &format!("basalt_{}+3.efi", image.version))
    }

    /// Puts `file` among the boot images, under that name.
    pub(crate) fn put_slot(&self, image: &Image, file: &Path, name: &str) -> Result<(), String> {
        let name = format!("::/EFI/Linux/{name}");
        run(self.mtools(image, "mcopy").arg("-o").arg(file).arg(name)).map(|_| ())
    }

    pub(crate) fn slot_names(&self, image: &Image) -> Result<String, String> {
        run(self.mtools(image, "mdir").args(["-b", "::/EFI/Linux/"]))
    }

    /// Turns one bit of the root partition.
    pub(crate) fn damage_root(&self, offset: u64) -> Result<(), String> {
        flip(&self.path, self.roots[0].start + offset)
    }

    /// The same for the other slot.
    pub(crate) fn damage_root_b(&self, offset: u64) -> Result<(), String> {
        flip(&self.path, self.roots[1].start + offset)
    }
}

/// Turns one bit of a file.
pub(crate) fn flip(path: &Path, offset: u64) -> Result<(), String> {
    let change = || {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset)?;
        file.write_all_at(&[byte[0] ^ 1], offset)
    };
    change().map_err(|e: std::io::Error| format!("{}: {e}", path.display()))
}
