//! One client's conversation as a pure state machine: packets and the clock in, actions out.
//!
//! ```text
//!          AUTH_LIST, AUTH_POLKIT, AUTH_SASL_…       CONNECT_OPEN
//!   anonymous ─────────────────────► authenticated ─────────────────► open ──► any call
//!       │  (a socket without authentication starts here ▲)              │
//!       └──────────────── keepalive in any state ───────────────────────┴─ CONNECT_CLOSE ──► last reply, then the end
//! ```
//!
//! What is checked, in libvirt's order: program, status, procedure, authentication, arguments; then the call itself
//! ([`calls`](super::calls), [`admin`](super::admin)). Leans on `rpc` for the bytes and on `driver` for the answers. Refuses
//! to touch a socket; drops what is no call without an answer, as libvirt does.

use std::time::Instant;

use super::calls::{Announcement, Calls};
use super::keepalive::Keepalive;
use super::outgoing::Outgoing;
#[cfg(feature = "sasl")]
pub(super) use super::sasl::Sasl;
#[cfg(feature = "sasl")]
use super::sasl::{Negotiation, Stepped, Stepping};
use super::{admin, failure};
#[cfg(feature = "sasl")]
use crate::net::layer::Layer;
use crate::net::peer::Peer;
use crate::rpc::keepalive::Beat;
use crate::rpc::packet::{HEAD, MAX_PACKET};
use crate::rpc::remote::{AuthTypes, Number, Said, SaslStart, auth, procedure};
use crate::rpc::xdr::{Count, List};
use crate::rpc::{Header, Kind, Malformed, Status, VERSION, fault, packet, program};
use crate::secret::Error;

/// What a client said.
pub(super) struct Call<'a> {
    pub(super) header: Header,
    pub(super) arguments: &'a [u8],
}

impl<'a> Call<'a> {
    /// Reads the arguments; what stands behind them is ignored.
    pub(super) fn read<T: crate::rpc::Decode<'a>>(&self) -> Result<T, Error> {
        crate::rpc::decode(self.arguments).map_err(|Malformed| failure::undecodable())
    }

    /// The reply that says how it went; or that it is too much for a packet.
    pub(super) fn reply(&self, body: &impl crate::rpc::Encode) -> Outgoing {
        reply(self.header, body)
    }
}

/// The reply that says how a call went; or that the result is too much for a packet.
pub(super) fn reply(call: Header, body: &impl crate::rpc::Encode) -> Outgoing {
    let mut length = Count(HEAD);
    body.encode(&mut length);
    match length.0 {
        ..=MAX_PACKET => packet(call.reply(Status::Ok), body).into(),
        _ => fault::refusal(call, &failure::unencodable()).into(),
    }
}

/// What to do about a packet.
pub(super) enum Action {
    /// Nothing: it needs no answer.
    Nothing,
    /// Wait for more: no packet is whole.
    Wait,
    /// Wait for room: a packet is large, and others hold much.
    Pause,
    /// Send this.
    Send(Outgoing),
    /// Send this, then close.
    Last(Outgoing),
    /// Close, without a word.
    Drop,
    /// Run this where it may block, then send what it gives.
    Work(Held, Work),
    /// Ask polkit about the peer, then hand the answer to [`Session::authenticated`].
    AskPolkit(Header),
    /// Run this where it may block, then hand what it gives to [`Session::stepped`]. Nothing is read meanwhile.
    #[cfg(feature = "sasl")]
    Step(Held, Stepping),
    /// Send this as it is; all that follows, both ways, is in the layer, if there is one. The client is this user.
    #[cfg(feature = "sasl")]
    Secure(Outgoing, Option<Layer>, String),
}

/// What a call under way holds of memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Held {
    /// Of secret memory.
    Secret(usize),
    /// Of ordinary memory.
    Ordinary(usize),
}

/// A call that may block.
pub(super) type Work = Box<dyn FnOnce() -> Outgoing + Send>;

impl Action {
    /// A call that may block: `run` gets its header and gives the reply. `held`: what it keeps of memory meanwhile.
    pub(super) fn work(
        call: Header,
        peer: Peer,
        held: Held,
        run: impl FnOnce(Header) -> Result<Outgoing, Error> + Send + 'static,
    ) -> Self {
        let work: Work = Box::new(move || {
            let refused = |error| {
                failure::log(&error, &call, &peer);
                let error = if call.program == program::REMOTE { failure::spelt_out(error) } else { error };
                fault::refusal(call, &error).into()
            };
            run(call).unwrap_or_else(refused)
        });
        Self::Work(held, work)
    }
}

