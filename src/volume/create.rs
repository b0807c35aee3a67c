//! Making a volume: secret first, marked; then the image, under another name; then its name; then the mark goes.
//!
//! Killed before the image has its name, it leaves a marked secret and perhaps an image without a name; after, a marked secret
//! that opens the image. A second run tells the two apart by trying the passphrase: it clears the one and finishes the other,
//! and takes it for its own only if it was asked for the same.
//! A secret that was named, or that a volume being replaced has already, is used as it is and neither marked nor undefined.
//! Leans on the room's other files. Refuses to overwrite unasked, by a rename that can't.

use std::path::{Path, PathBuf};

use ::uuid::Uuid;
use rustix::fs::Stat;

use super::image::{Image, Kind};
use super::mark::{self, Mark, Work};
use super::original::Readable;
use super::place::{NotNamed, Place, id};
use super::unnamed::Unnamed;
use super::{Ears, HandOver, Plan, Step, Volumes, Watch, passphrase, secrets};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, ErrorCode, UsageType, random_uuid};

/// A volume that was made.
#[derive(Debug)]
pub struct Created {
    /// Where it is.
    pub path: PathBuf,
    /// The secret whose value opens it.
    pub uuid: Uuid,
    /// Its passphrase, if one was made for it.
    pub passphrase: Option<SecretBytes>,
    /// A former run had made it, and was cut short before it could say so. It is as that run was told, not this one.
    pub was_there: bool,
}

impl Created {
    /// The element to paste into a guest's `<disk>`, or a volume's `<target>`.
    pub fn encryption(&self) -> String {
        format!(
            "<encryption format='luks'>\n  <secret type='passphrase' uuid='{}'/>\n</encryption>\n",
            self.uuid
        )
    }
}

/// The passphrase that is to open it.
struct Key {
    secret: Definition,
    value: SecretBytes,
    /// It was made for this volume, and goes if the volume can't be made.
    is_new: bool,
}

/// Where an image is, when what was begun of it is to be finished or cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// Its path is a file's.
    There,
    /// No file is there now.
    Away,
    /// Nor will it come back.
    Gone,
}

impl Volumes {
    /// Makes a volume. Both it and its secret are there when this returns, or neither. The passphrase is handed over before
    /// the volume has its name.
    pub fn create(
        &self,
        plan: &Plan,
        hand_over: Option<HandOver<'_>>,
        watch: Watch<'_>,
    ) -> Result<Created, Error> {
        let mut ears = Ears { watch, hand_over };
        plan.check()?;
        let place = Place::of(&plan.path)?;
        let _alone = place.alone()?;
        place.sweep()?;
        let there = place.look()?;
        let mut own = self.own(&place.text)?;
        if let Some(secret) = &own
            && let Some(begun) = Mark::of(secret)
        {
            let same = begun.plan == Some(plan.digest());
            // What another plan made was handed over then, to whom that one was for.
            let taker = if same { None } else { ears.hand_over.take() };
            let image = if there.is_some() { Where::There } else { Where::Away };
            match self.finish_or_clear((secret, &begun), &place, image, &mut ears)? {
                Some(created) if same => return Ok(created),
                _ => own = self.own(&place.text)?,
            }
            ears.hand_over = ears.hand_over.or(taker);
        }
        if there.is_some() && !plan.replace {
            return Err(Error::failed(format!("'{}' exists", place.text))
                .advise("choose another path, or give --overwrite if it may go"));
        }
        let original = plan.copy_of.as_ref().map(|original| self.readable(original)).transpose()?;
        if original.as_ref().is_some_and(|original| there.is_some_and(|there| id(&there) == original.id)) {
            return Err(Error::failed(format!("'{}' can't be a copy of itself", place.text))
                .advise("choose another path; the copy can be given this one when it is made and checked"));
        }
        // Whoever has the old file open would go on with it, and all of that be lost.
        let _claimed = there.is_some().then(|| place.claim()).transpose()?;
        let key = self.key(plan, &place, (own, there.is_some()), &mut ears)?;
        let made = self.make((plan, original.as_ref()), &place, &key, there.as_ref(), &mut ears)?;
        if key.is_new {
            ears.next(Step::Finish);
            if let Err(error) = self.finish(&key.secret, &key.value) {
                return Err(self.not_finished(plan, &place, &key, &made, error));
            }
        }
        let passphrase = key.is_new.then_some(key.value);
        Ok(Created { path: place.path, uuid: key.secret.uuid, passphrase, was_there: false })
    }

