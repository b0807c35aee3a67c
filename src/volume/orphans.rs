//! What has lost its other half: secrets whose volumes are gone, volumes whose secrets are, and what was cut short.
//!
//! Looks at the usages and descriptions of all secrets, and into the directories that they name. Leans on `image` to tell
//! encrypted images from other files, and on `mark`. Refuses to change anything, to call a volume gone that it may not look
//! at or that is another host's, and to call work cut short that goes on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use ::uuid::Uuid;
use rustix::fs::{FileType, lstat};

use super::Volumes;
use super::image::Image;
use super::mark::{self, Mark, Work};
use super::place::{self, Place, unnamed_of};
use super::unnamed::is_private;
use crate::secret::{Definition, Error, Handle, UsageType};

/// One half without the other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Orphan {
    /// A secret whose volume doesn't exist.
    Secret {
        /// The secret.
        uuid: Uuid,
        /// The volume that it was for.
        path: PathBuf,
    },
    /// An encrypted image that has no secret of its own. Another's may open it.
    Volume {
        /// The image.
        path: PathBuf,
    },
    /// The creation of this volume was cut short.
    Creation {
        /// The marked secret.
        uuid: Uuid,
        /// The volume that it is for.
        path: PathBuf,
    },
    /// The removal of this volume was cut short.
    Deletion {
        /// The marked secret.
        uuid: Uuid,
        /// The volume that it is for.
        path: PathBuf,
    },
    /// The change of this volume's passphrase was cut short.
    Change {
        /// The secret that holds both passphrases.
        uuid: Uuid,
        /// The volume.
        path: PathBuf,
    },
    /// A secret that another host made, for a volume that isn't here, or for work of its that was cut short. That host knows
    /// whether it is an orphan.
    Elsewhere {
        /// The secret.
        uuid: Uuid,
        /// The volume.
        path: PathBuf,
        /// The host.
        host: String,
    },
    /// An image that never got its name.
    Unnamed {
        /// The file.
        path: PathBuf,
    },
    /// What can't be looked at: a directory, or a volume whose directory isn't there.
    Unseen {
        /// The directory, or the volume.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Volumes {
    /// All that there are in the keystore, and in the directories of its volumes and these.
    pub fn orphans(&self, directories: &[PathBuf]) -> Result<Vec<Orphan>, Error> {
        let (mut orphans, mut known) = (Vec::new(), BTreeSet::new());
        let mut places = BTreeSet::new();
        for directory in directories {
            let failed =
                |error| Error::system(format_args!("cannot look into '{}'", directory.display()), &error);
            places.insert(std::path::absolute(directory).map_err(failed)?);
        }
        for Handle { uuid, usage } in self.keystore.list_all(0)? {
            // A definition that can't be read is the keystore's matter: its usage still tells the volume.
            let definition = self.definition(uuid).ok();
            let mark = definition.as_ref().and_then(Mark::of);
            let is_of_volume = usage.kind == UsageType::Volume;
            let path = PathBuf::from(match &mark {
                Some(mark) => &*mark.path,
                None if is_of_volume => &*usage.id,
                None => continue,
            });
            if !path.is_absolute() {
                continue;
            }
            orphans.extend(self.left(uuid, definition.as_ref(), mark.as_ref(), &path));
            places.extend(path.parent().filter(|parent| parent.is_dir()).map(Path::to_owned));
            if is_of_volume {
                known.insert(path);
            }
        }
        for directory in &places {
            match place::entries(directory) {
                Ok(names) => {
                    orphans.extend(names.iter().filter_map(|name| self.half(directory, name, &known)));
                }
                Err(error) => {
                    orphans.push(Orphan::Unseen { path: directory.clone(), why: error.to_string() });
                }
            }
        }
        orphans.sort_by(|one, other| one.path().cmp(other.path()));
        Ok(orphans)
    }

    /// What a secret of this volume is, if it is one half without the other, or of work that was cut short.
    fn left(
        &self,
        uuid: Uuid,
        definition: Option<&Definition>,
        mark: Option<&Mark>,
        path: &Path,
    ) -> Option<Orphan> {
        let path = path.to_owned();
        let place = Place::of(&path).ok();
        let is_gone =
            place.as_ref().is_some_and(|place| place.lacks_directory() || matches!(place.look(), Ok(None)));
        if let Some(host) = definition.and_then(mark::elsewhere) {
            return (mark.is_some() || is_gone).then_some(Orphan::Elsewhere { uuid, path, host });
        }
        // Whose work it was may have ended between our looks.
        let is_idle = || place.as_ref().is_none_or(|place| !place.is_busy());
        if let Some(mark) = mark {
            let is_so =
                is_idle() && self.definition(uuid).is_ok_and(|now| Mark::of(&now).as_ref() == Some(mark));
            return is_so.then_some(match mark.work {
                Work::Create => Orphan::Creation { uuid, path },
                Work::Delete => Orphan::Deletion { uuid, path },
                Work::Change => Orphan::Change { uuid, path },
            });
        }
        if place.as_ref().is_some_and(Place::lacks_directory) {
            let why = "its directory isn't there: is it mounted?".to_owned();
            return Some(Orphan::Unseen { path, why });
        }
        (is_gone && is_idle() && self.keystore.lookup_by_uuid(uuid).is_ok())
            .then_some(Orphan::Secret { uuid, path })
    }

    /// What a file is, if it is one half without the other.
    fn half(&self, directory: &Path, name: &OsStr, known: &BTreeSet<PathBuf>) -> Option<Orphan> {
        let path = directory.join(name);
        let is_idle = |path: &Path| Place::of(path).map_or(true, |place| !place.is_busy());
        if let Some(of) = unnamed_of(name) {
            let about = lstat(&path).ok()?;
            let is_ours = FileType::from_raw_mode(about.st_mode) == FileType::Directory && is_private(&about);
            return (is_ours && is_idle(&directory.join(of))).then_some(Orphan::Unnamed { path });
        }
        if known.contains(&path) {
            return None;
        }
        let place = Place::of(&path).ok()?;
        let is_one = matches!(Image::probe(&place), Ok(Some(_)))
            && !place.is_busy()
            && matches!(self.own(&place.text), Ok(None)); // it may be new
        is_one.then_some(Orphan::Volume { path })
    }
}

impl Orphan {
    /// The volume, file or directory that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Secret { path, .. }
            | Self::Volume { path }
            | Self::Creation { path, .. }
            | Self::Deletion { path, .. }
            | Self::Change { path, .. }
            | Self::Elsewhere { path, .. }
            | Self::Unnamed { path }
            | Self::Unseen { path, .. } => path,
        }
    }
}
