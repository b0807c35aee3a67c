//! Whether a stored passphrase opens a volume, without showing it.
//!
//! By opening it, as a guest would; a volume that a guest has open can be checked too. Leans on `tool`. Refuses to say that
//! the AES of old was opened: it takes every passphrase.

use std::path::Path;

use ::uuid::Uuid;

use super::image::{Image, Kind};
use super::place::Place;
use super::{Named, Volumes};
use crate::secret::Error;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The secret whose value was tried.
    pub uuid: Uuid,
    /// What it did.
    pub verdict: Verdict,
}

/// Whether a value opens a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Opens,
    /// The secret has a value that doesn't.
    DoesNot,
    /// The secret has no value.
    NoValue,
    /// The image is of the old kind, which takes every passphrase: only its content can tell.
    Unprovable,
}

impl Volumes {
    /// Tries the value of the secret that is named, or of the volume's own.
    pub fn check(&self, path: &Path, named: Option<&Named>) -> Result<Checked, Error> {
        let place = Place::of(path)?;
        let image = Image::at(&place)?;
        let uuid = self.named_or_own(named, &place.text)?.uuid;
        let verdict = match (image.kind, self.value(uuid)?) {
            (Kind::Luks2, _) => return Err(is_luks2(&place)),
            (_, None) => Verdict::NoValue,
            (Kind::Aes(_), Some(_)) => Verdict::Unprovable,
            (Kind::Luks(_), Some(value)) if self.tool.opens(&image, &value)? => Verdict::Opens,
            (Kind::Luks(_), Some(_)) => Verdict::DoesNot,
        };
        Ok(Checked { uuid, verdict })
    }
}

/// A value that is the wrong one.
pub(super) fn does_not_open(secret: Uuid, place: &Place) -> Error {
    Error::failed(format!("the value of secret {secret} doesn't open '{}'", place.text)).advise(
        "set its value again (a line break at its end counts), or name the secret that does with --secret",
    )
}

/// What QEMU can't open.
pub(super) fn is_luks2(place: &Place) -> Error {
    Error::failed(format!("'{}' is LUKS of version 2, which QEMU doesn't open", place.text))
        .advise("try its passphrase with: cryptsetup open --test-passphrase")
}
