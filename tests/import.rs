//! Moving house: directories that Debian's libvirt wrote come in whole, whatever happens on the way, and go back to it.
//!
//! `clients/libvirt_directory.py` makes and reads the directories, with libvirt itself and with openssl: nothing of
//! ours has a hand in it. Its manifests say what must be found. Leans on `support` for the process that is killed.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use strongroom::Inventory;
use strongroom::driver::{Driver, Keys, Root};
use strongroom::transfer::{ExportForm, Exported, ImportOptions, LibvirtKey, export, import};
use support::{Dice, Other, Place, files_below, note, say};
use uuid::Uuid;

const KILLS: usize = 50;
const PLAIN: usize = 5000;
const ENCRYPTED: usize = 5000;

const MOVE: ImportOptions = ImportOptions {
    dry_run: false,
    remove_originals: true,
    without_encrypted: false,
    without_copies: false,
    // After a kill there may be few encrypted values left to try it on.
    trust_key: true,
    store: None,
};

#[test]
fn ten_thousand_secrets_come_in_whole_though_the_import_is_killed_fifty_times() {
    if let Some(role) = support::role() {
        return import_once(&role);
    }
    let (started, mut dice) = (Instant::now(), Dice(Dice::seed()));
    let house = House::new();
    let expected = house.fill(PLAIN, ENCRYPTED);
    assert_eq!(expected.len(), PLAIN + ENCRYPTED);
    let filled = started.elapsed().as_secs();

    let marks = marks(&expected);
    let found = traces(&house.libvirts(), &marks);
    assert!(found > PLAIN * 3 / 4, "the search found only {found} values where they all lie in plain text");
    let held = house.hold_originals(200);

    let driver = house.place.driver();
    assert!(driver.list(None, 1).unwrap().is_empty());
    drop(driver);
    let mut left = vec![definitions(&house.libvirts())];
    for kill in 1..=KILLS {
        // Every tenth is killed while it looks around, the others at their work.
        house.import_and_kill(&mut dice, Some(5).filter(|_| kill % 10 != 0));
        left.push(definitions(&house.libvirts()));
    }
    let stages = left.windows(2).filter(|two| two[1] < two[0]).count();
    assert!(stages > KILLS / 2 && left[KILLS] > 0, "the kills came too late or too soon: {left:?}");
    house.import_to_the_end();
    let imported = started.elapsed().as_secs() - filled;

    house.check(&expected);
    assert_eq!(files_below(&house.libvirts()), Vec::<PathBuf>::new());
    assert_eq!(traces(&house.libvirts(), &marks) + traces(&house.place.root(), &marks), 0);
    for (file, len) in held {
        let mut bytes = vec![1; len];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "a removed file's blocks still hold its value");
    }
    note(&format!(
        "made in {filled} s, imported in {imported} s; of {KILLS} kills {stages} came at work; secrets left after each: {left:?}"
    ));
}

#[test]
fn a_keystore_in_libvirts_own_directory_takes_over_though_it_is_killed() {
    if let Some(role) = support::role() {
        return import_once(&role);
    }
    let mut dice = Dice(Dice::seed());
    let house = House::in_place();
    let expected = house.fill(400, 100);
    for kill in 1..=10 {
        house.import_and_kill(&mut dice, Some(2).filter(|_| kill % 5 != 0));
    }
    house.import_to_the_end();
    house.check(&expected);
    let names = files_below(&house.libvirts()).into_iter().map(|path| path.file_name().unwrap().to_owned());
    let mut copies: HashSet<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(copies.remove("keyring") && copies.remove("secrets.log"), "{copies:?}");
    assert_eq!(copies, expected.keys().map(|uuid| format!("{uuid}.xml")).collect());
    assert_eq!(traces(&house.place.root(), &marks(&expected)), 0);
}

#[test]
fn a_wrong_key_imports_nothing_and_changes_nothing() {
    let house = House::new();
    house.fill(20, 60);
    let files = |directory: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        files_below(directory).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    };
    let before = files(&house.libvirts());
    let driver = house.place.driver();
    let wrong = house.place.0.join("wrong.key");
    write_private(&wrong, &[7; 32]);
    let wrong = LibvirtKey::read(&wrong).unwrap();
    for options in [MOVE, ImportOptions { dry_run: true, ..MOVE }] {
        let refused =
            import(&house.libvirts(), Some(&wrong), &*driver, &options, &mut |row| panic!("{row:?}"));
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("the key is wrong: it opens"), "{error}");
    }
    assert!(driver.list(None, 1).unwrap().is_empty());
    assert_eq!(files(&house.libvirts()), before);
}

