//! One client's connection: moves bytes between its socket and its [`Session`].
//!
//! The task that a client has. It reads when there is something to answer and room for the answer, so that a client that doesn't
//! read its replies, or has `max_client_requests` calls under way, is not read from either. Leans on `inbound` and
//! `outgoing` for the bytes. Refuses to wait for ever for a client that holds what others need.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::authority::Authority;
use super::calls::Announcement;
use super::clients::Welcome;
use super::inbound::{Inbound, Incoming, Room};
use super::outgoing::Outgoing;
use super::session::{Action, Call, Held, Session};
use super::transit::{LONGEST_HOLD, Load, PATIENCE, PAUSE, Transit};
use crate::memory::SecretBytes;
use crate::rpc::remote::procedure;
use crate::rpc::{Header, Text, program};
use crate::secret::{Error, MAX_VALUE};

/// What a connection is made of.
pub(super) struct Connection {
    pub(super) stream: UnixStream,
    pub(super) session: Session,
    pub(super) welcome: Welcome,
    pub(super) events: mpsc::Receiver<Announcement>,
    pub(super) shared: Arc<Shared>,
    pub(super) stop: watch::Receiver<bool>,
}

/// What all connections to a server share.
pub(super) struct Shared {
    pub(super) transit: Arc<Transit>,
    pub(super) authority: Authority,
    /// The most calls that one client may have under way.
    pub(super) max_requests: AtomicUsize,
}

/// A call that was answered elsewhere.
enum Done {
    Worked(Outgoing),
    Judged(Header, Result<(), Error>),
}

/// Why a connection ends, for the log.
type Ending = &'static str;

impl Connection {
    /// Serves the client until one of the two ends it.
    pub(super) async fn serve(self) {
        let Self { stream, session, welcome, events, shared, stop } = self;
        let id = welcome.client.id;
        tracing::debug!("client {id} has come: {}", welcome.client.peer);
        let mut serving = Serving {
            stream,
            session,
            welcome,
            shared,
            inbound: Inbound::default(),
            out: VecDeque::new(),
            out_load: Vec::new(),
            work: JoinSet::new(),
            since: Instant::now(),
            stuck: None,
            paused: None,
            unchecked: 0,
            last: false,
        };
        let ending = serving.run(events, stop).await;
        tracing::debug!("client {id} is gone: {ending}");
    }
}

/// A client that has to move before others get what it holds.
#[derive(Clone, Copy)]
struct Stuck {
    since: Instant,
    /// When bytes last went.
    moved: Instant,
    /// Bytes still to come and to go.
    missing: usize,
}

struct Serving {
    stream: UnixStream,
    session: Session,
    welcome: Welcome,
    shared: Arc<Shared>,
    inbound: Inbound,
    /// Replies and events, oldest first.
    out: VecDeque<Outgoing>,
    /// What they hold of memory.
    out_load: Vec<Load>,
    work: JoinSet<Done>,
    /// When it came.
    since: Instant,
    /// Half a packet is held, either way.
    stuck: Option<Stuck>,
    /// When it began to wait for others to make room.
    paused: Option<Instant>,
    /// What was sent since the socket was last known to have room for a whole value.
    unchecked: usize,
    /// The connection ends when what is queued is sent.
    last: bool,
}

impl Serving {
    async fn run(
        &mut self,
        mut events: mpsc::Receiver<Announcement>,
        mut stop: watch::Receiver<bool>,
    ) -> Ending {
        let mut ended = false;
        loop {
            let more = match self.turn(ended) {
                Ok(more) => more,
                Err(ending) => return ending,
            };
            if self.last && self.out.is_empty() {
                return "it is done";
            }
            if more {
                tokio::task::yield_now().await; // others have their turn
                continue;
            }
            let interest = match (self.has_room(), self.may_read() && self.paused.is_none()) {
                (false, _) => Some(Interest::WRITABLE),
                (true, true) => Some(Interest::READABLE),
                (true, false) => None,
            };
            self.see_whether_it_moves();
            let (stuck, deadline) = (self.stuck, self.deadline());
            let (stream, client, shared) = (&self.stream, &self.welcome.client, &self.shared);
            tokio::select! {
                biased;
                () = client.dismissed() => return "it was dismissed",
                () = stopped(&mut stop) => return self.finish().await,
                Some(done) = self.work.join_next(), if !self.work.is_empty() => match done {
                    Ok(Done::Worked(reply)) => self.queue(reply),
                    Ok(Done::Judged(call, verdict)) => {
                        let reply = self.session.authenticated(call, verdict);
                        self.queue(reply);
                    }
                    Err(_) => return "a call of its broke off",
                },
                Some(event) = events.recv(), if self.out.is_empty() => {
                    if let Some(event) = event.packet() {
                        self.queue(event);
                    }
                }
                ready = ready(stream, interest) => match ready {
                    Ok(closed) => ended |= closed,
                    Err(_) => return "its socket failed",
                },
                () = shared.transit.crowded(), if stuck.is_some() => {
                    if stuck.is_some_and(|it| it.moved.elapsed() >= PATIENCE || it.since.elapsed() >= LONGEST_HOLD) {
                        tracing::warn!("closing client {}: it stands still, and others wait for the memory that it holds", client.id);
                        return "others wait for what it holds";
                    }
                }
                () = sleep(deadline) => if let Some(ending) = self.tick() {
                    return ending;
                },
            }
        }
    }

