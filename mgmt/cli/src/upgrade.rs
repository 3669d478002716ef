//! `basalt upgrade`: bundles, the two slots of a disk, and the way back. Works without a data plane or an agent.
//!
//! Exit codes 10 to 18 name the reason; `docs/operations/upgrade.md` lists them.

use crate::control::{CliError, Control, call};
use crate::output::{Output, Row, print};
use basalt_upgrade::bless::{Check, Patience, ProgramCheck, RolledBack, bless, gate, roll_back};
use basalt_upgrade::bundle::{self, Authentic, Bundle, build};
use basalt_upgrade::gpt::{Sizes, grow_state};
use basalt_upgrade::install::{Stage, install};
use basalt_upgrade::make::{Recipe, make_disk};
use basalt_upgrade::manifest::{Manifest, Node, Version};
use basalt_upgrade::media::{FileMedia, Media, random};
use basalt_upgrade::node::{Disk, running_root, this_node};
use basalt_upgrade::slots::{self, Status};
use basalt_upgrade::time::{DAY_S, now_s, rfc3339};
use basalt_upgrade::trust::{Role, Root, SigningKey, TrustStore, hex, key_id, read_public, sign_root};
use basalt_upgrade::verity::RootId;
use basalt_upgrade::{UpgradeError, bundle::format};
use serde::Serialize;
use serde_json::Value;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where an image keeps the public keys it believes.
const KEYS_DIR: &str = "/usr/share/basalt/keys";
/// Linux, errno-base.h.
const EBUSY: i32 = 16;
const BOOT_LOADER: &str = "/usr/lib/basalt/systemd-bootx64.efi";
const HEALTH_DIR: &str = "/usr/lib/basalt/health.d";

#[derive(clap::Subcommand)]
pub(crate) enum Verb {
    /// Make a bundle from what `make image` put out
    Bundle(BundleArgs),
    /// Make the next root of the key chain: which keys may sign from now on
    Root(RootArgs),
    /// Check a bundle: signatures, expiry, every byte, and whether it suits this node
    Verify {
        file: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
        /// Leave out what concerns this node: hardware and version
        #[arg(long)]
        any_node: bool,
    },
    /// Write a bundle into the idle slot; the next boot takes it
    Install {
        file: PathBuf,
        #[command(flatten)]
        trust: TrustArgs,
        #[command(flatten)]
        disk: DiskArgs,
    },
    /// Make a disk that boots a bundle: lay it out, write its first slot; what was on it goes with --wipe alone
    Disk(MakeArgs),
    /// Extend the state partition to the end of its disk, as init does at each boot
    Grow {
        /// The disk, or a file with a disk's image
        #[arg(long)]
        disk: PathBuf,
    },
    /// Show the slots, and what boots next
    Status {
        #[command(flatten)]
        disk: DiskArgs,
    },
    /// Wait until the node is healthy, then keep the version that runs
    Bless {
        #[command(flatten)]
        disk: DiskArgs,
        /// Seconds to wait for a healthy node
        #[arg(long, default_value_t = 180)]
        timeout: u64,
        /// Seconds it must stay healthy
        #[arg(long, default_value_t = 10)]
        settle: u64,
        /// Do not ask the data plane, only the programs of the health directory
        #[arg(long)]
        no_data_plane: bool,
        /// Directory with programs that end with 0 on a healthy node
        #[arg(long, default_value = HEALTH_DIR)]
        health: PathBuf,
    },
    /// Go back: cancel an upgrade that was not booted yet, else boot the other slot next
    Rollback {
        #[command(flatten)]
        disk: DiskArgs,
    },
}

#[derive(clap::Args)]
pub(crate) struct BundleArgs {
    /// Output directory of `make image`
    #[arg(long, default_value = "target/image/out")]
    image: PathBuf,
    /// Private key, Ed25519 in PEM; once for each signature
    #[arg(long, required = true)]
    sign: Vec<PathBuf>,
    /// Where to write the bundle
    #[arg(long)]
    out: PathBuf,
    /// Roots of the key chain, oldest first, as `basalt upgrade root` wrote them
    #[arg(long)]
    root: Vec<PathBuf>,
    /// Days from now until it is refused
    #[arg(long, default_value_t = 365)]
    days: u64,
    /// Oldest version it may be installed from; what the image's manifest says by default
    #[arg(long)]
    minimum_version: Option<Version>,
    /// VENDOR/PRODUCT with `*` for any text; what the image's manifest says by default
    #[arg(long)]
    hardware: Vec<String>,
    /// A line for people
    #[arg(long, default_value = "")]
    notes: String,
}

