//! What a store's failure is called in libvirt's terms, and what to do about it.
//!
//! The one place that turns engine errors into what callers and operators see. Leans on `secret::Error`. Refuses to
//! leave anybody without a next step.

use std::io;
use std::path::Path;

use ::uuid::Uuid;

use super::MIN_PASSPHRASE;
use super::root::Root;
use crate::administration::Key;
use crate::seal::{KeyringError, LABEL_LEN, SealError, SlotInfo};
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
            "put a kept copy of its keyring back with: strongroom key restore FILE; without it nothing can be opened; nothing was changed",
        ),
        StoreError::Gone => failed(what).advise(format!(
            "put a backup in its place: strongroom restore FILE; to begin anew on purpose, run: rm '{}'",
            root.run.join("anchor").display()
        )),
        StoreError::Keyring(KeyringError::Malformed(_) | KeyringError::Epoch(_)) => {
            failed(what).advise("put a kept copy of it back with: strongroom key restore FILE; nothing was changed")
        }
        StoreError::Keyring(KeyringError::NoSuchSlot(_)) => {
            failed(what).advise("see the slots and their ids with: strongroom key list")
        }
        StoreError::Keyring(KeyringError::LastSlot) => {
            failed(what).advise("add another one first: strongroom key add")
        }
        StoreError::Keyring(KeyringError::TooManySlots) => {
            failed(what).advise("remove one that isn't needed any more: strongroom key remove")
        }
        StoreError::Keyring(KeyringError::TooManyEpochs) => {
            failed(what).advise("let the rotation that is under way come to its end: strongroom rotate")
        }
        StoreError::Keyring(KeyringError::Outdated | KeyringError::Unproved | KeyringError::NotItsKey(_)) => {
            failed(what).advise("try again")
        }
        StoreError::Keyring(KeyringError::Newer(_)) => {
            failed(what).advise("open it with that version or a later one; nothing was changed")
        }
        StoreError::KeyringRolledBack { .. } => failed(what).advise(
            "slots that were removed since would open it: put the newest copy back with: strongroom key restore FILE; to accept \
             an older one on purpose, add --older",
        ),
        StoreError::CopyDamaged => failed(what).advise("take another copy of it; nothing was changed"),
        StoreError::EpochMissing { .. } => {
            failed(what).advise(
                "nothing was changed; put a copy back that was made later, after that epoch began: strongroom key restore FILE",
            )
        }
        StoreError::Unrotated(_) => failed(what).advise(
            "all others are sealed anew; heal each of these by undefining it and defining it again, then run: strongroom rotate",
        ),
        StoreError::LogMissing => {
            failed(what).advise(
                "the values are in it and nowhere else: put it back, or a backup of the whole: strongroom restore --replace FILE",
            )
        }
        StoreError::LogNewer(_) => {
            failed(what).advise("open it with that version or a later one; nothing was changed")
        }
        StoreError::LogUnreadable(_) => failed(what).advise(
            "nothing was changed; 'keyring' and 'secrets.log' must be of the same keystore: put back the one that isn't; if they are, \
             and the log is damaged, keep what opens: strongroom verify --repair; or put a backup in its place: \
             strongroom restore --replace FILE",
        ),
        StoreError::RolledBack(_) => failed(what).advise(format!(
            "put the newest copy back, or the newest backup: strongroom restore --replace FILE; or, if you restored an older one on purpose, accept it with: rm '{}'",
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
        StoreError::BackupLost(_) => {
            failed(what).advise("nothing was changed; take another copy of the backup, or an earlier one")
        }
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

/// A key that has a slot already.
pub(super) fn same_key(key: &Key, slot: &SlotInfo) -> Error {
    Error::failed(format!("this {} opens a slot already: {}", key.name(), in_words(slot)))
        .advise("nothing was changed; give another key, or change that slot with: strongroom key change")
}

/// A key that was tested.
pub(super) fn opens_nothing(key: &Key, was_tried: bool) -> Error {
    let name = key.name();
    let what = match (was_tried, key) {
        (true, Key::Recovery(_)) => "wrong recovery key: rightly typed, but not this keystore's".to_owned(),
        (true, _) => format!("wrong {name}: no slot opens with it"),
        (false, _) => format!("none of the keystore's slots takes a {name}"),
    };
    Error::failed(what).advise("see the slots with: strongroom key list")
}

/// A slot that may be the last one that works.
pub(super) fn no_other_proved<'a>(
    removed: &SlotInfo,
    remaining: impl Iterator<Item = &'a SlotInfo>,
) -> Error {
    let remaining: Vec<String> = remaining.map(in_words).collect();
    Error::failed(format!(
        "{} was not removed: none of the others has been seen to open the keystore since it was opened: {}",
        in_words(removed),
        remaining.join("; ")
    ))
    .advise("try one of them with: strongroom key test; or give its key along with the command")
}

/// Slots that a new root key can't be put into.
pub(super) fn keys_lacking(slots: &[&SlotInfo]) -> Error {
    let slots: Vec<String> = slots.iter().map(|slot| in_words(slot)).collect();
    Error::failed(format!(
        "the root key was not replaced: the key of each slot is needed, and these are not at hand: {}",
        slots.join("; ")
    ))
    .advise("give their keys along with strongroom rekey, or let these slots go with --forget SLOT")
}

/// A label that doesn't fit.
pub(super) fn long_label(len: usize) -> Error {
    Error::failed(format!("the label has {len} bytes; a slot has room for {LABEL_LEN}"))
        .advise("take a shorter one")
}

/// A label that would spoil every table it stands in.
pub(super) fn odd_label() -> Error {
    Error::failed("the label has a control character in it").advise("take printable characters alone")
}

/// A keyring whose file isn't what is in force.
pub(super) fn keyring_spoilt(root: &Root) -> Error {
    Error::failed(format!(
        "the file 'keyring' in '{}' is damaged or another one: a copy of it would be worth nothing",
        root.etc.display()
    ))
    .advise(SEE_VERIFY)
}

/// A copy of a keyring that is none.
pub(super) fn no_copy(error: &KeyringError) -> Error {
    Error::failed(format!("the copy can't be used: {error}"))
        .advise("take the file that strongroom key backup made; nothing was changed")
}

/// A root without a keystore.
pub(super) fn nothing_there(root: &Root) -> Error {
    Error::failed(format!("there is no keystore in '{}'", root.etc.display()))
        .advise("mind the spelling; a whole keystore is put back with: strongroom restore")
}

/// A rotation that was under way when the keystore was locked.
pub(super) fn locked_while_rotating() -> Error {
    Error::not_now("the keystore was locked while it was rotated: what is left is done after unlocking")
        .advise("open it with: strongroom unlock; then go on with: strongroom rotate")
}

/// A rotation whose thread came to grief.
pub(super) fn rotation_broke_off() -> Error {
    Error::failed("the rotation broke off").advise("go on with: strongroom rotate")
}

/// A slot as messages name it.
fn in_words(slot: &SlotInfo) -> String {
    match &*slot.label {
        "" => format!("{} {}", slot.kind.name(), slot.id),
        label => format!("{} '{label}' ({})", slot.kind.name(), slot.id),
    }
}

/// What to do about a keystore that takes no changes.
pub(super) const SEE_VERIFY: &str = "see what is wrong with: strongroom verify; keep what opens, and set aside what is damaged: strongroom verify --repair";
