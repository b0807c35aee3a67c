//! Sockets that systemd made: what each is for, its unit's name says.
//!
//! Leans on sd-notify for what systemd says, on rustix to take a descriptor over. Refuses sockets whose purpose it doesn't
//! know, and such as are of another kind than their names say.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use super::super::process::StartError;
use super::{Listener, Listening, Role, refused};

/// The sockets that systemd handed over. None if it didn't start us, or not like that.
pub(in super::super) fn activated() -> Result<Option<Vec<Listening>>, StartError> {
    let broken = |error: io::Error| {
        refused(format!("the socket activation is broken: {error}"))
            .advise("LISTEN_PID and LISTEN_FDS are systemd's to set: take them out of the environment")
    };
    // They are close-on-exec from here on. Variables that are meant for another process are none.
    let descriptors = sd_notify::listen_fds().map_err(broken)?;
    if descriptors.len() == 0 {
        return Ok(None);
    }
    let Some(names) = std::env::var_os("LISTEN_FDNAMES") else {
        tracing::error!("systemd handed over sockets without names (LISTEN_FDNAMES): they are not used");
        return Ok(None);
    };
    let roles = roles(&names.to_string_lossy(), descriptors.len())?;
    descriptors
        .zip(roles)
        .map(|(descriptor, role)| adopt(descriptor, role))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// The roles by the units' names, libvirt's or ours. Several sockets may have one.
fn roles(names: &str, count: usize) -> Result<Vec<Role>, StartError> {
    let role = |name: &str| {
        role_of(name).ok_or_else(|| {
            refused(format!(
                "Some activation file descriptors are unclaimed: no socket of ours is called '{}'",
                name.escape_debug()
            ))
            .advise(
                "the names are those of the socket units: virtsecretd.socket, virtsecretd-ro.socket, \
                 virtsecretd-admin.socket, virtsecretd-tls.socket, virtsecretd-tcp.socket, or the same with strongroomd",
            )
        })
    };
    let roles: Result<Vec<Role>, StartError> = names.split(':').map(role).collect();
    let roles = roles?;
    if roles.len() != count {
        let line = format!("systemd handed over {count} sockets and {} names", roles.len());
        return Err(refused(line).advise("LISTEN_FDS and LISTEN_FDNAMES are systemd's to set"));
    }
    Ok(roles)
}

fn role_of(name: &str) -> Option<Role> {
    Some(match name {
        "virtsecretd.socket" | "strongroomd.socket" => Role::Main,
        "virtsecretd-ro.socket" | "strongroomd-ro.socket" => Role::ReadOnly,
        "virtsecretd-admin.socket" | "strongroomd-admin.socket" => Role::Admin,
        "virtsecretd-tls.socket" | "strongroomd-tls.socket" => Role::Tls,
        "virtsecretd-tcp.socket" | "strongroomd-tcp.socket" => Role::Tcp,
        _ => return None,
    })
}

/// Makes a descriptor ours that is known by its number only. The kernel hands out a second one for it, which needs no
/// `unsafe`; the first stays open, and systemd keeps a third.
fn adopt(number: RawFd, role: Role) -> Result<Listening, StartError> {
    let failed = |what: &dyn fmt::Display| {
        refused(format!("descriptor {number}, which systemd handed over, can't be used: {what}"))
    };
    let take = || {
        let us = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        rustix::process::pidfd_getfd(us, number, PidfdGetfdFlags::empty())
    };
    let socket: OwnedFd = take().map_err(|error| failed(&error))?;
    let is_stream = sockopt::socket_type(&socket).map_err(|error| failed(&error))? == SocketType::STREAM;
    let domain = sockopt::socket_domain(&socket).map_err(|error| failed(&error))?;
    let listens = sockopt::socket_acceptconn(&socket).map_err(|error| failed(&error))?;
    let socket = match role {
        Role::Tls | Role::Tcp => {
            if !(is_stream && listens && matches!(domain, AddressFamily::INET | AddressFamily::INET6)) {
                return Err(failed(&"it is no TCP socket that listens")
                    .advise("the socket unit needs ListenStream= with a port, and Accept=no"));
            }
            let socket = TcpListener::from(socket);
            socket.set_nonblocking(true).map(|()| Listener::Ip(socket))
        }
        Role::Main | Role::ReadOnly | Role::Admin => {
            if !(is_stream && listens && domain == AddressFamily::UNIX) {
                return Err(failed(&"it is no Unix stream socket that listens")
                    .advise("the socket unit needs ListenStream= with a path, and Accept=no"));
            }
            let socket = UnixListener::from(socket);
            socket.set_nonblocking(true).map(|()| Listener::Unix(socket))
        }
    };
    let socket = socket.map_err(|error| failed(&error))?;
    Ok(Listening { role, socket, name: None })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn activation_goes_by_the_names_of_the_units() {
        use Role::{Admin, Main, ReadOnly};
        let names = "virtsecretd-admin.socket:strongroomd.socket:strongroomd.socket:virtsecretd-ro.socket";
        assert_eq!(roles(names, 4).unwrap(), [Admin, Main, Main, ReadOnly]);
        for (names, count) in [("virtsecretd", 1), ("", 1), ("virtsecretd.socket", 2), ("unknown", 1)] {
            assert_eq!(roles(names, count).unwrap_err().exit().status(), 6, "{names}");
        }
        assert!(
            roles("x", 1).unwrap_err().line().starts_with("Some activation file descriptors are unclaimed")
        );
    }

    /// What the test below says in a process of its own, started with these variables and a socket as its descriptor 3.
    fn activate(variables: &str, socket: OwnedFd) -> String {
        let script = format!("LISTEN_FDS=1 {variables} exec \"$0\" \"$@\" 3<&0 </dev/null");
        let out = Command::new("/bin/sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "server::listen::activation::tests::a_socket_from_systemd_is_served",
            ])
            .env(ACTIVATED, "1")
            .stdin(Stdio::from(socket))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{variables}: {said}{}", String::from_utf8_lossy(&out.stderr));
        said
    }

    /// Marks the other process.
    const ACTIVATED: &str = "STRONGROOM_TEST_ACTIVATED";

    #[test]
    fn a_socket_from_systemd_is_served() {
        if std::env::var_os(ACTIVATED).is_some() {
            return serve_one();
        }
        let at = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(at.path().join("s")).unwrap();
        let socket = || OwnedFd::from(listener.try_clone().unwrap());
        let mut client = UnixStream::connect(at.path().join("s")).unwrap();
        let said = activate("LISTEN_PID=$$ LISTEN_FDNAMES=virtsecretd-ro.socket", socket());
        assert!(said.contains("served ReadOnly"), "{said}");
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "hello");
        assert!(at.path().join("s").exists());

        let name = "LISTEN_FDNAMES=virtsecretd.socket";
        for (variables, outcome) in [
            ("LISTEN_PID=$$".to_owned(), "none"), // no names
            (format!("LISTEN_PID=1 {name}"), "none"),
            (format!("LISTEN_PID=$$ LISTEN_FDS=2 {name}:{}", "virtsecretd.socket"), "refused"), // no descriptor 4
            ("LISTEN_PID=$$ LISTEN_FDNAMES=other".to_owned(), "refused"),
        ] {
            let said = activate(&variables, socket());
            assert!(said.contains(outcome), "{variables}: {said}");
        }
        let stream = UnixStream::connect(at.path().join("s")).unwrap();
        let said = activate(&format!("LISTEN_PID=$$ {name}"), stream.into());
        assert!(said.contains("refused"), "it doesn't listen: {said}");
    }

    /// What the other process does.
    fn serve_one() {
        let word = match activated() {
            Ok(Some(sockets)) => {
                let Listener::Unix(socket) = &sockets[0].socket else { panic!("{sockets:?}") };
                let (mut client, _) = socket.accept().unwrap();
                client.write_all(b"hello").unwrap();
                format!("served {:?}", sockets[0].role)
            }
            Ok(None) => "none".to_owned(),
            Err(error) => format!("refused: {error}"),
        };
        writeln!(io::stdout(), "{word}").unwrap();
    }
}
