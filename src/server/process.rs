//! The process around the daemon: why it didn't start, the background, the run directory, the pid file, systemd's ear.
//!
//! Leans on rustix, and on `store` for the pid file. Going into the background is libvirt's `-d`: the one who called
//! waits until the sockets are there. Refuses to fork (the program starts itself again, so that there is no
//! half-copied process) and to break another daemon's lock on the pid file.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::process::{Resource, Rlimit};
use rustix::time::ClockId;

use super::args::DETACHED;
use crate::store::{LockError, PidFile};

/// Why the daemon doesn't start: a line, the next step, and the exit status that stock has for it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StartError {
    exit: Exit,
    line: String,
    advice: Option<String>,
}

/// libvirt's exit statuses, as far as a daemon for secrets can need them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Wrong option, or wrong configuration.
    Usage = 1,
    /// The run directory can't be made.
    RunDirectory = 2,
    /// The keystore can't be served. Stock ends with 0 here, and systemd takes that for a success.
    Keystore = 3,
    /// Signals can't be caught.
    Signals = 4,
    /// The sockets can't be had.
    Network = 6,
}

impl Exit {
    /// The pid file is taken: the same status as a wrong option.
    pub(super) const PID_FILE: Self = Self::Usage;

    /// The number.
    pub(super) fn status(self) -> u8 {
        self as u8
    }
}

impl StartError {
    /// What happened, to what.
    pub(super) fn new(exit: Exit, line: impl Into<String>) -> Self {
        Self { exit, line: line.into(), advice: None }
    }

    /// The same, with the next step for whoever meets it.
    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into()).filter(|advice| !advice.is_empty());
        self
    }

    /// What happened, in one line.
    pub(super) fn line(&self) -> &str {
        &self.line
    }

    /// The next step.
    pub(super) fn advice(&self) -> Option<&str> {
        self.advice.as_deref()
    }

    /// The exit status.
    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line())?;
        self.advice().iter().try_for_each(|advice| write!(f, "\nhint: {advice}"))
    }
}

impl std::error::Error for StartError {}

/// Starts this program once more, in the background, and waits until it is ready. The exit status is its own: 0 when
/// its sockets are there. What it has to say until then, it says on our standard error.
pub(super) fn detach(words: Vec<OsString>) -> ExitCode {
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_else(|| "strongroomd".into());
    // By this name the kernel finds the very file that runs, even if a newer one has taken its place.
    let mut again = Command::new("/proc/self/exe");
    again.arg0(name).arg(format!("--{DETACHED}")).args(words);
    ExitCode::from(start(again).unwrap_or_else(|error| {
        tell(format_args!("cannot start again in the background: {error}"));
        Exit::Usage.status()
    }))
}

/// Waits for the status byte on the child's standard output; else for its end.
fn start(mut command: Command) -> io::Result<u8> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut status = [0];
    let said = match &mut child.stdout {
        Some(pipe) => pipe.read(&mut status)?,
        None => 0,
    };
    if said == 1 {
        return Ok(status[0]);
    }
    let end = child.wait()?;
    Ok(match end.code() {
        Some(code) if code != 0 => u8::try_from(code).unwrap_or(1),
        _ => {
            tell(format_args!("the daemon ended before it was ready ({end})"));
            1
        }
    })
}

/// There is no log yet, and perhaps nobody who reads this.
fn tell(line: fmt::Arguments<'_>) {
    _ = writeln!(io::stderr(), "error: {line}");
}

/// The process in the background, until it is ready. Dropped before that, whoever waits gets our exit status.
#[derive(Debug)]
#[must_use]
pub(super) struct Detached(());

/// Leaves the terminal and the directory it was started in. For the process that [`detach`] started.
pub(super) fn settle_in_background(name: &OsStr) -> Result<Detached, StartError> {
    let failed = |error: rustix::io::Errno| {
        StartError::new(Exit::Usage, format!("cannot go into the background: {error}"))
    };
    rustix::process::setsid().map_err(failed)?;
    rustix::process::chdir("/").map_err(failed)?;
    // The kernel would have us called `exe`.
    let name = Path::new(name).file_name().unwrap_or(name);
    if let Ok(name) = std::ffi::CString::new(name.as_bytes()) {
        _ = rustix::thread::set_name(&name);
    }
    Ok(Detached(()))
}

