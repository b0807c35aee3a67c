//! Keystores of a daemon, reached over libvirt's RPC protocol; and how keystores are named: URIs.
//!
//! [`Client`] is a [`Keystore`] at the other end of a connection: stock libvirt's daemons and Strongroom's are the same to it.
//! [`route`] reads a URI and finds the [`way`]: a Unix socket ([`local`], [`autostart`]), TCP ([`ip`]), TLS ([`tls`]), a program
//! ([`program`], [`ssh`]) or [`libssh`]. Each ends in a [`stream`]; [`open`] gets in, [`wire`] carries calls, [`reader`] takes in what
//! comes back. `admin` speaks to a daemon's admin socket. One thread for each connection, and no other runtime.
//!
//! Leans on `rpc` for messages and on `net` for the host's token. Refuses what libvirt's own client refuses before it asks
//! the server; every other check is the server's. Values lie in secret memory from the socket to the caller and back, but for
//! what libssh and SASL's layer keep of them in memory of their own.

#[cfg(feature = "cli")]
mod admin;
mod ask;
mod autostart;
#[cfg(feature = "cli")]
mod beside;
#[cfg(any(feature = "sasl", feature = "libssh"))]
mod credentials;
mod far;
mod ip;
mod libssh;
mod link;
mod local;
mod name;
mod open;
mod patience;
mod preferences;
mod program;
mod reader;
mod remote_error;
mod route;
#[cfg(feature = "sasl")]
mod sasl;
mod socket;
mod ssh;
mod stream;
mod tls;
mod uri;
mod way;
mod wire;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use crate::memory::SecretBytes;
use crate::net::token::SystemToken;
use crate::rpc::remote::{
    Define, Flagged, Line, ListAll, Number, Register, SecretName, Secrets, SetValue, UsageName,
    Uuid as UuidBody, Uuids, procedure,
};
use crate::rpc::xdr::Malformed;
use crate::rpc::{Decode, Encode, Text, Value, decode};
use crate::secret::{
    Error, ErrorCode, ErrorDomain, EventKind, EventSink, Function, Handle, Keystore, MAX_VALUE, Subscription,
    UsageType, parse_uuid,
};
#[cfg(feature = "cli")]
pub(crate) use admin::Admin;
pub use ask::{Ask, Question};
#[cfg(feature = "cli")]
pub(crate) use beside::keystore_beside;
pub(crate) use preferences::Meant;
use preferences::Preferences;
use reader::handle;
use route::{Places, Route};
pub use uri::{BadUri, Uri};
use way::{Unix, Way};
use wire::{Registration, Wire, undecodable};

/// A daemon's keystore, over one connection. Every call may be made from any thread; the connection ends when this is
/// dropped. When the server ends it, every call fails from then on, and subscriptions' sinks are dropped.
pub struct Client {
    wire: Arc<Wire>,
    uri: String,
    route: Route,
    read_only: bool,
    has_events: bool,
    ask: Option<Arc<dyn Ask>>,
}

impl Client {
    /// Connects to the daemon that `uri`, which is read of `meant`, names. `ask`: who can be asked for a password.
    pub(crate) fn open(
        meant: Meant,
        uri: &Uri,
        read_only: bool,
        ask: Option<Arc<dyn Ask>>,
    ) -> Result<Self, Error> {
        let preferences = meant.preferences.map_or_else(Preferences::read, Ok)?;
        let route = Route::find(uri, read_only, &Places::here(preferences))?;
        Self::by(route, meant.uri, read_only, ask)
    }

    fn by(route: Route, uri: String, read_only: bool, ask: Option<Arc<dyn Ask>>) -> Result<Self, Error> {
        let (wire, has_events) = open::open(&route, read_only, ask.as_deref(), patience::LIMIT)?;
        Ok(Self { wire, uri, route, read_only, has_events, ask })
    }

    /// Refused here, before anything is sent: so does libvirt's client.
    fn check_writable(&self, function: Function) -> Result<(), Error> {
        if self.read_only { Err(Error::read_only(function)) } else { Ok(()) }
    }

    /// A call that gives back a secret.
    fn one_secret(&self, procedure: i32, body: &impl Encode) -> Result<Handle, Error> {
        let reply = self.wire.call(procedure, body)?;
        read::<SecretName<'_>>(&reply).map(|secret| handle(&secret))
    }
}

impl Keystore for Client {
    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn num_of_secrets(&self) -> Result<usize, Error> {
        let reply = self.wire.call(procedure::CONNECT_NUM_OF_SECRETS, &())?;
        usize::try_from(read::<Number>(&reply)?.number).map_err(|_| undecodable(Malformed))
    }

    fn list_secrets(&self, max: usize) -> Result<Vec<Uuid>, Error> {
        let max = i32::try_from(max).unwrap_or(i32::MAX); // the server has a limit, and words for it
        let reply = self.wire.call(procedure::CONNECT_LIST_SECRETS, &Number { number: max })?;
        let uuids = read::<Uuids<'_>>(&reply)?.uuids.0;
        uuids.iter().map(|uuid| parse_uuid(uuid.0).ok_or(undecodable(Malformed))).collect()
    }

