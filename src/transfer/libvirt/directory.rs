//! What lies in a directory of libvirt's secret driver, and the few things that are done to it.
//!
//! Leans on rustix: every name is opened relative to the directory that is held open, no symbolic link is followed, and a
//! pipe keeps nobody waiting. Refuses files that are none, and to read more than libvirt would. Files that others can read
//! are read all the same, and said to be so: their owner wants them out of there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use ::uuid::Uuid;
use rustix::fs::{self, AtFlags, Mode, OFlags};

use super::unfit::MAX_FILE;
use super::{Form, Unfit, read_value};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error};
use crate::store::{KEYRING, LOG};

/// A directory that is held open.
#[derive(Debug)]
pub(in crate::transfer) struct Directory {
    descriptor: OwnedFd,
    path: PathBuf,
}

/// What is in it.
#[derive(Debug, Default)]
pub(in crate::transfer) struct Listing {
    /// By UUID, in order.
    pub(in crate::transfer) secrets: Vec<Found>,
    /// Definitions whose names are no UUID as libvirt writes it.
    pub(in crate::transfer) misnamed: Vec<String>,
    /// What a write of libvirt's that a crash cut short has left.
    pub(in crate::transfer) unfinished: Vec<String>,
    /// Originals on their way out: see [`Directory::take_out`].
    pub(in crate::transfer) on_their_way_out: Vec<String>,
    /// It is the directory of a keystore of ours: `<uuid>.xml` may be a copy of ours.
    pub(in crate::transfer) has_keystore: bool,
}

/// What there is of one secret.
#[derive(Debug, Clone, Default)]
pub(in crate::transfer) struct Found {
    pub(in crate::transfer) uuid: Uuid,
    /// `<uuid>.xml`.
    pub(in crate::transfer) definition: bool,
    pub(in crate::transfer) plain: bool,
    pub(in crate::transfer) encrypted: bool,
    /// Definitions of libvirt's that were set aside for a copy of ours: the numbers in their names, the first being 1.
    pub(in crate::transfer) aside: Vec<u32>,
}

/// The kinds of value file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::transfer) enum ValueFile {
    Plain,
    Encrypted,
}

impl ValueFile {
    pub(in crate::transfer) fn name(self, uuid: Uuid) -> String {
        format!("{uuid}{}", if self == Self::Plain { PLAIN } else { ENCRYPTED })
    }
}

/// The name of a definition: libvirt's or our copy (0), or the one of this number that was set aside.
pub(in crate::transfer) fn definition_name(uuid: Uuid, aside: u32) -> String {
    match aside {
        0 => format!("{uuid}{DEFINITION}"),
        1 => format!("{uuid}{ASIDE}"),
        number => format!("{uuid}{ASIDE}-{number}"),
    }
}

impl Found {
    /// The value that libvirt serves, where there are two.
    pub(in crate::transfer) fn value(&self) -> Option<ValueFile> {
        match (self.plain, self.encrypted) {
            (true, _) => Some(ValueFile::Plain),
            (false, true) => Some(ValueFile::Encrypted),
            (false, false) => None,
        }
    }
}

