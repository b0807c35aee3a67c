//! Imports into a real keystore, from directories as libvirt leaves them.

mod doubt;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::*;
use crate::administration::Put;
use crate::driver::{Driver, Keys, Root};
use crate::memory::SecretBytes;
use crate::secret::Definition;
use crate::transfer::libvirt::{Form, interruption, read_value, write_value};

/// A directory of libvirt's, and a keystore elsewhere or in that same directory.
struct House {
    place: tempfile::TempDir,
    in_place: bool,
}

impl House {
    fn new(in_place: bool) -> Self {
        let house = Self { place: tempfile::tempdir().unwrap(), in_place };
        fs::create_dir_all(house.libvirts()).unwrap();
        house
    }

    fn libvirts(&self) -> PathBuf {
        self.place.path().join(if self.in_place { "root/etc/secrets" } else { "theirs" })
    }

    fn driver(&self) -> Arc<Driver> {
        let keys = Keys { host_key: Some(self.place.path().join("host.key")), ..Keys::default() };
        let root = Root::embed(&self.place.path().join("root")).unwrap();
        Driver::open(root, "secret:///system".into(), &keys).unwrap()
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        let path = self.libvirts().join(name);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        file.write_all(contents.as_ref()).unwrap();
    }

    /// A secret as libvirt writes it; the value under each of these suffixes.
    fn secret(&self, number: u128, usage: &str, values: &[(&str, &[u8])]) {
        let uuid = Uuid::from_u128(number);
        self.write(&format!("{uuid}.xml"), document(number, usage));
        for (suffix, value) in values {
            let key = key(1);
            let form = if *suffix == "base64" { Form::Plain } else { Form::Encrypted(&key) };
            let text = write_value(&SecretBytes::copy_of(value).unwrap(), form).unwrap();
            self.write(&format!("{uuid}.{suffix}"), text.expose_secret());
        }
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.libvirts()).unwrap().map(Result::unwrap);
        let file =
            |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
        entries.map(file).collect()
    }

    fn import(&self, into: &dyn Inventory, key: Option<&LibvirtKey>, options: ImportOptions) -> Report {
        // As the keystore itself says it.
        let store = if self.in_place { Directory::open(&self.libvirts()).unwrap().keystore() } else { None };
        import_from(&self.libvirts(), into, key, ImportOptions { store, ..options })
    }
}

type Report = (Result<Summary, Error>, Vec<Imported>);

fn import_from(
    from: &Path,
    into: &dyn Inventory,
    key: Option<&LibvirtKey>,
    options: ImportOptions,
) -> Report {
    let mut rows = Vec::new();
    let summary = import(from, key, into, &options, &mut |row| rows.push(row.clone()));
    (summary, rows)
}

fn document(number: u128, usage: &str) -> String {
    let uuid = Uuid::from_u128(number);
    let usage = match usage {
        "" => String::new(),
        id => format!("  <usage type='ceph'>\n    <name>{id}</name>\n  </usage>\n"),
    };
    format!("<secret ephemeral='no' private='yes'>\n  <uuid>{uuid}</uuid>\n{usage}</secret>\n")
}

fn key(byte: u8) -> LibvirtKey {
    LibvirtKey::from_bytes(SecretBytes::copy_of(&[byte; 32]).unwrap()).unwrap()
}

const MOVE: ImportOptions = ImportOptions {
    dry_run: false,
    remove_originals: true,
    without_encrypted: false,
    without_copies: false,
    trust_key: true,
    store: None,
};
const COPY: ImportOptions = ImportOptions { remove_originals: false, ..MOVE };
const LOOK: ImportOptions = ImportOptions { dry_run: true, ..MOVE };

/// What the keystore has.
fn held(driver: &Driver) -> BTreeMap<u128, Option<Vec<u8>>> {
    let uuids = driver.list(None, 10_000).unwrap();
    let value = |uuid| driver.read(uuid).unwrap().unwrap().1.map(|value| value.expose_secret().to_vec());
    uuids.into_iter().map(|uuid| (uuid.as_u128(), value(uuid))).collect()
}

