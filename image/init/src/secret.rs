//! The node secret: 32 bytes of the node's own, sealed by its TPM so that only a boot image of the image's owner, under the
//! same Secure Boot keys, gets them back. It is the key-encryption key of pools, at [`KEY_FILE`].
//!
//! Sealed under `PolicyAuthorize(owner's key)` and then `PolicyPCR(7)` (TPM 2.0 part 3, 23.16 and 23.7). The owner's key signs for
//! each boot image the value of PCR 11 that the boot stub's measurements lead to (systemd's `systemd-measure`), so an upgrade needs no
//! sealing anew, and another owner's or a changed image has no signature for what was measured. PCR 7 is the state of Secure Boot.
//! What runs later than this cannot unseal: PCR 11 is extended once more.

use crate::console::say;
use crate::services::{BASALT_GID, BASALT_UID};
use crate::verity::{hex, unhex};
use base64::Engine;
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// Where the boot stub puts what the image's owner signed (systemd-stub(7)), in the initrd.
const FROM_STUB: &str = "/.extra";
const SIGNATURES: &str = "tpm2-pcr-signature.json";
const PUBLIC_KEY: &str = "tpm2-pcr-public-key.pem";
const HANDED_ON: &str = "/run/basalt-measured";

const TPM: &str = "/dev/tpmrm0";
const SEALED: &str = "/var/lib/basalt-secret";
pub(crate) const KEY_FILE: &str = "/run/basalt/keys/node.key";
const SECRET_BYTES: usize = 32;

type Secret = Zeroizing<Vec<u8>>;

/// Stage 1: the initrd goes, so what the stub put there is carried over.
pub(crate) fn hand_on() {
    let _ = fs::create_dir_all(HANDED_ON);
    for name in [SIGNATURES, PUBLIC_KEY] {
        // Missing where nothing was measured: no TPM, no UEFI, or no key of the owner for it.
        let _ = fs::copy(Path::new(FROM_STUB).join(name), Path::new(HANDED_ON).join(name));
    }
}

/// Stage 2, with the state partition mounted: seals a new secret at the first boot, unseals it at every other. A node without one
/// goes on, as only encrypted pools need it.
pub(crate) fn prepare(state_is_kept: bool) {
    let public_key = Path::new(HANDED_ON).join(PUBLIC_KEY);
    if !Path::new(TPM).exists() {
        say(&"node secret: none, this machine has no TPM 2.0");
    } else if !public_key.exists() {
        say(
            &"node secret: none, this boot was not measured against signed values (it needs UEFI, and an image built with pcr.key)",
        );
    } else if !state_is_kept {
        say(&"node secret: none, there is no state partition to keep it sealed on");
    } else {
        match Session::begin().and_then(|session| session.secret()) {
            // The digest tells secrets apart and says nothing of them.
            Ok((secret, how)) => match publish(&secret) {
                Ok(()) => say(&format_args!("node secret {}: {how}", &hex(&Sha256::digest(&*secret))[..8])),
                Err(e) => say(&format_args!("node secret: {KEY_FILE}: {e}")),
            },
            Err(e) => say(&format_args!("node secret: {e}")),
        }
    }
    let _ = fs::remove_dir_all(HANDED_ON);
}

fn publish(secret: &Secret) -> std::io::Result<()> {
    let path = Path::new(KEY_FILE);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
        fs::set_permissions(dir, Permissions::from_mode(0o711))?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(secret)?;
    std::os::unix::fs::chown(path, Some(BASALT_UID), Some(BASALT_GID))
}

/// The owner's word that a boot image of theirs leads to this value of PCR 11.
struct Signed {
    policy: Vec<u8>,
    signature: Vec<u8>,
}

/// Format of `systemd-measure sign`: `{"sha256":[{"pcrs":[11],"pkfp":hex,"pol":hex,"sig":base64}]}`.
fn signed_policies(json: &str) -> Result<Vec<Signed>, String> {
    let value: serde_json::Value = serde_json::from_str(json).map_err(|e| e.to_string())?;
    let entries = value["sha256"].as_array().ok_or("no SHA-256 values in it")?;
    let one = |entry: &serde_json::Value| {
        let only_11 = entry["pcrs"].as_array().is_some_and(|p| p.len() == 1 && p[0] == 11);
        let policy = unhex(entry["pol"].as_str()?).filter(|p| p.len() == 32)?;
        let signature = base64::engine::general_purpose::STANDARD.decode(entry["sig"].as_str()?).ok()?;
        only_11.then_some(Signed { policy, signature })
    };
    Ok(entries.iter().take(64).filter_map(one).collect())
}