impl Directory {
    pub(in crate::transfer) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match fs::open(path, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Self { descriptor, path: path.into() }),
            Err(error) => {
                let plain =
                    Error::system(format!("cannot open the directory '{}'", path.display()), &error.into());
                Err(plain.advise("name the directory that libvirt's secret driver keeps its files in, such as /etc/libvirt/secrets"))
            }
        }
    }

    pub(in crate::transfer) fn path(&self) -> &Path {
        &self.path
    }

    /// The mode, if others than the owner can do anything here.
    pub(in crate::transfer) fn looseness(&self) -> Result<Option<u32>, Error> {
        let about = fs::fstat(&self.descriptor).map_err(|error| self.failed("read", &error.into()))?;
        Ok(looseness(about.st_mode))
    }

    pub(in crate::transfer) fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut secrets: HashMap<Uuid, Found> = HashMap::new();
        self.names(&mut |name| sort_in(name, &mut secrets, &mut listing))?;
        listing.secrets = secrets.into_values().collect();
        listing.secrets.sort_unstable_by_key(|found| found.uuid);
        for names in [&mut listing.misnamed, &mut listing.unfinished, &mut listing.on_their_way_out] {
            names.sort_unstable();
        }
        Ok(listing)
    }

    /// How many files may hold a value, or a part of one, that anybody who reads the disk has.
    pub(in crate::transfer) fn count_plain(&self) -> Result<usize, Error> {
        let mut count = 0;
        self.names(&mut |name| count += usize::from(name.contains(PLAIN)))?;
        Ok(count)
    }

    pub(in crate::transfer) fn has(&self, name: &str) -> bool {
        fs::statat(&self.descriptor, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// A definition, and the file's mode if it is loose. Its UUID must be the one in the name.
    pub(in crate::transfer) fn definition(
        &self,
        uuid: Uuid,
        aside: u32,
    ) -> Result<(Definition, Option<u32>), Unfit> {
        let (file, len, loose) = self.read(&definition_name(uuid, aside))?;
        let mut document = Vec::new();
        file.take(len).read_to_end(&mut document)?;
        let definition = Definition::from_xml(&document, false).map_err(Unfit::Document)?;
        if definition.uuid != uuid {
            return Err(Unfit::OtherUuid(definition.uuid));
        }
        Ok((definition, loose))
    }

    /// A value, if the file isn't empty, and the file's mode if it is loose.
    pub(in crate::transfer) fn value(
        &self,
        name: &str,
        form: Form<'_>,
    ) -> Result<(Option<SecretBytes>, Option<u32>), Unfit> {
        let (file, len, loose) = self.read(name)?;
        Ok((read_value(&mut file.take(len), len, form)?, loose))
    }

    fn read(&self, name: &str) -> Result<(File, u64, Option<u32>), Unfit> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        let about = file.metadata()?;
        match about.len() {
            _ if !about.is_file() => Err(Unfit::NoFile),
            len if len > MAX_FILE => Err(Unfit::TooLarge(len)),
            len => Ok((file, len, looseness(about.mode()))),
        }
    }

    fn open_file(&self, name: &str, access: OFlags) -> Result<File, Unfit> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(descriptor.into()),
            Err(rustix::io::Errno::LOOP) => Err(Unfit::NoFile),
            Err(error) => Err(Unfit::Io(error.into())),
        }
    }

    /// The first half of removing a value file: it gets a name under which nobody takes it for a value, be its bytes
    /// half overwritten when a crash comes. Refuses a file that has another name besides: the bytes are also somebody
    /// else's.
    pub(in crate::transfer) fn take_out(&self, name: &str) -> Result<String, Unfit> {
        let about = self.open_file(name, OFlags::RDWR)?.metadata()?;
        if !about.is_file() {
            return Err(Unfit::NoFile);
        }
        if about.nlink() > 1 {
            return Err(Unfit::Io(io::Error::other("the same file has another name elsewhere")));
        }
        let out = format!("{name}{ON_ITS_WAY_OUT}");
        interruptible()?;
        fs::renameat(&self.descriptor, name, &self.descriptor, &out).map_err(io::Error::from)?;
        Ok(out)
    }

    /// The second half, when the new name is durable: overwrites the bytes, waits until that is on the disk, and removes the
    /// file.
    pub(in crate::transfer) fn destroy(&self, name: &str) -> Result<(), Unfit> {
        let file = self.open_file(name, OFlags::RDWR)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(Unfit::NoFile);
        }
        let mut at = 0;
        while at < about.len() {
            interruptible()?;
            let len = usize::try_from(about.len() - at).map_or(ZEROS.len(), |rest| rest.min(ZEROS.len()));
            file.write_all_at(&ZEROS[..len], at)?;
            at += len as u64;
        }
        file.sync_all()?;
        Ok(self.remove(name)?)
    }

    /// Removes a file. It is no failure if there is none.
    pub(in crate::transfer) fn remove(&self, name: &str) -> io::Result<()> {
        interruptible()?;
        match fs::unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            removed => Ok(removed?),
        }
    }

    /// Returns when its entries are durable.
    pub(in crate::transfer) fn sync(&self) -> Result<(), Error> {
        fs::fsync(&self.descriptor).map_err(|error| self.failed("write to", &error.into()))
    }

    /// Writes a file of mode 0600 beside the place where it shall be. Neither durable nor in that place yet.
    pub(in crate::transfer) fn write_beside(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let beside = format!("{name}{UNFINISHED}");
        self.remove(&beside)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let descriptor = fs::openat(&self.descriptor, &*beside, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(descriptor).write_all(bytes)
    }

    /// Returns when everything on its file system is durable.
    pub(in crate::transfer) fn sync_file_system(&self) -> Result<(), Error> {
        fs::syncfs(&self.descriptor).map_err(|error| self.failed("write to", &error.into()))
    }

    /// Gives a file that was written beside its place this place.
    pub(in crate::transfer) fn put_in_place(&self, name: &str) -> io::Result<()> {
        interruptible()?;
        Ok(fs::renameat(&self.descriptor, format!("{name}{UNFINISHED}"), &self.descriptor, name)?)
    }

    fn names(&self, each: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let reading = |error: rustix::io::Errno| self.failed("read", &error.into());
        for entry in fs::Dir::read_from(&self.descriptor).map_err(reading)? {
            // A name that is no UTF-8 is none of libvirt's.
            if let Ok(name) = entry.map_err(reading)?.file_name().to_str() {
                each(name);
            }
        }
        Ok(())
    }

    pub(in crate::transfer) fn failed(&self, doing: &str, error: &io::Error) -> Error {
        Error::system(format!("cannot {doing} the directory '{}'", self.path.display()), error)
    }
}

