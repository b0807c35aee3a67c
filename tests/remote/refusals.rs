//! Who is refused: by stock virsh, at libvirtd and at strongroomd, in the same words; why, says strongroomd's log.
//!
//! Every refusal asks for a value; none may get it, and beside it somebody with the right credentials does. Where the
//! two daemons may differ is said in the table, with the reason; a difference that doesn't occur fails the test.

use std::fmt::Write as _;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{ExtendedKeyUsagePurpose, SerialNumber, date_time_ymd};

use crate::host::{Host, said};
use crate::server::{Kind, NAME, Pki, Server, Setup};

/// What a server demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// A certificate that isn't revoked, of a client on the list.
    Certificate,
    /// Nobody is on the list.
    ShutToAll,
    /// A password over TLS, of a user on the list. Over TCP one mechanism encrypts, and not those that are tried.
    Password,
    /// A ticket, of a user on the list.
    Ticket,
}

#[derive(Debug)]
struct Refusal {
    name: &'static str,
    door: Door,
    uri: &'static str,
    /// In virsh's environment.
    ticket: &'static str,
    /// Words that must be in the line of strongroomd's log.
    log: &'static [&'static str],
    differs: Option<&'static str>,
}

const fn at(door: Door, name: &'static str, uri: &'static str, log: &'static [&'static str]) -> Refusal {
    Refusal { name, door, uri, ticket: "", log, differs: None }
}

const REFUSALS: &[Refusal] = &[
    at(
        Door::Certificate,
        "expired",
        "secret://server.test/system?pkipath=/etc/expired&no_sanity=1",
        &["refused", "has expired"],
    ),
    at(
        Door::Certificate,
        "not yet valid",
        "secret://server.test/system?pkipath=/etc/early&no_sanity=1",
        &["not yet active"],
    ),
    at(
        Door::Certificate,
        "of another authority",
        "secret://server.test/system?pkipath=/etc/stranger&no_sanity=1",
        &["hasn't got a known issuer"],
    ),
    at(
        Door::Certificate,
        "revoked",
        "secret://server.test/system?pkipath=/etc/revoked&no_sanity=1",
        &["has been revoked"],
    ),
    Refusal {
        name: "for servers, not for clients",
        door: Door::Certificate,
        uri: "secret://server.test/system?pkipath=/etc/purpose&no_sanity=1",
        ticket: "",
        log: &["purpose"],
        differs: Some("libvirt doesn't look at a peer's extended key usage"),
    },
    at(
        Door::Certificate,
        "without a certificate",
        "secret://server.test/system?pkipath=/etc/bare",
        &["No certificate was found"],
    ),
    at(
        Door::Certificate,
        "not on the list of names",
        "secret://server.test/system?pkipath=/etc/mallory",
        &["C=GB,L=London,O=Strongroom,CN=mallory"],
    ),
    at(Door::Certificate, "the server has another name", "secret://other.test/system", &[]),
    at(
        Door::Certificate,
        "the server is of another authority",
        "secret://server.test/system?pkipath=/etc/elsewhere",
        &[],
    ),
    at(
        Door::ShutToAll,
        "the list of names is empty",
        "secret://server.test/system",
        &["C=GB,L=London,O=Strongroom,CN=client1"],
    ),
    at(
        Door::Password,
        "wrong password",
        "secret://server.test/system?auth=sasl.SCRAM-SHA-256&authfile=/etc/libvirt/wrong.conf",
        &["SASL refused"],
    ),
    at(
        Door::Password,
        "wrong realm",
        "secret://server.test/system?auth=sasl.SCRAM-SHA-256&authfile=/etc/libvirt/realm.conf",
        &["SASL refused"],
    ),
    at(
        Door::Password,
        "unknown user",
        "secret://server.test/system?auth=sasl.SCRAM-SHA-256&authfile=/etc/libvirt/carol.conf",
        &["SASL refused"],
    ),
    at(
        Door::Password,
        "a user who is not on the list",
        "secret://server.test/system?auth=sasl.SCRAM-SHA-256&authfile=/etc/libvirt/bob.conf",
        &["bob", "sasl_allowed_username_list"],
    ),
    at(
        Door::Password,
        "a plaintext mechanism on TCP",
        "secret+tcp://server.test/system?auth=sasl.PLAIN",
        &[], // the client sees that it isn't offered
    ),
    at(
        Door::Password,
        "a mechanism that does not encrypt on TCP",
        "secret+tcp://server.test/system?auth=sasl.SCRAM-SHA-256",
        &[], // the client sees that it isn't offered
    ),
    Refusal {
        name: "a ticket of a user who is not on the list",
        door: Door::Ticket,
        uri: "secret+tcp://server.test/system",
        ticket: "FILE:/run/bobs-ticket",
        log: &["bob", "sasl_allowed_username_list"],
        differs: None,
    },
    Refusal {
        name: "a ticket of another realm",
        door: Door::Ticket,
        uri: "secret+tcp://server.test/system",
        ticket: "FILE:/run/daves-ticket",
        log: &["dave@OTHER.TEST", "sasl_allowed_username_list"],
        differs: None,
    },
    Refusal {
        name: "no ticket",
        door: Door::Ticket,
        uri: "secret+tcp://server.test/system",
        ticket: "FILE:/run/no-ticket",
        log: &[],
        differs: None,
    },
];

