//! What crowds on the daemon's doors cost others: such as stall in the TLS handshake, say nothing, or guess passwords.
//!
//! Leans on GnuTLS' client for those who mean well, and fails without it; on addresses of loopback for origins; and where
//! Cyrus asks for passwords, the test is its `saslauthd`. Refuses to wait longer than a person would.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

#[path = "support/gnutls.rs"]
mod gnutls;
#[path = "support/pki.rs"]
mod pki;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use gnutls::Gnutls;
use pki::Authority;
use support::Place;
use support::daemon::{Daemon, PATIENCE};

#[test]
fn thousands_that_stall_in_the_handshake_hold_nobody_up() {
    raise_descriptor_limit();
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let tls = Tls::new(place.0.join("pki"));
    let daemon = listen(&place, &tls.lines, &[]);
    let address = place.listens("tls");
    // Few addresses hold all places, and are all who may wait. Who is sent away comes again. Some say parts of a record, some
    // records that are parts.
    let record = [0x16, 3, 1, 0x3f, 0xff].into_iter().chain(std::iter::repeat(0));
    let hello = [1, 0, 0x40, 0].into_iter().chain(std::iter::repeat(0));
    let words = record.zip(hello);
    let crowd = Background::new(move |stop| {
        let come = |number: usize| {
            let stream = connect_from([127, 0, 0, 2 + (number % 5) as u8], address);
            stream.set_nonblocking(true).unwrap();
            (stream, words.clone())
        };
        let mut all: Vec<_> = (0..4500).map(come).collect();
        while stop.recv_timeout(Duration::from_millis(400)) == Err(RecvTimeoutError::Timeout) {
            for (number, (stream, words)) in all.iter_mut().enumerate() {
                let (part, byte) = words.next().unwrap();
                let word: &[u8] = if number % 2 == 0 { &[part] } else { &[0x16, 3, 1, 0, 1, byte] };
                if is_closed(stream) || stream.write_all(word).is_err() {
                    (*stream, *words) = come(number);
                }
            }
        }
    });
    until(|| daemon.descriptors() > 4300);
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(tls.connect(address).next(1), [1], "{}", place.log());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed()); // one alone would need that
    drop(crowd);
}

#[test]
fn a_crowd_that_stalls_holds_up_neither_its_neighbours_behind_one_address_nor_others() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let tls = Tls::new(place.0.join("pki"));
    let daemon = listen(&place, &tls.lines, &[]);
    let address = place.listens("tls");
    let at_rest = daemon.descriptors_at_rest();
    let begin = |number: usize| -> Vec<TcpStream> {
        let begun = (0..number).map(|_| {
            let mut stream = connect_from([127, 0, 0, 1], address);
            stream.write_all(&[0x16, 3, 1]).unwrap();
            stream
        });
        begun.collect()
    };
    let few = begin(200);
    until(|| daemon.descriptors() >= at_rest + 200);
    let began = Instant::now();
    assert_eq!(tls.connect(address).next(1), [1], "{}", place.log());
    assert!(began.elapsed() < Duration::from_millis(800), "from there: {:?}", began.elapsed());
    assert!(!place.log().contains("stood still"), "there was room for all");
    let many = begin(300);
    until(|| daemon.descriptors() >= at_rest + 500);
    let began = Instant::now();
    let mut other = connect_from([127, 0, 0, 9], address);
    other.write_all(&[0x16, 3, 1, 0, 4, 99, 0, 0, 0]).unwrap(); // a message of no kind
    other.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(other.read(&mut [0]).is_ok(), "an alert, or it is hung up");
    assert!(began.elapsed() < Duration::from_millis(800), "from elsewhere: {:?}", began.elapsed());
    drop((few, many));
}

