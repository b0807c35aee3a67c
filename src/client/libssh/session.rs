//! The ssh client itself: the host's key, the user's proofs, and the channel that is carried to a socket pair.
//!
//! Leans on libssh for the protocol and the `known_hosts` file, and on `auth.conf` for a name and a password that lie ready, in
//! groups `[auth-ssh-HOST]`: the password is for the method `password` alone, as in libvirt. Refuses to ask twice for what was proved: libssh hangs then.
//!
//! What is promised elsewhere ends here: libssh keeps passwords, and the bytes that it en- and decrypts, in memory of its own,
//! which is neither locked nor wiped, and its binding copies passwords and answers on their way there. On our side of it they lie in
//! secret memory, but for answers to a host's questions, which the binding takes as strings: those are wiped.

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use libssh_rs::{
    AuthMethods, AuthStatus, Channel, KnownHosts, PublicKeyHashType, Session, SshKey, SshOption,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use secrecy::{ExposeSecret, ExposeSecretMut};
use zeroize::Zeroizing;

use super::super::ask::Question;
use super::super::credentials::Credentials;
use super::super::ip;
use super::super::socket::Carrier;
use super::{Ask, Error, ErrorCode, ErrorDomain, HostCheck, Libssh, Method, Socket};
use crate::memory::SecretBytes;

impl Libssh {
    /// Connects, proves who is who, and runs the command on the far host. The socket leads to that command. `limit`: how long the
    /// host may take to be connected, and for each step.
    pub(in super::super) fn connect(&self, ask: Option<&dyn Ask>, limit: Duration) -> Result<Socket, Error> {
        // Not before somebody needs them: who has a key, and a name in the URI, doesn't.
        let ready = (self.user.is_none() && self.methods.contains(&Method::Password))
            .then(|| self.credentials())
            .transpose()?;
        let addresses = ip::resolve(&self.host, self.port)?;
        let stream = ip::connect(&self.host, self.port, &addresses, Instant::now() + limit, NO_SSH)?;
        let watched = stream.try_clone().map_err(|error| self.failed(&error))?;
        let session = self.session(stream, ready.as_ref(), limit)?;
        session.connect().map_err(|error| self.failed(&error))?;
        self.check_host(&session, ask)?;
        // Somebody may have to approve it, on a telephone perhaps.
        let timeout =
            |limit| session.set_option(SshOption::Timeout(limit)).map_err(|error| self.failed(&error));
        timeout(LONGEST_PROOF)?;
        self.authenticate(&session, ask, ready)?;
        timeout(limit)?;
        let channel = session.new_channel().map_err(|error| self.failed(&error))?;
        channel.open_session().map_err(|error| self.failed(&error))?;
        channel.request_exec(&self.far.command()).map_err(|error| self.failed(&error))?;
        self.carry(session, channel, watched)
    }

    fn credentials(&self) -> Result<Credentials, Error> {
        Credentials::find("ssh", &self.host, self.authfile.as_deref())
    }

    fn session(
        &self,
        stream: TcpStream,
        ready: Option<&Credentials>,
        limit: Duration,
    ) -> Result<Session, Error> {
        let session = Session::new().map_err(|error| self.failed(&error))?;
        let mut options = vec![
            SshOption::Hostname(self.host.clone()),
            SshOption::Port(self.port),
            SshOption::ProcessConfig(false),
            SshOption::Timeout(limit),
        ];
        let known = ready.and_then(|ready| ready.username.as_ref()).map(text).transpose()?;
        if let Some(user) = self.user.as_deref().or(known).filter(|user| !user.is_empty()) {
            options.push(SshOption::User(Some(user.to_owned())));
        }
        if let Some(file) = &self.known_hosts {
            options.push(SshOption::KnownHosts(Some(file.display().to_string())));
        }
        // Last, and nothing fails between it and connecting: from there on the session closes it.
        options.push(SshOption::Socket(stream.into_raw_fd()));
        for option in options {
            session.set_option(option).map_err(|error| self.failed(&error))?;
        }
        Ok(session)
    }

    fn check_host(&self, session: &Session, ask: Option<&dyn Ask>) -> Result<(), Error> {
        if self.check == HostCheck::Ignore {
            return Ok(());
        }
        let known = session.is_known_server().map_err(|error| self.failed(&error))?;
        if known == KnownHosts::Ok {
            return Ok(());
        }
        let key = session.get_server_public_key().map_err(|error| self.failed(&error))?;
        let hash = key.get_public_key_hash(PublicKeyHashType::Sha256).map_err(|error| self.failed(&error))?;
        let hash = fingerprint(&hash);
        let file = self.known_hosts.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        let Self { host, port, .. } = self;
        match (known, self.check) {
            (KnownHosts::Changed | KnownHosts::Other, _) => {
                let told = format!(
                    "!!! SSH HOST KEY VERIFICATION FAILED !!!: Identity of host '{host}:{port}' differs from stored \
                     identity. Please verify the new host key '{hash}' to avoid possible man in the middle attack. The \
                     key is stored in '{file}'."
                );
                return Err(Error::new(ErrorCode::AuthFailed, ErrorDomain::from_number(DOMAIN), told)
                    .advise(format!(
                        "if the host's key was changed on purpose, remove its line from '{file}'; ssh-keygen -lf shows the \
                         fingerprint of a key's file, on that host /etc/ssh/ssh_host_*_key.pub"
                    )));
            }
            (_, HostCheck::Auto) => {}
            _ => self.accept(&hash, ask)?,
        }
        if let Some(folder) = self.known_hosts.as_ref().and_then(|file| file.parent()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::system(format!("cannot make '{}'", folder.display()), &error))?;
        }
        session.update_known_hosts_file().map_err(|error| self.failed(&error))
    }

    /// Asks whether this is the host that is meant.
    fn accept(&self, hash: &str, ask: Option<&dyn Ask>) -> Result<(), Error> {
        let Self { host, port, .. } = self;
        let ask = ask.ok_or_else(|| {
            failed("No user interaction callback provided: Can't verify the session host key".to_owned()).advise(
                format!(
                    "'{}' doesn't know the host, whose key is {hash}: add that key (ssh-keyscan shows it), or connect once \
                     where somebody can answer, or say known_hosts_verify=auto, which takes any key the first time",
                    self.known_hosts.as_ref().map_or_else(Default::default, |file| file.display().to_string())
                ),
            )
        })?;
        let question =
            Question::open(format!("Accept SSH host key with hash '{hash}' for host '{host}:{port}' (y/n)"));
        let answer = ask.ask(&question);
        let yes = answer.is_some_and(|answer| answer.expose_secret().trim_ascii().eq_ignore_ascii_case(b"y"));
        if yes {
            return Ok(());
        }
        Err(failed(format!("SSH host key for '{host}' ({hash}) was not accepted")).advise(
            "compare it with the host's own: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub, on that host",
        ))
    }

    /// Tries one proof after the other, and stops at the first that is taken.
    fn authenticate(
        &self,
        session: &Session,
        ask: Option<&dyn Ask>,
        mut ready: Option<Credentials>,
    ) -> Result<(), Error> {
        if session.userauth_none(None).map_err(|error| self.failed(&error))? == AuthStatus::Success {
            return Ok(());
        }
        let takes = session.userauth_list(None).map_err(|error| self.failed(&error))?;
        let mut tried = false;
        for method in &self.methods {
            let needs = match method {
                Method::Agent | Method::PrivateKey => AuthMethods::PUBLIC_KEY,
                Method::Password => AuthMethods::PASSWORD,
                Method::KeyboardInteractive => AuthMethods::INTERACTIVE,
            };
            if !takes.contains(needs) {
                continue;
            }
            tried = true;
            // What can't even be tried is like what was denied: the next may do.
            let status = match method {
                Method::Agent => session.userauth_agent(None).ok(),
                Method::PrivateKey => self.by_key(session, ask)?,
                Method::Password => self.by_password(session, ask, ready.take())?,
                Method::KeyboardInteractive => self.by_answers(session, ask)?,
            };
            match status {
                Some(AuthStatus::Success) => return Ok(()),
                Some(AuthStatus::Again) => {
                    return Err(failed(format!(
                        "{}:{}: no answer to a log-in in time",
                        self.host, self.port
                    )));
                }
                _ => {}
            }
        }
        let told = match tried {
            true => "All provided authentication methods with credentials were rejected by the server",
            false => "None of the requested authentication methods are supported by the server",
        };
        let advice = "start an agent with a key that the host takes, or name one with keyfile=; a password can be asked for on a \
                      terminal only, or be in auth.conf";
        Err(Error::new(ErrorCode::AuthFailed, ErrorDomain::from_number(DOMAIN), told).advise(advice))
    }

    /// With the key that was named, or with those that users have.
    fn by_key(&self, session: &Session, ask: Option<&dyn Ask>) -> Result<Option<AuthStatus>, Error> {
        let Some(file) = &self.key else {
            return Ok(session.userauth_public_key_auto(None, None).ok());
        };
        let file = file.display().to_string();
        if let Err(error) = std::fs::metadata(&file) {
            return Err(failed(format!("error while opening private key '{file}': {error}"))
                .advise("keyfile= names the private key's file, on this host"));
        }
        let mut key = SshKey::from_privkey_file(&file, Some("")).ok();
        let question = Question::hidden(format!("Passphrase for key '{file}'"));
        if key.is_none()
            && let Some(passphrase) = ask.and_then(|ask| ask.ask(&question))
        {
            key = SshKey::from_privkey_file(&file, Some(text(&passphrase)?)).ok();
        }
        let key = key
            .ok_or_else(|| failed(format!("error while opening private key '{file}', wrong passphrase?")))?;
        Ok(session.userauth_publickey(None, &key).ok())
    }

    /// By the one that lies ready, once; then a person is asked.
    fn by_password(
        &self,
        session: &Session,
        ask: Option<&dyn Ask>,
        ready: Option<Credentials>,
    ) -> Result<Option<AuthStatus>, Error> {
        let ready = ready.map_or_else(|| self.credentials(), Ok)?;
        if let Some(password) = ready.password {
            match session.userauth_password(None, Some(text(&password)?)) {
                Ok(AuthStatus::Denied) => {
                    tracing::warn!("{} doesn't take the password of auth.conf", self.host);
                }
                status => return Ok(status.ok()),
            }
        }
        let Some(ask) = ask else { return Ok(None) };
        let user = session.get_user_name().map_err(|error| self.failed(&error))?;
        let question = Question::hidden(format!("Enter {user}'s password for {}", self.host));
        for _ in 0..TRIES {
            let Some(answer) = ask.ask(&question) else { return Ok(None) };
            match session.userauth_password(None, Some(text(&answer)?)) {
                Ok(AuthStatus::Denied) => {}
                status => return Ok(status.ok()),
            }
        }
        Ok(Some(AuthStatus::Denied))
    }

    fn by_answers(&self, session: &Session, ask: Option<&dyn Ask>) -> Result<Option<AuthStatus>, Error> {
        let Some(ask) = ask else { return Ok(None) };
        let mut status = session.userauth_keyboard_interactive(None, None);
        for _ in 0..ROUNDS {
            if status != Ok(AuthStatus::Info) {
                break;
            }
            let info = session.userauth_keyboard_interactive_info().map_err(|error| self.failed(&error))?;
            let mut answers: Zeroizing<Vec<String>> = Zeroizing::default();
            for it in info.prompts {
                let prompt = it.prompt.trim_end().trim_end_matches(':').to_owned();
                let question = if it.echo { Question::open(prompt) } else { Question::hidden(prompt) };
                let Some(answer) = ask.ask(&question) else { return Ok(None) };
                answers.push(text(&answer)?.to_owned());
            }
            session
                .userauth_keyboard_interactive_set_answers(&answers)
                .map_err(|error| self.failed(&error))?;
            status = session.userauth_keyboard_interactive(None, None);
        }
        Ok(status.ok())
    }

    /// Starts the thread that carries between the channel and a socket.
    fn carry(&self, session: Session, channel: Channel, watched: TcpStream) -> Result<Socket, Error> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| self.failed(&error))?;
        theirs.set_nonblocking(true).map_err(|error| self.failed(&error))?;
        let said = Arc::<Mutex<Vec<u8>>>::default();
        let buffer = SecretBytes::zeroed(AT_ONCE)?;
        let (tell, gone) = mpsc::channel();
        let (out, far) =
            (SecretBytes::zeroed(AT_ONCE)?, watched.try_clone().map_err(|error| self.failed(&error))?);
        let mut pump =
            Pump { channel, watched, theirs, buffer, out, gone: 0, going: 0, said: Arc::clone(&said) };
        let thread = thread::Builder::new().name("strongroom-libssh".to_owned());
        let carrying = thread.spawn(move || {
            _ = pump.run();
            _ = pump.theirs.shutdown(Shutdown::Both);
            drop(pump); // first: disconnecting frees what is left of a channel
            session.disconnect();
            drop(session);
            _ = tell.send(());
        });
        carrying.map_err(|error| self.failed(&error))?;
        let port = Some(self.port).filter(|&port| port != SSH_PORT);
        let key = self.key.as_ref().map(|key| key.display().to_string());
        let advice = self.far.advice("ssh", port, key.as_deref(), self.user.as_deref(), &self.host);
        Ok(Socket::carried(ours, Box::new(Carried { advice, said, far, gone: Mutex::new(gone) })))
    }

    fn failed(&self, error: &impl std::fmt::Display) -> Error {
        let text = error.to_string();
        let text =
            text.strip_prefix("Fatal: ").or_else(|| text.strip_prefix("RequestDenied: ")).unwrap_or(&text);
        failed(format!("{}:{}: {text}", self.host, self.port))
    }
}

