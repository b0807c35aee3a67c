//! From the command line to a daemon that serves.
//!
//! The order matters: the configuration is read and judged before anything is touched; the keystore is locked for this
//! process before a socket is, so that a second daemon finds out before it takes the first one's place; clients are
//! accepted when all is loaded. Leans on `process`, `listen`, `settings` for the pieces. Refuses to start in a way that
//! lets everyone in, and says why with the exit status libvirt has for it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::watch;

use super::admin::Pool;
use super::args::{self, Arguments, Asked};
use super::calls::Secrets;
use super::clients::Limits;
use super::keepalive::Keepalive;
use super::listen::{self, Listener, Listening, Place, Plan, Role, Wanted};
use super::log::{self, Filters, Level, Log, Setup};
use super::process::{self, Detached, Exit, Notice, StartError};
use super::rotation::Rotator;
#[cfg(feature = "sasl")]
use super::sasl;
use super::serve::{self, Auths, Host, Server};
use super::settings::{self, Settings};
use super::tls::Tls;
use crate::conf::{CONFIG_UNSUPPORTED, ConfError};
use crate::driver::{Caller, Driver, Keys, NewStore, Root, RotationPolicy};
#[cfg(feature = "sasl")]
use crate::net::around::Around;
use crate::net::token::SystemToken;
use crate::secret::{Error, Keystore};
use crate::transfer::{ImportOptions, LibvirtKey, expect_import, import_at_first_start};

/// Runs the daemon. The exit status is libvirt's, except that a keystore that can't be served is no success.
pub(super) fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().collect();
    let asked = args::parse(words.clone());
    let ended = match asked {
        Ok(Asked::Print(text)) => {
            _ = io::stdout().write_all(text.as_bytes());
            Ok(())
        }
        Ok(Asked::Run(arguments)) if arguments.daemon && !arguments.detached => {
            return process::detach(words);
        }
        Ok(Asked::Run(arguments)) => run(&arguments, &words),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(error.exit().status())
        }
    }
}

fn run(arguments: &Arguments, words: &[OsString]) -> Result<(), StartError> {
    let detached = match arguments.detached {
        true => {
            Some(process::settle_in_background(words.first().map_or("strongroomd".as_ref(), |name| name))?)
        }
        false => None,
    };
    let (place, root) = locate(arguments)?;
    let privileged = rustix::process::geteuid().is_root();
    let named = arguments.config.is_some();
    // A user's keystore is `~/.config/libvirt/secrets`.
    let config_home = if privileged { None } else { root.etc.ancestors().nth(2) };
    let usual = || Settings::default_file(arguments.root.as_deref(), config_home);
    let file = arguments.config.clone().unwrap_or_else(usual);
    let read = Settings::read(&file, named, privileged).map_err(misconfigured);
    let (settings, warnings) = read.inspect_err(|error| {
        // Where the log is to be can't be known: the usual place has to do.
        if arguments.detached
            && let Ok(log) = set_up_log(&Settings::default_for(privileged), arguments, &place)
        {
            log.tell_of_failure(error);
            log.flush();
        }
    })?;
    let log = set_up_log(&settings, arguments, &place)?;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let ended = go_on(arguments, &settings, (&place, &root), &log, detached);
    if let Err(error) = &ended {
        log.tell_of_failure(error);
    }
    log.flush();
    ended
}

/// From here on there is a log. `detached`: in the background, and somebody waits.
fn go_on(
    arguments: &Arguments,
    settings: &Settings,
    (place, root): (&Place, &Root),
    log: &Log,
    detached: Option<Detached>,
) -> Result<(), StartError> {
    let privileged = rustix::process::geteuid().is_root();
    crate::memory::harden_process(); // before any key is read
    let plan = plan(place, settings, arguments.listen);
    // What is judged is what will be listened on, whatever the environment says besides.
    let handed = listen::activated()?;
    if arguments.listen && handed.is_none() && plan.network.is_empty() {
        tracing::warn!("{LISTENS_NOWHERE}");
    }
    let listens = |role| match &handed {
        Some(sockets) => sockets.iter().any(|socket| socket.role == role),
        None => plan.listens(role),
    };
    match &handed {
        Some(sockets) => check_activated(sockets, settings)?,
        None => _ = settings.main_socket_mode(None).map_err(misconfigured)?,
    }
    settings.judge_network(listens(Role::Tls), listens(Role::Tcp)).map_err(misconfigured)?;
    let tls = match listens(Role::Tls) {
        true => {
            let home = std::env::home_dir().filter(|_| !privileged);
            Some(Arc::new(Tls::load(settings, home.as_deref())?))
        }
        false => None,
    };
    #[cfg(feature = "sasl")]
    let mechanisms = sasl::prepare(&asks_for_sasl(settings, listens))?;
    #[cfg(not(feature = "sasl"))]
    let mechanisms = Vec::new();
    process::raise_descriptor_limit();

    process::make_run_directory(&place.run(), privileged)?;
    let pid_file = arguments.pid_file.clone().unwrap_or_else(|| place.pid_file());
    let _pid_file = process::take_pid_file(&pid_file)?;
    let secrets = open(place, root, settings)?;
    let sockets = match handed {
        Some(sockets) => sockets,
        None => listen::make(&plan)?,
    };

    let host = Arc::new(host(secrets, settings, log.clone(), tls, arguments.timeout.unwrap_or(0)));
    let runtime = runtime(settings)?;
    announce(&sockets, &host.auths, &mechanisms);
    let ready = || {
        tracing::info!("ready");
        Notice::Ready.send();
        log.echo_no_more();
        if let Some(Err(error)) = detached.map(Detached::ready) {
            tracing::warn!("standard output can't be let go of: {error}");
        }
    };
    let served = runtime.block_on(serve::serve(host, sockets, ready));
    runtime.shutdown_timeout(serve::LONGEST_GOODBYE);
    served.map_err(|error| StartError::new(Exit::Signals, format!("cannot serve: {error}")))
}

