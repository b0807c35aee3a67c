//! What comes from a server: replies to whoever waits, events to their sinks, pings answered, silence measured.
//!
//! A thread of its own, the only one that reads. Leans on `rpc` for packets. Refuses to let a value touch ordinary
//! memory: the head of each packet says what follows, and a value is read into secret memory straight from the
//! socket. What nobody knows is read past.

use std::sync::Arc;

use ::uuid::Uuid;
use rustix::io::Errno;
use secrecy::ExposeSecretMut;

use super::remote_error;
use super::stream::{Inflow, Stop};
use super::wire::{Answer, Body, Wire, undecodable};
use crate::memory::SecretBytes;
use crate::net::layer::Broken;
use crate::rpc::keepalive::Beat;
use crate::rpc::packet::{HEAD, packet_length};
use crate::rpc::remote::{LifecycleEvent, SecretName, ValueChangedEvent, procedure};
use crate::rpc::xdr::{Malformed, padding};
use crate::rpc::{Header, Kind, Status, VERSION, decode, program};
use crate::secret::{Error, ErrorCode, ErrorDomain, Event, Handle, Lifecycle, MAX_VALUE, Usage, UsageType};

/// The reading end of a connection.
pub(super) struct Reader {
    inflow: Inflow,
    wire: Arc<Wire>,
    /// Where bytes go that nobody wants. They may be a value's.
    spill: SecretBytes,
    unanswered: u32,
}

impl Reader {
    pub(super) fn new(inflow: Inflow, wire: Arc<Wire>) -> Result<Self, Error> {
        Ok(Self { inflow, wire, spill: SecretBytes::zeroed(SPILL)?, unanswered: 0 })
    }

    /// Reads until the connection ends, be it by a panic in a sink: nobody must wait for ever behind it.
    pub(super) fn run(mut self) {
        struct Last(Arc<Wire>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.0.lose(self.0.end_of_file());
            }
        }
        let last = Last(Arc::clone(&self.wire));
        loop {
            if let Err(why) = self.packet() {
                last.0.lose(why);
                return;
            }
            last.0.settle();
        }
    }

    /// One packet. An error ends the connection.
    fn packet(&mut self) -> Result<(), Error> {
        let mut head = [0; HEAD];
        self.inflow.begin_packet();
        self.fill(&mut head)?;
        let [length, rest @ ..] = head.as_chunks::<4>().0 else { return Err(undecodable(Malformed)) };
        let length = packet_length(*length).map_err(|bad| broken(bad.to_string()))?;
        let header: Header = decode(rest.as_flattened()).map_err(undecodable)?;
        let length = length - HEAD;
        if let Some(beat) = Beat::of(&header) {
            self.skip(length)?;
            if beat == Beat::Ping {
                self.wire.beat(Beat::Pong);
            }
            return Ok(());
        }
        match (header.program, header.version, header.kind) {
            (program::REMOTE, VERSION, Kind::Reply) => self.reply(header, length),
            (program::REMOTE, VERSION, Kind::Message) => self.event(header.procedure, length),
            (_, _, Kind::Message) => self.skip(length),
            (program, _, kind) => {
                Err(broken(format!("unexpected packet of kind {} and program {program}", kind.number())))
            }
        }
    }

    fn reply(&mut self, header: Header, length: usize) -> Result<(), Error> {
        let Header { program, version, procedure, serial, status, .. } = header;
        match self.wire.awaited(serial) {
            Some(awaited) if awaited == procedure => {}
            Some(_) => return Err(broken(format!("a reply to procedure {procedure}, which wasn't called"))),
            None => {
                return Err(broken(format!(
                    "no call waiting for reply with prog {program} vers {version} serial {serial}"
                )));
            }
        }
        let answer = match status {
            Status::Ok if procedure == procedure::SECRET_GET_VALUE => self.value(length)?,
            Status::Ok => Ok(Body::Plain(self.body(length)?)),
            Status::Error => Err(remote_error::read(&self.body(length)?)),
            other => return Err(broken(format!("a reply of status {}", other.number()))),
        };
        self.wire.deliver(serial, answer);
        Ok(())
    }

    /// The value in a body of `length` bytes.
    fn value(&mut self, length: usize) -> Result<Answer, Error> {
        let mut word = [0; 4];
        let Some(rest) = length.checked_sub(word.len()) else {
            self.skip(length)?;
            return Ok(Err(undecodable(Malformed)));
        };
        self.fill(&mut word)?;
        let value = usize::try_from(u32::from_be_bytes(word)).unwrap_or(usize::MAX);
        let Some(excess) =
            rest.checked_sub(value.saturating_add(padding(value))).filter(|_| value <= MAX_VALUE)
        else {
            self.skip(rest)?;
            return Ok(Err(undecodable(Malformed)));
        };
        match SecretBytes::zeroed(rest - excess) {
            Ok(mut bytes) => {
                self.fill(bytes.expose_secret_mut())?;
                self.skip(excess)?;
                bytes.truncate(value); // the padding
                Ok(Ok(Body::Value(bytes)))
            }
            Err(exhausted) => {
                self.skip(rest)?;
                Ok(Err(exhausted.into()))
            }
        }
    }

    fn event(&mut self, procedure: i32, length: usize) -> Result<(), Error> {
        let body = self.body(length)?;
        match procedure {
            procedure::SECRET_EVENT_LIFECYCLE => {
                let it: LifecycleEvent<'_> = decode(&body).map_err(undecodable)?;
                let what = match it.event {
                    0 => Lifecycle::Defined,
                    1 => Lifecycle::Undefined,
                    _ => return Ok(()), // a newer server's
                };
                self.wire.emit(it.callback, &Event::Lifecycle(handle(&it.secret), what));
            }
            procedure::SECRET_EVENT_VALUE_CHANGED => {
                let it: ValueChangedEvent<'_> = decode(&body).map_err(undecodable)?;
                self.wire.emit(it.callback, &Event::ValueChanged(handle(&it.secret)));
            }
            _ => {}
        }
        Ok(())
    }

    fn body(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        Ok(body)
    }

    fn skip(&mut self, mut length: usize) -> Result<(), Error> {
        while length > 0 {
            let Self { inflow, wire, spill, unanswered } = self;
            let part = length.min(SPILL);
            fill(inflow, wire, unanswered, &mut spill.expose_secret_mut()[..part])?;
            length -= part;
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        fill(&mut self.inflow, &self.wire, &mut self.unanswered, buffer)
    }
}