    /// Finishes the creation that a former run began, if its image is in place; else clears what it left, or what a removal
    /// did, if nothing of it can be elsewhere.
    pub(super) fn finish_or_clear(
        &self,
        (secret, begun): (&Definition, &Mark),
        place: &Place,
        image: Where,
        ears: &mut Ears<'_, '_>,
    ) -> Result<Option<Created>, Error> {
        if begun.work != Work::Create && image == Where::There {
            return Err(begun.refused(secret.uuid));
        }
        let probed = if image == Where::There { Image::probe(place)? } else { None };
        if let Some(image) = probed
            && matches!(image.kind, Kind::Luks(_))
            && let Some(value) = self.value(secret.uuid)?
            && self.tool.opens(&image, &value)?
        {
            place.sync_names()?;
            ears.hand_over(&value)?;
            ears.next(Step::Finish);
            self.finish(secret, &value)?;
            let (path, uuid) = (place.path.clone(), secret.uuid);
            return Ok(Some(Created { path, uuid, passphrase: Some(value), was_there: true }));
        }
        mark::refuse_foreign(secret)?;
        if image != Where::Gone {
            begun.refuse_elsewhere(place)?;
        }
        if !place.lacks_directory() {
            self.refuse_renamed(place, secret)?;
        }
        self.forget_notes(&place.text)?;
        secrets::forget(&*self.keystore, secret.uuid)?;
        Ok(None)
    }

    /// The mark goes. Whoever may change secrets may have changed or undefined this one meanwhile.
    fn finish(&self, secret: &Definition, value: &SecretBytes) -> Result<(), Error> {
        self.define(&secrets::finished(secret))?;
        match self.keystore.value(secret.uuid, 0) {
            Ok(stored) if secrets::same(&stored, value) => Ok(()),
            Ok(_) => Err(changed(secret.uuid)),
            // There is none, or it isn't for this caller to see.
            Err(error) if matches!(error.code(), ErrorCode::NoSecret | ErrorCode::InvalidSecret) => {
                self.keystore.set_value(secret.uuid, value.try_clone()?, 0)
            }
            Err(error) => Err(error),
        }
    }

    /// What to do with an image whose secret could not be finished: if that is lost, nothing will ever open it.
    fn not_finished(&self, plan: &Plan, place: &Place, key: &Key, made: &Stat, why: Error) -> Error {
        let is_lost = match self.value(key.secret.uuid) {
            Ok(stored) => stored.is_none_or(|stored| !secrets::same(&stored, &key.value)),
            Err(_) => plan.ephemeral, // a daemon that is no longer there has taken it along
        };
        if !is_lost {
            return why
                .advise("the volume is made, and its secret still marked as unfinished: run this again");
        }
        let uuid = key.secret.uuid;
        match place.remove(made) {
            Ok(()) => Error::failed(format!("{why}; the image is removed again: its secret is lost")).advise(
                format!("see what became of secret {uuid}, and run this again; a passphrase that was handed over opens nothing"),
            ),
            Err(too) => {
                Error::failed(format!("{why}; secret {uuid} doesn't open '{}', and: {too}", place.text))
            }
        }
    }

    /// The passphrase of a plan: of the secret that it names, of that which the volume to be replaced has, or a new one.
    fn key(
        &self,
        plan: &Plan,
        place: &Place,
        (own, there): (Option<Definition>, bool),
        ears: &mut Ears<'_, '_>,
    ) -> Result<Key, Error> {
        let own = match (&plan.secret, own) {
            (Some(named), own) => {
                let secret = self.find(named)?;
                return match own.filter(|own| own.uuid != secret.uuid) {
                    None => self.given(secret, place),
                    Some(own) => Err(Error::failed(format!(
                        "'{}' has a secret of its own, {}, which would not open the new volume",
                        place.text, own.uuid
                    ))
                    .advise("leave out --secret; or remove the volume first, with its secret: strongroom volume delete")),
                };
            }
            (None, None) => return self.made(place, plan, ears),
            (None, Some(own)) => own,
        };
        if !there {
            return Err(Error::failed(format!("secret {} is for '{}' already", own.uuid, place.text)).advise(
                match mark::elsewhere(&own) {
                    Some(host) => format!(
                        "it is that of a volume on the host '{host}': among hosts with one keystore each path can be one volume's; choose another"
                    ),
                    None => format!(
                        "if the volume is on a disk that isn't mounted, mount it; if it won't come back, remove the secret with: strongroom volume delete --gone '{}'; to use the secret for a new one: --secret {}",
                        place.text, own.uuid
                    ),
                },
            ));
        }
        if own.ephemeral != plan.ephemeral {
            let (is, advice) = match own.ephemeral {
                true => ("", "give --ephemeral too"),
                false => ("not ", "leave out --ephemeral"),
            };
            let text = format!("'{}' has the secret {}, which is {is}ephemeral", place.text, own.uuid);
            return Err(Error::failed(text)
                .advise(format!("{advice}; or remove the volume first, for a secret that is made anew")));
        }
        self.given(own, place)
    }

