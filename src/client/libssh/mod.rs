//! The transports `libssh` and `libssh2`: an ssh client in this process, for programs that have none to call.
//!
//! Both names mean the same library here. It runs the same command on the far host as `ssh` would. Leans on libssh (feature
//! `libssh`) and on [`Ask`] for passwords and unknown hosts. Refuses a host whose key is another than it was, and to take an
//! unknown one without being told to; without the feature it refuses everything, and says so.

#[cfg(feature = "libssh")]
mod session;

use std::path::PathBuf;
#[cfg(not(feature = "libssh"))]
use std::time::Duration;

use super::ask::Ask;
use super::socket::Socket;
use super::ssh::Far;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Where to go, as whom, and by what proofs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(not(feature = "libssh"), allow(dead_code, reason = "read, and refused"))]
pub(super) struct Libssh {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: Option<String>,
    /// The file with credentials, if the URI names one.
    pub(super) authfile: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    /// Tried in this order.
    pub(super) methods: Vec<Method>,
    /// `None`: there is no place for such a file.
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) check: HostCheck,
    pub(super) far: Far,
}

/// How a user may prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Agent,
    PrivateKey,
    Password,
    KeyboardInteractive,
}

/// What to do about the host's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostCheck {
    /// Ask about an unknown one.
    Normal,
    /// Take an unknown one, and remember it.
    Auto,
    /// Don't look.
    Ignore,
}

impl Method {
    /// Those of a list with commas, each once: what a host has refused it refuses again, and counts.
    pub(super) fn list(names: Option<&str>) -> Result<Vec<Self>, Error> {
        let names = names.unwrap_or("agent,privkey,password,keyboard-interactive");
        let mut methods = Vec::new();
        for name in names.split(',') {
            let method = match name {
                "agent" => Self::Agent,
                "privkey" => Self::PrivateKey,
                "password" => Self::Password,
                "keyboard-interactive" => Self::KeyboardInteractive,
                other => {
                    return Err(invalid(format!("Invalid authentication method: '{other}'"))
                        .advise("methods are agent, privkey, password and keyboard-interactive"));
                }
            };
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        Ok(methods)
    }
}

impl HostCheck {
    pub(super) fn named(name: Option<&str>) -> Result<Self, Error> {
        match name {
            None | Some("normal") => Ok(Self::Normal),
            Some("auto") => Ok(Self::Auto),
            Some("ignore") => Ok(Self::Ignore),
            Some(other) => Err(invalid(format!("Invalid host key verification method: '{other}'"))
                .advise("methods are normal, auto and ignore")),
        }
    }
}

#[cfg(not(feature = "libssh"))]
impl Libssh {
    pub(super) fn connect(&self, _: Option<&dyn Ask>, _: Duration) -> Result<Socket, Error> {
        let host = &self.host;
        Err(Error::new(
            ErrorCode::InvalidArg,
            ErrorDomain::Remote,
            format!("cannot connect to '{host}' by libssh: this build has none"),
        )
        .advise("use secret+ssh://, which calls the system's ssh; or build with the feature libssh"))
    }
}

fn invalid(detail: String) -> Error {
    Error::new(ErrorCode::InvalidArg, ErrorDomain::Rpc, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_tried_once_however_often_it_is_named() {
        let list = Method::list(Some("password,agent,password,agent")).unwrap();
        assert_eq!(list, [Method::Password, Method::Agent]);
    }
}
