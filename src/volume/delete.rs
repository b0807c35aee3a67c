//! Removing a volume: the image, then its secret, so that there is never an image that nothing opens.
//!
//! The secret is marked before the image goes. Killed in between, it leaves a marked secret without an image: a second run
//! undefines it, and `orphans` tells of it. Leans on the room's other files. Refuses an image that is in use or that the
//! secret's value doesn't open, what is no encrypted image, one whose secret isn't its own, and, unasked, a secret whose image
//! isn't there: it may be on a disk that isn't mounted.

use std::path::Path;

use ::uuid::Uuid;
use rustix::fs::{Stat, fstat};

use super::check::{does_not_open, is_luks2};
use super::create::Where;
use super::image::{Image, Kind};
use super::mark::{self, Mark, Work};
use super::place::{Place, id};
use super::{Ears, Step, Volumes, Watch, secrets};
use crate::secret::{Definition, Error, ErrorCode, UsageType};

/// What may be removed, besides an image that its secret's value opens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removal {
    /// An image that the value doesn't open, or of which nothing tells whether it does.
    pub unproved: bool,
    /// The secret of an image that isn't there and won't come back, and nothing else.
    pub gone: bool,
}

/// What was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deleted {
    /// The secret.
    pub uuid: Uuid,
    /// The image was there. `false`: it was gone already.
    pub image: bool,
}

impl Volumes {
    /// Removes a volume and its own secret, or what is left of the two.
    pub fn delete(&self, path: &Path, removal: Removal, watch: Watch<'_>) -> Result<Deleted, Error> {
        let mut ears = Ears { watch, hand_over: None };
        let place = Place::of(path)?;
        // Without its directory there is nothing to lock, and nobody at work.
        let is_nowhere = removal.gone && place.lacks_directory();
        let _alone = (!is_nowhere).then(|| place.alone()).transpose()?;
        let there = match removal.gone {
            _ if is_nowhere => None,
            true => place.file()?, // in the volume's place is something else
            false => place.look()?,
        };
        // Names that can't be listed can't be made durable either: to be told before anything is done.
        let swept = !is_nowhere && place.sweep()?;
        let Some(mut secret) = self.own(&place.text)? else {
            let advice = match (there.is_some(), swept) {
                (true, _) => "if it may go all the same, remove the file: no secret goes with it",
                (false, true) => "what a creation that was cut short had left is removed; there is no more",
                (false, false) => "see what there is with: strongroom secret-list",
            };
            return Err(Error::no_such_usage(&place.text).advise(advice));
        };
        if there.is_some() && removal.gone {
            return Err(Error::failed(format!("'{}' is there", place.text)).advise("leave out --gone"));
        }
        let begun = Mark::of(&secret);
        if let Some(begun) = begun.as_ref().filter(|mark| mark.work == Work::Create) {
            let image = match there {
                Some(_) => Where::There,
                None if removal.gone => Where::Gone,
                None => Where::Away,
            };
            if self.finish_or_clear((&secret, begun), &place, image, &mut ears)?.is_none() {
                return Ok(Deleted { uuid: secret.uuid, image: false }); // what is there is no work of ours
            }
            secret = secrets::finished(&secret);
        }
        if let Some(there) = &there {
            self.remove((&place, there), &secret, removal.unproved, &mut ears)?;
        } else {
            mark::refuse_foreign(&secret)?;
            if !removal.gone && begun.is_none_or(|mark| !mark.is_of(&place)) {
                return Err(Error::failed(format!("'{}' isn't there", place.text)).advise(
                    "if it is gone for good, and not on a disk that isn't mounted: remove its secret with --gone",
                ));
            }
        }
        if !is_nowhere {
            if there.is_none() {
                self.refuse_renamed(&place, &secret)?;
            }
            place.sync_names()?;
        }
        ears.next(Step::Undefine);
        self.forget_notes(&place.text)?;
        secrets::forget(&*self.keystore, secret.uuid)?;
        Ok(Deleted { uuid: secret.uuid, image: there.is_some() })
    }

