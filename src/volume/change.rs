//! A new passphrase for a volume, in an order that leaves it openable by its secret's value wherever it is cut short.
//!
//! 1. A second secret (the *note*) gets both passphrases, old and new; its UUID follows from the volume.
//! 2. The new one gets a slot of the image's. Both open it. Whoever wants it gets it now.
//! 3. The volume's secret gets the new one.
//! 4. The old one's slot is erased.
//! 5. The note is undefined.
//!
//! A second run finds the note and goes on; each step is done only if it isn't yet. Leans on `tool` and `secrets`. Refuses a
//! secret that doesn't open the image, and one that other volumes may share, unless it was named.

use std::path::Path;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::check::{does_not_open, is_luks2};
use super::image::{Image, Kind};
use super::mark::{self, Mark};
use super::place::Place;
use super::{Ears, HandOver, Named, Step, Volumes, Watch, passphrase, secrets};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, MAX_VALUE};

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// The secret that has the new passphrase.
    pub uuid: Uuid,
    /// A former run had begun it.
    pub was_begun: bool,
}

/// Both passphrases.
struct Pair {
    old: SecretBytes,
    new: SecretBytes,
}

impl Volumes {
    /// Gives a volume a new random passphrase, in its image and in its secret: its own, or the one that is named, which then
    /// no longer opens any other volume. The new one is handed over before the old one is no longer good; that of an
    /// ephemeral secret must be.
    pub fn change_passphrase(
        &self,
        path: &Path,
        named: Option<&Named>,
        hand_over: Option<HandOver<'_>>,
        watch: Watch<'_>,
    ) -> Result<Changed, Error> {
        let mut ears = Ears { watch, hand_over };
        let place = Place::of(path)?;
        let _alone = place.alone()?;
        place.sweep()?;
        let image = Image::at(&place)?;
        match image.kind {
            Kind::Luks(_) => {}
            Kind::Luks2 => return Err(is_luks2(&place)),
            Kind::Aes(_) => {
                return Err(Error::failed(format!(
                    "'{}' is encrypted as of old, and has no slots to change",
                    place.text
                ))
                .advise(format!(
                    "make a volume of today of it with: strongroom volume create NEW --copy-of '{}'",
                    place.text
                )));
            }
        }
        let secret = self.named_or_own(named, &place.text)?;
        if let Some(mark) = Mark::of(&secret) {
            return Err(mark.refused(secret.uuid));
        }
        if secret.ephemeral && ears.hand_over.is_none() {
            let text = format!(
                "the new passphrase of secret {} would be on no disk, and end with its daemon",
                secret.uuid
            );
            return Err(
                Error::failed(text).advise("take it, for whoever keeps it, with --passphrase-to-fd N")
            );
        }
        let note = secrets::note(&secret, &place)?;
        let begun = self.begun(&image, &secret, note.uuid)?;
        let was_begun = begun.is_some();
        let pair = match begun {
            Some(pair) => pair,
            None => self.begin(&image, &secret, &note, &mut ears)?,
        };
        self.go_on(&image, &secret, (note.uuid, was_begun), &pair, &mut ears).map_err(|error| match error
            .advice()
        {
            Some(_) => error,
            None => error.advise(
                "the secret's value opens the volume all the same; run this again: it goes on from here",
            ),
        })?;
        Ok(Changed { uuid: secret.uuid, was_begun })
    }

    /// What a note holds, if there is one. One that tells nothing of the image, which the secret's value opens, goes: it is of
    /// an image that was here before, or was finished by hand.
    fn begun(&self, image: &Image<'_>, secret: &Definition, note: Uuid) -> Result<Option<Pair>, Error> {
        let Some(value) = self.value(note)? else { return Ok(None) };
        let pair = Pair::read(&value);
        let opens = |pair: &Pair| -> Result<bool, Error> {
            Ok(self.tool.opens(image, &pair.new)? || self.tool.opens(image, &pair.old)?)
        };
        if pair.as_ref().map_or(Ok(false), opens)? {
            return pair.map(Some);
        }
        match self.value(secret.uuid)? {
            Some(stored) if self.tool.opens(image, &stored)? => {
                mark::refuse_foreign(&self.definition(note)?)?;
                secrets::forget(&*self.keystore, note)?;
                Ok(None)
            }
            _ => pair.map(Some),
        }
    }

