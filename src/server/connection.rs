//! One client's connection: moves bytes between its socket and its [`Session`].
//!
//! The task that a client has. It reads when there is something to answer and room for the answer, so that a client
//! that doesn't read its replies, or has `max_client_requests` calls under way, is not read from either. Leans on
//! `inbound` and `outgoing` for the bytes. Refuses to wait for ever for a client that holds what others need.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::LocalKey;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::admin::Workers;
use super::authority::Authority;
use super::calls::Announcement;
use super::clients::Welcome;
use super::failure;
use super::inbound::{Inbound, Incoming, Page, Rest};
use super::outgoing::{Outbound, Outgoing};
use super::room::{self, Room};
use super::session::{Action, Call, Held, Session};
#[cfg(feature = "sasl")]
use super::steps::{Negotiations, Unmade};
use super::stream::Stream;
use super::transit::{Load, PATIENCE, PAUSE, Stuck, Transit};
use crate::net::layer::Layer;
use crate::net::peer::Peer;
use crate::rpc::Header;
use crate::secret::Error;

/// What a connection is made of.
pub(super) struct Connection {
    pub(super) stream: Stream,
    /// If the stream is encrypted from its first packet on.
    pub(super) layer: Option<Layer>,
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
    /// SASL's.
    #[cfg(feature = "sasl")]
    pub(super) steps: Negotiations,
    pub(super) workers: Arc<Workers>,
    /// The most calls that one client may have under way.
    pub(super) max_requests: AtomicUsize,
}

/// A call that was answered elsewhere.
enum Done {
    Worked(Outgoing),
    Judged(Header, Result<(), Error>),
    #[cfg(feature = "sasl")]
    Stepped(Result<super::sasl::Stepped, Unmade>),
}

/// Why a connection ends, for the log.
type Ending = &'static str;

impl Connection {
    /// Serves the client until one of the two ends it.
    pub(super) async fn serve(self) {
        let Self { stream, layer, session, welcome, events, shared, stop } = self;
        let id = welcome.client.id;
        tracing::debug!("client {id} has come: {}", welcome.client.peer);
        let mut serving = Serving {
            inbound: Inbound::bare(stream.carries_descriptors()),
            out: Outbound::bare(Arc::clone(&shared.transit)),
            stream,
            session,
            welcome,
            shared,
            work: JoinSet::new(),
            since: Instant::now(),
            stuck: None,
            half: None,
            paused: None,
            last: false,
        };
        if let Some(layer) = layer {
            serving.secure(layer);
        }
        let ending = serving.run(events, stop).await;
        serving.out.say_goodbye(&serving.stream);
        tracing::debug!("client {id} is gone: {ending}");
    }
}

struct Serving {
    stream: Stream,
    session: Session,
    welcome: Welcome,
    shared: Arc<Shared>,
    inbound: Inbound,
    out: Outbound,
    work: JoinSet<Done>,
    /// When it came.
    since: Instant,
    /// It holds what others may need, and it is for the client to move.
    stuck: Option<Stuck>,
    /// When part of a packet was seen that still isn't whole.
    half: Option<Instant>,
    /// When it began to wait for others to make room.
    paused: Option<Instant>,
    /// The connection ends when what is queued is sent.
    last: bool,
}