fn outcomes(rows: &[Imported]) -> Vec<Outcome> {
    rows.iter().map(|row| row.outcome).collect()
}

/// Three secrets: plain, encrypted, without a value; and both kinds of file for a fourth.
fn usual(house: &House) -> BTreeMap<u128, Option<Vec<u8>>> {
    house.secret(1, "one", &[("base64", b"plain\0value")]);
    house.secret(2, "two", &[("aes256cbc", b"0123456789abcdef")]);
    house.secret(3, "", &[]);
    house.secret(4, "four", &[("base64", b"same"), ("aes256cbc", b"same")]);
    let value = |text: &[u8]| Some(text.to_vec());
    BTreeMap::from([
        (1, value(b"plain\0value")),
        (2, value(b"0123456789abcdef")),
        (3, None),
        (4, value(b"same")),
    ])
}

#[test]
fn every_kind_of_secret_comes_in_and_the_originals_stay() {
    for in_place in [false, true] {
        let house = House::new(in_place);
        let expected = usual(&house);
        let driver = house.driver();
        let before = house.files();
        let (dry, rows) = house.import(&*driver, Some(&key(1)), LOOK);
        assert!(dry.unwrap().added == 4 && rows.len() == 4 && house.files() == before);
        assert!(held(&driver).is_empty());

        let (summary, rows) = house.import(&*driver, Some(&key(1)), COPY);
        let summary = summary.unwrap();
        assert_eq!(held(&driver), expected);
        assert_eq!((summary.added, summary.is_complete(), summary.plain_left), (4, true, 2));
        assert_eq!(summary.key, Some(KeyTrial { opened: 1, tried: 1 }));
        assert_eq!(rows[0].usage.as_deref(), Some("ceph one"));
        assert!(rows[3].hint.as_ref().unwrap().contains(".base64 is taken"));
        let definition = driver.read(Uuid::from_u128(1)).unwrap().unwrap().0;
        assert!(definition.private);
        let after = house.files();
        for (name, contents) in before.iter().filter(|(name, _)| name.contains('-')) {
            let aside = format!("{name}.libvirt");
            let name = if in_place && name.ends_with(".xml") { &aside } else { name };
            assert_eq!(after.get(name), Some(contents), "{name}");
        }

        let again = house.import(&*driver, Some(&key(1)), COPY).0.unwrap();
        assert_eq!((again.added, again.already_there), (0, 4));
        assert_eq!(house.import(&*driver, Some(&key(1)), LOOK).0.unwrap().already_there, 4);
    }
}

#[test]
fn originals_go_when_they_are_proved_to_be_in() {
    for in_place in [false, true] {
        let house = House::new(in_place);
        let expected = usual(&house);
        let driver = house.driver();
        let summary = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
        assert_eq!((summary.added, summary.removed, summary.left, summary.plain_left), (4, 4, 0, 0));
        assert_eq!(held(&driver), expected);
        drop(driver);
        let left: Vec<String> = house.files().into_keys().collect();
        let copies: Vec<String> = (1..=4).map(|number| format!("{}.xml", Uuid::from_u128(number))).collect();
        match in_place {
            false => assert_eq!(left, Vec::<String>::new()),
            true => {
                assert_eq!(left[..4], copies);
                assert_eq!(left[4..], ["keyring", "secrets.log"]);
            }
        }
        let driver = house.driver();
        assert_eq!(held(&driver), expected);
        let again = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
        assert_eq!((again.added, again.already_there, again.strays), (0, 0, 0));
    }
}

