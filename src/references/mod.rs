//! Which secrets libvirt's descriptions name: of guests, pools and volumes, of snapshots and backups, and `qemu.conf`.
//!
//! Text in, [`Description`] out; how a [`Reference`] stands in a keystore is asked with [`Reference::standing`]. `survey`
//! reads what all kinds share, `domain`, `disk` and `storage` know where it stands, `configuration` is for `qemu.conf`.
//! Leans on `secret` for XML, with its limits, and on `conf`. Refuses documents that can name no secret, lest they pass
//! for sound. A reference that libvirt would refuse becomes a [`Fault`] with its place, so that it hides no other.

mod configuration;
mod disk;
mod domain;
mod standing;
mod storage;
mod survey;
#[cfg(test)]
mod tests;

use ::uuid::Uuid;

use crate::secret::{Document, Element, Error, ErrorCode, ErrorDomain, Source, UsageType};
pub use standing::Standing;
use survey::Survey;

/// What a description says of secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// What it describes, by its root element: `domain`, `pool`, `volume`, …; or `configuration`, of QEMU's driver.
    pub kind: &'static str,
    /// The name of what it describes, if it has one.
    pub name: Option<String>,
    /// The secrets that it names, as they stand in it.
    pub references: Vec<Reference>,
    /// What is encrypted, whether a secret is named for it or not.
    pub encryptions: Vec<Encryption>,
    /// What lies in a storage pool. libvirt reaches it as the pool says, and with the pool's secret.
    pub pooled: Vec<Pooled>,
    /// The places that use TLS. If the key there has a passphrase, `qemu.conf` names its secret.
    pub tls: Vec<String>,
    /// What libvirt would refuse.
    pub faults: Vec<Fault>,
}

/// A place that names a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where, for a person: `disk vda`, `disk vda, backing store`, `TPM`.
    pub place: String,
    /// The usage type that libvirt looks for there.
    pub wants: UsageType,
    /// What its value must be.
    pub takes: Takes,
    /// Which secret.
    pub named: Named,
}

/// What those take who are given a secret's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Takes {
    /// Whatever it is.
    Bytes,
    /// UTF-8 without NUL: QEMU refuses all else as a passphrase of LUKS or of a TLS key, and as a password.
    Text,
}

/// The two ways to name a secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Named {
    /// By its UUID.
    Uuid(Uuid),
    /// By the id of its usage. The type is known by the place.
    Usage(String),
}

/// An `<encryption>` of a disk or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encryption {
    /// Where, as in [`Reference::place`].
    pub place: String,
    /// How it is encrypted.
    pub format: Format,
    /// Its secrets. There may be none; there are several where layers of an RBD image have their own.
    pub secrets: Vec<Named>,
}

/// The formats of encryption that a description can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// What suits the volume.
    Default,
    /// qcow's own AES, which QEMU makes no more.
    Qcow,
    /// LUKS, version 1.
    Luks,
    /// LUKS, version 2: by Ceph's library alone.
    Luks2,
    /// LUKS of either version: by Ceph's library alone.
    LuksAny,
}

/// A disk that is a volume of a storage pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pooled {
    /// Where, as in [`Reference::place`].
    pub place: String,
    /// The pool's name.
    pub pool: String,
}

/// Something that libvirt refuses, in its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where, as in [`Reference::place`].
    pub place: String,
    /// What libvirt says.
    pub text: String,
}

impl Description {
    /// Reads a document. The element at its root says what it describes.
    pub fn from_xml(xml: &[u8]) -> Result<Self, Error> {
        let source = Source::decode(xml)?;
        let document = Document::read(&source)?;
        let root = document.root();
        let known =
            if root.in_namespace() { None } else { KINDS.iter().find(|(kind, _)| *kind == root.name()) };
        let Some(&(kind, read)) = known else {
            return Err(Error::new(
                ErrorCode::XmlError,
                ErrorDomain::Xml,
                format!("a <{}> document names no secrets to be looked up", root.name()),
            )
            .advise(
                "give what virsh dumpxml, pool-dumpxml, vol-dumpxml, snapshot-dumpxml or backup-dumpxml show",
            ));
        };
        let mut survey = Survey::default();
        let name = read(root, &mut survey);
        Ok(survey.into_description(kind, name))
    }
}

impl Format {
    /// The one with this name in XML.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Default, Self::Qcow, Self::Luks, Self::Luks2, Self::LuksAny]
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// Its name in XML.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Qcow => "qcow",
            Self::Luks => "luks",
            Self::Luks2 => "luks2",
            Self::LuksAny => "luks-any",
        }
    }
}

/// Reads a document from its root, and says whose it is.
type Reader = fn(Element<'_, '_>, &mut Survey) -> Option<String>;

/// The documents that can name secrets, by their root elements. `domstatus` and `poolstate` are what the daemons keep
/// in `/run`; `disk`, `hostdev` and `tpm` are what `virsh attach-device` takes.
const KINDS: [(&str, Reader); 11] = [
    ("domain", domain::domain),
    ("domstatus", domain::status),
    ("domainsnapshot", domain::snapshot),
    ("domaincheckpoint", domain::checkpoint),
    ("domainbackup", domain::backup),
    ("disk", domain::device),
    ("hostdev", domain::device),
    ("tpm", domain::device),
    ("pool", storage::pool),
    ("poolstate", storage::state),
    ("volume", storage::volume),
];
