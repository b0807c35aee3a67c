//! Checking a store that is open: every record, every copy, every file.
//!
//! Reads the log from disk anew, as the next open would, while nobody writes. Leans on `log` and `copies`. Refuses to
//! change anything.

use std::collections::HashSet;

use super::copies;
use super::log::{LOG, Log};
use super::open::KEYRING;
use super::{Finding, Store, StoreError, read_value};

/// What a check found.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Secrets whose definition and value open.
    pub sound: usize,
    /// All that is wrong, what opening found included.
    pub findings: Vec<Finding>,
}

impl Store {
    /// Checks everything. Changes wait meanwhile; reads don't.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut findings = self.findings.clone();
        self.while_quiet(|| {
            let keyring = self.keyring();
            let recovered = Log::recover(std::sync::Arc::clone(&self.contents().file), &keyring, None)
                .map_err(|error| StoreError::LogUnreadable(error.to_string()))?;
            for damage in &recovered.damage {
                let (expected, found) = damage.frames;
                let (from, to) = (damage.bytes.start, damage.bytes.end);
                findings.push(Finding::LogDamaged { from, to, expected, found });
            }
            let mut sound = 0;
            let contents = self.contents();
            for (uuid, entry) in contents.index.entries() {
                let before = findings.len();
                let again = recovered.index.entry(uuid);
                if entry.definition.is_none() || again.is_none_or(|again| again.definition.is_none()) {
                    findings.push(Finding::DefinitionDamaged { uuid });
                }
                if entry.place.has_value {
                    match read_value(&*contents.file, entry.place, &keyring) {
                        Ok(_) => {}
                        Err(StoreError::Damaged(_)) => findings.push(Finding::ValueDamaged { uuid }),
                        Err(error) => return Err(error),
                    }
                }
                sound += usize::from(findings.len() == before);
            }
            let names = self.disk.etc.list().map_err(StoreError::io("list etc/secrets"))?;
            if keyring.copies() {
                let difference = copies::difference(&*self.disk.etc, &names, &contents.index, true);
                let differing = difference.missing.into_iter().chain(difference.wrong);
                findings.extend(differing.map(|uuid| Finding::CopyDiffers { uuid, rebuilt: false }));
            }
            findings.extend(orphans(names, |uuid| contents.index.entry(uuid).is_some()));
            Ok(Verified { sound, findings: without_repeats(findings) })
        })
    }
}

/// The files that are none of ours.
fn orphans(names: Vec<String>, is_secret: impl Fn(::uuid::Uuid) -> bool) -> Vec<Finding> {
    let ours = |name: &str| name == KEYRING || name == LOG || copies::uuid_of(name).is_some_and(&is_secret);
    let mut orphans: Vec<String> = names.into_iter().filter(|name| !ours(name)).collect();
    orphans.sort();
    orphans.into_iter().map(|file| Finding::Orphan { file }).collect()
}

fn without_repeats(findings: Vec<Finding>) -> Vec<Finding> {
    let mut seen = HashSet::new();
    findings.into_iter().filter(|finding| seen.insert(finding.to_string())).collect()
}
