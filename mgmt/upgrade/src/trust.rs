//! Whom a node believes. The rules are those of The Update Framework, as far as one file without a network needs them:
//!
//! * A *root* names keys and how many of them must sign what: `root` signs the next root, `release` signs bundles.
//! * A bundle carries the roots that came after the one its oldest reader knows. A node walks them one by one; each must
//!   be signed by enough root keys of the one before it *and* of itself (TUF 5.3), so a stolen release key is replaced
//!   without touching a node.
//! * Roots and bundles expire. A node never goes back to an older root, and its idea of the time never goes back either.
//!
//! An image brings public keys in `/usr/share/basalt/keys/*.pem`. They are root 0: any one of them may sign, until the first
//! root that they signed replaces them.

use crate::error::{Result, UpgradeError};
use crate::time::rfc3339;
use ring::digest::{SHA256, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What a signature covers begins with one of these, so that none can be taken for the other.
const ROOT_CONTEXT: &[u8] = b"basalt upgrade root, version 1\0";
const BUNDLE_CONTEXT: &[u8] = b"basalt upgrade bundle, version 1\0";
/// DER of an Ed25519 public key up to the key itself (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const MAX_KEYS: usize = 64;
/// A root is some keys in JSON.
pub(crate) const MAX_ROOT_BYTES: usize = 64 << 10;

pub type KeyId = [u8; 32];

/// SHA-256 of the raw public key.
pub fn key_id(public: &[u8]) -> KeyId {
    let mut id = [0; 32];
    id.copy_from_slice(digest(&SHA256, public).as_ref());
    id
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub key: KeyId,
    pub bytes: [u8; 64],
}

/// One root as it is signed: the bytes are kept as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRoot {
    pub payload: Vec<u8>,
    pub signatures: Vec<Signature>,
}

/// A root, JSON inside [`SignedRoot::payload`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    pub version: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// Ed25519 public keys in hexadecimal, under the names that the roles use.
    pub keys: BTreeMap<String, String>,
    pub root: Role,
    pub release: Role,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub threshold: usize,
    pub keys: BTreeSet<String>,
}

impl Root {
    /// Root 0: any one of these keys may sign anything.
    pub fn of_keys(publics: &[[u8; 32]]) -> Root {
        let keys: BTreeMap<String, String> = publics.iter().map(|p| (hex(&key_id(p)), hex(p))).collect();
        let role = Role { threshold: 1, keys: keys.keys().cloned().collect() };
        Root { version: 0, expires: u64::MAX, keys, root: role.clone(), release: role }
    }

    fn parse(payload: &[u8]) -> Result<Root> {
        let damaged = |why: String| UpgradeError::Damaged(format!("its key chain: {why}"));
        let root: Root = serde_json::from_slice(payload).map_err(|e| damaged(e.to_string()))?;
        if root.keys.len() > MAX_KEYS {
            return Err(damaged(format!("more than {MAX_KEYS} keys")));
        }
        for (name, role) in [("root", &root.root), ("release", &root.release)] {
            if role.threshold == 0 || role.threshold > role.keys.len() {
                return Err(damaged(format!("the threshold of {name} is {}", role.threshold)));
            }
        }
        Ok(root)
    }

    fn public(&self, id: &KeyId) -> Option<Vec<u8>> {
        let public = unhex(self.keys.get(&hex(id))?)?;
        // A key under another key's name would let one key count twice.
        (key_id(&public) == *id).then_some(public)
    }

    /// How many different keys of the role signed `message`. A signature of one of its keys that does not verify is an error.
    fn signers(&self, role: &Role, message: &[u8], signatures: &[Signature]) -> Result<usize> {
        let mut seen = BTreeSet::new();
        for signature in signatures {
            if !role.keys.contains(&hex(&signature.key)) {
                continue;
            }
            let Some(public) = self.public(&signature.key) else { continue };
            UnparsedPublicKey::new(&ED25519, public).verify(message, &signature.bytes).map_err(|_| {
                UpgradeError::Untrusted(format!(
                    "the signature by key {} does not match what it signs: it was changed or damaged; copy it again, and if \
                     that does not help do not use it and tell its vendor",
                    short(&signature.key)
                ))
            })?;
            seen.insert(signature.key);
        }
        Ok(seen.len())
    }

