//! SASL at the server: which of its three calls may come now, who is let in, and how often a client may try.
//!
//! ```text
//!   idle ──INIT──► offered ──START──► going ──STEP──► … ──► in: what follows is in the layer
//!    ▲                │                 │
//!    └──── any failure: code 45, whatever it was; the log knows why ────┘
//! ```
//!
//! Cyrus may wait: for files, for the name service, for whoever knows the users. So each of its steps is handed out
//! ([`Action::Step`]) and comes back ([`Negotiation::stepped`]). Leans on `net` for Cyrus itself. Refuses to tell a client why; on
//! bare TCP a layer of fewer than 56 bits; and, unlike libvirt, a client that has failed [`MOST_FAILURES`] times.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::failure;
use super::flood::Flood;
use super::listen::Role;
use super::process::{Exit, StartError};
use super::sasl_conf;
use super::session::{Action, Call, Held, reply};
use crate::memory::SecretBytes;
use crate::net::glob;
use crate::net::peer::Peer;
use crate::net::sasl::{self, Around, Done, SaslError, Server, Step};
use crate::rpc::remote::{Line, Said, SaslReply, SaslStart, procedure};
use crate::rpc::{Header, Text, fault};
use crate::secret::Error;

/// Sees, before anybody comes, that there is a mechanism for each kind of socket that asks for one (`asked`), and says what
/// else would keep everybody out; and has Cyrus's own complaints told as those of strangers are, because it is strangers
/// that cause them from now on. Gives what each of them offers.
pub(super) fn prepare(asked: &[(Role, Around)]) -> Result<Offers, StartError> {
    if asked.is_empty() {
        return Ok(Offers::default());
    }
    sasl::begin_server().map_err(|error| {
        StartError::new(Exit::Network, format!("SASL can't be served: {error}")).advise(NO_SASL)
    })?;
    let offers: Vec<_> =
        asked.iter().map(|(role, around)| (*role, *around, Server::new(*around, None, None))).collect();
    let of = |server: &Result<Server, SaslError>| server.as_ref().map_or("", Server::mechanisms).to_owned();
    let lists: Vec<String> = offers.iter().map(|(.., server)| of(server)).collect();
    let mechanisms: BTreeSet<&str> =
        lists.iter().flat_map(|list| list.split(',')).filter(|it| !it.is_empty()).collect();
    // Before what fails: this may be why.
    for doubt in sasl_conf::Conf::read().doubts(&mechanisms) {
        tracing::warn!("{doubt}");
    }
    let mut told = Vec::new();
    for (role, around, server) in offers {
        let server = server.map_err(|error| unfit(role, around, &error))?;
        told.push((role, server.mechanisms().replace(',', ", ")));
    }
    let complaints = Flood::default();
    sasl::complain_to(Box::new(move |line| complaints.warn(line)));
    Ok(told)
}

/// The mechanisms that a kind of socket offers.
pub(super) type Offers = Vec<(Role, String)>;

/// Why nobody could come in by such a socket.
fn unfit(role: Role, around: Around, error: &SaslError) -> StartError {
    let what = match role {
        Role::Main => "the main socket",
        Role::ReadOnly => "the read-only socket",
        Role::Admin => "the admin socket",
        Role::Tls => "TLS",
        Role::Tcp => "TCP",
    };
    let on_tcp = matches!(around, Around::Tcp { .. });
    let why = match (error.is_without_mechanism(), on_tcp) {
        (false, _) => error.to_string(),
        (true, true) => {
            "no mechanism in mech_list that encrypts is installed and has what it needs".to_owned()
        }
        (true, false) => "no mechanism in mech_list is installed and has what it needs".to_owned(),
    };
    StartError::new(Exit::Network, format!("SASL can't be served for {what}: {why}")).advise(if on_tcp {
        NO_MECHANISM_THAT_ENCRYPTS
    } else {
        NO_MECHANISM
    })
}

