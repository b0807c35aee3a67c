//! Who is connected to one of the daemon's two servers (secrets, administration), and how many may be.
//!
//! As in libvirt, a full server stops accepting, and newcomers wait in the socket's queue. Unlike there, some places are kept for
//! root and the daemon's own user, so that no other user can lock them out by connecting often; who finds only those
//! free is accepted and waits here. Strangers on the network are counted apart from this host's users, and one that stands
//! still gives way when others wait. Leans on tokio for waiting. Refuses to forget a client: whoever is on the list is connected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::net::peer::Peer;

/// The clients of one server.
pub(super) struct Clients {
    inner: Mutex<Inner>,
    room: Notify,
}

struct Inner {
    limits: Limits,
    connected: BTreeMap<u64, Arc<Client>>,
    /// Those of them who are neither root nor the daemon's own user.
    others: usize,
    /// Of this host, and not yet authenticated.
    anonymous: usize,
    anonymous_others: usize,
    /// On the network, and not yet authenticated.
    strangers: usize,
    /// Newcomers who wait here, by their kind.
    waiting: [usize; 3],
    last_id: u64,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// In all.
    pub(super) clients: usize,
    /// Such as haven't authenticated yet, of this host, and as many on the network; 0: as many as there may be in all.
    pub(super) anonymous: usize,
}

/// One client, as administration sees it.
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) since: SystemTime,
    pub(super) peer: Peer,
    pub(super) way: Way,
    /// The name in its certificate, where one was proved.
    pub(super) certified: Option<String>,
    /// Its name, as SASL has proved it.
    user: OnceLock<String>,
    pub(super) read_only: AtomicBool,
    authenticated: AtomicBool,
    /// When it last said something, while it was a stranger.
    heard: Mutex<Instant>,
    came: Instant,
    dismissed: Notify,
}

/// How a client reaches the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Unix,
    Tcp,
    Tls,
}

/// Somebody who wants to become a client.
#[derive(Debug, Clone)]
pub(super) struct Comer {
    pub(super) peer: Peer,
    pub(super) way: Way,
    /// The name in its certificate, if it has proved one.
    pub(super) certified: Option<String>,
    /// It has proved who it is, or needn't.
    pub(super) authenticated: bool,
}

/// Whom a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody who has authenticated.
    Known,
    /// A user of this host who hasn't yet.
    Local,
    /// Somebody on the network who hasn't.
    Stranger,
}

impl Kind {
    fn of(peer: &Peer, authenticated: bool) -> Self {
        match peer {
            _ if authenticated => Self::Known,
            Peer::Local(_) => Self::Local,
            Peer::Remote(_) => Self::Stranger,
        }
    }
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Self {
        let inner = Inner {
            limits,
            connected: BTreeMap::new(),
            others: 0,
            anonymous: 0,
            anonymous_others: 0,
            strangers: 0,
            waiting: [0; 3],
            last_id: 0,
        };
        Self { inner: Mutex::new(inner), room: Notify::new() }
    }

    /// Waits until another client of this kind may come. Strangers are asked in, and wait here: so it is known that they do.
    pub(super) async fn room(&self, kind: Kind) {
        loop {
            let changed = self.room.notified();
            if self.inner().has_room(kind) {
                return;
            }
            changed.await;
        }
    }

    /// Whether this newcomer may have one of the places that are free.
    pub(super) fn has_room_for(&self, comer: &Comer) -> bool {
        is_trusted(&comer.peer)
            || self.inner().has_room_for_others(Kind::of(&comer.peer, comer.authenticated))
    }

    /// Lets a newcomer wait here for whom there is no place; none if too many of its kind do.
    pub(super) fn queue(self: &Arc<Self>, comer: &Comer) -> Option<Waiting> {
        let kind = Kind::of(&comer.peer, comer.authenticated);
        let waiting = &mut self.inner().waiting[kind as usize];
        if *waiting >= MOST_WAITING {
            return None;
        }
        *waiting += 1;
        Some(Waiting { clients: Arc::clone(self), kind })
    }

