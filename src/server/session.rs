//! One client's conversation as a pure state machine: packets and the clock in, actions out.
//!
//! ```text
//!              AUTH_LIST, AUTH_POLKIT                CONNECT_OPEN
//!   anonymous ─────────────────────► authenticated ─────────────────► open ──► any call
//!       │  (a socket without authentication starts here ▲)              │
//!       └──────────────── keepalive in any state ───────────────────────┴─ CONNECT_CLOSE ──► last reply, then the end
//! ```
//!
//! What is checked, in libvirt's order: program, status, procedure, authentication, arguments; then the call itself
//! ([`calls`](super::calls), [`admin`](super::admin)). Leans on `rpc` for the bytes and on `driver` for the answers. Refuses
//! to touch a socket; drops what is no call without an answer, as libvirt does.

use std::time::Instant;

use super::calls::Calls;
use super::keepalive::Keepalive;
use super::outgoing::Outgoing;
use super::{admin, failure};
use crate::net::peer::Peer;
use crate::rpc::keepalive::Beat;
use crate::rpc::remote::{AuthTypes, Number, auth, procedure};
use crate::rpc::xdr::List;
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

    /// The reply that says how it went.
    pub(super) fn reply(&self, body: &impl crate::rpc::Encode) -> Outgoing {
        packet(self.header.reply(Status::Ok), body).into()
    }
}

/// What to do about a packet.
pub(super) enum Action {
    /// Nothing: it needs no answer.
    Nothing,
    /// Wait for more: no packet is whole.
    Wait,
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

/// How the clients of a socket prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// They needn't.
    None,
    /// polkit says.
    Polkit,
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
    peer: Peer,
    keepalive: Keepalive,
}

impl Session {
    /// A client has connected.
    pub(super) fn new(service: Service, method: Method, peer: Peer, keepalive: Keepalive) -> Self {
        Self { service, method, authenticated: method == Method::None, peer, keepalive }
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
        match self.answer(call, now) {
            Ok(action) => action,
            Err(error) => {
                failure::log(&error, &header, &self.peer);
                Action::Send(fault::refusal(header, &error).into())
            }
        }
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
                self.authenticated |= self.method == Method::Polkit && self.peer.is_root();
                let way = match self.method {
                    Method::Polkit if !self.authenticated => auth::POLKIT,
                    _ => auth::NONE,
                };
                Ok(Action::Send(call.reply(&AuthTypes { types: List(vec![way]) })))
            }
            procedure::AUTH_POLKIT if self.method == Method::Polkit => Ok(Action::AskPolkit(call.header)),
            procedure::AUTH_POLKIT => Err(failure::unexpected_authentication()),
            _ => Err(failure::no_sasl()),
        }
    }

    /// polkit has answered.
    pub(super) fn authenticated(&mut self, call: Header, verdict: Result<(), Error>) -> Outgoing {
        match verdict {
            Ok(()) => {
                self.authenticated = true;
                packet(call.reply(Status::Ok), &Number { number: 1 }).into()
            }
            Err(error) => {
                failure::log(&error, &call, &self.peer);
                fault::refusal(call, &error).into()
            }
        }
    }

    /// Whether it has proved who it is, or need not.
    pub(super) fn is_authenticated(&self) -> bool {
        self.authenticated
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
