//! A program that carries a connection on: `ssh`, or any other that a URI names.
//!
//! It gets one end of a socket pair as its standard input and output; what it says on its standard error is kept, for it alone
//! knows why a connection fails. It may still ask on the terminal. Leans on std's processes. Refuses to hand on an
//! environment that it doesn't know, and to leave the program running when the connection is over.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::socket::{Carrier, Socket};
use crate::secret::{Error, ErrorDomain};

/// How a program is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// Its path, or its name among the programs.
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// Variables of ours that it gets besides those that every program gets.
    pub(super) variables: &'static [&'static str],
    /// What to do when it fails.
    pub(super) advice: String,
}

impl Program {
    /// Starts it, and gives the socket that leads to it.
    pub(super) fn start(&self) -> Result<Socket, Error> {
        let failed = |error: &io::Error| {
            let advice = "name another program with command=PATH in the URI, or install this one";
            Error::system(format!("cannot run '{}'", self.name), error)
                .in_domain(ErrorDomain::Rpc)
                .advise(advice)
        };
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
        let input = theirs.try_clone().map_err(|error| failed(&error))?;
        let mut command = Command::new(&self.name);
        command.args(&self.arguments).env_clear().envs(self.environment());
        command.stdin(Stdio::from(OwnedFd::from(input))).stdout(Stdio::from(OwnedFd::from(theirs)));
        let mut child = command.stderr(Stdio::piped()).spawn().map_err(|error| failed(&error))?;
        drop(command); // it has their end of the pair
        let running = match Running::streams(&mut child) {
            Ok((stderr, ended)) => Running {
                name: self.name.clone(),
                advice: self.advice.clone(),
                stderr,
                ended,
                said: Mutex::default(),
                child: Mutex::new(child),
            },
            Err(error) => {
                _ = child.kill();
                _ = child.wait();
                return Err(failed(&error));
            }
        };
        Ok(Socket::carried(ours, Box::new(running)))
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let kept = ALWAYS.iter().chain(self.variables);
        let mut environment: Vec<_> =
            kept.filter_map(|name| env::var_os(name).map(|value| (*name, value))).collect();
        environment.push(("LC_ALL", "C".into()));
        environment
    }
}

/// A program at work.
struct Running {
    name: String,
    advice: String,
    stderr: ChildStderr,
    /// Readable once it has ended.
    ended: OwnedFd,
    said: Mutex<Vec<u8>>,
    child: Mutex<Child>,
}

impl Running {
    /// Where it complains, and what tells its end.
    fn streams(child: &mut Child) -> io::Result<(ChildStderr, OwnedFd)> {
        let stderr = child.stderr.take().ok_or(io::ErrorKind::NotFound)?;
        fcntl_setfl(&stderr, fcntl_getfl(&stderr)? | OFlags::NONBLOCK)?;
        Ok((stderr, pidfd_open(Pid::from_child(child), PidfdFlags::empty())?))
    }

    /// Whether it has ended, or does within this time.
    fn has_ended(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::new(&self.ended, PollFlags::IN)], left.as_ref()) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Takes in what it has said so far.
    fn take_in(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut part = [0; 1024];
        while let Ok(read @ 1..) = rustix::io::read(&self.stderr, &mut part) {
            said.extend_from_slice(&part[..read]);
            let surplus = said.len().saturating_sub(MOST_SAID); // the end tells most
            said.drain(..surplus);
        }
    }

    /// Buries it, if it has ended.
    fn status(&self) -> Option<std::process::ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }
}

