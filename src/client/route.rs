//! From a URI to a way: which transport, to which socket or host, what the server there is asked to open, whom it may be.
//!
//! Leans on the URI, on a look at what exists and on what the user prefers ([`Places`]). Refuses what libvirt refuses, in its
//! words, before anything is connected. A parameter that another transport would heed is left out of account, as libvirt
//! does; one that none knows goes to the server.

use std::env;
use std::path::{Path, PathBuf};

use super::Uri;
use super::autostart::Daemon;
use super::far::far;
use super::libssh::{HostCheck, Libssh, Method};
use super::name::{misspelt, name};
use super::preferences::{Preferences, configuration};
use super::program::Program;
use super::ssh::Ssh;
use super::tls::Tls;
use super::way::{Unix, Way};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Where to go, and what to say there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) way: Way,
    /// What CONNECT_OPEN names.
    pub(super) name: String,
    /// How to authenticate; `None`: as the server prefers.
    pub(super) authentication: Option<Authentication>,
    /// Whose credentials are meant.
    pub(super) host: String,
    /// Who we say that we are.
    pub(super) user: Option<String>,
    /// The file with credentials, where the URI names one.
    pub(super) authfile: Option<PathBuf>,
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
    pub(super) preferences: Preferences,
}

impl Places {
    /// Those of this process, whose user prefers this.
    pub(super) fn here(preferences: Preferences) -> Self {
        let directory = |name| env::var_os(name).filter(|it| !it.is_empty()).map(PathBuf::from);
        let session = directory("XDG_RUNTIME_DIR")
            .or_else(|| directory("XDG_CACHE_HOME"))
            .or_else(|| directory("HOME").map(|home| home.join(".cache")));
        Self {
            system: PathBuf::from("/run/libvirt"),
            session: session.map(|directory| directory.join("libvirt")),
            is_root: rustix::process::geteuid().is_root(),
            autostart: env::var_os("LIBVIRT_AUTOSTART").is_none_or(|it| it != "0"),
            preferences,
        }
    }
}

impl Route {
    /// The way that `uri` names.
    pub(super) fn find(uri: &Uri, read_only: bool, places: &Places) -> Result<Self, Error> {
        for (given, known) in misspelt(uri) {
            tracing::warn!("the URI's parameter '{given}' goes to the server as it is: is '{known}' meant?");
        }
        let transport = Transport::of(uri)?;
        let numbers = Numbers::of(uri)?;
        let mode = mode(uri, places)?;
        let host = uri.host.clone().unwrap_or_else(|| "localhost".to_owned());
        let port = uri.port.filter(|&port| port != 0);
        let text = |name: &str| uri.setting(name).map(str::to_owned);
        let way = match transport {
            Transport::Unix => Way::Unix(unix(uri, mode, read_only, places)?),
            Transport::Tcp => {
                Way::Tcp { host: host.clone(), port: port.unwrap_or(TCP_PORT), cleartext: numbers.cleartext }
            }
            Transport::Tls => Way::Tls(Tls {
                host: host.clone(),
                port: port.unwrap_or(TLS_PORT),
                pkipath: text("pkipath").map(PathBuf::from),
                sanity: !numbers.no_sanity,
                verify: !numbers.no_verify,
                priority: match text("tls_priority") {
                    Some(priority) => Some(priority),
                    None => places.preferences.tls_priority()?.map(str::to_owned),
                },
            }),
            Transport::Ssh => Way::Ssh(Ssh {
                program: text("command").unwrap_or_else(|| "ssh".to_owned()),
                far: far(uri, mode, "ssh", read_only, places)?,
                host: host.clone(),
                port,
                user: uri.user.clone(),
                key: text("keyfile"),
                verify: !numbers.no_verify,
                may_ask: !numbers.no_tty,
            }),
            Transport::Libssh(called) => Way::Libssh(Libssh {
                far: far(uri, mode, called, read_only, places)?,
                host: host.clone(),
                port: port.unwrap_or(SSH_PORT),
                user: uri.user.clone(),
                authfile: text("authfile").map(PathBuf::from),
                key: text("keyfile").map(PathBuf::from),
                methods: Method::list(uri.setting("sshauth"))?,
                known_hosts: text("known_hosts")
                    .map(PathBuf::from)
                    .or_else(|| Some(configuration()?.join("libvirt/known_hosts"))),
                check: HostCheck::named(uri.setting("known_hosts_verify"))?,
            }),
            Transport::Ext => Way::Ext(Program {
                name: text("command").ok_or_else(|| {
                    invalid("remote_open: for 'ext' transport, command is required")
                        .advise("name the program in the URI: ?command=/path/to/program")
                })?,
                arguments: uri
                    .params
                    .iter()
                    .filter(|(name, _)| name == "argv")
                    .map(|(_, it)| it.clone())
                    .collect(),
                variables: &[],
                advice: "run the program by hand: it must connect its standard input and output to a daemon"
                    .to_owned(),
            }),
        };
        Ok(Self {
            way,
            name: uri.setting("name").map_or_else(|| name(uri, &[]), str::to_owned),
            authentication: uri.setting("auth").map(authentication).transpose()?,
            host,
            user: uri.user.clone(),
            authfile: uri.setting("authfile").map(PathBuf::from),
        })
    }
}