#[cfg(feature = "sasl")]
#[test]
fn three_hundred_silent_strangers_shut_nobody_out() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    use support::wire::{Xdr, call, number};

    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let tls = Tls::new(place.0.join("pki"));
    let sasl = "listen_tcp = 1\nauth_tcp = \"sasl\"\nauth_tls = \"sasl\"\n";
    let _daemon = listen(&place, &format!("{}{sasl}", tls.lines), &[]);
    let [tls_address, tcp] = ["tls", "tcp"].map(|kind| place.listens(kind));
    // Who is sent away comes again.
    let crowd = Background::new(move |stop| {
        let mut silent: Vec<TcpStream> = Vec::new();
        while stop.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
            silent.retain_mut(|stream| !is_closed(stream));
            while silent.len() < 300 {
                let stream = connect_from([127, 0, 0, 2], tcp);
                stream.set_nonblocking(true).unwrap();
                silent.push(stream);
            }
        }
    });
    place.hear(&[WARNING, "refused 127.0.0.2:", "the places for its like are taken, and many wait"]);
    place.hear(&[WARNING, "(127.0.0.2:", "it hasn't authenticated, and others wait"]);

    // A user of this host who isn't root, at once.
    if rustix::process::geteuid().is_root() {
        let program = place.0.join("strongroom");
        std::fs::copy(env!("CARGO_BIN_EXE_strongroom"), &program).unwrap();
        for open in [place.0.clone(), place.root(), place.root().join("run"), place.socket(), program.clone()]
        {
            std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let began = Instant::now();
        let uri = format!("secret+unix:///system?socket={}", place.socket().display());
        let mut user = Command::new(program);
        user.args(["-c", &uri, "secret-list"]).env_clear().current_dir("/").uid(65_534).gid(65_534);
        let done = user.output().unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    } else {
        support::note("not root: not tested with another user of this host");
    }
    let asks = call(number::AUTH_LIST, 1, &Xdr::default());
    for _ in 0..20 {
        // Who has a certificate, though it has to authenticate as well.
        let mut served = tls.connect(tls_address);
        assert_eq!(served.next(1), [1]);
        served.write(&asks);
        assert_eq!(served.next(36)[..4], 36_u32.to_be_bytes());
        // And other strangers, who do say something.
        let began = Instant::now();
        let mut other = connect_from([127, 0, 0, 9], tcp);
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        other.write_all(&asks).unwrap();
        other.read_exact(&mut [0; 36]).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    drop(crowd);
    let told = place.log().matches("the places for its like").count();
    assert!(told < 100, "the log is flooded: {told} lines");
}

#[cfg(feature = "sasl")]
#[test]
fn who_leaves_while_it_waits_takes_nobodys_place() {
    use support::wire::{Xdr, call, number};

    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let lines = "listen_tls = 0\nlisten_tcp = 1\nauth_tcp = \"sasl\"\nmax_anonymous_clients = 1\n";
    let _daemon = listen(&place, lines, &[]);
    let tcp = place.listens("tcp");
    let mut first = TcpStream::connect(tcp).unwrap();
    place.hear(&["has come: 127.0.0.1"]);
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(&call(number::AUTH_LIST, 1, &Xdr::default())).unwrap();
    first.read_exact(&mut [0; 36]).unwrap();
    // It leaves before its turn comes, with words of its own unread.
    let mut gone = TcpStream::connect(tcp).unwrap();
    gone.write_all(&call(number::AUTH_LIST, 1, &Xdr::default())).unwrap();
    drop(gone);
    place.hear(&["left while it waited"]);
    // And nobody has to give way to one who is gone.
    first.set_read_timeout(Some(Duration::from_millis(1500))).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(&call(number::AUTH_LIST, 2, &Xdr::default())).unwrap();
    first.read_exact(&mut [0; 36]).unwrap();
}

#[test]
fn who_leaves_while_it_waits_for_a_handshake_stands_in_the_line_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let tls = Tls::new(place.0.join("pki"));
    let daemon = listen(&place, &tls.lines, &[]);
    let address = place.listens("tls");
    let at_rest = daemon.descriptors_at_rest();
    let began = Instant::now();
    let here: Vec<TcpStream> = (0..356).map(|_| connect_from([127, 0, 0, 2], address)).collect();
    until(|| daemon.descriptors() >= at_rest + 356);
    // 256 may be in a handshake; of the others nobody reads.
    here[256..].iter().for_each(|stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    let is_swift = began.elapsed() < Duration::from_millis(800);
    until(|| daemon.descriptors() <= at_rest + 256);
    let sent_away = place.log().contains("stood still");
    assert!(!(is_swift && sent_away), "somebody had to go for those who were gone");
}

#[cfg(feature = "sasl")]
#[test]
fn who_guesses_passwords_holds_nobody_up_on_another_socket() {
    use std::os::unix::net::UnixListener;
    use support::wire::{Client, Xdr, number};

    let directory = tempfile::tempdir().unwrap();
    let place = Place(directory.path().into());
    let mux = place.0.join("mux");
    let door = UnixListener::bind(&mux).unwrap();
    // Who knows the users lets those wait whom it refuses, as PAM does.
    thread::spawn(move || {
        for mut asked in door.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut word = || {
                    let mut length = [0; 2];
                    asked.read_exact(&mut length)?;
                    let mut word = vec![0; usize::from(u16::from_be_bytes(length))];
                    asked.read_exact(&mut word).map(|()| word)
                };
                let Ok(words) = (0..4).map(|_| word()).collect::<Result<Vec<_>, _>>() else { return };
                let right = words[1] == b"right";
                if !right {
                    thread::sleep(Duration::from_secs(2));
                }
                _ = asked.write_all(if right { b"\0\x02OK" } else { b"\0\x02NO" });
            });
        }
    });
    let lines = "listen_tls = 0\nauth_unix_rw = \"sasl\"\nauth_unix_ro = \"sasl\"\n";
    let sasl = format!("mech_list: PLAIN\npwcheck_method: saslauthd\nsaslauthd_path: {}\n", mux.display());
    std::fs::write(place.0.join("libvirt.conf"), sasl).unwrap();
    let daemon = listen(&place, lines, &[("SASL_CONF_PATH", place.0.to_str().unwrap())]);
    let plain = |password: &str| {
        let said = format!("\0fred\0{password}");
        let head = Xdr::default().opaque(b"PLAIN").number(0).number(said.len() as u32);
        said.bytes().fold(head, Xdr::number)
    };
    let read_only = place.read_only_socket();
    // As many as may be there, and they don't wait for an answer.
    let guessers: Vec<Client> = (0..15)
        .map(|_| {
            let mut guesser = Client::connect(&read_only, PATIENCE).unwrap();
            guesser.call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
            guesser.stream.write_all(&support::wire::call(number::SASL_START, 2, &plain("wrong"))).unwrap();
            guesser
        })
        .collect();
    let began = Instant::now();
    for _ in 0..3 {
        let mut fred = Client::connect(&place.socket(), PATIENCE).unwrap();
        fred.call(number::SASL_INIT, &Xdr::default()).unwrap().unwrap();
        fred.call(number::SASL_START, &plain("right")).unwrap().unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    drop((guessers, daemon));
}