#[test]
fn what_is_exported_is_read_by_libvirt_and_by_openssl() {
    let house = House::new();
    let expected = house.fill(150, 150);
    let driver = house.place.driver();
    import(&house.libvirts(), Some(&house.key()), &*driver, &MOVE, &mut |_| {}).unwrap();

    let plain = house.place.0.join("plain");
    fs::create_dir_all(plain.join("etc")).unwrap();
    let target = plain.join("etc/secrets");
    for again in [Exported::Written, Exported::AlreadyThere] {
        let count = export(&*driver, &target, &ExportForm::Plaintext, &mut |row| {
            assert_eq!(row.outcome, Ok(again), "{row:?}");
        });
        assert_eq!(count, Ok(expected.len()));
    }
    assert_eq!(manifest(&python(&["read", text(&plain)])), expected);

    let target = house.place.0.join("encrypted");
    let form = ExportForm::Encrypted(house.key());
    assert_eq!(export(&*driver, &target, &form, &mut |_| {}), Ok(expected.len()));
    let decrypted = python(&["decrypt", text(&target), text(&house.key_file())]);
    let decrypted: BTreeMap<String, String> = decrypted
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(uuid, value)| (uuid.into(), value.into()))
        .collect();
    let values =
        expected.iter().filter_map(|(uuid, secret)| Some((uuid.to_string(), hex(secret.value.as_ref()?))));
    assert_eq!(decrypted, values.collect());

    // And back into another keystore.
    let other = House::new();
    let keystore = other.place.driver();
    let summary = import(&target, Some(&house.key()), &*keystore, &MOVE, &mut |_| {}).unwrap();
    assert_eq!((summary.added, summary.removed), (expected.len(), expected.len()));
    drop(keystore);
    other.check(&expected);
}

#[test]
fn an_export_goes_on_where_it_ended_and_writes_over_nothing() {
    let house = House::new();
    let expected = house.fill(30, 0);
    let driver = house.place.driver();
    import(&house.libvirts(), None, &*driver, &MOVE, &mut |_| {}).unwrap();
    let target = house.place.0.join("target");
    let export = |form: &ExportForm| {
        let mut written = 0;
        export(&*driver, &target, form, &mut |row| {
            written += usize::from(row.outcome == Ok(Exported::Written));
        })
        .map(|count| (count, written))
        .map_err(|error| error.to_string())
    };
    export(&ExportForm::Plaintext).unwrap();
    let valued = expected.iter().filter(|(_, secret)| secret.value.is_some());
    let uuids: Vec<Uuid> = valued.map(|(uuid, _)| *uuid).take(4).collect();
    let file = |uuid: Uuid, suffix: &str| target.join(format!("{uuid}.{suffix}"));
    // As a kill would leave it: a value without its definition, neither, and half a file.
    fs::remove_file(file(uuids[0], "xml")).unwrap();
    fs::remove_file(file(uuids[1], "xml")).unwrap();
    fs::remove_file(file(uuids[1], "base64")).unwrap();
    fs::write(file(uuids[1], "base64.new"), "cz").unwrap();
    assert_eq!(export(&ExportForm::Plaintext), Ok((30, 2)));

    let refused = |what: &str| {
        let before = files_below(&target).len();
        let error = export(&ExportForm::Plaintext).unwrap_err();
        assert!(error.contains(what) && files_below(&target).len() == before, "{error}");
    };
    // Half a value in plain text goes whichever form comes next.
    let half = file(uuids[3], "base64.new");
    fs::write(&half, "c2VjcmV0").unwrap();
    let held = File::open(&half).unwrap();
    assert_eq!(export(&ExportForm::Plaintext), Ok((30, 0)));
    let mut bytes = [1; 8];
    held.read_exact_at(&mut bytes, 0).unwrap();
    assert!(!half.exists() && bytes == [0; 8]);

    let encrypted = export(&ExportForm::Encrypted(house.key())).unwrap_err();
    assert!(encrypted.contains("in the other form"), "{encrypted}");
    let value = fs::read(file(uuids[2], "base64")).unwrap();
    fs::write(file(uuids[2], "base64"), "b3RoZXJz").unwrap();
    refused("another value");
    fs::write(file(uuids[2], "base64"), value).unwrap();
    let stranger = Uuid::from_u128(1);
    fs::write(file(stranger, "xml"), format!("<secret><uuid>{stranger}</uuid></secret>")).unwrap();
    refused("which the keystore doesn't have");
    fs::remove_file(file(stranger, "xml")).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
    refused("mode 0755");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&target, Some(65_534), None).unwrap();
        refused("belongs to another user (uid 65534)");
    }
}