impl Serving {
    async fn run(
        &mut self,
        mut events: mpsc::Receiver<Announcement>,
        mut stop: watch::Receiver<bool>,
    ) -> Ending {
        let (client, transit) = (Arc::clone(&self.welcome.client), Arc::clone(&self.shared.transit));
        let mut dismissed = pin!(client.dismissed());
        let mut stopped = pin!(stopped(&mut stop));
        // The alarm stays as it is when its hour moves on, as it does with each packet: it finds out when it goes off.
        let (mut alarm, mut armed) = (pin!(tokio::time::sleep(Duration::ZERO)), None);
        let mut ended = false;
        loop {
            let more = match self.turn(ended) {
                Ok(more) => more,
                Err(ending) => return ending,
            };
            if self.last && self.out.is_empty() && self.work.is_empty() {
                return "it is done";
            }
            let has_room = self.out.has_room(&self.stream);
            let interest = match (has_room, self.may_read() && self.paused.is_none()) {
                (false, _) => Some(Interest::WRITABLE),
                (true, true) => Some(Interest::READABLE),
                (true, false) => None,
            };
            self.see_whether_it_moves(has_room);
            if let Some(deadline) = self.deadline()
                && armed.is_none_or(|armed| deadline < armed)
            {
                alarm.as_mut().reset(deadline.into());
                armed = Some(deadline);
            }
            tokio::select! {
                biased;
                () = &mut dismissed => return "it was dismissed",
                () = &mut stopped => return self.finish().await,
                Some(done) = self.work.join_next(), if !self.work.is_empty() => match done {
                    Ok(done) => if let Err(ending) = self.settle(done) {
                        return ending;
                    },
                    Err(_) => return "a call of its broke off",
                },
                Some(event) = events.recv(), if self.out.is_empty() => {
                    if let Some(event) = self.session.announcement(&event) {
                        self.out.push(event);
                    }
                }
                () = &mut alarm, if armed.is_some() => {
                    armed = None;
                    if let Some(ending) = self.tick() {
                        return ending;
                    }
                }
                () = transit.crowded(), if self.stuck.is_some() => {
                    if self.stuck.is_some_and(Stuck::is_in_the_way) {
                        tracing::warn!("closing client {}: it stands still, and others wait for the memory that it holds", client.id);
                        return "others wait for what it holds";
                    }
                }
                () = tokio::task::yield_now(), if more => {} // others have their turn
                ready = ready(&self.stream, interest), if !more => match ready {
                    Ok(closed) => ended |= closed,
                    Err(_) => return "its socket failed",
                },
            }
        }
    }

    /// A call has been answered elsewhere.
    fn settle(&mut self, done: Done) -> Result<(), Ending> {
        match done {
            #[cfg(feature = "sasl")]
            Done::Stepped(Err(_)) => return Err("a step of its came to no end"), // the log knows
            #[cfg(feature = "sasl")]
            Done::Stepped(Ok(stepped)) => {
                let action = self.session.stepped(stepped);
                return self.act(action);
            }
            Done::Worked(reply) => self.out.push(reply),
            Done::Judged(call, verdict) => {
                self.since = Instant::now(); // what a person took to answer doesn't count
                let reply = self.session.authenticated(call, verdict);
                self.out.push(reply);
                self.note_who_it_is();
            }
        }
        Ok(())
    }

