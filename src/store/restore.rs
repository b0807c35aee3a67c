//! Putting a backup in place: into a root that is empty, or in the place of what is there.
//!
//! ```text
//! secrets.log.restored   written, synced
//! keyring.restored       written beside its name, synced, renamed: from here on the backup is the keystore
//! ── and now, or when the root is next opened ──
//! anchor                 removed
//! secrets.log            → secrets.log.replaced-N;  secrets.log.restored → secrets.log
//! keyring                → keyring.replaced-N;      keyring.restored     → keyring
//! ```
//!
//! So at every moment the root has the keystore from before or the one from the backup. The restored log is written anew,
//! with numbers above all that were seen here: whatever is left of what was here before is older than it.
//!
//! Leans on `kept` and `disk`. Refuses to put an older backup in the place of a newer keystore, or of another one, unless
//! it is told to; and never deletes what was there.

use std::io;

use super::anchor::{ANCHOR, Anchor, Found};
use super::backup::{Inspected, OpenBackup};
use super::copies::{self, Foreign};
use super::disk::{Directory, Failing, ReplaceError, read_whole, replace};
use super::log::{LOG, Log, Seen};
use super::open::{KEYRING, replaced};
use super::{Disk, StoreError};
use crate::seal::{HEAD_LEN, Keyring, LockedKeyring, MAX_KEYRING};

/// A restored keyring that has yet to take its place: while it is there, the restored keystore is the one that holds.
pub const KEYRING_RESTORED: &str = "keyring.restored";
const LOG_RESTORED: &str = "secrets.log.restored";

/// What may be restored.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreOptions {
    /// In the place of a keystore that is there.
    pub replace: bool,
    /// Though that one is newer, or another one.
    pub older: bool,
    /// What still opens of a damaged backup.
    pub partial: bool,
}

/// A backup that is in place.
pub struct Placed {
    /// Its keyring, as it is now.
    pub keyring: Keyring,
    /// The files in `etc/secrets` that keep what was there.
    pub aside: Vec<String>,
}

/// Puts a backup in place: durable when this returns.
pub fn restore(
    disk: &Disk,
    backup: &OpenBackup,
    inspected: Inspected,
    how: RestoreOptions,
) -> Result<Placed, StoreError> {
    inspected.check(backup, how)?;
    roll_forward(disk)?;
    let there = There::read(disk, backup)?;
    there.check(backup, how)?;
    let mut keyring = backup.keyring().try_clone()?;
    if there.serial > keyring.serial() {
        keyring.raise_above(there.serial);
    }
    let Inspected { kept, log, generation, .. } = inspected;
    let generation = generation.max(backup.header().last_commit).max(there.generation()).max(there.anchor);
    let etc = &*disk.etc;
    let staged = kept
        .write(etc, LOG_RESTORED, &*log, &keyring, generation)
        .and_then(|()| etc.sync().map_err(StoreError::io("sync etc/secrets")))
        .and_then(|()| Ok(keyring.encode()?))
        .and_then(|bytes| match replace(etc, KEYRING_RESTORED, &bytes) {
            // Nothing is decided: what was there stays.
            Err(ReplaceError::Unchanged(error)) => Err(StoreError::Io("write the keyring".into(), error)),
            other => replaced("put the backup in place", other),
        });
    if let Err(error) = staged {
        if !matches!(error, StoreError::Write(..)) {
            _ = etc.remove(LOG_RESTORED);
        }
        return Err(error);
    }
    let mut aside = roll_forward(disk)?;
    // These are derived, and of secrets that are not here any more: left where they are, they would be taken for libvirt's.
    let number = aside.first().and_then(|name| name.rsplit('-').next()).unwrap_or("1").to_owned();
    aside.extend(there.move_copies(etc, &keyring, &number).unwrap_or_default());
    Ok(Placed { keyring, aside })
}

impl Inspected {
    /// Refuses to restore a part of a backup, unless that is meant; and nothing at all, in any case.
    pub fn check(&self, backup: &OpenBackup, how: RestoreOptions) -> Result<(), StoreError> {
        let lost = self.lost.len() + self.without_value.len() + self.unnamed;
        let records = usize::try_from(backup.header().records).unwrap_or(usize::MAX);
        if lost == 0 {
            return Ok(());
        }
        if self.verified.sound + self.without_value.len() == 0 {
            return Err(StoreError::BackupLost(records));
        }
        match how.partial {
            true => Ok(()),
            false => Err(StoreError::BackupDamaged { records, lost }),
        }
    }
}

/// What lies in a root before a backup is put there.
#[derive(Default)]
struct There {
    is_there: bool,
    seen: Seen,
    /// Of the anchor, if it is of the backup's store.
    anchor: u64,
    /// The highest serial of a keyring of the backup's store that is proved: a damaged byte must not make it count for ever.
    serial: u64,
}