#[derive(clap::Args)]
pub(crate) struct RootArgs {
    /// Number of this root: one more than the one before it; the first is 1
    #[arg(long)]
    number: u64,
    /// Public key that may sign the next root
    #[arg(long, required = true)]
    root_key: Vec<PathBuf>,
    /// Public key that may sign bundles
    #[arg(long, required = true)]
    release_key: Vec<PathBuf>,
    /// How many root keys must sign
    #[arg(long, default_value_t = 1)]
    root_threshold: usize,
    /// How many release keys must sign
    #[arg(long, default_value_t = 1)]
    release_threshold: usize,
    /// Private keys to sign with: of the root before it and of this one
    #[arg(long, required = true)]
    sign: Vec<PathBuf>,
    /// Days from now until bundles under it are refused
    #[arg(long, default_value_t = 1095)]
    days: u64,
    #[arg(long)]
    out: PathBuf,
}

#[derive(clap::Args)]
pub(crate) struct MakeArgs {
    file: PathBuf,
    #[command(flatten)]
    trust: TrustArgs,
    /// The disk, or a file of its size
    #[arg(long)]
    disk: PathBuf,
    /// The disk's contents may go
    #[arg(long)]
    wipe: bool,
    /// systemd-boot, signed for Secure Boot
    #[arg(long, default_value = BOOT_LOADER)]
    boot_loader: PathBuf,
    /// Print a line for each tenth that is done
    #[arg(long)]
    tenths: bool,
}

#[derive(clap::Args)]
pub(crate) struct TrustArgs {
    /// Directory with public keys (*.pem) to begin with
    #[arg(long, default_value = KEYS_DIR)]
    keys: PathBuf,
}

impl TrustArgs {
    fn store(&self, dir: &Path) -> TrustStore {
        TrustStore::new(&self.keys, &dir.join("upgrade"))
    }
}

#[derive(clap::Args)]
pub(crate) struct DiskArgs {
    /// A disk, or a file with a disk's image, that is not running; the disk of this node by default
    #[arg(long)]
    disk: Option<PathBuf>,
}

impl DiskArgs {
    /// The disk and the root that runs from it.
    fn open(&self, write: bool) -> Result<(Disk, Option<RootId>), UpgradeError> {
        match &self.disk {
            Some(path) => Ok((Disk::open_image(path, write)?, None)),
            None => {
                let running = running_root()?;
                Ok((Disk::of_node(running.as_ref())?, running))
            }
        }
    }

    /// For what concerns the version that runs: of a disk that is not running, the one that would boot next.
    fn open_with_current(&self, write: bool) -> Result<(Disk, RootId), UpgradeError> {
        let (disk, running) = self.open(write)?;
        if let Some(running) = running {
            return Ok((disk, running));
        }
        let next = slots::next_root(&disk)?;
        let next = next.filter(|_| self.disk.is_some());
        next.map(|root| (disk, root)).ok_or_else(|| {
            UpgradeError::Layout(
                "this node does not run from a disk of Basalt; name a disk with --disk".into(),
            )
        })
    }
}

#[derive(Serialize)]
struct Verified<'a> {
    manifest: &'a Manifest,
    trusted_root: u64,
}

