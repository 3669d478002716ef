//! The bundle as a format: golden bytes, every byte changed, every length cut, keys that come and go.

mod common;

use basalt_upgrade::UpgradeError;
use basalt_upgrade::bundle::{Bundle, Checked, format};
use basalt_upgrade::manifest::Version;
use basalt_upgrade::trust::{Role, Root, Signature, SignedRoot, SigningKey, hex, key_id, sign_root};
use common::{NOW, Release, bundle_of, checked, node, trusted};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use zerocopy::IntoBytes;

fn release() -> Release {
    Release::new("1.2.0", 2, 100)
}

fn read(bytes: Vec<u8>, root: &Root, now_s: u64) -> Result<Checked<Vec<u8>>, UpgradeError> {
    let authentic = Bundle::open(bytes)?.authenticate(root, now_s)?;
    authentic.suits(&node("1.1.0"))?;
    authentic.check_payload(&mut |_, _| ())
}

fn refused(bytes: Vec<u8>) -> UpgradeError {
    match read(bytes, &trusted(), NOW) {
        Ok(_) => panic!("was accepted"),
        Err(e) => e,
    }
}

#[test]
fn golden_bytes() {
    let header = format::Header::new(2, 0x0102_0304, 98, 0x0506_0708_090a_0b0c);
    assert_eq!(
        hex(header.as_bytes()),
        "42534c5455504752010000000200000004030201620000000c0b0a0908070605\
         0000000000000000000000000000000000000000000000000000000086ebc6c2"
    );
    let signature = Signature { key: [1; 32], bytes: [2; 64] };
    let encoded = format::encode_signatures(std::slice::from_ref(&signature));
    assert_eq!(hex(&encoded), format!("0100{}{}", "01".repeat(32), "02".repeat(64)));
    let roots = format::encode_roots(&[SignedRoot { payload: b"{}".to_vec(), signatures: vec![signature] }]);
    assert_eq!(hex(&roots), format!("0100020000007b7d{}", hex(&encoded)));
    // A whole bundle; Ed25519 signatures are the same every time.
    let bundle = release().bundle();
    assert_eq!((bundle.len(), hex(digest(&SHA256, &bundle).as_ref()).as_str()), (GOLDEN_LEN, GOLDEN_SHA256));
}
const GOLDEN_LEN: usize = 13_873;
const GOLDEN_SHA256: &str = "302ddb20223d6b6b6e64f0f781a48715697d75aeb3223a07c47fd5cc930fb7ee";

#[test]
fn every_changed_byte_is_refused_before_anything_is_written() {
    let good = release().bundle();
    checked(good.clone());
    let mut codes = [0usize; 32];
    // All of header, key chain, manifest and signatures; the parts in steps that are no multiple of anything.
    let outline = good.len() - release().uki.len() - release().root.len();
    for at in (0..outline).chain((outline..good.len()).step_by(97)) {
        for flip in [0x01, 0x80] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            codes[usize::from(refused(bad).exit_code())] += 1;
        }
    }
    assert!(codes[10] > 0 && codes[11] > 0 && codes[12] > 0, "{codes:?}");
    assert_eq!(codes[10..=12].iter().sum::<usize>(), codes.iter().sum::<usize>(), "{codes:?}");
}

#[test]
fn every_cut_is_refused() {
    let good = release().bundle();
    for len in (0..good.len()).step_by(61).chain(0..70) {
        let error = refused(good[..len].to_vec());
        match len {
            0..64 => assert!(matches!(error, UpgradeError::NotABundle(_)), "{len}: {error}"),
            _ => assert!(matches!(error, UpgradeError::Truncated { .. }), "{len}: {error}"),
        }
    }
    let error = refused([good, vec![0]].concat());
    assert!(error.to_string().contains("1 bytes stand behind its end"), "{error}");
}

