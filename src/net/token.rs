//! The host's system token: how libvirt's daemons know one another.
//!
//! A file of 32 hex digits that all daemons of one user share. Whoever shows the token is one of them, and gets private
//! values. Whoever comes first makes it, under libvirt's own lock, so that it doesn't matter who that is. Leans on
//! `memory`: the digits are read and made in secret memory. Refuses a file that others can read or that belongs to
//! somebody else, and never writes to one that has something in it: the other daemons have read it already.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{FlockOperation, fcntl_lock};
use secrecy::{ExposeSecret, ExposeSecretMut};
use subtle::ConstantTimeEq;

use crate::memory::{SecretBytes, scrubbed};
use crate::secret::Error;

/// The token, in secret memory.
#[derive(Debug)]
pub(crate) struct SystemToken(SecretBytes);

impl SystemToken {
    /// For daemons: the token in the file, made with its directory if there is none.
    pub(crate) fn read_or_make(path: &Path) -> Result<Self, Error> {
        let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(directory) = path.parent() {
            make_directory(directory).map_err(|error| {
                Error::system(format!("cannot make the directory '{}'", directory.display()), &error)
                    .advise("make it, with mode 0700, or name another file with system_token_file")
            })?;
        }
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(NONBLOCK)
            .open(path)
            .map_err(|error| cannot_open(path, &error))?;
        inspect(&file, path)?;
        lock(&file, FlockOperation::LockExclusive, path)?;
        match length(&file, path)? {
            0 => make(file, path),
            length => read_locked(&file, length, path),
        }
    }

    /// For clients: the token in the file. `Ok(None)` if no daemon has made one.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, Error> {
        let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match OpenOptions::new().read(true).custom_flags(NONBLOCK).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(cannot_open(path, &error)),
        };
        inspect(&file, path)?;
        lock(&file, FlockOperation::LockShared, path)?;
        match length(&file, path)? {
            0 => Ok(None), // its maker has yet to get the lock
            length => read_locked(&file, length, path).map(Some),
        }
    }

    /// Whether this is the token. Takes the same time wherever they differ.
    pub(crate) fn matches(&self, offered: &[u8]) -> bool {
        self.0.expose_secret().ct_eq(offered).into()
    }
}

impl ExposeSecret<[u8]> for SystemToken {
    fn expose_secret(&self) -> &[u8] {
        self.0.expose_secret()
    }
}