    /// Sends what can be sent, then answers what has come, as long as neither has to wait; not for too long: whether
    /// there may be more to answer at once.
    fn turn(&mut self, ended: bool) -> Result<bool, Ending> {
        self.send()?;
        for _ in 0..TURN {
            if !self.has_room() || !self.may_read() {
                return Ok(false);
            }
            let crowded = self.shared.transit.is_crowded();
            let waits = self.paused.is_none_or(|since| since.elapsed() < LONGEST_PAUSE);
            if crowded && waits && self.shared.transit.is_full() && self.inbound.missing().is_none() {
                self.paused.get_or_insert_with(Instant::now);
                return Ok(false);
            }
            if !self.receive(ended, !crowded || !waits)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Answers one packet. `false`: there is none yet. `large`: a large one may be begun.
    fn receive(&mut self, ended: bool, large: bool) -> Result<bool, Ending> {
        PAGE.with_borrow_mut(|page| {
            let page = match page {
                Some(page) => page,
                None => page.insert(SecretBytes::zeroed(PAGE_SIZE).map_err(|_| "there is no secret memory")?),
            };
            let mut gathered = None;
            let (stream, inbound, session) = (&self.stream, &mut self.inbound, &mut self.session);
            let transit = &self.shared.transit;
            let room = |header: &Header| match session.is_authenticated() {
                true => large.then(|| room(header)),
                false => Some(Room::NONE),
            };
            let incoming = stream.try_io(Interest::READABLE, || {
                inbound.receive(stream.as_fd(), page, ended, transit, room, &mut gathered)
            });
            let action = match incoming {
                Ok(Incoming::Packet(header, arguments)) => {
                    self.paused = None;
                    Ok(session.receive(&Call { header, arguments }, Instant::now()))
                }
                Ok(Incoming::Crowded) => {
                    self.paused.get_or_insert_with(Instant::now);
                    Ok(Action::Wait)
                }
                Ok(Incoming::End(ending)) => Err(ending),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.paused = None;
                    Ok(Action::Wait)
                }
                Err(_) => Err("its socket failed"),
            };
            drop(gathered);
            inbound.wipe(page);
            match action? {
                Action::Wait => Ok(false),
                action => self.act(action).map(|()| true),
            }
        })
    }

    fn act(&mut self, action: Action) -> Result<(), Ending> {
        match action {
            Action::Nothing | Action::Wait => {}
            Action::Drop => return Err("it doesn't answer"),
            Action::Send(reply) => self.queue(reply),
            Action::Last(reply) => {
                self.last = true;
                self.queue(reply);
            }
            Action::Work(held, work) => {
                let load = match held {
                    Held::Secret(bytes) => self.shared.transit.secret(bytes),
                    Held::Ordinary(bytes) => self.shared.transit.ordinary(bytes),
                };
                self.work.spawn_blocking(move || {
                    let reply = work();
                    drop(load);
                    Done::Worked(reply)
                });
            }
            Action::AskPolkit(call) => {
                let check =
                    self.shared.authority.check(self.welcome.client.peer, self.session.is_read_only());
                self.work.spawn(async move { Done::Judged(call, check.await) });
            }
        }
        if self.session.is_authenticated() {
            self.welcome.authenticated();
        }
        self.welcome.client.read_only.store(self.session.is_read_only(), Ordering::Relaxed);
        self.send()
    }

    fn queue(&mut self, packet: Outgoing) {
        self.out.push_back(packet);
    }

    /// Sends as much as the socket takes.
    fn send(&mut self) -> Result<(), Ending> {
        while let Some(packet) = self.out.front_mut() {
            match self.stream.try_write_vectored(&packet.rest()) {
                Ok(0) => return Err("it closed"),
                Ok(sent) => {
                    self.unchecked += sent + OVERHEAD;
                    if packet.advance(sent) {
                        self.out.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err("it closed"),
            }
        }
        let transit = &self.shared.transit;
        let load = |packet: &Outgoing| match packet.is_secret() {
            true => transit.secret(packet.len().next_power_of_two()),
            false => transit.ordinary(packet.len()),
        };
        self.out_load = self.out.iter().map(load).collect();
        Ok(())
    }

    /// Whether the socket takes a whole value at once, so that none has to wait here. A client that sends calls and reads no
    /// replies is not answered any more before it has.
    fn has_room(&mut self) -> bool {
        if !self.out.is_empty() {
            return false;
        }
        if self.unchecked > MOST_UNCHECKED {
            // The kernel calls it writable if three quarters of it are free: the runtime, until a write has failed.
            let ask =
                || match rustix::event::poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], Some(&NOW)) {
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) | Err(_) => Ok(()),
                };
            if self.stream.try_io(Interest::WRITABLE, ask).is_err() {
                return false;
            }
            self.unchecked = 0;
        }
        true
    }

