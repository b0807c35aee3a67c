//! The format is what docs/format.md says: a reader written from it alone reads what the library wrote.
//!
//! And a later version reads what version 1 wrote, for ever: `data/format/v1` is never made anew. Leans on
//! `support/second_reader.rs` and on the library's public face.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;
use strongroom::driver::NewStore;
use strongroom::memory::SecretBytes;
use strongroom::seal::RecoveryKey;
use strongroom::{Connection, Embedded, OpenOptions, UsageType};
use support::{Place, second_reader};

/// What is written beside the fixture in README.md.
const PASSPHRASE: &[u8] = b"correct horse battery staple";
const RECOVERY_KEY: &[u8] = b"041061-050R3G-G28A1C-60T3GF-208H44-RMEJG8";

#[test]
fn a_second_reader_reads_what_the_library_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let embedded = place.open();
    fill(&embedded);
    // Still open: every acknowledged change is in the file, behind a commit.
    let listed = listing_of_the_second_reader(&place);
    assert_eq!(listed, listing_of_the_library(&Connection::over(embedded.keystore())));
    assert_eq!(listed.lines().count(), 9, "{listed}");
    let anchor = std::fs::read(place.root().join("run/secrets/anchor")).unwrap();
    let store = place.read();
    assert_eq!(store.read_anchor(&anchor).unwrap(), (store.last_commit.0, store.last_commit.1));
    assert!(!store.last_commit.2, "the log is not closed");
    drop(embedded);
    assert!(place.read().last_commit.2, "the log is closed in order");
    assert_eq!(listing_of_the_second_reader(&place), listed);
}

#[test]
fn a_second_reader_reads_a_compacted_log() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let embedded = place.open();
    fill(&embedded);
    let connection = Connection::over(embedded.keystore());
    let secret = connection.lookup_by_usage(UsageType::Ceph, "client.overwritten").unwrap();
    for round in 0..80_u8 {
        secret.set_value(&[round; 65_536]).unwrap();
    }
    assert!(
        embedded.status().log.unwrap().bytes < 5 << 20,
        "eighty values of 64 KiB lie in a log that was compacted"
    );
    assert_eq!(listing_of_the_second_reader(&place), listing_of_the_library(&connection));
}

#[test]
fn no_byte_of_the_files_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let connection = Connection::over(place.open().keystore());
    connection
        .define_xml("<secret><description>only</description></secret>", 0)
        .unwrap()
        .set_value(b"v")
        .unwrap();
    drop(connection);
    let [key, keyring, log] =
        [place.key_file(), place.etc().join("keyring"), place.etc().join("secrets.log")]
            .map(|path| std::fs::read(path).unwrap());
    let dead = second_reader::dead_bytes(&log);
    assert_eq!(dead.len(), 1, "the definition without a value is superseded");
    let read = |keyring: &[u8], log: &[u8]| second_reader::read_keyring(&key, keyring)?.read_log(log);
    read(&keyring, &log).unwrap();
    for at in 0..keyring.len() {
        let mut changed = keyring.clone();
        changed[at] ^= 0x10;
        assert!(read(&changed, &log).is_err(), "byte {at} of the keyring");
    }
    let living = (0..log.len()).filter(|at| !dead.iter().any(|range| range.contains(at)));
    let missed: Vec<usize> = living
        .filter(|&at| {
            let mut changed = log.clone();
            changed[at] ^= 0x10;
            read(&keyring, &changed).is_ok()
        })
        .collect();
    assert_eq!(missed, [0; 0], "bytes of the log that nothing covers");
}

#[test]
fn the_documents_example_is_a_log() {
    let document =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).unwrap();
    let blocks = document.split("```hex ").skip(1).flat_map(|block| block.split("```").next());
    let bytes =
        blocks.flat_map(|block| block.lines().skip(1)).flat_map(|line| line.split_whitespace().skip(1));
    let log: Vec<u8> = bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut store = second_reader::Store { id: [0x11; 16], serial: 9, ..second_reader::Store::default() };
    store.epoch_keys.insert(1, [0x22; 32]);
    store.read_log(&log).unwrap();
    assert_eq!((log.len(), store.last_commit.0, store.last_commit.2), (320, 8, true));
}

