//! What a store's failure is called in libvirt's terms, and what to do about it.
//!
//! The one place that turns engine errors into what callers and operators see. Leans on `secret::Error`. Refuses to
//! leave anybody without a next step.

use std::io;
use std::path::Path;

use ::uuid::Uuid;

use super::MIN_PASSPHRASE;
use super::root::Root;
use crate::seal::{KeyringError, SealError};
use crate::secret::Error;
use crate::store::StoreError;

/// A failure of the keystore as a whole.
pub(super) fn explain(error: StoreError, root: &Root) -> Error {
    let etc = root.etc.display();
    let failed = |what: String| Error::failed(format!("the keystore in '{etc}': {what}"));
    let what = error.to_string();
    match error {
        StoreError::Io(doing, cause) | StoreError::Write(doing, cause) => {
            let plain = Error::system(format!("cannot {doing} in '{etc}'"), &cause);
            match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    plain.advise("make room on this file system and try again; nothing that was stored is lost")
                }
                io::ErrorKind::PermissionDenied => plain.advise("run as the user who owns the keystore"),
                io::ErrorKind::ReadOnlyFilesystem => plain.advise("mount this file system writable"),
                _ => plain.advise("look into the system's log for the disk; then try again"),
            }
        }
        StoreError::NoSpace(cause) => Error::system(format!("cannot write secrets.log in '{etc}'"), &cause)
            .advise("nothing was changed; make room on this file system and try again"),
        StoreError::KeyringMissing => failed(what).advise(
            "put the file 'keyring' back from a backup of this keystore; without it nothing can be opened; nothing was changed",
        ),
        StoreError::Gone => failed(what).advise(format!(
            "put both back from a backup; to begin anew on purpose, run: rm '{}'",
            root.run.join("anchor").display()
        )),
        StoreError::Keyring(KeyringError::Malformed(_) | KeyringError::Epoch(_)) => {
            failed(what).advise("put the file 'keyring' back from a backup of this keystore; nothing was changed")
        }
        StoreError::Keyring(KeyringError::Newer(_)) => {
            failed(what).advise("open it with that version or a later one; nothing was changed")
        }
        StoreError::KeyringRolledBack { .. } => failed(what)
            .advise("put the newest copy of 'keyring' back: slots that were removed since would open this one"),
        StoreError::LogMissing => {
            failed(what).advise("put secrets.log back from a backup; the values are in it and nowhere else")
        }
        StoreError::LogNewer(_) => {
            failed(what).advise("open it with that version or a later one; nothing was changed")
        }
        StoreError::LogUnreadable(_) => failed(what).advise(
            "'keyring' and 'secrets.log' must be of the same keystore: put back the one that isn't; nothing was changed",
        ),
        StoreError::RolledBack(_) => failed(what).advise(format!(
            "put the newest copy back; or, if you restored an older one on purpose, accept it with: rm '{}'",
            root.run.join("anchor").display()
        )),
        StoreError::OtherStore => failed(what).advise(format!(
            "put the right 'keyring' back; or, if you put another keystore here on purpose, accept it with: rm '{}'",
            root.run.join("anchor").display()
        )),
        StoreError::CopyEnded => failed(what).advise("begin anew, to another file; remove the one that isn't complete"),
        StoreError::AlreadyThere => Error::failed(format!("there is a keystore in '{etc}' already")).advise(
            "nothing was changed; to put the backup in its place, add --replace: what is there now is kept aside",
        ),
        StoreError::BackupOlder(_) => failed(what).advise(
            "nothing was changed; to put the older one in its place all the same, add --older: what is there now is kept aside",
        ),
        StoreError::BackupOfOther { .. } => failed(what).advise(
            "nothing was changed; mind the root; to put the backup in the place of that other keystore, add --older: it is kept aside",
        ),
        StoreError::ReadOnly(_) => Error::not_now(what).advise(SEE_VERIFY),
        StoreError::Seal(SealError::Exhausted(exhausted)) => exhausted.into(),
        _ => failed(what),
    }
}