    /// Walks the chain of a bundle from this root on.
    pub fn advance(&self, chain: &[SignedRoot]) -> Result<Root> {
        let mut trusted = self.clone();
        for link in chain {
            let next = Root::parse(&link.payload)?;
            if next.version <= trusted.version {
                continue;
            }
            if next.version != trusted.version + 1 {
                return Err(UpgradeError::Untrusted(format!(
                    "its key chain goes on with root {} and this node knows root {}; install a release in between first",
                    next.version, trusted.version
                )));
            }
            let message = [ROOT_CONTEXT, &link.payload].concat();
            for (which, root) in [("the root before it", &trusted), ("itself", &next)] {
                let have = root.signers(&root.root, &message, &link.signatures)?;
                if have < root.root.threshold {
                    return Err(UpgradeError::Untrusted(format!(
                        "root {} of its key chain has {have} of the {} signatures by keys of {which}; do not use it, and tell its \
                         vendor",
                        next.version, root.root.threshold
                    )));
                }
            }
            trusted = next;
        }
        Ok(trusted)
    }

    /// Enough release keys signed it, and every signature is by a key of this root.
    pub fn check_bundle(&self, covered: &[&[u8]], signatures: &[Signature], now_s: u64) -> Result<()> {
        let message = [&[BUNDLE_CONTEXT], covered].concat().concat();
        if let Some(stranger) = signatures.iter().find(|s| !self.release.keys.contains(&hex(&s.key))) {
            let known: Vec<String> = self.release.keys.iter().map(|k| k.chars().take(16).collect()).collect();
            return Err(UpgradeError::Untrusted(format!(
                "it is signed by key {}, and this node believes {} (root {}); get a bundle for this node's owner, or one signed with \
                 the newest keys",
                short(&stranger.key),
                known.join(", "),
                self.version
            )));
        }
        let have = self.signers(&self.release, &message, signatures)?;
        if have < self.release.threshold {
            return Err(UpgradeError::Untrusted(format!(
                "it has {have} signatures and needs {}; ask its vendor for one that is signed by all",
                self.release.threshold
            )));
        }
        if now_s > self.expires {
            return Err(UpgradeError::KeysExpired { expired: rfc3339(self.expires), now: rfc3339(now_s) });
        }
        Ok(())
    }
}

fn short(id: &KeyId) -> String {
    hex(&id[..8])
}

/// A private key, Ed25519, PKCS #8 in PEM as `openssl genpkey -algorithm ed25519` makes it.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    pub fn read(path: &Path) -> Result<SigningKey> {
        let say = |why: String| {
            UpgradeError::Untrusted(format!(
                "private key {}: {why}; make one with `openssl genpkey -algorithm ed25519 -out {}`",
                path.display(),
                path.display()
            ))
        };
        let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|e| say(e.to_string()))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
            .map_err(|e| say(format!("no Ed25519 key ({e})")))?;
        Ok(SigningKey(pair))
    }

    /// From a seed; for tests.
    #[doc(hidden)]
    pub fn from_seed(seed: u8) -> SigningKey {
        SigningKey(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed"))
    }

    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.0.sign(message).as_ref());
        Signature { key: key_id(&self.public()), bytes }
    }

    pub(crate) fn sign_bundle(&self, covered: &[&[u8]]) -> Signature {
        self.sign(&[&[BUNDLE_CONTEXT], covered].concat().concat())
    }
}

