//! `basalt upgrade disk` and what goes with it, on a file: what an operator at a bench does.

use basalt_upgrade::bundle::{Recipe, build};
use basalt_upgrade::manifest::Version;
use basalt_upgrade::time::now_s;
use basalt_upgrade::trust::SigningKey;
use basalt_upgrade::uki;
use basalt_upgrade::verity::{BLOCK, Leaves, RootId};
use std::io::Cursor;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Of the key with seed 1.
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAiojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=\n-----END PUBLIC KEY-----\n";

struct Bench(PathBuf);

impl Bench {
    fn new(name: &str) -> Bench {
        let dir = std::env::temp_dir().join(format!("basalt-cli-disk-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("keys")).unwrap();
        std::fs::write(dir.join("keys/release.pem"), PUBLIC).unwrap();
        std::fs::write(dir.join("boot.efi"), b"MZ systemd-boot").unwrap();
        Bench(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn bundle(&self, architecture: &str) -> PathBuf {
        let data: Vec<u8> = (0..40 * BLOCK).map(|i| (i >> 7) as u8).collect();
        let mut leaves = Leaves::new(b"salt");
        leaves.add(&data);
        let (tree, root_hash) = leaves.finish();
        let root_id = RootId { root_hash, data_blocks: 40, salt: b"salt".to_vec() };
        let kernel = uki::sample("1.2.0", Some(&root_id), &[7; 5000]);
        let recipe = Recipe {
            version: Version(1, 2, 0),
            architecture: architecture.into(),
            created: now_s(),
            expires: now_s() + 1000,
            minimum_version: Version(1, 0, 0),
            hardware: vec!["*".into()],
            notes: String::new(),
            root_id,
            key_chain: Vec::new(),
        };
        let mut out = Vec::new();
        let (kernel, root) = (Cursor::new(kernel), Cursor::new([data, tree].concat()));
        build(recipe, kernel, root, &[SigningKey::from_seed(1)], &mut out).unwrap();
        let path = self.path(&format!("{architecture}.bundle"));
        std::fs::write(&path, out).unwrap();
        path
    }

    /// Sparse.
    fn disk(&self, mib: u64) -> PathBuf {
        let path = self.path("disk");
        std::fs::File::create(&path).unwrap().set_len(mib << 20).unwrap();
        path
    }

    fn basalt(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_basalt"));
        command.env("NO_COLOR", "1").arg("--dir").arg(self.path("var")).args(arguments).output().unwrap()
    }

    fn make(&self, bundle: &Path, disk: &Path, more: &[&str]) -> Output {
        let (keys, boot) = (self.path("keys"), self.path("boot.efi"));
        let text = |p: &Path| p.display().to_string();
        let (bundle, disk, keys, boot) = (text(bundle), text(disk), text(&keys), text(&boot));
        let fixed = [
            "upgrade",
            "disk",
            &bundle,
            "--disk",
            &disk,
            "--keys",
            &keys,
            "--boot-loader",
            &boot,
            "--tenths",
        ];
        self.basalt(&[&fixed[..], more].concat())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_disk_is_made_once_and_wiped_only_when_told() {
    let bench = Bench::new("made");
    let (bundle, disk) = (bench.bundle(std::env::consts::ARCH), bench.disk(2600));
    let made = bench.make(&bundle, &disk, &[]);
    assert!(made.status.success(), "{}", said(&made));
    let text = said(&made);
    for line in
        ["checking 100", "writing kernel 100", "writing root 100", "reading back 100", "boots version 1.2.0"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    let path = disk.display().to_string();
    let status = said(&bench.basalt(&["upgrade", "status", "--disk", &path]));
    assert!(status.contains("basalt-root-a") && status.contains("new"), "{status}");

    let again = bench.make(&bundle, &disk, &[]);
    assert_eq!(again.status.code(), Some(16), "{}", said(&again));
    assert!(
        said(&again).contains("holds Basalt already") && said(&again).contains("--wipe"),
        "{}",
        said(&again)
    );
    let wiped = bench.make(&bundle, &disk, &["--wipe"]);
    assert!(wiped.status.success() && said(&wiped).contains("is gone"), "{}", said(&wiped));

    std::fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(3000 << 20).unwrap();
    let grown = said(&bench.basalt(&["--output", "json", "upgrade", "grow", "--disk", &path]));
    let grown: serde_json::Value = serde_json::from_str(&grown).unwrap();
    assert_eq!((&grown["number"], &grown["len_bytes"]), (&4.into(), &((3000u64 - 2050) << 20).into()));
}

#[test]
fn what_is_refused_is_not_touched() {
    let bench = Bench::new("refused");
    let (good, bad) = (bench.bundle(std::env::consts::ARCH), bench.bundle("other"));
    let small = bench.disk(2500);
    let refused = bench.make(&good, &small, &[]);
    assert_eq!(refused.status.code(), Some(16));
    assert!(said(&refused).contains("2562 MiB"), "{}", said(&refused));
    let disk = bench.disk(2600);
    assert_eq!(bench.make(&bad, &disk, &["--wipe"]).status.code(), Some(14), "other hardware");
    let mut bytes = std::fs::read(&good).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(bench.path("damaged"), bytes).unwrap();
    assert_eq!(bench.make(&bench.path("damaged"), &disk, &["--wipe"]).status.code(), Some(11));
    std::fs::remove_file(bench.path("keys/release.pem")).unwrap();
    assert_eq!(bench.make(&good, &disk, &["--wipe"]).status.code(), Some(12), "nobody it trusts");
    let mut first = vec![1; 1 << 20];
    std::fs::File::open(&disk).unwrap().read_exact_at(&mut first, 0).unwrap();
    assert!(first.iter().all(|b| *b == 0));
}

#[test]
fn a_decision_names_disk_and_permission_only_to_install() {
    let bench = Bench::new("decided");
    let mac = "52:54:00:00:00:01";
    let install =
        bench.basalt(&["--output", "json", "boot", "decide", mac, "install", "--disk", "S1", "--wipe"]);
    let decided: serde_json::Value = serde_json::from_str(&said(&install)).unwrap();
    assert_eq!((&decided[0]["disk"], &decided[0]["wipe"]), (&"S1".into(), &true.into()), "{decided}");
    let table = said(&bench.basalt(&["boot", "decide"]));
    assert!(table.contains("S1 (wiped)"), "{table}");
    let wrong = bench.basalt(&["boot", "decide", mac, "local", "--wipe"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}
