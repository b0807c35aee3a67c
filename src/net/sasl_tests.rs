//! Cyrus at both ends, with users, passwords and a Kerberos of their own.
//!
//! Cyrus and Kerberos read their settings from the environment, once for a process. So each test makes a folder with all
//! that is needed, and runs its other half in a process of its own ([`World::run`]). Leans on saslpasswd2 and on MIT's KDC.
//! Refuses to use anything of the host's: neither `/etc/sasl2` nor `/etc/krb5.conf`.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::env;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;

use super::layer::{Broken, Layer, MAX_RECORD};
use super::sasl::{Around, Client, Done, Prompt, SaslError, Server, Want};
use crate::memory::SecretBytes;

/// A host's users. Gone with its folder when it is dropped.
pub(crate) struct World {
    folder: tempfile::TempDir,
    kdc: Option<Child>,
}

impl World {
    /// fred has a password.
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), kdc: None };
        let lines = [
            "mech_list: SCRAM-SHA-256 DIGEST-MD5 PLAIN GSSAPI".to_owned(),
            "pwcheck_method: auxprop\nauxprop_plugin: sasldb".to_owned(),
            format!("sasldb_path: {}", world.path("users").display()),
        ];
        fs::write(world.path("libvirt.conf"), lines.join("\n") + "\n").unwrap();
        world.program(
            "saslpasswd2",
            &["-p", "-c", "-f", world.path("users").to_str().unwrap(), "fred"],
            PASSWORD,
        );
        world
    }

    /// alice has a Kerberos ticket, and the service its key.
    pub(crate) fn with_kerberos() -> Self {
        let mut world = Self::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| world.path(name).display().to_string();
        fs::write(
            at("krb5.conf"),
            format!(
                "[libdefaults]\ndefault_realm = TEST\ndns_canonicalize_hostname = false\nrdns = false\n\
                 dns_lookup_kdc = false\nudp_preference_limit = 1\n[realms]\nTEST = {{\nkdc = 127.0.0.1:{port}\n}}\n"
            ),
        )
        .unwrap();
        fs::write(
            at("kdc.conf"),
            format!(
                "[kdcdefaults]\nkdc_listen = \"\"\nkdc_tcp_listen = 127.0.0.1:{port}\n[realms]\nTEST = {{\n\
                 database_name = {}\nkey_stash_file = {}\nsupported_enctypes = aes256-cts:normal\n}}\n",
                at("principals"),
                at("stash")
            ),
        )
        .unwrap();
        world.program("kdb5_util", &["create", "-s", "-r", "TEST", "-P", "master"], "");
        world.program("kadmin.local", &["-q", &format!("addprinc -pw \"{PASSWORD}\" alice")], "");
        let service = format!("libvirt/{}", host_name());
        world.program("kadmin.local", &["-q", &format!("addprinc -randkey {service}")], "");
        world.program("kadmin.local", &["-q", &format!("ktadd -k {} {service}", at("keytab"))], "");
        let kdc = world.command("krb5kdc").arg("-n").stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        world.kdc = Some(kdc.unwrap());
        let until = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "the KDC doesn't listen");
            std::thread::yield_now();
        }
        world.program("kinit", &["alice"], &format!("{PASSWORD}\n"));
        world
    }

    /// Runs the test that calls this once more, by its full name, as a process in this world: there [`world`] says where
    /// it is.
    pub(crate) fn run(&self, test: &str) {
        let mut command = self.command(env::current_exe().unwrap());
        let out = command.args(["--exact", test, "--nocapture"]).output().unwrap();
        let told =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success() && told.contains("1 passed"), "{told}");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.folder.path());
        command.env("SASL_CONF_PATH", self.folder.path()).env(WORLD, self.folder.path());
        command.env("KRB5_CONFIG", self.path("krb5.conf")).env("KRB5_KDC_PROFILE", self.path("kdc.conf"));
        command.env("KRB5_KTNAME", self.path("keytab")).env("KRB5CCNAME", self.path("tickets"));
        command.env("KRB5RCACHETYPE", "none").env_remove("XDG_CONFIG_HOME").env_remove("LIBVIRT_AUTH_FILE");
        command
    }

    fn program(&self, name: &str, arguments: &[&str], input: &str) {
        let mut command = self.command(name);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("{name}: {error}; apt-get install sasl2-bin krb5-kdc krb5-admin-server krb5-user")
        });
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        assert!(out.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(kdc) = &mut self.kdc {
            _ = kdc.kill();
            _ = kdc.wait();
        }
    }
}