/// How the clients of a socket prove who they are.
#[derive(Debug, Clone)]
pub(super) enum Method {
    /// They needn't.
    None,
    /// polkit says.
    Polkit,
    /// By SASL.
    #[cfg(feature = "sasl")]
    Sasl(Sasl),
}

/// What a session serves.
pub(super) enum Service {
    /// Secrets.
    Secrets(Calls),
    /// The daemon itself.
    Admin(admin::Calls),
}

/// One client's conversation.
pub(super) struct Session {
    service: Service,
    method: Method,
    authenticated: bool,
    /// polkit is being asked.
    asking: bool,
    #[cfg(feature = "sasl")]
    negotiation: Negotiation,
    peer: Peer,
    keepalive: Keepalive,
}

impl Session {
    /// A client has connected.
    pub(super) fn new(service: Service, method: Method, peer: Peer, keepalive: Keepalive) -> Self {
        let authenticated = matches!(method, Method::None);
        #[cfg(feature = "sasl")]
        let negotiation = Negotiation::default();
        Self {
            service,
            method,
            authenticated,
            asking: false,
            #[cfg(feature = "sasl")]
            negotiation,
            peer,
            keepalive,
        }
    }

    /// A packet has come.
    pub(super) fn receive(&mut self, call: &Call<'_>, now: Instant) -> Action {
        self.keepalive.heard(now);
        let header = call.header;
        if (header.program, header.version) == (program::KEEPALIVE, VERSION) && header.kind == Kind::Message {
            return match Beat::of(&header) {
                Some(Beat::Ping) => Action::Send(Beat::Pong.packet().into()),
                Some(Beat::Pong) | None => Action::Nothing,
            };
        }
        if !matches!(header.kind, Kind::Call | Kind::CallWithFds) {
            return Action::Nothing; // libvirt drops them too
        }
        self.answer(call, now).unwrap_or_else(|error| self.refuse(&header, &error))
    }

    /// Says no to a call.
    pub(super) fn refuse(&self, call: &Header, error: &Error) -> Action {
        failure::log(error, call, &self.peer);
        Action::Send(fault::refusal(*call, &failure::spelt_out(error.clone())).into())
    }

    fn answer(&mut self, call: &Call<'_>, now: Instant) -> Result<Action, Error> {
        let header = call.header;
        let served = match self.service {
            Service::Secrets(_) => matches!(header.program, program::REMOTE | program::QEMU | program::LXC),
            Service::Admin(_) => matches!(header.program, program::ADMIN | program::STRONGROOM),
        };
        if !served || header.version != VERSION {
            return Err(failure::no_program(&header));
        }
        if header.status != Status::Ok {
            return Err(failure::bad_status(&header));
        }
        match &mut self.service {
            Service::Admin(calls) => calls.answer(call),
            Service::Secrets(calls) => {
                if !calls.knows(&header) {
                    return Err(failure::no_procedure(&header));
                }
                if header.program == program::REMOTE && is_authentication(header.procedure) {
                    return self.authenticate(call);
                }
                if !self.authenticated {
                    return Err(failure::not_authenticated());
                }
                let action = calls.answer(call)?;
                if calls.takes_pings() {
                    self.keepalive.arm(now);
                }
                Ok(action)
            }
        }
    }

    fn authenticate(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        match call.header.procedure {
            procedure::AUTH_LIST => {
                // Whom polkit would ask anyway.
                self.authenticated |= matches!(self.method, Method::Polkit) && self.peer.is_root();
                let way = match self.method {
                    Method::Polkit if !self.authenticated => auth::POLKIT,
                    #[cfg(feature = "sasl")]
                    Method::Sasl(_) if !self.authenticated => auth::SASL,
                    _ => auth::NONE,
                };
                Ok(Action::Send(call.reply(&AuthTypes { types: List(vec![way]) })))
            }
            procedure::AUTH_POLKIT
                if matches!(self.method, Method::Polkit) && !self.asking && !self.authenticated =>
            {
                self.asking = true; // one dialog at a time
                Ok(Action::AskPolkit(call.header))
            }
            procedure::AUTH_POLKIT => Err(failure::unexpected_authentication()),
            _ => self.negotiate(call),
        }
    }

    /// One of SASL's three calls.
    fn negotiate(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        #[cfg(feature = "sasl")]
        if let Method::Sasl(sasl) = &self.method
            && !self.authenticated
        {
            return self.negotiation.receive(sasl, call, &self.peer);
        }
        match call.header.procedure {
            procedure::AUTH_SASL_START => call.read::<SaslStart<'_>>().map(drop)?,
            procedure::AUTH_SASL_STEP => call.read::<Said<'_>>().map(drop)?,
            _ => {}
        }
        Err(failure::no_sasl())
    }

