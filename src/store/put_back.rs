//! A kept copy of the keyring, put in the place of one that is damaged, lost, or not wanted any more.
//!
//! For a store that nobody has open. Leans on `log` for what the copy has to open, and on what log, anchor and the
//! keyring that is there say of the newest serial. Refuses a copy that is another store's, that has no key for what
//! the log is sealed in, or that doesn't open; an older one unless it is told to; and to delete what it replaces. A
//! log on a failing disk is judged by what of it can be read.

use std::io;
use std::sync::Arc;

use super::anchor::{Anchor, Found};
use super::disk::{Failing, ReplaceError, read_whole, replace};
use super::log::{LOG, Log, lacking};
use super::open::{KEYRING, write_keyring};
use super::restore::roll_forward;
use super::{Disk, StoreError};
use crate::seal::{Keyring, KeyringError, LockedKeyring, Opener, SlotInfo};

/// A keyring that was put back.
#[derive(Debug)]
pub struct PutBack {
    /// The slot that opened it.
    pub slot: SlotInfo,
    /// The highest serial that was in use, if the copy is older than that.
    pub older_than: Option<u64>,
    /// The file in `etc/secrets` that keeps the keyring that was there.
    pub kept_as: Option<String>,
}

/// Puts a copy of the keyring back. One that is older than what was in use, and may open by slots that were removed since,
/// only if that is meant (`older`); it is in force from now on then, as the newest. Durable when this returns; at every point
/// there is the keyring from before, or this one.
pub fn put_back_keyring(
    disk: &Disk,
    copy: &[u8],
    openers: &[Opener],
    older: bool,
) -> Result<PutBack, StoreError> {
    let opened = LockedKeyring::parse(copy)?.unlock(openers)?;
    if !opened.sound {
        return Err(StoreError::CopyDamaged);
    }
    let mut keyring = opened.keyring;
    // A restoring that a crash interrupted would put its own keyring over this one later.
    roll_forward(disk)?;
    let present = Present::read(disk)?;
    let seen = seen(disk, &keyring, &present, openers)?;
    let older_than = (keyring.serial() < seen).then_some(seen);
    if older_than.is_some() {
        if !older {
            return Err(StoreError::KeyringRolledBack { found: keyring.serial(), seen });
        }
        keyring.raise_above(seen);
    }
    let slot = opened.slot;
    let (_, bytes) = keyring.prove(&[])?.into_parts();
    LockedKeyring::parse(&bytes)?.unlock(openers)?;
    let kept_as = present.keep(disk, &bytes)?;
    if !matches!(&present, Present::Bytes(there) if *there == bytes) {
        write_keyring(disk, &bytes)?;
    }
    Ok(PutBack { slot, older_than, kept_as })
}

/// The highest serial that was in use. Refuses a keyring that doesn't open the log.
fn seen(disk: &Disk, keyring: &Keyring, present: &Present, openers: &[Opener]) -> Result<u64, StoreError> {
    let file = disk.etc.open(LOG).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StoreError::LogMissing,
        _ => StoreError::Io("open secrets.log".into(), error),
    })?;
    let file = Arc::new(Failing::new(file));
    let lacking = lacking(&*file, keyring).map_err(StoreError::io("read secrets.log"))?;
    if let Some(&(epoch, records)) = lacking.last() {
        return Err(StoreError::EpochMissing { epoch, records });
    }
    let in_log = Log::recover(file, keyring, None)?.keyring_seen;
    let anchor = Anchor::read(&*disk.run, keyring).map_err(StoreError::io("read the rollback anchor"))?;
    let in_anchor = match anchor {
        Found::Anchor(anchor) => anchor.keyring,
        Found::OtherStore => return Err(StoreError::OtherStore),
        Found::None | Found::Unreadable => 0,
    };
    Ok(in_log.max(in_anchor).max(present.serial(keyring, openers)?))
}

/// What lies in the keyring's place.
enum Present {
    Nothing,
    Bytes(Vec<u8>),
    /// It can't be read, or is far too long.
    Unreadable,
}

impl Present {
    fn read(disk: &Disk) -> Result<Self, StoreError> {
        match disk.etc.open(KEYRING).and_then(|file| read_whole(&*file, KEPT)) {
            Ok(bytes) => Ok(Self::Bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::Nothing),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(StoreError::Io("read the keyring".into(), error))
            }
            Err(_) => Ok(Self::Unreadable),
        }
    }

    /// Its serial, if that can be proved: a damaged byte must not make every copy an old one.
    fn serial(&self, copy: &Keyring, openers: &[Opener]) -> Result<u64, StoreError> {
        let Self::Bytes(bytes) = self else { return Ok(0) };
        let Ok(locked) = LockedKeyring::parse(bytes) else { return Ok(0) };
        let proved = match locked.store() == copy.store() {
            false => false,
            true if locked.is_sealed_by(copy)? => true,
            // After a rekey it is sealed under another root key.
            true => match locked.unlock(openers) {
                Ok(opened) => opened.sound,
                Err(KeyringError::Seal(error)) => return Err(error.into()),
                Err(_) => false,
            },
        };
        Ok(if proved { locked.serial() } else { 0 })
    }

    /// Keeps it beside its place, unless it is what is to be written. A copy: until the new one is written, it stays.
    fn keep(&self, disk: &Disk, new: &[u8]) -> Result<Option<String>, StoreError> {
        let name = match self {
            Self::Nothing => return Ok(None),
            Self::Bytes(bytes) if bytes == new => return Ok(None),
            Self::Bytes(_) | Self::Unreadable => free_name(disk)?,
        };
        let kept = match self {
            Self::Bytes(bytes) => replace(&*disk.etc, &name, bytes).map_err(|error| match error {
                ReplaceError::Unchanged(error) | ReplaceError::Unknown(error) => error,
            }),
            // Nothing is lost from its place: it opened nothing there.
            _ => disk.etc.rename(KEYRING, &name).and_then(|()| disk.etc.sync()),
        };
        kept.map_err(StoreError::io("set the keyring that was there aside"))?;
        Ok(Some(name))
    }
}

/// The first name for a keyring set aside that nothing has.
fn free_name(disk: &Disk) -> Result<String, StoreError> {
    for number in 1_u32.. {
        let name = format!("{KEYRING}.replaced-{number}");
        match disk.etc.open(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(name),
            Err(error) => return Err(StoreError::Io(format!("look for {name}"), error)),
            Ok(_) => {}
        }
    }
    unreachable!("no directory has so many files")
}

/// What is longer than this was never a keyring, nor near one.
const KEPT: usize = 1 << 20;
