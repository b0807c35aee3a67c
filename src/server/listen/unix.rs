//! Sockets in the file system.
//!
//! Leans on rustix for the system calls, on uzers for groups. A socket of our own appears under its name in one step, with
//! its mode and group already on it: there is no moment in which it is more open than that, and a dead daemon's socket is
//! replaced, not missing for a while. Refuses to take a socket from a living daemon, and to follow a link in its place.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::super::process::StartError;
use super::{Listener, Listening, Plan, Role, Wanted, backlog, refused};

pub(super) fn bind_all(plan: &Plan) -> Result<Vec<Listening>, StartError> {
    let group = plan.group.as_deref().map(group_id).transpose()?.flatten();
    for wanted in &plan.sockets {
        check(wanted)?;
    }
    let one = |wanted: &Wanted| {
        let group = group.filter(|_| wanted.role != Role::Admin);
        bind(wanted, group).map_err(|error| cannot("listen on", &wanted.path, &error.into()))
    };
    plan.sockets.iter().map(one).collect() // when one fails, the others' names go again
}

/// The group's number. None for root's group: libvirt leaves the sockets as they are then.
fn group_id(name: &str) -> Result<Option<Gid>, StartError> {
    let number = || name.strip_prefix('+').unwrap_or(name).parse().ok();
    match uzers::get_group_by_name(name).map(|group| group.gid()).or_else(number) {
        // The system calls take -1 for "as it is".
        Some(u32::MAX) | None => Err(refused(format!("there is no group '{name}' to give the sockets to"))
            .advise("create it, or name another in unix_sock_group")),
        Some(0) => Ok(None),
        Some(id) => Ok(Some(Gid::from_raw(id))),
    }
}

/// Whether this socket may be made. Touches nothing.
fn check(wanted: &Wanted) -> Result<(), StartError> {
    let (path, shown) = (&wanted.path, wanted.path.display());
    let length = path.as_os_str().len();
    if length > MAX_PATH {
        return Err(refused(format!(
            "the socket path '{shown}' has {length} bytes; {MAX_PATH} are possible"
        ))
        .advise("choose a shorter directory in unix_sock_dir"));
    }
    if is_abstract(path) {
        if wanted.mode & 0o002 == 0 {
            let line = format!("the abstract socket '{shown}' would be open to all, not {:04o}", wanted.mode);
            return Err(refused(line).advise(
                "abstract sockets have no permissions: choose a directory in unix_sock_dir, or set the permissions \
                 to 0777 on purpose",
            ));
        }
        return Ok(()); // two of one name don't bind
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(cannot("look at", path, &error)),
        Ok(about) if !about.file_type().is_socket() => {
            return Err(refused(format!("'{shown}' is in the way: it is no socket"))
                .advise("see what it is, and remove it"));
        }
        Ok(_) => {}
    }
    match probe(path) {
        // Nobody listens: left by a daemon that is no more. Or it went just now.
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(()),
        Err(error @ Errno::ACCESS) => Err(cannot("see who listens on", path, &error.into())),
        answer => {
            let who = answer.ok().flatten().map_or("another process".into(), |pid| format!("process {pid}"));
            Err(refused(format!("{who} listens on '{shown}'")).advise(
                "one daemon at a time: stop that one (and its systemd socket units), or choose another unix_sock_dir",
            ))
        }
    }
}

/// Who answers there: an error if nobody does.
fn probe(path: &Path) -> Result<Option<i32>, Errno> {
    let socket = new_socket()?; // non-blocking: a full backlog is an answer too
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(sockopt::socket_peercred(&socket).ok().map(|peer| peer.pid.as_raw_pid()))
}

