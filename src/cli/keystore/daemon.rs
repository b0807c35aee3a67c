//! `strongroom unlock`, `lock`, and `status` of a daemon's keystore: over its admin socket.
//!
//! Leans on `client` for the call and on `driver` for where daemons have their sockets. Refuses keystores that no daemon
//! has open; there is nothing to unlock there. Keys go from where they are typed or read to the socket in secret memory.

use std::path::{Path, PathBuf};

use super::reach::given;
use super::{DaemonArguments, ShowArguments, check_writable, status};
use crate::administration::{Key, Status};
use crate::cli::args::ConnectArguments;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::{self, prompt};
use crate::client::{Admin, Uri};
use crate::driver::Root;
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// Opens a daemon's keystore.
pub(super) fn unlock(
    daemon: &DaemonArguments,
    connect: &ConnectArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    check_writable(connect, "locking and unlocking")?;
    let admin = Admin::connect(&socket(daemon, connect)?)?;
    // What a newer daemon says may be more than can be read here; it can be unlocked all the same.
    let status: Option<Status> = serde_json::from_str(&admin.status_json()?).ok();
    if status.as_ref().is_some_and(|status| status.locked.is_none()) {
        return output.extra("The keystore is open already; no key was tried\n");
    }
    let keys = given(connect)?;
    match admin.unlock(&keys) {
        Err(error) if keys.is_empty() && status.as_ref().is_some_and(takes_passphrase) => {
            let answer = prompt::prompt("Enter the passphrase: ")?.ok_or(error)?;
            admin.unlock(&[Key::Passphrase(answer)])?;
        }
        done => done?,
    }
    output.extra("Keystore unlocked\n")
}

/// Closes a daemon's keystore.
pub(super) fn lock(
    daemon: &DaemonArguments,
    connect: &ConnectArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    check_writable(connect, "locking and unlocking")?;
    Admin::connect(&socket(daemon, connect)?)?.lock()?;
    output.extra("Keystore locked\n")
}

/// Shows how the keystore of the daemon at this socket stands.
pub(super) fn status(socket: &Path, show: &ShowArguments, output: &mut Output) -> Result<(), Failure> {
    let json = Admin::connect(socket)?.status_json()?;
    if show.json {
        return output.text(&format!("{json}\n"));
    }
    let status: Status = serde_json::from_str(&json).map_err(|error| {
        Failure::told(format!("what the daemon says can't be read: {error}"))
            .advise("the daemon is of another version; see what it says with: strongroom status --json")
    })?;
    status::run(show, &status, output)
}

/// The admin socket of a daemon, if one is named.
pub(super) fn meant(
    daemon: &DaemonArguments,
    connect: &ConnectArguments,
) -> Option<Result<PathBuf, Failure>> {
    let named = match cli::meant(connect) {
        Ok(meant) => meant.and_then(|meant| Uri::parse(&meant.uri).ok()),
        Err(failure) => return Some(Err(failure)),
    };
    let is_daemon = named.is_some_and(|uri| uri.scheme == "secret" && DAEMONS.contains(&uri.path.as_str()));
    (is_daemon || daemon.admin_socket.is_some()).then(|| socket(daemon, connect))
}

/// The admin socket: the one that was named, or that of the daemon that was, or this user's.
fn socket(daemon: &DaemonArguments, connect: &ConnectArguments) -> Result<PathBuf, Failure> {
    if let Some(path) = &daemon.admin_socket {
        return Ok(path.clone());
    }
    match cli::meant(connect)? {
        Some(meant) => socket_of(&meant.uri),
        None => in_directory("/session"),
    }
}

/// Where the keystore of the daemon that a URI names lies, for what works on its files while no daemon runs.
pub(super) fn root_of(text: &str) -> Result<Root, Failure> {
    let uri = local(text)?;
    if uri.param("socket").is_some() {
        return Err(Failure::told("a socket doesn't tell where its daemon's keystore lies").advise(
            "name the directory that was given to strongroomd --root: --connect 'secret:///embed?root=DIR'",
        ));
    }
    let is_system = uri.path == "/system" || rustix::process::geteuid().is_root();
    if is_system { Ok(Root::system()) } else { Ok(Root::user()?) }
}

