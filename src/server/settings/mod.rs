//! `virtsecretd.conf`, typed: libvirt's keys and defaults, and some of our own.
//!
//! Leans on `conf`. docs/install/virtsecretd.conf explains each key. Refuses what it can't do but what somebody relies
//! on: an unknown way to authenticate, access control, required auditing, and a socket that lets every local user in
//! unasked. What has no effect here and does no harm is a warning, so is a key that nobody knows. [`network`] has what is
//! about the network.

mod network;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) use network::Network;

use super::listen::is_abstract;
use crate::conf::{CONFIG_UNSUPPORTED, Conf, ConfError, INTERNAL_ERROR, SYSTEM_ERROR, nearest};
use crate::net::tls::Certificates;

/// How the daemon is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// The group of the main and the read-only socket, by name or number. Not with activated sockets.
    pub(super) unix_sock_group: Option<String>,
    /// Where the sockets are: an absolute path, or `@name` for abstract ones. `None`: the usual place.
    pub(super) unix_sock_dir: Option<PathBuf>,
    /// The mode of the read-only socket.
    pub(super) unix_sock_ro_perms: u32,
    /// The mode of the main socket. Private: [`Settings::main_socket_mode`] gives it, once it is safe.
    unix_sock_rw_perms: u32,
    /// The mode of the admin socket.
    pub(super) unix_sock_admin_perms: u32,
    /// Who may use the read-only socket.
    pub(super) auth_unix_ro: Auth,
    /// Who may use the main socket.
    pub(super) auth_unix_rw: Auth,
    /// Where it listens on the network, and to whom.
    pub(super) network: Network,
    /// For the main and the read-only socket, and for the network.
    pub(super) limits: Limits,
    /// For the admin socket.
    pub(super) admin_limits: Limits,
    /// 1 debug, 2 info, 3 warning, 4 error.
    pub(super) log_level: u32,
    /// In libvirt's form, not looked into. See [`Settings::wrong`].
    pub(super) log_filters: Option<String>,
    /// In libvirt's form, not looked into.
    pub(super) log_outputs: Option<String>,
    /// The file of the host key. `None`: the usual places.
    pub(super) host_key_file: Option<PathBuf>,
    /// The token that this host's daemons share. `None`: libvirt's place.
    pub(super) system_token_file: Option<PathBuf>,
    /// Whether a keystore that is made now keeps `<uuid>.xml` beside it.
    pub(super) xml_copies: bool,
    /// Whether a keystore that is made now takes in what libvirt's own driver left in its directory.
    pub(super) import_at_first_start: bool,
    /// The file of the key that libvirt's driver encrypted values with. `None`: the systemd credential.
    pub(super) import_key_file: Option<PathBuf>,
    /// Days after which `status` asks for a new epoch. `None`: never.
    pub(super) rotate_after_days: Option<u32>,
    /// Writes after which it does. `None`: never.
    pub(super) rotate_after_writes: Option<u32>,
    /// Whether an open socket is meant to be open.
    allow_unauthenticated: bool,
    /// Where all this was said.
    source: Conf,
}

/// How clients prove that they may connect. This host's root needs no proof where polkit is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Auth {
    /// Whoever can open the socket may use it.
    None,
    /// polkit decides.
    Polkit,
    /// By SASL.
    Sasl,
}

/// What one server (the main one, or that of the admin socket) spends on its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limits {
    /// Threads that are kept, at most `max_workers`.
    pub(super) min_workers: u32,
    /// Most threads, at least 1.
    pub(super) max_workers: u32,
    /// Further threads for calls that never wait long.
    pub(super) prio_workers: u32,
    /// Most connections, at least 1.
    pub(super) max_clients: u32,
    /// Most connections that wait to be accepted.
    pub(super) max_queued_clients: u32,
    /// Most connections that haven't authenticated yet, at most `max_clients`. `None`: no such limit.
    pub(super) max_anonymous_clients: Option<u32>,
    /// Most calls of one connection that are under way, at least 1.
    pub(super) max_client_requests: u32,
    /// How long a silent connection is left alone. `None`: for ever.
    pub(super) keepalive_interval: Option<Duration>,
    /// How many such silences end it.
    pub(super) keepalive_count: u32,
}

/// Something in the file that has no effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Warning {
    file: PathBuf,
    line: u32,
    text: String,
}