    /// A step of a SASL negotiation has been made.
    #[cfg(feature = "sasl")]
    pub(super) fn stepped(&mut self, stepped: Stepped) -> Action {
        let Method::Sasl(sasl) = &self.method else { return Action::Nothing };
        let action = self.negotiation.stepped(sasl, stepped, &self.peer);
        self.authenticated |= matches!(action, Action::Secure(..));
        action
    }

    /// Whether a step of a SASL negotiation is being made: what comes behind it may have to be read through a layer.
    pub(super) fn is_stepping(&self) -> bool {
        #[cfg(feature = "sasl")]
        return self.negotiation.is_away();
        #[cfg(not(feature = "sasl"))]
        false
    }

    /// Whether it may say much before it is known, by SASL's calls: Kerberos tickets are long.
    pub(super) fn may_say_much(&self) -> bool {
        #[cfg(feature = "sasl")]
        return matches!(self.method, Method::Sasl(_));
        #[cfg(not(feature = "sasl"))]
        false
    }

    /// polkit has answered.
    pub(super) fn authenticated(&mut self, call: Header, verdict: Result<(), Error>) -> Outgoing {
        self.asking = false;
        match verdict {
            Ok(()) => {
                self.authenticated = true;
                packet(call.reply(Status::Ok), &Number { number: 1 }).into()
            }
            Err(error) => {
                // Whoever was asked has told the log.
                fault::refusal(call, &error).into()
            }
        }
    }

    /// Something has happened that this client may have asked to hear of.
    pub(super) fn announcement(&self, announcement: &Announcement) -> Option<Outgoing> {
        match &self.service {
            Service::Secrets(calls) => calls.announcement(announcement),
            Service::Admin(_) => None,
        }
    }

    /// Whether it has proved who it is, or need not.
    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether polkit is being asked about it.
    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// The client isn't listened to for the moment: its silence means nothing.
    pub(super) fn deaf(&mut self, now: Instant) {
        self.keepalive.heard(now);
    }

    /// Whether it can change nothing.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(&self.service, Service::Secrets(calls) if calls.is_read_only())
    }

    /// When [`tick`](Self::tick) is due, if nothing comes before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.keepalive.deadline()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Action {
        match self.keepalive.tick(now) {
            None => Action::Nothing,
            Some(true) => Action::Send(Beat::Ping.packet().into()),
            Some(false) => Action::Drop,
        }
    }
}