impl Detached {
    /// Lets go of whoever waits, and of its standard output and error.
    pub(super) fn ready(self) -> io::Result<()> {
        let mut pipe = io::stdout();
        _ = pipe.write_all(&[0]).and_then(|()| pipe.flush()); // it may have gone
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(())
    }
}

/// Makes the directory for sockets and pid file, parents too: open to all for root, to nobody else for users. One that
/// exists stays as it is.
pub(super) fn make_run_directory(path: &Path, privileged: bool) -> Result<(), StartError> {
    let mode = if privileged { 0o755 } else { 0o700 };
    make_directory(path, mode).map_err(|error| {
        let line = format!("unable to create run directory '{}': {error}", path.display());
        StartError::new(Exit::RunDirectory, line).advise(
            "make it, owned by the user whom the daemon runs as, or name another place for the sockets",
        )
    })
}

fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    // Made closed and opened then: the inherited umask must not decide, and a process has only one of it.
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => std::fs::set_permissions(path, Permissions::from_mode(mode)),
        Err(_) if path.is_dir() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // If the parent is there, something else is missing (/proc says so): no use in trying again.
            let parent = path.parent().filter(|parent| !parent.is_dir()).ok_or(error)?;
            make_directory(parent, mode)?;
            make_directory(path, mode)
        }
        Err(error) => Err(error),
    }
}

/// The daemon's pid file, ours as long as this is kept.
pub(super) fn take_pid_file(path: &Path) -> Result<PidFile, StartError> {
    PidFile::acquire(path).map_err(|error| {
        let (why, advice) = match error {
            LockError::InUse(pid) => {
                let who = pid.map_or("another process".into(), |pid| format!("process {pid}"));
                let advice = "a daemon runs already: stop that one first, or give this one its own --root";
                (format!("{who} holds it"), advice)
            }
            LockError::Io(_, error) => {
                (error.to_string(), "name a place that can be written to with --pid-file")
            }
        };
        let line = format!("Failed to acquire pid file '{}': {why}", path.display());
        StartError::new(Exit::PID_FILE, line).advise(advice)
    })
}

/// Takes as many descriptors as we may have: each client needs one.
pub(super) fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = rustix::process::getrlimit(Resource::Nofile);
    if current != maximum {
        _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}

/// What systemd is told, one datagram each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// The event loop runs. Also the end of a reload.
    Ready,
    /// A reload begins.
    Reloading,
    /// The end begins.
    Stopping,
    /// The end takes half a minute, at most.
    HalfAMinuteMore,
}

impl Notice {
    /// Tells systemd, if it started us and listens.
    pub(super) fn send(self) {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
        if let Err(error) = self.send_to(&socket) {
            tracing::warn!("cannot tell systemd about {self:?} at '{}': {error}", socket.display());
        }
    }