/// A directory for the TPM tools' files, and PCR 11 open to be unsealed with; dropping it closes that for good.
struct Session {
    dir: PathBuf,
}

impl Session {
    fn begin() -> Result<Session, String> {
        let session = Session { dir: PathBuf::from("/run/basalt-tpm") };
        fs::create_dir_all(&session.dir).map_err(|e| format!("{}: {e}", session.dir.display()))?;
        // The point in a boot that the owner signed for, named as systemd names it.
        session.extend("enter-initrd")?;
        Ok(session)
    }

    fn extend(&self, phase: &str) -> Result<(), String> {
        let value = format!("11:sha256={}", hex(&Sha256::digest(phase)));
        self.tool("pcrextend", &[&value], None).map(|_| ())
    }

    /// Runs `tpm2 NAME`; its output.
    fn tool(&self, name: &str, arguments: &[&str], input: Option<&[u8]>) -> Result<Secret, String> {
        let failed = |e: std::io::Error| format!("tpm2 {name}: {e}");
        let mut child = Command::new("/usr/bin/tpm2")
            .arg(name)
            .args(arguments)
            .current_dir(&self.dir)
            .env_clear()
            .env("TPM2TOOLS_TCTI", format!("device:{TPM}"))
            .env("TSS2_LOG", "all+NONE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.unwrap_or_default()).map_err(failed)?;
        }
        let mut output = Zeroizing::new(Vec::with_capacity(4096));
        if let Some(stdout) = &mut child.stdout {
            stdout.take(4096).read_to_end(&mut output).map_err(failed)?;
        }
        let ended = child.wait_with_output().map_err(failed)?;
        if ended.status.success() {
            return Ok(output);
        }
        let words = String::from_utf8_lossy(&ended.stderr);
        let cause = words.lines().find(|l| l.contains("ERROR")).unwrap_or("it says nothing").trim();
        Err(format!("tpm2 {name}: {}: {cause}", ended.status))
    }

    /// The secret, and how it was come by.
    fn secret(&self) -> Result<(Secret, &'static str), String> {
        let key = format!("{HANDED_ON}/{PUBLIC_KEY}");
        // The same at every boot: a primary key is made from the TPM's own seed and this template. It has no authorisation that
        // could be guessed, and without `noda` a few losses of power would lock it (part 1, 19.8: dictionary attacks).
        let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda";
        self.tool(
            "createprimary",
            &["-Q", "-C", "o", "-G", "ecc256", "-a", attributes, "-c", "primary"],
            None,
        )?;
        self.tool(
            "loadexternal",
            &["-Q", "-C", "o", "-G", "rsa", "-u", &key, "-c", "key", "-n", "key.name"],
            None,
        )?;
        let sealed = Path::new(SEALED);
        if sealed.join("private").exists() {
            let secret = self.unseal(sealed)?;
            return Ok((secret, "unsealed by the TPM"));
        }
        let secret = self.seal()?;
        // Proven before it is kept: a secret that this image cannot get back would be lost with the next boot.
        if *self.unseal(&self.dir)? != *secret {
            return Err(
                "the TPM gave back another secret than was sealed; replace it, or switch it off".to_owned()
            );
        }
        keep(&self.dir, sealed).map_err(|e| format!("{SEALED}: {e}"))?;
        Ok((secret, "new, sealed by the TPM to the owner's images and the state of Secure Boot"))
    }

    fn seal(&self) -> Result<Secret, String> {
        let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
        File::open("/dev/urandom")
            .and_then(|mut f| f.read_exact(&mut secret))
            .map_err(|e| format!("/dev/urandom: {e}"))?;
        self.tool("startauthsession", &["-S", "trial"], None)?;
        self.tool("policyauthorize", &["-S", "trial", "-n", "key.name"], None)?;
        self.tool("policypcr", &["-S", "trial", "-l", "sha256:7", "-L", "policy"], None)?;
        self.tool("flushcontext", &["trial"], None)?;
        let attributes = "fixedtpm|fixedparent|noda";
        let create = [
            "-Q", "-C", "primary", "-u", "public", "-r", "private", "-L", "policy", "-a", attributes, "-i",
            "-",
        ];
        self.tool("create", &create, Some(&secret))?;
        Ok(secret)
    }

