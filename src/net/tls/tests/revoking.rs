//! Revocation lists: several by one CA, by a CA with a new key, by one that may sign none, and lists as only others make them.

use base64::prelude::{BASE64_STANDARD, Engine};
use rcgen::SigningKey;

use super::*;

const REVOKED: &str =
    "Certificate failed validation: The certificate has been revoked. (C=GB,CN=client.example)";

/// A CA with a server, and a client that has a serial number of its own.
fn pki() -> Pki {
    let pki = Pki::whole();
    pki.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    pki
}

/// What this server says of this one's client, and its warnings at the start.
fn comes(server: &Pki, client: &Pki) -> (Result<(), String>, Vec<String>) {
    let acceptor = server.acceptor();
    let mut files = client.files(Side::Client);
    (files.ca, files.crl) = (server.files(Side::Client).ca, None);
    let rules = Rules { sanity: false, ..Rules::default() };
    let connector = Connector::load(&files, &rules).unwrap();
    let (_, servers) = both(&mut connector.connect("host.example").unwrap(), &mut acceptor.accept().unwrap());
    let verdict = servers.unwrap().unwrap().verdict.map_err(|error| error.to_string());
    (verdict, acceptor.warnings().to_vec())
}

fn put(pki: &Pki, lists: &[&str]) {
    std::fs::write(pki.directory.path().join("cacrl.pem"), lists.concat()).unwrap();
}

#[test]
fn of_several_lists_by_one_ca_each_counts() {
    let pki = pki();
    let (none, other, revoked) = (pki.list(&[], 4000), pki.list(&[8], 2026), pki.list(&[9], 4000));
    for lists in [[&none, &revoked], [&revoked, &none], [&other, &revoked], [&revoked, &other]] {
        put(&pki, &lists.map(|list| &**list));
        assert_eq!(comes(&pki, &pki).0, Err(REVOKED.to_owned()));
    }
    put(&pki, &[&none, &other]);
    assert_eq!(comes(&pki, &pki).0, Ok(()));
}

#[test]
fn a_ca_with_a_new_key_and_its_old_name_is_no_fault_of_its_clients() {
    let (old, new, stranger) = (pki(), pki(), pki());
    let both_cas =
        [&old, &new].map(|pki| std::fs::read_to_string(pki.files(Side::Server).ca).unwrap()).concat();
    std::fs::write(old.files(Side::Server).ca, both_cas).unwrap();
    let [by_old, by_new, by_stranger] = [&old, &new, &stranger].map(|pki| pki.list(&[3], 4000));
    for lists in [&[&*by_old][..], &[&by_new], &[&by_old, &by_new], &[&by_new, &by_old], &[&by_stranger]] {
        put(&old, lists);
        for client in [&old, &new] {
            let (verdict, warnings) = comes(&old, client);
            assert_eq!((verdict, warnings.len()), (Ok(()), usize::from(lists[0] == by_stranger)));
        }
        assert!(comes(&old, &stranger).0.is_err(), "a CA by that name, and not in the file");
    }
    // As GnuTLS has it, a CA is its name: the new key revokes what the old one has signed, and the other way round.
    for list in [old.list(&[9], 4000), new.list(&[9], 4000)] {
        put(&old, &[&list]);
        for client in [&old, &new] {
            assert_eq!(comes(&old, client).0, Err(REVOKED.to_owned()));
        }
    }
    // Anybody can write a list by that name.
    put(&old, &[&stranger.list(&[9], 4000)]);
    let (verdict, warnings) = comes(&old, &new);
    assert_eq!(verdict, Ok(()));
    assert!(warnings[0].contains("not signed by the CA of that name"), "{warnings:?}");
}