/// A key's SHA-256 as libvirt shows it, and as ssh-keygen does.
fn fingerprint(hash: &[u8]) -> String {
    let hexa: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{} SHA256:{}", hexa.join(":"), STANDARD_NO_PAD.encode(hash))
}

/// What somebody has answered, as libssh's binding wants it.
fn text(answer: &SecretBytes) -> Result<&str, Error> {
    str::from_utf8(answer.expose_secret())
        .map_err(|_| failed("an answer isn't UTF-8, and its binding takes no other".to_owned()))
}

/// Carries between a channel and a socket.
struct Pump {
    channel: Channel,
    /// The session's own socket, to see when something comes.
    watched: TcpStream,
    theirs: UnixStream,
    buffer: SecretBytes,
    /// What goes to the far host: `going` bytes from `gone` on.
    out: SecretBytes,
    gone: usize,
    going: usize,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Pump {
    /// Carries until one side ends.
    fn run(&mut self) -> io::Result<()> {
        let mut quiet = false;
        loop {
            let complaints = self.listen()?;
            // The channel last: whatever is asked of libssh makes it read from its socket, for which poll doesn't wait any more.
            if self.take_back()? > 0 {
                continue;
            }
            if self.channel.is_eof() || self.channel.is_closed() {
                while self.listen()? > 0 {} // its last words
                return Ok(());
            }
            if self.going == 0 {
                match rustix::io::read(&self.theirs, self.out.expose_secret_mut()) {
                    Ok(0) => return Ok(()),
                    Ok(read) => (self.gone, self.going) = (0, read),
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // No more than the far host has room for: to wait for it would be to read nothing meanwhile.
            let now = self.channel.window_size().min(self.going);
            if now == 0 {
                // Complaints that came with the last look at the channel are still with libssh. Not to have heard them does no harm,
                // unless the far host has no room left for anything else: so a quiet moment comes before a long wait.
                if complaints == 0 {
                    quiet = !self.wait(if quiet { None } else { Some(&MOMENT) })?;
                }
                continue;
            }
            let part = &self.out.expose_secret()[self.gone..self.gone + now];
            self.channel.stdin().write_all(part)?;
            (self.gone, self.going) = (self.gone + now, self.going - now);
            if self.going == 0 {
                self.out.wipe_front(self.gone);
            }
        }
    }

    /// Until something comes from the far host; or from us, unless there is something of ours still to go. `false`: nothing has.
    fn wait(&self, limit: Option<&Timespec>) -> io::Result<bool> {
        let both = [&self.watched as &dyn std::os::fd::AsFd, &self.theirs];
        let mut both = both.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN));
        let awaited = if self.going == 0 { &mut both[..] } else { &mut both[..1] };
        match poll(awaited, limit) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Hands on what has come.
    fn take_back(&mut self) -> io::Result<usize> {
        let read = self.channel.read_nonblocking(self.buffer.expose_secret_mut(), false)?;
        let mut rest = &self.buffer.expose_secret()[..read];
        while !rest.is_empty() {
            match rustix::net::send(&self.theirs, rest, SendFlags::NOSIGNAL) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => {
                    let mut room = [PollFd::new(&self.theirs, PollFlags::OUT)];
                    poll(&mut room, None)
                        .or_else(|error| if error == Errno::INTR { Ok(0) } else { Err(error) })?;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.buffer.wipe_front(read);
        Ok(read)
    }

    /// Keeps what the far command complains of, a part at a time: it may never end.
    fn listen(&self) -> io::Result<usize> {
        let mut part = [0; 512];
        let read = self.channel.read_nonblocking(&mut part, true)?;
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.extend_from_slice(&part[..read]);
        let surplus = said.len().saturating_sub(MOST_SAID);
        said.drain(..surplus);
        Ok(read)
    }
}

/// What the connection knows of its pump.
struct Carried {
    advice: String,
    said: Arc<Mutex<Vec<u8>>>,
    /// The session's own socket.
    far: TcpStream,
    gone: Mutex<Receiver<()>>,
}

impl Carrier for Carried {
    fn complaint(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    fn advice(&self) -> String {
        self.advice.clone()
    }

    /// The socket is shut by now, so the pump comes to its end, unless the far host has stopped talking: then what it waits for
    /// is shut too.
    fn end(&self) {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if gone.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
            _ = self.far.shutdown(Shutdown::Both);
            _ = gone.recv_timeout(GRACE);
        }
    }
}

/// libvirt's number for errors of this transport, and for the transport itself.
const CODE: i32 = 98;
const DOMAIN: i32 = 66;

fn failed(detail: String) -> Error {
    let (code, domain) = (ErrorCode::from_number(CODE), ErrorDomain::from_number(DOMAIN));
    Error::new(code, domain, format!("libssh transport error: {detail}"))
}

/// What to do if nobody listens.
const NO_SSH: &str = "nobody listens there: does an SSH server run on that host, on that port?";

/// The port that needs no word.
const SSH_PORT: u16 = 22;

/// How long a host may take to judge a proof.
const LONGEST_PROOF: Duration = Duration::from_secs(300);

/// How often a password may be mistyped.
const TRIES: u32 = 3;

/// How many rounds of questions a host may ask.
const ROUNDS: u32 = 10;

/// How much is carried at once.
const AT_ONCE: usize = 32 << 10;

/// How much of the far command's complaints is kept, in bytes.
const MOST_SAID: usize = 4096;

/// A quiet moment.
const MOMENT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long the session may take to end.
const GRACE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::super::ssh::{Far, Proxy};
    use super::*;

    #[test]
    fn a_host_key_is_shown_as_ssh_keygen_shows_it_too() {
        assert_eq!(
            fingerprint(&[0xfb, 0xff, 0x00, 0x10]),
            "fb:ff:00:10 SHA256:+/8AEA",
            "its padding is left out"
        );
    }

    #[test]
    fn a_host_that_says_nothing_is_given_up() {
        let mute = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = Far {
            proxy: Proxy::Auto,
            uri: String::new(),
            read_only: false,
            netcat: String::new(),
            sockets: Vec::new(),
        };
        let libssh = Libssh {
            host: "127.0.0.1".to_owned(),
            port: mute.local_addr().unwrap().port(),
            user: Some("u".to_owned()),
            authfile: None,
            key: None,
            methods: Vec::new(),
            known_hosts: None,
            check: HostCheck::Ignore,
            far,
        };
        let begun = Instant::now();
        let Err(error) = libssh.connect(None, Duration::from_millis(200)) else { panic!("it is open") };
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(error.to_string().contains("imeout"), "{error}");
    }
}