impl Settings {
    /// Reads a file and says what in it has no effect. It must be there if somebody `named` it. `privileged`: for root,
    /// who has other defaults than a user.
    pub(super) fn read(
        file: &Path,
        named: bool,
        privileged: bool,
    ) -> Result<(Self, Vec<Warning>), ConfError> {
        let conf = match Conf::read(file)? {
            Some(conf) => conf,
            None if named => {
                let text =
                    format!("cannot read the configuration file '{}': it does not exist", file.display());
                let advice = "name a file that exists, or leave --config away to run with the defaults";
                return Err(Conf::empty(file).mistake(SYSTEM_ERROR, text, advice));
            }
            None => Conf::empty(file),
        };
        let settings = Self::from_conf(conf, privileged)?;
        let warnings = warnings(&settings.source);
        Ok((settings, warnings))
    }

    /// The file that is read if none is named: beside the keystore of `--root`, else where libvirt has it.
    /// `config_home` is a user's `$XDG_CONFIG_HOME` or `~/.config`.
    pub(super) fn default_file(root: Option<&Path>, config_home: Option<&Path>) -> PathBuf {
        match (root, config_home) {
            (Some(root), _) => root.join("etc").join(FILE),
            (None, Some(home)) => home.join("libvirt").join(FILE),
            (None, None) => Path::new("/etc/libvirt").join(FILE),
        }
    }

    /// What holds without a file.
    pub(super) fn default_for(privileged: bool) -> Self {
        let polkit = privileged && cfg!(feature = "polkit");
        let auth = if polkit { Auth::Polkit } else { Auth::None };
        let limits = Limits {
            min_workers: 5,
            max_workers: 20,
            prio_workers: 5,
            max_clients: 5000,
            max_queued_clients: 1000,
            max_anonymous_clients: Some(20),
            max_client_requests: 5,
            keepalive_interval: Some(Duration::from_secs(5)),
            keepalive_count: 5,
        };
        let admin_limits =
            Limits { prio_workers: 0, max_queued_clients: 20, max_anonymous_clients: None, ..limits.clone() };
        Self {
            unix_sock_group: None,
            unix_sock_dir: None,
            unix_sock_ro_perms: 0o777,
            unix_sock_rw_perms: if polkit { 0o777 } else { 0o700 },
            unix_sock_admin_perms: 0o700,
            auth_unix_ro: auth,
            auth_unix_rw: auth,
            network: Network::default(),
            limits,
            admin_limits,
            log_level: 3,
            log_filters: None,
            log_outputs: None,
            host_key_file: None,
            system_token_file: None,
            xml_copies: true,
            import_at_first_start: false,
            import_key_file: None,
            rotate_after_days: Some(365),
            rotate_after_writes: Some(u32::MAX),
            allow_unauthenticated: false,
            source: Conf::empty(Path::new(FILE)),
        }
    }

