//! libvirt's REMOTE program as a secret driver answers it: a procedure number becomes a call on the driver.
//!
//! Leans on `rpc` for arguments and results, on `driver` for what is asked. Fast calls are answered at once; durable ones
//! become [`Work`](super::session::Work). Refuses every secret call before CONNECT_OPEN, and answers the calls of libvirt's other drivers as
//! a daemon does that has none of them.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use ::uuid::Uuid;

use super::outgoing::Outgoing;
use super::session::{Action, Call, Held, reply};
use super::{failure, identity, opening};
use crate::driver::{Caller, Driver, Session};
use crate::memory::SecretBytes;
use crate::net::peer::Peer;
use crate::net::token::SystemToken;
use crate::rpc::foreign::{self, Foreign};
use crate::rpc::remote::{self, Number, SecretName, feature, procedure};
use crate::rpc::xdr::List;
use crate::rpc::{Header, Kind, Status, Text, VERSION, packet, program};
use crate::secret::{
    Error, ErrorDomain, Event, EventKind, Function, Handle, Keystore, Lifecycle, MAX_LIST, Subscription,
    UsageType,
};

/// What all connections to secrets share.
pub(super) struct Secrets {
    pub(super) driver: Arc<Driver>,
    /// The URI paths that CONNECT_OPEN may name.
    pub(super) paths: &'static [&'static str],
    /// What makes a caller one of the host's own daemons.
    pub(super) token: SystemToken,
}

/// An event for one registration. Its id is known a moment after the first event may come.
pub(super) struct Announcement {
    id: Arc<OnceLock<i32>>,
    event: Event,
}

/// Takes events, on any thread, without waiting.
pub(super) type Announce = Arc<dyn Fn(Announcement) + Send + Sync>;

/// One connection to secrets.
pub(super) struct Calls {
    secrets: Arc<Secrets>,
    announce: Announce,
    peer: Peer,
    read_only: bool,
    open: Option<Open>,
    takes_pings: bool,
}

/// What there is after CONNECT_OPEN.
struct Open {
    uri: String,
    session: Arc<Session>,
    subscriptions: HashMap<i32, Subscription>,
}

impl Calls {
    /// `read_only`: it came over the socket that is only for reading.
    pub(super) fn new(secrets: Arc<Secrets>, peer: Peer, read_only: bool, announce: Announce) -> Self {
        Self { secrets, announce, peer, read_only, open: None, takes_pings: false }
    }

    /// Whether it may change nothing.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether the client has asked for keepalive, so that it can be pinged.
    pub(super) fn takes_pings(&self) -> bool {
        self.takes_pings
    }

    /// Whether there is such a procedure.
    pub(super) fn knows(&self, header: &Header) -> bool {
        match header.program {
            program::REMOTE => is_ours(header.procedure) || foreign::answer(header.procedure).is_some(),
            program::QEMU => foreign::answer_qemu(header.procedure).is_some(),
            _ => foreign::answer_lxc(header.procedure).is_some(),
        }
    }

    /// Answers a call that is known, from a client that is authenticated.
    pub(super) fn answer(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        let number = call.header.procedure;
        let foreign = match call.header.program {
            program::REMOTE if is_ours(number) => return self.remote(call),
            program::REMOTE => foreign::answer(number),
            program::QEMU => foreign::answer_qemu(number),
            _ => foreign::answer_lxc(number),
        };
        Err(match foreign {
            Some(Foreign::Unsupported { .. }) if self.open.is_none() => failure::hypervisor_not_open(),
            Some(Foreign::Unsupported { api, domain }) => failure::unsupported(api, domain),
            Some(Foreign::NotOpen) | None => failure::not_open(),
        })
    }

