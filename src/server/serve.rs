//! The daemon at work: it accepts clients, answers signals, and ends when it is time.
//!
//! Leans on `connection` for each client. Refuses to accept more clients than its limits, and to end before the calls
//! under way are answered.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::sleep;

use super::admin;
use super::calls::{Announcement, Calls, Secrets};
use super::clients::{Clients, Comer, Kind, Limits, Way, Welcome, is_trusted};
use super::connection::{Connection, Shared, stopped};
#[cfg(feature = "sasl")]
use super::flood::Flood;
use super::keepalive::Keepalive;
use super::listen::{Listening, Role};
use super::log::Log;
use super::process::Notice;
use super::rotation::Rotator;
#[cfg(feature = "sasl")]
use super::session::Sasl;
use super::session::{Method, Service, Session};
use super::settings::Auth;
#[cfg(feature = "sasl")]
use super::steps::Negotiations;
use super::stream::{Door, Stream};
use super::tls::Tls;
#[cfg(feature = "sasl")]
use crate::net::around::Around;
use crate::net::layer::Layer;

/// All that the daemon's connections share.
pub(super) struct Host {
    pub(super) secrets: Arc<Secrets>,
    /// What serves secrets.
    pub(super) main: Server,
    /// What serves administration.
    pub(super) admin: Server,
    pub(super) log: Log,
    /// Rotates in the background.
    pub(super) rotation: Rotator,
    /// Seconds without clients after which the daemon ends; 0: never.
    pub(super) timeout: AtomicU32,
    pub(super) stop: watch::Sender<bool>,
    /// How clients prove who they are.
    pub(super) auths: Auths,
    /// If it is served.
    pub(super) tls: Option<Arc<Tls>>,
}

/// How clients prove who they are, by the socket.
pub(super) struct Auths {
    pub(super) main: Auth,
    pub(super) read_only: Auth,
    pub(super) tls: Auth,
    pub(super) tcp: Auth,
    /// Whether TLS asks clients for certificates.
    pub(super) verifies: bool,
    /// Patterns of the users whom SASL lets in; `None`: all.
    #[cfg(feature = "sasl")]
    pub(super) users: Option<Arc<[String]>>,
    /// What SASL's encryption must be worth where nothing else encrypts.
    #[cfg(feature = "sasl")]
    pub(super) tcp_min_ssf: u32,
    /// What the log hears of those whom SASL refuses.
    #[cfg(feature = "sasl")]
    pub(super) refusals: Arc<Flood>,
}

impl Auths {
    fn of(&self, role: Role) -> Auth {
        match role {
            Role::Main => self.main,
            Role::ReadOnly => self.read_only,
            Role::Tls => self.tls,
            Role::Tcp => self.tcp,
            Role::Admin => Auth::None,
        }
    }

    /// For the log: what whoever comes there has to prove. `mechanisms`: those of SASL.
    pub(super) fn shown(&self, role: Role, mechanisms: Option<&str>) -> String {
        let kind = match role {
            Role::Main => "main socket",
            Role::ReadOnly => "read-only socket",
            Role::Admin => return "admin socket: the daemon's own user and root".to_owned(),
            Role::Tls => "tls",
            Role::Tcp => "tcp",
        };
        let asked = match (self.of(role), role) {
            (Auth::Polkit, _) => "polkit".to_owned(),
            (Auth::Sasl, _) => format!("SASL: {}", mechanisms.unwrap_or("none")),
            (Auth::None, Role::Tls) if self.verifies => "certificates alone".to_owned(),
            (Auth::None, Role::Tls) => "no authentication".to_owned(),
            (Auth::None, Role::Tcp) => "no authentication, nothing encrypted".to_owned(),
            (Auth::None, _) => "whoever may open it".to_owned(),
        };
        format!("{kind}, {asked}")
    }
}

/// One of the two servers.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) clients: Arc<Clients>,
    pub(super) shared: Arc<Shared>,
    keepalive: Keepalive,
}

impl Server {
    pub(super) fn new(
        name: &'static str,
        limits: Limits,
        max_requests: usize,
        pool: admin::Pool,
        keepalive: Keepalive,
    ) -> Self {
        let shared = Shared {
            transit: Arc::default(),
            authority: super::authority::Authority::new(),
            max_requests: AtomicUsize::new(max_requests),
            #[cfg(feature = "sasl")]
            steps: Negotiations::new(),
            workers: Arc::new(admin::Workers::new(pool)),
        };
        Self { name, clients: Arc::new(Clients::new(limits)), shared: Arc::new(shared), keepalive }
    }
}

