//! Repairing a keystore: while it is open, or one that doesn't open any more.
//!
//! Leans on `store`. Refuses to close a keystore in which nothing is wrong. Calls wait while an open one is repaired.

use super::locking::{Locked, Open, State};
use super::{Driver, Keys, Root, failure, unlock};
use crate::administration::{Finding, Repaired};
use crate::seal::{KeyringError, Opened};
use crate::secret::Error;
use crate::store::{Store, StoreError, keyring_is_right, read_keyring, repair};

impl Driver {
    /// Keeps every record that opens, moves what is damaged aside, writes the `.xml` copies anew, and says what was lost.
    pub fn repair(&self) -> Result<Repaired, Error> {
        let failed = |error| failure::explain(error, &self.root);
        self.state().store()?; // a locked keystore has nothing to wait for
        let _changing = self.changing();
        if let Some(sound) = self.nothing_is_wrong()? {
            let (without_value, lost, aside, findings) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            let (kept, unnamed, copies) = (sound, 0, 0);
            return Ok(Repaired { kept, without_value, lost, unnamed, aside, copies, findings });
        }
        let mut state = self.alone();
        let open = match &*state {
            State::Open(open) => open,
            State::Locked(locked) => return Err(locked.why.clone()),
        };
        let keyring = open.store.keyring().try_clone().map_err(|error| failed(error.into()))?;
        let known = open.store.known();
        let locked = Locked::under_repair(&open.store);
        let State::Open(Open { store, by, host_keys, proved }) =
            std::mem::replace(&mut *state, State::Locked(locked))
        else {
            unreachable!("it is open, and we alone have it")
        };
        drop(store);
        let repaired = repair(&self.disk, &keyring, &known);
        let reopened = keyring_is_right(&self.disk, &keyring).and_then(|sound| {
            let opened = Opened { keyring, sound, slot: by.clone() };
            Store::open(self.disk.clone(), opened)
        });
        match (reopened, &mut *state) {
            (Ok(store), state) => *state = State::Open(Open { store: store.into(), by, host_keys, proved }),
            (Err(error), State::Locked(locked)) => locked.why = failed(error),
            (Err(error), State::Open(_)) => return Err(failed(error)),
        }
        repaired.map_err(failed)
    }

    /// Repairs a keystore that doesn't open any more though its keyring does: its log is damaged from the first byte, or
    /// gone. Nobody may have it open. Refuses an older log than what this host has seen, as opening does.
    pub fn repair_root(root: &Root, keys: &Keys) -> Result<Repaired, Error> {
        let failed = |error| failure::explain(error, root);
        let (disk, _lock) = root.acquire()?;
        let keyring = read_keyring(&disk).and_then(|keyring| keyring.ok_or(StoreError::KeyringMissing));
        let keyring = keyring.map_err(failed)?;
        let at_hand = unlock::at_hand(&unlock::places(keys), keys)?;
        let opened = keyring.unlock(&at_hand.openers).map_err(|error| match error {
            KeyringError::Locked(tried) => at_hand.refused(&tried, keyring.slots()),
            error => failed(error.into()),
        })?;
        repair(&disk, &opened.keyring, &Default::default()).map_err(failed)
    }

    /// How many secrets there are, if nothing at all is wrong with any of them or with a file. Calls are answered meanwhile.
    fn nothing_is_wrong(&self) -> Result<Option<usize>, Error> {
        let failed = |error| failure::explain(error, &self.root);
        let store = match &*self.state() {
            State::Open(open) => std::sync::Arc::clone(&open.store),
            State::Locked(locked) => return Err(locked.why.clone()),
        };
        if store.condition().read_only.is_some()
            || !keyring_is_right(&self.disk, &store.keyring()).map_err(failed)?
        {
            return Ok(None);
        }
        let Ok(verified) = store.verify() else { return Ok(None) };
        let wrong = |finding: &Finding| {
            finding.is_damage() || matches!(finding, Finding::CopyDiffers { rebuilt: false, .. })
        };
        Ok((!verified.findings.iter().any(wrong)).then_some(verified.sound))
    }
}