    /// A secret that is there, with its value. One that has another task would end this volume with it.
    fn given(&self, secret: Definition, place: &Place) -> Result<Key, Error> {
        let uuid = secret.uuid;
        if let Some(mark) = Mark::of(&secret) {
            return Err(mark.refused(uuid));
        }
        if secret.usage.kind != UsageType::Volume {
            let text = format!("secret {uuid} is of usage {}, not volume", secret.usage.kind.name());
            return Err(
                Error::failed(text).advise("guests look for one of usage volume: define such a secret")
            );
        }
        let of = &secret.usage.id;
        // By its usage a volume's secret is its own, whoever defined it.
        let has_volume = || Path::new(&**of).is_absolute() && Path::new(&**of).is_file();
        if **of != *place.text && (mark::made_on(&secret).is_some() || has_volume()) {
            let text = format!("secret {uuid} is that of the volume '{of}', and changes and goes with it");
            return Err(Error::failed(text).advise(
                "name no secret: the volume gets one of its own; or define one for both, whose usage is no volume's path",
            ));
        }
        mark::refuse_foreign(&secret).map_err(|error| {
            error.advise(format!(
                "do it there; or, if secret {uuid} opens what is here, remove that volume first: strongroom volume delete '{}'",
                place.text
            ))
        })?;
        let value = self.value(uuid)?.ok_or_else(|| {
            Error::no_value(uuid).advise(format!("set it with: strongroom secret-set-value {uuid}"))
        })?;
        Ok(Key { secret, value, is_new: false })
    }

    /// A new one, durable and marked.
    fn made(&self, place: &Place, plan: &Plan, ears: &mut Ears<'_, '_>) -> Result<Key, Error> {
        let uuid = random_uuid().ok_or_else(Error::no_randomness)?;
        let (secret, value) = (secrets::unfinished(uuid, place, plan)?, passphrase::random()?);
        ears.next(Step::Define);
        self.define(&secret)?;
        ears.next(Step::SetPassphrase);
        match value.try_clone().map_err(Error::from).and_then(|copy| self.keystore.set_value(uuid, copy, 0)) {
            Ok(()) => Ok(Key { secret, value, is_new: true }),
            Err(error) => Err(self.undone(uuid, error)),
        }
    }

    /// The image, under its name. Whatever fails before it has that, is undone.
    fn make(
        &self,
        (plan, original): (&Plan, Option<&Readable>),
        place: &Place,
        key: &Key,
        there: Option<&Stat>,
        ears: &mut Ears<'_, '_>,
    ) -> Result<Stat, Error> {
        const AGAIN: &str = "the volume may have its name: run this again";
        let made = self.image((plan, original), place, key, there, ears).map_err(NotNamed::No);
        let error =
            match made.and_then(|(unnamed, about)| place.name(&unnamed, there.is_some()).map(|()| about)) {
                Ok(about) => {
                    return place.sync_names().map(|()| about).map_err(|error| error.advise(AGAIN));
                }
                Err(NotNamed::Perhaps(error)) => return Err(error.advise(AGAIN)),
                Err(NotNamed::No(error)) => error,
            };
        let swept = place.sweep();
        let error = if key.is_new { self.undone(key.secret.uuid, error) } else { error };
        Err(match swept {
            Ok(_) => error,
            Err(too) => Error::failed(format!("{error}; {too}")),
        })
    }

    /// The image, durable but without its name.
    fn image(
        &self,
        what: (&Plan, Option<&Readable>),
        place: &Place,
        key: &Key,
        there: Option<&Stat>,
        ears: &mut Ears<'_, '_>,
    ) -> Result<(Unnamed, Stat), Error> {
        let failed = |error| Error::system(format_args!("cannot write '{}' to the disk", place.text), &error);
        ears.next(Step::Make);
        let mut unnamed = place.unnamed(there)?;
        let quick = key.is_new.then(|| self.tool.for_random());
        quick.as_ref().unwrap_or(&self.tool).make(what, place, &mut unnamed, &key.value, ears.watch)?;
        unnamed.sync().map_err(failed)?;
        ears.hand_over(&key.value)?;
        ears.next(Step::Name);
        if !key.is_new && !self.value(key.secret.uuid)?.is_some_and(|now| secrets::same(&now, &key.value)) {
            return Err(changed(key.secret.uuid));
        }
        let about = unnamed.about().map_err(failed)?;
        Ok((unnamed, about))
    }

    /// Undefines what was made, for this reason.
    fn undone(&self, uuid: Uuid, why: Error) -> Error {
        match secrets::forget(&*self.keystore, uuid) {
            Ok(()) => why,
            Err(too) => Error::failed(format!("{why}; and its secret {uuid} could not be undefined: {too}"))
                .advise("run this again when that is mended: it clears what is left"),
        }
    }
}

/// Somebody else set a value while an image was made that another one opens.
fn changed(uuid: Uuid) -> Error {
    Error::not_now(format!("the value of secret {uuid} was changed while the volume was made"))
        .advise("run this again")
}
