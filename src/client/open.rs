//! Getting in: connect, authenticate, see whether the server can be pinged, open the keystore.
//!
//! The sequence is libvirt's own client's. Leans on `wire` for the calls, on `sasl` where a server wants it, on `net` for who
//! we are. Refuses to ask a person for anything that polkit's agent asks.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::link::Link;
use super::route::{Authentication, Route};
use super::way::Way;
use super::wire::Wire;
use super::{Ask, read, text};
use crate::net::peer::Process;
use crate::net::token::SystemToken;
use crate::rpc::remote::{AuthTypes, Number, OPEN_READ_ONLY, Open, auth, feature, procedure};
use crate::rpc::typed::{Parameter, Typed};
use crate::rpc::xdr::{List, Sink};
use crate::rpc::{Encode, Text};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// A connection on which the keystore is open, and whether its events can be told apart. `limit`: how long a server on the
/// network may take.
pub(super) fn open(
    route: &Route,
    read_only: bool,
    ask: Option<&dyn Ask>,
    limit: Duration,
) -> Result<(Arc<Wire>, bool), Error> {
    let (stream, patience) = route.way.go(ask, limit)?;
    let wire = Wire::start(stream, BEAT)?;
    *wire.patience() = patience;
    // What fails from here on has to end the reader too.
    let has_events = enter(&wire, route, read_only, ask).inspect_err(|_| wire.hang_up())?;
    *wire.patience() = None;
    Ok((wire, has_events))
}

/// All that comes before the first call on secrets.
pub(super) fn enter(
    wire: &Wire,
    route: &Route,
    read_only: bool,
    ask: Option<&dyn Ask>,
) -> Result<bool, Error> {
    let is_sealed = authenticate(wire, route.authentication.as_ref(), &link(wire, route), ask)?;
    if let Way::Tcp { host, cleartext: false, .. } = &route.way
        && !is_sealed
    {
        // libvirt's client goes on. But whoever sits between could say that no authentication is needed, and have the values.
        return Err(failed(format!("nothing would encrypt what goes to {host}: it asks for no SASL")).advise(
            "use TLS (secret://HOST/system), have the server ask for SASL, or mean it: add cleartext=1 to the URI",
        ));
    }
    if supports(wire, feature::KEEPALIVE)? {
        wire.keep_alive();
    }
    let flags = if read_only { OPEN_READ_ONLY } else { 0 };
    let open = Open { name: Some(text(route.name.as_bytes())?), flags };
    wire.call(procedure::CONNECT_OPEN, &open)?;
    supports(wire, feature::EVENT_CALLBACK)
}

/// The connection as SASL sees it.
fn link(wire: &Wire, route: &Route) -> Link {
    let (local, remote) = wire.addresses();
    let around = route.way.around(wire.bits());
    let (host, authfile, user) = (route.host.clone(), route.authfile.clone(), route.user.clone());
    Link { host, around, local, remote, authfile, user }
}

/// Whether what goes from now on is encrypted by it.
fn authenticate(
    wire: &Wire,
    wanted: Option<&Authentication>,
    link: &Link,
    ask: Option<&dyn Ask>,
) -> Result<bool, Error> {
    let offered = match wire.call(procedure::AUTH_LIST, &()) {
        Ok(reply) => read::<AuthTypes>(&reply)?.types.0,
        Err(error) if error.code() == ErrorCode::NoSupport => Vec::new(),
        Err(error) => return Err(error),
    };
    let (name, number, mechanism) = match wanted {
        Some(Authentication::Sasl(mechanism)) => ("sasl", Some(auth::SASL), mechanism.as_deref()),
        Some(Authentication::Polkit) => ("polkit", Some(auth::POLKIT), None),
        None => ("", None, None),
    };
    let chosen = match number {
        Some(number) if offered.contains(&number) => number,
        // Also where it offers nothing at all, which libvirt's client takes for none needed: whoever sits between could say so.
        Some(_) => {
            return Err(failed(format!("requested authentication type {name} rejected"))
                .advise("the server doesn't offer it: leave auth= out of the URI"));
        }
        None => offered.first().copied().unwrap_or(auth::NONE),
    };
    match chosen {
        auth::NONE => Ok(false),
        auth::POLKIT => by_polkit(wire).map(|()| false),
        auth::SASL => by_sasl(wire, mechanism, link, ask),
        other => Err(failed(format!("unsupported authentication type {other}"))
            .advise("the server is newer than this client, or broken: see what it is configured to want")),
    }
}