/// Tells what a name means.
fn sort_in(name: &str, secrets: &mut HashMap<Uuid, Found>, listing: &mut Listing) {
    if name == KEYRING || name == LOG {
        listing.has_keystore = true;
        return;
    }
    let (stem, rest) = name.split_once('.').map_or((name, ""), |(stem, _)| (stem, &name[stem.len()..]));
    let uuid = Uuid::try_parse(stem).ok().filter(|uuid| uuid.to_string() == stem);
    let Some(uuid) = uuid else {
        if name.ends_with(DEFINITION) {
            listing.misnamed.push(name.to_owned());
        }
        return;
    };
    let mut found =
        |set: fn(&mut Found)| set(secrets.entry(uuid).or_insert(Found { uuid, ..Found::default() }));
    match rest {
        DEFINITION => found(|found| found.definition = true),
        PLAIN => found(|found| found.plain = true),
        ENCRYPTED => found(|found| found.encrypted = true),
        _ if rest.ends_with(UNFINISHED) => listing.unfinished.push(name.to_owned()),
        _ if rest.ends_with(ON_ITS_WAY_OUT) => listing.on_their_way_out.push(name.to_owned()),
        _ => {
            let number = match rest.strip_prefix(ASIDE) {
                Some("") => Some(1),
                Some(number) => number.strip_prefix('-').and_then(|number| number.parse().ok()),
                None => None,
            };
            if let Some(number) = number.filter(|number| definition_name(uuid, *number) == name) {
                secrets.entry(uuid).or_insert(Found { uuid, ..Found::default() }).aside.push(number);
            }
        }
    }
}

fn looseness(mode: u32) -> Option<u32> {
    Some(mode & 0o7777).filter(|mode| mode & 0o077 != 0)
}

const DEFINITION: &str = ".xml";
const PLAIN: &str = ".base64";
const ENCRYPTED: &str = ".aes256cbc";
const UNFINISHED: &str = ".new";

/// How the store calls a definition of libvirt's that was in its copy's way.
const ASIDE: &str = ".xml.libvirt";

/// How an original is called whose value is in the keystore, proved to be.
const ON_ITS_WAY_OUT: &str = ".imported";

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where tests cut a run short: before each step that changes something.
fn interruptible() -> io::Result<()> {
    #[cfg(test)]
    if interruption::is_now() {
        return Err(io::Error::other(interruption::INTERRUPTED));
    }
    Ok(())
}

/// An interruption, planted: from a certain step on, nothing is changed any more.
#[cfg(test)]
pub(in crate::transfer) mod interruption {
    use std::cell::Cell;

    pub(in crate::transfer) const INTERRUPTED: &str = "interrupted, for a test";

    thread_local!(static STEPS: Cell<Option<u32>> = const { Cell::new(None) });

    /// Lets so many more steps through; `None`: all.
    pub(in crate::transfer) fn after(steps: Option<u32>) {
        STEPS.set(steps);
    }