    fn list_all(&self, flags: u32) -> Result<Vec<Handle>, Error> {
        let all = ListAll { need_results: 1, flags };
        let reply = self.wire.call(procedure::CONNECT_LIST_ALL_SECRETS, &all)?;
        Ok(read::<Secrets<'_>>(&reply)?.secrets.0.iter().map(handle).collect())
    }

    fn lookup_by_uuid(&self, uuid: Uuid) -> Result<Handle, Error> {
        self.one_secret(procedure::SECRET_LOOKUP_BY_UUID, &UuidBody { uuid: uuid.into_bytes() })
    }

    fn lookup_by_usage(&self, kind: UsageType, id: &str) -> Result<Handle, Error> {
        let usage = UsageName { kind: kind.number(), id: text(id.as_bytes())? };
        self.one_secret(procedure::SECRET_LOOKUP_BY_USAGE, &usage)
    }

    fn define_xml(&self, xml: &[u8], flags: u32) -> Result<Handle, Error> {
        self.check_writable(Function::Define)?;
        self.one_secret(procedure::SECRET_DEFINE_XML, &Define { xml: text(xml)?, flags })
    }

    fn xml_desc(&self, uuid: Uuid, flags: u32) -> Result<String, Error> {
        let asked = Flagged { secret: name(uuid), flags };
        let reply = self.wire.call(procedure::SECRET_GET_XML_DESC, &asked)?;
        Ok(read::<Line<'_>>(&reply)?.text.to_text())
    }

    fn set_value(&self, uuid: Uuid, value: SecretBytes, flags: u32) -> Result<(), Error> {
        self.check_writable(Function::SetValue)?;
        if value.len() > MAX_VALUE {
            let detail = format!("value length greater than maximum: {} > {MAX_VALUE}", value.len());
            return Err(Error::new(ErrorCode::Rpc, ErrorDomain::Remote, detail));
        }
        let set = SetValue { secret: name(uuid), value: Value(value.expose_secret()), flags };
        self.wire.call_in_secret(procedure::SECRET_SET_VALUE, &set).map(drop)
    }

    fn value(&self, uuid: Uuid, flags: u32) -> Result<SecretBytes, Error> {
        self.check_writable(Function::Value)?;
        self.wire.ask_value(&Flagged { secret: name(uuid), flags })
    }

    fn undefine(&self, uuid: Uuid) -> Result<(), Error> {
        self.check_writable(Function::Undefine)?;
        self.wire.call(procedure::SECRET_UNDEFINE, &name(uuid)).map(drop)
    }

    fn subscribe(&self, kind: EventKind, only: Option<Uuid>, sink: EventSink) -> Result<Subscription, Error> {
        if !self.has_events {
            return Err(Error::new(
                ErrorCode::NoSupport,
                ErrorDomain::Remote,
                "virConnectSecretEventRegisterAny",
            )
            .advise("the server is too old to send events on secrets"));
        }
        let register = Register { event: kind as i32, secret: only.map(name) };
        let id = self.wire.register(&register, Registration { kind, only, sink })?;
        let wire = Arc::downgrade(&self.wire);
        Ok(Subscription::new(id, move || {
            if let Some(wire) = wire.upgrade() {
                wire.deregister(id);
            }
        }))
    }

    /// On a connection of its own, so that this one stays what it is. A token that the server doesn't know is no error to
    /// it: private values stay refused then.
    fn elevated(&self) -> Result<Arc<dyn Keystore>, Error> {
        let Way::Unix(Unix { socket, token, .. }) = &self.route.way else {
            let detail = format!("private values are not to be had over {}", self.uri);
            return Err(Error::failed(detail).advise(
                "the token that gives them never leaves its host: run this there, with secret:///system or secret:///session",
            ));
        };
        let token = SystemToken::read(token)?.ok_or_else(|| {
            let path = token.display();
            Error::failed(format!("there is no system token in '{path}' to become elevated with")).advise(
                "libvirt's daemons make it when they start, for their own user to read: see that one runs here, and run \
                 this as that user",
            )
        })?;
        local::check_owner(socket)?;
        let elevated = Self::by(self.route.clone(), self.uri.clone(), self.read_only, self.ask.clone())?;
        open::identify(&elevated.wire, &token)?;
        Ok(Arc::new(elevated))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.wire.hang_up();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// The socket of this host's daemon that `uri` names, be it another driver's.
#[cfg(feature = "cli")]
pub(crate) fn daemon_socket(uri: &Uri, read_only: bool) -> Result<Unix, Error> {
    match Route::find(uri, read_only, &Places::here(Preferences::read()?))?.way {
        Way::Unix(unix) => Ok(unix),
        _ => Err(Error::failed("it is on another host")),
    }
}

/// What a reply says.
fn read<'a, T: Decode<'a>>(reply: &'a [u8]) -> Result<T, Error> {
    decode(reply).map_err(undecodable)
}

/// A string that the wire can carry.
fn text(bytes: &[u8]) -> Result<Text<'_>, Error> {
    if bytes.len() > Text::MAX {
        return Err(Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "Unable to encode message payload"));
    }
    Ok(Text(bytes))
}

/// A secret as calls name it: only the UUID counts.
fn name(uuid: Uuid) -> SecretName<'static> {
    SecretName { uuid: uuid.into_bytes(), kind: UsageType::None.number(), id: Text(b"") }
}
