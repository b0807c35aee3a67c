//! The sockets that the daemon listens on: made by itself, or handed over by systemd.
//!
//! [`unix`] makes those in the file system, [`ip`] those on the network, [`activation`] takes over systemd's. Refuses to
//! mix them: what systemd hands over is all that there is.

mod activation;
mod ip;
mod unix;

use std::fmt;
#[cfg(test)]
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

pub(super) use activation::activated;
pub(super) use ip::Port;
pub(super) use unix::{Name, is_abstract};

use super::process::{Exit, StartError};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// All calls.
    Main,
    /// Calls that change nothing and tell no value.
    ReadOnly,
    /// virt-admin's calls.
    Admin,
    /// All calls, by TLS.
    Tls,
    /// All calls, by TCP: encrypted by SASL, or not at all.
    Tcp,
}

/// A socket that is listened on.
#[derive(Debug)]
pub(super) struct Listening {
    /// What it is for.
    pub(super) role: Role,
    /// Non-blocking and close-on-exec.
    pub(super) socket: Listener,
    /// Its name in the file system, if we made it: to be kept as long as the socket, and dropped at the end.
    pub(super) name: Option<Name>,
}

/// A socket of either kind.
#[derive(Debug)]
pub(super) enum Listener {
    /// In the file system.
    Unix(UnixListener),
    /// On the network.
    Ip(TcpListener),
}

/// The sockets to make when systemd hands none over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Each is made, in this order.
    pub(super) sockets: Vec<Wanted>,
    /// The group of the main and the read-only socket: a name, or a number. The admin socket stays the daemon's own.
    pub(super) group: Option<String>,
    /// Those on the network.
    pub(super) network: Vec<Port>,
}

/// A socket to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// What it is for.
    pub(super) role: Role,
    /// Absolute, or `@name` for an abstract socket, which has no mode and is open to all.
    pub(super) path: PathBuf,
    /// Its permissions, exactly.
    pub(super) mode: u32,
    /// `max_queued_clients`, as configured; 0 stands for libvirt's 30.
    pub(super) backlog: u32,
}

/// Where this daemon's files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// libvirt's own directories, for root.
    System,
    /// A user's: this is `$XDG_RUNTIME_DIR`, or else the cache directory.
    Session(PathBuf),
    /// `--root`.
    Root(PathBuf),
}

impl Place {
    /// The directory of sockets and pid file, unless they are configured elsewhere.
    pub(super) fn run(&self) -> PathBuf {
        match self {
            Self::System => "/run/libvirt".into(),
            Self::Session(runtime) => runtime.join("libvirt"),
            Self::Root(root) => root.join("run"),
        }
    }

    /// The pid file, unless another is named.
    pub(super) fn pid_file(&self) -> PathBuf {
        match self {
            Self::System => "/run/virtsecretd.pid".into(),
            Self::Session(_) | Self::Root(_) => self.run().join("virtsecretd.pid"),
        }
    }

    /// The sockets' paths, by role. `directory` is `unix_sock_dir`. A user has no read-only socket, as in libvirt: clients
    /// ask for read-only on the main one. And only that one moves.
    pub(super) fn sockets(&self, directory: Option<&Path>) -> Vec<(Role, PathBuf)> {
        let usual = self.run();
        let main = directory.unwrap_or(&usual);
        let admin = if matches!(self, Self::Session(_)) { &usual } else { main };
        let mut sockets = vec![(Role::Main, main.join("virtsecretd-sock"))];
        if !matches!(self, Self::Session(_)) {
            sockets.push((Role::ReadOnly, main.join("virtsecretd-sock-ro")));
        }
        sockets.push((Role::Admin, admin.join("virtsecretd-admin-sock")));
        sockets
    }
}

/// Makes the sockets of the plan. The keystore's lock must be held by then: whoever comes second shall find that out before
/// it touches a socket.
pub(super) fn make(plan: &Plan) -> Result<Vec<Listening>, StartError> {
    let mut sockets = unix::bind_all(plan)?;
    for port in &plan.network {
        sockets.extend(ip::bind(port)?); // if it fails, the names of the others go again
    }
    Ok(sockets)
}

impl Plan {
    /// Whether a socket is made for this.
    pub(super) fn listens(&self, role: Role) -> bool {
        let named = self.sockets.iter().map(|wanted| wanted.role);
        named.chain(self.network.iter().map(|port| port.role)).any(|made| made == role)
    }
}

impl Listening {
    /// Where on the network it listens.
    #[cfg(test)]
    fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Listener::Unix(_) => None,
            Listener::Ip(socket) => socket.local_addr().ok(),
        }
    }
}

/// Where it listens.
impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            return name.path().display().fmt(f); // the kernel knows the one under which it was bound
        }
        match &self.socket {
            Listener::Ip(socket) => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(_) => f.write_str("an address that isn't known"),
            },
            Listener::Unix(socket) => {
                let address = socket.local_addr().ok();
                let name = address.as_ref().and_then(|address| address.as_abstract_name());
                match (address.as_ref().and_then(|address| address.as_pathname()), name) {
                    (Some(path), _) => path.display().fmt(f),
                    (None, Some(name)) => write!(f, "@{}", name.escape_ascii()),
                    (None, None) => f.write_str("a socket without a name"),
                }
            }
        }
    }
}

/// As the system call wants it.
fn backlog(configured: u32) -> i32 {
    if configured == 0 { 30 } else { i32::try_from(configured).unwrap_or(i32::MAX) }
}

fn refused(line: impl Into<String>) -> StartError {
    StartError::new(Exit::Network, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_libvirts() {
        let paths = |place: &Place, directory: Option<&str>| {
            let sockets = place.sockets(directory.map(Path::new));
            sockets.into_iter().map(|(_, path)| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        let system = "/run/libvirt/virtsecretd-sock /run/libvirt/virtsecretd-sock-ro /run/libvirt/virtsecretd-admin-sock";
        assert_eq!(paths(&Place::System, None), system);
        let session = Place::Session("/run/user/7".into());
        assert_eq!(
            paths(&session, Some("/s")),
            "/s/virtsecretd-sock /run/user/7/libvirt/virtsecretd-admin-sock"
        );
        let root = Place::Root("/r".into());
        assert_eq!(
            paths(&root, None),
            "/r/run/virtsecretd-sock /r/run/virtsecretd-sock-ro /r/run/virtsecretd-admin-sock"
        );
        assert_eq!(
            paths(&root, Some("/s")),
            "/s/virtsecretd-sock /s/virtsecretd-sock-ro /s/virtsecretd-admin-sock"
        );
    }
}