    fn from_conf(conf: Conf, privileged: bool) -> Result<Self, ConfError> {
        let mut settings = Self::default_for(privileged);
        let text = |key| Ok(conf.string(key)?.map(str::to_owned));
        settings.auth_unix_ro = auth(&conf, "auth_unix_ro")?.unwrap_or(settings.auth_unix_ro);
        settings.auth_unix_rw = auth(&conf, "auth_unix_rw")?.unwrap_or(settings.auth_unix_rw);
        settings.unix_sock_group = text("unix_sock_group")?;
        settings.unix_sock_dir = socket_directory(&conf)?;
        settings.unix_sock_ro_perms = mode(&conf, "unix_sock_ro_perms", settings.unix_sock_ro_perms)?;
        if settings.auth_unix_rw == Auth::Polkit {
            settings.unix_sock_rw_perms = 0o777; // polkit decides, so all may ask
        }
        settings.unix_sock_rw_perms = mode(&conf, "unix_sock_rw_perms", settings.unix_sock_rw_perms)?;
        settings.unix_sock_admin_perms =
            mode(&conf, "unix_sock_admin_perms", settings.unix_sock_admin_perms)?;
        settings.network = Network::from_conf(&conf)?;
        settings.limits = limits(&conf, "", settings.limits)?;
        settings.admin_limits = limits(&conf, "admin_", settings.admin_limits)?;
        settings.log_level = match conf.unsigned("log_level", settings.log_level)? {
            None | Some(0) => settings.log_level,
            Some(level @ 1..=4) => level,
            Some(level) => {
                let text = format!("Failed to set logging priority, argument '{level}' is invalid");
                return Err(wrong(
                    &conf,
                    "log_level",
                    &text,
                    "write 1 (debug), 2 (info), 3 (warning, the default) or 4 (error)",
                ));
            }
        };
        settings.log_filters = text("log_filters")?;
        settings.log_outputs = text("log_outputs")?;
        settings.host_key_file = conf.path("host_key_file")?;
        settings.system_token_file = conf.path("system_token_file")?;
        let boolean = |key, default| Ok(conf.boolean(key, default)?.unwrap_or(default));
        settings.xml_copies = boolean("xml_copies", settings.xml_copies)?;
        settings.import_at_first_start = boolean("import_at_first_start", settings.import_at_first_start)?;
        settings.import_key_file = conf.path("import_key_file")?;
        let limit = |key, default: Option<u32>| {
            let number = conf.unsigned(key, default.unwrap_or(0))?;
            Ok(number.map_or(default, |number| Some(number).filter(|number| *number > 0)))
        };
        settings.rotate_after_days = limit("rotate_after_days", settings.rotate_after_days)?;
        settings.rotate_after_writes = limit("rotate_after_writes", settings.rotate_after_writes)?;
        settings.allow_unauthenticated = boolean("allow_unauthenticated", settings.allow_unauthenticated)?;
        refuse_what_is_missing(&conf)?;
        settings.source = conf;
        Ok(settings)
    }

    /// The mode of the main socket, unless it would let in everybody unasked. `activated` is the mode that systemd gave
    /// the socket, which then holds instead of ours.
    pub(super) fn main_socket_mode(&self, activated: Option<u32>) -> Result<u32, ConfError> {
        let mode = activated.unwrap_or(self.unix_sock_rw_perms);
        let is_abstract = activated.is_none() && self.unix_sock_dir.as_deref().is_some_and(is_abstract);
        let is_open = mode & 0o002 != 0 || is_abstract; // connecting takes the right to write
        if !is_open || self.auth_unix_rw != Auth::None || self.allow_unauthenticated {
            return Ok(mode);
        }
        let (how, narrower) = match activated {
            _ if is_abstract => ("an abstract socket".to_owned(), "unix_sock_dir = \"/some/directory\""),
            Some(_) => {
                (format!("an activated socket of mode {mode:04o}"), "SocketMode=0600 in the socket unit")
            }
            None => (
                format!("a socket of mode {mode:04o}"),
                "unix_sock_rw_perms = \"0700\", or \"0770\" and a group",
            ),
        };
        let polkit =
            if cfg!(feature = "polkit") { "auth_unix_rw = \"polkit\"" } else { "a build with polkit" };
        Err(self.wrong(
            "auth_unix_rw",
            CONFIG_UNSUPPORTED,
            &format!("auth_unix_rw is \"none\" on {how}: every local user could read and change the secrets"),
            &format!("close the socket ({narrower}), ask who comes ({polkit}), or mean it (allow_unauthenticated = 1)"),
        ))
    }

    /// Whether the settings of the network may hold for the sockets that there are to be.
    pub(super) fn judge_network(&self, tls: bool, tcp: bool) -> Result<(), ConfError> {
        self.network.judge(&self.source, tls, tcp, self.allow_unauthenticated)
    }

    /// Where the certificates of TLS lie.
    pub(super) fn certificates(&self) -> Result<Certificates, ConfError> {
        self.network.files.certificates(&self.source)
    }