#[test]
fn what_is_in_the_keystore_is_never_changed() {
    let house = House::new(false);
    house.secret(1, "one", &[("base64", b"theirs")]);
    house.secret(2, "mine", &[("base64", b"theirs")]);
    house.secret(3, "three", &[("base64", b"same")]);
    house.secret(4, "four", &[]);
    let driver = house.driver();
    let ours = |number, usage, value: &[u8]| {
        let definition = Definition::from_xml(document(number, usage).as_bytes(), false).unwrap();
        driver.put(&definition, Some(&SecretBytes::copy_of(value).unwrap())).unwrap();
    };
    ours(1, "one", b"ours");
    ours(9, "mine", b"ours");
    ours(3, "three", b"same");
    ours(4, "four", b"what a removal that was cut short has left no trace of");
    let before = (held(&driver), house.files());
    for options in [LOOK, COPY] {
        let rows = house.import(&*driver, None, options).1;
        let taken = Outcome::UsageTaken(Uuid::from_u128(9));
        assert_eq!(outcomes(&rows), [Outcome::Differs, taken, Outcome::AlreadyThere, Outcome::AlreadyThere]);
        assert_eq!((held(&driver), house.files()), before);
    }
    let summary = house.import(&*driver, None, MOVE).0.unwrap();
    assert_eq!((summary.removed, summary.plain_left, summary.is_complete()), (2, 2, false));
    assert_eq!(held(&driver), before.0);
}

#[test]
fn a_wrong_key_is_recognised_before_anything_is_imported() {
    let house = House::new(false);
    for number in 1..=40 {
        house.secret(number, "", &[("aes256cbc", &[number as u8; 20])]);
    }
    house.secret(50, "", &[("base64", b"plain")]);
    let driver = house.driver();
    let before = house.files();
    let (result, rows) = house.import(&*driver, Some(&key(2)), MOVE);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("of 40 encrypted values; nothing was imported"), "{error}");
    let (result, none) = house.import(&*driver, None, MOVE);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("40 of 41 secrets"), "{error}");
    assert!(rows.is_empty() && none.is_empty() && held(&driver).is_empty() && house.files() == before);

    let options = ImportOptions { without_encrypted: true, ..MOVE };
    let summary = house.import(&*driver, None, options).0.unwrap();
    assert_eq!((summary.added, summary.no_key, summary.removed, summary.plain_left), (1, 40, 1, 0));
    let summary = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
    assert_eq!((summary.added, summary.removed), (40, 40));
    assert_eq!(held(&driver).len(), 41);
}

#[test]
fn one_bad_secret_stops_no_other() {
    let house = House::new(false);
    let name = |number: u128, rest: &str| format!("{}.{rest}", Uuid::from_u128(number));
    house.secret(1, "", &[("base64", b"good")]);
    house.write(&name(2, "xml"), "<secret");
    house.write(&name(3, "xml"), document(33, ""));
    house.write(&name(4, "xml"), document(4, "").replace("ephemeral='no'", "ephemeral='yes'"));
    house.secret(5, "", &[("base64", &[7; 65_537])]);
    house.secret(6, "", &[]);
    house.write(&name(6, "base64"), "\n");
    house.secret(7, "", &[]);
    house.write(&name(7, "base64"), "");
    house.secret(8, "", &[]);
    fs::create_dir(house.libvirts().join(name(8, "base64"))).unwrap();
    for number in 10..=13 {
        house.secret(number, "", &[("aes256cbc", b"good")]);
    }
    house.write(&name(13, "aes256cbc"), "AAAA");
    house.write(&name(20, "base64"), "czNjcmV0");
    house.write("notes.xml", "<notes/>");
    house.write(&name(1, "base64.new"), "Z29");
    let driver = house.driver();
    let mut rows = house.import(&*driver, Some(&key(1)), MOVE).1;
    let strays: Vec<Imported> = rows.extract_if(.., |row| row.outcome == Outcome::Stray).collect();
    let names: Vec<&str> = strays.iter().map(|row| &*row.name).collect();
    assert_eq!(names, ["notes.xml", &name(1, "base64.new"), &name(20, "base64")]);
    let unreadable = Outcome::Unreadable;
    let added = Outcome::Added;
    assert_eq!(
        outcomes(&rows),
        [
            added,
            unreadable,
            unreadable,
            Outcome::Ephemeral,
            unreadable,
            unreadable,
            added,
            unreadable,
            added,
            added,
            added,
            unreadable,
        ]
    );
    let hints =
        ["", "can't be read", "another secret", "no disk", "65536", "no value can", "", "regular file"];
    for (row, expected) in rows.iter().zip(hints) {
        let hint = row.hint.as_deref().unwrap_or_default();
        assert!(hint.contains(expected) && hint.is_empty() == expected.is_empty(), "{row:?}");
    }
    let bad = [2, 3, 4, 5, 6, 8, 13];
    for number in 1..=13 {
        let there = house.libvirts().join(name(number, "xml")).exists();
        assert_eq!(there, bad.contains(&number), "{number}");
    }
    assert_eq!(held(&driver).keys().copied().collect::<Vec<_>>(), [1, 7, 10, 11, 12]);
}

