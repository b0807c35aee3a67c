//! The secrets of volumes: how they are found, and as what they are defined.
//!
//! Leans on `secret`, and on `mark` for what a description tells. Refuses to take a secret of a volume's path for anybody
//! else's: its usage says what it is for.

use ::uuid::{Builder, Uuid};
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret;

use super::mark::{self, Mark, Work};
use super::place::Place;
use super::{Named, Plan, Volumes};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, ErrorCode, Keystore, Usage, UsageType};

impl Volumes {
    /// The secret that was named: a volume's, if it is by its usage.
    pub(super) fn find(&self, named: &Named) -> Result<Definition, Error> {
        let found = match named {
            Named::Uuid(uuid) => self.keystore.lookup_by_uuid(*uuid),
            Named::Usage(usage) => self.keystore.lookup_by_usage(UsageType::Volume, usage),
        };
        self.definition(found?.uuid)
    }

    /// The volume's own secret, if it has one.
    pub(super) fn own(&self, path: &str) -> Result<Option<Definition>, Error> {
        match self.keystore.lookup_by_usage(UsageType::Volume, path) {
            Ok(found) => self.definition(found.uuid).map(Some),
            Err(error) if error.code() == ErrorCode::NoSecret => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The one that was named, or the volume's own.
    pub(super) fn named_or_own(&self, named: Option<&Named>, path: &str) -> Result<Definition, Error> {
        match named {
            Some(named) => self.find(named),
            None => self.own(path)?.ok_or_else(|| {
                Error::no_such_usage(path).advise("name the secret that opens the volume with --secret")
            }),
        }
    }

    pub(super) fn definition(&self, uuid: Uuid) -> Result<Definition, Error> {
        Definition::from_xml(self.keystore.xml_desc(uuid, 0)?.as_bytes(), false)
    }

    /// Defines a secret, or redefines it.
    pub(super) fn define(&self, definition: &Definition) -> Result<(), Error> {
        self.keystore.define_xml(definition.to_xml().as_bytes(), 0).map(drop)
    }

    /// The value, if there is one.
    pub(super) fn value(&self, uuid: Uuid) -> Result<Option<SecretBytes>, Error> {
        match self.keystore.value(uuid, 0) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.code() == ErrorCode::NoSecret => Ok(None),
            Err(error) if error.code() == ErrorCode::InvalidSecret => {
                Err(error.advise("its value is private: do this as root on the host whose keystore it is"))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether two values are one.
pub(super) fn same(one: &SecretBytes, other: &SecretBytes) -> bool {
    one.expose_secret() == other.expose_secret()
}

/// Undefines a secret; one that is gone already is no error.
pub(super) fn forget(keystore: &dyn Keystore, uuid: Uuid) -> Result<(), Error> {
    match keystore.undefine(uuid) {
        Err(error) if error.code() == ErrorCode::NoSecret => Ok(()),
        done => done,
    }
}

/// The secret of a volume that is about to be made by this plan.
pub(super) fn unfinished(uuid: Uuid, place: &Place, plan: &Plan) -> Result<Definition, Error> {
    let usage = Usage { kind: UsageType::Volume, id: place.text.as_str().into() };
    let mark = Mark::new(Work::Create, place, Some(plan.digest()))?;
    Ok(Definition {
        uuid,
        usage,
        description: Some(mark.text().into()),
        private: true,
        ephemeral: plan.ephemeral,
    })
}

/// The same when it is made.
pub(super) fn finished(definition: &Definition) -> Definition {
    Definition { description: Some(mark::made_for(&definition.usage.id).into()), ..definition.clone() }
}

/// A volume's own secret when the volume is about to be removed.
pub(super) fn condemned(definition: &Definition, place: &Place) -> Result<Definition, Error> {
    let mark = Mark::new(Work::Delete, place, None)?;
    Ok(Definition { description: Some(mark.text().into()), ..definition.clone() })
}

/// The secret that holds a volume's two passphrases while one takes the other's place.
pub(super) fn note(of: &Definition, place: &Place) -> Result<Definition, Error> {
    let mark = Mark::new(Work::Change, place, None)?;
    Ok(Definition {
        uuid: note_uuid(of.uuid, &place.text),
        usage: Usage::none(),
        description: Some(mark.text().into()),
        private: of.private,
        ephemeral: of.ephemeral,
    })
}

/// Always the same for one volume and secret, so that a second run finds it (RFC 9562, version 8).
fn note_uuid(of: Uuid, path: &str) -> Uuid {
    let mut name = b"strongroom change-passphrase\0".to_vec();
    name.extend(of.as_bytes());
    name.extend(path.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&SHA256, &name).as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}
