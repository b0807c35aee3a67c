//! SASL in the daemon: who is known by name, what stands still with whoever knows the users, and when there is nothing to
//! authenticate by.
//!
//! Leans on Cyrus with a configuration of the test's own (`SASL_CONF_PATH`), on saslpasswd2 and virt-admin. Where Cyrus shall
//! wait, the test is its `saslauthd`, and doesn't answer. Refuses to use anything of the host's.

#![cfg(feature = "sasl")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::Place;
use support::daemon::{Daemon, PATIENCE};
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
    let users = place.0.join("users");
    let mut maker = Command::new("saslpasswd2")
        .args(["-p", "-c", "-f"])
        .args([users.to_str().unwrap(), "fred"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("saslpasswd2: apt-get install sasl2-bin");
    maker.stdin.take().unwrap().write_all(b"correct horse").unwrap();
    assert!(maker.wait().unwrap().success());
    let lines = format!(
        "mech_list: PLAIN\npwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {}\n",
        users.display()
    );
    let _daemon = start(&place, "auth_unix_rw = \"sasl\"\n", &lines);
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
        (tcp, "PLAIN SCRAM-SHA-256", ["for TCP", "libsasl2-modules-gssapi-mit"]),
    ] {
        let mut command = prepared(&place, lines, &format!("mech_list: {mechanisms}\n"));
        let status = command.arg("--listen").status().unwrap();
        let said = std::fs::read_to_string(place.daemon_output()).unwrap();
        assert_eq!(status.code(), Some(6), "{said}");
        assert!(expected.iter().all(|words| said.contains(words)) && said.contains("hint: "), "{said}");
        std::fs::write(place.daemon_output(), "").unwrap();
    }
    // Sockets that aren't there ask for nothing.
    let daemon = start(&place, "listen_tls = 0\n", "mech_list: NO-SUCH\n");
    assert!(daemon.stop().success());
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

/// The first word of somebody who shows a password.
fn plain(user: &str, password: &str) -> Xdr {
    let said = format!("\0{user}\0{password}");
    let head = Xdr::default().opaque(b"PLAIN").number(0).number(said.len() as u32);
    said.bytes().fold(head, Xdr::number)
}
