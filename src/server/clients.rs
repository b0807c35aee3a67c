//! Who is connected to one of the daemon's two servers (secrets, administration), and how many may be.
//!
//! As in libvirt, a full server stops accepting, and newcomers wait in the socket's queue. Unlike there, some places are kept for
//! root and the daemon's own user, so that no other user can lock them out by connecting often; who finds only those
//! free is accepted and waits here. Those on the network who haven't authenticated have places apart from this host's users,
//! shared by address ([`Places`]), and such as have proved a certificate have their own. Leans on tokio for waiting. Refuses
//! to forget a client: whoever is on the list is connected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::flood::Flood;
use super::origin::Origin;
use super::places::{Loan, Place, Places, Terms};
use super::sojourn::Sojourn;
use crate::net::peer::Peer;

/// The clients of one server.
pub(super) struct Clients {
    inner: Mutex<Inner>,
    room: Notify,
    /// Places for such as haven't authenticated: on the network, with a certificate and without.
    certified: Arc<Places>,
    strangers: Arc<Places>,
    /// What the log hears of those for whom there is no place.
    pub(super) refusals: Flood,
    /// And of those who have had to give theirs to others.
    sent_away: Arc<Flood>,
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
    /// Newcomers who wait until the server isn't full any more, by their kind.
    waiting: [usize; 4],
    last_id: u64,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// In all.
    pub(super) clients: usize,
    /// Such as haven't authenticated yet, of this host; as many on the network with a certificate, and as many without; 0: as
    /// many as there may be in all.
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
    /// If it has yet to authenticate and is on the network.
    sojourn: Option<Sojourn>,
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
    /// Somebody on the network who hasn't, but has proved a certificate.
    Certified,
    /// Anybody else on the network.
    Stranger,
}

impl Kind {
    fn of(peer: &Peer, certified: bool, authenticated: bool) -> Self {
        match peer {
            _ if authenticated => Self::Known,
            Peer::Local(_) => Self::Local,
            Peer::Remote(_) if certified => Self::Certified,
            Peer::Remote(_) => Self::Stranger,
        }
    }
}