    fn remote(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        let send = |body| Ok(Action::Send(body));
        match call.header.procedure {
            procedure::CONNECT_OPEN => self.open(call),
            procedure::CONNECT_CLOSE => {
                self.open = None;
                Ok(Action::Last(call.reply(&())))
            }
            procedure::CONNECT_GET_TYPE => {
                self.opened()?;
                send(call.reply(&remote::Line { text: Text(b"secret") }))
            }
            procedure::CONNECT_GET_VERSION => {
                self.opened()?;
                Err(failure::unsupported("virConnectGetVersion", ErrorDomain::Domain))
            }
            procedure::CONNECT_GET_HOSTNAME => {
                self.opened()?;
                Err(failure::unsupported("virConnectGetHostname", ErrorDomain::Domain))
            }
            procedure::CONNECT_GET_URI => {
                let uri = &self.opened()?.uri;
                send(call.reply(&remote::Line { text: uri.as_str().into() }))
            }
            procedure::CONNECT_IS_SECURE => {
                self.opened()?;
                send(call.reply(&Number { number: 1 }))
            }
            procedure::CONNECT_GET_LIB_VERSION => {
                self.opened()?;
                send(call.reply(&remote::Version { version: super::LIBVIRT_LEVEL }))
            }
            procedure::CONNECT_SUPPORTS_FEATURE => self.supports(call),
            procedure::CONNECT_REGISTER_CLOSE_CALLBACK | procedure::CONNECT_UNREGISTER_CLOSE_CALLBACK => {
                self.opened()?;
                send(call.reply(&()))
            }
            procedure::CONNECT_SET_IDENTITY => self.set_identity(call),
            procedure::CONNECT_NUM_OF_SECRETS => self.scan(call, |session, call| {
                let number = i32::try_from(session.num_of_secrets()?).unwrap_or(i32::MAX);
                Ok(reply(call, &Number { number }))
            }),
            procedure::CONNECT_LIST_SECRETS => self.list(call),
            procedure::CONNECT_LIST_ALL_SECRETS => self.list_all(call),
            procedure::SECRET_LOOKUP_BY_UUID => {
                let asked: remote::Uuid = call.read()?;
                self.read(call, move |session, call| {
                    let found = session.lookup_by_uuid(Uuid::from_bytes(asked.uuid))?;
                    Ok(reply(call, &name_of(&found)))
                })
            }
            procedure::SECRET_LOOKUP_BY_USAGE => {
                let asked: remote::UsageName<'_> = call.read()?;
                let (kind, id) = (UsageType::from_number(asked.kind), asked.id.to_text());
                self.read(call, move |session, call| {
                    let kind = kind.ok_or_else(|| Error::no_such_usage(&id))?;
                    Ok(reply(call, &name_of(&session.lookup_by_usage(kind, &id)?)))
                })
            }
            procedure::SECRET_GET_XML_DESC => {
                let asked: remote::Flagged<'_> = call.read()?;
                let (uuid, flags) = (Uuid::from_bytes(asked.secret.uuid), asked.flags);
                self.read(call, move |session, call| {
                    let xml = session.xml_desc(uuid, flags)?;
                    match xml.len() {
                        ..=Text::MAX => Ok(reply(call, &remote::Line { text: xml.as_str().into() })),
                        _ => Err(failure::unencodable()),
                    }
                })
            }
            procedure::SECRET_GET_VALUE => {
                let asked: remote::Flagged<'_> = call.read()?;
                let (uuid, flags) = (Uuid::from_bytes(asked.secret.uuid), asked.flags);
                self.read(call, move |session, call| Ok(Outgoing::value(call, session.value(uuid, flags)?)))
            }
            procedure::SECRET_DEFINE_XML => {
                let asked: remote::Define<'_> = call.read()?;
                self.check_writable(Function::Define)?;
                let (xml, flags) = (asked.xml.0.to_vec(), asked.flags);
                // The document, and what is made of it.
                self.work(call, Held::Ordinary(4 * xml.len()), move |session, call| {
                    let defined = session.define_xml(&xml, flags)?;
                    Ok(reply(call, &name_of(&defined)))
                })
            }
            procedure::SECRET_SET_VALUE => {
                let asked: remote::SetValue<'_> = call.read()?;
                self.check_writable(Function::SetValue)?;
                let (uuid, flags) = (Uuid::from_bytes(asked.secret.uuid), asked.flags);
                let value = SecretBytes::copy_of(asked.value.0)?;
                // The value, and the frame that it is sealed in.
                let held = Held::Secret(2 * value.len().next_power_of_two());
                self.work(call, held, move |session, call| {
                    session.set_value(uuid, value, flags)?;
                    Ok(reply(call, &()))
                })
            }
            procedure::SECRET_UNDEFINE => {
                let asked: SecretName<'_> = call.read()?;
                let uuid = Uuid::from_bytes(asked.uuid);
                self.work(call, Held::Ordinary(0), move |session, call| {
                    session.undefine(uuid)?;
                    Ok(reply(call, &()))
                })
            }
            procedure::CONNECT_SECRET_EVENT_REGISTER_ANY => self.register(call),
            procedure::CONNECT_SECRET_EVENT_DEREGISTER_ANY => {
                let asked: Number = call.read()?;
                let open = self.open.as_mut().ok_or_else(failure::not_open)?;
                let ended = open.subscriptions.remove(&asked.number);
                ended.ok_or_else(|| failure::no_such_callback(asked.number))?;
                send(call.reply(&()))
            }
            number => Err(failure::no_procedure(&Header { procedure: number, ..call.header })),
        }
    }

