//! Who is at the other end: a process of this host behind a Unix socket, or an address behind a network socket.
//!
//! Of a process the kernel says pid and user, and /proc when it started. The start time makes a pid specific: pids are used
//! again, the pair isn't. Leans on /proc alone; SO_PEERCRED is read where the socket is. Refuses to guess: what /proc
//! doesn't say is `None`; and to take an address for anybody: what it proves by a certificate or by SASL is kept elsewhere.
//!
//! The credentials are those of connect(2), and /proc is read a moment later. A peer that is gone by then, and whose pid
//! has a new bearer, gets the bearer's start time; its uid stays the kernel's word, and polkit is told all three.
//! SO_PEERPIDFD (Linux 6.5) would close the gap.

use std::fmt;
use std::fs;
use std::net::SocketAddr;

/// Who has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this host.
    Local(Process),
    /// Somebody on the network, this host's own users among them.
    Remote(SocketAddr),
}

/// A process at the other end of a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    /// `None` for a process that has no pid here: it lives outside this daemon's container.
    pub(crate) pid: Option<u32>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Clock ticks since boot. `None` if the process is gone, or hidden by /proc.
    pub(crate) start_time: Option<u64>,
}

impl Peer {
    /// The process with these credentials.
    pub(crate) fn new(pid: Option<i32>, uid: u32, gid: u32) -> Self {
        Self::Local(Process::new(pid, uid, gid))
    }

    /// Whether it is this host's root: it can do all that we can. Nobody on the network is.
    pub(crate) fn is_root(&self) -> bool {
        self.process().is_some_and(|process| process.uid == 0)
    }

    /// The process, if it is one of this host.
    pub(crate) fn process(&self) -> Option<&Process> {
        match self {
            Self::Local(process) => Some(process),
            Self::Remote(_) => None,
        }
    }

    /// The address, if it is on the network.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Local(_) => None,
            Self::Remote(address) => Some(*address),
        }
    }
}

impl Process {
    /// The process with these credentials, as tokio's `UnixStream::peer_cred` has them: the kernel writes 0 for a pid that
    /// isn't in our namespace. (rustix can't be asked: its pid is never 0, and it takes the answer for an error.)
    pub(crate) fn new(pid: Option<i32>, uid: u32, gid: u32) -> Self {
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
        Self { pid, uid, gid, start_time: pid.and_then(start_time) }
    }
}

impl fmt::Display for Peer {
    /// For the log: `uid 1000, pid 4711`, or `192.0.2.7:50000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(process) => process.fmt(f),
            Self::Remote(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "uid {}, pid {pid}", self.uid),
            None => write!(f, "uid {}, outside this container", self.uid),
        }
    }
}

fn start_time(pid: u32) -> Option<u64> {
    // Not as text: a program may call itself anything.
    start_time_in(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Field 22. The second is the program's name in parentheses, and may have blanks and parentheses of its own, so the
/// fields are counted from the last `)`: behind it comes the third.
fn start_time_in(stat: &[u8]) -> Option<u64> {
    let name_ends = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_ends + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok().filter(|&ticks| ticks != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    #[test]
    fn an_address_is_nobody_of_this_host() {
        for address in ["127.0.0.1:7", "[::1]:7"] {
            let peer = Peer::Remote(address.parse().unwrap());
            assert_eq!((peer.is_root(), peer.process(), peer.to_string()), (false, None, address.to_owned()));
        }
        assert!(Peer::new(None, 0, 0).is_root() && !Peer::new(None, 1000, 0).is_root());
    }

    fn peer(child: &Child) -> Process {
        Process::new(Some(child.id() as i32), 1000, 100)
    }

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 19 20\n";
        for name in ["sh", "a b", ") R 1 2", "((", "))", ""] {
            let stat = format!("77 ({name}) {fields}");
            assert_eq!(start_time_in(stat.as_bytes()), Some(4242), "{name}");
        }
        assert_eq!(start_time_in(&[b"77 (\xff\xfe) ", fields.as_bytes()].concat()), Some(4242));
        for broken in ["", "77", "77 (sh", "77 (sh)", "77 (sh) S 1 2 3"] {
            assert_eq!(start_time_in(broken.as_bytes()), None, "{broken}");
        }
        assert_eq!(start_time_in(format!("77 (sh) {}", fields.replace("4242", "0")).as_bytes()), None);
    }

    #[test]
    fn a_running_process_started_after_us_and_before_now() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("x) 1 (y z");
        std::os::unix::fs::symlink("/bin/sleep", &name).unwrap();
        let mut child = Command::new(&name).arg("60").spawn().unwrap();
        let found = peer(&child).start_time.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let ours = Process::new(Some(std::process::id() as i32), 0, 0).start_time.unwrap();
        let uptime = fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let now = (uptime * rustix::param::clock_ticks_per_second() as f64) as u64;
        // The two are rounded each in its own way.
        assert!((ours..=now + 2).contains(&found), "{ours} <= {found} <= {now}");
    }

    #[test]
    fn a_process_that_is_gone_has_no_start_time() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let gone = peer(&child);
        assert_eq!((gone.pid, gone.start_time), (Some(child.id()), None));
        assert_eq!(gone.to_string(), format!("uid 1000, pid {}", child.id()));
    }

    #[test]
    fn a_peer_without_a_pid_here_is_still_somebody() {
        for pid in [None, Some(0), Some(-1)] {
            let outside = Process::new(pid, 1000, 100);
            assert_eq!(outside, Process { pid: None, uid: 1000, gid: 100, start_time: None });
            assert_eq!(outside.to_string(), "uid 1000, outside this container");
        }
    }
}
