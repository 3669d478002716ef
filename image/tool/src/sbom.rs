//! The software bill of materials, CycloneDX 1.6: every Debian package and every crate that is in the image.

use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn make(version: &str, time_s: u64, debs: &Path, crates: &Path) -> Result<Value, String> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
    let mut components = Vec::new();
    for line in read(debs)?.lines() {
        components.push(deb(line).ok_or_else(|| format!("{}: not six fields: {line}", debs.display()))?);
    }
    for line in read(crates)?.lines() {
        components.push(
            krate(line)
                .ok_or_else(|| format!("{}: not `name vVERSION|LICENCE`: {line}", crates.display()))?,
        );
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": timestamp(time_s),
            "component": {"type": "operating-system", "bom-ref": "basalt", "name": "basalt", "version": version},
        },
        "components": components,
    }))
}

fn deb(line: &str) -> Option<Value> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, version, architecture, source, source_version, sha256] = fields[..] else { return None };
    let purl = format!("pkg:deb/debian/{name}@{}?arch={architecture}&distro=trixie", escape(version));
    Some(json!({
        "type": if name.starts_with("firmware-") { "firmware" } else { "library" },
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "properties": [
            {"name": "debian:source", "value": source},
            {"name": "debian:source-version", "value": source_version},
        ],
    }))
}

fn krate(line: &str) -> Option<Value> {
    let (package, licence) = line.split_once('|')?;
    let (name, version) = package.trim_end_matches(" (proc-macro)").split_once(" v")?;
    let purl = format!("pkg:cargo/{name}@{}", escape(version));
    let mut component =
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl});
    if !licence.is_empty() {
        // Older crates write "MIT/Apache-2.0" for OR.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    Some(component)
}

/// Characters of Debian versions that mean something in a package URL.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('+', "%2B").replace('~', "%7E").replace(':', "%3A")
}

/// RFC 3339, UTC.
fn timestamp(time_s: u64) -> String {
    let (days, seconds) = (time_s / 86_400, time_s % 86_400);
    // Civil date from days since 1970 (Howard Hinnant's algorithm, for dates after 1970).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_767_225_599, "2025-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn components_are_addressed() {
        let package = deb("libc6\t2.41-12+deb13u1\tamd64\tglibc\t2.41-12+deb13u1\tabcd").unwrap();
        assert_eq!(package["purl"], "pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64&distro=trixie");
        assert!(deb("libc6\t2.41").is_none());
        let package = krate("serde_derive v1.0.1 (proc-macro)|MIT/Apache-2.0").unwrap();
        assert_eq!(package["purl"], "pkg:cargo/serde_derive@1.0.1");
        assert_eq!(package["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert!(krate("nonsense").is_none());
    }
}