fn is_authentication(number: i32) -> bool {
    matches!(number, procedure::AUTH_LIST..=procedure::AUTH_POLKIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::remote::{ErrorBody, Open, feature};
    use crate::rpc::{Encode, Text, decode};
    use crate::server::rehearsal;
    use std::time::Duration;

    /// A client of a socket that asks polkit, if `method` says so.
    fn client(method: Method, uid: u32) -> Session {
        let peer = Peer::new(None, uid, 0);
        let calls = Calls::new(rehearsal::secrets(), peer, false, std::sync::Arc::new(drop));
        let keepalive = Keepalive::new(Some(Duration::from_secs(5)), 5);
        Session::new(Service::Secrets(calls), method, peer, keepalive)
    }

    fn header(procedure: i32) -> Header {
        let (kind, status) = (Kind::Call, Status::Ok);
        Header { program: program::REMOTE, version: VERSION, procedure, kind, serial: 7, status }
    }

    /// What is answered: nothing, a number that the body begins with, or the error's message.
    fn say(session: &mut Session, header: Header, body: &impl Encode) -> Result<Option<i32>, String> {
        let mut arguments = Vec::new();
        body.encode(&mut arguments);
        let reply = match session.receive(&Call { header, arguments: &arguments }, Instant::now()) {
            Action::Send(reply) | Action::Last(reply) => reply,
            Action::AskPolkit(_) => return Err("polkit is asked".into()),
            _ => return Ok(None),
        };
        let bytes: Vec<u8> = reply.rest().iter().flat_map(|part| part.to_vec()).collect();
        assert_eq!(bytes[20..24], 7u32.to_be_bytes(), "the serial comes back");
        match bytes[27] {
            0 => Ok(decode::<Number>(&bytes[HEAD..]).ok().map(|it| it.number)),
            _ => Err(decode::<ErrorBody<'_>>(&bytes[HEAD..]).unwrap().message.unwrap().to_text()),
        }
    }

    fn open(session: &mut Session) -> Result<Option<i32>, String> {
        say(
            session,
            header(procedure::CONNECT_OPEN),
            &Open { name: Some(Text(b"secret:///system")), flags: 0 },
        )
    }

    #[test]
    fn a_stranger_gets_nothing_until_polkit_has_said_yes() {
        let mut session = client(Method::Polkit, 1000);
        let required = Err("authentication required".to_owned());
        assert_eq!(open(&mut session), required);
        assert_eq!(
            say(&mut session, header(procedure::CONNECT_SUPPORTS_FEATURE), &Number { number: 10 }),
            required
        );
        assert_eq!(say(&mut session, header(procedure::CONNECT_CLOSE), &()), required);
        // AUTH_LIST answers a list: its length, then what is in it.
        assert_eq!(say(&mut session, header(procedure::AUTH_LIST), &()), Ok(Some(1)));
        assert_eq!(open(&mut session), required, "to be told the way is not to have gone it");
        assert_eq!(say(&mut session, header(procedure::AUTH_POLKIT), &()), Err("polkit is asked".into()));
        let denied = session.authenticated(header(procedure::AUTH_POLKIT), Err(failure::no_sasl()));
        assert!(denied.len() > HEAD && !session.is_authenticated());
        _ = session.authenticated(header(procedure::AUTH_POLKIT), Ok(()));
        assert_eq!(open(&mut session), Ok(None));
    }

    #[test]
    fn what_sasl_says_is_read_before_it_is_refused() {
        let mut session = client(Method::None, 1000);
        let (init, start) = (header(procedure::AUTH_SASL_INIT), header(procedure::AUTH_SASL_START));
        let failed = Err("authentication failed: authentication failed".to_owned());
        assert_eq!(say(&mut session, init, &()), failed);
        assert_eq!(
            say(&mut session, start, &Number { number: 5 }),
            Err("Unable to decode message payload".into())
        );
        let well = SaslStart { mechanism: Text(b"PLAIN"), said: Said::new(None) };
        assert_eq!(say(&mut session, start, &well), failed);
        assert_eq!(open(&mut session), Ok(None), "and the connection goes on");
    }

    #[test]
    fn root_is_let_in_by_asking_how() {
        let mut session = client(Method::Polkit, 0);
        assert!(open(&mut session).is_err());
        assert_eq!(say(&mut session, header(procedure::AUTH_LIST), &()), Ok(Some(1)));
        assert_eq!(open(&mut session), Ok(None));
    }

    #[test]
    fn the_checks_come_in_libvirts_order() {
        let mut session = client(Method::Polkit, 1000);
        let wrong_all = Header { program: 1, status: Status::Error, procedure: 9999, ..header(1) };
        assert_eq!(say(&mut session, wrong_all, &()), Err("Cannot find program 1 version 1".into()));
        let wrong_status = Header { program: program::REMOTE, ..wrong_all };
        assert_eq!(say(&mut session, wrong_status, &()), Err("Unexpected message status 1".into()));
        let wrong_procedure = Header { status: Status::Ok, ..wrong_status };
        assert_eq!(say(&mut session, wrong_procedure, &()), Err("unknown procedure: 9999".into()));
        assert_eq!(open(&mut session), Err("authentication required".into()));
        let mut session = client(Method::None, 1000);
        let undecodable = Err("Unable to decode message payload".into());
        assert_eq!(say(&mut session, header(procedure::SECRET_GET_VALUE), &()), undecodable);
    }

    #[test]
    fn only_a_client_that_knows_keepalive_is_pinged() {
        let mut session = client(Method::None, 1000);
        assert_eq!(open(&mut session), Ok(None));
        assert_eq!(session.deadline(), None);
        let asked = say(
            &mut session,
            header(procedure::CONNECT_SUPPORTS_FEATURE),
            &Number { number: feature::KEEPALIVE },
        );
        assert_eq!(asked, Ok(Some(1)));
        let due = session.deadline().unwrap();
        assert!(matches!(session.tick(due), Action::Send(_)));
        for _ in 0..4 {
            _ = session.tick(session.deadline().unwrap());
        }
        assert!(matches!(session.tick(session.deadline().unwrap()), Action::Drop));
    }

    #[test]
    fn what_is_no_call_is_dropped_without_an_answer() {
        let mut session = client(Method::None, 1000);
        for kind in [Kind::Reply, Kind::Message, Kind::Stream, Kind::StreamHole, Kind::Other(9)] {
            assert_eq!(say(&mut session, Header { kind, ..header(procedure::CONNECT_OPEN) }, &()), Ok(None));
        }
        assert_eq!(open(&mut session), Ok(None), "and the connection goes on");
    }
}
