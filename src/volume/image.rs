//! What an image is, by its first bytes, and how qemu-img is told to open it.
//!
//! Only such headers count as a guest can't write itself: LUKS' own, and qcow2's with encryption. Leans on the formats'
//! published layouts. Refuses LUKS2, which QEMU doesn't open; to follow a backing file: each image has a passphrase of its
//! own; and images that keep their data in another file: their headers can name any of the host's.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::place;
use super::plan::Format;
use crate::secret::Error;

/// An encrypted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// How an image is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// LUKS in a file of a format that can be made.
    Luks(Format),
    /// LUKS2: cryptsetup's, not QEMU's.
    Luks2,
    /// The AES of old, of this driver of QEMU's. It knows no slots, and takes every passphrase for the right one.
    Aes(&'static str),
}

impl Image {
    /// The encrypted image of this path. `None`: what is there isn't one.
    pub(super) fn probe(path: &Path) -> Result<Option<Self>, Error> {
        let head = head(path)?;
        let kind = Kind::of(&head);
        if kind.is_some() && has_data_file(&head) {
            return Err(elsewhere(path));
        }
        Ok(kind.map(|kind| Self { path: path.to_owned(), kind }))
    }

    /// The one of this path, which must be.
    pub(super) fn at(path: &Path) -> Result<Self, Error> {
        Self::probe(path)?.ok_or_else(|| {
            Error::failed(format!("'{}' is no encrypted image", path.display()))
                .advise("encrypted are LUKS images, and qcow2 images with encrypt.format=luks")
        })
    }

