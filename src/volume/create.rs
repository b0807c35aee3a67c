//! Making a volume: secret first, marked; then the image, under another name; then its name; then the mark goes.
//!
//! Killed before the image has its name, it leaves a marked secret and perhaps an image without a name; after, a marked secret
//! that opens the image. A second run tells the two apart by trying the passphrase: it clears the one and finishes the other.
//! A secret that was named, or that a volume being replaced has already, is used as it is and neither marked nor undefined.
//! Leans on the room's other files. Refuses to overwrite unasked, by a rename that can't.

use std::path::PathBuf;

use ::uuid::Uuid;

use super::image::{Image, Kind};
use super::original::Readable;
use super::place::{Place, claim};
use super::unnamed::NotNamed;
use super::{Plan, Progress, Step, Volumes, Watch, passphrase, secrets};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, random_uuid};

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

impl Volumes {
    /// Makes a volume. Both it and its secret are there when this returns, or neither.
    pub fn create(&self, plan: &Plan, watch: Watch<'_>) -> Result<Created, Error> {
        plan.check()?;
        let place = Place::of(&plan.path)?;
        let _alone = place.alone()?;
        let there = place.look()?;
        let own = self.own(&place.text)?;
        if let Some(secret) = own.as_ref().filter(|own| secrets::is_unfinished(own))
            && let Some(created) = self.finish_or_clear(secret, &place, there.is_some(), watch)?
        {
            return Ok(created);
        }
        place.sweep()?;
        if there.is_some() && !plan.replace {
            return Err(Error::failed(format!("'{}' exists", place.text))
                .advise("choose another path, or give --overwrite if it may go"));
        }
        if plan
            .copy_of
            .as_ref()
            .is_some_and(|original| Place::of(&original.path).is_ok_and(|it| it.path == place.path))
        {
            return Err(Error::failed(format!("'{}' can't be a copy of itself", place.text))
                .advise("choose another path; the copy can be given this one when it is made and checked"));
        }
        let original = plan.copy_of.as_ref().map(|original| self.readable(original)).transpose()?;
        // Whoever has the old file open would go on with it, and all of that be lost.
        let _claimed = there.is_some().then(|| claim(&place.path)).transpose()?;
        let own = own.filter(|own| !secrets::is_unfinished(own));
        let key = match (&plan.secret, own) {
            (Some(named), _) => self.given(self.find(named)?)?,
            (None, Some(own)) if there.is_some() => self.given(own)?,
            (None, Some(own)) => {
                return Err(Error::failed(format!("secret {} is for '{}' already", own.uuid, place.text))
                    .advise(format!(
                        "use it with --secret {}, or remove it with: strongroom volume delete PATH",
                        own.uuid
                    )));
            }
            (None, None) => self.made(&place, plan.ephemeral, watch)?,
        };
        self.make((plan, original.as_ref()), &place, &key, there.as_ref(), watch)?;
        if key.is_new {
            watch(Progress::Next(Step::Finish));
            self.define(&secrets::finished(&key.secret)).map_err(|error| {
                error.advise("the volume is made, and its secret still marked as unfinished: run this again")
            })?;
        }
        let passphrase = key.is_new.then_some(key.value);
        Ok(Created { path: place.path, uuid: key.secret.uuid, passphrase, was_there: false })
    }

    /// Finishes what a former run began, if its image is in place; else clears what it left.
    pub(super) fn finish_or_clear(
        &self,
        secret: &Definition,
        place: &Place,
        is_there: bool,
        watch: Watch<'_>,
    ) -> Result<Option<Created>, Error> {
        place.sweep()?;
        let image = if is_there { Image::probe(&place.path)? } else { None };
        if let (Some(image), Some(value)) = (image, self.value(secret.uuid)?)
            && matches!(image.kind, Kind::Luks(_))
            && self.tool.opens(&image, &value)?
        {
            place.sync_names()?;
            watch(Progress::Next(Step::Finish));
            self.define(&secrets::finished(secret))?;
            let (path, uuid) = (place.path.clone(), secret.uuid);
            return Ok(Some(Created { path, uuid, passphrase: Some(value), was_there: true }));
        }
        secrets::forget(&*self.keystore, secret.uuid)?;
        Ok(None)
    }

    /// A secret that is there, with its value.
    fn given(&self, secret: Definition) -> Result<Key, Error> {
        let value = self.value(secret.uuid)?.ok_or_else(|| {
            Error::no_value(secret.uuid)
                .advise(format!("set it with: strongroom secret-set-value {}", secret.uuid))
        })?;
        Ok(Key { secret, value, is_new: false })
    }

    /// A new one, durable and marked.
    fn made(&self, place: &Place, ephemeral: bool, watch: Watch<'_>) -> Result<Key, Error> {
        let uuid = random_uuid().ok_or_else(Error::no_randomness)?;
        let (secret, value) = (secrets::unfinished(uuid, &place.text, ephemeral), passphrase::random()?);
        watch(Progress::Next(Step::Define));
        self.define(&secret)?;
        watch(Progress::Next(Step::SetPassphrase));
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
        there: Option<&std::fs::Metadata>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let made = (|| {
            watch(Progress::Next(Step::Make));
            let unnamed = place.unnamed(there)?;
            let quick = key.is_new.then(|| self.tool.for_random());
            let tool = quick.as_ref().unwrap_or(&self.tool);
            match original {
                None => tool.create(plan, &unnamed, &key.value, watch)?,
                Some(original) => tool.copy(plan, original, &unnamed, &key.value, watch)?,
            }
            unnamed.sync()?;
            Ok(unnamed)
        })();
        let named = made.map_err(NotNamed::No).and_then(|unnamed| {
            watch(Progress::Next(Step::Name));
            unnamed.name(&place.path, plan.replace)
        });
        const AGAIN: &str = "the volume may have its name: run this again";
        let error = match named {
            Ok(()) => return place.sync_names().map_err(|error| error.advise(AGAIN)),
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

    /// Undefines what was made, for this reason.
    fn undone(&self, uuid: Uuid, why: Error) -> Error {
        match secrets::forget(&*self.keystore, uuid) {
            Ok(()) => why,
            Err(too) => Error::failed(format!("{why}; and its secret {uuid} could not be undefined: {too}"))
                .advise("run this again when that is mended: it clears what is left"),
        }
    }
}