/// A thread that goes on until this is dropped.
struct Background(Option<(std::sync::mpsc::Sender<()>, thread::JoinHandle<()>)>);

impl Background {
    fn new(work: impl FnOnce(Receiver<()>) + Send + 'static) -> Self {
        let (stop, stopped) = channel();
        Self(Some((stop, thread::spawn(move || work(stopped)))))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            _ = thread.join();
        }
    }
}

/// A connection from that address of loopback.
fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let stream = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    bind(&stream, &SocketAddr::from((from, 0))).unwrap();
    connect(&stream, &to).unwrap();
    stream.into()
}

/// Whether the other end of a stream that waits for nothing has closed it.
fn is_closed(stream: &mut TcpStream) -> bool {
    !stream.read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Ours, for thousands of connections. The daemon raises its own.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
}

/// Waits until it is so.
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it isn't so");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A daemon that listens on loopback. Its own lines win over the usual ones.
fn listen(place: &Place, lines: &str, environment: &[(&str, &str)]) -> Daemon {
    let mut command = place.command("");
    let config = place.0.join("daemon.conf");
    let usual = std::fs::read_to_string(&config).unwrap();
    let ports = "listen_addr = \"127.0.0.1\"\ntls_port = \"0\"\ntcp_port = \"0\"\n";
    std::fs::write(config, format!("{lines}{ports}{usual}")).unwrap();
    command.arg("--listen").envs(environment.iter().copied());
    place.start(command)
}

/// An authority, a server's certificate and a client's, in files; and the settings that name the server's.
struct Tls {
    directory: PathBuf,
    lines: String,
}

impl Tls {
    fn new(directory: PathBuf) -> Self {
        std::fs::create_dir(&directory).unwrap();
        let authority = Authority::new("authority");
        std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
        for (name, pair) in [
            ("server", authority.server(&["localhost"], |_| {})),
            ("client", authority.client("good", |_| {})),
        ] {
            std::fs::write(directory.join(format!("{name}.pem")), pair.certificate).unwrap();
            std::fs::write(directory.join(format!("{name}key.pem")), pair.key).unwrap();
        }
        let at = directory.display();
        let lines = format!(
            "ca_file = \"{at}/ca.pem\"\ncert_file = \"{at}/server.pem\"\nkey_file = \"{at}/serverkey.pem\"\n"
        );
        Self { directory, lines }
    }

    /// Somebody who means well.
    fn connect(&self, address: SocketAddr) -> Gnutls {
        let [authority, certificate, key] =
            ["ca.pem", "client.pem", "clientkey.pem"].map(|name| self.directory.join(name));
        Gnutls::connect(address, &authority, Some((&certificate, &key)))
    }
}

/// How the log begins what it says without being asked for more.
#[cfg(feature = "sasl")]
const WARNING: &str = ": warning : ";