    /// The packet that announces an event, if its registration still stands.
    pub(super) fn announcement(&self, announcement: &Announcement) -> Option<Outgoing> {
        let callback = *announcement.id.get()?;
        self.open.as_ref().filter(|open| open.subscriptions.contains_key(&callback))?;
        let secret = name_of(announcement.event.secret());
        let header = |procedure| Header {
            program: program::REMOTE,
            version: VERSION,
            procedure,
            kind: Kind::Message,
            serial: remote::EVENT_SERIAL,
            status: Status::Ok,
        };
        let bytes = match &announcement.event {
            Event::Lifecycle(_, what) => {
                let event = i32::from(*what == Lifecycle::Undefined);
                let body = remote::LifecycleEvent { callback, secret, event, detail: 0 };
                packet(header(procedure::SECRET_EVENT_LIFECYCLE), &body)
            }
            Event::ValueChanged(_) => {
                let body = remote::ValueChangedEvent { callback, secret };
                packet(header(procedure::SECRET_EVENT_VALUE_CHANGED), &body)
            }
        };
        Some(bytes.into())
    }

    fn open(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: remote::Open<'_> = call.read()?;
        if self.open.is_some() {
            return Err(failure::already_open());
        }
        let uri = opening::judge(asked.name, self.secrets.paths)?;
        self.read_only |= asked.flags & remote::OPEN_READ_ONLY != 0;
        let caller = Caller { read_only: self.read_only, elevated: false, owner: false };
        let session = Arc::new(self.secrets.driver.session(caller));
        self.open = Some(Open { uri, session, subscriptions: HashMap::new() });
        Ok(Action::Send(call.reply(&())))
    }

    fn supports(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: Number = call.read()?;
        if asked.number == feature::KEEPALIVE {
            self.takes_pings = true; // may be asked before CONNECT_OPEN
        } else {
            self.opened()?;
        }
        let yes = [feature::FD_PASSING, feature::KEEPALIVE, feature::EVENT_CALLBACK, feature::CLOSE_CALLBACK];
        Ok(Action::Send(call.reply(&Number { number: yes.contains(&asked.number).into() })))
    }

    fn set_identity(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: identity::SetIdentity<'_> = call.read()?;
        let open = self.open.as_mut().ok_or_else(failure::hypervisor_not_open)?;
        let token = identity::token(&asked)?;
        let elevated = token.is_some_and(|token| self.secrets.token.matches(token));
        let caller = Caller { read_only: self.read_only, elevated, owner: false };
        open.session = Arc::new(open.session.with_caller(caller));
        Ok(Action::Send(call.reply(&())))
    }

    fn list(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: Number = call.read()?;
        self.session()?;
        let max = match usize::try_from(asked.number) {
            Ok(max @ ..=MAX_LIST) => max,
            Ok(_) => return Err(failure::list_too_long()),
            Err(_) => return Err(failure::list_negative()),
        };
        self.scan(call, move |session, call| {
            let uuids: Vec<String> = session.list_secrets(max)?.iter().map(Uuid::to_string).collect();
            let uuids = uuids.iter().map(|uuid| uuid.as_str().into()).collect();
            Ok(reply(call, &remote::Uuids { uuids: List(uuids) }))
        })
    }

    fn list_all(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: remote::ListAll = call.read()?;
        self.scan(call, move |session, call| {
            let found = session.list_all(asked.flags)?;
            let count = u32::try_from(found.len()).unwrap_or(u32::MAX);
            let secrets = match asked.need_results {
                0 => Vec::new(),
                _ if found.len() > MAX_LIST => return Err(Error::too_many(found.len())),
                _ => found.iter().map(name_of).collect(),
            };
            Ok(reply(call, &remote::Secrets { secrets: List(secrets), count }))
        })
    }

