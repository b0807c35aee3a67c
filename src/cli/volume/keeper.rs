//! The open descriptor that a passphrase is written to, for whoever keeps it.
//!
//! What is written isn't kept yet: a pipe must be read, and a file be on its disk, before the volume depends on it. Leans on
//! /proc, by which a descriptor is opened anew: it needn't be ours to close, and its owner's flags stay. Refuses a terminal,
//! what was opened for reading, what holds something already, and to wait for ever.

use std::fmt::Display;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::{Errno, ioctl_fionread, retry_on_intr, write};
use rustix::net::{SendFlags, send};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use secrecy::ExposeSecret;

use crate::cli::failure::Failure;
use crate::cli::output;
use crate::memory::SecretBytes;
use crate::secret::Error;

/// Who keeps a passphrase.
pub(super) struct Keeper {
    end: End,
    about: Metadata,
    patience: Duration,
}

/// What the descriptor leads to.
enum End {
    /// It's kept when it is read.
    Pipe(File),
    /// It's kept when it is on the disk.
    File(File),
    /// Nothing tells when it is read.
    Socket(OwnedFd),
    /// A device: what becomes of it is the device's matter.
    Other(File),
}

impl Keeper {
    /// The one at this descriptor. It has nothing yet.
    pub(super) fn at(number: RawFd) -> Result<Self, Failure> {
        let link = PathBuf::from(format!("/proc/self/fd/{number}"));
        let its = format!("file descriptor '{number}'");
        let failed = |error: &io::Error| Failure::system(format_args!("Failed to write to {its}"), error);
        let how = fs::symlink_metadata(&link).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Failure::told(format!("{its} isn't open")).advise(format!(
                "open it for the command: {number}>&1 >FILE | PROGRAM, or {number}>NEW-FILE"
            )),
            _ => failed(&error),
        })?;
        // The link's own mode tells how the descriptor was opened.
        if how.permissions().mode() & 0o200 == 0 {
            return Err(Failure::told(format!("{its} isn't open for writing"))
                .advise(format!("open it with {number}> instead of {number}<")));
        }
        let about = fs::metadata(&link).map_err(|error| failed(&error))?;
        let kind = about.file_type();
        let end = if kind.is_socket() {
            End::Socket(inherited(number).map_err(|errno| failed(&errno.into()))?)
        } else {
            let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
            let opened = File::options().append(true).custom_flags(flags.bits().cast_signed()).open(&link);
            let file = opened.map_err(|error| match Errno::from_io_error(&error) {
                Some(Errno::NXIO) => Failure::told(format!("nobody reads what is written to {its}"))
                    .advise("start the program that keeps the passphrase first, or connect it by a pipe"),
                _ => failed(&error),
            })?;
            if io::IsTerminal::is_terminal(&file) {
                return Err(Failure::told("a passphrase isn't shown on a terminal")
                    .advise("redirect the descriptor to a pipe or a program"));
            }
            match kind {
                kind if kind.is_fifo() => End::Pipe(file),
                kind if kind.is_file() => {
                    let path = fs::read_link(&link).unwrap_or(link);
                    fit(&path.display(), &about)?;
                    End::File(file)
                }
                _ => End::Other(file),
            }
        };
        Ok(Self { end, about, patience: PATIENCE })
    }

    /// Refuses one that standard output goes to as well: its reader would take that for a part of the passphrase.
    pub(super) fn apart_from_results(self) -> Result<Self, Failure> {
        let id = |about: &Metadata| (about.dev(), about.ino());
        let is_one = fs::metadata("/proc/self/fd/1").is_ok_and(|results| id(&results) == id(&self.about));
        match self.end {
            End::Other(_) => Ok(self),
            _ if is_one => Err(Failure::told("what is printed would get among the passphrase")
                .advise("send standard output elsewhere: --passphrase-to-fd 3 3>&1 >FILE | PROGRAM")),
            _ => Ok(self),
        }
    }

    /// Hands the passphrase over, and comes back when it is kept as far as can be told from here.
    pub(super) fn take(&mut self, passphrase: &SecretBytes) -> Result<(), Error> {
        let until = Instant::now() + self.patience;
        self.write(passphrase.expose_secret(), until)?;
        match &self.end {
            End::Pipe(pipe) => self.is_read(pipe, until),
            End::File(file) => file.sync_all().map_err(|error| self.failed(&error)),
            End::Socket(_) | End::Other(_) => Ok(()),
        }
    }

    /// All of it. A full pipe gets none of it before there is room.
    fn write(&self, mut rest: &[u8], until: Instant) -> Result<(), Error> {
        while !rest.is_empty() {
            let written = retry_on_intr(|| match &self.end {
                End::Pipe(file) | End::File(file) | End::Other(file) => write(file, rest),
                End::Socket(socket) => send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT),
            });
            match written {
                Ok(0) => return Err(self.failed(&io::ErrorKind::WriteZero.into())),
                Ok(length) => rest = &rest[length..],
                Err(Errno::AGAIN) if Instant::now() >= until => return Err(unread()),
                Err(Errno::AGAIN) => _ = self.moment(PollFlags::OUT)?,
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ended()),
                Err(errno) => return Err(self.failed(&errno.into())),
            }
        }
        Ok(())
    }

    /// Waits until the pipe is empty. What its reader leaves in it when it ends, nobody has.
    fn is_read(&self, pipe: &File, until: Instant) -> Result<(), Error> {
        let mut is_ended = false;
        loop {
            match ioctl_fionread(pipe).map_err(|errno| self.failed(&errno.into()))? {
                0 => return Ok(()),
                _ if is_ended => return Err(ended()),
                _ if Instant::now() >= until => return Err(unread()),
                _ => is_ended = self.moment(PollFlags::empty())?,
            }
        }
    }

    /// Waits for one of these, but only a moment: nothing wakes a writer when its pipe is empty. Whether the reader is gone.
    fn moment(&self, events: PollFlags) -> Result<bool, Error> {
        let mut fds = match &self.end {
            End::Pipe(file) | End::File(file) | End::Other(file) => [PollFd::new(file, events)],
            End::Socket(socket) => [PollFd::new(socket, events)],
        };
        let polled = retry_on_intr(|| poll(&mut fds, Some(&MOMENT)));
        polled.map_err(|errno| self.failed(&errno.into()))?;
        Ok(fds[0].revents().contains(PollFlags::ERR))
    }

    fn failed(&self, error: &io::Error) -> Error {
        Error::system("cannot hand the passphrase over", error).advise(match &self.end {
            End::File(_) => "see that the file can be written, and run this again",
            _ => "see that the program that keeps it reads it, and run this again",
        })
    }
}