pub(crate) fn run(
    verb: Verb,
    output: Output,
    dir: &Path,
    connect: &dyn Fn() -> Result<Box<dyn Control>, CliError>,
) -> Result<(), CliError> {
    match verb {
        Verb::Bundle(args) => make_bundle(args, output),
        Verb::Root(args) => make_root(&args),
        Verb::Verify { file, trust, any_node } => {
            let store = trust.store(dir);
            let authentic = authenticate(&file, &store)?;
            if !any_node {
                authentic.suits(&this_node())?;
            }
            let mut bar = Bar::new();
            let checked = authentic.check_payload(&mut |done, all| bar.show("checking", done, all))?;
            let verified = Verified { manifest: checked.manifest(), trusted_root: checked.root().version };
            print(output, &verified, |v| manifest_table(v.manifest))
        }
        Verb::Install { file, trust, disk } => {
            let store = trust.store(dir);
            let authentic = authenticate(&file, &store)?;
            let mut node = this_node();
            if disk.disk.is_some() {
                // Another machine's disk: what runs here says nothing about it.
                node.version = None;
            }
            authentic.suits(&node)?;
            let mut bar = Bar::new();
            let checked = authentic.check_payload(&mut |done, all| bar.show("checking", done, all))?;
            let (target, running) = disk.open(true)?;
            store.remember(checked.root(), checked.manifest().created)?;
            let installed = install(&checked, &target, running.as_ref(), &mut |stage, done, all| {
                bar.show(words(stage), done, all);
            })?;
            print(output, &installed, |i| {
                let what = if i.was_there { "is there already" } else { "is written" };
                vec![vec![format!(
                    "version {} {what} ({}, {}); reboot to try it, `basalt upgrade rollback` to cancel",
                    i.version, i.partition, i.file
                )]]
            })
        }
        Verb::Disk(args) => make(args, output, dir),
        Verb::Grow { disk } => {
            let media = FileMedia::open_shared(&disk)
                .map_err(|e| CliError::Failed(format!("{}: {e}", disk.display())))?;
            print(output, &grow_state(&media)?, |grown| {
                vec![vec![match grown {
                    Some(g) => format!("the state partition has {} MiB now", g.len_bytes >> 20),
                    None => "the state partition ends where the disk does".into(),
                }]]
            })
        }
        Verb::Status { disk } => {
            let (disk, running) = disk.open(false)?;
            print(output, &slots::status(&disk, running.as_ref())?, status_table)
        }
        Verb::Bless { disk, timeout, settle, no_data_plane, health } => {
            let (disk, running) = disk.open_with_current(true)?;
            let mut checks = ProgramCheck::all_in(&health, Duration::from_secs(30));
            if !no_data_plane {
                checks.insert(0, Box::new(DataPlane { connect }));
            }
            let patience = Patience {
                timeout: Duration::from_secs(timeout),
                settle: Duration::from_secs(settle),
                every: Duration::from_secs(1),
            };
            let mut last = String::new();
            gate(&mut checks, patience, &mut |news| {
                if news != last {
                    eprintln!("{news}");
                    news.clone_into(&mut last);
                }
            })?;
            let blessed = bless(&disk, &running)?;
            print(output, &serde_json::json!({ "blessed": blessed }), |_| {
                vec![vec![if blessed { "blessed" } else { "was blessed already" }.into()]]
            })
        }
        Verb::Rollback { disk } => {
            let (disk, running) = disk.open_with_current(true)?;
            print(output, &roll_back(&disk, &running)?, |done| {
                vec![vec![match done {
                    RolledBack::Cancelled { version } => format!("version {version} will not be booted"),
                    RolledBack::To { version } => {
                        format!("the next boot takes version {version}; reboot to go there")
                    }
                }]]
            })
        }
    }
}

fn make(args: MakeArgs, output: Output, dir: &Path) -> Result<(), CliError> {
    let store = args.trust.store(dir);
    let authentic = authenticate(&args.file, &store)?;
    // What runs here says nothing about a disk that is made anew.
    authentic.suits(&Node { version: None, ..this_node() })?;
    let boot_loader = std::fs::read(&args.boot_loader).map_err(|e| {
        CliError::Failed(format!(
            "{}: {e}; an installed Basalt has it, elsewhere name systemd-boot with --boot-loader",
            args.boot_loader.display()
        ))
    })?;
    // Before minutes are spent on the bundle.
    let media = FileMedia::open(&args.disk).map_err(|e| match e.raw_os_error() {
        Some(EBUSY) => UpgradeError::InUse.into(),
        _ => CliError::Failed(format!("{}: {e}", args.disk.display())),
    })?;
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", args.disk.display()));
    let sector_bytes = media.sector_bytes().map_err(failed)?;
    let (mut bar, mut tenths) = (Bar::new(), Tenths::new(args.tenths));
    let checked = authentic.check_payload(&mut |done, all| {
        bar.show("checking", done, all);
        tenths.show("checking", done, all);
    })?;
    let recipe = Recipe {
        boot_loader: &boot_loader,
        wipe: args.wipe,
        sector_bytes,
        sizes: Sizes::default(),
        seed: random().ok_or_else(|| CliError::Failed("the system has no random numbers".into()))?,
    };
    let media: Arc<dyn Media> = Arc::new(media);
    let made = make_disk(&checked, &media, &recipe, &mut |stage, done, all| {
        bar.show(words(stage), done, all);
        tenths.show(words(stage), done, all);
    })?;
    print(output, &made, |m| {
        let wiped = m.wiped.as_ref().map_or(String::new(), |what| format!("; {what} is gone"));
        vec![vec![format!(
            "{} boots version {} ({}), with {} MiB for state{wiped}",
            args.disk.display(),
            m.version,
            m.file,
            m.state_bytes >> 20
        )]]
    })
}