#[test]
fn the_wrong_ones_are_refused_alike_and_the_log_says_why() {
    let pki = Pki::new();
    let mut report = String::new();
    let doors = [Door::Certificate, Door::ShutToAll, Door::Password, Door::Ticket];
    let reports = thread::scope(|scope| {
        let trying: Vec<_> = doors.iter().map(|door| scope.spawn(|| try_door(&pki, *door))).collect();
        trying.into_iter().map(|door| door.join().unwrap()).collect::<String>()
    });
    report += &reports;
    assert!(report.is_empty(), "\n{report}");
}

/// All refusals at one door, at both daemons.
fn try_door(pki: &Pki, door: Door) -> String {
    let [stock, ours] = thread::scope(|scope| {
        [Kind::Libvirtd, Kind::Strongroomd]
            .map(|kind| scope.spawn(move || open(pki, door, kind)))
            .map(|starting| starting.join().unwrap())
    });
    let mut report = String::new();
    let mut tell = |name: &str, wrong: String| writeln!(report, "== {door:?}, {name}: {wrong}\n").unwrap();
    for server in [&stock, &ours] {
        match (door, get(server, good(door), "")) {
            (Door::ShutToAll, _) => {}
            (_, Ok(())) => {}
            (_, Err(refused)) => {
                let log = server.log() + &server.host.sh("virt-pki-query-dn /etc/pki/libvirt/clientcert.pem");
                tell("the right ones", format!("{:?} refuses them: {refused}{log}", server.kind));
            }
        }
    }
    for refusal in REFUSALS.iter().filter(|refusal| refusal.door == door) {
        let theirs = get(&stock, refusal.uri, refusal.ticket);
        let before = ours.log().len();
        let words = get(&ours, refusal.uri, refusal.ticket);
        match (&theirs, &words, refusal.differs) {
            (_, Ok(()), _) => tell(refusal.name, "strongroomd gave the value".to_owned()),
            (theirs, words, None) if theirs != words => {
                tell(refusal.name, format!("\n--- stock\n{theirs:?}\n--- ours\n{words:?}"));
            }
            (theirs, words, Some(reason)) if theirs == words => {
                tell(refusal.name, format!("no difference any more ({reason})"));
            }
            _ => {}
        }
        let log = new_lines(&ours, before, refusal.log);
        if !log.lines().any(|line| refusal.log.iter().all(|words| line.contains(words)))
            && !refusal.log.is_empty()
        {
            tell(refusal.name, format!("strongroomd's log has no line with {:?}:\n{log}", refusal.log));
        }
    }
    report
}