#[test]
fn a_list_by_a_ca_that_may_sign_none_counts_and_is_worth_a_warning() {
    let pki = Pki::with(|ca| ca.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    pki.issue(Side::Server, |_| {});
    pki.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    for (serial, expected) in [(8, Ok(())), (9, Err(REVOKED.to_owned()))] {
        pki.revoke(&[serial], 4000);
        let (verdict, warnings) = comes(&pki, &pki);
        assert_eq!(verdict, expected);
        assert!(warnings[0].contains("does not permit signing such lists"), "{warnings:?}");
    }
    let survey = Survey::of(within(pki.directory.path()), &[Side::Server], true, None);
    let told = survey.faults.iter().find(|fault| fault.text.contains("does not permit signing such lists"));
    assert!(told.is_some_and(|fault| !fault.fatal), "{survey:?}");
}

#[test]
fn whose_own_certificate_is_revoked_is_told_to_get_a_new_one() {
    let pki = Pki::whole();
    pki.revoke(&[7], 4000);
    let error = Acceptor::load(&pki.files(Side::Server), &Rules::default(), None).err().unwrap();
    assert!(error.to_string().ends_with(": The certificate has been revoked."), "{error}");
    assert_eq!(error.advice(), "its CA has revoked it: get a new one");
}

/// The CA in the file has signed another, that one the client; the list is by the one between.
#[test]
fn a_ca_between_revokes_what_it_has_signed() {
    let pki = Pki::whole();
    let between = pki.below(|_| {});
    between.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    for (list, expected) in [
        (between.list(&[8], 4000), Ok(())),
        (between.list(&[9], 4000), Err(REVOKED.to_owned())),
        (pki.list(&[9], 4000), Ok(())),
        (pki.list(&[5], 4000), Err(REVOKED.to_owned())),
    ] {
        put(&pki, &[&list]);
        assert_eq!(comes(&pki, &between).0, expected);
    }
}

/// A thief has the old key's certificate of the CA between; what was stolen is in the list by its new one.
#[test]
fn a_key_that_comes_with_the_certificate_rules_no_list_out() {
    let pki = Pki::whole();
    let [old, new] = [pki.below(|_| {}), pki.below(|_| {})];
    old.issue(Side::Client, |client| client.serial_number = Some(SerialNumber::from(9)));
    for (serial, expected) in [(8, Ok(())), (9, Err(REVOKED.to_owned()))] {
        put(&pki, &[&new.list(&[serial], 4000)]);
        let (verdict, warnings) = comes(&pki, &old);
        assert_eq!(verdict, expected);
        assert!(warnings[0].contains("who is not in the CA file: it counts, unproved"), "{warnings:?}");
    }
}

#[test]
fn a_list_whose_signature_cannot_be_checked_counts() {
    let pki = pki();
    for algorithm in [ECDSA_SHA1, ECDSA_SHA512] {
        for (serial, expected) in [(8, Ok(())), (9, Err(REVOKED.to_owned()))] {
            put(&pki, &[&crafted(&pki, serial, algorithm, Frame::default())]);
            let (verdict, warnings) = comes(&pki, &pki);
            assert_eq!(verdict, expected);
            assert!(warnings[0].contains("cannot be checked here: it counts, unproved"), "{warnings:?}");
        }
    }
}

#[test]
fn a_list_without_version_or_end_counts() {
    let (pki, stranger) = (pki(), Pki::whole());
    let (version, next) = (&[2, 1, 1][..], &timed("400101000000Z")[..]);
    for (version, next) in [(&[][..], &[][..]), (&[], next), (version, &[]), (version, next)] {
        let frame = Frame { version, next, ..Frame::default() };
        for (serial, expected) in [(8, Ok(())), (9, Err(REVOKED.to_owned()))] {
            put(&pki, &[&crafted(&pki, serial, ECDSA_SHA256, frame)]);
            assert_eq!(comes(&pki, &pki), (expected, Vec::new()));
        }
        put(&pki, &[&crafted(&stranger, 9, ECDSA_SHA256, frame)]);
        let (verdict, warnings) = comes(&pki, &pki);
        assert_eq!((verdict, warnings.len()), (Ok(()), 1));
    }
}

#[test]
fn a_list_in_part_or_with_what_nobody_understands_is_refused() {
    let pki = pki();
    let load = |oid: [u8; 3], critical: bool, value: &[u8]| {
        let critical = if critical { &[1, 1, 0xFF][..] } else { &[] };
        let extension = tlv(0x30, &[&tlv(6, &[&oid]), critical, &tlv(4, &[value])]);
        let frame = Frame {
            version: &[2, 1, 1],
            extensions: &tlv(0xA0, &[&tlv(0x30, &[&extension])]),
            ..Frame::default()
        };
        put(&pki, &[&crafted(&pki, 9, ECDSA_SHA256, frame)]);
        let loaded = Acceptor::load(&pki.files(Side::Server), &Rules::default(), None);
        loaded.map(|_| ()).map_err(|error| error.to_string())
    };
    let delta = load([0x55, 0x1D, 27], true, &[2, 1, 1]).unwrap_err();
    assert!(delta.contains("delta list"), "{delta}");
    let indirect = load([0x55, 0x1D, 28], true, &[0x30, 3, 0x84, 1, 0xFF]).unwrap_err();
    assert!(indirect.contains("indirect list"), "{indirect}");
    let some_reasons = load([0x55, 0x1D, 28], true, &[0x30, 4, 0x83, 2, 6, 0x40]).unwrap_err();
    assert!(some_reasons.contains("some reasons"), "{some_reasons}");
    let unknown = load([0x55, 0x1D, 99], true, &[5, 0]).unwrap_err();
    assert!(unknown.contains("2.5.29.99 must be understood"), "{unknown}");
    load([0x55, 0x1D, 99], false, &[5, 0]).unwrap();
    load([0x55, 0x1D, 28], true, &[0x30, 3, 0x81, 1, 0xFF]).unwrap();
}

/// What a list may have or not, as DER.
#[derive(Default, Clone, Copy)]
struct Frame<'a> {
    version: &'a [u8],
    next: &'a [u8],
    extensions: &'a [u8],
}

/// A list by this CA, with one serial number, that rcgen wouldn't make. It is signed with SHA-256, whatever it says.
fn crafted(pki: &Pki, serial: u8, algorithm: &[u8], frame: Frame<'_>) -> String {
    let algorithm = tlv(0x30, &[&tlv(6, &[algorithm])]);
    let name = tlv(0x30, &[&tlv(6, &[&[0x55, 4, 3]]), &tlv(0x0C, &[b"Test CA"])]);
    let name = tlv(0x30, &[&tlv(0x31, &[&name])]);
    let time = timed("250101000000Z");
    let revoked = tlv(0x30, &[&tlv(0x30, &[&[2, 1, serial], &time])]);
    let Frame { version, next, extensions } = frame;
    let body = tlv(0x30, &[version, &algorithm, &name, &time, next, &revoked, extensions]);
    let signature = pki.lists.key().sign(&body).unwrap();
    let list = BASE64_STANDARD.encode(tlv(0x30, &[&body, &algorithm, &tlv(3, &[&[0], &signature])]));
    let lines: Vec<_> = list.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN X509 CRL-----\n{}\n-----END X509 CRL-----\n", lines.join("\n"))
}

fn timed(time: &str) -> Vec<u8> {
    tlv(0x17, &[time.as_bytes()])
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let length = u8::try_from(value.len()).unwrap_or_else(|_| panic!("{} bytes", value.len()));
    let head = if length < 0x80 { vec![tag, length] } else { vec![tag, 0x81, length] };
    [head, value].concat()
}

const ECDSA_SHA1: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 1];
const ECDSA_SHA256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];
const ECDSA_SHA512: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 4];
