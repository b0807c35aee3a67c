//! Settings of the daemon that change what is around its sockets: who may open them, how many may come, what is said of it.
//!
//! Leans on virt-admin and on ss, and fails without them. Refuses to look into the configuration: what counts is what the
//! kernel and administration show. What the network's settings do is in `daemon_network` and `daemon_sasl`.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use support::Place;

#[test]
fn sockets_are_open_to_whom_the_settings_say() {
    if !rustix::process::geteuid().is_root() {
        return support::note("not root: not tested with another group's sockets");
    }
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let lines =
        "unix_sock_group = \"daemon\"\nunix_sock_ro_perms = \"0750\"\nunix_sock_admin_perms = \"0600\"\n";
    let _daemon = place.serve(lines);
    let seen = |socket: &Path| {
        let metadata = std::fs::metadata(socket).unwrap();
        (metadata.mode() & 0o7777, metadata.gid())
    };
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("daemon:x:")).unwrap();
    let group = group.split(':').next().unwrap().parse().unwrap();
    assert_eq!(seen(&place.socket()), (0o700, group));
    assert_eq!(seen(&place.read_only_socket()), (0o750, group));
    assert_eq!(seen(&place.admin_socket()).0, 0o600);
}

#[test]
fn administration_shows_the_limits_that_are_set() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let _daemon = place.serve(
        "max_clients = 77\nmax_anonymous_clients = 7\nmin_workers = 3\nmax_workers = 9\nprio_workers = 4\n\
         admin_max_clients = 33\nadmin_min_workers = 2\nadmin_max_workers = 6\n",
    );
    for (server, workers, clients) in [
        ("virtsecretd", [("minWorkers", 3), ("maxWorkers", 9), ("prioWorkers", 4)], 77),
        ("admin", [("minWorkers", 2), ("maxWorkers", 6), ("prioWorkers", 0)], 33),
    ] {
        let shown = shown(&place, "server-threadpool-info", server);
        assert!(workers.iter().all(|(key, count)| shown.get(*key) == Some(count)), "{server}: {shown:?}");
        let shown = self::shown(&place, "server-clients-info", server);
        assert_eq!(shown.get("nclients_max"), Some(&clients), "{server}: {shown:?}");
    }
    let shown = shown(&place, "server-clients-info", "virtsecretd");
    assert_eq!(shown.get("nclients_unauth_max"), Some(&7), "{shown:?}");
}

#[test]
fn so_many_wait_before_they_are_accepted_as_the_settings_say() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let _daemon = place.serve("max_queued_clients = 123\nadmin_max_queued_clients = 12\n");
    let listed = Command::new("ss").args(["-xlnH"]).output().expect("ss: apt-get install iproute2");
    let listed = String::from_utf8(listed.stdout).unwrap();
    // Kind, state, those who wait, the most of them, and the path where it was bound: it is moved to its own when it is ready.
    let rows = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let here = rows.filter(|row| row.get(4).is_some_and(|path| Path::new(path).starts_with(place.root())));
    let mut most: Vec<u32> = here.map(|row| row[3].parse().unwrap()).collect();
    most.sort_unstable();
    assert_eq!(most, [12, 123, 123], "for administration, and the two others\n{listed}");
}

#[test]
fn the_token_lies_where_the_settings_say() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let file = place.0.join("token");
    let daemon = place.serve(&format!("system_token_file = {file:?}\n"));
    let mut client = daemon.client();
    let uuid = client.define("<secret private='yes'/>").unwrap().unwrap();
    client.set(uuid, b"for the host alone").unwrap().unwrap();
    assert!(client.get(uuid).unwrap().is_err());
    client.identify(&std::fs::read(file).unwrap()).unwrap().unwrap();
    assert_eq!(client.get(uuid).unwrap(), Ok(b"for the host alone".to_vec()));
}

#[test]
fn settings_without_a_meaning_here_are_accepted_and_the_obsolete_ones_say_so() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let daemon = place.serve(
        "host_uuid = \"8510af53-9a1e-4b53-8a0f-1f0f4d2d7c11\"\nhost_uuid_source = \"machine-id\"\novs_timeout = 5\n\
         audit_level = 1\naudit_logging = 0\nkeepalive_required = 1\nadmin_keepalive_required = 1\n\
         tls_no_verify_address = 1\n",
    );
    assert!(daemon.stop().success());
    let log = std::fs::read_to_string(place.daemon_log()).unwrap();
    for key in ["keepalive_required", "admin_keepalive_required", "tls_no_verify_address"] {
        let said = log.lines().find(|line| line.contains(key)).unwrap_or_default();
        assert!(said.contains("warning"), "{key}:\n{log}");
    }
}

/// What virt-admin shows of a server: numbers by their names.
fn shown(place: &Place, command: &str, server: &str) -> HashMap<String, u32> {
    let uri = format!("virtsecretd:///system?socket={}", place.admin_socket().display());
    let done = Command::new("virt-admin").args(["-c", &uri, command, server]).output();
    let done = done.expect("virt-admin: apt-get install libvirt-clients");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8(done.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.filter_map(|(key, number)| Some((key.trim().to_owned(), number.trim().parse().ok()?))).collect()
}
