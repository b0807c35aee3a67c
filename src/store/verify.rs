//! Checking a store that is open: every record, every copy, every file.
//!
//! Reads the log from disk anew, as the next open would, while nobody writes. Leans on `log` and `copies`. Refuses to
//! change anything.

use std::collections::HashSet;

use ::uuid::Uuid;
use serde::Serialize;

use super::copies;
use super::log::{LOG, Log};
use super::open::KEYRING;
use super::{Finding, Store, StoreError, read_value};
use crate::secret::Usage;

/// What a check found.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Every secret, by UUID.
    pub secrets: Vec<Checked>,
    /// All that is wrong, what opening found included.
    pub findings: Vec<Finding>,
}

/// One secret, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Checked {
    /// Which secret.
    #[serde(serialize_with = "as_string")]
    pub uuid: Uuid,
    /// What it is for, where the definition opens.
    #[serde(serialize_with = "as_words")]
    pub usage: Option<Usage>,
    /// What its record is like.
    pub state: RecordState,
}

/// What a secret's record is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RecordState {
    /// Definition and value open.
    Ok,
    /// The definition opens, and there is no value.
    NoValue,
    /// The definition doesn't open.
    DefinitionDamaged,
    /// The definition opens, the value doesn't.
    ValueDamaged,
}

impl RecordState {
    /// Whether nothing is wrong with it.
    pub fn is_sound(self) -> bool {
        matches!(self, Self::Ok | Self::NoValue)
    }
}

impl Verified {
    /// How many secrets nothing is wrong with.
    pub fn sound(&self) -> usize {
        self.secrets.iter().filter(|secret| secret.state.is_sound()).count()
    }
}

impl Store {
    /// Checks everything. Changes wait meanwhile; reads don't.
    pub fn verify(&self) -> Result<Verified, StoreError> {
        let mut findings = self.findings.clone();
        self.while_quiet(|| {
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
                secrets.push(Checked { uuid, usage: definition.map(|it| it.usage.clone()), state });
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
            Ok(Verified { secrets, findings: without_repeats(findings) })
        })
    }
}

fn without_repeats(findings: Vec<Finding>) -> Vec<Finding> {
    let mut seen = HashSet::new();
    findings.into_iter().filter(|finding| seen.insert(finding.to_string())).collect()
}

fn as_string<S: serde::Serializer>(uuid: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(uuid)
}

/// As `secret-list` shows a usage: its type, then its id.
fn as_words<S: serde::Serializer>(usage: &Option<Usage>, serializer: S) -> Result<S::Ok, S::Error> {
    match usage {
        Some(usage) if usage.id.is_empty() => serializer.serialize_some(usage.kind.name()),
        Some(usage) => serializer.serialize_some(&format!("{} {}", usage.kind.name(), usage.id)),
        None => serializer.serialize_none(),
    }
}