/// Reads as many bytes as there is room for. While nothing comes, pings; `unanswered` counts them.
fn fill(inflow: &mut Inflow, wire: &Wire, unanswered: &mut u32, mut buffer: &mut [u8]) -> Result<(), Error> {
    while !buffer.is_empty() {
        match inflow.read(buffer) {
            Ok(0) | Err(Stop::Layer(Broken::Closed)) => return Err(inflow.socket.end_of_file()),
            Ok(read) => {
                *unanswered = 0;
                buffer = &mut buffer[read..];
            }
            Err(Stop::System(Errno::AGAIN)) => {
                inflow.socket.listen();
                wire.settle();
                if !wire.is_kept_alive() {
                    continue;
                }
                if *unanswered == PINGS {
                    let detail = "connection closed due to keepalive timeout";
                    return Err(Error::new(ErrorCode::InternalError, ErrorDomain::Rpc, detail)
                        .advise("the server hangs, or is stopped: see what it does, and connect again"));
                }
                *unanswered += 1;
                wire.beat(Beat::Ping);
            }
            Err(Stop::System(errno)) => return Err(inflow.socket.lost(errno)),
            Err(Stop::Layer(Broken::Malformed(what))) => {
                return Err(broken(format!("the encrypted stream is broken: {what}")));
            }
            Err(Stop::NoMemory(exhausted)) => return Err(exhausted.into()),
        }
    }
    Ok(())
}

/// A secret as the server named it. A usage of a type that we don't know can't be named; its secret can.
pub(super) fn handle(name: &SecretName<'_>) -> Handle {
    let usage = match UsageType::from_number(name.kind) {
        None | Some(UsageType::None) => Usage::none(),
        Some(kind) => Usage { kind, id: String::from_utf8_lossy(name.id.0).into() },
    };
    Handle { uuid: Uuid::from_bytes(name.uuid), usage }
}

/// What came is not the protocol.
fn broken(detail: String) -> Error {
    Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, detail)
        .advise("the server doesn't speak libvirt's protocol: is this its socket?")
}

/// How many pings may go unanswered, as libvirt has it.
const PINGS: u32 = 5;

/// Bytes read past at once.
const SPILL: usize = 256;
