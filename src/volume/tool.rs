//! qemu-img, as a child process.
//!
//! A secret goes to it through a pipe that is filled and closed before it starts, and is its standard input; a second one is
//! its standard output, where it has nothing to say and QEMU opens `/dev/fd/1` for reading all the same; or a file is that it
//! shall read. So no descriptor of ours is ever inheritable, by it or by what another thread starts. What it says on its
//! standard error becomes our error. A caller that returns or panics ends it; with one that is killed the kernel ends it, where util-linux' setpriv is there to
//! ask for that: std has no safe way. Leans on std's processes and pipes. Refuses to hand on an environment that it doesn't
//! know, and to leave it running when its caller is gone.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, absolute};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use secrecy::ExposeSecret;

use super::image::{Image, Kind};
use super::original::{By, Readable};
use super::place::{IN_USE, Place};
use super::plan::{Format, Plan, Preallocation};
use super::unnamed::Unnamed;
use super::{Progress, Watch};
use crate::memory::SecretBytes;
use crate::secret::Error;

/// How images are made and changed.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) program: OsString,
    /// How long the trial of a passphrase shall take, if not as long as QEMU thinks.
    pub(super) iterate: Option<Duration>,
}

impl Tool {
    /// The same for a passphrase that was made: of its 256 bits nobody tries a part, so each trial may be cheap, and a guest
    /// starts the sooner.
    pub(super) fn for_random(&self) -> Self {
        Self { program: self.program.clone(), iterate: Some(self.iterate.unwrap_or(CHEAP)) }
    }

    /// Makes the image of a plan: empty, or a copy.
    pub(super) fn make(
        &self,
        (plan, original): (&Plan, Option<&Readable>),
        place: &Place,
        made: &mut Unnamed,
        key: &SecretBytes,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let (driver, options) = self.layout(plan);
        let (mut arguments, output, total);
        match original {
            None => {
                arguments = words(["create", "-q", "--object", FIRST, "-f", driver, "-o", &options]);
                arguments.extend([made.image(), plan.size.to_string().into()]);
                output = None;
                total = plan.preallocation.fills().then_some(plan.size);
            }
            Some(original) => {
                arguments = words(["convert", "-q", "--object", FIRST]);
                output = Some(match &original.by {
                    By::Passphrase(key) => {
                        arguments.extend(words(["--object", SECOND]));
                        Handed::Secret(key)
                    }
                    By::File(file) => Handed::File(file),
                });
                arguments.extend(words(["-O", driver, "-o", &options, &original.name]));
                arguments.push(made.image());
                total = Some(original.bytes);
            }
        }
        let failed = |error| Error::system(format_args!("cannot make '{}'", place.text), &error);
        let ended = measuring(|attempt| {
            if attempt > 1 {
                made.renew().map_err(failed)?; // it removes what it has begun
            }
            let mut look = || {
                if let (Some(total), Ok(about)) = (total, made.about()) {
                    let done = u64::try_from(about.st_blocks).map_or(0, |blocks| blocks * 512);
                    watch(Progress::Bytes { done: done.min(total), total });
                }
            };
            self.run((&made.for_children(), &arguments), [Some(Handed::Secret(key)), output], &mut look)
        });
        let name = made.image();
        ended?.map_err(|said| said.without(&name.to_string_lossy()).told("cannot make", place))
    }

    /// The driver of a plan's image, and its options.
    fn layout(&self, plan: &Plan) -> (&'static str, String) {
        let prefix = prefix(plan.format);
        let (driver, mut options) = match plan.format {
            Format::Raw => ("luks", "key-secret=s".to_owned()),
            Format::Qcow2 => ("qcow2", "encrypt.format=luks,encrypt.key-secret=s".to_owned()),
        };
        for (name, value) in plan.cipher.options() {
            options.push_str(&format!(",{prefix}{name}={value}"));
        }
        if plan.preallocation != Preallocation::Off {
            options.push_str(&format!(",preallocation={}", plan.preallocation.name()));
        }
        options.push_str(&self.iteration(prefix));
        (driver, options)
    }