/// What one client's negotiation is judged by.
#[derive(Debug, Clone)]
pub(super) struct Sasl {
    /// Patterns of the users that are let in (`sasl_allowed_username_list`); `None`: all.
    pub(super) users: Option<Arc<[String]>>,
    /// What its stream is protected by.
    pub(super) around: Around,
    /// The two ends' addresses, if they have such. Kerberos tickets may be bound to them.
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
    /// What the log hears of those who are refused.
    pub(super) refusals: Arc<Flood>,
}

/// One client's negotiation.
#[derive(Default)]
pub(super) struct Negotiation {
    state: State,
    failures: u32,
}

#[derive(Default)]
enum State {
    #[default]
    Idle,
    /// It has been told the mechanisms.
    Offered(Server),
    /// It has chosen one.
    Going(Server),
    /// A step is being made elsewhere.
    Away,
}

/// A step that may block.
pub(super) type Stepping = Box<dyn FnOnce() -> Stepped + Send>;

/// How a step went.
pub(super) struct Stepped {
    call: Header,
    outcome: Result<Outcome, SaslError>,
}

enum Outcome {
    Offers(Server),
    GoesOn(Server, Step),
    Ends(Step, Done),
}

impl Outcome {
    fn of(server: Server, step: Step) -> Result<Self, SaslError> {
        if !step.complete {
            return Ok(Self::GoesOn(server, step));
        }
        server.finish().map(|done| Self::Ends(step, done))
    }
}

impl Negotiation {
    /// One of the three calls has come.
    pub(super) fn receive(&mut self, sasl: &Sasl, call: &Call<'_>, peer: &Peer) -> Result<Action, Error> {
        let header = call.header;
        let mut held = 0;
        let step: Box<dyn FnOnce() -> Result<Outcome, SaslError> + Send> = match header.procedure {
            procedure::AUTH_SASL_INIT => match std::mem::replace(&mut self.state, State::Away) {
                State::Idle => {
                    let Sasl { around, local, remote, .. } = *sasl;
                    Box::new(move || Server::new(around, local, remote).map(Outcome::Offers))
                }
                other => return Ok(self.unexpected(sasl, other, &header, peer)),
            },
            procedure::AUTH_SASL_START => {
                let SaslStart { mechanism, said } = call.read()?;
                let (mechanism, said) = (mechanism.to_text(), said.to_secret()?);
                held = size(said.as_ref());
                match std::mem::replace(&mut self.state, State::Away) {
                    State::Offered(mut server) => Box::new(move || {
                        let said = said.as_ref().map(|said| said.expose_secret());
                        server.start(&mechanism, said).and_then(|step| Outcome::of(server, step))
                    }),
                    other => return Ok(self.unexpected(sasl, other, &header, peer)),
                }
            }
            _ => {
                let said = call.read::<Said<'_>>()?.to_secret()?;
                held = size(said.as_ref());
                match std::mem::replace(&mut self.state, State::Away) {
                    State::Going(mut server) => Box::new(move || {
                        let said = said.as_ref().map(|said| said.expose_secret());
                        server.step(said).and_then(|step| Outcome::of(server, step))
                    }),
                    other => return Ok(self.unexpected(sasl, other, &header, peer)),
                }
            }
        };
        let step = Box::new(move || Stepped { call: header, outcome: step() });
        Ok(Action::Step(Held::Secret(held), step))
    }

    /// A step has been made.
    pub(super) fn stepped(&mut self, sasl: &Sasl, stepped: Stepped, peer: &Peer) -> Action {
        let Stepped { call, outcome } = stepped;
        self.state = State::Idle;
        match outcome {
            Ok(Outcome::Offers(server)) => {
                let offer = reply(call, &Line { text: Text(server.mechanisms().as_bytes()) });
                self.state = State::Offered(server);
                Action::Send(offer)
            }
            Ok(Outcome::GoesOn(server, step)) => {
                self.state = State::Going(server);
                Action::Send(reply(call, &SaslReply { complete: 0, said: said(&step) }))
            }
            Ok(Outcome::Ends(step, done)) => match judge(sasl, &done) {
                Ok(()) => {
                    let Done { user, mechanism, ssf, layer } = done;
                    tracing::debug!("{peer} is '{user}', by {mechanism} with {ssf} bits");
                    let reply = reply(call, &SaslReply { complete: 1, said: said(&step) });
                    Action::Secure(reply, layer, user)
                }
                Err(why) => self.refuse(sasl, &call, peer, Some(&done.user), &why),
            },
            Err(error) => self.refuse(sasl, &call, peer, error.user.as_deref(), &error.detail),
        }
    }