#[test]
fn a_later_version_reads_what_version_1_wrote() {
    let frozen = fixture("secrets.txt");
    let frozen = String::from_utf8(std::fs::read(frozen).unwrap()).unwrap();
    let key = |bytes: &[u8]| Some(SecretBytes::copy_of(bytes).unwrap());
    let with_host_key = OpenOptions { key_file: Some(PathBuf::new()), ..OpenOptions::default() };
    let with_passphrase = OpenOptions { passphrase: key(PASSPHRASE), ..OpenOptions::default() };
    let with_recovery_key = OpenOptions { recovery_key: key(RECOVERY_KEY), ..OpenOptions::default() };
    for (by, mut options) in
        [("host key", with_host_key), ("passphrase", with_passphrase), ("recovery key", with_recovery_key)]
    {
        let directory = tempfile::tempdir().unwrap();
        let place = copy_of_the_fixture(directory.path());
        // Where no host key is meant, none is to be found, whatever the machine has.
        let absent = directory.path().join("absent.key");
        options.key_file = Some(if options.key_file.is_some() { place.key_file() } else { absent });
        let embedded = Embedded::open(&place.uri(), options).unwrap();
        assert_eq!(embedded.status().key.unwrap().slot.kind, by);
        let damage: Vec<_> =
            embedded.verify().unwrap().findings.into_iter().filter(|found| found.is_damage()).collect();
        assert_eq!(damage, [], "{by}");
        assert_eq!(listing_of_the_library(&Connection::over(embedded.keystore())), frozen, "{by}");
    }
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(listing_of_the_second_reader(&copy_of_the_fixture(directory.path())), frozen);
}

/// What the fixture holds can be written by this version too. With `STRONGROOM_NEW_FIXTURE` naming a folder, the files are
/// left there: for a new format, never for an old one's folder.
#[test]
fn this_version_writes_what_the_fixture_holds() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let recovery_key = RecoveryKey::parse(&SecretBytes::copy_of(RECOVERY_KEY).unwrap()).unwrap();
    let new = NewStore {
        passphrase: Some(SecretBytes::copy_of(PASSPHRASE).unwrap()),
        recovery_key: Some(recovery_key),
        ..NewStore::default()
    };
    let options = OpenOptions { key_file: Some(place.key_file()), ..OpenOptions::default() };
    Embedded::init(&place.uri(), options, &new).unwrap();
    let embedded = place.open();
    fill(&embedded);
    let listing = listing_of_the_library(&Connection::over(embedded.keystore()));
    drop(embedded);
    if let Some(folder) = std::env::var_os("STRONGROOM_NEW_FIXTURE").map(PathBuf::from) {
        for file in [place.key_file(), place.etc().join("keyring"), place.etc().join("secrets.log")] {
            std::fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
        }
        std::fs::write(folder.join("secrets.txt"), &listing).unwrap();
    }
    assert_eq!(listing, std::fs::read_to_string(fixture("secrets.txt")).unwrap());
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format/v1").join(name)
}

fn copy_of_the_fixture(directory: &Path) -> Place {
    let place = Place(directory.into());
    std::fs::create_dir_all(place.etc()).unwrap();
    std::fs::create_dir_all(place.key_file().parent().unwrap()).unwrap();
    std::fs::copy(fixture("host.key"), place.key_file()).unwrap();
    // Version control keeps no more of a file's mode than whether it can be run.
    std::fs::set_permissions(place.key_file(), PermissionsExt::from_mode(0o600)).unwrap();
    for name in ["keyring", "secrets.log"] {
        std::fs::copy(fixture(name), place.etc().join(name)).unwrap();
    }
    place
}