    /// Whether a passphrase opens an image. An image that a guest has open can be tried too.
    pub(super) fn opens(&self, image: &Image<'_>, key: &SecretBytes) -> Result<bool, Error> {
        let arguments =
            words(["map", "-U", "--max-length=512", "--output=json", "--object", FIRST, &image.name("s")]);
        let at = image.place.for_children()?;
        match self.run((&at, &arguments), [Some(Handed::Secret(key)), None], &mut || {})? {
            Ok(()) => Ok(true),
            Err(said) if said.is_wrong_key() => Ok(false),
            Err(said) => Err(said.told("cannot open", image.place)),
        }
    }

    /// Gives a passphrase a slot of an image that another one opens.
    pub(super) fn add(&self, image: &Image<'_>, opens: &SecretBytes, new: &SecretBytes) -> Result<(), Error> {
        let prefix = image_prefix(image);
        let change = format!("{prefix}state=active,{prefix}new-secret=t{}", self.iteration(prefix));
        self.amend(image, &change, [opens, new])
    }

    /// Erases the slots that a passphrase opens, in an image that another one opens.
    pub(super) fn erase(
        &self,
        image: &Image<'_>,
        opens: &SecretBytes,
        old: &SecretBytes,
    ) -> Result<(), Error> {
        let prefix = image_prefix(image);
        self.amend(image, &format!("{prefix}state=inactive,{prefix}old-secret=t"), [opens, old])
    }

    fn amend(&self, image: &Image<'_>, change: &str, secrets: [&SecretBytes; 2]) -> Result<(), Error> {
        let name = image.name("s");
        let arguments = words(["amend", "-q", "--object", FIRST, "--object", SECOND, "-o", change, &name]);
        let (at, secrets) = (image.place.for_children()?, secrets.map(|secret| Some(Handed::Secret(secret))));
        measuring(|_| self.run((&at, &arguments), secrets, &mut || {}))?
            .map_err(|said| said.told("cannot change the slots of", image.place))
    }

    fn iteration(&self, prefix: &str) -> String {
        self.iterate
            .map_or_else(String::new, |time| format!(",{prefix}iter-time={}", time.as_millis().max(1)))
    }