    /// Whether there is such a file.
    pub(super) fn exists(path: &Path) -> Result<bool, Error> {
        match std::fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::system(format_args!("cannot look at '{}'", path.display()), &error)),
        }
    }

    /// The name under which qemu-img opens it with the secret of this id: all is said, and nothing of it guessed.
    pub(super) fn name(&self, id: &str) -> String {
        let how = match self.kind {
            Kind::Luks(Format::Raw) | Kind::Luks2 => format!(r#""driver":"luks","key-secret":"{id}""#),
            Kind::Luks(Format::Qcow2) => {
                format!(r#""driver":"qcow2","backing":null,"encrypt":{{"key-secret":"{id}"}}"#)
            }
            Kind::Aes(driver) => {
                format!(r#""driver":"{driver}","backing":null,"encrypt":{{"key-secret":"{id}"}}"#)
            }
        };
        name(&how, &self.path)
    }
}

/// The name of an image that isn't encrypted.
pub(super) fn plain_name(path: &Path, format: Format) -> String {
    let how = match format {
        Format::Raw => r#""driver":"raw""#,
        Format::Qcow2 => r#""driver":"qcow2","backing":null"#,
    };
    name(how, path)
}

fn name(how: &str, path: &Path) -> String {
    let file = escaped(path);
    format!(r#"json:{{{how},"file":{{"driver":"file","filename":"{file}"}}}}"#)
}

/// Whether there are the first bytes of an encrypted image.
pub(super) fn looks_encrypted(path: &Path) -> Result<bool, Error> {
    Ok(Kind::of(&head(path)?).is_some())
}

/// Refuses an image that other files have a part of.
pub(super) fn refuse_half(path: &Path) -> Result<(), Error> {
    let head = head(path)?;
    if head.starts_with(QCOW) && head.get(8..16).is_some_and(|offset| offset != [0; 8]) {
        return Err(Error::failed(format!("'{}' holds only a part of its data", path.display())).advise(
            format!("bring in what its backing file has with: qemu-img rebase -b '' '{}'", path.display()),
        ));
    }
    if has_data_file(&head) { Err(elsewhere(path)) } else { Ok(()) }
}

/// Whether a header's incompatible features, which version 3 has, say that the data is in another file.
fn has_data_file(head: &[u8]) -> bool {
    let has_features =
        head.get(4..8).is_some_and(|version| version != [0, 0, 0, 1] && version != [0, 0, 0, 2]);
    head.starts_with(QCOW) && has_features && head.get(72..80).is_some_and(|bits| bits[7] & DATA_FILE != 0)
}

fn elsewhere(path: &Path) -> Error {
    Error::failed(format!("'{}' keeps its data in another file, which its header names", path.display())).advise(
        "if you know that file: make one image of the two with qemu-img convert, and copy that with --copy-of",
    )
}

fn head(path: &Path) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    place::open_file(path, false)?
        .take(HEAD)
        .read_to_end(&mut head)
        .map_err(|error| Error::system(format_args!("cannot read '{}'", path.display()), &error))?;
    Ok(head)
}

impl Kind {
    fn of(head: &[u8]) -> Option<Self> {
        let number = |at: usize| head.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        if head.starts_with(LUKS) {
            return match head.get(6..8)? {
                [0, 1] => Some(Self::Luks(Format::Raw)),
                [0, 2] => Some(Self::Luks2),
                _ => None,
            };
        }
        if !head.starts_with(QCOW) {
            return None;
        }
        match (number(4)?, number(32)?, number(36)?) {
            (1, _, 1) => Some(Self::Aes("qcow")),
            (2.., 1, _) => Some(Self::Aes("qcow2")),
            (2.., 2, _) => Some(Self::Luks(Format::Qcow2)),
            _ => None,
        }
    }
}

/// A path in a string of JSON. A place's path is UTF-8, and has no control characters.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', r"\\").replace('"', r#"\""#)
}

const LUKS: &[u8] = b"LUKS\xba\xbe";

const QCOW: &[u8] = b"QFI\xfb";

/// The incompatible feature of qcow2 by which the data is elsewhere.
const DATA_FILE: u8 = 1 << 2;

/// As much of an image as tells.
const HEAD: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow(version: u8, at_32: u8, at_36: u8) -> Vec<u8> {
        let mut head = vec![0; 80];
        head[..4].copy_from_slice(QCOW);
        (head[7], head[35], head[39]) = (version, at_32, at_36);
        head
    }

    #[test]
    fn an_image_is_known_by_its_head() {
        assert_eq!(Kind::of(b"LUKS\xba\xbe\0\x01aes"), Some(Kind::Luks(Format::Raw)));
        assert_eq!(Kind::of(b"LUKS\xba\xbe\0\x02aes"), Some(Kind::Luks2));
        assert_eq!(Kind::of(&qcow(3, 2, 0)), Some(Kind::Luks(Format::Qcow2)));
        assert_eq!(Kind::of(&qcow(2, 1, 0)), Some(Kind::Aes("qcow2")));
        assert_eq!(Kind::of(&qcow(1, 0, 1)), Some(Kind::Aes("qcow")));
        for plain in [qcow(3, 0, 0), qcow(1, 0, 0), qcow(3, 2, 0)[..30].to_vec(), b"LUKS".to_vec(), vec![]] {
            assert_eq!(Kind::of(&plain), None, "{plain:?}");
        }
    }

    #[test]
    fn an_image_that_names_a_file_for_its_data_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        for (version, encryption, bits, refused) in
            [(3, 2, 4, true), (3, 0, 5, true), (3, 2, 3, false), (2, 2, 4, false), (4, 1, 4, true)]
        {
            let mut head = qcow(version, encryption, 0);
            head[79] = bits;
            std::fs::write(&path, head).unwrap();
            assert_eq!(refuse_half(&path).is_err(), refused, "{version} {bits}");
            assert_eq!(Image::probe(&path).is_err(), refused && encryption != 0, "{version} {bits}");
        }
    }

    #[test]
    fn no_name_ends_the_string_that_it_stands_in() {
        let image = Image { path: r#"/srv/a",b\c"#.into(), kind: Kind::Luks(Format::Raw) };
        let file = r#""file":{"driver":"file","filename":"/srv/a\",b\\c"}"#;
        assert_eq!(image.name("s"), format!(r#"json:{{"driver":"luks","key-secret":"s",{file}}}"#));
    }
}