/// Whether a file is fit to get a passphrase, and nothing but that.
fn fit(path: &dyn Display, about: &Metadata) -> Result<(), Failure> {
    if about.len() != 0 {
        let text = format!("'{path}' holds something already: the passphrase would be appended to it");
        return Err(Failure::told(text).advise("use a new or empty file, or a pipe"));
    }
    let mode = about.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        output::warn(&format!(
            "'{path}' is open to others (mode {mode:04o}), and gets a passphrase: chmod 600 '{path}'"
        ));
    }
    Ok(())
}

/// A descriptor of our own for a socket that this process inherited: /proc opens none.
fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    pidfd_getfd(pidfd_open(getpid(), PidfdFlags::empty())?, number, PidfdGetfdFlags::empty())
}

fn ended() -> Error {
    Error::failed("cannot hand the passphrase over: the program that reads it has ended")
        .advise("see why that program ends before it has read it, and run this again")
}

fn unread() -> Error {
    Error::failed("cannot hand the passphrase over: nobody has read it")
        .advise("let the program that keeps it read while this runs, not afterwards; then run this again")
}

/// How long a reader may take.
const PATIENCE: Duration = Duration::from_secs(60);

const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_pipe_has_it_when_it_is_read() {
        let (mut reader, writer) = pipe().unwrap();
        let mut keeper = Keeper::at(writer.as_raw_fd()).unwrap();
        let (send, read) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut got = [0; 43];
            reader.read_exact(&mut got[..42]).unwrap();
            send.send(Instant::now()).unwrap();
            reader.read_exact(&mut got[42..]).unwrap();
            (got, reader)
        });
        keeper.take(&passphrase()).unwrap();
        assert!(read.try_recv().unwrap() <= Instant::now());
        assert_eq!(thread.join().unwrap().0, [b'p'; 43]);
    }

    #[test]
    fn what_a_reader_leaves_in_the_pipe_nobody_has() {
        let (mut reader, writer) = pipe().unwrap();
        let mut keeper = Keeper::at(writer.as_raw_fd()).unwrap();
        let thread = std::thread::spawn(move || reader.read_exact(&mut [0; 42]).unwrap());
        let error = keeper.take(&passphrase()).unwrap_err();
        assert!(error.to_string().ends_with("has ended") && error.advice().is_some(), "{error}");
        thread.join().unwrap();
        let error = keeper.take(&passphrase()).unwrap_err();
        assert!(error.to_string().ends_with("has ended"), "{error}");
    }

    #[test]
    fn a_reader_that_does_not_read_is_not_waited_for_for_ever() {
        let (mut reader, writer) = pipe().unwrap();
        let mut keeper = Keeper { patience: BRIEF, ..Keeper::at(writer.as_raw_fd()).unwrap() };
        let error = keeper.take(&passphrase()).unwrap_err();
        assert!(error.to_string().ends_with("nobody has read it"), "{error}");
        // A full pipe gets nothing.
        let End::Pipe(pipe) = &keeper.end else { panic!() };
        while write(pipe, &[0; 4096]).is_ok() {}
        let full = ioctl_fionread(pipe).unwrap();
        let error = keeper.take(&passphrase()).unwrap_err();
        assert!(error.to_string().ends_with("nobody has read it"), "{error}");
        drop((keeper, writer));
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len() as u64, full);
    }

    #[test]
    fn a_file_must_be_empty_and_open_for_writing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kept");
        let file = File::options().create_new(true).write(true).mode(0o600).open(&path).unwrap();
        Keeper::at(file.as_raw_fd()).unwrap().take(&passphrase()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), [b'p'; 43]);
        told(file.as_raw_fd(), "holds something already");
        told(File::open(&path).unwrap().as_raw_fd(), "isn't open for writing");
        told(-1, "isn't open");
        assert_eq!(fs::read(&path).unwrap(), [b'p'; 43]);
    }

    #[test]
    fn a_socket_has_it_when_it_is_written() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut keeper = Keeper::at(theirs.as_raw_fd()).unwrap();
        keeper.take(&passphrase()).unwrap();
        let mut got = [0; 43];
        ours.read_exact(&mut got).unwrap();
        assert_eq!(got, [b'p'; 43]);
        // It blocks as it did for whoever else writes to it.
        (&theirs).write_all(b"x").unwrap();
        assert!(!rustix::fs::fcntl_getfl(&theirs).unwrap().contains(OFlags::NONBLOCK));
        drop(ours);
        let error = keeper.take(&passphrase()).unwrap_err();
        assert!(error.to_string().ends_with("has ended"), "{error}");
    }

    fn told(number: RawFd, expected: &str) {
        let Err(Failure::Told { lines, hint }) = Keeper::at(number) else { panic!("{expected}") };
        assert!(lines[0].contains(expected) && hint.is_some(), "{lines:?} {hint:?}");
    }

    fn passphrase() -> SecretBytes {
        SecretBytes::copy_of(&[b'p'; 43]).unwrap()
    }

    const BRIEF: Duration = Duration::from_millis(20);
}
