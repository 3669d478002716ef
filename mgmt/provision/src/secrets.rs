//! Users and passwords of BMCs, encrypted at rest: ChaCha20-Poly1305 under a key that Argon2id derives from a passphrase (RFC 9106).
//! In memory they are zeroed when they go.

use crate::error::{ProvisionError, Result};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

const FORMAT: u32 = 1;
const SALT_BYTES: usize = 16;
/// The second recommendation of RFC 9106, section 4, is 64 MiB and three passes: a tenth of a second on a server.
const MEMORY_KIB: u32 = 64 << 10;
const PASSES: u32 = 3;
/// What a file may ask of us.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 32;
const MAX_BYTES: u64 = 16 << 20;
/// Bound to the ciphertext, so that another file of ours is not taken for this one.
const PURPOSE: &[u8] = b"basalt node secrets 1";

#[derive(Clone)]
pub struct Credential {
    pub user: String,
    pub password: Zeroizing<String>,
}

/// The decrypted secrets. Cheap to clone.
#[derive(Clone, Default)]
pub struct Vault {
    entries: Arc<BTreeMap<String, Credential>>,
}

/// The file and the key to it.
pub struct VaultFile {
    path: PathBuf,
    passphrase: Zeroizing<String>,
}

#[derive(Serialize, Deserialize)]
struct Sealed {
    format: u32,
    kdf: Kdf,
    nonce: String,
    ciphertext: String,
}

#[derive(Serialize, Deserialize)]
struct Kdf {
    name: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
}

#[derive(Serialize, Deserialize)]
struct Plain {
    credentials: BTreeMap<String, PlainCredential>,
}

#[derive(Serialize, Deserialize)]
struct PlainCredential {
    user: String,
    password: Zeroizing<String>,
}

impl Vault {
    pub fn get(&self, name: &str) -> Option<Credential> {
        self.entries.get(name).cloned()
    }
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }
    /// With one more, in memory alone.
    pub fn with(&self, name: &str, credential: Credential) -> Vault {
        let mut entries = (*self.entries).clone();
        entries.insert(name.to_owned(), credential);
        Vault { entries: Arc::new(entries) }
    }
}

impl VaultFile {
    pub fn new(path: &Path, passphrase: Zeroizing<String>) -> VaultFile {
        VaultFile { path: path.to_owned(), passphrase }
    }

