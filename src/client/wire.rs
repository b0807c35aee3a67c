//! One connection to a server: calls go out, whoever made one waits for its reply, events find their sinks.
//!
//! Many threads may call at once; a thread of its own ([`Reader`]) takes in what comes, in whatever order. Leans on
//! `rpc` for packets. Refuses to go on after anything that is no protocol: the connection is lost then, everybody who
//! waits hears of it, and so does every later call. It doesn't connect again by itself, because subscriptions would
//! be gone.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use ::uuid::Uuid;
use secrecy::ExposeSecret;

use super::patience::Patience;
use super::reader::Reader;
use super::socket::Socket;
use super::stream::{Next, Outflow, Stream};
use crate::memory::SecretBytes;
use crate::net::layer::Layer;
use crate::rpc::keepalive::Beat;
use crate::rpc::remote::{Number, procedure};
use crate::rpc::xdr::Malformed;
use crate::rpc::{Encode, Header, Kind, Status, VERSION, decode, packet, program, secret_packet};
use crate::secret::{Error, ErrorCode, ErrorDomain, Event, EventKind, EventSink};

/// A connection, as long as it lasts.
pub(super) struct Wire {
    socket: Arc<Socket>,
    bits: u32,
    /// Held while a packet goes out, so that packets stay whole.
    writing: Mutex<Outflow>,
    /// Where the reader finds the layer of what comes.
    next: Arc<Next>,
    /// Short packets to be sent by whoever is next able to. Taken after `writing`, and never held while one waits.
    owed: Mutex<VecDeque<Vec<u8>>>,
    keepalive: AtomicBool,
    /// With which replies are waited for; `None`: with all that there is.
    patience: Mutex<Option<Patience>>,
    state: Mutex<State>,
    reader: OnceLock<ThreadId>,
    reading: Mutex<Option<Reading>>,
}

/// The reader's thread.
struct Reading {
    thread: JoinHandle<()>,
    /// Its other end goes when the reader has.
    ended: Receiver<()>,
}

#[derive(Default)]
struct State {
    next_serial: u32,
    waiting: HashMap<u32, Waiting>,
    registered: HashMap<i32, Arc<Registration>>,
    lost: Option<Error>,
}

/// A call whose reply is to come.
struct Waiting {
    procedure: i32,
    tell: Sender<Answer>,
    registers: Option<Registration>,
}

/// What a reply holds.
pub(super) enum Body {
    /// Anything but a value.
    Plain(Vec<u8>),
    /// A value.
    Value(SecretBytes),
}

/// How a call ended.
pub(super) type Answer = Result<Body, Error>;

/// Who wants to hear of what.
pub(super) struct Registration {
    pub(super) kind: EventKind,
    pub(super) only: Option<Uuid>,
    pub(super) sink: EventSink,
}

impl Wire {
    /// Begins to read from this stream. `beat`: how long the server may be silent before it is pinged.
    pub(super) fn start(stream: impl Into<Stream>, beat: Duration) -> Result<Arc<Self>, Error> {
        let failed = |error: &io::Error| {
            Error::system("cannot read from the server", error).in_domain(ErrorDomain::Rpc)
        };
        let Stream { inflow, outflow, bits } = stream.into();
        inflow.socket.set_patience(beat).map_err(|error| failed(&error))?;
        let wire = Arc::new(Self {
            socket: Arc::clone(&inflow.socket),
            bits,
            next: Arc::clone(&inflow.next),
            writing: Mutex::new(outflow),
            owed: Mutex::default(),
            keepalive: AtomicBool::new(false),
            patience: Mutex::default(),
            state: Mutex::default(),
            reader: OnceLock::new(),
            reading: Mutex::default(),
        });
        let reader = Reader::new(inflow, Arc::clone(&wire))?;
        let thread = thread::Builder::new().name("strongroom-wire".to_owned());
        let (ending, ended) = mpsc::channel();
        let run = move || {
            reader.run();
            drop(ending);
        };
        let thread = thread.spawn(run).map_err(|error| failed(&error))?;
        _ = wire.reader.set(thread.thread().id());
        *wire.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(Reading { thread, ended });
        Ok(wire)
    }

    /// How long the server may take with its replies, while we are not in.
    pub(super) fn patience(&self) -> MutexGuard<'_, Option<Patience>> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the server may be pinged: it has said that it answers.
    pub(super) fn keep_alive(&self) {
        self.keepalive.store(true, Ordering::Relaxed);
    }

    /// What is said from now on, both ways, goes through this layer. For between two calls, while nobody else makes any.
    #[cfg_attr(not(feature = "sasl"), allow(dead_code, reason = "only SASL brings a layer so late"))]
    pub(super) fn secure(&self, layer: Layer) {
        self.next.put(layer.opener);
        self.writing().secure(layer.sealer);
    }