fn words(stage: Stage) -> &'static str {
    match stage {
        Stage::WriteRoot => "writing root",
        Stage::ReadBackRoot => "reading back",
        Stage::WriteKernel => "writing kernel",
    }
}

fn authenticate(file: &Path, store: &TrustStore) -> Result<Authentic<File>, UpgradeError> {
    let opened = File::open(file)
        .map_err(|e| UpgradeError::NotABundle(format!("{} cannot be opened: {e}", file.display())))?;
    Bundle::open(opened)?.authenticate(&store.root()?, store.now_s()?)
}

fn make_bundle(args: BundleArgs, output: Output) -> Result<(), CliError> {
    let path = args.image.join("manifest.json");
    let text = std::fs::read(&path).map_err(|e| {
        CliError::Failed(format!(
            "{}: {e}; run `make image` first, or name its output with --image",
            path.display()
        ))
    })?;
    let odd = |what: &str| CliError::Failed(format!("{}: {what}; build the image again", path.display()));
    let image: Value = serde_json::from_slice(&text).map_err(|e| odd(&e.to_string()))?;
    let word = |key: &str| image[key].as_str().ok_or_else(|| odd(&format!("no {key}")));
    let version: Version = word("version")?.parse().map_err(|e: String| odd(&e))?;
    let spec = format!("{}:{}:{}", word("root_hash")?, image["root_data_blocks"], word("root_salt")?);
    let minimum = image["minimum_version"].as_str().and_then(|v| v.parse().ok());
    let hardware =
        image["hardware"].as_array().into_iter().flatten().filter_map(|h| h.as_str().map(str::to_owned));
    let mut key_chain = Vec::new();
    for file in &args.root {
        let bytes = read_file(file)?;
        key_chain.extend(format::decode_roots(&bytes)?);
    }
    let now = now_s();
    let recipe = bundle::Recipe {
        version,
        architecture: word("architecture")?.to_owned(),
        created: now,
        expires: now + args.days * DAY_S,
        minimum_version: args.minimum_version.or(minimum).ok_or_else(|| {
            CliError::Usage("name the oldest version it may be installed from with --minimum-version".into())
        })?,
        hardware: if args.hardware.is_empty() { hardware.collect() } else { args.hardware },
        notes: args.notes,
        root_id: spec.parse().map_err(|e: String| odd(&e))?,
        key_chain,
    };
    let signers = args.sign.iter().map(|p| SigningKey::read(p)).collect::<Result<Vec<_>, _>>()?;
    let open = |name: String| {
        let path = args.image.join(name);
        File::open(&path)
            .map_err(|e| CliError::Failed(format!("{}: {e}; build the image again", path.display())))
    };
    let (uki, root) = (open(format!("basalt_{version}.efi"))?, open(format!("basalt_{version}.root"))?);
    // A bundle is whole or not there: it gets its name when it is on the disk.
    let partial = args.out.with_added_extension("part");
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", partial.display()));
    let mut out = std::io::BufWriter::new(File::create(&partial).map_err(failed)?);
    let manifest = build(recipe, uki, root, &signers, &mut out)?;
    out.get_ref().sync_all().map_err(failed)?;
    // What no node would take is found here, not in the field.
    let publics: Vec<[u8; 32]> = signers.iter().map(SigningKey::public).collect();
    let chain_end = Bundle::open(File::open(&partial).map_err(failed)?)?;
    if args.root.is_empty() {
        let mut bar = Bar::new();
        chain_end
            .authenticate(&Root::of_keys(&publics), now)?
            .check_payload(&mut |done, all| bar.show("checking", done, all))?;
    }
    std::fs::rename(&partial, &args.out).map_err(failed)?;
    print(output, &manifest, manifest_table)
}