#[test]
fn a_stale_encrypted_value_is_left_and_named() {
    let house = House::new(false);
    house.secret(1, "", &[("base64", b"new"), ("aes256cbc", b"stale")]);
    let driver = house.driver();
    let (summary, rows) = house.import(&*driver, Some(&key(1)), MOVE);
    assert_eq!((summary.unwrap().left, rows[0].originals), (1, Originals::Left));
    assert!(rows[0].hint.as_ref().unwrap().contains("another value"), "{rows:?}");
    assert_eq!(held(&driver)[&1].as_deref(), Some(&b"new"[..]));
    // libvirt goes on to serve the new one, because nothing of this secret was removed.
    let all = [".aes256cbc", ".base64", ".xml"].map(|suffix| format!("{}{suffix}", Uuid::from_u128(1)));
    assert_eq!(house.files().into_keys().collect::<Vec<_>>(), all);
    let rows = house.import(&*driver, None, MOVE).1;
    assert!(rows[0].hint.as_ref().unwrap().contains("no key was given"), "{rows:?}");
    assert_eq!(house.files().into_keys().collect::<Vec<_>>(), all);
}

/// Cut short before each step that changes a file, and then run to its end.
#[test]
fn wherever_a_removal_is_cut_short_the_next_run_finishes_it() {
    for in_place in [false, true] {
        for steps in 0.. {
            let house = House::new(in_place);
            let expected = usual(&house);
            let driver = house.driver();
            interruption::after(Some(steps));
            let summary = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
            interruption::after(None);
            assert_eq!(held(&driver), expected, "after {steps} steps");
            let again = house.import(&*driver, Some(&key(1)), MOVE).0.unwrap();
            let complete = (again.differs, again.left, again.plain_left, again.is_complete());
            assert_eq!(complete, (0, 0, 0, true), "after {steps} steps");
            drop(driver);
            assert_eq!(held(&house.driver()), expected, "after {steps} steps");
            let theirs = |name: &&String| !in_place || (name.contains('-') && !name.ends_with(".xml"));
            let files = house.files();
            assert_eq!(files.keys().find(theirs), None, "after {steps} steps");
            if summary.left == 0 {
                assert!(steps > 10, "only {steps} steps: nothing was interrupted");
                break;
            }
        }
    }
}

/// A keystore that stops taking secrets after a while.
struct Failing<'a> {
    driver: &'a Driver,
    puts: AtomicI32,
}

impl Inventory for Failing<'_> {
    fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error> {
        self.driver.list(after, max)
    }

    fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
        self.driver.read(uuid)
    }

    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
        match self.puts.fetch_sub(1, Ordering::Relaxed) {
            1.. => self.driver.put(definition, value),
            _ => Err(Error::not_now("the disk is full")),
        }
    }

    /// Always wrong about one of them.
    fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error> {
        Ok(definition.uuid.as_u128() != 100 && self.driver.holds(definition, value)?)
    }
}

