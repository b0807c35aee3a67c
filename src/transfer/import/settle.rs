//! One secret: read, put in, read back and compared. Or, of a dry run, what would come of that.
//!
//! Leans on `libvirt` and [`Inventory`]. Refuses to call a secret imported that the keystore doesn't give back as it was.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ::uuid::Uuid;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{ImportOptions, Imported, KeyTrial, Original, Outcome};
use crate::administration::{Inventory, Put, usage_in_words};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, Usage, UsageType};
use crate::transfer::libvirt::{Directory, Form, Held, LibvirtKey, Unfit, ValueFile, definition_name};

/// What it takes.
pub(super) struct Settler<'a> {
    pub(super) directory: &'a Directory,
    pub(super) key: Option<&'a LibvirtKey>,
    pub(super) into: &'a dyn Inventory,
    /// Why originals that only the key vouches for are to be kept.
    doubt: Option<&'static str>,
    /// Of a dry run: who has, or would have, which usage.
    foreseen: Option<Mutex<HashMap<Usage, Uuid>>>,
}

/// One secret that is done with.
pub(super) struct Settled {
    pub(super) row: Imported,
    pub(super) original: Original,
    /// The definition, if the keystore is proved to have the secret.
    pub(super) proved: Option<Definition>,
    /// Why its originals are to be kept all the same.
    pub(super) keep: Option<String>,
    /// The keystore was asked to take it.
    pub(super) reached_keystore: bool,
    /// Why the keystore couldn't.
    pub(super) refused: Option<Error>,
}

/// What was found in place of a value.
enum Reading {
    Value(Option<SecretBytes>),
    /// The name of a file in which there is none any more.
    Overwritten(String),
}

impl<'a> Settler<'a> {
    pub(super) fn new(
        directory: &'a Directory,
        key: Option<&'a LibvirtKey>,
        into: &'a dyn Inventory,
        options: &ImportOptions,
        trial: Option<KeyTrial>,
    ) -> Result<Self, Error> {
        let doubt = trial.filter(|_| !options.trust_key).and_then(KeyTrial::doubt);
        let foreseen = if options.dry_run { Some(Mutex::new(usages(into)?)) } else { None };
        Ok(Self { directory, key, into, doubt, foreseen })
    }

    /// How many can be settled at once.
    pub(super) fn at_once(&self) -> usize {
        super::at_once(self.foreseen.is_some())
    }

    /// An error is one that would come of every other secret too.
    pub(super) fn settle(&self, original: &Original) -> Result<Settled, Error> {
        let mut settled = Settled {
            row: Imported::of(original.uuid),
            original: original.clone(),
            proved: None,
            keep: None,
            reached_keystore: false,
            refused: None,
        };
        let Some((definition, reading)) = self.read(original, &mut settled)? else { return Ok(settled) };
        let row = &mut settled.row;
        let value = match reading {
            Reading::Value(value) => value,
            Reading::Overwritten(name) => {
                row.outcome = self.rest(&definition)?;
                match row.outcome {
                    Outcome::AlreadyThere => settled.proved = Some(definition),
                    Outcome::Unreadable => row.add_hint(format!("{name} {}; {LOST}", Unfit::Overwritten)),
                    _ => row.add_hint(format!("{name} {}; {OTHER}", Unfit::Overwritten)),
                }
                return Ok(settled);
            }
        };
        if let Some(foreseen) = &self.foreseen {
            let mut owners = foreseen.lock().unwrap_or_else(PoisonError::into_inner);
            row.outcome = self.foresee(&definition, value.as_ref(), &mut owners)?;
            explain(row);
            return Ok(settled);
        }
        settled.reached_keystore = true;
        match self.put(&definition, value.as_ref()) {
            Ok((outcome, proved)) => {
                row.outcome = outcome;
                explain(row);
                settled.proved = proved.then_some(definition);
            }
            Err(error) => {
                row.outcome = Outcome::Refused;
                row.add_hint(error.to_string());
                settled.refused = Some(error);
            }
        }
        Ok(settled)
    }

    /// Definition and value, or else the row says why not.
    fn read(
        &self,
        original: &Original,
        settled: &mut Settled,
    ) -> Result<Option<(Definition, Reading)>, Error> {
        let row = &mut settled.row;
        let name = definition_name(original.uuid, original.definition);
        let definition = match self.directory.definition(original.uuid, original.definition) {
            Ok((definition, loose)) => {
                note_looseness(row, &name, loose);
                definition
            }
            Err(unfit) => {
                row.add_hint(format!("{name} {unfit}"));
                return Ok(None);
            }
        };
        row.usage = Some(usage_in_words(&definition.usage));
        if definition.ephemeral {
            row.outcome = Outcome::Ephemeral;
            row.add_hint("an ephemeral secret belongs on no disk; define it anew where it is needed");
            return Ok(None);
        }
        let Some(file) = original.value() else { return Ok(Some((definition, Reading::Value(None)))) };
        if original.both() {
            row.add_hint("there are a .base64 and an .aes256cbc; the .base64 is taken, as libvirt does");
        }
        let name = file.name(original.uuid);
        match self.value(original.uuid, file) {
            Ok(held) => {
                note_looseness(row, &name, held.loose);
                if file.is_taken_out() {
                    row.add_hint(format!(
                        "its value is in {name}: an import was cut short while it removed that"
                    ));
                }
                if !held.strict {
                    row.add_hint(format!(
                        "{name} is not the base64 that libvirt writes; what libvirt reads from it is taken"
                    ));
                    settled.keep = Some(format!("{name} may be damaged: {ODD}"));
                } else if let Some(doubt) = self.doubt.filter(|_| file.is_encrypted()) {
                    settled.keep = Some(doubt.to_owned());
                }
                Ok(Some((definition, Reading::Value(held.value))))
            }
            Err(Unfit::Memory(exhausted)) => Err(exhausted.into()),
            Err(Unfit::Overwritten) => Ok(Some((definition, Reading::Overwritten(name)))),
            Err(unfit) => {
                if matches!(unfit, Unfit::NoKey) {
                    row.outcome = Outcome::NoKey;
                }
                row.add_hint(format!("{name} {unfit}"));
                Ok(None)
            }
        }
    }