    /// A new passphrase, noted beside the old one. Nothing is changed yet.
    fn begin(
        &self,
        image: &Image<'_>,
        secret: &Definition,
        note: &Definition,
        ears: &mut Ears<'_, '_>,
    ) -> Result<Pair, Error> {
        let old = self.value(secret.uuid)?.ok_or_else(|| Error::no_value(secret.uuid))?;
        if !self.tool.opens(image, &old)? {
            return Err(does_not_open(secret.uuid, image.place));
        }
        let pair = Pair { old, new: passphrase::random()? };
        let written = pair.written().map_err(|error| {
            error.advise("the note of both passphrases is too long: set a shorter one with cryptsetup luksChangeKey, and in the secret")
        })?;
        ears.next(Step::Note);
        self.define(note)?;
        ears.next(Step::NotePassphrases);
        match self.keystore.set_value(note.uuid, written, 0) {
            Ok(()) => Ok(pair),
            Err(error) => {
                _ = secrets::forget(&*self.keystore, note.uuid); // a note without a value is none
                Err(error)
            }
        }
    }

    fn go_on(
        &self,
        image: &Image<'_>,
        secret: &Definition,
        (note, was_begun): (Uuid, bool),
        pair: &Pair,
        ears: &mut Ears<'_, '_>,
    ) -> Result<(), Error> {
        let has = |key: &SecretBytes| self.tool.opens(image, key);
        if !has(&pair.new)? {
            ears.next(Step::Add);
            let added = self.tool.for_random().add(image, &pair.old, &pair.new);
            if let (Err(error), false) = (added, has(&pair.new)?) {
                // Nothing was changed; unless a qemu-img that a killed run has left is at it now.
                if !was_begun {
                    secrets::forget(&*self.keystore, note)?;
                }
                return Err(error);
            }
        }
        image.place.sync()?;
        ears.hand_over(&pair.new)?;
        let stored = self.value(secret.uuid)?;
        if stored.is_none_or(|stored| !secrets::same(&stored, &pair.new)) {
            ears.next(Step::Store);
            self.keystore.set_value(secret.uuid, pair.new.try_clone()?, 0)?;
        }
        if has(&pair.old)? {
            ears.next(Step::Erase);
            let erased = self.tool.erase(image, &pair.new, &pair.old);
            if let (Err(error), true) = (erased, has(&pair.old)?) {
                return Err(error);
            }
        }
        image.place.sync()?;
        ears.next(Step::Forget);
        secrets::forget(&*self.keystore, note)
    }
}

impl Pair {
    /// As a note's value: the old one's length, the old one, the new one.
    fn written(&self) -> Result<SecretBytes, Error> {
        let (old, new) = (self.old.expose_secret(), self.new.expose_secret());
        let length = u32::try_from(old.len()).map_err(|_| Error::value_too_long(old.len()))?.to_be_bytes();
        let whole = length.len() + old.len() + new.len();
        if whole > MAX_VALUE {
            return Err(Error::value_too_long(whole));
        }
        let mut value = SecretBytes::zeroed(whole)?;
        value.overwrite(0, &length);
        value.overwrite(length.len(), old);
        value.overwrite(length.len() + old.len(), new);
        Ok(value)
    }

    fn read(value: &SecretBytes) -> Result<Self, Error> {
        let read = || {
            let (length, rest) = value.expose_secret().split_first_chunk()?;
            let (old, new) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
            (!old.is_empty() && !new.is_empty()).then_some((old, new))
        };
        let (old, new) =
            read().ok_or_else(|| Error::failed("the note of the two passphrases can't be read"))?;
        Ok(Self { old: SecretBytes::copy_of(old)?, new: SecretBytes::copy_of(new)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_gives_back_both_passphrases() {
        let bytes = |text: &str| SecretBytes::copy_of(text.as_bytes()).unwrap();
        let pair = Pair { old: bytes("old one"), new: bytes("new") };
        let back = Pair::read(&pair.written().unwrap()).unwrap();
        assert_eq!((back.old.expose_secret(), back.new.expose_secret()), (&b"old one"[..], &b"new"[..]));
        for broken in ["", "\0\0\0", "\0\0\0\0new", "\0\0\0\x03new", "\u{7f}aaanew"] {
            assert!(Pair::read(&bytes(broken)).is_err(), "{broken:?}");
        }
    }
}