    /// A client has come.
    pub(super) fn welcome(self: &Arc<Self>, comer: Comer, read_only: bool) -> Welcome {
        let Comer { peer, way, certified, authenticated } = comer;
        let mut inner = self.inner();
        inner.last_id += 1;
        let client = Arc::new(Client {
            id: inner.last_id,
            since: SystemTime::now(),
            peer,
            way,
            certified,
            user: OnceLock::new(),
            read_only: AtomicBool::new(read_only),
            authenticated: AtomicBool::new(authenticated),
            heard: Mutex::new(Instant::now()),
            came: Instant::now(),
            dismissed: Notify::new(),
        });
        inner.connected.insert(client.id, Arc::clone(&client));
        inner.count(&client, |number| number + 1);
        Welcome { clients: Arc::clone(self), client }
    }

    /// How many there are: in all, and not yet authenticated.
    pub(super) fn count(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.connected.len(), inner.anonymous + inner.strangers)
    }

    /// The id of whoever came last.
    pub(super) fn last_id(&self) -> u64 {
        self.inner().last_id
    }

    /// All of them, in the order in which they came.
    pub(super) fn list(&self) -> Vec<Arc<Client>> {
        self.inner().connected.values().cloned().collect()
    }

    /// The one with this id.
    pub(super) fn find(&self, id: u64) -> Option<Arc<Client>> {
        self.inner().connected.get(&id).cloned()
    }

    pub(super) fn limits(&self) -> Limits {
        self.inner().limits
    }

    /// Changes the limits; nobody who is there has to leave.
    pub(super) fn set_limits(&self, limits: Limits) {
        self.inner().limits = limits;
        self.room.notify_waiters();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn has_room(&self, kind: Kind) -> bool {
        let Limits { clients, anonymous } = self.limits;
        self.connected.len() < clients
            && (anonymous == 0 || kind != Kind::Local || self.anonymous < anonymous)
    }

    fn has_room_for_others(&self, kind: Kind) -> bool {
        let Limits { clients, anonymous } = self.limits;
        let among_its_kind = match kind {
            _ if anonymous == 0 => true,
            Kind::Known => true,
            Kind::Local => self.anonymous_others < anonymous - reserve(anonymous),
            Kind::Stranger => self.strangers < anonymous,
        };
        self.has_room(kind) && self.others < clients - reserve(clients) && among_its_kind
    }

    /// The stranger who should give way next, and when.
    fn idlest(&self) -> Option<(Instant, &Arc<Client>)> {
        let strangers = self.connected.values().filter(|client| client.kind() == Kind::Stranger);
        strangers.map(|client| (client.gives_way(), client)).min_by_key(|(when, _)| *when)
    }

    /// Counts a client, or counts it out.
    fn count(&mut self, client: &Client, step: fn(usize) -> usize) {
        let (kind, other) = (client.kind(), !is_trusted(&client.peer));
        let numbers = [
            (other, &mut self.others),
            (kind == Kind::Local, &mut self.anonymous),
            (kind == Kind::Local && other, &mut self.anonymous_others),
            (kind == Kind::Stranger, &mut self.strangers),
        ];
        numbers.into_iter().filter(|(counts, _)| *counts).for_each(|(_, number)| *number = step(*number));
    }
}

/// A newcomer that waits.
pub(super) struct Waiting {
    clients: Arc<Clients>,
    kind: Kind,
}