    /// What is in a value file.
    pub(super) fn value(&self, uuid: Uuid, file: ValueFile) -> Result<Held, Unfit> {
        let form = match file.is_encrypted() {
            false => Form::Plain,
            true => Form::Encrypted(self.key.ok_or(Unfit::NoKey)?),
        };
        self.directory.value(&file.name(uuid), form)
    }

    /// What to make of a secret whose value an import had begun to destroy. It was in a keystore then; whether in this one
    /// must be seen.
    fn rest(&self, definition: &Definition) -> Result<Outcome, Error> {
        Ok(match self.into.read(definition.uuid)? {
            Some((found, Some(_))) if found == *definition => Outcome::AlreadyThere,
            Some(_) => Outcome::Differs,
            None => Outcome::Unreadable,
        })
    }

    /// Puts it in. Also says whether the keystore gives it back just so.
    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<(Outcome, bool), Error> {
        let outcome = match self.into.put(definition, value)? {
            Put::Added => Outcome::Added,
            Put::Same => Outcome::AlreadyThere,
            Put::UsageTaken(owner) => return Ok((Outcome::UsageTaken(owner), false)),
            // The definition is what is left of a secret whose removal was cut short.
            Put::Differs if value.is_none() && self.rest(definition)? == Outcome::AlreadyThere => {
                return Ok((Outcome::AlreadyThere, true));
            }
            Put::Differs => return Ok((Outcome::Differs, false)),
        };
        match self.into.holds(definition, value)? {
            true => Ok((outcome, true)),
            false => Err(Error::failed(format!(
                "secret '{}' was put into the keystore, and is not there as it was put",
                definition.uuid
            ))
            .advise("its originals are kept; look into the keystore with: strongroom verify")),
        }
    }

    fn foresee(
        &self,
        definition: &Definition,
        value: Option<&SecretBytes>,
        owners: &mut HashMap<Usage, Uuid>,
    ) -> Result<Outcome, Error> {
        if let Some((found, held)) = self.into.read(definition.uuid)? {
            let equal = match (value, &held) {
                (None, _) => true, // as for what is left of a removal
                (Some(value), Some(held)) => value.expose_secret().ct_eq(held.expose_secret()).into(),
                (Some(_), None) => false,
            };
            return Ok(if found == *definition && equal { Outcome::AlreadyThere } else { Outcome::Differs });
        }
        if definition.usage.kind == UsageType::None {
            return Ok(Outcome::Added);
        }
        let owner = *owners.entry(definition.usage.clone()).or_insert(definition.uuid);
        Ok(if owner == definition.uuid { Outcome::Added } else { Outcome::UsageTaken(owner) })
    }
}

/// Who has which usage.
fn usages(into: &dyn Inventory) -> Result<HashMap<Usage, Uuid>, Error> {
    let (mut usages, mut after) = (HashMap::new(), None);
    loop {
        let page = into.list(after, PAGE)?;
        let Some(last) = page.last() else { return Ok(usages) };
        after = Some(*last);
        for uuid in page {
            // A secret that doesn't open has no usage to be found by.
            if let Ok(Some((definition, _))) = into.read(uuid)
                && definition.usage.kind != UsageType::None
            {
                usages.insert(definition.usage, uuid);
            }
        }
    }
}

fn explain(row: &mut Imported) {
    match row.outcome {
        Outcome::Differs => row.add_hint(
            "the keystore has another definition or value of this UUID, and keeps it; undefine that one to import this",
        ),
        Outcome::UsageTaken(owner) => {
            row.add_hint(format!("secret {owner} has this usage, and keeps it; undefine that one to import this"));
        }
        _ => {}
    }
}

fn note_looseness(row: &mut Imported, name: &str, loose: Option<u32>) {
    if let Some(mode) = loose {
        row.add_hint(format!("others than its owner could get at {name} (mode {mode:04o})"));
    }
}

const LOST: &str = "this keystore doesn't have it: import from the keystore that it went to, or restore a backup of that one";

const OTHER: &str = "the keystore has another secret of this UUID, and keeps it";

const ODD: &str = "look at the value in the keystore, and if it is right, remove the file by hand";

/// UUIDs asked for at once.
const PAGE: usize = 1024;