fn bind(wanted: &Wanted, group: Option<Gid>) -> Result<Listening, Errno> {
    let Wanted { role, ref path, mode, backlog: queue } = *wanted;
    let socket = new_socket()?;
    if is_abstract(path) {
        rustix::net::bind(&socket, &SocketAddrUnix::new_abstract_name(&path.as_os_str().as_bytes()[1..])?)?;
        rustix::net::listen(&socket, backlog(queue))?;
        return Ok(Listening { role, socket: Listener::Unix(socket.into()), name: None });
    }
    // On Linux the name takes the mode that the socket has when it is bound, less the umask: nobody's, at first.
    rustix::fs::fchmod(&socket, Mode::empty())?;
    // Shorter than any of our names, so that the path is none too long.
    let beside = path.with_file_name(format!(".new-{}", std::process::id()));
    _ = fs::remove_file(&beside); // left by a process that is no more: its pid is ours now
    rustix::net::bind(&socket, &SocketAddrUnix::new(&beside)?)?;
    let named = settle(&beside, mode, group).and_then(|(device, inode)| {
        rustix::net::listen(&socket, backlog(queue))?;
        rustix::fs::rename(&beside, path)?;
        Ok(Name { path: path.clone(), device, inode })
    });
    if named.is_err() {
        _ = fs::remove_file(&beside);
    }
    Ok(Listening { role, socket: Listener::Unix(socket.into()), name: Some(named?) })
}

/// Gives the socket its group and mode, held by a descriptor so that both meet the same file: this device and inode.
fn settle(path: &Path, mode: u32, group: Option<Gid>) -> Result<(u64, u64), Errno> {
    let held = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if group.is_some() {
        rustix::fs::chownat(&held, c"", None, group, AtFlags::EMPTY_PATH)?;
    }
    let itself = format!("/proc/self/fd/{}", held.as_raw_fd());
    rustix::fs::chmodat(CWD, itself.as_str(), Mode::from_raw_mode(mode), AtFlags::empty())?;
    let about = rustix::fs::fstat(&held)?;
    Ok((about.st_dev, about.st_ino))
}

