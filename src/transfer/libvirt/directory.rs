//! What lies in a directory of libvirt's secret driver, and the few things that are done to it.
//!
//! Leans on rustix: every name is opened relative to the directory that is held open, no symbolic link is followed,
//! and a pipe keeps nobody waiting. Refuses files that are none, and to read more than libvirt would. Files that
//! others can read are read all the same, and said to be so: their owner wants them out of there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ::uuid::Uuid;
use rustix::fs::{self, AtFlags, Mode, OFlags};

use super::take_out::{TAKEN_OUT, is_overwritten};
use super::unfit::MAX_FILE;
use super::{Form, Unfit, read_value};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error};
use crate::store::{KEYRING, LOG};

/// A directory that is held open.
#[derive(Debug)]
pub(in crate::transfer) struct Directory {
    pub(super) descriptor: OwnedFd,
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
    /// It is the directory of a keystore of ours: `<uuid>.xml` may be a copy of ours.
    pub(in crate::transfer) has_keystore: bool,
}

/// What there is of one secret.
#[derive(Debug, Clone, Default)]
pub(in crate::transfer) struct Found {
    pub(in crate::transfer) uuid: Uuid,
    /// `<uuid>.xml`.
    pub(in crate::transfer) definition: bool,
    /// The value files: the one that libvirt serves first, and those on their way out last.
    pub(in crate::transfer) values: Vec<ValueFile>,
    /// Definitions of libvirt's that were set aside for a copy of ours: the numbers in their names, the first being 1.
    pub(in crate::transfer) aside: Vec<u32>,
}

/// What a value file holds.
#[derive(Debug)]
pub(in crate::transfer) struct Held {
    /// `None` if the file is empty.
    pub(in crate::transfer) value: Option<SecretBytes>,
    /// The text is base64 as libvirt writes it.
    pub(in crate::transfer) strict: bool,
    /// The file's mode, if it is loose.
    pub(in crate::transfer) loose: Option<u32>,
}

/// The kinds of value file, in the order in which libvirt looks for a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::transfer) enum ValueFile {
    Plain,
    Encrypted,
    /// A plain one that an import took out of libvirt's sight, to destroy it: see [`Directory::take_out`]. libvirt doesn't
    /// look at it; it is a value all the same, and may be the only one that there is.
    PlainTakenOut,
    /// The same of an encrypted one.
    EncryptedTakenOut,
}

impl ValueFile {
    pub(in crate::transfer) const ALL: [Self; 4] =
        [Self::Plain, Self::Encrypted, Self::PlainTakenOut, Self::EncryptedTakenOut];

    pub(in crate::transfer) fn name(self, uuid: Uuid) -> String {
        format!("{uuid}{}", self.suffix())
    }

    pub(in crate::transfer) fn is_encrypted(self) -> bool {
        matches!(self, Self::Encrypted | Self::EncryptedTakenOut)
    }

    pub(in crate::transfer) fn is_taken_out(self) -> bool {
        matches!(self, Self::PlainTakenOut | Self::EncryptedTakenOut)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => PLAIN,
            Self::Encrypted => ENCRYPTED,
            Self::PlainTakenOut => ".base64.imported",
            Self::EncryptedTakenOut => ".aes256cbc.imported",
        }
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

    /// Whose it is.
    pub(in crate::transfer) fn owner(&self) -> Result<u32, Error> {
        let about = fs::fstat(&self.descriptor).map_err(|error| self.failed("read", &error.into()))?;
        Ok(about.st_uid)
    }

    /// The id of the keystore that lies here: what its keyring says, or nothing if that can't be told.
    pub(in crate::transfer) fn keystore(&self) -> Option<Uuid> {
        let mut clear = [0; KEYRING_CLEAR];
        self.open_file(KEYRING, OFlags::RDONLY).ok()?.read_exact(&mut clear).ok()?;
        clear.get(16..).and_then(|id| Uuid::from_slice(id).ok())
    }

    pub(in crate::transfer) fn list(&self) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        let mut secrets: HashMap<Uuid, Found> = HashMap::new();
        self.names(&mut |name| sort_in(name, &mut secrets, &mut listing))?;
        listing.secrets = secrets.into_values().collect();
        listing.secrets.sort_unstable_by_key(|found| found.uuid);
        listing.secrets.iter_mut().for_each(|found| found.values.sort_unstable());
        for names in [&mut listing.misnamed, &mut listing.unfinished] {
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

    /// A value. A file of which an import has begun to overwrite the bytes holds none any more.
    pub(in crate::transfer) fn value(&self, name: &str, form: Form<'_>) -> Result<Held, Unfit> {
        let (file, len, loose) = self.read(name)?;
        if name.ends_with(TAKEN_OUT) && is_overwritten(&file)? {
            return Err(Unfit::Overwritten);
        }
        let (value, strict) = read_value(&mut file.take(len), len, form)?;
        Ok(Held { value, strict, loose })
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

    pub(super) fn open_file(&self, name: &str, access: OFlags) -> Result<File, Unfit> {
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(descriptor.into()),
            Err(rustix::io::Errno::LOOP) => Err(Unfit::NoFile),
            Err(error) => Err(Unfit::Io(error.into())),
        }
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
    let found = || Found { uuid, ..Found::default() };
    match rest {
        DEFINITION => secrets.entry(uuid).or_insert_with(found).definition = true,
        _ if rest.ends_with(UNFINISHED) => listing.unfinished.push(name.to_owned()),
        _ => {
            if let Some(file) = ValueFile::ALL.into_iter().find(|file| file.suffix() == rest) {
                secrets.entry(uuid).or_insert_with(found).values.push(file);
            }
            let number = match rest.strip_prefix(ASIDE) {
                Some("") => Some(1),
                Some(number) => number.strip_prefix('-').and_then(|number| number.parse().ok()),
                None => None,
            };
            if let Some(number) = number.filter(|number| definition_name(uuid, *number) == name) {
                secrets.entry(uuid).or_insert_with(found).aside.push(number);
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

/// The beginning of a keyring, up to the end of the store's id, which is its second half.
const KEYRING_CLEAR: usize = 32;

/// How the store calls a definition of libvirt's that was in its copy's way.
const ASIDE: &str = ".xml.libvirt";

/// Where tests cut a run short: before each step that changes something.
pub(super) fn interruptible() -> io::Result<()> {
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
            ".xml.imported",
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
        let values = [ValueFile::Plain, ValueFile::Encrypted, ValueFile::PlainTakenOut];
        assert_eq!((one.uuid, one.definition, &*one.values), (ONE, true, &values[..]));
        assert_eq!(one.aside, [1, 2]);
        assert_eq!((two.definition, &*two.values), (false, &[ValueFile::Encrypted][..]));
        assert_eq!(listing.misnamed, ["22222222-2222-2222-2222-22222222222A.xml", "notes.xml"]);
        assert_eq!(listing.unfinished, [name(".base64.new"), name(".xml.new")]);
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
            let held = directory.value("value", Form::Plain).unwrap();
            assert_eq!((held.value.unwrap().expose_secret(), held.loose), (&b"s3cret"[..], expected));
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
}