fn make_root(args: &RootArgs) -> Result<(), CliError> {
    let publics = |paths: &[PathBuf]| paths.iter().map(|p| read_public(p)).collect::<Result<Vec<_>, _>>();
    let (root_keys, release_keys) = (publics(&args.root_key)?, publics(&args.release_key)?);
    let id = |public: &[u8; 32]| hex(&key_id(public));
    let root = Root {
        version: args.number,
        expires: now_s() + args.days * DAY_S,
        keys: root_keys.iter().chain(&release_keys).map(|k| (id(k), hex(k))).collect(),
        root: Role { threshold: args.root_threshold, keys: root_keys.iter().map(id).collect() },
        release: Role { threshold: args.release_threshold, keys: release_keys.iter().map(id).collect() },
    };
    let signers = args.sign.iter().map(|p| SigningKey::read(p)).collect::<Result<Vec<_>, _>>()?;
    let signed = sign_root(&root, &signers)?;
    std::fs::write(&args.out, format::encode_roots(&[signed]))
        .map_err(|e| CliError::Failed(format!("{}: {e}", args.out.display())))
}

fn read_file(path: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(path).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
}

/// The data plane answers and its pool, if it has one, takes writes.
struct DataPlane<'a> {
    connect: &'a dyn Fn() -> Result<Box<dyn Control>, CliError>,
}

impl Check for DataPlane<'_> {
    fn name(&self) -> String {
        "data plane".into()
    }
    fn probe(&mut self) -> Result<(), String> {
        let ask = || -> Result<Vec<Value>, CliError> {
            let mut control = (self.connect)()?;
            call(&mut *control, "basalt_pool_list", serde_json::json!({}))
        };
        let pools = ask().map_err(|e| e.to_string())?;
        let stopped =
            pools.iter().filter_map(|p| p["health"].as_str()).find(|h| h.starts_with("writes stopped"));
        stopped.map_or(Ok(()), |h| Err(h.to_owned()))
    }
}

fn manifest_table(m: &Manifest) -> Vec<Row> {
    let rows = [
        ("version", m.version.to_string()),
        ("architecture", m.architecture.clone()),
        ("hardware", m.hardware.join(", ")),
        ("installs from", m.minimum_version.to_string()),
        ("made", rfc3339(m.created)),
        ("expires", rfc3339(m.expires)),
        ("root hash", m.root_hash.clone()),
        ("notes", m.notes.clone()),
    ];
    rows.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| vec![k.to_owned(), v]).collect()
}

fn status_table(status: &Status) -> Vec<Row> {
    let mut rows = vec![
        ["VERSION", "STATE", "TRIES LEFT", "PARTITION", "RUNNING", "NEXT BOOT"].map(String::from).to_vec(),
    ];
    rows.extend(status.slots.iter().map(|s| {
        let yes = |b: bool| if b { "yes" } else { "-" }.to_owned();
        vec![
            s.version.to_string(),
            format!("{:?}", s.state).to_lowercase(),
            s.tries_left.map_or("-".into(), |n| n.to_string()),
            s.partition.unwrap_or("none: cannot boot").to_owned(),
            yes(s.running),
            yes(s.next),
        ]
    }));
    rows
}

/// Progress on a terminal: one line, ten times a second.
struct Bar {
    shown: Option<Instant>,
}

impl Bar {
    fn new() -> Bar {
        Bar { shown: None }
    }
    fn show(&mut self, what: &str, done: u64, all: u64) {
        let due = done == all || self.shown.is_none_or(|at| at.elapsed() > Duration::from_millis(100));
        if !due || !std::io::stderr().is_terminal() {
            return;
        }
        self.shown = Some(Instant::now());
        let percent = done * 100 / all.max(1);
        let end = if done == all { "\n" } else { "" };
        eprint!("\r{what}: {percent:3} % of {} MiB {end}", all.div_ceil(1 << 20));
        let _ = std::io::stderr().flush();
    }
}

/// Progress for programs: `STAGE PERCENT` on standard output, each time a tenth of a stage is done.
struct Tenths {
    wanted: bool,
    last: Option<(&'static str, u64)>,
}

impl Tenths {
    fn new(wanted: bool) -> Tenths {
        Tenths { wanted, last: None }
    }
    fn show(&mut self, what: &'static str, done: u64, all: u64) {
        let now = Some((what, done * 10 / all.max(1)));
        if self.wanted && now != self.last {
            println!("{what} {}", now.map_or(0, |(_, tenths)| tenths * 10));
            self.last = now;
        }
    }
}