impl Comer {
    fn kind(&self) -> Kind {
        Kind::of(&self.peer, self.certified.is_some(), self.authenticated)
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
            waiting: [0; 4],
            last_id: 0,
        };
        let places = || {
            let (most, share) = shared(limits);
            let terms = Terms { most, share, waiting: MOST_WAITING, longest: Some(LONGEST_STAY) };
            Places::lending(terms, Loan { talk: LONGEST_TALK, reserve: 0 })
        };
        let (certified, strangers) = (places(), places());
        Self {
            inner: Mutex::new(inner),
            room: Notify::new(),
            certified,
            strangers,
            refusals: Flood::default(),
            sent_away: Arc::default(),
        }
    }

    /// Waits until another client of this kind may come. Those on the network are asked in, and wait here: so it is known that
    /// they do.
    pub(super) async fn room(&self, kind: Kind) {
        loop {
            let changed = self.room.notified();
            if self.inner().has_room(kind) {
                return;
            }
            changed.await;
        }
    }

    /// A client comes, if it needn't wait.
    pub(super) fn enter(self: &Arc<Self>, comer: &Comer, read_only: bool) -> Option<Welcome> {
        match self.places(comer.kind()) {
            None => self.admit(comer, read_only, &mut None),
            Some(_) => None, // it has its turn
        }
    }

    /// A client comes when there is a place for it: where it has to authenticate, taken from another that stands still; and
    /// none that is kept for others. `None`: too many wait.
    pub(super) async fn seat(self: &Arc<Self>, comer: &Comer, read_only: bool) -> Option<Welcome> {
        let mut place = match self.places(comer.kind()) {
            Some(places) => Some(places.take(Origin::of(&comer.peer)).await?),
            None => None,
        };
        let mut waiting = None;
        loop {
            let changed = self.room.notified();
            if let Some(welcome) = self.admit(comer, read_only, &mut place) {
                return Some(welcome);
            }
            if waiting.is_none() {
                waiting = Some(self.wait(comer.kind())?);
                place.iter().for_each(Place::waits_for_us);
            }
            changed.await;
        }
    }

    /// Where such as these wait for each other.
    fn places(&self, kind: Kind) -> Option<&Arc<Places>> {
        match kind {
            Kind::Known | Kind::Local => None,
            Kind::Certified => Some(&self.certified),
            Kind::Stranger => Some(&self.strangers),
        }
    }

    fn wait(self: &Arc<Self>, kind: Kind) -> Option<Waiting> {
        let waiting = &mut self.inner().waiting[kind as usize];
        if *waiting >= MOST_WAITING {
            return None;
        }
        *waiting += 1;
        Some(Waiting { clients: Arc::clone(self), kind })
    }

    /// Puts a client on the list, if there is room for it.
    fn admit(self: &Arc<Self>, comer: &Comer, read_only: bool, place: &mut Option<Place>) -> Option<Welcome> {
        let mut inner = self.inner();
        if !is_trusted(&comer.peer) && !inner.has_room_for_others(comer.kind()) {
            return None;
        }
        let sojourn = place.take().map(|place| Sojourn::new(place, &self.sent_away));
        inner.last_id += 1;
        let client = Arc::new(Client {
            id: inner.last_id,
            since: SystemTime::now(),
            peer: comer.peer,
            way: comer.way,
            certified: comer.certified.clone(),
            user: OnceLock::new(),
            read_only: AtomicBool::new(read_only),
            authenticated: AtomicBool::new(comer.authenticated),
            sojourn,
            dismissed: Notify::new(),
        });
        inner.connected.insert(client.id, Arc::clone(&client));
        inner.count(&client, |number| number + 1);
        Some(Welcome { clients: Arc::clone(self), client })
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
        let (most, share) = shared(limits);
        [&self.certified, &self.strangers].into_iter().for_each(|places| places.set(most, share));
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
            Kind::Known | Kind::Certified | Kind::Stranger => true,
            Kind::Local => self.anonymous_others < anonymous - reserve(anonymous),
        };
        self.has_room(kind) && self.others < clients - reserve(clients) && among_its_kind
    }

    /// Counts a client, or counts it out.
    fn count(&mut self, client: &Client, step: fn(usize) -> usize) {
        let (kind, other) = (client.kind(), !is_trusted(&client.peer));
        let numbers = [
            (other, &mut self.others),
            (kind == Kind::Local, &mut self.anonymous),
            (kind == Kind::Local && other, &mut self.anonymous_others),
            (matches!(kind, Kind::Certified | Kind::Stranger), &mut self.strangers),
        ];
        numbers.into_iter().filter(|(counts, _)| *counts).for_each(|(_, number)| *number = step(*number));
    }
}