/// A transport, by its name in a URI.
#[derive(Debug, Clone, Copy)]
enum Transport {
    Unix,
    Tls,
    Tcp,
    Ssh,
    /// With libvirt's two libraries we have one, and its two names.
    Libssh(&'static str),
    Ext,
}

impl Transport {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let name = uri.transport.as_deref().map(str::to_ascii_lowercase);
        Ok(match (name.as_deref(), &uri.host) {
            (None | Some("unix"), None) => Self::Unix,
            (Some("unix"), Some(host)) => {
                let detail = format!("using unix socket and remote server '{host}' is not supported.");
                return Err(invalid(detail).advise("leave out the host: secret+unix:///system"));
            }
            (None | Some("tls"), _) => Self::Tls,
            (Some("tcp"), _) => Self::Tcp,
            (Some("ssh"), _) => Self::Ssh,
            (Some("libssh"), _) => Self::Libssh("libssh"),
            (Some("libssh2"), _) => Self::Libssh("libssh2"),
            (Some("ext"), _) => Self::Ext,
            (Some(_), _) => {
                return Err(invalid(
                    "remote_open: transport in URL not recognised (should be tls|unix|ssh|ext|tcp|libssh2|libssh)",
                ));
            }
        })
    }
}

/// Which of a host's daemons is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Auto,
    /// The secret driver's own.
    Direct,
    /// The one with all drivers.
    Legacy,
}

fn mode(uri: &Uri, places: &Places) -> Result<Mode, Error> {
    let wanted = match uri.setting("mode") {
        Some(mode) => Some(mode),
        None => places.preferences.mode()?,
    };
    match wanted {
        None | Some("auto") => Ok(Mode::Auto),
        Some("direct") => Ok(Mode::Direct),
        Some("legacy") => Ok(Mode::Legacy),
        Some(other) => Err(invalid(format!("Unknown remote mode '{other}'"))
            .advise("modes are auto, direct (virtsecretd's socket) and legacy (libvirtd's)")),
    }
}

/// The parameters that are numbers. They must be, whether this transport heeds them or not.
struct Numbers {
    no_verify: bool,
    no_sanity: bool,
    no_tty: bool,
    cleartext: bool,
}

impl Numbers {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let is_set = |name: &str| match uri.setting(name).map(|text| text.trim_start().parse::<i32>()) {
            None => Ok(false),
            Some(Ok(number)) => Ok(number != 0),
            Some(Err(_)) => Err(invalid(format!("Failed to parse value of URI component {name}"))
                .advise(format!("{name}=1 or {name}=0"))),
        };
        Ok(Self {
            no_verify: is_set("no_verify")?,
            no_sanity: is_set("no_sanity")?,
            no_tty: is_set("no_tty")?,
            cleartext: is_set("cleartext")?,
        })
    }
}

