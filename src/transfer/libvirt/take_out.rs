//! How a value file goes: out of sight first, then overwritten, then removed. Each step is on the disk before the next.
//!
//! Leans on `directory`. Refuses a file that has another name besides: its bytes are also somebody else's. What has left
//! libvirt's sight is a value still, until the first of its bytes is overwritten: [`Directory::value`] reads it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{self, OFlags};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::directory::interruptible;
use super::{Directory, Unfit};
use crate::memory::SecretBytes;

impl Directory {
    /// The first half of removing a value file: it gets a name under which libvirt doesn't take it for a value, be its
    /// bytes half overwritten when a crash comes.
    pub(in crate::transfer) fn take_out(&self, name: &str) -> Result<String, Unfit> {
        sole(&self.open_file(name, OFlags::RDWR)?)?;
        if name.ends_with(TAKEN_OUT) {
            return Ok(name.to_owned());
        }
        let out = format!("{name}{TAKEN_OUT}");
        if self.has(&out) {
            return Err(Unfit::Stays(format!("there is '{out}' already, of an earlier import")));
        }
        interruptible()?;
        fs::renameat(&self.descriptor, name, &self.descriptor, &out).map_err(io::Error::from)?;
        Ok(out)
    }

    /// The second half, when the new name is durable: overwrites the bytes, waits until that is on the disk, and removes the
    /// file.
    pub(in crate::transfer) fn destroy(&self, name: &str) -> Result<(), Unfit> {
        let file = self.open_file(name, OFlags::RDWR)?;
        let len = sole(&file)?;
        let mut at = 0;
        while at < len {
            interruptible()?;
            let piece = usize::try_from(len - at).map_or(ZEROS.len(), |rest| rest.min(ZEROS.len()));
            file.write_all_at(&ZEROS[..piece], at)?;
            at += piece as u64;
        }
        file.sync_all()?;
        Ok(self.remove(name)?)
    }
}

/// The length of a regular file that has no other name.
fn sole(file: &File) -> Result<u64, Unfit> {
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Unfit::NoFile);
    }
    match about.nlink() {
        0 | 1 => Ok(about.len()),
        _ => Err(Unfit::Stays("the same file has another name elsewhere".into())),
    }
}

/// Whether [`Directory::destroy`] has begun with it. The text of a value has no zero bytes; the disk may have taken any
/// of its pieces first.
pub(super) fn is_overwritten(file: &File) -> Result<bool, Unfit> {
    let mut piece = SecretBytes::zeroed(PIECE)?;
    let mut at = 0;
    loop {
        let read = match file.read_at(piece.expose_secret_mut(), at) {
            Ok(0) => return Ok(false),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unfit::Io(error)),
        };
        if piece.expose_secret().get(..read).unwrap_or_default().contains(&0) {
            return Ok(true);
        }
        at += read as u64;
    }
}

/// How an original is called whose value was proved to be in a keystore.
pub(super) const TAKEN_OUT: &str = ".imported";

/// Read at once, in bytes.
const PIECE: usize = 16 << 10;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::libvirt::Form;

    fn place(contents: &[u8]) -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("value"), contents).unwrap();
        let directory = Directory::open(place.path()).unwrap();
        (place, directory)
    }

    #[test]
    fn what_is_destroyed_was_overwritten_first() {
        let secret = vec![b'x'; 100_000];
        let (place, directory) = place(&secret);
        let held = File::open(place.path().join("value")).unwrap();
        let out = directory.take_out("value").unwrap();
        directory.destroy(&out).unwrap();
        let mut found = vec![1; secret.len()];
        held.read_exact_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|byte| *byte == 0));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_with_a_second_name_is_left_alone() {
        let (place, directory) = place(b"x");
        let at = |name: &str| place.path().join(name);
        std::fs::hard_link(at("value"), at("backup")).unwrap();
        assert!(directory.take_out("value").unwrap_err().to_string().contains("another name"));
        assert!(directory.destroy("value").unwrap_err().to_string().contains("another name"));
        assert_eq!(std::fs::read(at("value")).unwrap(), b"x");
        // And one that got it when it was taken out already.
        std::fs::remove_file(at("backup")).unwrap();
        let out = directory.take_out("value").unwrap();
        std::fs::hard_link(at(&out), at("backup")).unwrap();
        assert!(directory.destroy(&out).unwrap_err().to_string().contains("another name"));
        assert_eq!(std::fs::read(at("backup")).unwrap(), b"x");
    }

    #[test]
    fn nothing_that_was_taken_out_earlier_is_written_over() {
        let (place, directory) = place(b"new");
        std::fs::write(place.path().join("value.imported"), b"old").unwrap();
        assert!(directory.take_out("value").unwrap_err().to_string().contains("already"));
        assert_eq!(std::fs::read(place.path().join("value.imported")).unwrap(), b"old");
    }

    #[test]
    fn a_value_that_was_taken_out_is_one_until_its_first_zero() {
        let (place, directory) = place(b"czNjcmV0");
        let out = directory.take_out("value").unwrap();
        assert_eq!(directory.take_out(&out).unwrap(), out);
        assert!(directory.value(&out, Form::Plain).unwrap().value.is_some());
        for spent in [&b"czNj\0\0\0\0"[..], b"\0\0\0\0cmV0"] {
            std::fs::write(place.path().join(&out), spent).unwrap();
            assert!(matches!(directory.value(&out, Form::Plain), Err(Unfit::Overwritten)));
        }
    }
}
