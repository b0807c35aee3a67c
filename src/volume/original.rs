//! The image that a new volume is a copy of: encrypted or not, in a format of today or of old.
//!
//! Leans on `image` for what it is, and on the keystore for its passphrase. Refuses to guess whether it is encrypted or of
//! which format, and to copy half: what another image backs must be made whole first.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::image::{self, Image, Kind};
use super::place::Place;
use super::{Format, Named, Volumes};
use crate::memory::SecretBytes;
use crate::secret::Error;

/// An image whose content a new volume gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Where it is. It stays as it is.
    pub path: PathBuf,
    /// How it is read.
    pub reading: Reading,
}

/// How an image is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// It is encrypted, and the value of this secret opens it; `None`: of its own secret. The AES of old takes every
    /// passphrase, and gives nonsense for a wrong one.
    Encrypted(Option<Named>),
    /// It isn't encrypted, and has this format.
    Plain(Format),
}

/// An original that can be read now.
pub(super) struct Readable {
    /// Its name for qemu-img.
    pub(super) name: String,
    pub(super) by: By,
    /// What it takes on the disk.
    pub(super) bytes: u64,
    /// Which file it is.
    pub(super) id: (u64, u64),
}

/// How qemu-img gets at what is in an original.
pub(super) enum By {
    /// By its passphrase, under the id of [`ID`]. A file that isn't the one that was looked at doesn't open.
    Passphrase(SecretBytes),
    /// By this file, which was looked at.
    File(File),
}

impl Volumes {
    /// Finds an original and what opens it. An encrypted one is tried, before anything is made of it.
    pub(super) fn readable(&self, original: &Original) -> Result<Readable, Error> {
        let place = Place::of(&original.path)?;
        let file = place.open_behind_links()?;
        let about = file.metadata();
        let about =
            about.map_err(|error| Error::system(format_args!("cannot read '{}'", place.text), &error))?;
        if original.reading != Reading::Plain(Format::Raw) {
            image::refuse_half(&file, &place)?;
        }
        let (bytes, id) = (about.blocks() * 512, (about.dev(), about.ino()));
        let named = match &original.reading {
            Reading::Plain(format) => {
                image::refuse_other(&file, &place, *format)?;
                self.refuse_encrypted(&file, &place, *format)?;
                return Ok(Readable { name: image::plain_name(*format), by: By::File(file), bytes, id });
            }
            Reading::Encrypted(named) => named,
        };
        drop(file);
        place.look()?; // a link has no secret of its own
        let image = Image::at(&place).map_err(|error| {
            error.advise("if it isn't encrypted, say which format it has (see: qemu-img info): --original-format raw, or qcow2; of another format, make one of these first: qemu-img convert")
        })?;
        let uuid = self.named_or_own(named.as_ref(), &place.text)?.uuid;
        let key = self.value(uuid)?.ok_or_else(|| Error::no_value(uuid))?;
        match image.kind {
            Kind::Luks2 => return Err(super::check::is_luks2(&place)),
            Kind::Luks(_) if !self.tool.opens(&image, &key)? => {
                return Err(super::check::does_not_open(uuid, &place));
            }
            Kind::Luks(_) | Kind::Aes(_) => {}
        }
        let name = image.whole_name(ID);
        Ok(Readable { name, by: By::Passphrase(key), bytes, id })
    }

    /// As plain data its cipher text would be copied, and nothing ever open the copy. But a raw disk that a guest has
    /// encrypted by itself looks no different; what tells them apart is whether there is a secret for it.
    fn refuse_encrypted(&self, file: &File, place: &Place, format: Format) -> Result<(), Error> {
        let is_encrypted = match format {
            Format::Raw => image::looks_encrypted(file, place)? && self.own(&place.text)?.is_some(),
            Format::Qcow2 => image::looks_encrypted(file, place)?,
        };
        if !is_encrypted {
            return Ok(());
        }
        Err(Error::failed(format!("'{}' is encrypted", place.text))
            .advise("leave out --original-format, and name the secret that opens it, unless it is its own"))
    }
}

/// The passphrase of an original, among the secrets that qemu-img gets.
pub(super) const ID: &str = "t";