/// A keystore, and a directory of libvirt's.
struct House {
    place: Place,
    in_place: bool,
    _directory: tempfile::TempDir,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let house = Self { place: Place(directory.path().into()), in_place: false, _directory: directory };
        fs::create_dir_all(house.libvirts()).unwrap();
        write_private(&house.key_file(), &(0..32).map(|byte| byte * 7).collect::<Vec<u8>>());
        house
    }

    /// Both in the same place.
    fn in_place() -> Self {
        let house = Self { in_place: true, ..Self::new() };
        fs::create_dir_all(house.libvirts()).unwrap();
        house
    }

    fn libvirts(&self) -> PathBuf {
        if self.in_place { self.place.etc() } else { self.place.0.join("theirs") }
    }

    fn key_file(&self) -> PathBuf {
        self.place.0.join("libvirt.key")
    }

    fn key(&self) -> LibvirtKey {
        LibvirtKey::read(&self.key_file()).unwrap()
    }

    /// Lets libvirt write so many secrets, and openssl encrypt so many more.
    fn fill(&self, plain: usize, encrypted: usize) -> Manifest {
        let at = |name: &str| self.place.0.join(name);
        let (to, key) = (self.libvirts(), self.key_file());
        let mut children =
            vec![start(&["encrypted", text(&to), text(&at("manifest")), text(&key), &encrypted.to_string()])];
        // Several of libvirt's drivers at once: a single one waits for the disk most of its time.
        let drivers = plain.div_ceil(1250);
        for driver in 0..drivers {
            let (root, manifest) = (at(&format!("root-{driver}")), at(&format!("manifest-{driver}")));
            let count = (plain / drivers).to_string();
            children.push(start(&["plain", text(&root), text(&manifest), &count]));
        }
        for child in children {
            finish(child);
        }
        let mut expected = manifest(&fs::read_to_string(at("manifest")).unwrap());
        for driver in 0..drivers {
            for file in files_below(&at(&format!("root-{driver}/etc/secrets"))) {
                fs::rename(&file, to.join(file.file_name().unwrap())).unwrap();
            }
            expected.extend(manifest(&fs::read_to_string(at(&format!("manifest-{driver}"))).unwrap()));
        }
        expected
    }

    /// Lets another process import, and kills it: after less than so many steps and some milliseconds, or, if there is no
    /// number, at any moment of its start.
    fn import_and_kill(&self, dice: &mut Dice, steps: Option<u64>) {
        let mut importer = self.import();
        if let Some(steps) = steps {
            importer.expect("begin");
            for _ in 0..dice.roll(steps) {
                importer.expect("step");
            }
        }
        let millis = if steps.is_some() { 60 } else { 400 };
        std::thread::sleep(Duration::from_micros(dice.roll(millis * 1000)));
        importer.kill();
    }

    fn import_to_the_end(&self) {
        let importer = self.import();
        let said = importer.lines.iter().find(|line| line != "begin" && line != "step");
        assert_eq!(said.as_deref(), Some("done: whole, 0 left in plain text"));
    }

    /// Another process that imports it all. It says `begin`, `step` now and then, and in the end what is left to do.
    fn import(&self) -> Other {
        let name = match self.in_place {
            true => "a_keystore_in_libvirts_own_directory_takes_over_though_it_is_killed",
            false => "ten_thousand_secrets_come_in_whole_though_the_import_is_killed_fifty_times",
        };
        support::again(name, &[text(&self.place.0), text(&self.libvirts()), text(&self.key_file())])
    }

    /// Opens some of the plain values, to see later what has become of their bytes.
    fn hold_originals(&self, count: usize) -> Vec<(File, usize)> {
        let files = files_below(&self.libvirts()).into_iter();
        let values = files.filter(|path| path.extension().is_some_and(|suffix| suffix == "base64"));
        let held = values.take(count).map(|path| File::open(path).unwrap());
        held.map(|file| {
            let len = file.metadata().unwrap().len();
            (file, usize::try_from(len).unwrap())
        })
        .collect()
    }

    /// Holds the keystore against the manifest: every secret, its every bit, and no other.
    fn check(&self, expected: &Manifest) {
        let driver = self.place.driver();
        let uuids = driver.list(None, usize::MAX).unwrap();
        assert!(uuids.iter().eq(expected.keys()), "{} secrets of {}", uuids.len(), expected.len());
        for uuid in uuids {
            let (definition, value) = driver.read(uuid).unwrap().unwrap();
            let found = Secret {
                private: definition.private,
                usage: Some(definition.usage.id.to_string()).filter(|id| !id.is_empty()),
                value: value.map(|value| value.expose_secret().to_vec()),
            };
            assert!(found == expected[&uuid], "{uuid} is another than it was");
        }
        let findings = driver.verify().unwrap().findings;
        assert!(!findings.iter().any(|finding| finding.is_damage()), "{findings:?}");
    }
}