/// Secrets of every kind, and changes of every kind.
fn fill(embedded: &Embedded) {
    let connection = Connection::over(embedded.keystore());
    let define = |number: u32, private: &str, rest: &str| {
        let uuid = format!("<uuid>00000000-0000-4000-8000-{number:012}</uuid>");
        connection.define_xml(format!("<secret private='{private}'>{uuid}{rest}</secret>"), 0).unwrap()
    };
    let usage = |kind: &str, element: &str, id: &str| {
        format!("<usage type='{kind}'><{element}>{id}</{element}></usage>")
    };
    define(1, "no", "").set_value(b"of no usage").unwrap();
    define(2, "no", &usage("volume", "volume", "/var/lib/libvirt/images/one.img")).set_value(&[0]).unwrap();
    define(3, "yes", &usage("ceph", "name", "client.private"))
        .set_value(b"AQBHCbtT6APDHhAA5W00cBchwkQjh3dkKsyPjw==")
        .unwrap();
    define(4, "no", &usage("iscsi", "target", "iqn.2013-07.com.example:target"))
        .set_value(&[0xFF; 60])
        .unwrap();
    define(5, "no", &usage("tls", "name", "Ünïcødé &amp; &lt;more&gt;")).set_value(&[0x80; 61]).unwrap();
    define(6, "yes", &usage("vtpm", "name", "vtpm.6"));
    let largest: Vec<u8> = (0..65_536_u32).map(|at| ((at * at) >> 3) as u8).collect();
    define(7, "no", "<description>the largest value</description>").set_value(&largest).unwrap();
    let overwritten = define(8, "no", &usage("ceph", "name", "client.overwritten"));
    for round in 0..5_u8 {
        overwritten.set_value(&[round; 100]).unwrap();
    }
    let undefined = define(9, "no", &usage("ceph", "name", "client.undefined"));
    undefined.set_value(b"never seen again").unwrap();
    undefined.undefine().unwrap();
    define(10, "no", "<description>the first</description>").set_value(b"kept").unwrap();
    define(10, "yes", "<description>the second, of a value that stayed</description>");
}

/// One line a secret: UUID, usage, private, description, value; the UUIDs in order.
fn listing_of_the_library(connection: &Connection) -> String {
    let connection = connection.elevated().unwrap();
    let mut lines: Vec<String> = connection
        .list_all(0)
        .unwrap()
        .iter()
        .map(|secret| {
            let xml = secret.xml_desc().unwrap();
            let description =
                xml.split_once("<description>").map(|(_, rest)| rest.split_once('<').unwrap().0.to_owned());
            let private = xml.contains("private='yes'");
            let value = secret.value().ok();
            let value = value.as_ref().map(|value| value.expose_secret());
            let usage = (u8::try_from(secret.usage_type().number()).unwrap(), secret.usage_id());
            line(secret.uuid().as_bytes(), usage, private, description.as_deref(), value)
        })
        .collect();
    lines.sort();
    lines.concat()
}

fn listing_of_the_second_reader(place: &Place) -> String {
    let secrets = place.read().secrets;
    let lines = secrets.iter().map(|(uuid, secret)| {
        let usage = (secret.usage.0, secret.usage.1.as_str());
        line(uuid, usage, secret.private, secret.description.as_deref(), secret.value.as_deref())
    });
    lines.collect()
}

fn line(
    uuid: &[u8; 16],
    usage: (u8, &str),
    private: bool,
    description: Option<&str>,
    value: Option<&[u8]>,
) -> String {
    let mut line = format!(
        "{} {} {:?} private={private} {description:?}",
        uuid::Uuid::from_bytes(*uuid),
        usage.0,
        usage.1
    );
    match value {
        None => line.push_str(" no value"),
        Some(value) if value.len() > 100 => {
            let digest = ring::digest::digest(&ring::digest::SHA256, value);
            let _ = write!(line, " {} bytes of SHA-256 {}", value.len(), hex(digest.as_ref()));
        }
        Some(value) => _ = write!(line, " {}", hex(value)),
    }
    line + "\n"
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