impl There {
    fn read(disk: &Disk, backup: &OpenBackup) -> Result<Self, StoreError> {
        let store = backup.keyring().store();
        let mut there = Self::default();
        let mut said = None;
        match disk.etc.open(KEYRING) {
            Ok(file) => {
                there.is_there = true;
                let bytes = read_whole(&*file, MAX_KEYRING).unwrap_or_default();
                if let Ok(keyring) = LockedKeyring::parse(&bytes) {
                    said = Some(keyring.store());
                    let proved = keyring.store() == store && keyring.is_sealed_by(backup.keyring())?;
                    there.serial = if proved { keyring.serial() } else { 0 };
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::Io("read the keyring".into(), error)),
        }
        match disk.etc.open(LOG) {
            Ok(file) => {
                let reading = || StoreError::io("read secrets.log");
                there.is_there |= file.size().map_err(reading())? > HEAD_LEN as u64;
                let file = Failing::new(file);
                there.seen = Seen::of(&file, said).map_err(reading())?;
                // What the keyring can't prove, because it was sealed under another root key since, the log may.
                let in_log = Log::salvage(&file, backup.keyring(), None).map_or(0, |log| log.keyring_seen);
                there.serial = there.serial.max(in_log);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::Io("open secrets.log".into(), error)),
        }
        there.seen.store = said.or(there.seen.store);
        if let Ok(Found::Anchor(anchor)) = Anchor::read(&*disk.run, backup.keyring()) {
            there.anchor = anchor.generation;
            there.serial = there.serial.max(anchor.keyring);
        }
        Ok(there)
    }

    fn check(&self, backup: &OpenBackup, how: RestoreOptions) -> Result<(), StoreError> {
        let (store, header) = (backup.keyring().store(), backup.header());
        if !self.is_there {
            return Ok(());
        }
        if !how.replace {
            return Err(StoreError::AlreadyThere);
        }
        if how.older {
            return Ok(());
        }
        if let Some(found) = self.seen.store.filter(|found| *found != store) {
            return Err(StoreError::BackupOfOther { found, backup: store });
        }
        if self.seen.has_changed_since(header.generation, self.anchor) {
            let there = self.seen.generation.max(self.anchor);
            let why =
                format!("it has changes up to generation {there}, the backup up to {}", header.generation);
            return Err(StoreError::BackupOlder(why));
        }
        let serial = backup.keyring().serial();
        if self.serial > serial {
            let why = format!("its keyring has serial {}, the backup's {serial}", self.serial);
            return Err(StoreError::BackupOlder(why));
        }
        Ok(())
    }

    /// The highest number that was given here, if it is of the backup's store; of another one no harm either.
    fn generation(&self) -> u64 {
        self.seen.generation
    }

    /// Gives the copies of secrets that were here, and aren't in the backup, another name.
    fn move_copies(
        &self,
        etc: &dyn Directory,
        keyring: &Keyring,
        number: &str,
    ) -> Result<Vec<String>, StoreError> {
        let listing = || StoreError::io("list etc/secrets");
        let restored =
            Seen::of(&*etc.open(LOG).map_err(listing())?, Some(keyring.store())).map_err(listing())?;
        let (copies, others) = copies::names(etc).map_err(listing())?;
        let beside = Foreign::among(&others);
        let mut aside = Vec::new();
        for uuid in copies {
            let is_stale = self.seen.secrets.contains(&uuid) && !restored.secrets.contains(&uuid);
            if is_stale && !beside.has_definition(uuid) {
                let name = copies::name(uuid);
                let other = format!("{name}.replaced-{number}");
                if etc.rename(&name, &other).is_ok() {
                    aside.push(other);
                }
            }
        }
        etc.sync().map_err(listing())?;
        Ok(aside)
    }
}

/// Finishes a restoring that was decided, or sweeps away one that wasn't. Gives the names of the files that keep what was
/// there before.
pub(super) fn roll_forward(disk: &Disk) -> Result<Vec<String>, StoreError> {
    let etc = &*disk.etc;
    if !has(etc, KEYRING_RESTORED)? {
        for unfinished in [LOG_RESTORED, &format!("{KEYRING_RESTORED}.new")] {
            if has(etc, unfinished)? {
                _ = etc.remove(unfinished); // in nobody's way, if it stays
            }
        }
        return Ok(Vec::new());
    }
    let placing = || StoreError::write("put the restored keystore in place");
    // A killed process may have left its decision visible, and not durable yet.
    etc.sync().map_err(placing())?;
    if has(&*disk.run, ANCHOR)? {
        disk.run.remove(ANCHOR).and_then(|()| disk.run.sync()).map_err(placing())?;
    }
    let log_waits = has(etc, LOG_RESTORED)?;
    let number = (1_u32..).find_map(|number| {
        let taken = has(etc, &aside(KEYRING, number))
            .and_then(|taken| Ok(taken || (log_waits && has(etc, &aside(LOG, number))?)));
        match taken {
            Ok(true) => None,
            Ok(false) => Some(Ok(number)),
            Err(error) => Some(Err(error)),
        }
    });
    let number = number.unwrap_or(Ok(u32::MAX))?;
    let mut kept = Vec::new();
    for (restored, name) in [(LOG_RESTORED, LOG), (KEYRING_RESTORED, KEYRING)] {
        if !has(etc, restored)? {
            continue;
        }
        if has(etc, name)? {
            etc.rename(name, &aside(name, number)).map_err(placing())?;
            kept.push(aside(name, number));
        }
        etc.rename(restored, name).map_err(placing())?;
        etc.sync().map_err(placing())?;
    }
    Ok(kept)
}

fn aside(name: &str, number: u32) -> String {
    format!("{name}.replaced-{number}")
}

/// Whether there is a file of this name.
pub(super) fn has(directory: &dyn Directory, name: &str) -> Result<bool, StoreError> {
    match directory.open(name) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::Io(format!("open {name}"), error)),
    }
}
