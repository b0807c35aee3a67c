//! What a store's failure is called in libvirt's terms, and what to do about it.
//!
//! The one place that turns engine errors into what callers and operators see. Leans on `secret::Error`. Refuses to
//! leave anybody without a next step.

use ::uuid::Uuid;

use super::root::Root;
use crate::seal::{KeyringError, SealError, SlotInfo, Tried};
use crate::secret::Error;
use crate::store::StoreError;

/// A failure of the keystore as a whole.
pub(super) fn explain(error: StoreError, root: &Root) -> Error {
    let etc = root.etc.display();
    let failed = |what: String| Error::failed(format!("the keystore in '{etc}': {what}"));
    let what = error.to_string();
    match error {
        StoreError::Io(doing, cause) | StoreError::Write(doing, cause) => {
            Error::system(format!("cannot {doing} in '{etc}'"), &cause)
        }
        StoreError::NoSpace(cause) => Error::system(format!("cannot write secrets.log in '{etc}'"), &cause)
            .advise("nothing was changed; make room on this file system and try again"),
        StoreError::KeyringMissing | StoreError::Keyring(KeyringError::Malformed(_)) => {
            failed(what).advise("put the keyring back from a copy; without it nothing can be opened, and nothing was changed")
        }
        StoreError::Keyring(KeyringError::Newer(_)) => failed(what).advise("use that version, or a later one"),
        StoreError::KeyringRolledBack { .. } => {
            failed(what).advise("put the newest copy of the keyring back: slots removed since would open this one")
        }
        StoreError::LogMissing => failed(what).advise("put secrets.log back from a backup"),
        StoreError::LogUnreadable(_) => {
            failed(what).advise("keyring and secrets.log must be of one store and one version; put the right one back")
        }
        StoreError::RolledBack(_) => failed(what).advise(format!(
            "if you put an older copy back on purpose, accept it by removing '{}'; if not, somebody or something did",
            root.run.join("anchor").display()
        )),
        StoreError::ReadOnly(_) => Error::not_now(what).advise("see what is wrong with: strongroom verify"),
        StoreError::Seal(SealError::Exhausted(exhausted)) => exhausted.into(),
        _ => failed(what),
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

/// The state of being locked: what was tried, what wasn't there, what slots there are.
pub(super) fn locked<'a>(
    tried: &[Tried],
    absent: &[String],
    slots: impl Iterator<Item = &'a SlotInfo>,
) -> Error {
    let mut reasons: Vec<String> = absent.to_vec();
    reasons.extend(tried.iter().map(|tried| match tried.slot.kind.name() {
        name if tried.slot.label.is_empty() => format!("wrong {name}"),
        name => format!("wrong {name} for the slot '{}'", tried.slot.label),
    }));
    let reasons = if reasons.is_empty() { "nothing to open it with".to_owned() } else { reasons.join("; ") };
    let mut slots: Vec<&str> = slots.map(|slot| slot.kind.name()).collect();
    slots.dedup();
    let advice = format!(
        "any one of its slots opens it: {} (--key-file FILE, --passphrase, --recovery-key)",
        slots.join(", ")
    );
    Error::not_now(format!("the keystore is locked: {reasons}")).advise(advice)
}