/// A socket's name in the file system. When dropped, it is removed, unless another daemon's socket has it by then.
#[derive(Debug)]
pub(in super::super) struct Name {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Name {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).map(|it| (it.dev(), it.ino()) == (self.device, self.inode));
        if ours.unwrap_or(false) {
            _ = fs::remove_file(&self.path);
        }
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether it names a socket without a file.
pub(in super::super) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// What `sockaddr_un` holds, less its closing zero.
const MAX_PATH: usize = 107;

fn cannot(doing: &str, path: &Path, error: &io::Error) -> StartError {
    let plain = refused(format!("cannot {doing} '{}': {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            plain.advise("run as the user who owns the directory, or choose another")
        }
        io::ErrorKind::NotFound => plain.advise("make the directory that unix_sock_dir names"),
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn wanted(path: impl Into<PathBuf>, mode: u32) -> Wanted {
        Wanted { role: Role::Main, path: path.into(), mode, backlog: 0 }
    }

    fn plan(sockets: Vec<Wanted>) -> Plan {
        Plan { sockets, group: None, network: Vec::new() }
    }

    fn files(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn sockets_have_their_modes_and_go_at_the_end() {
        let at = tempfile::tempdir().unwrap();
        let paths = ["main", "ro"].map(|name| at.path().join(name));
        let sockets = bind_all(&plan(vec![wanted(&paths[0], 0o777), wanted(&paths[1], 0o640)])).unwrap();
        for (path, mode) in paths.iter().zip([0o777, 0o640]) {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, mode);
            UnixStream::connect(path).unwrap();
        }
        assert_eq!(files(at.path()), ["main", "ro"]);
        let Listener::Unix(main) = &sockets[0].socket else { panic!("{sockets:?}") };
        assert_eq!(main.accept().map(|_| ()).ok(), Some(()));
        assert_eq!(main.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(sockets);
        assert_eq!(files(at.path()), [""; 0]);
    }

    #[test]
    fn a_socket_is_closed_to_all_until_it_is_settled() {
        let at = tempfile::tempdir().unwrap();
        let socket = new_socket().unwrap();
        rustix::fs::fchmod(&socket, Mode::empty()).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(at.path().join("s")).unwrap()).unwrap();
        assert_eq!(fs::metadata(at.path().join("s")).unwrap().mode() & 0o7777, 0);
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        let first = bind_all(&plan(vec![wanted(&path, 0o700)])).unwrap();
        let second = bind_all(&plan(vec![wanted(at.path().join("a"), 0o700), wanted(&path, 0o700)]));
        let error = second.unwrap_err();
        let line = format!("process {} listens on '{}'", std::process::id(), path.display());
        assert_eq!((error.line(), error.exit().status()), (line.as_str(), 6));
        assert_eq!(files(at.path()), ["s"], "nothing was made before all was checked");
        UnixStream::connect(&path).unwrap();
        // Its name now belongs to somebody else: that stays.
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[test]
    fn one_whose_queue_is_full_lives_too() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("s");
        let _first = bind_all(&plan(vec![Wanted { backlog: 1, ..wanted(&path, 0o700) }])).unwrap();
        let mut clients = Vec::new();
        let full = loop {
            let client = new_socket().unwrap();
            match rustix::net::connect(&client, &SocketAddrUnix::new(&path).unwrap()) {
                Ok(()) => clients.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!((full, clients.len()), (Errno::AGAIN, 2));
        let error = check(&wanted(&path, 0o700)).unwrap_err();
        assert!(error.line().starts_with("another process listens on"), "{error}");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("s");
        symlink(at.path().join("nowhere"), &path).unwrap();
        assert!(check(&wanted(&path, 0o700)).unwrap_err().line().contains("no socket"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(check(&wanted(&path, 0o700)).unwrap_err().line().contains("no socket"));
    }

    #[test]
    fn paths_have_a_limit_and_the_longest_possible_one_works() {
        let at = tempfile::tempdir().unwrap();
        let start = at.path().join("d").display().to_string();
        let directory = PathBuf::from(format!("{start:x<91}"));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("fifteen-bytes--");
        assert_eq!(path.as_os_str().len(), MAX_PATH);
        let _one = bind_all(&plan(vec![wanted(&path, 0o700)])).unwrap();
        UnixStream::connect(&path).unwrap();
        let error = check(&wanted(directory.join("sixteen-bytes---"), 0o700)).unwrap_err();
        assert!(error.line().ends_with("has 108 bytes; 107 are possible"), "{error}");
    }

    #[test]
    fn an_abstract_socket_is_made_only_for_all() {
        let name = format!("@strongroom-test-listen-{}", std::process::id());
        assert!(check(&wanted(&name, 0o700)).unwrap_err().line().contains("open to all, not 0700"));
        let one = bind_all(&plan(vec![wanted(&name, 0o777)])).unwrap();
        assert!(one[0].name.is_none() && bind_all(&plan(vec![wanted(&name, 0o777)])).is_err());
    }

    #[test]
    fn groups_are_names_or_numbers() {
        assert_eq!(group_id("root").unwrap(), None);
        assert_eq!(group_id("4711").unwrap(), Some(Gid::from_raw(4711)));
        assert_eq!(group_id("+4711").unwrap(), Some(Gid::from_raw(4711)));
        assert!(
            group_id("no-such-group").is_err() && group_id("4294967295").is_err() && group_id("-1").is_err()
        );
        let at = tempfile::tempdir().unwrap();
        let admin = Wanted { role: Role::Admin, ..wanted(at.path().join("a"), 0o700) };
        let own = rustix::process::getegid().as_raw();
        let group = if rustix::process::geteuid().is_root() { 4711 } else { own };
        let sockets = vec![wanted(at.path().join("m"), 0o770), admin];
        let _both = bind_all(&Plan { sockets, group: Some(group.to_string()), network: Vec::new() }).unwrap();
        let about = |name| fs::metadata(at.path().join(name)).unwrap();
        assert_eq!((about("m").gid(), about("m").mode() & 0o777), (group, 0o770));
        assert_eq!(about("a").gid(), own);
    }
}