    /// Nothing is in a file that is not there.
    pub fn read(&self) -> Result<Vault> {
        let damaged =
            |why: &str| ProvisionError::Damaged { path: self.path.display().to_string(), why: why.into() };
        let text = match fs::metadata(&self.path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vault::default()),
            Ok(meta) if meta.len() > MAX_BYTES => return Err(damaged("it is too large")),
            _ => fs::read(&self.path)
                .map_err(ProvisionError::io(format!("reading {}", self.path.display())))?,
        };
        let sealed: Sealed = serde_json::from_slice(&text).map_err(|e| damaged(&e.to_string()))?;
        if sealed.format != FORMAT || sealed.kdf.name != "argon2id" {
            return Err(damaged("it is of a newer version"));
        }
        if sealed.kdf.memory_kib > MAX_MEMORY_KIB || sealed.kdf.passes > MAX_PASSES {
            return Err(damaged("its key asks for more memory or time than any of ours"));
        }
        let decode = |text: &str| BASE64_STANDARD.decode(text).map_err(|_| damaged("it is not base64"));
        let salt = decode(&sealed.kdf.salt)?;
        let nonce = decode(&sealed.nonce)?.try_into().map_err(|_| damaged("its nonce is cut"))?;
        let mut bytes = Zeroizing::new(decode(&sealed.ciphertext)?);
        let key = self.key(&salt, sealed.kdf.memory_kib, sealed.kdf.passes)?;
        let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut bytes);
        let opened = opened.map_err(|_| {
            let path = self.path.display();
            ProvisionError::Invalid(format!("the passphrase does not open {path}, or the file was changed"))
        })?;
        let plain: Plain = serde_json::from_slice(opened).map_err(|_| damaged("its contents are odd"))?;
        let entry =
            |(name, c): (String, PlainCredential)| (name, Credential { user: c.user, password: c.password });
        Ok(Vault { entries: Arc::new(plain.credentials.into_iter().map(entry).collect()) })
    }

    /// Adds, replaces or (None) takes out one entry; the file is replaced whole under a new salt and nonce.
    pub fn change(&self, name: &str, credential: Option<Credential>) -> Result<Vault> {
        let mut entries = (*self.read()?.entries).clone();
        match credential {
            Some(credential) => drop(entries.insert(name.to_owned(), credential)),
            None => drop(entries.remove(name)),
        }
        let plain = Plain {
            credentials: entries
                .iter()
                .map(|(name, c)| {
                    (name.clone(), PlainCredential { user: c.user.clone(), password: c.password.clone() })
                })
                .collect(),
        };
        let no_random = |_| ProvisionError::Invalid("the system gives no random numbers".into());
        let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_LEN]);
        let random = SystemRandom::new();
        random.fill(&mut salt).map_err(no_random)?;
        random.fill(&mut nonce).map_err(no_random)?;
        let odd = |what: &str| ProvisionError::Invalid(format!("secrets cannot be encrypted: {what}"));
        let mut bytes = Zeroizing::new(serde_json::to_vec(&plain).map_err(|e| odd(&e.to_string()))?);
        let key = self.key(&salt, MEMORY_KIB, PASSES)?;
        // The tag apart: appending could move the plain text and leave a copy of it behind.
        let tag = key
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut bytes)
            .map_err(|_| odd("too long"))?;
        let ciphertext = [&bytes[..], tag.as_ref()].concat();
        let sealed = Sealed {
            format: FORMAT,
            kdf: Kdf {
                name: "argon2id".into(),
                memory_kib: MEMORY_KIB,
                passes: PASSES,
                salt: BASE64_STANDARD.encode(salt),
            },
            nonce: BASE64_STANDARD.encode(nonce),
            ciphertext: BASE64_STANDARD.encode(ciphertext),
        };
        let mut text = serde_json::to_vec_pretty(&sealed).map_err(|e| odd(&e.to_string()))?;
        text.push(b'\n');
        crate::store::replace(&self.path, &text)
            .map_err(ProvisionError::io(format!("writing {}", self.path.display())))?;
        Ok(Vault { entries: Arc::new(entries) })
    }

    fn key(&self, salt: &[u8], memory_kib: u32, passes: u32) -> Result<LessSafeKey> {
        let odd =
            |e: &dyn std::fmt::Display| ProvisionError::Invalid(format!("no key from the passphrase: {e}"));
        let params = Params::new(memory_kib, passes, 1, Some(32)).map_err(|e| odd(&e))?;
        let mut key = Zeroizing::new([0u8; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(self.passphrase.as_bytes(), salt, key.as_mut())
            .map_err(|e| odd(&e))?;
        let key = UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).map_err(|e| odd(&e))?;
        Ok(LessSafeKey::new(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_encrypted_and_refused_with_another_passphrase() {
        let dir = std::env::temp_dir().join(format!("basalt-secrets-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("secrets.json");
        let file = |passphrase: &str| VaultFile::new(&path, Zeroizing::new(passphrase.into()));
        assert_eq!(file("right").read().unwrap().names().count(), 0);
        let credential = Credential { user: "root".into(), password: Zeroizing::new("hunter2".into()) };
        file("right").change("default", Some(credential)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("root"), "{text}");
        assert_eq!(*file("right").read().unwrap().get("default").unwrap().password, "hunter2");
        let refused = file("wrong").read().err().unwrap().to_string();
        assert!(refused.contains("passphrase does not open"), "{refused}");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // One bit of the ciphertext.
        let mut sealed: Sealed = serde_json::from_str(&text).unwrap();
        let mut bytes = BASE64_STANDARD.decode(&sealed.ciphertext).unwrap();
        bytes[3] ^= 1;
        sealed.ciphertext = BASE64_STANDARD.encode(bytes);
        fs::write(&path, serde_json::to_vec(&sealed).unwrap()).unwrap();
        assert!(file("right").read().is_err());
        sealed.kdf.memory_kib = u32::MAX;
        fs::write(&path, serde_json::to_vec(&sealed).unwrap()).unwrap();
        assert!(file("right").read().err().unwrap().to_string().contains("more memory"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