/// What came into the log since then; waits for the words, because nobody waits for the log.
fn new_lines(server: &Server, before: usize, words: &[&str]) -> String {
    let started = Instant::now();
    loop {
        let log = server.log();
        let new = log.get(before..).unwrap_or_default();
        let there = new.lines().any(|line| words.iter().all(|words| line.contains(words)));
        if there || started.elapsed() > Duration::from_secs(2) {
            return new.to_owned();
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// How the right ones come in.
fn good(door: Door) -> &'static str {
    match door {
        Door::Certificate | Door::ShutToAll => "secret://server.test/system",
        Door::Password => "secret://server.test/system?auth=sasl.SCRAM-SHA-256",
        Door::Ticket => "secret+tcp://server.test/system",
    }
}

/// Asks for the value. Err: virsh's words for not getting it.
fn get(server: &Server, uri: &str, ticket: &str) -> Result<(), String> {
    let mut command = server.host.command("timeout");
    command.args(["20", "virsh", "-c", uri, "secret-get-value", UUID, "--plain"]);
    if !ticket.is_empty() {
        command.env("KRB5CCNAME", ticket);
    }
    let output = command.output().unwrap();
    let got = String::from_utf8_lossy(&output.stdout);
    match (output.status.code(), got.trim()) {
        (Some(0), VALUE) => Ok(()),
        (Some(1), "") => Err(words(&output)),
        _ => Err(said(&output)),
    }
}

/// virsh's words, without the log of the library in it.
fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    said.split_inclusive('\n').filter(|line| !line.starts_with("20")).collect()
}

fn open(pki: &Pki, door: Door, kind: Kind) -> Server {
    let host = Host::new(NAME);
    pki.install(&host);
    let (settings, mechanisms) = match door {
        Door::Certificate => {
            badly_certified(&host, pki);
            ("tls_allowed_dn_list = [ \"C=GB,L=London,*,CN=client?\" ]\nlisten_tcp = 0", "gssapi")
        }
        Door::ShutToAll => ("tls_allowed_dn_list = [ ]\nlisten_tcp = 0", "gssapi"),
        Door::Password => (
            "auth_tls = \"sasl\"\nsasl_allowed_username_list = [ \"alice*\" ]",
            "scram-sha-256 plain digest-md5",
        ),
        Door::Ticket => ("sasl_allowed_username_list = [ \"alice*\" ]", "gssapi"),
    };
    let setup = Setup { settings, mechanisms, kerberos: door == Door::Ticket, ssh: false, secrets: 0 };
    let server = Server::start_on(host, kind, pki, &setup);
    let host = &server.host;
    for (file, user, password) in
        [("bob", "bob", "geheim"), ("carol", "carol", "geheim"), ("realm", "alice@elsewhere.test", "geheim")]
    {
        let lines = format!(
            "[credentials-it]\nauthname={user}\npassword={password}\n[auth-libvirt-{NAME}]\ncredentials=it\n"
        );
        host.write(&format!("/etc/libvirt/{file}.conf"), lines);
    }
    if door == Door::Ticket {
        other_realm(host);
    }
    host.write("/run/one.xml", format!("<secret><uuid>{UUID}</uuid></secret>"));
    host.write("/run/one", VALUE);
    host.sh(&format!(
        "virsh -c secret:///system secret-define /run/one.xml
        virsh -c secret:///system secret-set-value {UUID} --plain --file /run/one"
    ));
    server
}

/// A directory for `?pkipath=` for each thing that can be wrong with a certificate, and a list that revokes one.
fn badly_certified(host: &Host, pki: &Pki) {
    let authority = &pki.authority;
    let expired = authority.client("client1", |params| params.not_after = date_time_ymd(2024, 2, 1));
    let early = authority.client("client1", |params| params.not_before = date_time_ymd(2123, 1, 1));
    let revoked = authority.client("client1", |params| params.serial_number = Some(SerialNumber::from(4711)));
    let purpose = authority.client("client1", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let mallory = authority.client("mallory", |_| ());
    for (name, pair) in [
        ("expired", expired),
        ("early", early),
        ("revoked", revoked),
        ("purpose", purpose),
        ("mallory", mallory),
    ] {
        pki.client_in(host, &format!("/etc/{name}"), &pair);
    }
    host.write("/etc/bare/cacert.pem", authority.pem());
    let elsewhere = crate::pki::Authority::new("Somebody else");
    let theirs = elsewhere.client("client1", |_| ());
    host.write("/etc/elsewhere/cacert.pem", elsewhere.pem());
    host.write("/etc/elsewhere/clientcert.pem", &theirs.certificate);
    host.write("/etc/elsewhere/clientkey.pem", &theirs.key);
    host.write("/etc/pki/CA/cacrl.pem", authority.revoke(4711));
    let hosts = host.read("/etc/hosts");
    host.write("/etc/hosts", format!("{hosts}127.0.0.1 other.test\n"));
}

/// A second realm that the server's trusts, with a user of its own; and a ticket for a user of the first.
fn other_realm(host: &Host) {
    let config = host.read("/etc/krb5.conf");
    host.write("/etc/krb5.conf", format!("{config}[realms]\nOTHER.TEST = {{\n    kdc = {NAME}:1088\n}}\n"));
    host.write("/run/other/kdc.conf", OTHER_KDC);
    host.sh("echo bobs-password | kinit -c FILE:/run/bobs-ticket bob > /run/kinit.log
        tgt=krbtgt/STRONGROOM.TEST@OTHER.TEST
        kadmin.local addprinc -pw shared -e aes256-cts:normal $tgt > /run/realm.log
        export KRB5_KDC_PROFILE=/run/other/kdc.conf
        kdb5_util -r OTHER.TEST create -s -P master >> /run/realm.log
        kadmin.local -r OTHER.TEST addprinc -pw shared -e aes256-cts:normal $tgt >> /run/realm.log
        kadmin.local -r OTHER.TEST addprinc -pw daves-password dave@OTHER.TEST >> /run/realm.log
        # It goes into the background once it listens.
        krb5kdc -r OTHER.TEST -P /run/other/pid
        for try in $(seq 100); do
            if echo daves-password | kinit -c FILE:/run/daves-ticket dave@OTHER.TEST > /run/kinit.log 2>&1; then exit; fi
            sleep 0.05
        done
        cat /run/kinit.log; exit 1");
}

const OTHER_KDC: &str = "[kdcdefaults]
kdc_ports = 1088
kdc_tcp_ports = 1088
[realms]
OTHER.TEST = {
    database_name = /run/other/principal
    key_stash_file = /run/other/stash
}
";

const UUID: &str = "5ce11000-0000-4000-8000-00000000beef";
const VALUE: &str = "only-for-those-who-are-let-in";
