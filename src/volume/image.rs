//! What an image is, by its first bytes, and how qemu-img is told to open it.
//!
//! Only such headers count as a guest can't write itself: LUKS' own, and qcow2's with encryption. Leans on `place` and on
//! the formats' published layouts. Refuses LUKS2, which QEMU doesn't open; to follow a backing file: each image has a
//! passphrase of its own; and images that keep their data in another file: their headers can name any of the host's.

use std::fs::File;
use std::io::{Read, Seek};

use super::place::Place;
use super::plan::Format;
use crate::secret::Error;

/// An encrypted image.
#[derive(Debug)]
pub(super) struct Image<'a> {
    pub(super) place: &'a Place,
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

impl<'a> Image<'a> {
    /// The encrypted image of this place. `None`: what is there isn't one.
    pub(super) fn probe(place: &'a Place) -> Result<Option<Self>, Error> {
        let head = head(&place.open(false)?, place)?;
        let kind = Kind::of(&head);
        if kind.is_some() && has_data_file(&head) {
            return Err(elsewhere(place));
        }
        Ok(kind.map(|kind| Self { place, kind }))
    }

    /// The one of this place, which must be.
    pub(super) fn at(place: &'a Place) -> Result<Self, Error> {
        Self::probe(place)?.ok_or_else(|| {
            Error::failed(format!("'{}' is no encrypted image", place.text))
                .advise("encrypted are LUKS images, and qcow2 images with encrypt.format=luks")
        })
    }

    /// The name under which qemu-img, in the image's directory, opens it with the secret of this id: all is said, and nothing
    /// of it guessed.
    pub(super) fn name(&self, id: &str) -> String {
        name(&self.how(id), &self.place.name_there())
    }

    /// The same for a qemu-img that is elsewhere.
    pub(super) fn whole_name(&self, id: &str) -> String {
        name(&self.how(id), &self.place.text)
    }

    fn how(&self, id: &str) -> String {
        match self.kind {
            Kind::Luks(Format::Raw) | Kind::Luks2 => format!(r#""driver":"luks","key-secret":"{id}""#),
            Kind::Luks(Format::Qcow2) => {
                format!(r#""driver":"qcow2","backing":null,"encrypt":{{"key-secret":"{id}"}}"#)
            }
            Kind::Aes(driver) => {
                format!(r#""driver":"{driver}","backing":null,"encrypt":{{"key-secret":"{id}"}}"#)
            }
        }
    }
}

/// The name of an image that isn't encrypted, and that qemu-img has open as its standard output.
pub(super) fn plain_name(format: Format) -> String {
    let how = match format {
        Format::Raw => r#""driver":"raw""#,
        Format::Qcow2 => r#""driver":"qcow2","backing":null"#,
    };
    name(how, "/dev/fd/1")
}

fn name(how: &str, file: &str) -> String {
    // A string of JSON. A place's name has no control characters.
    let file = file.replace('\\', r"\\").replace('"', r#"\""#);
    format!(r#"json:{{{how},"file":{{"driver":"file","filename":"{file}"}}}}"#)
}

/// Whether there are the first bytes of an encrypted image.
pub(super) fn looks_encrypted(file: &File, place: &Place) -> Result<bool, Error> {
    Ok(Kind::of(&head(file, place)?).is_some())
}

/// Refuses an image that other files have a part of.
pub(super) fn refuse_half(file: &File, place: &Place) -> Result<(), Error> {
    let head = head(file, place)?;
    if head.starts_with(QCOW) && head.get(8..16).is_some_and(|offset| offset != [0; 8]) {
        return Err(Error::failed(format!("'{}' holds only a part of its data", place.text)).advise(
            format!("bring in what its backing file has with: qemu-img rebase -b '' '{}'", place.text),
        ));
    }
    if has_data_file(&head) { Err(elsewhere(place)) } else { Ok(()) }
}

/// Refuses an image that isn't encrypted and begins as one of another format does. No guest gets it to begin so: QEMU doesn't
/// let it.
pub(super) fn refuse_other(file: &File, place: &Place, format: Format) -> Result<(), Error> {
    let head = head(file, place)?;
    let known = FORMATS.iter().find(|(_, magic)| head.starts_with(magic)).map(|(name, _)| *name);
    let (is, option) = match (format, known) {
        (Format::Raw, Some("qcow2")) => ("a qcow2 image, not a raw one", Some("qcow2")),
        (Format::Raw, Some(other)) => (other, None),
        (Format::Qcow2, known) if known != Some("qcow2") => ("no qcow2 image", None),
        _ => return Ok(()),
    };
    let advice = match option {
        Some(option) => format!("give --original-format {option}"),
        None => format!(
            "see what it is with: qemu-img info '{}'; make a raw or qcow2 image of it first: qemu-img convert",
            place.text
        ),
    };
    Err(Error::failed(format!("'{}' is {is}", place.text)).advise(advice))
}

/// Whether a header's incompatible features, which version 3 has, say that the data is in another file.
fn has_data_file(head: &[u8]) -> bool {
    let has_features =
        head.get(4..8).is_some_and(|version| version != [0, 0, 0, 1] && version != [0, 0, 0, 2]);
    head.starts_with(QCOW) && has_features && head.get(72..80).is_some_and(|bits| bits[7] & DATA_FILE != 0)
}

fn elsewhere(place: &Place) -> Error {
    Error::failed(format!("'{}' keeps its data in another file, which its header names", place.text)).advise(
        "if you know that file: make one image of the two with qemu-img convert, and copy that with --copy-of",
    )
}

fn head(mut file: &File, place: &Place) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    let read = file.rewind().and_then(|()| file.take(HEAD).read_to_end(&mut head));
    read.map_err(|error| Error::system(format_args!("cannot read '{}'", place.text), &error))?;
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

const LUKS: &[u8] = b"LUKS\xba\xbe";

const QCOW: &[u8] = b"QFI\xfb";

/// Formats of virtual disks, by how their files begin.
const FORMATS: [(&str, &[u8]); 5] = [
    ("qcow2", QCOW),
    ("a VMDK image", b"KDMV"),
    ("a VMDK image's description", b"# Disk DescriptorFile"),
    ("a VHDX image", b"vhdxfile"),
    ("a VHD image", b"conectix"),
];

/// The incompatible feature of qcow2 by which the data is elsewhere.
const DATA_FILE: u8 = 1 << 2;

/// As much of an image as tells.
const HEAD: u64 = 80;

#[cfg(test)]
mod tests {
    use std::path::Path;

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
            let place = Place::of(&path).unwrap();
            let half = refuse_half(&place.open(false).unwrap(), &place);
            assert_eq!(half.is_err(), refused, "{version} {bits}");
            assert_eq!(Image::probe(&place).is_err(), refused && encryption != 0, "{version} {bits}");
        }
    }

    #[test]
    fn no_name_ends_the_string_that_it_stands_in() {
        let place = Place::of(Path::new(r#"/srv/a",b\c"#)).unwrap();
        let image = Image { place: &place, kind: Kind::Luks(Format::Raw) };
        let file = r#""file":{"driver":"file","filename":"./a\",b\\c"}"#;
        assert_eq!(image.name("s"), format!(r#"json:{{"driver":"luks","key-secret":"s",{file}}}"#));
    }
}
