//! The secrets of volumes: how they are named, found and marked.
//!
//! What is unfinished is told by a secret's description, so that whoever looks at the secret sees it too; and on which host,
//! for hosts that share a keystore: one's path isn't the other's. Leans on `secret`. Refuses to take a secret of a volume's
//! path for anybody else's: its usage says what it is for.

use ::uuid::{Builder, Uuid};
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret;

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
pub(super) fn unfinished(uuid: Uuid, path: &str, plan: &Plan) -> Definition {
    let usage = Usage { kind: UsageType::Volume, id: path.into() };
    let mark = format!("{CREATION}{}{AGAIN} ({})", host(), plan.digest());
    Definition { uuid, usage, description: Some(mark.into()), private: true, ephemeral: plan.ephemeral }
}

/// The same when it is made.
pub(super) fn finished(definition: &Definition) -> Definition {
    Definition { description: Some(made_for(definition).into()), ..definition.clone() }
}

/// Whether a volume's creation made it.
pub(super) fn is_made(definition: &Definition) -> bool {
    is_of_volume(definition) && definition.description.as_deref() == Some(&made_for(definition))
}

fn made_for(definition: &Definition) -> String {
    format!("passphrase of the volume {}", definition.usage.id)
}

/// The same when its volume is about to be removed.
pub(super) fn condemned(definition: &Definition) -> Definition {
    let mark = format!("{DELETION}{}{AGAIN}", host());
    Definition { description: Some(mark.into()), ..definition.clone() }
}

/// Whether its volume was about to be removed, by this host.
pub(super) fn is_condemned(definition: &Definition) -> bool {
    is_of_volume(definition) && definition.description == condemned(definition).description
}

/// What the mark of a creation that was cut short tells.
pub(super) struct Creation<'a> {
    host: &'a str,
    /// The digest of its plan.
    pub(super) plan: &'a str,
}

pub(super) fn creation(definition: &Definition) -> Option<Creation<'_>> {
    let (host, plan) = definition.description.as_deref()?.strip_prefix(CREATION)?.rsplit_once(AGAIN)?;
    let plan = plan.strip_prefix(" (")?.strip_suffix(')')?;
    is_of_volume(definition).then_some(Creation { host, plan })
}

impl Creation<'_> {
    /// Refuses one of another host, whose path of this name is another place.
    pub(super) fn refuse_foreign(&self, secret: &Definition) -> Result<(), Error> {
        refuse_foreign("creation", self.host, (secret.uuid, &secret.usage.id))
    }
}

pub(super) fn is_unfinished(definition: &Definition) -> bool {
    creation(definition).is_some()
}

fn is_of_volume(definition: &Definition) -> bool {
    definition.usage.kind == UsageType::Volume
}

/// The secret that holds a volume's two passphrases while one takes the other's place.
pub(super) fn note(of: &Definition, path: &str) -> Definition {
    Definition {
        uuid: note_uuid(of.uuid, path),
        usage: Usage::none(),
        description: Some(format!("{NOTE}{}{AGAIN} on {path}", host()).into()),
        private: of.private,
        ephemeral: of.ephemeral,
    }
}

/// What the description of such a one tells.
pub(super) struct Noted<'a> {
    host: &'a str,
    /// The volume.
    pub(super) path: &'a str,
}

pub(super) fn noted(definition: &Definition) -> Option<Noted<'_>> {
    let (host, path) = definition.description.as_deref()?.strip_prefix(NOTE)?.split_once(AGAIN)?;
    let path = path.strip_prefix(" on ")?;
    (definition.usage.kind == UsageType::None).then_some(Noted { host, path })
}

impl Noted<'_> {
    pub(super) fn is_ours(&self) -> bool {
        self.host == host()
    }

    /// Refuses one of another host.
    pub(super) fn refuse_foreign(&self, note: Uuid) -> Result<(), Error> {
        refuse_foreign("change", self.host, (note, self.path))
    }
}

fn refuse_foreign(work: &str, at: &str, (uuid, path): (Uuid, &str)) -> Result<(), Error> {
    if at == host() {
        return Ok(());
    }
    Err(Error::not_now(format!("secret {uuid} is of a {work} of '{path}' that was cut short on the host '{at}'"))
        .advise(format!(
            "run it again there; if that host is gone for good: strongroom secret-undefine {uuid}, and run this again"
        )))
}

/// This host, as others know it.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "(nameless)".to_owned() } else { name.replace(char::is_control, "?") }
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

const CREATION: &str = "unfinished: strongroom volume create was cut short on ";

const DELETION: &str = "unfinished: strongroom volume delete was cut short on ";

const NOTE: &str = "unfinished: strongroom volume change-passphrase was cut short on ";

/// What stands behind the host's name.
const AGAIN: &str = "; run it again";