    /// Whether a step is being made: nothing that comes meanwhile can be read, because it may be in the layer.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.state, State::Away)
    }

    /// A call that doesn't belong here ends what was begun. What is away comes back all the same.
    fn unexpected(&mut self, sasl: &Sasl, before: State, call: &Header, peer: &Peer) -> Action {
        self.state = if matches!(before, State::Away) { before } else { State::Idle };
        self.refuse(sasl, call, peer, None, "its calls come in the wrong order")
    }

    fn refuse(&mut self, sasl: &Sasl, call: &Header, peer: &Peer, user: Option<&str>, why: &str) -> Action {
        self.failures += 1;
        match user {
            Some(user) => {
                sasl.refusals.warn(&format!("SASL refused {peer}, who says that it is '{user}': {why}"));
            }
            None => sasl.refusals.warn(&format!("SASL refused {peer}: {why}")),
        }
        let refusal = fault::refusal(*call, &failure::no_sasl()).into();
        match self.failures {
            ..MOST_FAILURES => Action::Send(refusal),
            _ => Action::Last(refusal),
        }
    }
}

/// Whether somebody who has proved who they are is let in.
fn judge(sasl: &Sasl, done: &Done) -> Result<(), String> {
    if !sasl.around.is_enough(done.ssf) {
        return Err(format!("{} gives {} bits, which is too weak", done.mechanism, done.ssf));
    }
    match &sasl.users {
        Some(users) if !users.iter().any(|pattern| glob::matches(pattern, &done.user)) => {
            Err("it isn't in sasl_allowed_username_list".to_owned())
        }
        _ => Ok(()),
    }
}

/// What it takes of secret memory.
fn size(said: Option<&SecretBytes>) -> usize {
    said.map_or(0, |said| said.len().next_power_of_two())
}

/// What the server says is no secret.
fn said(step: &Step) -> Said<'_> {
    Said::new(step.data.as_ref().map(|data| data.expose_secret()))
}

const NO_SASL: &str = "is /etc/sasl2/libvirt.conf as Cyrus SASL wants it, and readable?";

const NO_MECHANISM: &str = "install one (Debian: libsasl2-modules or libsasl2-modules-gssapi-mit; Fedora: cyrus-sasl-scram or \
     cyrus-sasl-gssapi) that mech_list in /etc/sasl2/libvirt.conf names; or authenticate in another way (auth_tls, auth_unix_rw)";

const NO_MECHANISM_THAT_ENCRYPTS: &str = "on TCP the mechanism must encrypt: install Kerberos' (Debian: \
     libsasl2-modules-gssapi-mit; Fedora: cyrus-sasl-gssapi), name gssapi in mech_list and the server's keytab in \
     /etc/sasl2/libvirt.conf; or serve no TCP (listen_tcp = 0)";