#[test]
fn a_file_that_changes_after_the_check_is_caught_when_it_is_read() {
    struct Turns(std::sync::Mutex<Vec<u8>>);
    impl basalt_upgrade::bundle::Source for &Turns {
        fn len_bytes(&self) -> std::io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            buf.copy_from_slice(&self.0.lock().unwrap()[offset as usize..][..buf.len()]);
            Ok(())
        }
    }
    let file = Turns(release().bundle().into());
    let checked = Bundle::open(&file)
        .unwrap()
        .authenticate(&trusted(), NOW)
        .unwrap()
        .check_payload(&mut |_, _| ())
        .unwrap();
    *file.0.lock().unwrap().last_mut().unwrap() ^= 1;
    let root = checked.part(basalt_upgrade::manifest::Kind::Root).unwrap();
    let mut buf = vec![0; 1 << 20];
    assert!(matches!(checked.chunk(root, 0, &mut buf), Err(UpgradeError::Damaged(_))));
}

#[test]
fn each_reason_has_its_message_and_code() {
    let make = |change: &dyn Fn(&mut basalt_upgrade::bundle::Recipe)| {
        let mut recipe = release().recipe();
        change(&mut recipe);
        bundle_of(recipe, &release(), &[SigningKey::from_seed(1)])
    };
    let cases: [(Vec<u8>, u8, &str); 5] = [
        (make(&|r| r.expires = NOW - 1), 13, "expired on 2027-01-15T07:59:59Z"),
        (
            make(&|r| r.hardware = vec!["Dell Inc./*".into()]),
            14,
            "it names Dell Inc./* on x86_64, this is QEMU/Standard PC",
        ),
        (make(&|r| r.architecture = "aarch64".into()), 14, "on aarch64"),
        (
            make(&|r| r.minimum_version = Version(1, 1, 5)),
            15,
            "can only be installed from 1.1.5 on, and 1.1.0 runs",
        ),
        (
            b"MZ this is something else entirely, and longer than a header is ....".to_vec(),
            10,
            "no Basalt bundle",
        ),
    ];
    for (bytes, code, text) in cases {
        let error = refused(bytes);
        assert_eq!(error.exit_code(), code, "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
    let authentic = Bundle::open(release().bundle()).unwrap().authenticate(&trusted(), NOW).unwrap();
    for (running, text) in [("1.3.0", "older than 1.3.0, which runs"), ("1.2.0", "is the one that runs")] {
        let error = authentic.suits(&node(running)).unwrap_err();
        assert_eq!(error.exit_code(), 15);
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_kernel_image_for_another_root_is_refused() {
    let (a, b) = (release(), Release::new("1.2.0", 3, 100));
    let mixed = Release { uki: b.uki, ..a.clone() };
    let error = refused(mixed.bundle());
    assert!(error.to_string().contains("looks for another root"), "{error}");
    let mut broken_tree = a;
    *broken_tree.root.last_mut().unwrap() ^= 1;
    assert!(refused(broken_tree.bundle()).to_string().contains("hash tree"));
}

fn root(version: u64, root_seeds: &[u8], release_seeds: &[u8], threshold: usize) -> Root {
    let public = |seed: &u8| SigningKey::from_seed(*seed).public();
    let ids = |seeds: &[u8]| seeds.iter().map(|s| hex(&key_id(&public(s)))).collect();
    Root {
        version,
        expires: NOW + 500,
        keys: [root_seeds, release_seeds]
            .concat()
            .iter()
            .map(|s| (hex(&key_id(&public(s))), hex(&public(s))))
            .collect(),
        root: Role { threshold, keys: ids(root_seeds) },
        release: Role { threshold, keys: ids(release_seeds) },
    }
}
fn keys(seeds: &[u8]) -> Vec<SigningKey> {
    seeds.iter().map(|s| SigningKey::from_seed(*s)).collect()
}
fn with_chain(chain: &[SignedRoot], signers: &[u8]) -> Vec<u8> {
    let mut recipe = release().recipe();
    recipe.key_chain = chain.to_vec();
    bundle_of(recipe, &release(), &keys(signers))
}

#[test]
fn keys_rotate() {
    let one = sign_root(&root(1, &[10, 11, 12], &[20, 21], 2), &keys(&[1, 10, 12])).unwrap();
    let two = sign_root(&root(2, &[10, 11, 13], &[22, 23], 2), &keys(&[11, 10, 13])).unwrap();
    let chain = [one.clone(), two.clone()];
    // A node that knows the image's key alone walks the whole chain.
    let after = read(with_chain(&chain, &[22, 23]), &trusted(), NOW).unwrap();
    assert_eq!(after.root().version, 2);
    let knows_two = after.root().clone();
    // One that is ahead takes it too; the old release keys are nothing to it any more.
    read(with_chain(&[], &[23, 22]), &knows_two, NOW).map(drop).unwrap();
    let code = |bytes: Vec<u8>, root: &Root| read(bytes, root, NOW).map(|_| ()).unwrap_err();
    assert!(code(with_chain(&[], &[20, 21]), &knows_two).to_string().contains("is signed by key"));
    assert!(code(with_chain(&chain, &[1]), &trusted()).to_string().contains("is signed by key"));
    // One signature of two; the same key twice; a gap in the chain; expired keys.
    assert!(code(with_chain(&[], &[22]), &knows_two).to_string().contains("has 1 signatures and needs 2"));
    assert!(
        code(with_chain(&[], &[22, 22]), &knows_two).to_string().contains("has 1 signatures and needs 2")
    );
    assert!(
        code(with_chain(&[two], &[22, 23]), &trusted()).to_string().contains("install a release in between")
    );
    let late = read(with_chain(&chain, &[22, 23]), &trusted(), NOW + 501).map(|_| ()).unwrap_err();
    assert_eq!(
        (late.exit_code(), late.to_string().contains("keys of the bundle expired")),
        (13, true),
        "{late}"
    );
    // A chain link that the root keys before it did not sign enough.
    let forged = sign_root(&root(2, &[13], &[13], 1), &keys(&[10, 13])).unwrap();
    let error = code(with_chain(&[one, forged], &[13]), &trusted());
    assert!(error.to_string().contains("root 2 of its key chain has 1 of the 2 signatures"), "{error}");
}

#[test]
fn a_bundle_with_a_chain_has_no_byte_that_may_change() {
    let one = sign_root(&root(1, &[10, 11], &[20, 21], 2), &keys(&[1, 10, 11])).unwrap();
    let good = with_chain(&[one], &[20, 21]);
    read(good.clone(), &trusted(), NOW).map(drop).unwrap();
    let outline = good.len() - release().uki.len() - release().root.len();
    for at in 0..outline {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        refused(bad);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn the_outline_never_panics(edits in prop::collection::vec((0usize..2500, any::<u8>()), 1..6), fix_crc in any::<bool>()) {
        let mut bytes = release().bundle();
        for (at, value) in edits {
            if let Some(byte) = bytes.get_mut(at) { *byte = value; }
        }
        if fix_crc {
            let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..60]) as u32;
            bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(bundle) = Bundle::open(bytes) {
            let _ = bundle.key_chain();
            if let Ok(authentic) = bundle.authenticate(&trusted(), NOW) {
                let _ = authentic.check_payload(&mut |_, _| ());
            }
        }
    }

    #[test]
    fn arbitrary_sections_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = format::decode_roots(&bytes);
        let _ = format::decode_signatures(&bytes);
    }

    #[test]
    fn roots_and_signatures_come_back(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..5)) {
        let roots: Vec<SignedRoot> = payloads
            .into_iter()
            .map(|payload| SignedRoot { signatures: vec![Signature { key: [3; 32], bytes: [4; 64] }; payload.len() % 4], payload })
            .collect();
        prop_assert_eq!(format::decode_roots(&format::encode_roots(&roots)).unwrap(), roots);
    }
}
