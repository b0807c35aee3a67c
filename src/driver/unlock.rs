//! Unlocking: what there is to open a keyring's slots with, and what to say when none of it does.
//!
//! Leans on `hostkey` and `seal`. Refuses to go on after a typing error in a recovery key, though another key might
//! open the keystore: who typed it wants to know.

use super::{Keys, failure, hostkey};
use crate::seal::{HostKey, LockedKeyring, Opener, RecoveryKey, RecoveryKeyError, SlotInfo, SlotKind, Tried};
use crate::secret::Error;

/// What there is to open slots with, and what isn't there.
pub(super) struct AtHand {
    pub(super) openers: Vec<Opener>,
    /// Why host keys could not be had.
    missing: Vec<Error>,
    /// The files of those that could.
    key_files: Vec<String>,
    /// One was given itself.
    given_host_key: bool,
}

/// Where to look for host keys: nowhere, if something else was given.
pub(super) fn places(keys: &Keys) -> Vec<hostkey::Place> {
    let other = keys.host_key_bytes.is_some() || keys.passphrase.is_some() || keys.recovery_key.is_some();
    match other && !keys.host_key_given {
        true => Vec::new(),
        false => hostkey::places(keys.host_key.as_deref()),
    }
}

/// Gathers host keys from their places, then what was given.
pub(super) fn at_hand(host_keys: &[hostkey::Place], keys: &Keys) -> Result<AtHand, Error> {
    let mut found =
        AtHand { openers: Vec::new(), missing: Vec::new(), key_files: Vec::new(), given_host_key: false };
    for place in host_keys {
        match hostkey::read(place) {
            Ok(Some(key)) => {
                found.openers.push(Opener::HostKey(key));
                found.key_files.push(format!("'{}'", place.path.display()));
            }
            Ok(None) => found.missing.push(Error::failed(format!("no key file '{}'", place.path.display()))),
            Err(error) => found.missing.push(error),
        }
    }
    if let Some(bytes) = &keys.host_key_bytes {
        let key = HostKey::from_bytes(bytes.try_clone()?);
        found.openers.push(Opener::HostKey(key.ok_or_else(|| failure::no_host_key(bytes.len()))?));
        found.given_host_key = true;
    }
    // What costs time to try comes last.
    if let Some(text) = &keys.recovery_key {
        found.openers.push(Opener::Recovery(RecoveryKey::parse(text).map_err(mistyped)?));
    }
    if let Some(passphrase) = &keys.passphrase {
        found.openers.push(Opener::Passphrase(passphrase.try_clone()?));
    }
    Ok(found)
}