impl Carrier for Running {
    fn complaint(&self) -> String {
        let has_ended = self.has_ended(LAST_WORDS);
        self.take_in();
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said);
        match said.trim() {
            "" if has_ended => {
                self.status().map_or_else(String::new, |how| format!("{} ended ({how})", self.name))
            }
            said => said.to_owned(),
        }
    }

    fn advice(&self) -> String {
        self.advice.clone()
    }

    fn listen(&self) {
        self.take_in();
    }

    /// It is asked to end; one that won't is ended.
    fn end(&self) {
        if self.status().is_some() {
            return;
        }
        // By its descriptor: the reader may bury it meanwhile, and the number be another's.
        _ = pidfd_send_signal(&self.ended, Signal::TERM);
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_ended(GRACE) {
            _ = child.kill();
        }
        _ = child.wait();
    }
}

/// What every program gets of our environment.
const ALWAYS: [&str; 7] = ["PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_PRELOAD", "LD_LIBRARY_PATH"];

/// How much of what it says is kept, in bytes.
const MOST_SAID: usize = 4096;

/// How long to wait for the end of a program that has closed its socket: it says why it ends before it does.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long a program that was asked to end may take.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    fn program(script: &str) -> Program {
        let (name, advice) = ("sh".to_owned(), "look there".to_owned());
        Program { name, arguments: vec!["-c".to_owned(), script.to_owned()], variables: &[], advice }
    }

    fn read(socket: &Socket) -> Vec<u8> {
        let mut all = Vec::new();
        let mut part = [0; 64];
        while let Ok(read @ 1..) = socket.read(&mut part) {
            all.extend_from_slice(&part[..read]);
        }
        all
    }

    #[test]
    fn bytes_go_through_it_both_ways() {
        let socket = program("head -c 5 | tr a-z A-Z").start().unwrap();
        socket.send(b"hello").unwrap();
        assert_eq!(read(&socket), b"HELLO");
    }

    #[test]
    fn what_it_says_is_why_the_connection_ended() {
        for (script, told) in [
            ("echo 'no such host' >&2; exit 255", "no such host"),
            ("exit 3", "sh ended (exit status: 3)"),
            ("head -c 100000 /dev/zero | tr '\\0' x >&2; printf end >&2", "xend"),
        ] {
            let socket = program(script).start().unwrap();
            socket.set_patience(Duration::from_millis(5)).unwrap();
            while socket.read(&mut [0]) == Err(Errno::AGAIN) {
                socket.listen(); // a pipe holds 64 KiB
            }
            let error = socket.end_of_file().to_string();
            assert!(error.ends_with(&format!("{told}: Input/output error")), "{error}");
            let error = socket.lost(Errno::CONNRESET);
            assert!(error.to_string().starts_with("Cannot recv data: "), "{error}");
            assert!(error.to_string().ends_with(&format!("{told}: Connection reset by peer")), "{error}");
            assert!(error.to_string().len() < 4200);
            assert_eq!(error.advice(), Some("look there"));
        }
    }

    #[test]
    fn one_that_is_not_there_is_named() {
        let missing = Program { name: "/nonexistent/ssh".to_owned(), ..program("") };
        let error = missing.start().err().unwrap();
        assert_eq!(error.to_string(), "cannot run '/nonexistent/ssh': No such file or directory");
    }

    #[test]
    fn it_is_gone_when_the_connection_is() {
        let socket = program("trap '' TERM; echo $$; exec sleep 60 <&- >&-").start().unwrap();
        let pid = String::from_utf8(read(&socket)).unwrap();
        let proc = format!("/proc/{}", pid.trim());
        assert!(std::fs::exists(&proc).unwrap());
        drop(socket);
        assert!(!std::fs::exists(&proc).unwrap());
    }

    #[test]
    fn it_gets_no_more_of_the_environment_than_it_needs() {
        let socket = program("env | cut -d= -f1 | sort | tr '\\n' ' '").start().unwrap();
        let names = String::from_utf8(read(&socket)).unwrap();
        for name in names.split_whitespace() {
            let known = ALWAYS.contains(&name) || ["LC_ALL", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name);
            assert!(known, "{name}");
        }
        assert!(names.contains("PATH ") && names.contains("LC_ALL "), "{names}");
    }
}
