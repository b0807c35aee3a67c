//! SASL in the daemon: who is known by name, what stands still with whoever knows the users, when there is nothing to
//! authenticate by, what is refused on TCP, and where a password lies that comes in pieces.
//!
//! Leans on Cyrus with a configuration of the test's own (`SASL_CONF_PATH`), on saslpasswd2 and virt-admin. Where Cyrus shall
//! wait, the test is its `saslauthd`, and doesn't answer. Refuses to use anything of the host's.

#![cfg(feature = "sasl")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Place;
use support::daemon::{Daemon, PATIENCE};
use support::markers::Needles;
use support::wire::{Client, Xdr, call, number};

#[test]
fn strangers_whom_nobody_judges_hold_up_neither_calls_nor_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let mux = place.0.join("mux");
    let silent = UnixListener::bind(&mux).unwrap();
    let lines = format!("mech_list: PLAIN\npwcheck_method: saslauthd\nsaslauthd_path: {}\n", mux.display());
    let daemon = start(&place, "max_workers = 2\nmin_workers = 1\nauth_unix_ro = \"sasl\"\n", &lines);
    // More than there are threads for calls.
    let mut strangers: Vec<Client> = (0..8)
        .map(|_| {
            let mut stranger = Client::connect(&place.read_only_socket(), PATIENCE).unwrap();
            stranger.call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
            stranger
        })
        .collect();
    for stranger in &mut strangers {
        stranger.stream.write_all(&call(number::SASL_START, 2, &plain("fred", "x"))).unwrap();
    }
    let mut asked = silent.accept().unwrap().0;
    asked.set_read_timeout(Some(PATIENCE)).unwrap();
    asked.read_exact(&mut [0; 2]).unwrap();

    // On the main socket nobody is asked who they are; and a change needs a thread, because it waits for the disk.
    let began = Instant::now();
    let mut known = daemon.client();
    known.define("<secret/>").unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());

    let began = Instant::now();
    assert!(daemon.stop().success());
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for strangers: {:?}", began.elapsed());
    drop((strangers, asked));
}

#[test]
fn administration_sees_by_what_name_a_client_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let _daemon = start(&place, "auth_unix_rw = \"sasl\"\n", &password_file(&place, "PLAIN"));
    let mut fred = Client::connect(&place.socket(), PATIENCE).unwrap();
    fred.call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
    fred.call(number::SASL_START, &plain("fred", "correct horse")).unwrap().unwrap();
    let info = Command::new("virt-admin")
        .args(["-c", &format!("virtsecretd:///system?socket={}", place.admin_socket().display())])
        .args(["client-info", "virtsecretd", "1"])
        .output()
        .expect("virt-admin: apt-get install libvirt-clients");
    let info = String::from_utf8(info.stdout).unwrap();
    let line = info.lines().find(|line| line.starts_with("sasl_user_name")).unwrap_or_default();
    assert!(line.split_whitespace().last().is_some_and(|name| name.starts_with("fred")), "{info}");
}

#[test]
fn the_log_says_where_it_listens_and_what_whoever_comes_there_has_to_prove() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let sasl = "mech_list: PLAIN SCRAM-SHA-256 DIGEST-MD5\nsasldb_path: /nonexistent/users\n";
    let mut command = prepared(&place, &format!("{TCP}auth_unix_ro = \"sasl\"\n"), sasl);
    command.arg("--listen");
    let daemon = place.start(command);
    place.hear(&["listening on 127.0.0.1:", "(tcp, SASL: DIGEST-MD5)"]);
    let read_only = place.read_only_socket();
    let offers = place.hear(&[&format!("listening on {} (read-only socket, SASL: ", read_only.display())]);
    assert!(["PLAIN", "SCRAM-SHA-256", "DIGEST-MD5"].iter().all(|name| offers.contains(name)), "{offers}");
    place.hear(&[&format!("listening on {} (main socket, whoever may open it)", place.socket().display())]);
    place.hear(&[&format!("listening on {} (admin socket: ", place.admin_socket().display())]);
    place.hear(&["warning", "'/nonexistent/users', which isn't there: nobody can log in by ", "saslpasswd2"]);
    assert!(daemon.stop().success());
}