/// Serves until it is told to stop. `ready`: called when clients can come.
pub(super) async fn serve(host: Arc<Host>, sockets: Vec<Listening>, ready: impl FnOnce()) -> io::Result<()> {
    let mut names = Vec::new();
    let mut signals = Signals::catch()?;
    for Listening { role, socket, name } in sockets {
        names.extend(name); // the files go when we return
        tokio::spawn(accept(Arc::clone(&host), role, Door::new(socket)?));
    }
    let rotating = Arc::clone(&host);
    tokio::spawn(async move {
        rotating.rotation.work(&rotating.secrets.driver, rotating.stop.subscribe()).await;
    });
    ready();
    let mut stop = host.stop.subscribe();
    let mut idle = None;
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => _ = tokio::spawn(reload(Arc::clone(&host))),
                Signal::Stop => _ = host.stop.send(true),
            },
            () = sleep(LOOK_AROUND) => if has_been_idle(&host, &mut idle) {
                tracing::info!("nobody has come for {} s: ending", host.timeout.load(Ordering::Relaxed));
                _ = host.stop.send(true);
            },
            () = stopped(&mut stop) => break,
        }
    }
    Notice::Stopping.send();
    Notice::HalfAMinuteMore.send();
    drop(names);
    let until = Instant::now() + LONGEST_GOODBYE;
    while host.main.clients.count().0 + host.admin.clients.count().0 > 0 && Instant::now() < until {
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Accepts clients on one socket, as long as there is room.
async fn accept(host: Arc<Host>, role: Role, door: Door) {
    let server = if role == Role::Admin { &host.admin } else { &host.main };
    let known = host.auths.of(role) == Auth::None;
    let kind = match role {
        _ if known => Kind::Known,
        Role::Main | Role::ReadOnly | Role::Admin => Kind::Local,
        Role::Tls | Role::Tcp => Kind::Stranger,
    };
    let mut stop = host.stop.subscribe();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = async {
                server.clients.room(kind).await;
                let accepted = door.accept().await?;
                server.clients.room(kind).await; // another socket's client may have taken the place
                Ok::<_, io::Error>(accepted)
            } => accepted,
        };
        match accepted {
            Ok(Some((Stream::Ip(stream), peer))) if role == Role::Tls => {
                let Some(tls) = host.tls.clone() else { continue };
                let host = Arc::clone(&host);
                tokio::spawn(async move {
                    if let Some((layer, certified)) = tls.shake(&stream, peer).await {
                        let comer = Comer { peer, way: Way::Tls, certified, authenticated: known };
                        arrive(&host, role, comer, Stream::Ip(stream), Some(layer));
                    }
                });
            }
            Ok(Some((stream, peer))) => {
                let way = match role {
                    Role::Main | Role::ReadOnly | Role::Admin => Way::Unix,
                    Role::Tcp => Way::Tcp,
                    Role::Tls => Way::Tls,
                };
                let comer = Comer { peer, way, certified: None, authenticated: known };
                arrive(&host, role, comer, stream, None);
            }
            Ok(None) => {}
            Err(error) => {
                let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
                if exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
                    tracing::warn!("no client can be accepted for the moment: {error}; raise LimitNOFILE");
                    sleep(BREATHER).await;
                }
            }
        }
    }
}

/// Somebody is at the door: gets a place, or waits for one. `layer`: if the stream is encrypted already.
fn arrive(host: &Arc<Host>, role: Role, comer: Comer, stream: Stream, layer: Option<Layer>) {
    let peer = comer.peer;
    if role == Role::Admin && !is_trusted(&peer) {
        tracing::warn!("the admin socket is for the daemon's own user and for root: refused {peer}");
        return;
    }
    let server = if role == Role::Admin { &host.admin } else { &host.main };
    let read_only = role == Role::ReadOnly;
    if let Some(place) = server.clients.enter(&comer, read_only) {
        return begin(host, role, place, stream, layer);
    }
    let (host, clients) = (Arc::clone(host), Arc::clone(&server.clients));
    tokio::spawn(async move {
        tokio::select! {
            biased;
            place = clients.seat(&comer, read_only) => match place {
                Some(place) => begin(&host, role, place, stream, layer),
                None => clients.refusals.warn(&format!(
                    "refused {peer}: the places for its like are taken, and many wait"
                )),
            },
            () = stream.closed() => tracing::debug!("{peer} left while it waited"),
            () = sleep(LONGEST_WAIT) => clients.refusals.warn(&format!(
                "refused {peer}: the places for its like were taken for {} s",
                LONGEST_WAIT.as_secs()
            )),
        }
    });
}

