//! `strongroom ssh-helper`: what a client's ssh runs on the far host. It finds the daemon's socket there, and carries bytes.
//!
//! The same as libvirt's virt-ssh-helper, and takes its place under that name, for clients of its other drivers too. Leans on
//! `client` for the way to the socket; a user's own secret daemon is started if need be. Refuses URIs that lead to another
//! host, and to have what it carries anywhere but in secret memory: a value is in it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::thread;

use rustix::io::{retry_on_intr, write};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::args::SshHelperArguments;
use super::failure::Failure;
use super::output::Output;
use crate::client::{self, Uri};
use crate::memory::SecretBytes;

/// The words of a command line that was typed under libvirt's name for this, as ours has them.
pub(super) fn under_its_own_name(typed: Vec<OsString>) -> Vec<OsString> {
    let name = typed.first().map(Path::new).and_then(Path::file_name);
    if name != Some(OsStr::new(THEIRS)) {
        return typed;
    }
    let words = typed.into_iter().skip(1);
    [OsString::from("strongroom"), OsString::from("ssh-helper")].into_iter().chain(words).collect()
}

/// Connects, and carries until one side ends. That is no success, but how every connection ends. What is wrong is told in one
/// line: at the other end of ssh it becomes part of one.
pub(super) fn run(
    arguments: &SshHelperArguments,
    read_only: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    if arguments.version {
        return output.text(concat!("strongroom ssh-helper ", env!("CARGO_PKG_VERSION"), "\n"));
    }
    let told = proxy(arguments, read_only).err().unwrap_or_default();
    _ = writeln!(io::stderr(), "strongroom ssh-helper: {told}");
    Err(Failure::Silent)
}

fn proxy(arguments: &SshHelperArguments, read_only: bool) -> Result<(), String> {
    let text = arguments.uri.as_deref().unwrap_or_default();
    let uri = Uri::parse(text)
        .map_err(|why| format!("cannot parse URI transport '{text}': invalid argument: {why}"))?;
    let is_local = uri.transport.as_deref().is_none_or(|it| it.eq_ignore_ascii_case("unix"));
    if uri.host.is_some() || !is_local {
        return Err(format!("unexpected URI transport '{text}'"));
    }
    let socket = client::daemon_socket(&uri, read_only).map_err(|error| error.to_string())?;
    let stream = socket
        .connect()
        .map_err(|error| format!("cannot connect to '{}': {error}", socket.path().display()))?;
    let why = carry(&stream).unwrap_or_else(|error| error.to_string());
    Err(format!("could not proxy traffic: {why}"))
}

/// Carries both ways. Gives the reason why it is over.
fn carry(stream: &UnixStream) -> io::Result<String> {
    let (tell, over) = mpsc::channel();
    let (there, back) = (Buffer::new()?, Buffer::new()?);
    let way_there = stream.try_clone()?;
    let first = tell.clone();
    // Neither is waited for: one of them may wait for ever.
    thread::spawn(move || pump(there, io::stdin(), &way_there, ON_STDIN, &first));
    let way_back = stream.try_clone()?;
    thread::spawn(move || pump(back, &way_back, io::stdout(), ON_SOCKET, &tell));
    let why = over.recv().unwrap_or_default();
    _ = stream.shutdown(std::net::Shutdown::Both);
    Ok(why)
}

/// Carries one way, until there is no more.
fn pump(mut buffer: Buffer, from: impl AsFd, to: impl AsFd, at_end: &str, tell: &Sender<String>) {
    let why = loop {
        match buffer.pass(from.as_fd(), to.as_fd()) {
            Ok(0) => break at_end.to_owned(),
            Ok(_) => {}
            Err(error) => {
                let text = error.to_string();
                break text.split(" (os error").next().unwrap_or_default().to_owned();
            }
        }
    };
    _ = tell.send(why);
}

/// What is on its way.
struct Buffer(SecretBytes);

impl Buffer {
    fn new() -> io::Result<Self> {
        Ok(Self(SecretBytes::zeroed(AT_ONCE).map_err(io::Error::other)?))
    }

    /// Passes on what there is, and forgets it. 0: the end.
    fn pass(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
        let read = retry_on_intr(|| rustix::io::read(from, self.0.expose_secret_mut()))?;
        let mut rest = &self.0.expose_secret()[..read];
        while !rest.is_empty() {
            let written = retry_on_intr(|| write(to, rest))?;
            rest = &rest[written..];
        }
        self.0.wipe_front(read);
        Ok(read)
    }
}

/// How much is carried at once: a packet with the largest value, in few steps.
const AT_ONCE: usize = 32 << 10;

/// libvirt's name for this program.
const THEIRS: &str = "virt-ssh-helper";

const ON_STDIN: &str = "internal error: EOF on stdin";
const ON_SOCKET: &str = "End of file while reading data: Input/output error";