/// The sockets whose clients authenticate by SASL, and what protects them.
#[cfg(feature = "sasl")]
fn asks_for_sasl(settings: &Settings, listens: impl Fn(Role) -> bool) -> Vec<(Role, Around)> {
    let network = &settings.network;
    let all = [
        (Role::Main, settings.auth_unix_rw, Around::Unix),
        (Role::ReadOnly, settings.auth_unix_ro, Around::Unix),
        (Role::Tls, network.auth_tls, Around::Tls { bits: 256 }),
        (Role::Tcp, network.auth_tcp, Around::Tcp { min_ssf: network.tcp_min_ssf }),
    ];
    let asks = all.into_iter().filter(|(role, auth, _)| *auth == settings::Auth::Sasl && listens(*role));
    asks.map(|(role, _, around)| (role, around)).collect()
}

/// Whose daemon this is, and where its keystore lies.
fn locate(arguments: &Arguments) -> Result<(Place, Root), StartError> {
    let failed = |error: Error| refused(Exit::Keystore, &error);
    if let Some(directory) = &arguments.root {
        return Ok((Place::Root(directory.clone()), Root::embed(directory).map_err(failed)?));
    }
    if rustix::process::geteuid().is_root() {
        return Ok((Place::System, Root::system()));
    }
    let root = Root::user().map_err(failed)?;
    let runtime = root.sockets.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((Place::Session(runtime), root))
}

fn set_up_log(settings: &Settings, arguments: &Arguments, place: &Place) -> Result<Log, StartError> {
    let wrong = |key: &str, error: log::Malformed| {
        misconfigured(settings.wrong(
            key,
            CONFIG_UNSUPPORTED,
            &error.to_string(),
            "see the sample file for its form",
        ))
    };
    let filters = settings.log_filters.as_deref().unwrap_or_default();
    let outputs = settings.log_outputs.as_deref().unwrap_or_default();
    let cache = match place {
        Place::System => None,
        Place::Session(_) | Place::Root(_) => Some(place.run()),
    };
    let setup = Setup {
        level: Level::from_number(settings.log_level.into()).unwrap_or(Level::Warning),
        outputs: log::Wanted::parse(outputs).map_err(|error| wrong("log_outputs", error))?,
        filters: Filters::parse(filters).map_err(|error| wrong("log_filters", error))?,
        verbose: arguments.verbose,
        detached: arguments.detached,
        file: log::default_file(cache.as_deref()),
    };
    let log = Log::new(setup)?;
    log.install()?;
    Ok(log)
}

/// Opens the keystore, making it if there is none, and the token that this host's daemons share.
fn open(place: &Place, root: &Root, settings: &Settings) -> Result<Secrets, StartError> {
    let failed = |error: Error| refused(Exit::Keystore, &error);
    let keys = Keys { host_key: settings.host_key_file.clone(), ..Keys::default() };
    let moving_in = prepare(root, settings, &keys).map_err(failed)?;
    let paths: &[&str] = match place {
        Place::System => &["/system"],
        Place::Session(_) => &["/session"],
        Place::Root(_) => &["/system", "/session"],
    };
    let uri = format!("secret://{}", paths[0]);
    let driver = Driver::open(root.clone(), uri, &keys).map_err(failed)?;
    driver.set_rotation_policy(rotation_policy(settings));
    if let Some(why) = driver.session(Caller::OWNER).locked() {
        let advice = why.advice().unwrap_or("strongroom unlock opens it");
        tracing::warn!("serving a locked keystore: {why}; {advice}");
    }
    if moving_in {
        move_in(&driver, root, settings);
    }
    let token =
        settings.system_token_file.clone().unwrap_or_else(|| root.sockets.join("common/system.token"));
    let token = SystemToken::read_or_make(&token).map_err(failed)?;
    Ok(Secrets { driver, paths, token })
}

