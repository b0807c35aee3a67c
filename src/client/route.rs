//! From a URI to a socket: which one it leads to, what the server there is asked to open, whom it may be.
//!
//! Leans on the URI and on a look at what exists ([`Places`]). Refuses transports and parameters that this version can't
//! follow, rather than to leave them out.

use std::env;
use std::path::{Path, PathBuf};

use super::Uri;
use super::autostart::Daemon;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Where to go, and what to say there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// The socket.
    pub(super) socket: PathBuf,
    /// Who listens there, and may be started.
    pub(super) daemon: Option<Daemon>,
    /// What CONNECT_OPEN names.
    pub(super) name: String,
    /// The host's system token.
    pub(super) token: PathBuf,
    /// How to authenticate; `None`: as the server prefers.
    pub(super) authentication: Option<Authentication>,
}

/// Ways to authenticate that a URI may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Authentication {
    /// By this mechanism; `None`: by the best that both sides have.
    Sasl(Option<String>),
    Polkit,
}

/// Where libvirt's daemons of this host have their sockets, as seen by this process.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) system: PathBuf,
    /// `None` if the environment doesn't say.
    pub(super) session: Option<PathBuf>,
    pub(super) is_root: bool,
    pub(super) autostart: bool,
}

impl Places {
    /// Those of this process.
    pub(super) fn here() -> Self {
        let directory = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let session = directory("XDG_RUNTIME_DIR")
            .or_else(|| directory("XDG_CACHE_HOME"))
            .or_else(|| directory("HOME").map(|home| home.join(".cache")));
        Self {
            system: PathBuf::from("/run/libvirt"),
            session: session.map(|directory| directory.join("libvirt")),
            is_root: rustix::process::geteuid().is_root(),
            autostart: env::var_os("LIBVIRT_AUTOSTART").is_none_or(|it| it != "0"),
        }
    }
}

impl Route {
    /// The way that `uri`, written `text`, names.
    pub(super) fn find(text: &str, uri: &Uri, read_only: bool, places: &Places) -> Result<Self, Error> {
        check_transport(text, uri)?;
        // root's own session is the system.
        let is_session = uri.path == "/session" && !places.is_root;
        let directory = match &places.session {
            Some(session) if is_session => session,
            None if is_session => {
                return Err(Error::failed("where this user's daemons listen isn't known").advise(
                    "set XDG_RUNTIME_DIR, or HOME; or name the socket: secret:///session?socket=PATH",
                ));
            }
            _ => &places.system,
        };
        let mode = uri.param("mode").unwrap_or("auto");
        let suffix = if read_only && !is_session { "-ro" } else { "" };
        let (direct, legacy) = (format!("virtsecretd-sock{suffix}"), format!("libvirt-sock{suffix}"));
        let (direct, legacy) = (directory.join(direct), directory.join(legacy));
        let (socket, daemon) = match mode {
            "direct" => (direct, Daemon::Secret),
            "legacy" => (legacy, Daemon::Libvirt),
            "auto" if !direct.exists() && legacy.exists() => (legacy, Daemon::Libvirt),
            "auto" => (direct, Daemon::Secret),
            other => {
                return Err(invalid(format!("Unknown remote mode '{other}'"))
                    .advise("modes are auto, direct (virtsecretd's socket) and legacy (libvirtd's)"));
            }
        };
        let named = uri.param("socket").map(PathBuf::from);
        // A daemon with sockets of its own has a token of its own beside them.
        let common = Path::new("common/system.token");
        let beside = named.as_deref().and_then(Path::parent).map(|directory| directory.join(common));
        let token = beside.filter(|token| token.exists()).unwrap_or_else(|| directory.join(common));
        // A daemon that we start listens at its own place.
        let daemon = Some(daemon).filter(|_| is_session && places.autostart && named.is_none());
        Ok(Self {
            socket: named.unwrap_or(socket),
            daemon,
            name: uri.param("name").map_or_else(|| name(uri), str::to_owned),
            token,
            authentication: uri.param("auth").map(authentication).transpose()?,
        })
    }
}

fn check_transport(text: &str, uri: &Uri) -> Result<(), Error> {
    let transport = uri.transport.as_deref().map(str::to_ascii_lowercase);
    match (transport.as_deref(), &uri.host) {
        (None | Some("unix"), None) => Ok(()),
        (Some("unix"), Some(host)) => {
            Err(invalid(format!("using unix socket and remote server '{host}' is not supported."))
                .advise("leave out the host: secret+unix:///system"))
        }
        (None, Some(_)) | (Some("tls" | "tcp" | "ssh" | "libssh" | "libssh2" | "ext"), _) => {
            Err(Error::no_driver_for(text).advise(
                "this version reaches daemons of this host only: secret:///system, secret:///session",
            ))
        }
        (Some(_), _) => Err(invalid(
            "remote_open: transport in URL not recognised (should be tls|unix|ssh|ext|tcp|libssh2|libssh)",
        )),
    }
}

fn authentication(wanted: &str) -> Result<Authentication, Error> {
    match wanted {
        "polkit" => Ok(Authentication::Polkit),
        "sasl" => Ok(Authentication::Sasl(None)),
        _ if wanted.starts_with("sasl.") => {
            Ok(Authentication::Sasl(Some(wanted["sasl.".len()..].to_owned())))
        }
        other => Err(Error::new(
            ErrorCode::AuthFailed,
            ErrorDomain::Remote,
            format!("unknown authentication type {other}"),
        )
        .advise("auth= takes polkit, sasl or sasl.MECHANISM")),
    }
}

