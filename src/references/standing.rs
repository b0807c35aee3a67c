//! How a reference stands in a keystore: whether what uses it would find a secret, of the right usage, with a fit value.
//!
//! Leans on the trait `Keystore`. Asks for what libvirt's drivers ask for, in their order, and drops the value once it
//! has seen that it is fit: the protocol has no other way to learn that there is one. Refuses to call a secret ready
//! whose value it didn't get, and to say more of a value than why it is none to be used.

use secrecy::ExposeSecret;

use super::{Named, Reference, Takes};
use crate::secret::{Error, ErrorCode, Keystore, NO_FLAGS, UsageType};

/// How a reference stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There, of the right usage, with a value.
    Ready,
    /// There, of the right usage; whether it has a value isn't ours to know: it is private, or we may only read definitions.
    Untold(Error),
    /// There, and has no value.
    NoValue,
    /// There, with a value that whoever is given it can't use; why not, in words that follow on "its value".
    Unfit(&'static str),
    /// There, but for another use.
    OtherUsage(UsageType),
    /// Not there.
    Missing,
    /// It couldn't be looked up, or its value couldn't be read.
    Unreadable(Error),
}

impl Reference {
    /// How it stands in this keystore. Private values are told from missing ones only by an
    /// [elevated](Keystore::elevated) one.
    pub fn standing(&self, keystore: &dyn Keystore) -> Standing {
        let found = match &self.named {
            Named::Uuid(uuid) => keystore.lookup_by_uuid(*uuid),
            Named::Usage(id) => keystore.lookup_by_usage(self.wants, id),
        };
        let secret = match found {
            Ok(secret) => secret,
            Err(error) if error.code() == ErrorCode::NoSecret => return self.without(keystore),
            Err(error) => return Standing::Unreadable(error),
        };
        // libvirt takes a secret of no usage for any use, if it is named by its UUID.
        if ![UsageType::None, self.wants].contains(&secret.usage.kind) {
            return Standing::OtherUsage(secret.usage.kind);
        }
        match keystore.value(secret.uuid, NO_FLAGS) {
            Ok(value) => self.unfit(value.expose_secret()).map_or(Standing::Ready, Standing::Unfit),
            Err(error) if error.code() == ErrorCode::NoSecret => Standing::NoValue,
            Err(error) if is_withheld(&error) => Standing::Untold(error),
            Err(error) => Standing::Unreadable(error),
        }
    }

    /// What is amiss with its value, if anything.
    fn unfit(&self, value: &[u8]) -> Option<&'static str> {
        if value.is_empty() {
            return Some("is empty");
        }
        match self.takes {
            Takes::Text if value.contains(&0) => Some("holds a NUL byte, which QEMU takes in no passphrase"),
            Takes::Text if std::str::from_utf8(value).is_err() => {
                Some("is not UTF-8, and QEMU takes no other passphrase")
            }
            Takes::Bytes if self.wants == UsageType::Ceph && is_key_in_base64(value) => {
                Some("is a Ceph key in base64, which libvirt would encode once more")
            }
            _ => None,
        }
    }

    /// What is to be said of a secret that isn't there: perhaps one for another use has its name.
    fn without(&self, keystore: &dyn Keystore) -> Standing {
        let Named::Usage(id) = &self.named else { return Standing::Missing };
        UsageType::ALL
            .into_iter()
            .filter(|kind| ![UsageType::None, self.wants].contains(kind))
            .find(|kind| keystore.lookup_by_usage(*kind, id).is_ok())
            .map_or(Standing::Missing, Standing::OtherUsage)
    }
}

/// Whether this is what `ceph auth get-key` prints: a key of 28 bytes, whose first two say which cipher it is for.
fn is_key_in_base64(value: &[u8]) -> bool {
    let text = value.trim_ascii();
    let inner = text.strip_prefix(b"AQ").and_then(|text| text.strip_suffix(b"=="));
    inner.is_some_and(|inner| {
        inner.len() == 36 && inner.iter().all(|it| it.is_ascii_alphanumeric() || b"+/".contains(it))
    })
}

/// Whether the value was kept from us, and may well be given to others.
fn is_withheld(error: &Error) -> bool {
    match error.code() {
        ErrorCode::OperationDenied | ErrorCode::AccessDenied => true,
        ErrorCode::InvalidSecret => error.detail() == Error::private().detail(),
        _ => false,
    }
}