/// A failure to read a backup.
pub(super) fn explain_backup(error: StoreError, file: &Path) -> Error {
    let failed = |what: String| Error::failed(format!("the backup in '{}': {what}", file.display()));
    let what = error.to_string();
    match error {
        StoreError::Io(doing, cause) => {
            let plain = Error::system(format!("cannot {doing} '{}'", file.display()), &cause);
            match cause.kind() {
                io::ErrorKind::NotFound => plain.advise("mind the spelling"),
                io::ErrorKind::PermissionDenied => plain.advise("run as a user who may read it"),
                _ => plain.advise("take another copy of the backup"),
            }
        }
        StoreError::BackupNewer(_) | StoreError::LogNewer(_) | StoreError::Keyring(KeyringError::Newer(_)) => {
            failed(what).advise("open it with that version or a later one; nothing was changed")
        }
        StoreError::NoBackup(_) => {
            failed(what).advise("name a file that 'strongroom backup' wrote, or take another copy of it")
        }
        StoreError::BackupDamaged { .. } => failed(what).advise(
            "nothing was changed; see what is lost with: strongroom verify FILE; take another copy, or add --partial to restore what opens",
        ),
        StoreError::Seal(SealError::Exhausted(exhausted)) => exhausted.into(),
        _ => failed(what).advise("take another copy of the backup; nothing was changed"),
    }
}

/// A failure that concerns one secret.
pub(super) fn explain_of(error: StoreError, uuid: Uuid, root: &Root) -> Error {
    match error {
        StoreError::Damaged(_) => Error::damaged(uuid, error).advise(
            "see what else is with: strongroom verify; to heal this secret, undefine it and define it again",
        ),
        other => explain(other, root),
    }
}

/// The state of a keystore that somebody locked. Clients of a daemon see no advice: the text itself says the next step.
pub(super) fn locked_on_purpose() -> Error {
    Error::not_now("the keystore is locked: it was locked on purpose; to open it, run: strongroom unlock")
        .advise("open it with: strongroom unlock")
}

/// The state of a keystore while it is repaired.
pub(super) fn under_repair() -> Error {
    Error::not_now("the keystore is being repaired").advise("try again in a moment")
}

/// A definition that would make one secret of two: of an ephemeral one and of the stored one that it hides.
pub(super) fn hidden(uuid: Uuid) -> Error {
    Error::not_now(format!(
        "the ephemeral secret '{uuid}', defined while the keystore was locked, hides a stored one of the same UUID"
    ))
    .advise("undefine the ephemeral secret; the stored one, which is kept, then shows again")
}

/// `init` where there is a keystore.
pub(super) fn already_there(root: &Root) -> Error {
    Error::failed(format!("there is a keystore in '{}' already", root.etc.display()))
        .advise("nothing was changed; see how it stands with: strongroom status")
}

/// A new keystore that nothing would open.
pub(super) fn no_slot() -> Error {
    Error::failed("a keystore that nothing opens can't be made: it needs a host key, a passphrase or a recovery key")
        .advise("leave the host key in, or add --with-passphrase or --with-recovery-key; --key-file FILE names the host key's place")
}

/// A host key's file that was named, and isn't there.
pub(super) fn no_key_file(file: &Path) -> Error {
    Error::failed(format!("no key file '{}'", file.display())).advise("mind the spelling")
}

/// What was given as a host key, and can't be one.
pub(super) fn no_host_key(len: usize) -> Error {
    Error::failed(format!("the host key that was given has {len} bytes; a host key is exactly 32"))
        .advise("take the file as it was made: 32 raw bytes, no newline behind them")
}

/// A passphrase that is hardly one.
pub(super) fn short_passphrase(len: usize) -> Error {
    Error::failed(format!("the passphrase has {len} bytes; at least {MIN_PASSPHRASE} are needed"))
        .advise("take four or more words at random")
}

/// What to do about a keystore that takes no changes.
pub(super) const SEE_VERIFY: &str = "see what is wrong with: strongroom verify";