impl Place {
    fn driver(&self) -> Arc<Driver> {
        let keys = Keys { host_key: Some(self.key_file()), ..Keys::default() };
        Driver::open(Root::embed(&self.root()).unwrap(), self.uri(), &keys).unwrap()
    }
}

/// The other process's life.
fn import_once(role: &[String]) {
    let [place, from, key] = role else { panic!("{role:?}") };
    let driver = Place(place.into()).driver();
    let key = LibvirtKey::read(Path::new(key)).unwrap();
    say("begin");
    let mut count = 0;
    let store = driver.status().store.and_then(|id| id.parse().ok());
    let summary =
        import(Path::new(from), Some(&key), &*driver, &ImportOptions { store, ..MOVE }, &mut |_| {
            count += 1;
            if count % 64 == 0 {
                say("step");
            }
        });
    drop(driver);
    match summary {
        Ok(summary) if summary.is_complete() && summary.left == 0 => {
            say(&format!("done: whole, {} left in plain text", summary.plain_left));
        }
        other => say(&format!("done: {other:?}")),
    }
}

/// What a secret is.
#[derive(PartialEq, Eq)]
struct Secret {
    private: bool,
    usage: Option<String>,
    value: Option<Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.value.as_ref().map(Vec::len);
        write!(f, "(private: {}, usage: {:?}, a value of {len:?} bytes)", self.private, self.usage)
    }
}

type Manifest = BTreeMap<Uuid, Secret>;

fn manifest(lines: &str) -> Manifest {
    let one = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [uuid, private, usage, value] = words[..] else { panic!("{line}") };
        let given = |word: &str| Some(word.to_owned()).filter(|word| word != "-");
        let value = given(value).map(|hex| {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(byte).collect()
        });
        (uuid.parse().unwrap(), Secret { private: private == "private", usage: given(usage), value })
    };
    lines.lines().map(one).collect()
}

/// What betrays a value: 16 bytes of it, and of its base64. Only of values with that many, and of random ones.
fn marks(expected: &Manifest) -> HashSet<[u8; MARK]> {
    use base64::Engine;
    let mut marks = HashSet::new();
    for value in expected.values().filter_map(|secret| secret.value.as_ref()) {
        let text = base64::engine::general_purpose::STANDARD.encode(value);
        for bytes in [value, text.as_bytes()] {
            marks.extend(bytes.last_chunk::<MARK>().filter(|_| value.len() > MARK + 5));
            marks.extend(bytes.first_chunk::<MARK>().filter(|_| value.len() > MARK + 5));
        }
    }
    marks
}

const MARK: usize = 16;

/// In how many files below a directory values can be seen.
fn traces(directory: &Path, marks: &HashSet<[u8; MARK]>) -> usize {
    let betrays = |path: &PathBuf| {
        let bytes = fs::read(path).unwrap();
        bytes.windows(MARK).any(|window| marks.contains(window))
    };
    files_below(directory).iter().filter(|path| betrays(path)).count()
}

/// How many definitions are left.
fn definitions(directory: &Path) -> usize {
    files_below(directory).iter().filter(|path| path.extension().is_some_and(|end| end == "xml")).count()
}

/// A new file that nobody else can read.
fn write_private(path: &Path, contents: &[u8]) {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(contents).unwrap();
}

fn start(arguments: &[&str]) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/libvirt_directory.py");
    let mut python = Command::new("/usr/bin/python3");
    python.arg(script).args(arguments).stdout(Stdio::piped()).spawn().unwrap()
}

fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

fn python(arguments: &[&str]) -> String {
    finish(start(arguments))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