/// A daemon's socket on this host.
fn unix(uri: &Uri, mode: Mode, read_only: bool, places: &Places) -> Result<Unix, Error> {
    // root's own session is the system.
    let is_session = uri.path == "/session" && !places.is_root;
    let directory = match &places.session {
        Some(session) if is_session => session,
        None if is_session => {
            return Err(Error::failed("where this user's daemons listen isn't known")
                .advise("set XDG_RUNTIME_DIR, or HOME; or name the socket: secret:///session?socket=PATH"));
        }
        _ => &places.system,
    };
    let suffix = if read_only && !is_session { "-ro" } else { "" };
    let there = |daemon: &str| directory.join(format!("{daemon}-sock{suffix}"));
    let driver = &uri.scheme;
    let direct = DRIVERS.contains(&driver.as_str()).then(|| there(&format!("virt{driver}d")));
    let legacy = there("libvirt");
    let (socket, daemon) = match (mode, direct) {
        (Mode::Legacy, _) | (_, None) => (legacy, Daemon::Libvirt),
        (Mode::Auto, Some(direct)) if !direct.exists() && legacy.exists() => (legacy, Daemon::Libvirt),
        (Mode::Direct | Mode::Auto, Some(direct)) => (direct, Daemon::Secret),
    };
    let named = uri.setting("socket").map(PathBuf::from);
    // A daemon with sockets of its own has a token of its own beside them.
    let common = Path::new("common/system.token");
    let beside = named.as_deref().and_then(Path::parent).map(|directory| directory.join(common));
    let token = beside.filter(|token| token.exists()).unwrap_or_else(|| directory.join(common));
    // A daemon that we start listens at its own place. Those of other drivers are no business of ours.
    let may_start = is_session && places.autostart && named.is_none() && driver == "secret";
    let daemon = Some(daemon).filter(|_| may_start);
    Ok(Unix { socket: named.unwrap_or(socket), daemon, token })
}

fn authentication(wanted: &str) -> Result<Authentication, Error> {
    let (kind, mechanism) = match wanted.split_once('.') {
        Some((kind, mechanism)) => (kind, Some(mechanism.to_owned())),
        None => (wanted, None),
    };
    match (kind.to_ascii_lowercase().as_str(), mechanism) {
        ("polkit", None) => Ok(Authentication::Polkit),
        ("sasl", mechanism) => Ok(Authentication::Sasl(mechanism)),
        _ => Err(Error::new(
            ErrorCode::AuthFailed,
            ErrorDomain::Remote,
            format!("unknown authentication type {wanted}"),
        )
        .advise("auth= takes polkit, sasl or sasl.MECHANISM")),
    }
}

pub(super) fn invalid(detail: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArg, ErrorDomain::Remote, detail)
}

/// libvirt's drivers that may have a daemon of their own. All others are served by libvirtd.
const DRIVERS: [&str; 13] = [
    "bhyve",
    "ch",
    "interface",
    "lxc",
    "network",
    "nodedev",
    "nwfilter",
    "qemu",
    "secret",
    "storage",
    "vbox",
    "vz",
    "xen",
];

/// Where daemons listen, where nobody says otherwise.
const TLS_PORT: u16 = 16514;
const TCP_PORT: u16 = 16509;
const SSH_PORT: u16 = 22;