/// Makes a keystore without `.xml` copies, if there is to be one. Says whether libvirt's secrets are to be imported: only
/// before there is a keystore can that be told.
fn prepare(root: &Root, settings: &Settings, keys: &Keys) -> Result<bool, Error> {
    let moving_in = settings.import_at_first_start && expect_import(root)?;
    if !settings.xml_copies && !root.has_keystore()? {
        let new = NewStore { without_copies: true, ..NewStore::default() };
        Driver::init(root, keys, &new)?;
    }
    Ok(moving_in)
}

/// Takes in what libvirt's own driver left beside the keystore. What goes wrong keeps nobody from being served. If it
/// ends with an error, the next start tries again; single secrets that were not taken are named, and that is all.
fn move_in(driver: &Driver, root: &Root, settings: &Settings) {
    let key = match &settings.import_key_file {
        Some(file) => LibvirtKey::read(file).map(Some),
        None => LibvirtKey::credential(),
    };
    let imported = key.and_then(|key| {
        let status = driver.status();
        let store = status.store.and_then(|id| id.parse().ok());
        let without_copies = status.copies == Some(false);
        let options = ImportOptions { without_copies, store, ..ImportOptions::default() };
        import_at_first_start(root, &root.etc, key.as_ref(), driver, &options, &mut |row| {
            if !row.outcome.is_in() {
                let hint = row.hint.as_deref().unwrap_or_default();
                tracing::warn!("import of libvirt's secrets: {}: {} ({hint})", row.name, row.outcome.name());
            }
        })
    });
    match imported {
        Ok(None) => {}
        Ok(Some(summary)) => tracing::warn!(
            imported = summary.added,
            already_there = summary.already_there,
            plaintext_files_left = summary.plain_left,
            "libvirt's secrets in '{}' are imported; its files are removed with: strongroom import --remove-originals",
            root.etc.display()
        ),
        Err(error) => {
            let advice = error.advice().unwrap_or("see what would happen with: strongroom import --dry-run");
            tracing::error!(
                "libvirt's secrets are not imported: {error}; {advice}; the next start tries again"
            );
        }
    }
}

fn rotation_policy(settings: &Settings) -> RotationPolicy {
    let days = |days: u32| Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    RotationPolicy {
        max_age: settings.rotate_after_days.map(days),
        max_writes: settings.rotate_after_writes.map(u64::from),
    }
}

/// `listen`: on the network too.
fn plan(place: &Place, settings: &Settings, listen: bool) -> Plan {
    let wanted = |(role, path): (Role, PathBuf)| {
        let (mode, limits) = match role {
            Role::Main => (settings.main_socket_mode(None).unwrap_or(0o700), &settings.limits),
            Role::ReadOnly => (settings.unix_sock_ro_perms, &settings.limits),
            // None of this place's sockets is on the network.
            Role::Admin | Role::Tls | Role::Tcp => (settings.unix_sock_admin_perms, &settings.admin_limits),
        };
        Wanted { role, path, mode, backlog: limits.max_queued_clients }
    };
    let sockets = place.sockets(settings.unix_sock_dir.as_deref());
    let backlog = settings.limits.max_queued_clients;
    Plan {
        sockets: sockets.into_iter().map(wanted).collect(),
        group: settings.unix_sock_group.clone(),
        network: if listen { settings.network.ports(backlog) } else { Vec::new() },
    }
}

/// Tells the log where it listens, and by what whoever comes there proves who it is.
fn announce(sockets: &[Listening], auths: &Auths, mechanisms: &[(Role, String)]) {
    for socket in sockets {
        let offered =
            mechanisms.iter().find(|(role, _)| *role == socket.role).map(|(_, offered)| &offered[..]);
        tracing::info!("listening on {socket} ({})", auths.shown(socket.role, offered));
    }
}

/// systemd made the sockets: whom they let in is for it to say, and for us to judge.
fn check_activated(sockets: &[Listening], settings: &Settings) -> Result<(), StartError> {
    let activated = sockets.iter().filter(|it| it.role == Role::Main && it.name.is_none());
    for socket in activated {
        let Listener::Unix(listener) = &socket.socket else { continue };
        let address = listener.local_addr().ok();
        let path = address.as_ref().and_then(|address| address.as_pathname());
        let mode =
            path.and_then(|path| std::fs::metadata(path).ok()).map(|it| it.permissions().mode() & 0o777);
        // What can't be known may be open to all.
        settings.main_socket_mode(Some(mode.unwrap_or(0o777))).map_err(misconfigured)?;
    }
    Ok(())
}