/// The world's folder, in a process that runs in one.
pub(crate) fn world() -> Option<PathBuf> {
    env::var_os(WORLD).map(PathBuf::from)
}

/// As Cyrus finds out its own host's name.
pub(crate) fn host_name() -> String {
    let name = Command::new("hostname").arg("-f").output().unwrap();
    let plain = Command::new("hostname").output().unwrap();
    let name = if name.status.success() { name } else { plain };
    String::from_utf8(name.stdout).unwrap().trim().to_lowercase()
}

/// fred's, and alice's.
pub(crate) const PASSWORD: &str = "correct horse";

const WORLD: &str = "STRONGROOM_TEST_WORLD";

/// Both ends talk until they agree: what each of them has then.
fn converse(around: Around, mechanism: &str, name: &str, password: &str) -> Result<(Done, Done), SaslError> {
    converse_in_pieces(around, mechanism, name, password, None)
}

/// The same, with a client that takes at most so much at a time.
fn converse_in_pieces(
    around: Around,
    mechanism: &str,
    name: &str,
    password: &str,
    most: Option<u32>,
) -> Result<(Done, Done), SaslError> {
    let (here, there): (SocketAddr, SocketAddr) =
        ("127.0.0.1:16509".parse().unwrap(), "127.0.0.1:4711".parse().unwrap());
    let mut server = Server::new(around, Some(here), Some(there))?;
    let client_around = if matches!(around, Around::Tcp { .. }) { Around::TCP } else { around };
    let mut client = Client::new(&host_name(), client_around, Some(there), Some(here))?;
    most.map(|most| client.take(most)).transpose()?;
    let mut answer = |prompt: &Prompt| {
        let answer = match prompt.want {
            Want::AuthName => name,
            Want::Password => password,
            _ => prompt.default.as_deref().unwrap_or_default(),
        };
        SecretBytes::copy_of(answer.as_bytes()).ok()
    };
    let (chosen, mut said) = client.start(mechanism, &mut answer)?;
    let mut heard = server.start(&chosen, said.data.as_ref().map(|it| it.expose_secret()))?;
    while !(said.complete && heard.complete) {
        if !said.complete {
            said = client.step(heard.data.as_ref().map(|it| it.expose_secret()), &mut answer)?;
        }
        if !heard.complete {
            heard = server.step(said.data.as_ref().map(|it| it.expose_secret()))?;
        }
    }
    Ok((server.finish()?, client.finish()?))
}

fn why(refused: Result<(Done, Done), SaslError>) -> String {
    refused.err().map(|error| error.to_string()).expect("refused")
}

/// What is sealed on one side comes out on the other.
fn passes(from: &mut Layer, to: &mut Layer, parts: &[&[u8]]) -> usize {
    let mut sealed = Vec::new();
    from.sealer.seal(parts, &mut sealed).unwrap();
    let whole = parts.concat();
    let front = &whole[..whole.len().min(32)];
    assert!(!sealed.windows(front.len()).any(|window| window == front), "it is encrypted");
    let (mut at, mut came, mut records) = (0, Vec::new(), 0);
    while at < sealed.len() {
        assert_eq!(to.opener.record(&sealed[at..at + 3]).unwrap(), None);
        let length = to.opener.record(&sealed[at..]).unwrap().unwrap();
        assert!(length <= MAX_RECORD);
        to.opener.open(&mut sealed[at..at + length], &mut |plain| came.extend_from_slice(plain)).unwrap();
        (at, records) = (at + length, records + 1);
    }
    assert!(came == whole);
    records
}

fn both_ways((server, client): (Done, Done)) {
    let (mut server, mut client) = (server.layer.unwrap(), client.layer.unwrap());
    assert!(server.bits >= 56 && server.bits == client.bits);
    let large: Vec<u8> = (0..100_000_u32).map(|it| (it.wrapping_mul(it) >> 3) as u8).collect();
    assert_eq!(passes(&mut client, &mut server, &[b"a call"]), 1);
    assert_eq!(passes(&mut server, &mut client, &[b"head", b"", b"value", b"\0\0\0"]), 3);
    assert!(passes(&mut server, &mut client, &[&large]) >= 7);
    assert!(passes(&mut client, &mut server, &[&large]) >= 7);
    for length in [0, u32::try_from(MAX_RECORD).unwrap(), u32::MAX] {
        assert!(matches!(server.opener.record(&length.to_be_bytes()), Err(Broken::Malformed(_))));
    }
    let mut sealed = Vec::new();
    client.sealer.seal(&[b"once more"], &mut sealed).unwrap();
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    assert!(server.opener.open(&mut sealed, &mut |_| panic!("it opened")).is_err());
}