impl AtHand {
    /// The state of being locked: what was tried, what wasn't there, and what would open it.
    pub(super) fn locked<'a>(&self, tried: &[Tried], slots: impl Iterator<Item = &'a SlotInfo>) -> Error {
        let slots: Vec<&SlotInfo> = slots.collect();
        let mut reasons = self.of_host_keys(tried, &slots);
        reasons.extend(self.of_given(tried));
        self.because(LOCKED, reasons, &slots)
    }

    /// The answer to who tried to unlock: about what was given, where something was. That the host key doesn't open it
    /// either is no news to them.
    pub(super) fn refused<'a>(&self, tried: &[Tried], slots: impl Iterator<Item = &'a SlotInfo>) -> Error {
        let slots: Vec<&SlotInfo> = slots.collect();
        self.because(LOCKED, self.of_given_or_found(tried, &slots), &slots)
    }

    /// The same about a copy of the keyring, kept elsewhere.
    pub(super) fn refused_by_copy(&self, tried: &[Tried], copy: &LockedKeyring) -> Error {
        let slots: Vec<&SlotInfo> = copy.slots().collect();
        self.because("this copy of the keyring doesn't open", self.of_given_or_found(tried, &slots), &slots)
    }

    fn of_given_or_found(&self, tried: &[Tried], slots: &[&SlotInfo]) -> Vec<String> {
        let given = self.of_given(tried);
        if given.is_empty() { self.of_host_keys(tried, slots) } else { given }
    }

    /// What an open keystore has to fear if these are all the host keys that a new start would find. None where no slot
    /// takes a host key any more: somebody wanted that.
    pub(super) fn at_risk<'a>(
        &self,
        tried: &[Tried],
        slots: impl Iterator<Item = &'a SlotInfo>,
    ) -> Option<Error> {
        let slots: Vec<&SlotInfo> = slots.collect();
        let reasons = self.of_host_keys(tried, &slots).join("; ");
        let detail = format!("a new start would find it locked: {reasons}");
        let advice = format!("put the key back before this process ends; after that, {}", ways_in(&slots));
        (!reasons.is_empty()).then(|| Error::not_now(detail).advise(advice))
    }

    fn of_host_keys(&self, tried: &[Tried], slots: &[&SlotInfo]) -> Vec<String> {
        let mut reasons = Vec::new();
        if slots.iter().any(|slot| takes_host_key(slot.kind)) {
            reasons.extend(self.missing.iter().map(|error| error.detail().to_owned()));
        }
        if !self.key_files.is_empty() && tried.iter().any(|tried| takes_host_key(tried.slot.kind)) {
            reasons.push(format!("the key in {} is not this keystore's", self.key_files.join(" or ")));
        }
        reasons
    }

    fn of_given(&self, tried: &[Tried]) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.given_host_key {
            let was_tried = tried.iter().any(|tried| takes_host_key(tried.slot.kind));
            reasons.push(match was_tried {
                true => "the host key that was given is not this keystore's".to_owned(),
                false => "none of its slots takes a host key".to_owned(),
            });
        }
        for opener in &self.openers {
            let (given, is_for): (_, fn(SlotKind) -> bool) = match opener {
                Opener::HostKey(_) => continue,
                Opener::Passphrase(_) => ("passphrase", |kind| matches!(kind, SlotKind::Passphrase(_))),
                Opener::Recovery(_) => ("recovery key", |kind| kind == SlotKind::Recovery),
            };
            let was_tried = tried.iter().any(|tried| is_for(tried.slot.kind));
            reasons.push(match (was_tried, given) {
                (true, "passphrase") => "wrong passphrase".to_owned(),
                (true, _) => "wrong recovery key: rightly typed, but not this keystore's".to_owned(),
                (false, given) => format!("none of its slots takes a {given}"),
            });
        }
        reasons
    }

    fn because(&self, what: &str, reasons: Vec<String>, slots: &[&SlotInfo]) -> Error {
        let why = if reasons.is_empty() { "nothing to open it with".to_owned() } else { reasons.join("; ") };
        // A key file that is there but can't be used is the nearest way in.
        let nearest = match (&self.missing[..], &reasons[..]) {
            ([only], [reason]) if reason == only.detail() => only.advice().map(str::to_owned),
            _ => None,
        };
        Error::not_now(format!("{what}: {why}")).advise(nearest.unwrap_or_else(|| ways_in(slots)))
    }
}

const LOCKED: &str = "the keystore is locked";

/// Whether a host key opens slots of this kind.
pub(super) fn takes_host_key(kind: SlotKind) -> bool {
    matches!(kind, SlotKind::HostKey | SlotKind::Credential)
}

/// What opens these slots, and how to say so.
fn ways_in(slots: &[&SlotInfo]) -> String {
    let mut ways: Vec<String> = Vec::new();
    for slot in slots {
        let way = match slot.kind {
            SlotKind::HostKey => {
                format!("the host key (it was in '{}'; --key-file FILE names another place)", slot.label)
            }
            SlotKind::Credential => {
                "the systemd credential, or its key in a file (--key-file FILE)".to_owned()
            }
            SlotKind::Passphrase(_) => "the passphrase (--passphrase)".to_owned(),
            SlotKind::Recovery => "the recovery key (--recovery-key)".to_owned(),
        };
        if !ways.contains(&way) {
            ways.push(way);
        }
    }
    match &ways[..] {
        [] => "none of its slots is of a kind that this version knows".to_owned(),
        [only] => format!("open it with {only}"),
        [others @ .., last] => format!("open it with any of these: {}, or {last}", others.join(", ")),
    }
}

pub(super) fn mistyped(error: RecoveryKeyError) -> Error {
    let plain = Error::failed(error.to_string());
    match error {
        RecoveryKeyError::Exhausted => plain.advise("raise RLIMIT_MEMLOCK"),
        _ => plain.advise("compare it with what was written down; blanks, dashes and case don't matter"),
    }
}
