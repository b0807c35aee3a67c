//! Neither an error nor anything printed with `{:?}` tells a value, a passphrase or a key.
//!
//! Markers are planted wherever secret bytes go in, and looked for in all that comes out as text: as they are, in
//! hexadecimal, in base64, and as the list of numbers that a derived `Debug` would print. Leans on the library's public face.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::error::Error as _;

use base64::Engine as _;
use secrecy::ExposeSecret;
use strongroom::driver::{Keys, NewStore};
use strongroom::memory::SecretBytes;
use strongroom::seal::{HostKey, Opener, RecoveryKey};
use strongroom::{Connection, Embedded, Error, OpenOptions};
use support::Place;

const MARKER: &[u8; 32] = b"MARKER-0123456789-abcdefghij-END";

#[test]
fn the_check_would_see_a_leak() {
    let base64 = base64::engine::general_purpose::STANDARD.encode(MARKER);
    for leak in [format!("{MARKER:?}"), format!("{:x?}", &MARKER[4..12]), base64, "xMARKER-0x".into()] {
        assert!(tells(&leak), "{leak}");
    }
    assert!(!tells("MARK, marked"));
}

#[test]
fn nothing_printed_for_debugging_tells_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    std::fs::create_dir_all(place.key_file().parent().unwrap()).unwrap();
    std::fs::write(place.key_file(), MARKER).unwrap();
    std::fs::set_permissions(place.key_file(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let embedded = place.open();
    let connection = Connection::over(embedded.keystore());
    let secret = connection.define_xml("<secret/>", 0).unwrap();
    secret.set_value(MARKER).unwrap();
    let recovery_key = RecoveryKey::random().unwrap();
    let written_down = String::from_utf8(recovery_key.text().unwrap().expose_secret().to_vec()).unwrap();
    let options =
        OpenOptions { passphrase: Some(bytes()), recovery_key: Some(bytes()), ..OpenOptions::default() };
    let keys = Keys { passphrase: Some(bytes()), recovery_key: Some(bytes()), ..Keys::default() };
    let new = NewStore { passphrase: Some(bytes()), recovery_key: Some(recovery_key), ..NewStore::default() };
    let printed = [
        format!("{connection:?} {embedded:?} {:?} {:?}", embedded.status(), embedded.verify().unwrap()),
        format!("{secret:?} {:?} {:?}", secret.value(), connection.list_all(0)),
        format!("{:?} {:#?}", HostKey::from_bytes(bytes()), Opener::Passphrase(bytes())),
        format!("{options:?} {options:#?} {keys:?} {new:?} {new:#?}"),
    ];
    for text in printed {
        assert!(!tells(&text), "{text}");
        assert!(!text.contains(&written_down[..13]), "a recovery key: {text}");
    }
}

#[test]
fn no_error_tells_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let embedded = place.open();
    let connection = Connection::over(embedded.keystore());
    let secret = connection.define_xml("<secret private='yes'/>", 0).unwrap();
    secret.set_value(MARKER).unwrap();
    let gone = connection.define_xml("<secret/>", 0).unwrap();
    gone.undefine().unwrap();
    let mut errors = vec![
        secret.value().unwrap_err(),
        secret.set_value(&MARKER.repeat(4096)).unwrap_err(),
        secret.set_secret_value(SecretBytes::copy_of(&MARKER.repeat(2049)).unwrap()).unwrap_err(),
        gone.set_value(MARKER).unwrap_err(),
        gone.value().unwrap_err(),
    ];
    drop((secret, gone, connection, embedded));
    // A recovery key that is none, and a key file that is none.
    let misread = OpenOptions { recovery_key: Some(bytes()), ..OpenOptions::default() };
    errors.push(Embedded::open(&place.uri(), misread).unwrap_err());
    let other = Place(directory.path().join("other"));
    let new = NewStore { without_host_key: true, passphrase: Some(bytes()), ..NewStore::default() };
    let keyless =
        |passphrase| OpenOptions { key_file: Some(other.key_file()), passphrase, ..OpenOptions::default() };
    Embedded::init(&other.uri(), keyless(None), &new).unwrap();
    let wrong = Some(SecretBytes::copy_of(&[MARKER, &b"!"[..]].concat()).unwrap());
    let locked = Connection::open_with(&other.uri(), keyless(wrong)).unwrap();
    errors.push(locked.define_xml("<secret/>", 0).unwrap_err());
    drop(locked);
    std::fs::create_dir_all(other.key_file().parent().unwrap()).unwrap();
    std::fs::write(other.key_file(), [MARKER, &b"\n"[..]].concat()).unwrap();
    let locked = Connection::open_with(&other.uri(), keyless(None)).unwrap();
    errors.push(locked.define_xml("<secret/>", 0).unwrap_err());
    drop(locked);
    // A record that no longer opens.
    let log = place.etc().join("secrets.log");
    let mut bytes = std::fs::read(&log).unwrap();
    let sealed = place.read().secrets.len();
    assert_eq!(sealed, 1);
    for at in (160..bytes.len()).filter(|at| at % 32 == 5) {
        bytes[at] ^= u8::from(bytes[at] != 0);
    }
    std::fs::write(&log, bytes).unwrap();
    let options = OpenOptions { key_file: Some(place.key_file()), ..OpenOptions::default() };
    match Connection::open_with(&place.uri(), options) {
        Err(error) => errors.push(error),
        Ok(damaged) => errors.push(damaged.define_xml("<secret/>", 0).unwrap_err()),
    }
    for error in errors {
        let text = with_sources(&error);
        assert!(!tells(&text), "{text}");
    }
}

fn bytes() -> SecretBytes {
    SecretBytes::copy_of(MARKER).unwrap()
}

/// All that an error says: in words, for debugging, and down to its causes.
fn with_sources(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {}", error.detail());
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    text
}

/// Whether eight bytes in a row of the marker stand in a text, in any way that bytes are written.
fn tells(text: &str) -> bool {
    let plain: String = text.split_whitespace().collect();
    let base64 = base64::engine::general_purpose::STANDARD.encode(MARKER);
    let joined = |window: &[u8], separator: &str, write: fn(&u8) -> String| {
        window.iter().map(write).collect::<Vec<_>>().join(separator)
    };
    let written = MARKER.windows(8).flat_map(|window| {
        [
            String::from_utf8(window.to_vec()).unwrap(),
            joined(window, "", |byte| format!("{byte:02x}")),
            joined(window, ",", |byte| format!("{byte:x}")),
            joined(window, ",", |byte| format!("{byte}")),
        ]
    });
    let base64 = (0..base64.len() - 8).map(|at| base64[at..at + 8].to_owned());
    written.chain(base64).any(|written| plain.to_lowercase().contains(&written.to_lowercase()))
}