/// The URI as the server shall see it: without the way to it.
fn name(uri: &Uri) -> String {
    let mut name = format!("{}://{}", uri.scheme, encoded(&uri.path, b"/"));
    let params = uri.params.iter().filter(|(param, _)| !OURS.contains(&param.as_str()));
    for (at, (param, value)) in params.enumerate() {
        let mark = if at == 0 { '?' } else { '&' };
        name.push_str(&format!("{mark}{}={}", encoded(param, b""), encoded(value, b"/")));
    }
    if let Some(fragment) = &uri.fragment {
        name.push_str(&format!("#{}", encoded(fragment, b"/")));
    }
    name
}

/// Percent-encoded, but for what every URI may hold and for `kept`.
fn encoded(text: &str, kept: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArg, ErrorDomain::Remote, detail)
}

/// Parameters that say how to get to a server. It doesn't hear of them.
const OURS: [&str; 18] = [
    "name",
    "mode",
    "socket",
    "auth",
    "authfile",
    "proxy",
    "netcat",
    "command",
    "keyfile",
    "no_verify",
    "no_tty",
    "sshauth",
    "known_hosts",
    "known_hosts_verify",
    "pkipath",
    "no_sanity",
    "tls_priority",
    "argv",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            for directory in ["system", "session"] {
                fs::create_dir(host.0.path().join(directory)).unwrap();
            }
            host
        }

        fn with(self, file: &str) -> Self {
            fs::write(self.0.path().join(file), "").unwrap();
            self
        }

        fn find(&self, text: &str, read_only: bool, is_root: bool) -> Result<Route, Error> {
            let (system, session) = (self.0.path().join("system"), Some(self.0.path().join("session")));
            let places = Places { system, session, is_root, autostart: true };
            Route::find(text, &Uri::parse(text).unwrap(), read_only, &places)
        }

        /// The socket that a user's URI leads to.
        fn socket(&self, text: &str, read_only: bool) -> String {
            let found = self.find(text, read_only, false).unwrap().socket;
            found.strip_prefix(self.0.path()).unwrap_or(&found).to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn the_mode_and_what_exists_decide_the_socket() {
        for (file, uri, read_only, socket) in [
            ("x", "secret:///system", false, "system/virtsecretd-sock"),
            ("x", "secret:///system", true, "system/virtsecretd-sock-ro"),
            ("x", "secret+UNIX:///system?mode=legacy", true, "system/libvirt-sock-ro"),
            ("x", "secret:///session", true, "session/virtsecretd-sock"),
            ("system/libvirt-sock", "secret:///system", false, "system/libvirt-sock"),
            ("system/libvirt-sock", "secret:///system", true, "system/virtsecretd-sock-ro"),
            ("system/libvirt-sock", "secret:///session", false, "session/virtsecretd-sock"),
            ("session/libvirt-sock", "secret:///session", false, "session/libvirt-sock"),
            ("session/libvirt-sock", "secret:///session?mode=direct", false, "session/virtsecretd-sock"),
            ("x", "secret:///session?socket=/a%20b", true, "/a b"),
        ] {
            assert_eq!(Host::new().with(file).socket(uri, read_only), socket, "{uri} {file}");
        }
        let both = Host::new().with("system/libvirt-sock").with("system/virtsecretd-sock");
        assert_eq!(both.socket("secret:///system", false), "system/virtsecretd-sock");
    }

    #[test]
    fn only_a_sessions_own_daemon_is_started() {
        let host = Host::new();
        let daemon = |uri: &str, is_root| host.find(uri, false, is_root).unwrap().daemon;
        assert_eq!(daemon("secret:///session", false), Some(Daemon::Secret));
        assert_eq!(daemon("secret:///session?mode=legacy", false), Some(Daemon::Libvirt));
        assert_eq!(daemon("secret:///session", true), None);
        assert_eq!(daemon("secret:///system", false), None);
        assert_eq!(daemon("secret:///session?socket=/x", false), None);
    }

    #[test]
    fn the_server_hears_the_uri_without_the_way() {
        let host = Host::new();
        for (uri, name) in [
            ("secret:///system", "secret:///system"),
            ("secret+unix:///session?mode=direct&socket=/x&auth=polkit", "secret:///session"),
            ("secret:/system", "secret:///system"),
            ("secret:///system?mode=auto&foo=b%20r&c#frag", "secret:///system?foo=b%20r&c=#frag"),
            ("secret:///system?name=secret:///other%3Fx", "secret:///other?x"),
        ] {
            assert_eq!(host.find(uri, false, false).unwrap().name, name, "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let host = Host::new();
        for (uri, code, text) in [
            ("secret:///system?mode=x", 8, "Unknown remote mode 'x'"),
            ("secret+unix://h/system", 8, "using unix socket and remote server 'h' is not supported."),
            ("secret+pigeon:///system", 8, "transport in URL not recognised"),
            ("secret://h/system", 5, "no connection driver available for secret://h/system"),
            ("secret+ssh://h/system", 5, "no connection driver available for secret+ssh://h/system"),
            ("secret:///system?auth=hope", 45, "authentication failed: unknown authentication type hope"),
        ] {
            let error = host.find(uri, false, false).unwrap_err();
            assert_eq!(error.code().number(), code, "{uri}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
