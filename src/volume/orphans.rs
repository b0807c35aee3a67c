//! What has lost its other half: secrets whose volumes are gone, volumes whose secrets are, and what was cut short.
//!
//! Looks at the usages of all secrets, and into the directories that they name. Leans on `image` to tell encrypted images from
//! other files. Refuses to change anything, to call a volume gone that it may not look at,
//! and to call work cut short that goes on.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use ::uuid::Uuid;

use super::image::Image;
use super::place::{self, Place, unnamed_of};
use super::{Volumes, secrets};
use crate::secret::{Error, Handle, UsageType};

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
    /// The change of this volume's passphrase was cut short.
    Change {
        /// The secret that holds both passphrases.
        uuid: Uuid,
        /// The volume.
        path: PathBuf,
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
            if usage.kind == UsageType::None {
                let path =
                    definition.as_ref().and_then(secrets::noted).map(|noted| PathBuf::from(noted.path));
                let is_noted = || self.definition(uuid).is_ok_and(|it| secrets::noted(&it).is_some());
                let path = path.filter(|path| is_idle(path) && is_noted());
                orphans.extend(path.map(|path| Orphan::Change { uuid, path }));
            }
            let path = PathBuf::from(&*usage.id);
            if usage.kind != UsageType::Volume || !path.is_absolute() {
                continue;
            }
            let parent = path.parent().unwrap_or(&path);
            if definition.as_ref().is_some_and(secrets::is_unfinished) {
                // Whose work it was may have ended between our looks.
                let is_so = || self.definition(uuid).is_ok_and(|it| secrets::is_unfinished(&it));
                if is_idle(&path) && is_so() {
                    orphans.push(Orphan::Creation { uuid, path: path.clone() });
                }
            } else if parent.try_exists().is_ok_and(|is_there| !is_there) {
                let why = "its directory isn't there: is it mounted?".to_owned();
                orphans.push(Orphan::Unseen { path: path.clone(), why });
            } else if matches!(Image::exists(&path), Ok(false))
                && is_idle(&path)
                && self.keystore.lookup_by_uuid(uuid).is_ok()
            {
                orphans.push(Orphan::Secret { uuid, path: path.clone() });
            }
            places.extend(path.parent().filter(|parent| parent.is_dir()).map(Path::to_owned));
            known.insert(path);
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

    /// What a file is, if it is one half without the other.
    fn half(&self, directory: &Path, name: &OsStr, known: &BTreeSet<PathBuf>) -> Option<Orphan> {
        let path = directory.join(name);
        if let Some(of) = unnamed_of(name) {
            let is_left = is_idle(&directory.join(of)) && path.exists();
            return is_left.then_some(Orphan::Unnamed { path });
        }
        let is_one = !known.contains(&path)
            && path.symlink_metadata().is_ok_and(|about| about.is_file())
            && matches!(Image::probe(&path), Ok(Some(_)))
            && is_idle(&path)
            && path.to_str().is_none_or(|text| matches!(self.own(text), Ok(None))); // it may be new
        is_one.then_some(Orphan::Volume { path })
    }
}

/// Whether nobody is at work on a volume: what is half done now is cut short.
fn is_idle(path: &Path) -> bool {
    Place::of(path).map_or(true, |place| !place.is_busy())
}

impl Orphan {
    /// The volume, file or directory that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Secret { path, .. }
            | Self::Volume { path }
            | Self::Creation { path, .. }
            | Self::Change { path, .. }
            | Self::Unnamed { path }
            | Self::Unseen { path, .. } => path,
        }
    }
}
