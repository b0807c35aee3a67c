//! Checking a store that is open: every record, every copy, every file.
//!
//! Reads the log from disk anew, as the next open would, while nobody writes. Leans on `log` and `copies`. Refuses to
//! change anything.

use std::collections::HashSet;

use super::copies;
use super::log::{LOG, Log};
use super::open::KEYRING;
use super::{Finding, Store, StoreError, read_value};
use crate::administration::{Checked, RecordState, Verified, usage_in_words};

impl Store {
    /// Checks everything. Changes wait meanwhile; reads don't.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut findings = self.findings.clone();
        self.while_quiet(|_| {
            let keyring = self.keyring();
            let recovered = Log::recover(std::sync::Arc::clone(&self.contents().file), &keyring, None)?;
            for damage in &recovered.damage {
                let (expected, found) = damage.frames;
                let (from, to) = (damage.bytes.start, damage.bytes.end);
                findings.push(Finding::LogDamaged { from, to, expected, found });
            }
            // Nobody writes now: bytes behind the last good commit are damage to what was acknowledged.
            if let Some(tail) = &recovered.tail {
                findings.push(super::open::finding_of(tail, None));
            }
            let mut secrets = Vec::new();
            let contents = self.contents();
            for (uuid, entry) in contents.index.entries() {
                let again = recovered.index.entry(uuid).and_then(|again| again.definition.as_ref());
                let definition = entry.definition.as_ref().filter(|_| again.is_some());
                let value = match entry.place.has_value {
                    true => match read_value(&*contents.file, uuid, entry.place, &keyring) {
                        Ok(_) => RecordState::Ok,
                        Err(StoreError::Damaged(_)) => RecordState::ValueDamaged,
                        Err(error) => return Err(error),
                    },
                    false => RecordState::NoValue,
                };
                if definition.is_none() {
                    findings.push(Finding::DefinitionDamaged { uuid });
                }
                if value == RecordState::ValueDamaged {
                    findings.push(Finding::ValueDamaged { uuid });
                }
                let state = if definition.is_none() { RecordState::DefinitionDamaged } else { value };
                secrets.push(Checked { uuid, usage: definition.map(|it| usage_in_words(&it.usage)), state });
            }
            secrets.sort_by_key(|secret| secret.uuid);
            let (copies, others) =
                copies::names(&*self.disk.etc).map_err(StoreError::io("list etc/secrets"))?;
            let difference = copies::difference(&*self.disk.etc, copies, &contents.index, keyring.copies());
            if keyring.copies() {
                let differing = difference.missing.into_iter().chain(difference.wrong);
                findings.extend(differing.map(|uuid| Finding::CopyDiffers { uuid, rebuilt: false }));
            }
            let others = others.into_iter().filter(|name| name != KEYRING && name != LOG);
            let orphans = difference.orphans.into_iter().map(copies::name).chain(others);
            findings.extend(orphans.map(|file| Finding::Orphan { file }));
            let sound = secrets.iter().filter(|secret| secret.state.is_sound()).count();
            Ok(Verified { sound, secrets, findings: without_repeats(findings) })
        })
    }
}

fn without_repeats(findings: Vec<Finding>) -> Vec<Finding> {
    let mut seen = HashSet::new();
    findings.into_iter().filter(|finding| seen.insert(finding.to_string())).collect()
}