#[test]
fn sockets_that_nobody_could_come_in_by_stop_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let tcp = "listen_tls = 0\nlisten_tcp = 1\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"0\"\n";
    for (lines, mechanisms, expected) in [
        (
            "listen_tls = 0\nauth_unix_rw = \"sasl\"\n",
            "NO-SUCH",
            ["for the main socket", "mech_list in /etc/sasl2/libvirt.conf"],
        ),
        (
            tcp,
            "PLAIN SCRAM-SHA-256",
            ["for TCP: no mechanism in mech_list that encrypts", "has what it needs"],
        ),
        (
            tcp,
            "PLAIN SCRAM-SHA-256",
            ["PLAIN, SCRAM-SHA-256, but no socket offers", "libsasl2-modules-gssapi-mit"],
        ),
        (tcp, "GSSAPI\nkeytab: /nonexistent/tab", ["keytab in ", "'/nonexistent/tab', which isn't there"]),
    ] {
        let mut command = prepared(&place, lines, &format!("mech_list: {mechanisms}\n"));
        let status = command.arg("--listen").status().unwrap();
        let said = std::fs::read_to_string(place.daemon_output()).unwrap() + &place.log();
        assert_eq!(status.code(), Some(6), "{said}");
        assert!(expected.iter().all(|words| said.contains(words)) && said.contains("hint: "), "{said}");
        std::fs::write(place.daemon_output(), "").unwrap();
    }
    // Sockets that aren't there ask for nothing.
    let daemon = start(&place, "listen_tls = 0\n", "mech_list: NO-SUCH\n");
    assert!(daemon.stop().success());
}

#[test]
fn what_shows_a_password_is_refused_on_tcp_whatever_was_offered() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let tcp = format!("{TCP}tcp_min_ssf = 112\n");
    let sasl = password_file(&place, "DIGEST-MD5 SCRAM-SHA-256 PLAIN");
    let mut command = prepared(&place, &tcp, &sasl);
    command.arg("--listen");
    let _daemon = place.start(command);
    let mut client = by_tcp(&place);
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let offer = client.call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
        assert_eq!(&offer[4..14], b"DIGEST-MD5", "{:?}", String::from_utf8_lossy(&offer));
        assert!(!String::from_utf8_lossy(&offer).contains(mechanism));
        let start = started(mechanism, "\0fred\0correct horse");
        let refused = client.call(number::SASL_START, &start).unwrap().unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (45, "authentication failed: authentication failed")
        );
        place.hear(&["SASL refused 127.0.0.1", &format!("mechanism '{mechanism}' isn't offered")]);
        assert!(!place.log().contains("correct horse"));
    }
    client.call(number::AUTH_LIST, &Xdr::default()).unwrap().unwrap();
    assert!(client.call(number::NUM_OF_SECRETS, &Xdr::default()).unwrap().is_err(), "it is let in");
}

#[test]
fn tcp_offers_only_what_encrypts_as_strongly_as_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let offered = |bits: u32| {
        let sasl = password_file(&place, "DIGEST-MD5 GSSAPI");
        let mut command = prepared(&place, &format!("{TCP}tcp_min_ssf = {bits}\n"), &sasl);
        command.arg("--listen");
        _ = std::fs::remove_file(place.daemon_log());
        let daemon = place.start(command);
        let offer = by_tcp(&place).call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
        assert!(daemon.stop().success());
        String::from_utf8_lossy(&offer[4..]).trim_end_matches('\0').to_owned()
    };
    let (weak, strong) = (offered(112), offered(256));
    assert!(weak.contains("DIGEST-MD5") && weak.contains("GSSAPI"), "{weak}");
    assert_eq!(strong, "GSSAPI");

    // And if nothing is as strong, it doesn't start.
    let lines = format!("{TCP}tcp_min_ssf = 256\n");
    let mut command = prepared(&place, &lines, &password_file(&place, "DIGEST-MD5"));
    let status = command.arg("--listen").status().unwrap();
    let said = std::fs::read_to_string(place.daemon_output()).unwrap();
    assert!(status.code() == Some(6) && said.contains("for TCP"), "{status}: {said}");
}