#[test]
fn a_keystore_that_takes_nothing_more_ends_the_import_and_costs_nothing() {
    let house = House::new(false);
    for number in 1..=200 {
        house.secret(number, "", &[("base64", &[number as u8; 9])]);
    }
    let driver = house.driver();
    let failing = Failing { driver: &driver, puts: AtomicI32::new(70) };
    let (result, rows) = house.import(&failing, None, MOVE);
    assert!(result.unwrap_err().to_string().contains("the disk is full"));
    assert!(rows.iter().any(|row| row.outcome == Outcome::Refused));
    assert_eq!((held(&driver).len(), house.files().len()), (70, 260));

    failing.puts.store(1000, Ordering::Relaxed);
    let (result, rows) = house.import(&failing, None, MOVE);
    let summary = result.unwrap();
    assert_eq!((summary.added + summary.already_there, summary.refused), (129, 1));
    let refused = rows.iter().find(|row| row.outcome == Outcome::Refused).unwrap();
    assert!(refused.hint.as_ref().unwrap().contains("not there as it was put"), "{refused:?}");
    // What can't be proved to be in keeps its original.
    assert_eq!((held(&driver).len(), house.files().len()), (200, 2));
}

/// A few that are refused are reported like any other that can't be imported.
#[test]
fn a_few_refusals_do_not_end_it() {
    let house = House::new(false);
    for number in 1..=3 {
        house.secret(number, "", &[]);
    }
    let driver = house.driver();
    let failing = Failing { driver: &driver, puts: AtomicI32::new(0) };
    let summary = house.import(&failing, None, MOVE).0.unwrap();
    assert_eq!((summary.refused, summary.removed, summary.is_complete()), (3, 0, false));
    assert_eq!(house.import(&*driver, None, MOVE).0.unwrap().removed, 3);
}

#[test]
fn a_locked_keystore_ends_it_before_it_begins() {
    let house = House::new(false);
    house.secret(1, "", &[]);
    let driver = house.driver();
    driver.lock().unwrap();
    assert!(house.import(&*driver, None, MOVE).0.unwrap_err().to_string().contains("locked"));
    let driver = House::new(false);
    let error = import_from(Path::new("/nowhere/at/all"), &*driver.driver(), None, COPY).0.unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn loose_files_are_imported_and_named() {
    let house = House::new(false);
    house.secret(1, "", &[("base64", b"x")]);
    let value = house.libvirts().join(format!("{}.base64", Uuid::from_u128(1)));
    fs::set_permissions(&value, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(house.libvirts(), fs::Permissions::from_mode(0o755)).unwrap();
    let (summary, rows) = house.import(&*house.driver(), None, COPY);
    assert_eq!(summary.unwrap().loose_directory, Some(0o755));
    assert!(rows[0].hint.as_ref().unwrap().contains("mode 0644"), "{rows:?}");
}

#[test]
fn a_keystore_without_copies_keeps_none_of_libvirts_definitions() {
    let house = House::new(true);
    let expected = usual(&house);
    let keys = Keys { host_key: Some(house.place.path().join("host.key")), ..Keys::default() };
    let root = Root::embed(&house.place.path().join("root")).unwrap();
    let new = crate::driver::NewStore { without_copies: true, ..Default::default() };
    Driver::init(&root, &keys, &new).unwrap();
    let driver = house.driver();
    let options = ImportOptions { without_copies: true, ..MOVE };
    house.import(&*driver, Some(&key(1)), COPY).0.unwrap();
    let again = house.import(&*driver, Some(&key(1)), options).0.unwrap();
    assert_eq!((again.already_there, again.removed), (4, 4));
    assert_eq!(held(&driver), expected);
    assert!(!house.files().keys().any(|name| name.contains('-')));
}