impl Waiting {
    /// Waits until there is a place that isn't kept for others. A stranger takes it from another that stands still.
    pub(super) async fn room(&self) {
        let mut asked = None;
        loop {
            let changed = self.clients.room.notified();
            let again = {
                let inner = self.clients.inner();
                if inner.has_room_for_others(self.kind) {
                    return;
                }
                // One is enough. It may be that somebody else has got its place.
                let asks =
                    self.kind == Kind::Stranger && asked.is_none_or(|id| !inner.connected.contains_key(&id));
                match inner.idlest().filter(|_| asks) {
                    Some((when, client)) if when <= Instant::now() => {
                        tracing::info!(
                            "closing client {}: it hasn't authenticated, and others wait",
                            client.id
                        );
                        client.dismiss();
                        asked = Some(client.id);
                        None
                    }
                    idlest => idlest.map(|(when, _)| when),
                }
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.clients.inner().waiting[self.kind as usize] -= 1;
    }
}

impl Client {
    /// Asks the connection to end.
    pub(super) fn dismiss(&self) {
        self.dismissed.notify_one();
    }

    /// It has said something. `at_work`: it is for us to answer, and it may take long.
    pub(super) fn heard(&self, at_work: bool) {
        let more = if at_work { LONGEST_TALK } else { Duration::ZERO };
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + more;
    }

    /// When a stranger gives way to others: soon when it says nothing, and in the end even if it does.
    fn gives_way(&self) -> Instant {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        (heard + STANDSTILL).min(self.came + LONGEST_TALK)
    }

    fn kind(&self) -> Kind {
        Kind::of(&self.peer, self.authenticated.load(Ordering::Relaxed))
    }

    /// It has proved to be this user.
    #[cfg(feature = "sasl")]
    pub(super) fn is(&self, user: String) {
        _ = self.user.set(user); // once
    }

    /// The user that it has proved to be.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.get().map(String::as_str)
    }

    /// Waits until it is asked to.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }
}

/// A client's place on the list; it leaves it on drop.
pub(super) struct Welcome {
    clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
}

impl Welcome {
    /// It has authenticated.
    pub(super) fn authenticated(&self) {
        if self.client.authenticated.load(Ordering::Relaxed) {
            return; // with every packet
        }
        let mut inner = self.clients.inner();
        inner.count(&self.client, |number| number - 1);
        self.client.authenticated.store(true, Ordering::Relaxed);
        inner.count(&self.client, |number| number + 1);
        drop(inner);
        self.clients.room.notify_waiters();
    }
}

impl Drop for Welcome {
    fn drop(&mut self) {
        let mut inner = self.clients.inner();
        inner.connected.remove(&self.client.id);
        inner.count(&self.client, |number| number - 1);
        drop(inner);
        self.clients.room.notify_waiters();
    }
}

/// For whom places are kept: root, under whom libvirt's other daemons run, and the daemon's own user. Nobody on the network.
pub(super) fn is_trusted(peer: &Peer) -> bool {
    let own = rustix::process::geteuid().as_raw();
    peer.process().is_some_and(|process| process.uid == 0 || process.uid == own)
}

/// How many of so many places are kept.
fn reserve(places: usize) -> usize {
    (places / 4).min(64)
}

/// The most newcomers of a kind that wait here rather than in a socket's queue.
const MOST_WAITING: usize = 256;

/// How long a stranger may say nothing while others wait.
const STANDSTILL: Duration = Duration::from_secs(1);

/// How long it may talk then.
const LONGEST_TALK: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_few_places_is_kept_from_other_users() {
        let clients = Arc::new(Clients::new(Limits { clients: 8, anonymous: 4 }));
        let uid = rustix::process::geteuid().as_raw();
        let (own, other) = (Peer::new(Some(1), uid, 0), Peer::new(Some(2), uid + 1, 0));
        let comer = |peer: &Peer, authenticated| Comer {
            peer: *peer,
            way: Way::Unix,
            certified: None,
            authenticated,
        };
        let come = |peer: &Peer, authenticated| clients.welcome(comer(peer, authenticated), false);
        let has_room_for = |peer: &Peer| clients.has_room_for(&comer(peer, false));
        let mut here: Vec<Welcome> = (0..3).map(|_| come(&other, false)).collect();
        assert!(!has_room_for(&other) && has_room_for(&own));
        assert!(clients.has_room_for(&comer(&other, true)), "who needn't prove anything isn't one of them");
        here.iter().for_each(Welcome::authenticated);
        here.extend((0..3).map(|_| come(&other, true)));
        assert!(!has_room_for(&other) && has_room_for(&own));
        assert_eq!(clients.count(), (6, 0));
        here.pop();
        assert!(has_room_for(&other));
        here.clear();
        assert_eq!(clients.count(), (0, 0));
        here.extend((0..7).map(|_| come(&own, true)));
        assert!(has_room_for(&other), "what isn't kept is for those who come first");
        here.push(come(&own, true));
        assert!(!has_room_for(&other));
    }

    #[test]
    fn nobody_on_the_network_has_a_place_kept() {
        for address in ["127.0.0.1:7", "[::1]:7"] {
            assert!(!is_trusted(&Peer::Remote(address.parse().unwrap())), "{address}");
        }
    }