/// As often a client may fail before it has to connect again.
const MOST_FAILURES: u32 = 8;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::net::sasl::{Client, Prompt, Want};
    use crate::net::sasl_tests::{PASSWORD, World, host_name, world};
    use crate::rpc::packet::HEAD;
    use crate::rpc::remote::{AuthTypes, ErrorBody};
    use crate::rpc::{Encode, Kind, Status, VERSION, decode, program};
    use crate::server::calls::Calls;
    use crate::server::keepalive::Keepalive;
    use crate::server::outgoing::Outgoing;
    use crate::server::rehearsal;
    use crate::server::session::{Method, Service, Session};

    /// A client of a Unix socket on which these users are let in.
    fn stranger(users: Option<&[&str]>) -> Session {
        refused_to(users, &Arc::default())
    }

    fn refused_to(users: Option<&[&str]>, refusals: &Arc<Flood>) -> Session {
        let peer = Peer::new(None, 0, 0);
        let users = users.map(|users| users.iter().map(|user| (*user).to_owned()).collect());
        let method = Method::Sasl(Sasl {
            users,
            around: Around::Unix,
            local: None,
            remote: None,
            refusals: Arc::clone(refusals),
        });
        let calls = Calls::new(rehearsal::secrets(), peer, false, Arc::new(drop));
        Session::new(Service::Secrets(calls), method, peer, Keepalive::new(None, 0))
    }

    /// What comes of a call: the reply's body, or the error's number and message. Steps are made at once.
    fn say(session: &mut Session, procedure: i32, body: &impl Encode) -> Result<Vec<u8>, (i32, String)> {
        let mut arguments = Vec::new();
        body.encode(&mut arguments);
        let (kind, status) = (Kind::Call, Status::Ok);
        let header =
            Header { program: program::REMOTE, version: VERSION, procedure, kind, serial: 7, status };
        let mut action = session.receive(&Call { header, arguments: &arguments }, Instant::now());
        if let Action::Step(_, step) = action {
            assert!(session.is_stepping());
            action = session.stepped(step());
        }
        assert!(!session.is_stepping());
        match action {
            Action::Send(reply) | Action::Secure(reply, None, _) => body_of(&reply),
            Action::Last(_) => Err((0, "it is the last".to_owned())),
            _ => panic!("neither sent nor refused"),
        }
    }

    fn body_of(reply: &Outgoing) -> Result<Vec<u8>, (i32, String)> {
        let bytes: Vec<u8> = reply.rest().iter().flat_map(|part| part.to_vec()).collect();
        if bytes[27] == 0 {
            return Ok(bytes[HEAD..].to_vec());
        }
        let error = decode::<ErrorBody<'_>>(&bytes[HEAD..]).unwrap();
        Err((error.code, error.message.unwrap().to_text()))
    }

    /// A whole negotiation, by a client that is Cyrus's own.
    fn log_in(session: &mut Session, mechanism: &str, password: &str) -> Result<(), (i32, String)> {
        let offered = say(session, procedure::AUTH_SASL_INIT, &())?;
        let offered = decode::<Line<'_>>(&offered).unwrap().text.to_text();
        assert!(offered.split(',').any(|it| it == mechanism), "{offered}");
        let mut client = Client::new(&host_name(), Around::Unix, None, None).unwrap();
        let mut answer = |prompt: &Prompt| {
            let answer = if prompt.want == Want::Password { password } else { "fred" };
            SecretBytes::copy_of(answer.as_bytes()).ok()
        };
        let (_, mut next) = client.start(mechanism, &mut answer).unwrap();
        let start = SaslStart { mechanism: Text::from(mechanism), said: said(&next) };
        let mut reply = say(session, procedure::AUTH_SASL_START, &start)?;
        loop {
            let heard: SaslReply<'_> = decode(&reply).unwrap();
            let complete = heard.complete != 0;
            if !next.complete {
                let data = heard.said.to_secret().unwrap();
                next = client.step(data.as_ref().map(|it| it.expose_secret()), &mut answer).unwrap();
            }
            if complete {
                return Ok(());
            }
            reply = say(session, procedure::AUTH_SASL_STEP, &said(&next))?;
        }
    }

    fn refused<T>() -> Result<T, (i32, String)> {
        Err((45, "authentication failed: authentication failed".to_owned()))
    }

    fn offered_ways(session: &mut Session) -> Vec<i32> {
        decode::<AuthTypes>(&say(session, procedure::AUTH_LIST, &()).unwrap()).unwrap().types.0
    }

    #[test]
    fn a_client_is_let_in_by_sasl_alone() {
        if world().is_none() {
            return World::new().run("server::sasl::tests::a_client_is_let_in_by_sasl_alone");
        }
        let since = Instant::now();
        who_knows_the_password_is_let_in();
        who_is_not_on_the_list_is_not();
        calls_have_an_order();
        a_client_may_not_try_for_ever();
        what_waits_counts();
        a_flood_of_refusals_is_not_a_flood_of_lines();
        assert!(since.elapsed() < Duration::from_secs(30));
    }

    fn who_knows_the_password_is_let_in() {
        for mechanism in ["SCRAM-SHA-256", "DIGEST-MD5", "PLAIN"] {
            let mut session = stranger(None);
            assert_eq!(offered_ways(&mut session), [1], "root has no way around it");
            let unknown = say(&mut session, procedure::CONNECT_CLOSE, &()).unwrap_err();
            assert_eq!(unknown, (39, failure::not_authenticated().to_string()));
            assert_eq!(log_in(&mut session, mechanism, "wrong"), refused());
            assert!(!session.is_authenticated());
            assert_eq!(log_in(&mut session, mechanism, PASSWORD), Ok(()), "{mechanism}");
            assert!(session.is_authenticated());
            assert_eq!(offered_ways(&mut session), [0]);
            assert_eq!(say(&mut session, procedure::AUTH_SASL_INIT, &()), refused());
            assert!(session.is_authenticated());
        }
    }

    fn who_is_not_on_the_list_is_not() {
        for (users, result) in [
            (&["fred*"][..], Ok(())),
            (&["alice", "f?ed@*", "fre?"], Ok(())),
            (&["alice"], refused()),
            (&[], refused()),
        ] {
            let mut session = stranger(Some(users));
            assert_eq!(log_in(&mut session, "SCRAM-SHA-256", PASSWORD), result, "{users:?}");
            assert_eq!(session.is_authenticated(), result.is_ok());
        }
    }

    fn calls_have_an_order() {
        let nothing = Said::new(None);
        let start = SaslStart { mechanism: Text(b"PLAIN"), said: Said::new(Some(b"x")) };
        let mut session = stranger(None);
        assert_eq!(say(&mut session, procedure::AUTH_SASL_STEP, &nothing), refused());
        assert_eq!(say(&mut session, procedure::AUTH_SASL_START, &start), refused());
        let undecodable = Err((39, failure::undecodable().to_string()));
        assert_eq!(say(&mut session, procedure::AUTH_SASL_START, &7_i32), undecodable);
        assert!(say(&mut session, procedure::AUTH_SASL_INIT, &()).is_ok());
        assert_eq!(say(&mut session, procedure::AUTH_SASL_INIT, &()), refused(), "one at a time");
        assert_eq!(say(&mut session, procedure::AUTH_SASL_START, &start), refused(), "it was reset");
        assert!(say(&mut session, procedure::AUTH_SASL_INIT, &()).is_ok());
        assert_eq!(say(&mut session, procedure::AUTH_SASL_START, &start), refused());
        assert_eq!(say(&mut session, procedure::AUTH_POLKIT, &()).unwrap_err().0, 1);
        assert_eq!(log_in(&mut session, "SCRAM-SHA-256", PASSWORD), Ok(()));
    }

    fn a_client_may_not_try_for_ever() {
        let mut session = stranger(None);
        for _ in 1..MOST_FAILURES {
            assert_eq!(log_in(&mut session, "PLAIN", "wrong"), refused());
        }
        assert_eq!(log_in(&mut session, "PLAIN", "wrong"), Err((0, "it is the last".to_owned())));
    }

    fn what_waits_counts() {
        let mut session = stranger(None);
        assert!(say(&mut session, procedure::AUTH_SASL_INIT, &()).is_ok());
        let start = SaslStart { mechanism: Text(b"PLAIN"), said: Said::new(Some(&[b'x'; 60_000])) };
        let mut arguments = Vec::new();
        start.encode(&mut arguments);
        let header = Header {
            program: program::REMOTE,
            version: VERSION,
            procedure: procedure::AUTH_SASL_START,
            kind: Kind::Call,
            serial: 7,
            status: Status::Ok,
        };
        let action = session.receive(&Call { header, arguments: &arguments }, Instant::now());
        assert!(matches!(action, Action::Step(Held::Secret(65_536), _)));
    }

    fn a_flood_of_refusals_is_not_a_flood_of_lines() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        let refusals = Arc::default();
        for _ in 0..5 {
            let mut session = refused_to(None, &refusals);
            for _ in 0..10 {
                _ = say(&mut session, procedure::AUTH_SASL_STEP, &Said::new(None));
            }
        }
        assert_eq!(refusals.held_back(), 30);
    }
}