    fn register(&mut self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: remote::Register<'_> = call.read()?;
        let open = self.open.as_mut().ok_or_else(failure::not_open)?;
        let kind = match asked.event {
            0 => EventKind::Lifecycle,
            1 => EventKind::ValueChanged,
            other => return Err(failure::no_such_event(other)),
        };
        if open.subscriptions.len() >= MOST_SUBSCRIPTIONS {
            return Err(failure::too_many_callbacks(MOST_SUBSCRIPTIONS));
        }
        let only = asked.secret.map(|secret| Uuid::from_bytes(secret.uuid));
        let (id, announce) = (Arc::new(OnceLock::new()), Arc::clone(&self.announce));
        let known = Arc::clone(&id);
        let sink = move |event: &Event| {
            announce(Announcement { id: Arc::clone(&known), event: event.clone() });
        };
        let subscription = open.session.subscribe(kind, only, Box::new(sink))?;
        let number = *id.get_or_init(|| subscription.id());
        open.subscriptions.insert(number, subscription);
        Ok(Action::Send(call.reply(&Number { number })))
    }

    /// A call about one secret that changes nothing.
    fn read(
        &self,
        call: &Call<'_>,
        run: impl FnOnce(&Session, Header) -> Result<Outgoing, Error> + Send + 'static,
    ) -> Result<Action, Error> {
        self.at_once(call, false, run)
    }

    /// A call about all secrets that changes nothing.
    fn scan(
        &self,
        call: &Call<'_>,
        run: impl FnOnce(&Session, Header) -> Result<Outgoing, Error> + Send + 'static,
    ) -> Result<Action, Error> {
        self.at_once(call, true, run)
    }

    /// Answers at once, unless that would make this thread wait.
    fn at_once(
        &self,
        call: &Call<'_>,
        all: bool,
        run: impl FnOnce(&Session, Header) -> Result<Outgoing, Error> + Send + 'static,
    ) -> Result<Action, Error> {
        let session = self.session()?;
        if session.would_wait(all) {
            return self.work(call, Held::Ordinary(0), run);
        }
        run(session, call.header).map(Action::Send)
    }

    /// A call that may block, on this connection's secrets. `held`: what it keeps of memory meanwhile.
    fn work(
        &self,
        call: &Call<'_>,
        held: Held,
        run: impl FnOnce(&Session, Header) -> Result<Outgoing, Error> + Send + 'static,
    ) -> Result<Action, Error> {
        let session = Arc::clone(self.session()?);
        Ok(Action::work(call.header, self.peer, held, move |call| run(&session, call)))
    }

    /// The driver would refuse it too; but here nothing is copied and queued for it first.
    fn check_writable(&self, function: Function) -> Result<(), Error> {
        self.session()?;
        if self.read_only { Err(Error::read_only(function)) } else { Ok(()) }
    }

    /// For calls on secrets.
    fn session(&self) -> Result<&Arc<Session>, Error> {
        self.open.as_ref().map(|open| &open.session).ok_or_else(failure::not_open)
    }

    /// For calls on the connection.
    fn opened(&self) -> Result<&Open, Error> {
        self.open.as_ref().ok_or_else(failure::hypervisor_not_open)
    }
}

fn name_of(handle: &Handle) -> SecretName<'_> {
    let (kind, id) = (handle.usage.kind.number(), Text(handle.usage.id.as_bytes()));
    SecretName { uuid: handle.uuid.into_bytes(), kind, id }
}

/// Registrations of one connection. libvirt has no limit; each costs memory, and time at every event.
const MOST_SUBSCRIPTIONS: usize = 1024;

fn is_ours(number: i32) -> bool {
    matches!(
        number,
        procedure::CONNECT_OPEN..=procedure::CONNECT_GET_VERSION
            | procedure::CONNECT_GET_HOSTNAME
            | procedure::CONNECT_SUPPORTS_FEATURE
            | procedure::AUTH_LIST..=procedure::AUTH_POLKIT
            | procedure::CONNECT_GET_URI
            | procedure::CONNECT_NUM_OF_SECRETS..=procedure::SECRET_LOOKUP_BY_USAGE
            | procedure::CONNECT_IS_SECURE
            | procedure::CONNECT_GET_LIB_VERSION
            | procedure::CONNECT_LIST_ALL_SECRETS
            | procedure::CONNECT_REGISTER_CLOSE_CALLBACK
            | procedure::CONNECT_UNREGISTER_CLOSE_CALLBACK
            | procedure::CONNECT_SECRET_EVENT_REGISTER_ANY
            | procedure::CONNECT_SECRET_EVENT_DEREGISTER_ANY
            | procedure::CONNECT_SET_IDENTITY
    )
}
