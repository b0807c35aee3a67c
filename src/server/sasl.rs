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

use std::net::SocketAddr;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::failure;
use super::session::{Action, Call, reply};
use crate::net::glob;
use crate::net::peer::Peer;
use crate::net::sasl::{Around, Done, SaslError, Server, Step};
use crate::rpc::remote::{Line, Said, SaslReply, SaslStart, procedure};
use crate::rpc::{Header, Text, fault};
use crate::secret::Error;

/// What one client's negotiation is judged by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sasl {
    /// Patterns of the users that are let in (`sasl_allowed_username_list`); `None`: all.
    pub(super) users: Option<Arc<[String]>>,
    /// What its stream is protected by.
    pub(super) around: Around,
    /// The two ends' addresses, if they have such. Kerberos tickets may be bound to them.
    pub(super) local: Option<SocketAddr>,
    pub(super) remote: Option<SocketAddr>,
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
        let step: Box<dyn FnOnce() -> Result<Outcome, SaslError> + Send> = match header.procedure {
            procedure::AUTH_SASL_INIT => match std::mem::replace(&mut self.state, State::Away) {
                State::Idle => {
                    let Sasl { around, local, remote, .. } = *sasl;
                    Box::new(move || Server::new(around, local, remote).map(Outcome::Offers))
                }
                other => return Ok(self.unexpected(other, &header, peer)),
            },
            procedure::AUTH_SASL_START => {
                let SaslStart { mechanism, said } = call.read()?;
                let (mechanism, said) = (mechanism.to_text(), said.to_secret()?);
                match std::mem::replace(&mut self.state, State::Away) {
                    State::Offered(mut server) => Box::new(move || {
                        let said = said.as_ref().map(|said| said.expose_secret());
                        server.start(&mechanism, said).and_then(|step| Outcome::of(server, step))
                    }),
                    other => return Ok(self.unexpected(other, &header, peer)),
                }
            }
            _ => {
                let said = call.read::<Said<'_>>()?.to_secret()?;
                match std::mem::replace(&mut self.state, State::Away) {
                    State::Going(mut server) => Box::new(move || {
                        let said = said.as_ref().map(|said| said.expose_secret());
                        server.step(said).and_then(|step| Outcome::of(server, step))
                    }),
                    other => return Ok(self.unexpected(other, &header, peer)),
                }
            }
        };
        Ok(Action::Step(Box::new(move || Stepped { call: header, outcome: step() })))
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
                Err(why) => self.refuse(&call, peer, Some(&done.user), &why),
            },
            Err(error) => self.refuse(&call, peer, error.user.as_deref(), &error.detail),
        }
    }

    /// Whether a step is being made: nothing that comes meanwhile can be read, because it may be in the layer.
    pub(super) fn is_away(&self) -> bool {
        matches!(self.state, State::Away)
    }

    /// A call that doesn't belong here ends what was begun. What is away comes back all the same.
    fn unexpected(&mut self, before: State, call: &Header, peer: &Peer) -> Action {
        self.state = if matches!(before, State::Away) { before } else { State::Idle };
        self.refuse(call, peer, None, "its calls come in the wrong order")
    }

    fn refuse(&mut self, call: &Header, peer: &Peer, user: Option<&str>, why: &str) -> Action {
        self.failures += 1;
        match user {
            Some(user) => tracing::warn!("SASL refused {peer}, who says that it is '{user}': {why}"),
            None => tracing::warn!("SASL refused {peer}: {why}"),
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

/// What the server says is no secret.
fn said(step: &Step) -> Said<'_> {
    Said::new(step.data.as_ref().map(|data| data.expose_secret()))
}

/// As often a client may fail before it has to connect again.
const MOST_FAILURES: u32 = 8;
