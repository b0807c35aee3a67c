//! Removing a volume: the image, then its secret, so that there is never an image that nothing opens.
//!
//! Killed in between, it leaves a secret without an image: a second run undefines it, and `orphans` tells of it. Leans on
//! the room's other files. Refuses an image that is in use, what is no encrypted image, and one whose secret isn't its own.

use std::fs;
use std::path::Path;

use ::uuid::Uuid;

use super::image::Image;
use super::place::{Place, claim};
use super::{Progress, Step, Volumes, Watch, secrets};
use crate::secret::Error;

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
    pub fn delete(&self, path: &Path, watch: Watch<'_>) -> Result<Deleted, Error> {
        let place = Place::of(path)?;
        let _alone = place.alone()?;
        let there = place.look()?.is_some();
        let Some(mut secret) = self.own(&place.text)? else {
            let advice = match there {
                true => "if it may go all the same, remove the file: no secret goes with it",
                false => "see what there is with: strongroom secret-list",
            };
            return Err(Error::no_such_usage(&place.text).advise(advice));
        };
        if secrets::is_unfinished(&secret) {
            if self.finish_or_clear(&secret, &place, there, watch)?.is_none() {
                return Ok(Deleted { uuid: secret.uuid, image: false }); // what is there is no work of ours
            }
            secret = secrets::finished(&secret);
        }
        if there {
            Image::at(&place.path)?;
            let _claimed = claim(&place.path)?;
            // Whoever may change no secret is told so while there still is an image.
            self.define(&secret)?;
            watch(Progress::Next(Step::Remove));
            fs::remove_file(&place.path)
                .map_err(|error| Error::system(format_args!("cannot remove '{}'", place.text), &error))?;
        }
        place.sweep()?;
        place.sync_names()?;
        watch(Progress::Next(Step::Undefine));
        secrets::forget(&*self.keystore, secrets::note(&secret, &place.text).uuid)?;
        secrets::forget(&*self.keystore, secret.uuid)?;
        Ok(Deleted { uuid: secret.uuid, image: there })
    }
}