/// Signs a root with the keys of the one before it and its own.
pub fn sign_root(root: &Root, signers: &[SigningKey]) -> Result<SignedRoot> {
    let payload = serde_json::to_vec(root).map_err(|e| UpgradeError::Damaged(e.to_string()))?;
    Root::parse(&payload)?;
    let message = [ROOT_CONTEXT, &payload].concat();
    Ok(SignedRoot { signatures: signers.iter().map(|s| s.sign(&message)).collect(), payload })
}

/// A public key, SubjectPublicKeyInfo in PEM as `openssl pkey -pubout` makes it.
pub fn read_public(path: &Path) -> Result<[u8; 32]> {
    let say = |why: String| UpgradeError::Untrusted(format!("public key {}: {why}", path.display()));
    let der = SubjectPublicKeyInfoDer::from_pem_file(path).map_err(|e| say(e.to_string()))?;
    let raw = der.as_ref().strip_prefix(&SPKI_PREFIX).and_then(|raw| raw.try_into().ok());
    raw.ok_or_else(|| say("it is no Ed25519 key".into()))
}

/// What a node remembers of its trust, on the state partition: the newest root it saw, and the latest moment.
pub struct TrustStore {
    keys_dir: PathBuf,
    state_dir: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    root: Option<Root>,
    /// When the newest bundle that was installed had been made: it cannot be earlier now.
    #[serde(default)]
    time_floor_s: u64,
}

impl TrustStore {
    /// `keys_dir`: where the image keeps its public keys; `state_dir`: a directory that outlives upgrades.
    pub fn new(keys_dir: &Path, state_dir: &Path) -> TrustStore {
        TrustStore { keys_dir: keys_dir.to_owned(), state_dir: state_dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.state_dir.join("trust.json")
    }

    fn remembered(&self) -> Result<Remembered> {
        let path = self.path();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                UpgradeError::Untrusted(format!(
                    "{} is damaged ({e}); remove it to begin again with the keys of the image",
                    path.display()
                ))
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Remembered::default()),
            Err(e) => Err(UpgradeError::io(format!("reading {}", path.display()))(e)),
        }
    }

    /// The root this node believes: the newest it has seen, or the image's keys.
    pub fn root(&self) -> Result<Root> {
        if let Some(root) = self.remembered()?.root {
            return Ok(root);
        }
        let mut publics = Vec::new();
        let listed =
            fs::read_dir(&self.keys_dir).map(|dir| dir.flatten().map(|e| e.path()).collect::<Vec<_>>());
        for path in listed.unwrap_or_default() {
            if path.extension().is_some_and(|e| e == "pem") {
                publics.push(read_public(&path)?);
            }
        }
        if publics.is_empty() {
            return Err(UpgradeError::Untrusted(format!(
                "this machine has no keys to check it with: put the vendor's public key as NAME.pem into {}, or name a directory \
                 with --keys",
                self.keys_dir.display()
            )));
        }
        publics.sort_unstable();
        Ok(Root::of_keys(&publics))
    }

    /// The clock, or the time of the newest bundle seen where the clock is behind that (a dead battery).
    pub fn now_s(&self) -> Result<u64> {
        Ok(crate::time::now_s().max(self.remembered()?.time_floor_s))
    }

    /// Remembers a newer root and a later moment; durable when it returns.
    pub fn remember(&self, root: &Root, created_s: u64) -> Result<()> {
        let mut remembered = self.remembered()?;
        if root.version > remembered.root.as_ref().map_or(0, |r| r.version) {
            remembered.root = Some(root.clone());
        }
        remembered.time_floor_s = remembered.time_floor_s.max(created_s);
        let text =
            serde_json::to_vec_pretty(&remembered).map_err(|e| UpgradeError::Damaged(e.to_string()))?;
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.state_dir)?;
            let temporary = self.state_dir.join("trust.json.new");
            fs::write(&temporary, &text)?;
            fs::File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, self.path())?;
            fs::File::open(&self.state_dir)?.sync_all()
        };
        write().map_err(UpgradeError::io(format!("writing {}", self.path().display())))
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|d| d[0] << 4 | d[1]).collect())
}