    /// Runs it in this directory to its end. `idle` is called now and then. What it said when it failed is the inner error.
    fn run(
        &self,
        (at, arguments): (&str, &[OsString]),
        handed: [Option<Handed<'_>>; 2],
        idle: &mut dyn FnMut(),
    ) -> Result<Result<(), Said>, Error> {
        let failed = |error: &io::Error| {
            Error::system(format_args!("cannot run '{}'", self.program.display()), error)
                .advise("install qemu-img (on Debian: qemu-utils; on Fedora: qemu-img)")
        };
        let [stdin, stdout] = handed.map(|it| it.map_or_else(|| Ok(Stdio::null()), Handed::stdio));
        let mut command = self.command().map_err(|error| failed(&error))?;
        command.args(arguments).current_dir(at).env_clear().envs(environment());
        command.stdin(stdin?).stdout(stdout?).stderr(Stdio::piped());
        let mut running = Running(command.spawn().map_err(|error| failed(&error))?);
        drop(command); // it has the pipes
        match running.end(idle).map_err(|error| failed(&error))? {
            Err(Said(said)) if said.starts_with(NOT_STARTED) => Err(failed(&io::Error::other(
                said.rsplit_once(": ").map_or(said.as_str(), |(_, why)| why).to_owned(),
            ))),
            ended => Ok(ended),
        }
    }

    /// The program, which ends with this thread, if that can be.
    fn command(&self) -> io::Result<Command> {
        // It runs in another directory.
        let is_path = Path::new(&self.program).components().nth(1).is_some();
        let program = if is_path { absolute(&self.program)?.into() } else { self.program.clone() };
        if !*CAN_DIE_TOGETHER.get_or_init(can_die_together) {
            return Ok(Command::new(program));
        }
        let mut command = Command::new(DIE_TOGETHER[0]);
        command.args(&DIE_TOGETHER[1..]).arg(program);
        Ok(command)
    }
}

/// Runs what measures how fast this machine is. A busy one makes QEMU give up now and then: that is no fault, and goes by.
fn measuring(mut run: impl FnMut(u32) -> Result<Result<(), Said>, Error>) -> Result<Result<(), Said>, Error> {
    let mut attempt = 1;
    loop {
        match run(attempt)? {
            Err(said) if said.0.contains("accurate CPU usage") && attempt < MEASUREMENTS => attempt += 1,
            ended => return Ok(ended),
        }
    }
}

/// What it gets as its standard input or output.
#[derive(Clone, Copy)]
enum Handed<'a> {
    /// A secret, by a pipe.
    Secret(&'a SecretBytes),
    /// A file that it shall read, and no other of that name.
    File(&'a File),
}

impl Handed<'_> {
    fn stdio(self) -> Result<Stdio, Error> {
        match self {
            Self::Secret(secret) => pipe_of(secret).map(Stdio::from),
            Self::File(file) => file
                .try_clone()
                .map(Stdio::from)
                .map_err(|error| Error::system("cannot hand an image to qemu-img", &error)),
        }
    }
}

/// Whether there is a setpriv that can do it: not each of that name can.
fn can_die_together() -> bool {
    let mut command = Command::new(DIE_TOGETHER[0]);
    command.args(&DIE_TOGETHER[1..]).arg("true").env_clear().envs(environment());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

static CAN_DIE_TOGETHER: OnceLock<bool> = OnceLock::new();

/// A child that ends with its caller.
struct Running(Child);

impl Running {
    fn end(&mut self, idle: &mut dyn FnMut()) -> io::Result<Result<(), Said>> {
        let ended = pidfd_open(Pid::from_child(&self.0), PidfdFlags::empty())?;
        let mut stderr = self.0.stderr.take();
        if let Some(stderr) = &stderr {
            fcntl_setfl(stderr, fcntl_getfl(stderr)? | OFlags::NONBLOCK)?;
        }
        let mut said = Vec::new();
        while !ready(&ended, stderr.as_ref().map(AsFd::as_fd))? {
            if stderr.as_ref().is_some_and(|stderr| take_in(stderr, &mut said)) {
                stderr = None; // it has said all
            }
            idle();
        }
        stderr.iter().for_each(|stderr| _ = take_in(stderr, &mut said));
        let status = self.0.wait()?;
        Ok(if status.success() { Ok(()) } else { Err(Said::of(&said, status)) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill(); // an error if it was waited for
        _ = self.0.wait();
    }
}

/// What it said when it failed.
struct Said(String);

impl Said {
    fn of(said: &[u8], status: ExitStatus) -> Self {
        let said = String::from_utf8_lossy(said);
        // Of "Could not open 'json:…': why" the last words tell.
        let plain = |line: &str| match line.strip_prefix("Could not open 'json:") {
            Some(rest) => rest.rsplit_once("': ").map_or(rest, |(_, why)| why).to_owned(),
            None => line.to_owned(),
        };
        let lines = said.lines().map(|line| plain(line.trim().trim_start_matches("qemu-img: ")));
        let lines: Vec<_> = lines.filter(|line| !line.is_empty() && !line.starts_with("warning:")).collect();
        Self(if lines.is_empty() { format!("qemu-img ended ({status})") } else { lines.join("; ") })
    }

    fn is_wrong_key(&self) -> bool {
        self.0.contains("Invalid password")
    }

    /// Without the name of a file that nobody knows.
    fn without(self, name: &str) -> Self {
        Self(self.0.replace(&format!("{name}: "), ""))
    }

    fn told(self, what: &str, place: &Place) -> Error {
        let error = Error::failed(format!("{what} '{}': {}", place.text, self.0));
        match &self.0 {
            said if said.contains("lock") && said.contains("Failed to get") => error.advise(IN_USE),
            said if said.contains("not valid UTF-8") => error.advise(
                "QEMU takes text only, for whatever opens the volume: give the secret a value without a NUL, in UTF-8",
            ),
            said if said.contains("No space") => {
                error.advise("make room on that file system, or choose another")
            }
            said if said.contains("Permission denied") => {
                error.advise("run this as the owner of the image, or as root")
            }
            said if said.contains("No free keyslot") || said.contains("no free") => {
                error.advise("all slots are taken: see them with: cryptsetup luksDump, or: qemu-img info")
            }
            said if said.contains("nvalid parameter") => {
                error.advise("this takes qemu-img 5.1 or later: see which one runs with: qemu-img --version")
            }
            _ => error,
        }
    }
}

/// A pipe that holds a secret and has no end to write to: it ends behind it.
fn pipe_of(secret: &SecretBytes) -> Result<PipeReader, Error> {
    let failed = |error: io::Error| Error::system("cannot hand a passphrase to qemu-img", &error);
    let (reader, mut writer) = io::pipe().map_err(failed)?;
    let flags = fcntl_getfl(&writer).map_err(|error| failed(error.into()))?;
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
    // Nobody reads yet: what the pipe doesn't hold is an error, not a wait. It holds 64 KiB, or 8 for a user with many.
    writer.write_all(secret.expose_secret()).map_err(failed)?;
    Ok(reader)
}

/// Whether it has ended. Waits for that, for words of its, or for a while.
fn ready(ended: &impl AsFd, stderr: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
    fds.extend(stderr.map(|stderr| PollFd::from_borrowed_fd(stderr, PollFlags::IN)));
    let while_ = Timespec { tv_sec: 0, tv_nsec: GLANCE_NANOSECONDS };
    match poll(&mut fds, Some(&while_)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes in what it has said so far. `true`: that was all.
fn take_in(stderr: &ChildStderr, said: &mut Vec<u8>) -> bool {
    let mut part = [0; 1024];
    loop {
        match rustix::io::read(stderr, &mut part) {
            Ok(0) => return true,
            Ok(read) => {
                said.extend_from_slice(&part[..read]);
                said.truncate(MOST_SAID);
            }
            Err(_) => return false,
        }
    }
}

fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    let kept = ENVIRONMENT.iter().filter_map(|name| env::var_os(name).map(|value| (*name, value)));
    kept.chain(std::iter::once(("LC_ALL", "C".into())))
}

/// What stands before the options of LUKS.
fn prefix(format: Format) -> &'static str {
    match format {
        Format::Raw => "",
        Format::Qcow2 => "encrypt.",
    }
}

fn image_prefix(image: &Image<'_>) -> &'static str {
    match image.kind {
        Kind::Luks(format) => prefix(format),
        Kind::Luks2 | Kind::Aes(_) => "",
    }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.iter().map(|word| OsStr::new(word).to_owned()).collect()
}

/// The secrets, by the descriptors that they are read from.
const FIRST: &str = "secret,id=s,file=/dev/fd/0";
const SECOND: &str = "secret,id=t,file=/dev/fd/1";

/// What asks the kernel to kill a program when the thread that started it is gone.
const DIE_TOGETHER: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// What it says if the program can't be run.
const NOT_STARTED: &str = "setpriv: failed to execute";

/// What it gets of our environment.
const ENVIRONMENT: [&str; 5] = ["PATH", "HOME", "TMPDIR", "LD_PRELOAD", "LD_LIBRARY_PATH"];

/// A trial of a passphrase that can't be guessed.
const CHEAP: Duration = Duration::from_millis(100);

/// How often QEMU may measure the machine before we believe that it can't.
const MEASUREMENTS: u32 = 5;

/// How much of what it says is kept, in bytes.
const MOST_SAID: usize = 4096;

/// How often to look how far it is.
const GLANCE_NANOSECONDS: i64 = 100_000_000;