fn host(secrets: Secrets, settings: &Settings, log: Log, tls: Option<Arc<Tls>>, timeout: u32) -> Host {
    let server = |name, limits: &settings::Limits| {
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let anonymous = limits.max_anonymous_clients.map_or(0, count);
        let pool = Pool { min: limits.min_workers, max: limits.max_workers, priority: limits.prio_workers };
        let clients = Limits { clients: count(limits.max_clients), anonymous };
        let keepalive = Keepalive::new(limits.keepalive_interval, limits.keepalive_count);
        Server::new(name, clients, count(limits.max_client_requests), pool, keepalive)
    };
    Host {
        rotation: Rotator::default(),
        secrets: Arc::new(secrets),
        main: server("virtsecretd", &settings.limits),
        admin: server("admin", &settings.admin_limits),
        log,
        timeout: AtomicU32::new(timeout),
        stop: watch::Sender::new(false),
        auths: Auths {
            main: settings.auth_unix_rw,
            read_only: settings.auth_unix_ro,
            tls: settings.network.auth_tls,
            tcp: settings.network.auth_tcp,
            verifies: settings.network.verify_certificate,
            #[cfg(feature = "sasl")]
            users: settings.network.sasl_allowed_username_list.clone().map(Into::into),
            #[cfg(feature = "sasl")]
            tcp_min_ssf: settings.network.tcp_min_ssf,
            #[cfg(feature = "sasl")]
            refusals: Arc::default(),
        },
        tls,
    }
}

/// The reactor's threads, one for each processor but not many; and those for calls that wait for the disk.
fn runtime(settings: &Settings) -> Result<Runtime, StartError> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let blocking = usize::try_from(settings.limits.max_workers).unwrap_or(20);
    runtime::Builder::new_multi_thread()
        .worker_threads(processors.clamp(2, MOST_REACTORS))
        .max_blocking_threads(blocking.max(2))
        .thread_name("strongroomd")
        .enable_all()
        .build()
        .map_err(|error| StartError::new(Exit::Signals, format!("cannot start the threads: {error}")))
}

fn misconfigured(error: ConfError) -> StartError {
    StartError::new(Exit::Usage, error.to_string()).advise(error.advice)
}

fn refused(exit: Exit, error: &Error) -> StartError {
    let plain = StartError::new(exit, error.to_string());
    match error.advice() {
        Some(advice) => plain.advise(advice),
        None => plain,
    }
}

const LISTENS_NOWHERE: &str = "--listen listens nowhere on the network, because listen_tls and listen_tcp are both 0: set one of \
     them to 1, or leave --listen away";

/// A reactor thread answers tens of thousands of calls a second.
const MOST_REACTORS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "sasl")]
    #[test]
    fn only_sockets_that_are_there_ask_for_sasl() {
        let mut settings = Settings::default_for(false);
        (settings.auth_unix_rw, settings.auth_unix_ro) = (settings::Auth::Sasl, settings::Auth::Sasl);
        settings.network.auth_tls = settings::Auth::Sasl;
        let asked = |place: &Place, listen| {
            let plan = plan(place, &settings, listen);
            let asked = asks_for_sasl(&settings, |role| plan.listens(role));
            asked.into_iter().map(|(role, _)| role).collect::<Vec<_>>()
        };
        let users = Place::Session("/run/user/1000/libvirt".into());
        assert_eq!(asked(&users, false), [Role::Main]);
        assert_eq!(asked(&users, true), [Role::Main, Role::Tls]);
        assert_eq!(asked(&Place::System, false), [Role::Main, Role::ReadOnly]);
        assert!(asks_for_sasl(&settings, |_| false).is_empty(), "whatever is configured");
    }

    #[test]
    fn an_import_is_expected_whether_or_not_copies_are_kept() {
        for xml_copies in [true, false] {
            let place = tempfile::tempdir().unwrap();
            let root = Root::embed(&place.path().join("root")).unwrap();
            let keys = Keys { host_key: Some(place.path().join("host.key")), ..Keys::default() };
            let mut settings = Settings::default_for(false);
            (settings.xml_copies, settings.import_at_first_start) = (xml_copies, true);
            assert_eq!(prepare(&root, &settings, &keys), Ok(true), "xml_copies = {xml_copies}");
            drop(Driver::open(root.clone(), "secret:///system".into(), &keys).unwrap());
            // Until it is done.
            assert_eq!(prepare(&root, &settings, &keys), Ok(true));
            std::fs::remove_file(root.etc.join("import.pending")).unwrap();
            assert_eq!(prepare(&root, &settings, &keys), Ok(false));
        }
    }
}