#[test]
fn a_password_that_comes_in_pieces_is_in_no_memory_but_secret_memory() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let sasl = password_file(&place, "PLAIN");
    let daemon = start(&place, "auth_unix_rw = \"sasl\"\n", &sasl);
    let password = "Zq7-vG2x_Kw9.bT4+Lr8:nM3~hP6=sD5";
    let mut needles = Needles::new();
    needles.add("the password", password.as_bytes());
    // On the wire each of its bytes is a word.
    needles.add("the password on its way", &password.bytes().fold(Xdr::default(), Xdr::number).0);
    let clean = |when: &str| {
        let memory = needles.in_process(daemon.pid());
        assert_eq!(memory.found, [""; 0], "{when}");
        assert_eq!(memory.secret, 1, "one mapping of secret memory, which can't be read");
    };
    for (what, filler) in
        [("a short one", 0), ("one of more than a page", 5_000), ("a very long one", 40_000)]
    {
        let mut client = Client::connect(&place.socket(), PATIENCE).unwrap();
        client.call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
        let packet =
            call(number::SASL_START, 2, &plain("fred", &(password.to_owned() + &"x".repeat(filler))));
        let (front, back) = packet.split_at(packet.len() - 40);
        client.stream.write_all(front).unwrap();
        std::thread::sleep(Duration::from_millis(400)); // what hasn't come after a quarter of a second is late
        if filler == 0 {
            clean("while the rest is missing");
        }
        client.stream.write_all(back).unwrap();
        let refusal = client.receive().unwrap();
        assert_eq!((refusal.procedure, refusal.status), (number::SASL_START, 1), "{what}");
        clean(what);
    }
}

fn start(place: &Place, lines: &str, sasl: &str) -> Daemon {
    place.start(prepared(place, lines, sasl))
}

/// A daemon's command. Its own lines win over the usual ones.
fn prepared(place: &Place, lines: &str, sasl: &str) -> Command {
    std::fs::write(place.0.join("libvirt.conf"), sasl).unwrap();
    let mut command = place.command("");
    let config = place.0.join("daemon.conf");
    let usual = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, format!("{lines}{usual}")).unwrap();
    command.env("SASL_CONF_PATH", &place.0);
    command
}

/// What Cyrus is to be told: fred has a password, and these are the mechanisms.
fn password_file(place: &Place, mechanisms: &str) -> String {
    let users = place.0.join("users");
    let mut maker = Command::new("saslpasswd2")
        .args(["-p", "-c", "-f"])
        .args([users.to_str().unwrap(), "fred"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("saslpasswd2: apt-get install sasl2-bin");
    maker.stdin.take().unwrap().write_all(b"correct horse").unwrap();
    assert!(maker.wait().unwrap().success());
    format!(
        "mech_list: {mechanisms}\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\n",
        users.display()
    )
}

/// The first word of somebody who shows a password.
fn plain(user: &str, password: &str) -> Xdr {
    started("PLAIN", &format!("\0{user}\0{password}"))
}

/// A first word.
fn started(mechanism: &str, said: &str) -> Xdr {
    let head = Xdr::default().opaque(mechanism.as_bytes()).number(0).number(said.len() as u32);
    said.bytes().fold(head, Xdr::number)
}

/// A client where the daemon listens on TCP.
fn by_tcp(place: &Place) -> Client<TcpStream> {
    let stream = TcpStream::connect(place.listens("tcp")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream)
}

/// On TCP alone, on a port that the kernel chooses.
const TCP: &str =
    "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"sasl\"\nlisten_addr = \"127.0.0.1\"\ntcp_port = \"0\"\n";