    /// An error about a key whose value was accepted here, but is of no use elsewhere: names file and line.
    pub(super) fn wrong(&self, key: &str, code: i32, text: &str, advice: &str) -> ConfError {
        self.source.wrong(key, code, format!("{}: {text}", self.source.file().display()), advice)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

fn limits(conf: &Conf, prefix: &str, default: Limits) -> Result<Limits, ConfError> {
    let unsigned =
        |key: &str, default| Ok(conf.unsigned(&format!("{prefix}{key}"), default)?.unwrap_or(default));
    let positive = |key: &str, default| match unsigned(key, default)? {
        0 => {
            let key = format!("{prefix}{key}");
            Err(wrong(
                conf,
                &key,
                &format!("'{key}' must be greater than 0"),
                &format!("write 1 or more, {default} is the default: 0 would let nothing pass"),
            ))
        }
        number => Ok(number),
    };
    let max_workers = positive("max_workers", default.max_workers)?;
    let max_clients = positive("max_clients", default.max_clients)?;
    // The admin server has neither of these two.
    let (prio_workers, max_anonymous_clients) = match prefix {
        "" => {
            let prio_workers = unsigned("prio_workers", default.prio_workers)?;
            (prio_workers, anonymous(conf, max_clients, default.max_anonymous_clients)?)
        }
        _ => (default.prio_workers, default.max_anonymous_clients),
    };
    let seconds = default.keepalive_interval.and_then(|it| i32::try_from(it.as_secs()).ok()).unwrap_or(-1);
    let keepalive_interval = match conf.integer(&format!("{prefix}keepalive_interval"), seconds)? {
        Some(seconds) => u64::try_from(seconds).ok().filter(|&seconds| seconds > 0).map(Duration::from_secs),
        None => default.keepalive_interval,
    };
    Ok(Limits {
        min_workers: unsigned("min_workers", default.min_workers)?.min(max_workers),
        max_workers,
        prio_workers,
        max_clients,
        max_queued_clients: unsigned("max_queued_clients", default.max_queued_clients)?,
        max_anonymous_clients,
        max_client_requests: positive("max_client_requests", default.max_client_requests)?,
        keepalive_interval,
        keepalive_count: unsigned("keepalive_count", default.keepalive_count)?,
    })
}

fn anonymous(conf: &Conf, max_clients: u32, default: Option<u32>) -> Result<Option<u32>, ConfError> {
    let key = "max_anonymous_clients";
    match conf.unsigned(key, default.unwrap_or(0))? {
        None => Ok(default.map(|limit| limit.min(max_clients))),
        Some(0) => Ok(None),
        Some(limit) if limit <= max_clients => Ok(Some(limit)),
        Some(limit) => {
            let text = "The overall maximum number of clients must not be less than the number of clients waiting for \
                        authentication";
            let advice =
                format!("{key} is {limit}, max_clients {max_clients}: lower the one or raise the other");
            Err(wrong(conf, key, text, &advice))
        }
    }
}

fn auth(conf: &Conf, key: &str) -> Result<Option<Auth>, ConfError> {
    let Some(word) = conf.string(key)? else { return Ok(None) };
    let unsupported = |advice| {
        let text = format!("{}: {key}: unsupported auth {word}", conf.file().display());
        Err(conf.wrong(key, CONFIG_UNSUPPORTED, text, advice))
    };
    match word {
        "none" => Ok(Some(Auth::None)),
        "polkit" if cfg!(feature = "polkit") => Ok(Some(Auth::Polkit)),
        "polkit" => unsupported(
            "this build is without polkit: write \"none\", and let mode and group of the socket decide",
        ),
        "sasl" if cfg!(feature = "sasl") => Ok(Some(Auth::Sasl)),
        "sasl" => unsupported(
            "this build has no SASL: write \"polkit\" or \"none\", or take one with the feature sasl",
        ),
        _ => unsupported("write \"polkit\", \"sasl\" or \"none\""),
    }
}

/// Permissions in octal, as a string.
fn mode(conf: &Conf, key: &str, default: u32) -> Result<u32, ConfError> {
    let Some(text) = conf.string(key)? else { return Ok(default) };
    let is_octal = !text.is_empty() && text.bytes().all(|digit| matches!(digit, b'0'..=b'7')); // no sign
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or_else(|| {
        let advice = format!("write three octal digits, such as the default: \"{default:04o}\"");
        wrong(conf, key, &format!("Failed to parse mode '{text}'"), &advice)
    })
}

/// Where the sockets lie; `@` begins a name without a file.
fn socket_directory(conf: &Conf) -> Result<Option<PathBuf>, ConfError> {
    match conf.string("unix_sock_dir")? {
        Some(name) if is_abstract(Path::new(name)) => Ok(Some(name.into())),
        _ => conf.path("unix_sock_dir"),
    }
}

/// Checks the types of what is accepted without effect, and refuses what would leave somebody unprotected.
fn refuse_what_is_missing(conf: &Conf) -> Result<(), ConfError> {
    for driver in conf.strings("access_drivers")?.unwrap_or_default() {
        let text = format!("Cannot find security driver '{driver}'");
        match driver {
            "none" => {}
            "polkit" => {
                let advice =
                    "this version checks who connects (auth_unix_rw), not single calls: take \"polkit\" out";
                return Err(wrong(conf, "access_drivers", &text, advice));
            }
            _ => {
                return Err(wrong(
                    conf,
                    "access_drivers",
                    &text,
                    "write [ \"none\" ], or leave the key away",
                ));
            }
        }
    }
    if conf.unsigned("audit_level", 1)? > Some(1) {
        let advice =
            "libvirt's secret driver writes no audit records, and neither does this daemon: write 0 or 1";
        return Err(wrong(conf, "audit_level", "auditing is required, but there is none", advice));
    }
    for key in ["audit_logging", "keepalive_required", "admin_keepalive_required", "tls_no_verify_address"] {
        conf.boolean(key, false)?;
    }
    for key in ["host_uuid", "host_uuid_source"] {
        conf.string(key)?;
    }
    conf.unsigned("ovs_timeout", 5)?;
    Ok(())
}

fn wrong(conf: &Conf, key: &str, text: &str, advice: &str) -> ConfError {
    conf.wrong(key, INTERNAL_ERROR, format!("{}: {text}", conf.file().display()), advice)
}

fn warnings(conf: &Conf) -> Vec<Warning> {
    let warning = |line, text| Warning { file: conf.file().into(), line, text };
    let known: Vec<&str> = KEYS.iter().chain(network::KEYS).copied().collect();
    let unknown = conf.unknown(&known).map(|(key, line)| {
        let text = match nearest(key, &known) {
            Some(known) => format!("unknown key '{key}': is '{known}' meant?"),
            None => format!("unknown key '{key}'"),
        };
        warning(line, text)
    });
    let repeated = conf.repeated().map(|(key, line, first)| {
        warning(line, format!("'{key}' is given again: the value on line {first} holds"))
    });
    let idle = |key, why: &str| Some(warning(conf.line(key)?, format!("'{key}' has no effect: {why}")));
    let is_on = |key| conf.boolean(key, false).is_ok_and(|on| on == Some(true));
    let sasl =
        idle("sasl_allowed_username_list", "this build has no SASL").filter(|_| cfg!(not(feature = "sasl")));
    let audit = idle("audit_logging", "there are no audit records").filter(|_| is_on("audit_logging"));
    let obsolete = OBSOLETE.iter().filter_map(|key| idle(key, "it is obsolete, in libvirt too"));
    let mut warnings: Vec<Warning> =
        unknown.chain(repeated).chain(sasl).chain(audit).chain(obsolete).collect();
    warnings.sort_by_key(|warning| warning.line);
    warnings
}

/// What libvirt once had.
const OBSOLETE: &[&str] = &["keepalive_required", "admin_keepalive_required", "tls_no_verify_address"];

const FILE: &str = "virtsecretd.conf";

/// Every key that is understood, besides those of the network.
const KEYS: &[&str] = &[
    "unix_sock_group",
    "unix_sock_ro_perms",
    "unix_sock_rw_perms",
    "unix_sock_admin_perms",
    "unix_sock_dir",
    "auth_unix_ro",
    "auth_unix_rw",
    "access_drivers",
    "max_clients",
    "max_queued_clients",
    "max_anonymous_clients",
    "min_workers",
    "max_workers",
    "prio_workers",
    "max_client_requests",
    "admin_min_workers",
    "admin_max_workers",
    "admin_max_clients",
    "admin_max_queued_clients",
    "admin_max_client_requests",
    "log_level",
    "log_filters",
    "log_outputs",
    "audit_level",
    "audit_logging",
    "host_uuid",
    "host_uuid_source",
    "keepalive_interval",
    "keepalive_count",
    "keepalive_required",
    "admin_keepalive_interval",
    "admin_keepalive_count",
    "admin_keepalive_required",
    "ovs_timeout",
    "host_key_file",
    "system_token_file",
    "xml_copies",
    "import_at_first_start",
    "import_key_file",
    "rotate_after_days",
    "rotate_after_writes",
    "allow_unauthenticated",
];

#[cfg(test)]
mod tests;