#[cfg(test)]
mod tests {
    use super::super::ssh::Proxy;
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
            let preferences = Preferences::none();
            let places = Places { system, session, is_root, autostart: true, preferences };
            Route::find(&Uri::parse(text).unwrap(), read_only, &places)
        }

        fn unix(&self, text: &str, read_only: bool, is_root: bool) -> Unix {
            match self.find(text, read_only, is_root).unwrap().way {
                Way::Unix(unix) => unix,
                other => panic!("{text}: {other:?}"),
            }
        }

        /// The socket that a user's URI leads to.
        fn socket(&self, text: &str, read_only: bool) -> String {
            let found = self.unix(text, read_only, false).socket;
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
            ("x", "qemu:///system", true, "system/virtqemud-sock-ro"),
            ("system/libvirt-sock", "qemu:///system", false, "system/libvirt-sock"),
            ("x", "storage:///session", false, "session/virtstoraged-sock"),
            ("x", "test:///default", false, "system/libvirt-sock"),
        ] {
            assert_eq!(Host::new().with(file).socket(uri, read_only), socket, "{uri} {file}");
        }
        let both = Host::new().with("system/libvirt-sock").with("system/virtsecretd-sock");
        assert_eq!(both.socket("secret:///system", false), "system/virtsecretd-sock");
    }

    #[test]
    fn only_a_sessions_own_daemon_is_started() {
        let host = Host::new();
        let daemon = |uri: &str, is_root| host.unix(uri, false, is_root).daemon;
        assert_eq!(daemon("secret:///session", false), Some(Daemon::Secret));
        assert_eq!(daemon("secret:///session?mode=legacy", false), Some(Daemon::Libvirt));
        assert_eq!(daemon("secret:///session", true), None);
        assert_eq!(daemon("secret:///system", false), None);
        assert_eq!(daemon("secret:///session?socket=/x", false), None);
        assert_eq!(daemon("qemu:///session", false), None);
        assert_eq!(daemon("qemu:///session?mode=legacy", false), None);
    }

    #[test]
    fn a_parameter_that_is_nearly_one_of_ours_is_told_of_and_sent_all_the_same() {
        let misspelt = |text: &str| {
            let uri = Uri::parse(text).unwrap();
            misspelt(&uri).map(|(given, known)| format!("{given}: {known}")).collect::<Vec<_>>().join(", ")
        };
        let both = "secret://h/system?no_verfy=1&socet=/x&no_verify=0";
        assert_eq!(misspelt(both), "no_verfy: no_verify, socet: socket");
        assert_eq!(misspelt("secret://h/system?pkipath=/p&foo=1&x=2&=3&No_Verify=1"), "");
        let name = Host::new().find(both, false, false).unwrap().name;
        assert_eq!(name, "secret:///system?no_verfy=1&socet=/x");
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
    fn every_transport_has_its_defaults() {
        let host = Host::new();
        let way = |uri: &str| host.find(uri, false, true).unwrap().way;
        let (h, localhost) = ("h".to_owned(), "localhost".to_owned());
        let tcp = |host: &str, port, cleartext| Way::Tcp { host: host.to_owned(), port, cleartext };
        assert_eq!(way("secret+tcp://h/system"), tcp(&h, 16509, false));
        assert_eq!(way("secret+TCP:///system"), tcp(&localhost, 16509, false));
        assert_eq!(way("secret+tcp://h:7/system?socket=/x"), tcp(&h, 7, false));
        assert_eq!(way("secret+tcp://h/system?cleartext=1"), tcp(&h, 16509, true));
        let tls = Tls { host: h, port: 16514, pkipath: None, sanity: true, verify: true, priority: None };
        assert_eq!(way("secret://h/system"), Way::Tls(tls.clone()));
        let tls = Tls {
            pkipath: Some("/p".into()),
            sanity: false,
            verify: false,
            priority: Some("NORMAL".to_owned()),
            ..tls
        };
        let all = "secret+tls://h/system?pkipath=/p&no_sanity=1&no_verify=-1&tls_priority=NORMAL";
        assert_eq!(way(all), Way::Tls(tls));
        let Way::Libssh(libssh) = way("secret+libssh2://u@h/system?keyfile=/k") else { panic!() };
        assert_eq!((libssh.port, libssh.user.as_deref(), libssh.check), (22, Some("u"), HostCheck::Normal));
        assert_eq!(libssh.methods.len(), 4);
        let Way::Ext(program) = way("secret+ext://h/system?command=/c&argv=a&argv=b%20c") else { panic!() };
        assert_eq!(
            (program.name.as_str(), program.arguments),
            ("/c", vec!["a".to_owned(), "b c".to_owned()])
        );
        let route = host.find("secret+ssh://u@h/system?auth=sasl.X&authfile=/a", false, true).unwrap();
        assert_eq!((route.host.as_str(), route.user.as_deref()), ("h", Some("u")));
        assert_eq!(route.authentication, Some(Authentication::Sasl(Some("X".to_owned()))));
        assert_eq!(route.authfile.as_deref(), Some(Path::new("/a")));
    }

    #[test]
    fn the_far_host_is_told_what_libvirt_tells_it() {
        let host = Host::new();
        let far = |uri: &str, read_only, is_root| match host.find(uri, read_only, is_root).unwrap().way {
            Way::Ssh(ssh) => (ssh.far.proxy, ssh.far.uri, ssh.far.sockets.join(" ")),
            other => panic!("{other:?}"),
        };
        let (direct, legacy) = ("/var/run/libvirt/virtsecretd-sock", "/var/run/libvirt/libvirt-sock");
        for (uri, read_only, is_root, proxy, named, sockets) in [
            (
                "secret+ssh://h/system",
                false,
                false,
                Proxy::Auto,
                "secret:///system",
                format!("{direct} {legacy}"),
            ),
            (
                "secret+ssh://u@h:7/system?foo=a&keyfile=/k",
                true,
                false,
                Proxy::Auto,
                "secret:///system?foo=a",
                format!("{direct}-ro {legacy}-ro"),
            ),
            (
                "secret+ssh://h/session?mode=legacy",
                false,
                false,
                Proxy::Native,
                "secret:///session?mode=legacy",
                legacy.to_owned(),
            ),
            (
                "secret+ssh://h/session?proxy=auto",
                false,
                true,
                Proxy::Native,
                "secret:///session",
                format!("{direct} {legacy}"),
            ),
            (
                "secret+ssh://h/session?socket=/a%20b",
                true,
                false,
                Proxy::Netcat,
                "secret:///session?socket=/a%20b",
                "/a b".to_owned(),
            ),
            (
                "secret+ssh://h/system?netcat=nc&proxy=auto&mode=legacy",
                false,
                false,
                Proxy::Netcat,
                "secret:///system?mode=legacy",
                legacy.to_owned(),
            ),
            (
                "secret+ssh://h/system?name=x:///y",
                false,
                false,
                Proxy::Auto,
                "x:///y",
                format!("{direct} {legacy}"),
            ),
        ] {
            assert_eq!(far(uri, read_only, is_root), (proxy, named.to_owned(), sockets), "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_followed_is_refused() {
        let host = Host::new();
        for (uri, code, text) in [
            ("secret:///system?mode=x", 8, "Unknown remote mode 'x'"),
            ("secret+unix://h/system", 8, "using unix socket and remote server 'h' is not supported."),
            ("secret+pigeon:///system", 8, "transport in URL not recognised"),
            ("secret:///system?mode=", 8, "Unknown remote mode ''"),
            ("secret+ext://h/system", 8, "remote_open: for 'ext' transport, command is required"),
            ("secret+ssh://h/system?mode=direct", 84, "Cannot use direct socket mode for ssh transport"),
            (
                "secret+libssh2://h/system?mode=direct",
                84,
                "Cannot use direct socket mode for libssh2 transport",
            ),
            (
                "secret+ssh://h/system?netcat=x&proxy=native",
                8,
                "netcat path not valid with native proxy mode",
            ),
            ("secret+ssh://h/session?proxy=netcat", 8, "netcat finds the system's socket alone"),
            ("secret+libssh://h/session?netcat=nc", 8, "netcat finds the system's socket alone"),
            ("secret+ssh://h/system?proxy=foo", 8, "invalid argument: Unknown proxy type 'foo'"),
            ("secret+libssh://h/system?known_hosts_verify=x", 8, "Invalid host key verification method: 'x'"),
            ("secret+libssh://h/system?sshauth=agent,x", 8, "Invalid authentication method: 'x'"),
            ("secret://h/system?no_verify=1x", 8, "Failed to parse value of URI component no_verify"),
            ("secret:///system?no_sanity=", 8, "Failed to parse value of URI component no_sanity"),
            ("secret+ssh://h/system?no_tty=y", 8, "Failed to parse value of URI component no_tty"),
            ("secret:///system?auth=hope", 45, "authentication failed: unknown authentication type hope"),
        ] {
            let error = host.find(uri, false, false).unwrap_err();
            assert_eq!(error.code().number(), code, "{uri}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
