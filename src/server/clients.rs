//! Who is connected to one of the daemon's two servers (secrets, administration), and how many may be.
//!
//! As in libvirt, a full server stops accepting, and newcomers wait in the socket's queue. Unlike there, some places are kept for
//! root and the daemon's own user, so that no other user can lock them out by connecting often; who finds only those
//! free is accepted and waits here. Leans on tokio for waiting. Refuses to forget a client: whoever is on the list is connected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tokio::sync::Notify;

use crate::net::peer::Peer;

/// The clients of one server.
pub(super) struct Clients {
    inner: Mutex<Inner>,
    room: Notify,
}

struct Inner {
    limits: Limits,
    connected: BTreeMap<u64, Arc<Client>>,
    anonymous: usize,
    /// Those of them who are neither root nor the daemon's own user.
    others: usize,
    anonymous_others: usize,
    waiting: usize,
    last_id: u64,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// In all.
    pub(super) clients: usize,
    /// Such as haven't authenticated yet; 0: as many as there may be in all.
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
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Self {
        let inner = Inner {
            limits,
            connected: BTreeMap::new(),
            anonymous: 0,
            others: 0,
            anonymous_others: 0,
            waiting: 0,
            last_id: 0,
        };
        Self { inner: Mutex::new(inner), room: Notify::new() }
    }

    /// Waits until another client may come.
    pub(super) async fn room(&self) {
        loop {
            let changed = self.room.notified();
            if self.inner().has_room() {
                return;
            }
            changed.await;
        }
    }

    /// Whether this newcomer may have one of the places that are free.
    pub(super) fn has_room_for(&self, peer: &Peer) -> bool {
        is_trusted(peer) || self.inner().has_room_for_others()
    }

    /// Lets a newcomer wait here for whom there is no place; none if too many do.
    pub(super) fn queue(self: &Arc<Self>) -> Option<Waiting> {
        let mut inner = self.inner();
        if inner.waiting >= MOST_WAITING {
            return None;
        }
        inner.waiting += 1;
        Some(Waiting(Arc::clone(self)))
    }

    /// A client has come.
    pub(super) fn welcome(self: &Arc<Self>, comer: Comer, authenticated: bool, read_only: bool) -> Welcome {
        let Comer { peer, way, certified } = comer;
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
            dismissed: Notify::new(),
        });
        inner.connected.insert(client.id, Arc::clone(&client));
        inner.count(&client, |number| number + 1);
        Welcome { clients: Arc::clone(self), client }
    }

    /// How many there are: in all, and not yet authenticated.
    pub(super) fn count(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.connected.len(), inner.anonymous)
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
    fn has_room(&self) -> bool {
        let Limits { clients, anonymous } = self.limits;
        self.connected.len() < clients && (anonymous == 0 || self.anonymous < anonymous)
    }

    fn has_room_for_others(&self) -> bool {
        let Limits { clients, anonymous } = self.limits;
        self.has_room()
            && self.others < clients - reserve(clients)
            && (anonymous == 0 || self.anonymous_others < anonymous - reserve(anonymous))
    }

    /// Counts a client, or counts it out.
    fn count(&mut self, client: &Client, step: fn(usize) -> usize) {
        let (anonymous, other) = (!client.authenticated.load(Ordering::Relaxed), !is_trusted(&client.peer));
        let numbers = [
            (anonymous, &mut self.anonymous),
            (other, &mut self.others),
            (anonymous && other, &mut self.anonymous_others),
        ];
        numbers.into_iter().filter(|(counts, _)| *counts).for_each(|(_, number)| *number = step(*number));
    }
}

/// A newcomer that waits.
pub(super) struct Waiting(Arc<Clients>);

impl Waiting {
    /// Waits until there is a place that isn't kept for others.
    pub(super) async fn room(&self) {
        loop {
            let changed = self.0.room.notified();
            if self.0.inner().has_room_for_others() {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.inner().waiting -= 1;
    }
}

impl Client {
    /// Asks the connection to end.
    pub(super) fn dismiss(&self) {
        self.dismissed.notify_one();
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

/// The most newcomers that wait here rather than in a socket's queue.
const MOST_WAITING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_few_places_is_kept_from_other_users() {
        let clients = Arc::new(Clients::new(Limits { clients: 8, anonymous: 4 }));
        let uid = rustix::process::geteuid().as_raw();
        let (own, other) = (Peer::new(Some(1), uid, 0), Peer::new(Some(2), uid + 1, 0));
        let come = |&peer: &Peer, authenticated| {
            clients.welcome(Comer { peer, way: Way::Unix, certified: None }, authenticated, false)
        };
        let mut here: Vec<Welcome> = (0..3).map(|_| come(&other, false)).collect();
        assert!(!clients.has_room_for(&other) && clients.has_room_for(&own));
        here.iter().for_each(Welcome::authenticated);
        here.extend((0..3).map(|_| come(&other, true)));
        assert!(!clients.has_room_for(&other) && clients.has_room_for(&own));
        assert_eq!(clients.count(), (6, 0));
        here.pop();
        assert!(clients.has_room_for(&other));
        here.clear();
        assert_eq!(clients.count(), (0, 0));
        here.extend((0..7).map(|_| come(&own, true)));
        assert!(clients.has_room_for(&other), "what isn't kept is for those who come first");
        here.push(come(&own, true));
        assert!(!clients.has_room_for(&other));
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
        let waiting: Vec<_> = std::iter::from_fn(|| clients.queue()).collect();
        assert_eq!(waiting.len(), MOST_WAITING);
        drop(waiting);
        assert!(clients.queue().is_some());
    }
}
