//! What a secret is used for: libvirt's five usages, and none.
//!
//! Leans on nothing. Refuses nothing: an id is free text, whatever the type (libvirt-compatible).

use std::sync::Arc;

use serde::Serialize;

/// The kinds of thing that use secrets. The numbers are libvirt's, on the wire and on our disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum UsageType {
    /// Nothing in particular; found by UUID only.
    None = 0,
    /// An encrypted volume; the id is its path.
    Volume = 1,
    /// A Ceph (RBD) client; the id is its name.
    Ceph = 2,
    /// An iSCSI target's CHAP password; the id is the target.
    Iscsi = 3,
    /// A TLS private key's passphrase; the id is a name.
    Tls = 4,
    /// A virtual TPM's state; the id is a name.
    Vtpm = 5,
}

impl UsageType {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::None, Self::Volume, Self::Ceph, Self::Iscsi, Self::Tls, Self::Vtpm];

    /// The type with this number.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.number() == number)
    }

    /// The type with this name (`"volume"`), exactly.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|usage| usage.name() == name)
    }

    /// Its number in libvirt's protocol.
    pub fn number(self) -> i32 {
        i32::from(self as u8)
    }

    /// Its name in XML and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Volume => "volume",
            Self::Ceph => "ceph",
            Self::Iscsi => "iscsi",
            Self::Tls => "tls",
            Self::Vtpm => "vtpm",
        }
    }
}

/// A usage: its type, and which one of that type. Unique among secrets, unless the type is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Usage {
    /// The kind of thing.
    pub kind: UsageType,
    /// Which one. Empty exactly when the type is none.
    pub id: Arc<str>,
}

impl Usage {
    /// No usage.
    pub fn none() -> Self {
        Self { kind: UsageType::None, id: Arc::from("") }
    }
}