    pub(super) fn is_now() -> bool {
        match STEPS.get() {
            None => false,
            Some(0) => true,
            Some(steps) => {
                STEPS.set(Some(steps - 1));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use secrecy::ExposeSecret;

    use super::*;

    const ONE: Uuid = Uuid::from_u128(0x1111_1111_1111_1111_1111_1111_1111_1111);

    fn place(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            std::fs::write(place.path().join(name), contents).unwrap();
        }
        let directory = Directory::open(place.path()).unwrap();
        (place, directory)
    }

    #[test]
    fn names_are_told_apart() {
        let uuid = ONE.to_string();
        let other = "22222222-2222-2222-2222-22222222222a";
        let name = |rest: &str| format!("{uuid}{rest}");
        let mut names = [
            ".xml",
            ".base64",
            ".aes256cbc",
            ".xml.libvirt",
            ".xml.libvirt-2",
            ".xml.libvirt-07",
            ".xml.new",
            ".base64.new",
            ".base64.imported",
            ".txt",
        ]
        .map(name)
        .to_vec();
        names.push(format!("{other}.aes256cbc"));
        names.extend(["22222222-2222-2222-2222-22222222222A.xml", "notes.xml", "readme"].map(str::to_owned));
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, &b""[..])).collect();
        let (_place, directory) = place(&files);
        let mut listing = directory.list().unwrap();
        let [one, two] = &mut listing.secrets[..] else { panic!("{listing:?}") };
        one.aside.sort_unstable();
        assert_eq!((one.uuid, one.definition, one.plain, one.encrypted), (ONE, true, true, true));
        assert_eq!((&*one.aside, one.value()), (&[1, 2][..], Some(ValueFile::Plain)));
        assert_eq!((two.definition, two.value()), (false, Some(ValueFile::Encrypted)));
        assert_eq!(listing.misnamed, ["22222222-2222-2222-2222-22222222222A.xml", "notes.xml"]);
        assert_eq!(listing.unfinished, [name(".base64.new"), name(".xml.new")]);
        assert_eq!(listing.on_their_way_out, [name(".base64.imported")]);
        assert!(!listing.has_keystore);
        assert_eq!(directory.count_plain().unwrap(), 3);
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let (place, directory) = place(&[("target", b"czNjcmV0")]);
        let at = |name: &str| place.path().join(name);
        symlink(at("target"), at("link")).unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        fs::mknodat(fs::CWD, at("pipe"), fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        File::create(at("long")).unwrap().set_len(MAX_FILE + 1).unwrap();
        for name in ["link", "directory", "pipe"] {
            assert!(matches!(directory.value(name, Form::Plain), Err(Unfit::NoFile)), "{name}");
        }
        assert!(matches!(directory.value("long", Form::Plain), Err(Unfit::TooLarge(_))));
        assert!(matches!(directory.value("missing", Form::Plain), Err(Unfit::Io(_))));
    }

    #[test]
    fn loose_files_are_read_and_said_to_be_loose() {
        let (place, directory) = place(&[("value", b"czNjcmV0")]);
        let path = place.path().join("value");
        for (mode, expected) in [(0o600, None), (0o644, Some(0o644))] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let (value, loose) = directory.value("value", Form::Plain).unwrap();
            assert_eq!((value.unwrap().expose_secret(), loose), (&b"s3cret"[..], expected));
        }
    }

    #[test]
    fn a_definition_is_of_the_secret_that_its_name_says() {
        let xml = format!("<secret><uuid>{ONE}</uuid></secret>");
        let two = Uuid::from_u128(2);
        let names = [definition_name(ONE, 0), definition_name(two, 3), definition_name(Uuid::nil(), 0)];
        let (_place, directory) =
            place(&[(&names[0], xml.as_bytes()), (&names[1], xml.as_bytes()), (&names[2], b"<secret/>")]);
        assert_eq!(directory.definition(ONE, 0).unwrap().0.uuid, ONE);
        assert!(matches!(directory.definition(two, 3), Err(Unfit::OtherUuid(ONE))));
        assert!(matches!(directory.definition(Uuid::nil(), 0), Err(Unfit::OtherUuid(_))));
    }

    #[test]
    fn what_is_destroyed_was_overwritten_first() {
        let secret = vec![b'x'; 100_000];
        let (place, directory) = place(&[("value", &secret)]);
        let held = File::open(place.path().join("value")).unwrap();
        let out = directory.take_out("value").unwrap();
        directory.destroy(&out).unwrap();
        let mut found = vec![1; secret.len()];
        held.read_exact_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|byte| *byte == 0));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_with_a_second_name_is_left_alone() {
        let (place, directory) = place(&[("value", b"x")]);
        std::fs::hard_link(place.path().join("value"), place.path().join("backup")).unwrap();
        assert!(directory.take_out("value").unwrap_err().to_string().contains("another name"));
        assert_eq!(std::fs::read(place.path().join("value")).unwrap(), b"x");
    }
}
