//! Starting a user's own daemon when nobody listens yet.
//!
//! libvirt's protocol for it: under a lock beside the socket, so that of many clients one starts it and the others find it
//! started; `PROGRAM --timeout=120`, which ends by itself; then the socket is tried until it answers. Leans on the file
//! system and on std's processes. Refuses to start anything for the system: there that is the administrator's.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use std::{env, thread};

use rustix::fs::{FlockOperation, fcntl_lock};

use super::local;
use crate::secret::Error;

/// A daemon that a user may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Daemon {
    /// The secret driver's own.
    Secret,
    /// libvirt's old one, with all drivers.
    Libvirt,
}

impl Daemon {
    fn program(self) -> &'static str {
        match self {
            Self::Secret => "virtsecretd",
            Self::Libvirt => "libvirtd",
        }
    }

    /// The variable that names the directory of the program.
    fn variable(self) -> &'static str {
        match self {
            Self::Secret => "VIRTD_PATH",
            Self::Libvirt => "LIBVIRTD_PATH",
        }
    }

    /// Connects, after starting the daemon if it still isn't there.
    pub(super) fn start(self, path: &Path) -> Result<UnixStream, Error> {
        let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let _lock = Lock::acquire(path, self)?;
        if let Some(stream) = attempt(path)? {
            return Ok(stream);
        }
        let program = self.find()?;
        let mut child = spawn(&program)?;
        let mut ended = None;
        let mut connected = None;
        for _ in 0..ATTEMPTS {
            connected = attempt(path)?;
            ended = ended.or_else(|| child.try_wait().ok().flatten());
            // One that ends well may have left a child of its own to listen.
            if connected.is_some() || ended.is_some_and(|status| !status.success()) {
                break;
            }
            thread::sleep(PAUSE);
        }
        // Somebody has to bury it, if it ends before we do.
        thread::spawn(move || child.wait());
        let shown = program.display();
        connected.ok_or_else(|| {
            let how = ended.map_or("doesn't listen".to_owned(), |status| format!("ended at once ({status})"));
            local::failed(path, &io::Error::from_raw_os_error(rustix::io::Errno::CONNREFUSED.raw_os_error()))
                .advise(format!("'{shown}' was started, but {how}: run it by hand to see why"))
        })
    }

    /// The program: where the environment says, else beside this one, else where programs lie.
    fn find(self) -> Result<PathBuf, Error> {
        let program = self.program();
        if let Some(directory) = env::var_os(self.variable()).filter(|it| !it.is_empty()) {
            let named = Path::new(&directory).join(program);
            return if named.is_file() { Ok(named) } else { Err(self.missing(&named.display().to_string())) };
        }
        let beside = env::current_exe().ok().and_then(|this| this.parent().map(Path::to_owned));
        let ours = if self == Self::Secret { "strongroomd" } else { program };
        let beside = beside.into_iter().flat_map(|it| [it.join(program), it.join(ours)]);
        let path = env::var_os("PATH").unwrap_or_default();
        let listed = env::split_paths(&path).filter(|it| it.is_absolute());
        let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
        let mut all = beside.chain(listed.chain(usual).map(|directory| directory.join(program)));
        all.find(|file| file.is_file()).ok_or_else(|| self.missing(program))
    }

    fn missing(self, what: &str) -> Error {
        Error::failed(format!("no daemon runs for this user, and there is no '{what}' to start")).advise(format!(
            "install it, or say with {} which directory it is in; without a daemon, a keystore in a directory is \
             secret:///embed?root=DIR",
            self.variable()
        ))
    }
}

/// `None`: nobody listens there.
fn attempt(path: &Path) -> Result<Option<UnixStream>, Error> {
    match local::stream(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if local::is_nobody_there(&error) => Ok(None),
        Err(error) => Err(local::failed(path, &error)),
    }
}

/// Starts it so that it outlives us and hears nothing of our terminal: in a process group of its own, which is never in
/// the foreground, without our standard streams.
fn spawn(program: &Path) -> Result<Child, Error> {
    Command::new(program)
        .arg("--timeout=120")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::system(format!("cannot start '{}'", program.display()), &error))
}

/// The lock that all clients of this user take before they start a daemon. Its file is gone when nobody needs it.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn acquire(socket: &Path, daemon: Daemon) -> Result<Self, Error> {
        let directory = socket.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
            Error::system(format!("cannot make the directory '{}'", directory.display()), &error)
                .advise("XDG_RUNTIME_DIR must name a directory of your own")
        })?;
        let path = directory.join(format!("{}.lock", daemon.program()));
        loop {
            let file = Self::open(&path).map_err(|error| {
                Error::system(format!("cannot take the lock '{}'", path.display()), &error)
            })?;
            if let Some(file) = file {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// `None`: whoever had it has removed it, and another file may be there now.
    fn open(path: &Path) -> io::Result<Option<File>> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        rustix::io::retry_on_intr(|| fcntl_lock(&file, FlockOperation::LockExclusive))?;
        let (ours, there) = (file.metadata()?, std::fs::metadata(path));
        let is_there = there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()));
        Ok(is_there.then_some(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.path);
    }
}

/// The lock's file keeps out other processes, this the threads of ours.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How often, and how far apart, the socket is tried: five seconds, as libvirt has it.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);
