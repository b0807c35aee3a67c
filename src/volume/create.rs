//! Making a volume: secret first, marked; then the image, under another name; then its name; then the mark goes.
//!
//! Killed before the image has its name, it leaves a marked secret and perhaps an image without a name; after, a marked secret
//! that opens the image. A second run tells the two apart by trying the passphrase: it clears the one and finishes the other,
//! and takes it for its own only if it was asked for the same.
//! A secret that was named, or that a volume being replaced has already, is used as it is and neither marked nor undefined.
//! Leans on the room's other files. Refuses to overwrite unasked, by a rename that can't.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use ::uuid::Uuid;

use super::image::{Image, Kind};
use super::original::Readable;
use super::place::{Place, claim};
use super::unnamed::NotNamed;
use super::{HandOver, Plan, Progress, Step, Volumes, Watch, passphrase, secrets};
use crate::memory::SecretBytes;
use crate::secret::{Definition, Error, ErrorCode, random_uuid};

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
    /// Makes a volume. Both it and its secret are there when this returns, or neither. A passphrase that is made is handed
    /// over before the volume has its name.
    pub fn create(
        &self,
        plan: &Plan,
        mut hand_over: Option<HandOver<'_>>,
        watch: Watch<'_>,
    ) -> Result<Created, Error> {
        plan.check()?;
        let place = Place::of(&plan.path)?;
        let _alone = place.alone()?;
        let there = place.look()?;
        let mut own = self.own(&place.text)?;
        if let Some(secret) = &own
            && let Some(begun) = secrets::creation(secret)
        {
            let same = begun.plan == plan.digest();
            // What another plan made was handed over then, to whom that one was for.
            let (is_there, mut nobody) = (there.is_some(), None);
            let taker = if same { &mut hand_over } else { &mut nobody };
            match self.finish_or_clear(secret, &place, is_there, (taker, watch))? {
                Some(created) if same => return Ok(created),
                _ => own = self.own(&place.text)?,
            }
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
        let key = match (&plan.secret, own) {
            (Some(named), _) => self.given(self.find(named)?, &place)?,
            (None, Some(own)) if there.is_some() => self.given(own, &place)?,
            (None, Some(own)) => {
                return Err(Error::failed(format!("secret {} is for '{}' already", own.uuid, place.text))
                    .advise(format!(
                        "use it with --secret {}, or remove it with: strongroom volume delete --gone PATH",
                        own.uuid
                    )));
            }
            (None, None) => self.made(&place, plan, watch)?,
        };
        let made =
            self.make((plan, original.as_ref()), &place, &key, there.as_ref(), (&mut hand_over, watch))?;
        if key.is_new {
            watch(Progress::Next(Step::Finish));
            if let Err(error) = self.finish(&key.secret, &key.value) {
                return Err(self.not_finished(plan, &place, &key, &made, error));
            }
        }
        let passphrase = key.is_new.then_some(key.value);
        Ok(Created { path: place.path, uuid: key.secret.uuid, passphrase, was_there: false })
    }

    /// Finishes what a former run of this host began, if its image is in place; else clears what it left.
    pub(super) fn finish_or_clear(
        &self,
        secret: &Definition,
        place: &Place,
        is_there: bool,
        (hand_over, watch): (&mut Option<HandOver<'_>>, Watch<'_>),
    ) -> Result<Option<Created>, Error> {
        if let Some(begun) = secrets::creation(secret) {
            begun.refuse_foreign(secret)?;
        }
        place.sweep()?;
        let image = if is_there { Image::probe(&place.path)? } else { None };
        if let Some(image) = image
            && matches!(image.kind, Kind::Luks(_))
            && let Some(value) = self.value(secret.uuid)?
            && self.tool.opens(&image, &value)?
        {
            place.sync_names()?;
            if let Some(hand_over) = hand_over {
                hand_over(&value)?;
            }
            watch(Progress::Next(Step::Finish));
            self.finish(secret, &value)?;
            let (path, uuid) = (place.path.clone(), secret.uuid);
            return Ok(Some(Created { path, uuid, passphrase: Some(value), was_there: true }));
        }
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
    fn not_finished(&self, plan: &Plan, place: &Place, key: &Key, made: &Metadata, why: Error) -> Error {
        let is_lost = match self.value(key.secret.uuid) {
            Ok(stored) => stored.is_none_or(|stored| !secrets::same(&stored, &key.value)),
            Err(_) => plan.ephemeral, // a daemon that is no longer there has taken it along
        };
        if !is_lost {
            return why
                .advise("the volume is made, and its secret still marked as unfinished: run this again");
        }
        let id = |about: &Metadata| (about.dev(), about.ino());
        let removed = match fs::symlink_metadata(&place.path) {
            Ok(there) if id(&there) == id(made) => fs::remove_file(&place.path),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        let uuid = key.secret.uuid;
        match removed {
            Ok(()) => Error::failed(format!("{why}; the image is removed again: its passphrase is lost"))
                .advise(format!("see what became of secret {uuid}, and run this again")),
            Err(error) => Error::failed(format!(
                "{why}; '{}' can't be opened by secret {uuid}, nor removed: {error}",
                place.text
            )),
        }
    }

    /// A secret that is there, with its value. One that has another task would end this volume with it.
    fn given(&self, secret: Definition, place: &Place) -> Result<Key, Error> {
        let uuid = secret.uuid;
        if secrets::is_unfinished(&secret) || secrets::is_condemned(&secret) {
            return Err(Error::not_now(format!("what secret {uuid} was made for is unfinished"))
                .advise(format!("see what it is with: strongroom secret-dumpxml {uuid}")));
        }
        if secrets::noted(&secret).is_some() {
            return Err(Error::failed(format!(
                "secret {uuid} holds the passphrases of a change that was cut short"
            ))
            .advise("name the volume's secret"));
        }
        if secrets::is_made(&secret) && *secret.usage.id != *place.text {
            let text = format!(
                "secret {uuid} is that of the volume '{}', and changes and goes with it",
                secret.usage.id
            );
            return Err(Error::failed(text).advise(
                "name no secret: the volume gets one of its own; or define one that both shall use",
            ));
        }
        let value = self.value(uuid)?.ok_or_else(|| {
            Error::no_value(uuid).advise(format!("set it with: strongroom secret-set-value {uuid}"))
        })?;
        Ok(Key { secret, value, is_new: false })
    }

    /// A new one, durable and marked.
    fn made(&self, place: &Place, plan: &Plan, watch: Watch<'_>) -> Result<Key, Error> {
        let uuid = random_uuid().ok_or_else(Error::no_randomness)?;
        let (secret, value) = (secrets::unfinished(uuid, &place.text, plan), passphrase::random()?);
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
        there: Option<&Metadata>,
        (hand_over, watch): (&mut Option<HandOver<'_>>, Watch<'_>),
    ) -> Result<Metadata, Error> {
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
            if let (Some(hand_over), true) = (hand_over, key.is_new) {
                hand_over(&key.value)?;
            }
            watch(Progress::Next(Step::Name));
            if !key.is_new && !self.value(key.secret.uuid)?.is_some_and(|now| secrets::same(&now, &key.value))
            {
                return Err(changed(key.secret.uuid));
            }
            Ok(unnamed)
        })();
        let named = made.map_err(NotNamed::No).and_then(|unnamed| {
            unnamed.name(&place.path, plan.replace)?;
            unnamed.file.metadata().map_err(|error| {
                NotNamed::Perhaps(Error::system(format_args!("cannot look at '{}'", place.text), &error))
            })
        });
        const AGAIN: &str = "the volume may have its name: run this again";
        let error = match named {
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