    /// The addresses of both ends, where they are addresses of hosts.
    pub(super) fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.socket.addresses()
    }

    /// How strong the layer is that was there from the beginning; 0 if there was none.
    pub(super) fn bits(&self) -> u32 {
        self.bits
    }

    /// The error of a connection that its server has ended.
    pub(super) fn end_of_file(&self) -> Error {
        self.socket.end_of_file()
    }

    /// Calls, and gives the reply's body.
    pub(super) fn call(&self, procedure: i32, body: &impl Encode) -> Result<Vec<u8>, Error> {
        let (header, reply) = self.announce(procedure, None)?;
        self.write(&packet(header, body));
        self.wait(&reply).and_then(plain)
    }

    /// The same for a body that holds a value or a token: its packet is made in secret memory.
    pub(super) fn call_in_secret(&self, procedure: i32, body: &impl Encode) -> Result<Vec<u8>, Error> {
        let (header, reply) = self.announce(procedure, None)?;
        match secret_packet(header, body) {
            Ok(packet) => self.write(packet.expose_secret()),
            Err(exhausted) => {
                self.state().waiting.remove(&header.serial);
                return Err(exhausted.into());
            }
        }
        self.wait(&reply).and_then(plain)
    }

    /// SECRET_GET_VALUE.
    pub(super) fn ask_value(&self, body: &impl Encode) -> Result<SecretBytes, Error> {
        let (header, reply) = self.announce(procedure::SECRET_GET_VALUE, None)?;
        self.write(&packet(header, body));
        match self.wait(&reply)? {
            Body::Value(value) => Ok(value),
            Body::Plain(_) => Err(undecodable(Malformed)),
        }
    }

    /// Registers for events, and gives the registration's id. The sink is there before the next packet is looked at.
    pub(super) fn register(&self, body: &impl Encode, registration: Registration) -> Result<i32, Error> {
        let register = procedure::CONNECT_SECRET_EVENT_REGISTER_ANY;
        let (header, reply) = self.announce(register, Some(registration))?;
        self.write(&packet(header, body));
        let body = self.wait(&reply).and_then(plain)?;
        decode::<Number>(&body).map(|it| it.number).map_err(undecodable)
    }

    /// Ends a registration. The server's answer is waited for, so that the same one can be made again, unless nobody could
    /// read it: a sink may drop its own subscription.
    pub(super) fn deregister(&self, id: i32) {
        let registration = self.state().registered.remove(&id);
        drop(registration);
        let procedure = procedure::CONNECT_SECRET_EVENT_DEREGISTER_ANY;
        let Ok((header, reply)) = self.announce_anywhere(procedure, None) else { return };
        let packet = packet(header, &Number { number: id });
        if self.is_reader() {
            self.owe(packet); // nor may it wait for the server to read
        } else {
            self.write(&packet);
            _ = self.wait(&reply);
        }
    }

    /// Says good-bye, and gives the server a moment to say it too. One that doesn't even read gets no longer. The reader is
    /// waited for too, unless it is in a sink: the libraries behind a layer don't bear a thread that goes on amid a
    /// process's end.
    pub(super) fn hang_up(&self) {
        if let Ok((header, reply)) = self.announce(procedure::CONNECT_CLOSE, None) {
            self.owe(packet(header, &()));
            _ = reply.recv_timeout(GOOD_BYE);
        }
        if let Ok(mut writing) = self.writing.try_lock() {
            writing.close();
        }
        self.socket.end();
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Reading { thread, ended }) = reading
            && !self.is_reader()
            && ended.recv_timeout(GOOD_BYE) == Err(RecvTimeoutError::Disconnected)
        {
            _ = thread.join(); // a sink's panic was its own
        }
    }

    fn announce(
        &self,
        procedure: i32,
        registers: Option<Registration>,
    ) -> Result<(Header, Receiver<Answer>), Error> {
        if self.is_reader() {
            let detail = "a call was made from within an event's sink, where its reply can't be read";
            return Err(Error::not_now(detail).advise("hand the event to another thread"));
        }
        self.announce_anywhere(procedure, registers)
    }

    /// Makes ready for the reply, before the call is sent.
    fn announce_anywhere(
        &self,
        procedure: i32,
        registers: Option<Registration>,
    ) -> Result<(Header, Receiver<Answer>), Error> {
        let (tell, reply) = mpsc::channel();
        let mut state = self.state();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        let serial = state.next_serial;
        state.next_serial = serial.wrapping_add(1);
        state.waiting.insert(serial, Waiting { procedure, tell, registers });
        let (program, kind, status) = (program::REMOTE, Kind::Call, Status::Ok);
        Ok((Header { program, version: VERSION, procedure, kind, serial, status }, reply))
    }

    fn wait(&self, reply: &Receiver<Answer>) -> Answer {
        let end = self.patience().as_ref().map(|patience| patience.end);
        let answer = match end {
            None => reply.recv().ok(),
            Some(end) => match reply.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Err(RecvTimeoutError::Timeout) => {
                    let over = self.patience().as_ref().map(Patience::over);
                    self.lose(over.unwrap_or_else(|| self.socket.end_of_file()));
                    None
                }
                answer => answer.ok(),
            },
        };
        answer.unwrap_or_else(|| Err(self.state().lost.clone().unwrap_or_else(|| self.socket.end_of_file())))
    }

    fn is_reader(&self) -> bool {
        self.reader.get() == Some(&thread::current().id())
    }

    /// Sends a packet. When that fails, the reader is woken to find the end, behind what the server may have said before.
    fn write(&self, packet: &[u8]) {
        let mut writing = self.writing();
        if writing.send(packet).is_err() {
            self.socket.shut();
        }
        drop(writing);
        self.settle();
    }

    /// Sends a short packet as soon as may be, and waits for nothing. One that is owed already isn't owed twice.
    fn owe(&self, packet: Vec<u8>) {
        let mut owed = self.owed();
        if !owed.contains(&packet) {
            owed.push_back(packet);
        }
        drop(owed);
        self.settle();
    }

    /// Pays what is owed, unless somebody is writing (who will pay) or there is no room (then the next who writes, or the
    /// reader when something comes). The reader never waits for room: the server may be waiting for it to read.
    pub(super) fn settle(&self) {
        loop {
            let mut writing = match self.writing.try_lock() {
                Ok(writing) => writing,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            let mut all_gone = writing.send_rest();
            while all_gone == Ok(true)
                && let Some(packet) = self.owed().pop_front()
            {
                all_gone = writing.send_soon(&packet).and_then(|_| writing.send_rest());
            }
            drop(writing);
            if all_gone.is_err() {
                self.socket.end(); // the reader finds it
            }
            // Somebody may have owed more while this had the lock, and found it taken.
            if all_gone != Ok(true) || self.owed().is_empty() {
                return;
            }
        }
    }

    fn writing(&self) -> MutexGuard<'_, Outflow> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owed(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the reader does.
impl Wire {
    /// Whether the server may be pinged.
    pub(super) fn is_kept_alive(&self) -> bool {
        self.keepalive.load(Ordering::Relaxed)
    }

    /// Sends a ping or a pong as soon as may be.
    pub(super) fn beat(&self, beat: Beat) {
        self.owe(beat.packet());
    }

    /// Which procedure the call of this serial was for, if its reply is still to come.
    pub(super) fn awaited(&self, serial: u32) -> Option<i32> {
        self.state().waiting.get(&serial).map(|waiting| waiting.procedure)
    }

    /// Gives a call its answer.
    pub(super) fn deliver(&self, serial: u32, answer: Answer) {
        let mut state = self.state();
        let Some(Waiting { tell, registers, .. }) = state.waiting.remove(&serial) else { return };
        if let (Some(registration), Ok(Body::Plain(body))) = (registers, &answer)
            && let Ok(Number { number: id @ 0.. }) = decode(body)
        {
            state.registered.insert(id, Arc::new(registration));
        }
        drop(state);
        _ = tell.send(answer); // nobody waits for a deregistration's
    }

    /// Calls the sink of a registration.
    pub(super) fn emit(&self, id: i32, event: &Event) {
        let registration = self.state().registered.get(&id).map(Arc::clone);
        if let Some(registration) = registration
            && registration.kind == event.kind()
            && registration.only.is_none_or(|only| only == event.secret().uuid)
        {
            (registration.sink)(event);
        }
    }

    /// Ends the connection. Those who wait are told by their channels' end, sinks by being dropped.
    pub(super) fn lose(&self, why: Error) {
        let mut state = self.state();
        state.lost.get_or_insert(why);
        let gone = (std::mem::take(&mut state.waiting), std::mem::take(&mut state.registered));
        drop(state);
        drop(gone);
        self.socket.shut();
    }
}

#[cfg(test)]
impl Wire {
    /// Sends zeros until there is room for no more, as if the server had long stopped reading. Gives their number.
    pub(super) fn fill_up(&self) -> usize {
        let _writing = self.writing();
        std::iter::from_fn(|| self.socket.send_now(&[0; 4096]).ok()).sum()
    }
}

/// The error of a reply that can't be read.
pub(super) fn undecodable(_: Malformed) -> Error {
    Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "Unable to decode message payload")
}

fn plain(body: Body) -> Result<Vec<u8>, Error> {
    match body {
        Body::Plain(body) => Ok(body),
        Body::Value(_) => Err(undecodable(Malformed)),
    }
}

/// How long the server has to answer CONNECT_CLOSE. Nothing depends on it.
const GOOD_BYE: Duration = Duration::from_secs(1);
