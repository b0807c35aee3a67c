//! Who is connected to one of the daemon's two servers (secrets, administration), and how many may be.
//!
//! As in libvirt, a full server stops accepting, and newcomers wait in the socket's queue; it never turns one away.
//! Leans on tokio for waiting. Refuses to forget a client: whoever is on the list is connected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    pub(super) read_only: AtomicBool,
    authenticated: AtomicBool,
    dismissed: Notify,
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Self {
        let inner = Inner { limits, connected: BTreeMap::new(), anonymous: 0, last_id: 0 };
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

    /// A client has come.
    pub(super) fn welcome(self: &Arc<Self>, peer: Peer, authenticated: bool, read_only: bool) -> Welcome {
        let mut inner = self.inner();
        inner.last_id += 1;
        let client = Arc::new(Client {
            id: inner.last_id,
            since: SystemTime::now(),
            peer,
            read_only: AtomicBool::new(read_only),
            authenticated: AtomicBool::new(authenticated),
            dismissed: Notify::new(),
        });
        inner.connected.insert(client.id, Arc::clone(&client));
        inner.anonymous += usize::from(!authenticated);
        Welcome { clients: Arc::clone(self), client }
    }

    /// How many there are: in all, and not yet authenticated.
    pub(super) fn count(&self) -> (usize, usize) {
        let inner = self.inner();
        (inner.connected.len(), inner.anonymous)
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
}

impl Client {
    /// Asks the connection to end.
    pub(super) fn dismiss(&self) {
        self.dismissed.notify_one();
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
        if !self.client.authenticated.swap(true, Ordering::Relaxed) {
            self.clients.inner().anonymous -= 1;
            self.clients.room.notify_waiters();
        }
    }
}

impl Drop for Welcome {
    fn drop(&mut self) {
        let mut inner = self.clients.inner();
        inner.connected.remove(&self.client.id);
        inner.anonymous -= usize::from(!self.client.authenticated.load(Ordering::Relaxed));
        drop(inner);
        self.clients.room.notify_waiters();
    }
}