fn socket_of(text: &str) -> Result<PathBuf, Failure> {
    let uri = local(text)?;
    match uri.param("socket") {
        Some(main) => Ok(beside(Path::new(main))),
        None => in_directory(&uri.path),
    }
}

/// A URI that names a daemon of this host.
fn local(text: &str) -> Result<Uri, Failure> {
    let unreadable = |why| {
        Error::new(ErrorCode::InternalError, ErrorDomain::None, format!("Unable to parse URI {text}"))
            .advise(why)
    };
    let uri = Uri::parse(text).map_err(|why| unreadable(why.to_string()))?;
    if uri.scheme == "secret" && uri.path == "/embed" {
        return Err(embedded(&uri));
    }
    let is_unix = uri.transport.as_deref().is_none_or(|transport| transport.eq_ignore_ascii_case("unix"));
    let is_daemon = uri.scheme == "secret" && DAEMONS.contains(&uri.path.as_str());
    if is_daemon && !(uri.host.is_none() && is_unix) {
        let what = format!(
            "the daemon of {text} can't be administered from here: its admin socket is for its own host"
        );
        let advice = "run this there, with --connect secret:///system or secret:///session";
        return Err(Error::failed(what).advise(advice).into());
    }
    if !is_daemon {
        let advice = "a daemon of this host is meant here: --connect secret:///system or \
                      secret:///session, or --admin-socket PATH";
        return Err(Error::no_driver_for(text).advise(advice).into());
    }
    Ok(uri)
}

/// Where the daemon of this URI path has it. root's own session is the system.
fn in_directory(path: &str) -> Result<PathBuf, Failure> {
    let is_system = path == "/system" || rustix::process::geteuid().is_root();
    let root = if is_system { Root::system() } else { Root::user()? };
    Ok(root.sockets.join(ADMIN))
}

/// The admin socket beside a daemon's main or read-only one.
fn beside(main: &Path) -> PathBuf {
    let name = main.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let stem = name.strip_suffix("-sock-ro").or_else(|| name.strip_suffix("-sock"));
    main.with_file_name(stem.map_or_else(|| ADMIN.to_owned(), |stem| format!("{stem}-admin-sock")))
}

fn embedded(uri: &Uri) -> Failure {
    let failure = Failure::told(
        "an embedded keystore is open only while a command runs: there is none to lock or unlock",
    );
    let served = uri.param("root").map(|root| Path::new(root).join("run").join(ADMIN));
    match served.filter(|socket| socket.exists()) {
        Some(socket) => {
            failure.advise(format!("a daemon serves this root: --admin-socket '{}'", socket.display()))
        }
        None => failure.advise("give each command the key, for example with --passphrase; or name a daemon: --connect secret:///system"),
    }
}

fn takes_passphrase(status: &Status) -> bool {
    status.slots.iter().any(|slot| slot.kind == "passphrase")
}

/// The URI paths of daemons.
const DAEMONS: [&str; 2] = ["/system", "/session"];

/// The admin socket's name where nobody chose another.
const ADMIN: &str = "virtsecretd-admin-sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_socket_lies_beside_the_one_that_is_named() {
        for (main, admin) in [
            ("/a/virtsecretd-sock", "/a/virtsecretd-admin-sock"),
            ("/a/virtsecretd-sock-ro", "/a/virtsecretd-admin-sock"),
            ("/a/libvirt-sock", "/a/libvirt-admin-sock"),
            ("/a/s", "/a/virtsecretd-admin-sock"),
        ] {
            assert_eq!(beside(Path::new(main)), Path::new(admin), "{main}");
        }
        assert_eq!(
            socket_of("secret:///session?socket=/a%20b/virtsecretd-sock").unwrap(),
            Path::new("/a b/virtsecretd-admin-sock")
        );
        assert_eq!(
            socket_of("secret+unix:///system").unwrap(),
            Path::new("/run/libvirt/virtsecretd-admin-sock")
        );
    }
}