/// A newcomer that waits.
struct Waiting {
    clients: Arc<Clients>,
    kind: Kind,
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
        self.sojourn.iter().for_each(|sojourn| sojourn.heard(at_work));
    }

    /// It needs its place no more.
    fn settle(&self) {
        self.sojourn.iter().for_each(Sojourn::settle);
    }

    fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Relaxed)
    }

    fn kind(&self) -> Kind {
        Kind::of(&self.peer, self.certified.is_some(), self.is_authenticated())
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

    /// Waits until it is asked to, or has to give way.
    pub(super) async fn dismissed(&self) {
        let has_to_go = async {
            match &self.sojourn {
                Some(sojourn) => sojourn.has_to_go(self.id, &self.peer).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.dismissed.notified() => {}
            () = has_to_go => {}
        }
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
        if self.client.is_authenticated() {
            return; // with every packet
        }
        let mut inner = self.clients.inner();
        inner.count(&self.client, |number| number - 1);
        self.client.authenticated.store(true, Ordering::Relaxed);
        inner.count(&self.client, |number| number + 1);
        drop(inner);
        self.client.settle();
        self.clients.room.notify_waiters();
    }
}

impl Drop for Welcome {
    fn drop(&mut self) {
        let mut inner = self.clients.inner();
        inner.connected.remove(&self.client.id);
        inner.count(&self.client, |number| number - 1);
        drop(inner);
        self.client.settle();
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

/// How many of a kind may be here on the network that haven't authenticated, and how many of them from one address when others
/// want to come.
fn shared(limits: Limits) -> (usize, usize) {
    let most = if limits.anonymous == 0 { usize::MAX } else { limits.anonymous };
    (most, (most / 4).max(1))
}

/// The most newcomers of a kind that wait here rather than in a socket's queue.
const MOST_WAITING: usize = 256;

/// How long somebody may take to authenticate while others wait who hold no more.
const LONGEST_TALK: Duration = Duration::from_secs(5);

/// And while anybody waits.
const LONGEST_STAY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn clients(clients: usize, anonymous: usize) -> Arc<Clients> {
        Arc::new(Clients::new(Limits { clients, anonymous }))
    }

    fn local(uid: u32, authenticated: bool) -> Comer {
        Comer { peer: Peer::new(Some(1), uid, 0), way: Way::Unix, certified: None, authenticated }
    }

    fn from_afar(address: &str, certified: bool) -> Comer {
        let peer = Peer::Remote((address.parse::<std::net::IpAddr>().unwrap(), 7).into());
        let certified = certified.then(|| "CN=somebody".to_owned());
        Comer { peer, way: Way::Tcp, certified, authenticated: false }
    }

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
    }

    /// Whoever can come at once.
    async fn come(clients: &Arc<Clients>, comer: &Comer) -> Option<Welcome> {
        timeout(Duration::from_millis(10), clients.seat(comer, false)).await.ok().flatten()
    }

    async fn is_dismissed(welcome: &Welcome) -> bool {
        timeout(Duration::from_millis(1), welcome.client.dismissed()).await.is_ok()
    }

    #[test]
    fn a_quarter_of_few_places_is_kept_from_other_users() {
        let clients = clients(8, 4);
        let (us, other) = (|known| local(own(), known), |known| local(own() + 1, known));
        let come = |comer: Comer| clients.enter(&comer, false);
        let mut here: Vec<_> = (0..3).map(|_| come(other(false)).unwrap()).collect();
        assert!(come(other(false)).is_none() && come(us(false)).is_some());
        assert!(come(other(true)).is_some(), "who needn't prove anything isn't one of them");
        here.iter().for_each(Welcome::authenticated);
        here.extend((0..3).map(|_| come(other(true)).unwrap()));
        assert!(come(other(false)).is_none() && come(us(false)).is_some());
        assert_eq!(clients.count(), (6, 0));
        here.pop();
        assert!(come(other(false)).is_some());
        here.clear();
        assert_eq!(clients.count(), (0, 0));
        here.extend((0..7).map(|_| come(us(true)).unwrap()));
        here.push(come(other(false)).expect("what isn't kept is for those who come first"));
        assert!(come(other(false)).is_none());
    }

    #[test]
    fn nobody_on_the_network_has_a_place_kept() {
        for address in ["127.0.0.1:7", "[::1]:7"] {
            assert!(!is_trusted(&Peer::Remote(address.parse().unwrap())), "{address}");
        }
    }

    #[test]
    fn not_everybody_waits_here() {
        run(async {
            let clients = clients(1, 0);
            let _full = clients.enter(&local(own(), true), false).unwrap();
            let wait = |comer: Comer| {
                let clients = Arc::clone(&clients);
                tokio::spawn(async move { clients.seat(&comer, false).await.is_some() })
            };
            let mut strangers: Vec<_> =
                (0..=MOST_WAITING).map(|_| wait(from_afar("192.0.2.1", false))).collect();
            let others =
                [from_afar("192.0.2.1", true), local(own() + 1, false), local(own() + 1, true)].map(wait);
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(others.iter().all(|it| !it.is_finished()), "strangers stand in nobody's way");
            assert!(!strangers.pop().unwrap().await.unwrap());
            assert!(strangers.iter().all(|it| !it.is_finished()));
            assert_eq!(clients.inner().waiting, [1, 1, 1, MOST_WAITING]);
            strangers.pop().unwrap().abort();
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(clients.inner().waiting, [1, 1, 1, MOST_WAITING - 1]);
        });
    }

    #[test]
    fn strangers_take_no_place_from_others() {
        run(async {
            let clients = clients(100, 4);
            let mut strangers = Vec::new();
            for address in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:1::1"] {
                strangers.push(come(&clients, &from_afar(address, false)).await.unwrap());
            }
            assert!(come(&clients, &from_afar("192.0.2.3", false)).await.is_none());
            let certified =
                come(&clients, &from_afar("192.0.2.1", true)).await.expect("they are another kind");
            let user = local(own() + 1, false);
            let users: Vec<_> = (0..3).map(|_| clients.enter(&user, false).unwrap()).collect();
            assert!(clients.enter(&user, false).is_none(), "those have their own limit");
            assert_eq!(clients.count(), (8, 8));
            strangers[0].authenticated();
            assert!(come(&clients, &from_afar("192.0.2.3", false)).await.is_some());
            drop((strangers, users, certified));
            assert_eq!(clients.count(), (0, 0));
        });
    }

    #[test]
    fn one_address_has_what_others_leave_and_its_crowd_a_line_that_is_open_to_others() {
        run(async {
            let clients = clients(5000, 20);
            let crowd = from_afar("192.0.2.1", false);
            let mut here = Vec::new();
            while let Some(welcome) = come(&clients, &crowd).await {
                here.push(welcome);
            }
            assert_eq!(here.len(), 20);
            let wait = |_| {
                let (clients, crowd) = (Arc::clone(&clients), crowd.clone());
                tokio::spawn(async move { clients.seat(&crowd, false).await })
            };
            let waits: Vec<_> = (0..2 * MOST_WAITING).map(wait).collect();
            let finished = async |number| {
                while waits.iter().filter(|it| it.is_finished()).count() < number {
                    tokio::task::yield_now().await;
                }
            };
            finished(MOST_WAITING).await;
            let other = come(&clients, &from_afar("192.0.2.2", false)).await;
            assert!(other.is_some(), "at once");
            clients.set_limits(Limits { clients: 5000, anonymous: 40 });
            finished(MOST_WAITING + 20).await;
            assert_eq!(clients.count(), (41, 41), "and one who has to go");
        });
    }

    #[test]
    fn a_stranger_that_stands_still_gives_way_when_others_wait_and_only_then() {
        run(async {
            let clients = clients(100, 3);
            let mut here = Vec::new();
            for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
                here.push(come(&clients, &from_afar(address, false)).await.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(1100)).await;
            for welcome in &here {
                assert!(!is_dismissed(welcome).await, "nobody waits");
            }
            here[0].client.heard(false);
            here[2].client.heard(true);
            let next = come(&clients, &from_afar("192.0.2.4", false)).await;
            assert!(next.is_some() && is_dismissed(&here[1]).await, "one that is silent");
            assert!(!is_dismissed(&here[0]).await && !is_dismissed(&here[2]).await, "one is enough for one");
            assert!(come(&clients, &from_afar("192.0.2.5", false)).await.is_none(), "no other is as yet");

            // Who has authenticated gives way no more.
            here[2].client.heard(false);
            tokio::time::sleep(Duration::from_millis(1100)).await;
            here[0].authenticated();
            here[0].client.heard(false);
            assert!(come(&clients, &from_afar("192.0.2.6", false)).await.is_some());
            assert!(!is_dismissed(&here[0]).await);
        });
    }
}
