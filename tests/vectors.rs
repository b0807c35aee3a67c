//! AES-256-GCM and HKDF-SHA256, through ring and by the calls that `src/seal` makes, give Wycheproof's answers.
//!
//! That ring is right is ring's matter; that it is called right (which bytes are the tag, whether a bad tag is an error, how
//! a long output fails) is ours. Leans on `data/wycheproof`: see README.md there.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{self, HKDF_SHA256, KeyType};
use serde_json::Value;

#[test]
fn aes_256_gcm_is_as_wycheproof_says() {
    let mut counts = (0, 0);
    for test in tests("aes_256_gcm.json") {
        let case = case(&test);
        let [key, iv, aad, plain, sealed, tag] =
            ["key", "iv", "aad", "msg", "ct", "tag"].map(|name| bytes(&test, name));
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let nonce = || Nonce::try_assume_unique_for_key(&iv).unwrap();
        let mut opened = sealed.clone();
        let tag_of = |tag: &[u8]| <[u8; 16]>::try_from(tag).unwrap().into();
        let outcome =
            cipher.open_in_place_separate_tag(nonce(), Aad::from(&aad), tag_of(&tag), &mut opened, 0..);
        let outcome = outcome.map(|plain| plain.to_vec());
        let mut resealed = plain.clone();
        let new_tag = cipher.seal_in_place_separate_tag(nonce(), Aad::from(&aad), &mut resealed).unwrap();
        if test["result"] == "valid" {
            assert_eq!(outcome.unwrap(), plain, "{case}");
            assert_eq!((resealed, new_tag.as_ref()), (sealed, &tag[..]), "{case}");
            counts.0 += 1;
        } else {
            assert!(outcome.is_err(), "{case}: opened");
            assert_ne!((resealed, new_tag.as_ref()), (sealed, &tag[..]), "{case}");
            counts.1 += 1;
        }
    }
    assert_eq!(counts, (39, 27), "valid and invalid cases");
}

#[test]
fn hkdf_sha256_is_as_wycheproof_says() {
    let mut counts = (0, 0);
    for test in tests("hkdf_sha256.json") {
        let case = case(&test);
        let [secret, salt, info, expected] = ["ikm", "salt", "info", "okm"].map(|name| bytes(&test, name));
        let size = usize::try_from(test["size"].as_u64().unwrap()).unwrap();
        let prk = hkdf::Salt::new(HKDF_SHA256, &salt).extract(&secret);
        // Of several parts, as `src/seal` gives them: they are one after the other.
        let (front, back) = info.split_at(info.len() / 2);
        let info = [front, back];
        let okm = prk.expand(&info, Length(size));
        if test["result"] == "valid" {
            let mut out = vec![0; size];
            okm.unwrap().fill(&mut out).unwrap();
            assert_eq!(out, expected, "{case}");
            counts.0 += 1;
        } else {
            assert!(okm.is_err(), "{case}: gave {size} bytes");
            counts.1 += 1;
        }
    }
    assert_eq!(counts, (83, 3), "valid and invalid cases");
}

/// A wished length of output.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn tests(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/wycheproof").join(file);
    let vectors: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let groups = vectors["testGroups"].as_array().unwrap();
    let tests: Vec<Value> =
        groups.iter().flat_map(|group| group["tests"].as_array().unwrap()).cloned().collect();
    assert_eq!(vectors["numberOfTests"], tests.len());
    tests
}

fn case(test: &Value) -> String {
    format!("case {} ({})", test["tcId"], test["comment"])
}

fn bytes(test: &Value, name: &str) -> Vec<u8> {
    let hex = test[name].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