/// Where the administrator has configured nothing.
#[test]
fn nobody_comes_in_without_a_name() {
    let Some(world) = world() else {
        return World::new().run("net::sasl_tests::nobody_comes_in_without_a_name");
    };
    fs::remove_file(world.join("libvirt.conf")).unwrap();
    for around in [Around::Unix, Around::Tls { bits: 256 }] {
        let mut server = Server::new(around, None, None).unwrap();
        assert!(server.mechanisms().contains("PLAIN"), "{}", server.mechanisms());
        assert!(!server.mechanisms().contains("ANONYMOUS"), "{}", server.mechanisms());
        assert!(server.start("ANONYMOUS", Some(b"me")).is_err());
    }
}

#[test]
fn passwords_let_in_those_who_know_them() {
    if world().is_none() {
        return World::new().run("net::sasl_tests::passwords_let_in_those_who_know_them");
    }
    for around in [Around::Unix, Around::Tls { bits: 256 }] {
        for mechanism in ["SCRAM-SHA-256", "DIGEST-MD5", "PLAIN"] {
            let (server, client) = converse(around, mechanism, "fred", PASSWORD).unwrap();
            assert_eq!(server.mechanism, mechanism);
            assert!(server.user == "fred" || server.user.starts_with("fred@"), "{}", server.user);
            assert!(server.ssf == 0 && server.layer.is_none() && client.layer.is_none());
            for (name, password) in [("fred", "wrong"), ("fred", ""), ("nobody", PASSWORD)] {
                let refused = converse(around, mechanism, name, password).err().unwrap();
                assert!(!refused.to_string().contains(PASSWORD) && !refused.to_string().contains("wrong"));
            }
        }
        let refused = converse(around, "SCRAM-SHA-256", "fred", "wrong").err().unwrap();
        assert!(refused.user.is_some_and(|user| user.starts_with("fred")), "the log can say who it was");
    }
    on_bare_tcp_passwords_are_never_shown();
}

fn on_bare_tcp_passwords_are_never_shown() {
    let tcp = Around::Tcp { min_ssf: 112 };
    let mut server = Server::new(tcp, None, None).unwrap();
    let offered = server.mechanisms().to_owned();
    assert!(
        offered.contains("DIGEST-MD5") && !offered.contains("SCRAM") && !offered.contains("PLAIN"),
        "{offered}"
    );
    let secret = format!("\0fred\0{PASSWORD}");
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "ANONYMOUS", "EXTERNAL", "a\0b", ""] {
        assert!(server.start(mechanism, Some(secret.as_bytes())).is_err(), "{mechanism}");
    }
    assert!(why(converse(tcp, "SCRAM-SHA-256", "fred", PASSWORD)).contains("No worthy mechs found"));
    both_ways(converse(tcp, "DIGEST-MD5", "fred", PASSWORD).unwrap());
    for (most, is_enough) in [(64, false), (1000, false), (2000, true)] {
        let agreed = converse_in_pieces(tcp, "DIGEST-MD5", "fred", PASSWORD, Some(most));
        match is_enough {
            true => assert!(agreed.is_ok_and(|(server, _)| server.layer.is_some())),
            false => assert!(why(agreed).contains("fewer than 1024"), "records of {most}"),
        }
    }
    assert!(Server::new(Around::Tcp { min_ssf: 1000 }, None, None).is_err(), "nothing is as strong");
    let unfinished = Server::new(tcp, None, None).unwrap();
    assert!(unfinished.finish().is_err());
}

#[test]
fn kerberos_lets_in_those_who_have_a_ticket() {
    let Some(world) = world() else {
        return World::with_kerberos().run("net::sasl_tests::kerberos_lets_in_those_who_have_a_ticket");
    };
    let tcp = Around::Tcp { min_ssf: 112 };
    let agreed = converse(tcp, "GSSAPI", "", "").unwrap();
    assert_eq!((agreed.0.user.split('@').next(), agreed.0.ssf), (Some("alice"), 256));
    both_ways(agreed);
    let inside = converse(Around::Tls { bits: 256 }, "GSSAPI", "", "").unwrap();
    assert!(inside.0.layer.is_none());
    move_away(&world, "tickets");
    assert!(why(converse(tcp, "GSSAPI", "", "")).contains("GSSAPI"));
}

fn move_away(world: &Path, name: &str) {
    fs::rename(world.join(name), world.join("away")).unwrap();
}