    #[test]
    fn not_everybody_waits_here() {
        let clients = Arc::new(Clients::new(Limits { clients: 1, anonymous: 0 }));
        let stranger = from_afar(false);
        let waiting: Vec<_> = std::iter::from_fn(|| clients.queue(&stranger)).collect();
        assert_eq!(waiting.len(), MOST_WAITING);
        let peer = Peer::new(Some(2), rustix::process::geteuid().as_raw() + 1, 0);
        for other in [from_afar(true), Comer { peer, ..from_afar(false) }] {
            assert!(clients.queue(&other).is_some(), "strangers stand in nobody's way");
        }
        drop(waiting);
        assert!(clients.queue(&stranger).is_some());
    }

    fn from_afar(authenticated: bool) -> Comer {
        let peer = Peer::Remote("192.0.2.1:7".parse().unwrap());
        Comer { peer, way: Way::Tcp, certified: None, authenticated }
    }

    #[test]
    fn strangers_take_no_place_from_users_of_this_host_or_from_those_who_are_known() {
        let clients = Arc::new(Clients::new(Limits { clients: 100, anonymous: 4 }));
        let strangers: Vec<_> = (0..4).map(|_| clients.welcome(from_afar(false), false)).collect();
        assert!(!clients.has_room_for(&from_afar(false)) && clients.has_room_for(&from_afar(true)));
        let peer = Peer::new(Some(2), rustix::process::geteuid().as_raw() + 1, 0);
        let user = Comer { peer, way: Way::Unix, ..from_afar(false) };
        assert!(clients.has_room_for(&user) && clients.inner().has_room(Kind::Local));
        let users: Vec<_> = (0..3).map(|_| clients.welcome(user.clone(), false)).collect();
        assert!(!clients.has_room_for(&user), "those have their own limit");
        assert_eq!(clients.count(), (7, 7));
        strangers[0].authenticated();
        assert!(clients.has_room_for(&from_afar(false)));
        drop((strangers, users));
        assert_eq!(clients.count(), (0, 0));
    }

    #[test]
    fn a_stranger_that_stands_still_gives_way_when_others_wait_and_only_then() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let clients = Arc::new(Clients::new(Limits { clients: 100, anonymous: 3 }));
            let here: Vec<_> = (0..3).map(|_| clients.welcome(from_afar(false), false)).collect();
            let heard = |who: usize, ago| {
                *here[who].client.heard.lock().unwrap() = Instant::now() - Duration::from_millis(ago);
            };
            [700, 9000, 3000].into_iter().enumerate().for_each(|(who, ago)| heard(who, ago));
            let is_dismissed = async |who: usize| {
                tokio::time::timeout(Duration::from_millis(1), here[who].client.dismissed()).await.is_ok()
            };
            for who in 0..3 {
                assert!(!is_dismissed(who).await, "nobody waits");
            }
            // Known ones and users of this host don't wait for them.
            let waiting = clients.queue(&from_afar(false)).unwrap();
            let mut room = Box::pin(waiting.room());
            let soon = Duration::from_millis(10);
            assert!(tokio::time::timeout(soon, &mut room).await.is_err(), "no place is free as yet");
            assert_eq!(
                [is_dismissed(0).await, is_dismissed(1).await, is_dismissed(2).await],
                [false, true, false]
            );
            assert!(tokio::time::timeout(soon, &mut room).await.is_err());
            assert!(!is_dismissed(2).await, "one is enough for one");
            here[1].authenticated();
            assert!(tokio::time::timeout(soon, &mut room).await.is_ok());

            // Who talks has longer, and not for ever.
            let talks = clients.welcome(from_afar(false), false);
            let since = |ago| talks.client.came - Duration::from_secs(ago);
            assert!(talks.client.gives_way() > Instant::now());
            let mut other = Client { came: since(5), ..stranger() };
            other.heard(false);
            assert!(other.gives_way() <= Instant::now());
            other.came = since(3);
            assert!(other.gives_way() > Instant::now());
        });
    }

    fn stranger() -> Client {
        Client {
            id: 0,
            since: SystemTime::now(),
            peer: from_afar(false).peer,
            way: Way::Tcp,
            certified: None,
            user: OnceLock::new(),
            read_only: AtomicBool::new(false),
            authenticated: AtomicBool::new(false),
            heard: Mutex::new(Instant::now()),
            came: Instant::now(),
            dismissed: Notify::new(),
        }
    }
}