    /// Removes an image, and marks its secret before that.
    fn remove(
        &self,
        (place, there): (&Place, &Stat),
        secret: &Definition,
        unproved: bool,
        ears: &mut Ears<'_, '_>,
    ) -> Result<(), Error> {
        let image = Image::at(place)?;
        match unproved {
            true => mark::refuse_foreign(secret)?,
            // What it opens here is its volume, whoever made it.
            false => self.prove(&image, secret)?,
        }
        let claimed = place.claim()?;
        let about = fstat(&claimed);
        let about = about
            .map_err(|error| Error::system(format_args!("cannot look at '{}'", place.text), &error.into()))?;
        if id(&about) != id(there) {
            return Err(place.is_another());
        }
        // Whoever may change no secret is told so while there still is an image.
        self.define(&secrets::condemned(secret, place)?)?;
        ears.next(Step::Remove);
        place.remove(there).map_err(|error| match self.define(secret) {
            Ok(()) => error,
            Err(too) => Error::failed(format!("{error}; and secret {} is still marked: {too}", secret.uuid)),
        })
    }

    /// The image may only have got another name: then its passphrase is there, and nowhere else.
    pub(super) fn refuse_renamed(&self, place: &Place, secret: &Definition) -> Result<(), Error> {
        let uuid = secret.uuid;
        let value = match self.value(uuid) {
            Ok(Some(value)) => value,
            Ok(None) => return Ok(()),
            // Whoever may not read it is told so where it counts; here it is a favour.
            Err(error) if error.code() == ErrorCode::InvalidSecret => return Ok(()),
            Err(error) => return Err(error),
        };
        for other in place.beside_it()? {
            let Ok(Some(image @ Image { kind: Kind::Luks(_), .. })) = Image::probe(&other) else { continue };
            if self.own(&other.text)?.is_some() {
                continue;
            }
            let opens = self.tool.opens(&image, &value).map_err(|error| {
                error.advise(format!(
                    "it may be '{}' under another name; if it isn't, move it away, or: strongroom secret-undefine {uuid}",
                    place.text
                ))
            })?;
            if opens {
                let text = format!("the value of secret {uuid} opens '{}'", other.text);
                return Err(Error::failed(text).advise(format!(
                    "if that is the volume under another name: define a secret for it, give that this one's value, and run this again; if not: strongroom secret-undefine {uuid}"
                )));
            }
        }
        Ok(())
    }

    /// What the secret doesn't open is perhaps another volume, put in this one's place.
    fn prove(&self, image: &Image<'_>, secret: &Definition) -> Result<(), Error> {
        let (uuid, place) = (secret.uuid, image.place);
        let refused = match image.kind {
            Kind::Luks(_) => match self.value(uuid)? {
                Some(value) if self.tool.opens(image, &value)? => return Ok(()),
                Some(_) => does_not_open(uuid, place),
                None => Error::no_value(uuid),
            },
            Kind::Luks2 => is_luks2(place),
            Kind::Aes(_) => Error::failed(format!(
                "'{}' is encrypted as of old, and nothing tells whether secret {uuid} opens it",
                place.text
            )),
        };
        Err(refused.advise("if image and secret may go all the same, give --force"))
    }

    /// Forgets what changes of this volume's passphrase have left on this host, whichever secret's they were.
    pub(super) fn forget_notes(&self, path: &str) -> Result<(), Error> {
        for handle in self.keystore.list_all(0)? {
            if handle.usage.kind == UsageType::None
                && let Ok(definition) = self.definition(handle.uuid)
                && Mark::of(&definition).is_some_and(|mark| mark.is_ours() && mark.path == path)
            {
                secrets::forget(&*self.keystore, handle.uuid)?;
            }
        }
        Ok(())
    }
}