#[cfg(feature = "sasl")]
fn by_sasl(wire: &Wire, mechanism: Option<&str>, link: &Link, ask: Option<&dyn Ask>) -> Result<bool, Error> {
    let layer = super::sasl::authenticate(wire, mechanism, link, ask)?;
    let is_sealed = layer.is_some();
    if let Some(layer) = layer {
        wire.secure(layer);
    }
    Ok(is_sealed)
}

#[cfg(not(feature = "sasl"))]
fn by_sasl(_: &Wire, _: Option<&str>, _: &Link, _: Option<&dyn Ask>) -> Result<bool, Error> {
    Err(failed("the server wants SASL, which this build has not".to_owned())
        .advise("build with --features sasl, or come by a way that needs none: a Unix socket, ssh, or TLS"))
}

fn by_polkit(wire: &Wire) -> Result<(), Error> {
    let reply = wire.call(procedure::AUTH_POLKIT, &()).map_err(|error| match error.code() {
        ErrorCode::AuthUnavailable => error.advise(
            "there is nobody to ask for a password: start an agent (pkttyagent --process $$), join the group that polkit \
             lets in, or run as root",
        ),
        ErrorCode::AuthFailed => {
            error.advise("polkit's rules don't let this user in: ask who administers the host, or try --readonly")
        }
        _ => error,
    })?;
    match read::<Number>(&reply)?.number {
        0 => Err(failed("polkit wants more than one step".to_owned())),
        _ => Ok(()),
    }
}

fn failed(detail: String) -> Error {
    Error::new(ErrorCode::AuthFailed, ErrorDomain::Remote, detail)
}

/// What the server says of a feature. One that it won't speak of it doesn't have; but a connection that is lost is lost.
fn supports(wire: &Wire, feature: i32) -> Result<bool, Error> {
    match wire.call(procedure::CONNECT_SUPPORTS_FEATURE, &Number { number: feature }) {
        Ok(reply) => Ok(read::<Number>(&reply)?.number != 0),
        Err(error) if error.code() == ErrorCode::SystemError => Err(error),
        Err(_) => Ok(false),
    }
}

/// Tells the server who we are, and shows the token that only the host's own daemons can read.
pub(super) fn identify(wire: &Wire, token: &SystemToken) -> Result<(), Error> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let me = Process::new(i32::try_from(std::process::id()).ok(), uid, gid);
    let named = |name, value| Parameter { name: Text::from(name), value };
    let mut list = vec![
        named("unix-user-id", Typed::ULLong(uid.into())),
        named("unix-group-id", Typed::ULLong(gid.into())),
        named("process-id", Typed::LLong(std::process::id().into())),
    ];
    list.extend(me.start_time.map(|ticks| named("process-time", Typed::ULLong(ticks))));
    list.push(named("system.token", Typed::String(Text(token.expose_secret()))));
    wire.call_in_secret(procedure::CONNECT_SET_IDENTITY, &Identity(List(list))).map(drop)
}

/// CONNECT_SET_IDENTITY asks.
struct Identity<'a>(List<Parameter<'a>, 20>);

impl Encode for Identity<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        self.0.encode(to);
        0_u32.encode(to); // flags
    }
}

/// How long a server may be silent before it is pinged, as libvirt has it.
const BEAT: Duration = Duration::from_secs(5);
