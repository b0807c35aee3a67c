//! What has lost its other half: secrets whose volumes are gone, volumes whose secrets are, and what was cut short.
//!
//! Looks at the usages of all secrets, and into the directories that they name. Leans on `image` to tell encrypted images from
//! other files. Refuses to change anything, and to call a volume gone that it may not look at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ::uuid::Uuid;

use super::image::Image;
use super::place::{self, unnamed_of};
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
    /// A directory that can't be looked into.
    Unseen {
        /// The directory.
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
                let path = definition.as_ref().and_then(secrets::noted).map(PathBuf::from);
                orphans.extend(path.map(|path| Orphan::Change { uuid, path }));
            }
            let path = PathBuf::from(&*usage.id);
            if usage.kind != UsageType::Volume || !path.is_absolute() {
                continue;
            }
            if definition.as_ref().is_some_and(secrets::is_unfinished) {
                orphans.push(Orphan::Creation { uuid, path: path.clone() });
            } else if matches!(Image::exists(&path), Ok(false)) {
                orphans.push(Orphan::Secret { uuid, path: path.clone() });
            }
            places.extend(path.parent().filter(|parent| parent.is_dir()).map(Path::to_owned));
            known.insert(path);
        }
        for directory in &places {
            match place::entries(directory) {
                Ok(names) => {
                    for name in names {
                        let path = directory.join(&name);
                        if unnamed_of(&name).is_some() {
                            orphans.push(Orphan::Unnamed { path });
                        } else if !known.contains(&path)
                            && path.is_file()
                            && matches!(Image::probe(&path), Ok(Some(_)))
                        {
                            orphans.push(Orphan::Volume { path });
                        }
                    }
                }
                Err(error) => {
                    orphans.push(Orphan::Unseen { path: directory.clone(), why: error.to_string() });
                }
            }
        }
        orphans.sort_by(|one, other| one.path().cmp(other.path()));
        Ok(orphans)
    }
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