    /// Sends what can be sent, then answers what has come, as long as neither has to wait; not for too long: whether
    /// there may be more to answer at once.
    fn turn(&mut self, ended: bool) -> Result<bool, Ending> {
        self.out.send(&self.stream)?;
        for _ in 0..TURN {
            if !self.out.has_room(&self.stream) || !self.may_read() {
                return Ok(false);
            }
            let crowded = self.inbound.missing().is_none() && self.shared.transit.is_crowded();
            let waits = self.paused.is_none_or(|since| since.elapsed() < LONGEST_PAUSE);
            if crowded && waits && self.shared.transit.is_full() {
                self.pause();
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
        let (place, page): (&Place, fn() -> _) = match self.inbound.is_secure() {
            false => (&PAGE, Page::bare),
            true => (&RECORDS, Page::of_records),
        };
        place.with_borrow_mut(|kept| {
            let page = match kept {
                Some(page) => page,
                None => match page() {
                    Ok(page) => kept.insert(page),
                    Err(_) => {
                        self.pause();
                        return Ok(false);
                    }
                },
            };
            let mut gathered = None;
            let (stream, inbound, session) = (&self.stream, &mut self.inbound, &mut self.session);
            let transit = &self.shared.transit;
            let (known, at_length) = (session.is_authenticated(), session.may_say_much());
            let room = |header: &Header, length| match known {
                true => large.then(|| Room::of(header)),
                false if at_length && room::is_sasl(header) => large.then(|| Room::sasl(length)),
                false => Some(Room::NONE),
            };
            let held = inbound.holds_packet();
            let rest = match self.half {
                _ if ended => Rest::Never,
                Some(since) if since.elapsed() >= PATIENCE => Rest::Late,
                _ => Rest::Soon,
            };
            let tried = Cell::new(false);
            let mut receive = || {
                tried.set(true);
                Ok(match inbound.receive(stream.as_fd(), page, rest, transit, room, &mut gathered)? {
                    Incoming::Packet(header, arguments) => {
                        Ok(session.receive(&Call { header, arguments }, Instant::now()))
                    }
                    Incoming::Starved(header, exhausted) => Ok(session.refuse(&header, &exhausted.into())),
                    Incoming::Crowded => Ok(Action::Pause),
                    Incoming::Part => Ok(Action::Nothing),
                    Incoming::End(ending) => Err(ending),
                })
            };
            // Through the reactor first, so that it knows what was read; but of what comes late it has told already.
            let mut received = match held {
                true => receive(),
                false => stream.try_io(Interest::READABLE, &mut receive),
            };
            if rest == Rest::Late && !tried.get() {
                received = receive();
            }
            drop(gathered);
            inbound.wipe(page);
            self.half = inbound.has_seen_half().then(|| self.half.unwrap_or_else(Instant::now));
            let action = match received {
                Ok(action) => action?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Action::Wait,
                Err(_) => return Err("its socket failed"),
            };
            match action {
                Action::Pause => {
                    self.pause();
                    Ok(false)
                }
                Action::Wait => {
                    self.paused = None;
                    Ok(false)
                }
                action => {
                    self.paused = None;
                    self.act(action).map(|()| true)
                }
            }
        })
    }

    /// Waits until others have made room, and asks them to.
    fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
        self.shared.transit.complain();
    }

    fn act(&mut self, action: Action) -> Result<(), Ending> {
        match action {
            Action::Nothing | Action::Wait | Action::Pause => {}
            Action::Drop => return Err("it doesn't answer"),
            Action::Send(reply) => self.out.push(reply),
            Action::Last(reply) => {
                self.last = true;
                self.out.push(reply);
            }
            Action::Work(held, work) => {
                let load = self.load(held);
                let mut job = self.shared.workers.job();
                self.work.spawn_blocking(move || {
                    job.begin();
                    let reply = work();
                    drop((load, job));
                    Done::Worked(reply)
                });
            }
            Action::AskPolkit(call) => match self.welcome.client.peer {
                Peer::Local(process) => {
                    let check = self.shared.authority.check(process, self.session.is_read_only());
                    self.work.spawn(async move { Done::Judged(call, check.await) });
                }
                Peer::Remote(_) => {
                    self.settle(Done::Judged(call, Err(failure::unexpected_authentication())))?;
                }
            },
            #[cfg(feature = "sasl")]
            Action::Secure(reply, layer, user) => {
                self.welcome.client.is(user);
                self.out.push(reply); // the last words in clear
                if let Some(layer) = layer {
                    self.secure(layer);
                }
            }
            #[cfg(feature = "sasl")]
            Action::Step(held, step) => {
                let (shared, load) = (Arc::clone(&self.shared), self.load(held));
                let step = move || {
                    let stepped = step();
                    drop(load);
                    stepped
                };
                let client = Arc::clone(&self.welcome.client);
                self.work.spawn(async move { Done::Stepped(shared.steps.make(&client, step).await) });
            }
        }
        self.note_who_it_is();
        self.out.send(&self.stream)
    }

    /// Counts what is held while it is worked with.
    fn load(&self, held: Held) -> Load {
        match held {
            Held::Secret(bytes) => self.shared.transit.secret(bytes),
            Held::Ordinary(bytes) => self.shared.transit.ordinary(bytes),
        }
    }

    /// From here on the stream is encrypted, both ways; but for what is queued already.
    fn secure(&mut self, layer: Layer) {
        self.inbound.secure(layer.opener);
        self.out.secure(layer.sealer);
    }

    /// For the list of clients.
    fn note_who_it_is(&self) {
        match self.session.is_authenticated() {
            true => self.welcome.authenticated(),
            false => self.welcome.client.heard(self.session.is_stepping()),
        }
        self.welcome.client.read_only.store(self.session.is_read_only(), Ordering::Relaxed);
    }

    /// Notes since when it holds something for want of a move of its own, and when that last got less: half a packet, either way;
    /// or calls, though whole, that are not answered, because it doesn't read what it is told, or others need the room.
    fn see_whether_it_moves(&mut self, has_room: bool) {
        let unanswered = match (has_room, self.paused) {
            (false, _) => self.inbound.held(),
            (true, Some(_)) => self.inbound.unanswered(),
            (true, None) => 0,
        };
        let missing = self.inbound.missing().unwrap_or(0) + unanswered + self.out.missing();
        self.stuck = Stuck::seen(self.stuck, missing);
    }

    /// Whether another call may come.
    fn may_read(&self) -> bool {
        let free = !self.last && !self.session.is_stepping();
        free && self.work.len() < self.shared.max_requests.load(Ordering::Relaxed).max(1)
    }

    /// When to look at the clock.
    fn deadline(&self) -> Option<Instant> {
        let waits = [
            self.session.deadline(),
            self.paused.map(|_| Instant::now() + PAUSE),
            self.stuck.map(|stuck| stuck.moved + LONGEST_STANDSTILL),
            self.half.map(|since| since + PATIENCE).filter(|late| *late > Instant::now()),
            self.is_loitering().then(|| self.since + LONGEST_ANONYMITY),
        ];
        waits.into_iter().flatten().min()
    }

    fn tick(&mut self) -> Option<Ending> {
        let now = Instant::now();
        if self.stuck.is_some_and(|stuck| now >= stuck.moved + LONGEST_STANDSTILL) {
            return Some("it stood still with a packet half way");
        }
        if self.is_loitering() && now >= self.since + LONGEST_ANONYMITY {
            return Some("it didn't authenticate");
        }
        if !self.out.is_empty() || !self.may_read() {
            self.session.deaf(now); // its pongs lie unread
            return None;
        }
        let action = self.session.tick(now);
        self.act(action).err()
    }

    /// Whether it has yet to authenticate, and nobody is being asked about it.
    fn is_loitering(&self) -> bool {
        !self.session.is_authenticated() && !self.session.is_asking()
    }

    /// The daemon stops: calls under way are answered, then it ends.
    async fn finish(&mut self) -> Ending {
        const ENDING: Ending = "the daemon stops";
        if self.session.is_stepping() {
            return ENDING; // a stranger's, and it may wait for others for long
        }
        if self.session.is_asking() {
            self.work.abort_all(); // nobody waits for a person; what has begun to write is waited for all the same
        }
        while let Some(done) = self.work.join_next().await {
            if let Ok(Done::Worked(reply)) = done {
                self.out.push(reply);
            }
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.out.send(&self.stream).is_ok() && !self.out.is_empty() {
            if tokio::time::timeout_at(until, self.stream.ready(Interest::WRITABLE)).await.is_err() {
                break;
            }
        }
        ENDING
    }
}

/// Waits for the socket. Whether the client will send no more.
async fn ready(stream: &Stream, interest: Option<Interest>) -> io::Result<bool> {
    match interest {
        Some(interest) => stream.ready(interest).await.map(|ready| ready.is_read_closed()),
        None => std::future::pending().await,
    }
}

/// Waits until the daemon stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    _ = stop.wait_for(|stop| *stop).await; // a sender that is gone stops it too
}

/// A page that a thread has when it first needs one.
type Place = LocalKey<RefCell<Option<Page>>>;

thread_local! {
    /// Where this thread reads packets. Nothing stays in it between two of them.
    static PAGE: RefCell<Option<Page>> = const { RefCell::new(None) };
    /// Where it reads records.
    static RECORDS: RefCell<Option<Page>> = const { RefCell::new(None) };
}

/// Packets answered before others have their turn.
const TURN: usize = 64;

/// How long a client waits for others to make room, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How long half a packet, or calls that can't be answered, may stand still.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(60);

/// How long a client may take to authenticate. Time that a person takes to answer polkit doesn't count.
const LONGEST_ANONYMITY: Duration = Duration::from_secs(60);