/// The lock on the file is the process's: it keeps out no thread of ours, and ends when any of them closes the file.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The directory of its own is for its user alone. Those above it hold other things, sockets among them: if they have
/// to be made, others may pass through the system's.
fn make_directory(directory: &Path) -> io::Result<()> {
    if let Some(above) = directory.parent() {
        let mode = if rustix::process::geteuid().is_root() { 0o755 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Refuses what can't be the token's file.
fn inspect(file: &File, path: &Path) -> Result<(), Error> {
    let shown = path.display();
    let about = file.metadata().map_err(|error| cannot_read(path, &error))?;
    if !about.is_file() {
        return Err(Error::failed(format!("the system token '{shown}' is not a regular file"))
            .advise(format!("remove it ({REMOVE}), or name another with system_token_file")));
    }
    let (owner, us) = (about.uid(), rustix::process::geteuid().as_raw());
    if owner != us && owner != 0 {
        let detail = format!("the system token '{shown}' belongs to another user (uid {owner})");
        return Err(Error::failed(detail)
            .advise(format!("whoever owns it knows it: remove it ({REMOVE}), and a new one is made")));
    }
    if about.mode() & 0o077 != 0 {
        let mode = about.mode() & 0o7777;
        let detail = format!("the system token '{shown}' can be read or changed by others (mode {mode:04o})");
        return Err(Error::failed(detail).advise(format!(
            "whoever knows it gets private values: remove it ({REMOVE}), and a new one is made"
        )));
    }
    Ok(())
}

/// libvirt's lock is on the first byte; this one is on all bytes that there are and will be, so on the first as well.
fn lock(file: &File, operation: FlockOperation, path: &Path) -> Result<(), Error> {
    rustix::io::retry_on_intr(|| fcntl_lock(file, operation)).map_err(|error| {
        Error::system(format!("cannot lock the system token '{}'", path.display()), &error.into())
    })
}

fn length(file: &File, path: &Path) -> Result<u64, Error> {
    Ok(file.metadata().map_err(|error| cannot_read(path, &error))?.len())
}

/// Writes a fresh token into the empty file. Half a token would stop every daemon: what fails is taken back.
fn make(mut file: File, path: &Path) -> Result<SystemToken, Error> {
    let failed = |error: &io::Error| {
        let plain = Error::system(format!("cannot write the system token '{}'", path.display()), error);
        plain.advise("make room there, or name another file with system_token_file")
    };
    let token = random()?;
    if let Err(error) = file.write_all(token.expose_secret()) {
        _ = file.set_len(0);
        return Err(failed(&error));
    }
    Ok(SystemToken(token))
}

fn random() -> Result<SecretBytes, Error> {
    let mut bytes = SecretBytes::zeroed(LEN / 2)?;
    SystemRandom::new()
        .fill(bytes.expose_secret_mut())
        .map_err(|_| Error::failed("the system gives no random bytes for the system token"))?;
    let mut digits = SecretBytes::zeroed(LEN)?;
    scrubbed(|| {
        for (byte, pair) in bytes.expose_secret().iter().zip(digits.expose_secret_mut().chunks_exact_mut(2)) {
            pair[0] = digit(byte >> 4);
            pair[1] = digit(byte & 15);
        }
    });
    Ok(digits)
}

/// By arithmetic: a table would tell by the time it takes.
fn digit(nibble: u8) -> u8 {
    // All ones for 10 to 15, where the letters begin.
    let letter = (9_u8.wrapping_sub(nibble) >> 7).wrapping_neg();
    b'0' + nibble + (letter & (b'a' - b'0' - 10))
}

fn read_locked(file: &File, length: u64, path: &Path) -> Result<SystemToken, Error> {
    let corrupt = |how: &str| {
        Error::failed(format!("System token in {} was corrupt: {how}", path.display()))
            .advise(format!("remove it ({REMOVE}), and a new one is made"))
    };
    if length != LEN as u64 {
        return Err(corrupt(&format!("{length} bytes, where a token has {LEN}")));
    }
    let mut token = SecretBytes::zeroed(LEN)?;
    file.read_exact_at(token.expose_secret_mut(), 0).map_err(|error| cannot_read(path, &error))?;
    if !token.expose_secret().iter().all(u8::is_ascii_hexdigit) {
        return Err(corrupt("a token is hex digits"));
    }
    Ok(SystemToken(token))
}

fn cannot_open(path: &Path, error: &io::Error) -> Error {
    let plain = Error::system(format!("cannot open the system token '{}'", path.display()), error);
    match error.kind() {
        io::ErrorKind::PermissionDenied => plain
            .advise("run as the user whose daemons share it, or name another file with system_token_file"),
        _ => plain,
    }
}

fn cannot_read(path: &Path, error: &io::Error) -> Error {
    Error::system(format!("cannot read the system token '{}'", path.display()), error)
}

/// Digits in a token.
const LEN: usize = 32;

/// What comes before a new token.
const REMOVE: &str = "with all libvirt daemons stopped";

/// A FIFO in the token's place must not make us wait.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn put(path: &Path, content: &[u8], mode: u32) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_token_is_made_once_in_libvirts_shape() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libvirt/common/system.token");
        assert!(SystemToken::read(&path).unwrap().is_none());
        let made = SystemToken::read_or_make(&path).unwrap();
        let on_disk = std::fs::read(&path).unwrap();
        assert_eq!(on_disk.len(), 32);
        assert!(on_disk.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{on_disk:?}");
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        assert!(made.matches(&on_disk));
        assert!(SystemToken::read_or_make(&path).unwrap().matches(&on_disk));
        assert!(SystemToken::read(&path).unwrap().unwrap().matches(&on_disk));
        assert_eq!(std::fs::read(&path).unwrap(), on_disk);

        let other = directory.path().join("other/system.token");
        assert!(!SystemToken::read_or_make(&other).unwrap().matches(&on_disk));
    }

    #[test]
    fn a_token_matches_itself_alone_and_isnt_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("system.token");
        let digits = b"0123456789abcdef0123456789abcdef";
        put(&path, digits, 0o600);
        let token = SystemToken::read(&path).unwrap().unwrap();
        assert!(token.matches(digits));
        assert!(token.matches(token.expose_secret()));
        assert!(!token.matches(b""));
        assert!(!token.matches(&digits[..31]));
        assert!(!token.matches(&[&digits[..], b"\0"].concat()));
        assert!(!token.matches(b"0123456789abcdef0123456789abcdee"));
        assert!(!token.matches(&digits.to_ascii_uppercase()));
        assert!(!format!("{token:?}").contains("0123"));
    }

    #[test]
    fn every_nibble_has_its_digit() {
        let digits: Vec<u8> = (0..16).map(digit).collect();
        assert_eq!(digits, b"0123456789abcdef");
    }

    #[test]
    fn what_is_no_token_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("system.token");
        let secret = "0123456789abcdef0123456789abcde";
        for content in
            [secret.to_owned(), format!("{secret}f\n"), format!("{secret}\0"), format!("{secret}g")]
        {
            put(&path, content.as_bytes(), 0o600);
            let shown = format!("System token in {} was corrupt", path.display());
            for error in
                [SystemToken::read_or_make(&path).unwrap_err(), SystemToken::read(&path).unwrap_err()]
            {
                assert!(error.to_string().contains(&shown), "{error}");
                assert!(error.advice().unwrap().contains("stopped"), "{error:?}");
                assert!(!format!("{error:?}").contains(secret));
            }
            assert_eq!(std::fs::read(&path).unwrap(), content.as_bytes());
        }
    }

    #[test]
    fn a_file_that_others_can_read_or_own_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("system.token");
        for mode in [0o640, 0o604, 0o620] {
            put(&path, b"0123456789abcdef0123456789abcdef", mode);
            let error = SystemToken::read_or_make(&path).unwrap_err();
            assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
            assert!(SystemToken::read(&path).is_err());
        }
        let folder = directory.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        let error = SystemToken::read(&folder).unwrap_err();
        assert!(error.to_string().contains("is not a regular file"), "{error}");
        if rustix::process::geteuid().is_root() {
            put(&path, b"0123456789abcdef0123456789abcdef", 0o600);
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            let error = SystemToken::read_or_make(&path).unwrap_err();
            assert!(error.to_string().contains("another user (uid 65534)"), "{error}");
        }
    }

    #[test]
    fn many_who_come_at_once_get_the_same_token() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let path = directory.path().join(format!("{round}/system.token"));
            let together = std::sync::Barrier::new(4);
            let tokens: Vec<SystemToken> = std::thread::scope(|scope| {
                let come = || {
                    together.wait();
                    SystemToken::read_or_make(&path).unwrap()
                };
                let all: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert!(tokens.iter().all(|token| token.matches(tokens[0].expose_secret())));
        }
    }

    /// Another process holds libvirt's lock, on the first byte alone, and writes its token before it lets go.
    #[test]
    fn a_daemon_that_is_making_the_token_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("system.token");
        put(&path, b"", 0o600);
        let mut other = Command::new("python3")
            .args(["-c", HOLD])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let tried = fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive);
        assert!(tried.is_err(), "its lock and ours don't meet");
        std::thread::scope(|scope| {
            let ours = scope.spawn(|| SystemToken::read_or_make(&path).unwrap());
            let waits = |locks: String| {
                let pid = std::process::id().to_string();
                locks.lines().any(|line| line.contains("->") && line.split(' ').any(|word| word == pid))
            };
            while !waits(std::fs::read_to_string("/proc/locks").unwrap()) {
                assert!(!ours.is_finished(), "it didn't wait");
                std::thread::yield_now();
            }
            drop(other.stdin.take()); // it goes on
            assert!(ours.join().unwrap().matches(b"00112233445566778899aabbccddeeff"));
        });
        assert!(other.wait().unwrap().success());
    }

    const HOLD: &str = "
import fcntl, sys
file = open(sys.argv[1], 'r+')
fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)
print('.', end='', flush=True)
sys.stdin.read()
file.write('00112233445566778899aabbccddeeff')
file.flush()
";
}