    fn unseal(&self, sealed: &Path) -> Result<Secret, String> {
        let refused = |cause: String| {
            format!(
                "kept back by the TPM: {cause}; boot an image of the owner it was sealed for, with the Secure Boot keys of then"
            )
        };
        let (public, private) = (sealed.join("public"), sealed.join("private"));
        let load = [
            "-Q",
            "-C",
            "primary",
            "-u",
            &public.to_string_lossy(),
            "-r",
            &private.to_string_lossy(),
            "-c",
            "sealed",
        ];
        self.tool("load", &load, None).map_err(&refused)?;
        self.tool("startauthsession", &["--policy-session", "-S", "session"], None)?;
        let unsealed = self.unseal_in_session().map_err(&refused);
        let _ = self.tool("flushcontext", &["session"], None);
        unsealed
    }

    fn unseal_in_session(&self) -> Result<Secret, String> {
        self.tool("policypcr", &["-S", "session", "-l", "sha256:11", "-L", "measured"], None)?;
        let measured = fs::read(self.dir.join("measured")).map_err(|e| e.to_string())?;
        let json = fs::read_to_string(Path::new(HANDED_ON).join(SIGNATURES))
            .map_err(|e| format!("{SIGNATURES}: {e}"))?;
        let signed = signed_policies(&json).map_err(|e| format!("{SIGNATURES}: {e}"))?;
        let ours = signed.iter().find(|s| s.policy == measured);
        let ours =
            ours.ok_or("what was measured at this boot (PCR 11) is not what the image's owner signed")?;
        fs::write(self.dir.join("signature"), &ours.signature).map_err(|e| e.to_string())?;
        let verify = [
            "-c",
            "key",
            "-g",
            "sha256",
            "-m",
            "measured",
            "-s",
            "signature",
            "-f",
            "rsassa",
            "-t",
            "ticket",
        ];
        self.tool("verifysignature", &verify, None)?;
        self.tool(
            "policyauthorize",
            &["-S", "session", "-i", "measured", "-n", "key.name", "-t", "ticket"],
            None,
        )?;
        self.tool("policypcr", &["-S", "session", "-l", "sha256:7"], None)?;
        let secret = self.tool("unseal", &["-c", "sealed", "-p", "session:session"], None)?;
        if secret.len() == SECRET_BYTES {
            Ok(secret)
        } else {
            Err(format!("it holds {} bytes", secret.len()))
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Err(e) = self.extend("leave-initrd") {
            say(&format_args!("node secret: what runs from here on can unseal it too: {e}"));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Both halves or none, whatever the power does: the directory gets its name last.
fn keep(from: &Path, to: &Path) -> std::io::Result<()> {
    let new = to.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir(&new)?;
    for name in ["public", "private"] {
        let mut file = File::create(new.join(name))?;
        file.write_all(&fs::read(from.join(name))?)?;
        file.sync_all()?;
    }
    File::open(&new)?.sync_all()?;
    fs::rename(&new, to)?;
    File::open(to.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_values_of_pcr_11_count() {
        let policy = "ab".repeat(32);
        let entry = |pcrs: &str, policy: &str, sig: &str| {
            format!(r#"{{"pcrs":[{pcrs}],"pkfp":"00","pol":"{policy}","sig":"{sig}"}}"#)
        };
        let json = [
            entry("11", &policy, "AQID"),
            entry("7,11", &policy, "AQID"),
            entry("11", "ab", "AQID"),
            entry("11", &policy, "not base64"),
        ];
        let signed = signed_policies(&format!(r#"{{"sha256":[{}]}}"#, json.join(","))).unwrap();
        assert_eq!(signed.len(), 1);
        assert_eq!((signed[0].policy.len(), signed[0].signature.as_slice()), (32, &[1, 2, 3][..]));
        for bad in ["", "{}", r#"{"sha1":[]}"#, "[1]", r#"{"sha256":1}"#] {
            assert!(signed_policies(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_sealed_secret_is_kept_whole() {
        let dir = std::env::temp_dir().join(format!("basalt-secret-{}", std::process::id()));
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("public"), "p").unwrap();
        assert!(keep(&from, &to).is_err() && !to.exists());
        fs::write(from.join("private"), "q").unwrap();
        keep(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("private")).unwrap(), b"q");
        fs::remove_dir_all(&dir).unwrap();
    }
}