    /// Notes since when it holds half a packet, and when that last got less.
    fn see_whether_it_moves(&mut self) {
        let out = self.out.iter().map(Outgoing::missing).sum::<usize>();
        let missing = self.inbound.missing().unwrap_or(0) + out;
        let now = Instant::now();
        self.stuck = match self.stuck {
            _ if missing == 0 => None,
            Some(stuck) if stuck.missing == missing => Some(stuck),
            Some(stuck) => Some(Stuck { moved: now, missing, ..stuck }),
            None => Some(Stuck { since: now, moved: now, missing }),
        };
    }

    /// Whether another call may come.
    fn may_read(&self) -> bool {
        !self.last && self.work.len() < self.shared.max_requests.load(Ordering::Relaxed).max(1)
    }

    /// When to look at the clock.
    fn deadline(&self) -> Option<Instant> {
        let waits = [
            self.session.deadline(),
            self.paused.map(|_| Instant::now() + PAUSE),
            self.stuck.map(|stuck| stuck.moved + LONGEST_STANDSTILL),
            self.is_loitering().then(|| self.since + LONGEST_ANONYMITY),
        ];
        waits.into_iter().flatten().min()
    }

    fn tick(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if self.stuck.is_some_and(|stuck| now >= stuck.moved + LONGEST_STANDSTILL) {
            return Some("it stood still amid a packet");
        }
        if self.is_loitering() && now >= self.since + LONGEST_ANONYMITY {
            return Some("it didn't authenticate");
        }
        let action = self.session.tick(now);
        self.act(action).err()
    }

    /// Whether it has yet to authenticate, and nobody is being asked about it.
    fn is_loitering(&self) -> bool {
        !self.session.is_authenticated() && self.work.is_empty()
    }

    /// The daemon stops: calls under way are answered, then it ends.
    async fn finish(&mut self) -> Ending {
        const ENDING: Ending = "the daemon stops";
        while let Some(done) = self.work.join_next().await {
            if let Ok(Done::Worked(reply)) = done {
                self.queue(reply);
            }
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.send().is_ok() && !self.out.is_empty() {
            if tokio::time::timeout_at(until, self.stream.writable()).await.is_err() {
                break;
            }
        }
        ENDING
    }
}

/// Waits for the socket. Whether the client will send no more.
async fn ready(stream: &UnixStream, interest: Option<Interest>) -> io::Result<bool> {
    match interest {
        Some(interest) => stream.ready(interest).await.map(|ready| ready.is_read_closed()),
        None => std::future::pending().await,
    }
}

/// Waits until the daemon stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    _ = stop.wait_for(|stop| *stop).await; // a sender that is gone stops it too
}

async fn sleep(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => std::future::pending().await,
    }
}

thread_local! {
    /// Where this thread reads packets. Nothing stays in it between two of them.
    static PAGE: RefCell<Option<SecretBytes>> = const { RefCell::new(None) };
}

/// Larger than any packet but for large values, definitions and what strangers send.
const PAGE_SIZE: usize = 16 << 10;

/// Packets answered before others have their turn.
const TURN: usize = 64;

/// What is sent before the socket is asked whether it has room: with it, and with the quarter that may be full when it says
/// that it has, two of the largest values still fit.
const MOST_UNCHECKED: usize = 32 << 10;

/// What the kernel adds to a packet, about.
const OVERHEAD: usize = 768;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// How long a client waits for others to make room, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long half a packet may stand still, either way.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(60);

/// How long a client may take to authenticate. Time that a person takes to answer polkit doesn't count.
const LONGEST_ANONYMITY: Duration = Duration::from_secs(60);

/// What a large packet of an authenticated client is worth keeping of. What no call has use for may be a value that went
/// astray: it is not kept, or in secret memory.
fn room(header: &Header) -> Room {
    match (header.program, header.procedure) {
        (program::REMOTE, procedure::SECRET_SET_VALUE | procedure::CONNECT_SET_IDENTITY) => {
            Room { bytes: 3 * MAX_VALUE, secret: true }
        }
        (
            program::REMOTE,
            procedure::CONNECT_OPEN
            | procedure::SECRET_LOOKUP_BY_USAGE
            | procedure::SECRET_DEFINE_XML
            | procedure::SECRET_GET_XML_DESC
            | procedure::SECRET_GET_VALUE
            | procedure::SECRET_UNDEFINE
            | procedure::CONNECT_SECRET_EVENT_REGISTER_ANY,
        ) => Room { bytes: Text::MAX + PAGE_SIZE, secret: false },
        _ => Room { bytes: PAGE_SIZE, secret: true },
    }
}