    /// By ourselves, because sd-notify doesn't know abstract sockets (`@…`), which container managers use.
    fn send_to(self, socket: &OsStr) -> io::Result<()> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(socket),
        }?;
        UnixDatagram::unbound()?.send_to_addr(self.text().as_bytes(), &address).map(drop)
    }

    fn text(self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading => {
                let now = rustix::time::clock_gettime(ClockId::Monotonic);
                format!("RELOADING=1\nMONOTONIC_USEC={}", now.tv_sec * 1_000_000 + now.tv_nsec / 1000)
            }
            Self::Stopping => "STOPPING=1".to_owned(),
            Self::HalfAMinuteMore => "EXTEND_TIMEOUT_USEC=30000000".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn whoever_starts_a_daemon_gets_its_status() {
        // Ready, and alive until its standard output has no reader any more: the pipe ends with `start`.
        assert_eq!(start(shell("printf '\\000'; while echo x; do :; done 2>&-")).unwrap(), 0);
        assert_eq!(start(shell("printf '\\006'")).unwrap(), 6);
        assert_eq!(start(shell("exit 6")).unwrap(), 6);
        assert_eq!(start(shell("kill -9 $$")).unwrap(), 1);
        assert_eq!(start(shell("exit 0")).unwrap(), 1, "it ended, so it isn't there");
    }

    #[test]
    fn the_run_directory_has_its_mode_whatever_the_umask() {
        let at = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        make_run_directory(&at.path().join("a/b"), true).unwrap();
        make_run_directory(&at.path().join("c/d"), false).unwrap();
        assert_eq!((mode(&at.path().join("a")), mode(&at.path().join("a/b"))), (0o755, 0o755));
        assert_eq!((mode(&at.path().join("c")), mode(&at.path().join("c/d"))), (0o700, 0o700));
        make_run_directory(&at.path().join("c"), true).unwrap();
        assert_eq!(mode(&at.path().join("c")), 0o700, "one that was there stays as it is");
        std::fs::write(at.path().join("file"), "").unwrap();
        let error = make_run_directory(&at.path().join("file/x"), true).unwrap_err();
        assert_eq!(error.exit(), Exit::RunDirectory);
    }

    /// Tells the other process what to hold.
    const HOLD: &str = "STRONGROOM_TEST_PID_FILE";

    #[test]
    fn a_second_daemon_is_told_who_holds_the_pid_file() {
        if let Some(path) = std::env::var_os(HOLD) {
            let _held = take_pid_file(Path::new(&path)).unwrap();
            writeln!(io::stdout(), "held").unwrap();
            io::stdin().read_to_end(&mut Vec::new()).unwrap();
            return;
        }
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("virtsecretd.pid");
        let itself = "server::process::tests::a_second_daemon_is_told_who_holds_the_pid_file";
        let mut first = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", itself])
            .env(HOLD, &path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(first.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line.ends_with("held")));
        let error = take_pid_file(&path).unwrap_err();
        let line =
            format!("Failed to acquire pid file '{}': process {} holds it", path.display(), first.id());
        assert_eq!((error.line(), error.exit().status()), (line.as_str(), 1));
        drop(first.stdin.take());
        assert!(said.last().is_some() && first.wait().unwrap().success());
        take_pid_file(&path).unwrap();
    }

    #[test]
    fn a_pid_file_in_the_wrong_place_is_told_with_the_way_to_another() {
        let at = tempfile::tempdir().unwrap();
        let error = take_pid_file(&at.path().join("no/such.pid")).unwrap_err();
        let line = format!("Failed to acquire pid file '{}/no/such.pid': No such file", at.path().display());
        assert!(error.line().starts_with(&line), "{error}");
        assert!(error.advice().unwrap().contains("--pid-file"));
    }

    #[test]
    fn systemd_hears_one_datagram_a_notice_by_path_or_abstract_name() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("notify");
        let ear = UnixDatagram::bind(&path).unwrap();
        let heard = |ear: &UnixDatagram| {
            let mut bytes = [0; 100];
            let length = ear.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        Notice::Ready.send_to(path.as_os_str()).unwrap();
        Notice::Reloading.send_to(path.as_os_str()).unwrap();
        assert_eq!(heard(&ear), "READY=1");
        let reloading = heard(&ear);
        let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(at.parse::<u64>().unwrap() > 0);

        let name = format!("@strongroom-test-{}", std::process::id());
        let ear =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap()).unwrap();
        Notice::Stopping.send_to(OsStr::new(&name)).unwrap();
        Notice::HalfAMinuteMore.send_to(OsStr::new(&name)).unwrap();
        assert_eq!((heard(&ear), heard(&ear)), ("STOPPING=1".into(), "EXTEND_TIMEOUT_USEC=30000000".into()));
    }

    #[test]
    fn the_soft_limit_of_descriptors_becomes_the_hard_one() {
        raise_descriptor_limit();
        let limit = rustix::process::getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