/// Gives a client its connection.
fn begin(host: &Arc<Host>, role: Role, place: Welcome, stream: Stream, layer: Option<Layer>) {
    let (send, events) = mpsc::channel::<Announcement>(MOST_EVENTS);
    let (client, peer) = (Arc::clone(&place.client), place.client.peer);
    let read_only = role == Role::ReadOnly;
    let server = if role == Role::Admin { &host.admin } else { &host.main };
    let method = match host.auths.of(role) {
        Auth::None => Method::None,
        Auth::Polkit => Method::Polkit,
        #[cfg(feature = "sasl")]
        Auth::Sasl => Method::Sasl(Sasl {
            users: host.auths.users.clone(),
            around: match role {
                Role::Main | Role::ReadOnly | Role::Admin => Around::Unix,
                Role::Tls => Around::Tls { bits: layer.as_ref().map_or(0, |layer| layer.bits) },
                Role::Tcp => Around::Tcp { min_ssf: host.auths.tcp_min_ssf },
            },
            local: stream.local_address(),
            remote: peer.address(),
            refusals: Arc::clone(&host.auths.refusals),
        }),
        #[cfg(not(feature = "sasl"))]
        Auth::Sasl => return tracing::error!("refused {peer}: this build has no SASL"), // the settings refuse it before
    };
    let service = match role {
        Role::Admin => Service::Admin(admin::Calls::new(Arc::clone(host), peer, client.id)),
        Role::Main | Role::ReadOnly | Role::Tls | Role::Tcp => {
            let gone = AtomicBool::new(false);
            let announce = move |event| {
                if let Err(TrySendError::Full(_)) = send.try_send(event)
                    && !gone.swap(true, Ordering::Relaxed)
                {
                    tracing::warn!("closing client {}: it doesn't read its events", client.id);
                    client.dismiss();
                }
            };
            let secrets = Arc::clone(&host.secrets);
            Service::Secrets(Calls::new(secrets, peer, read_only, Arc::new(announce)))
        }
    };
    let session = Session::new(service, method, peer, server.keepalive.clone());
    let (shared, stop) = (Arc::clone(&server.shared), host.stop.subscribe());
    tokio::spawn(Connection { stream, layer, session, welcome: place, events, shared, stop }.serve());
}

/// SIGHUP: looks for keys again, and for certificates.
async fn reload(host: Arc<Host>) {
    Notice::Reloading.send();
    let driver = Arc::clone(&host.secrets.driver);
    match tokio::task::spawn_blocking(move || driver.reload()).await {
        Ok(Ok(what)) => {
            match what.is_alarming() {
                true => tracing::warn!("reloaded: {what}"),
                false => tracing::info!("reloaded: {what}"),
            }
            host.rotation.look();
        }
        Ok(Err(error)) => tracing::error!("reloading failed: {error}"),
        Err(_) => tracing::error!("reloading broke off"),
    }
    if let Some(tls) = host.tls.clone() {
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(())) => tracing::info!("reloaded: the certificates for TLS"),
            Ok(Err(error)) => {
                tracing::error!(
                    "{error}; {}",
                    error.advice().unwrap_or("virt-admin server-update-tls tries again")
                );
            }
            Err(_) => tracing::error!("reloading the certificates broke off"),
        }
    }
    Notice::Ready.send();
}

/// Whether nobody has needed the daemon for its whole timeout. Ephemeral secrets need it: they are nowhere else.
fn has_been_idle(host: &Host, since: &mut Option<(u64, Instant)>) -> bool {
    let timeout = host.timeout.load(Ordering::Relaxed);
    let servers = [&host.main.clients, &host.admin.clients];
    let needed =
        servers.iter().any(|clients| clients.count().0 > 0) || host.secrets.driver.ephemeral_count() > 0;
    if timeout == 0 || needed {
        *since = None;
        return false;
    }
    // Those who came and went since we last looked count too.
    let came = servers.iter().map(|clients| clients.last_id()).sum();
    match since {
        Some((seen, since)) if *seen == came => since.elapsed() >= Duration::from_secs(timeout.into()),
        _ => {
            *since = Some((came, Instant::now()));
            false
        }
    }
}

enum Signal {
    Reload,
    Stop,
}

struct Signals {
    reload: tokio::signal::unix::Signal,
    stop: [tokio::signal::unix::Signal; 3],
}

impl Signals {
    fn catch() -> io::Result<Self> {
        let stop = [SignalKind::interrupt(), SignalKind::quit(), SignalKind::terminate()].map(signal);
        let [interrupt, quit, terminate] = stop;
        Ok(Self { reload: signal(SignalKind::hangup())?, stop: [interrupt?, quit?, terminate?] })
    }

    async fn next(&mut self) -> Signal {
        let [interrupt, quit, terminate] = &mut self.stop;
        tokio::select! {
            _ = self.reload.recv() => Signal::Reload,
            _ = interrupt.recv() => Signal::Stop,
            _ = quit.recv() => Signal::Stop,
            _ = terminate.recv() => Signal::Stop,
        }
    }
}

/// Events that may wait for one client to read them.
const MOST_EVENTS: usize = 4096;

/// How long somebody may wait for a place.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How often idleness is looked at.
const LOOK_AROUND: Duration = Duration::from_millis(500);

/// How long to wait when there is nothing left to accept a client with.
const BREATHER: Duration = Duration::from_secs(1);

/// How long the calls under way may take when the daemon stops.
pub(super) const LONGEST_GOODBYE: Duration = Duration::from_secs(10);
