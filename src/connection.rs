//! What a Rust program uses: a connection by URI, and the secrets it reaches.
//!
//! A thin face over whichever [`Keystore`] the URI names. Leans on `driver` for keystores opened in this process and on
//! `client` for URIs and for the keystores of daemons. Refuses to add rules of its own: every check is the keystore's.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use ::uuid::Uuid;

use crate::administration::{Administration, Made, Status, Verified};
use crate::client::{Ask, BadUri, Client, Meant, Uri};
use crate::driver::{Administrator, Caller, Driver, Keys, NewStore, Root};
use crate::memory::SecretBytes;
use crate::secret::{
    Error, ErrorCode, ErrorDomain, Event, EventKind, Handle, Keystore, MAX_VALUE, NO_FLAGS, Subscription,
    Usage, UsageType, parse_uuid,
};

/// An open keystore. Clones are cheap and share it; it closes when the last clone and the last [`Secret`] are gone.
#[derive(Clone)]
pub struct Connection {
    keystore: Arc<dyn Keystore>,
}

/// A keystore that this process opened itself: what can be asked of it beyond libvirt's API.
#[derive(Debug)]
pub struct Embedded {
    driver: Arc<Driver>,
    caller: Caller,
}

impl Embedded {
    /// Opens the `secret:///embed?root=DIR` keystore that `uri` names; makes it if it doesn't exist yet.
    pub fn open(uri: &str, options: OpenOptions) -> Result<Self, Error> {
        let caller = Caller { read_only: options.read_only, ..Caller::OWNER };
        let (root, keys) = locate(uri, options)?;
        if caller.read_only && !root.has_keystore()? {
            return Err(Error::failed(format!("there is no keystore at {uri}"))
                .advise("mind the spelling; who only reads makes none"));
        }
        Ok(Self { driver: Driver::open(root, uri.to_owned(), &keys)?, caller })
    }

    /// Makes the keystore that `uri` names, and refuses where there is one.
    pub fn init(uri: &str, options: OpenOptions, new: &NewStore) -> Result<Made, Error> {
        let (root, keys) = locate(uri, options)?;
        Driver::init(&root, &keys, new)
    }

    /// Whether there is a keystore where `uri` says, or what is left of one. Makes nothing.
    pub fn exists(uri: &str) -> Result<bool, Error> {
        locate(uri, OpenOptions::default())?.0.has_keystore()
    }

    /// The owner's view of it.
    pub fn keystore(&self) -> Arc<dyn Keystore> {
        Arc::new(self.driver.session(self.caller))
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        self.driver.status()
    }

    /// What is asked of it beyond libvirt's API: keys, rotation, copies, repair. Refused if it was opened read-only.
    pub fn administration(&self) -> Result<Arc<dyn Administration>, Error> {
        match self.caller.read_only {
            true => Err(Error::not_now("read only access prevents administration")
                .advise("open the keystore without read_only")),
            false => Ok(Arc::new(Administrator(Arc::clone(&self.driver)))),
        }
    }

    /// Where the keystore that `uri` names lies. Looks at nothing.
    #[cfg(feature = "cli")]
    pub(crate) fn root(uri: &str) -> Result<Root, Error> {
        Ok(locate(uri, OpenOptions::default())?.0)
    }

    /// The keys for what belongs to the keystore that `uri` names, and isn't open: a backup, a copy of its keyring.
    #[cfg(feature = "cli")]
    pub(crate) fn keys(uri: &str, options: OpenOptions) -> Result<Keys, Error> {
        Ok(keys_for(&parse(uri)?, options))
    }

    /// Checks every record and every file.
    pub fn verify(&self) -> Result<Verified, Error> {
        self.driver.verify()
    }
}

/// Reads a URI of ours.
fn parse(text: &str) -> Result<Uri, Error> {
    let uri = Uri::parse(text).map_err(|why| match why {
        BadUri::NoScheme => Error::no_driver_for(&format!("URI '{text}' does not include a driver name"))
            .advise("a keystore in a directory is named so: secret:///embed?root=/some/directory"),
        _ => Error::new(ErrorCode::InternalError, ErrorDomain::None, format!("Unable to parse URI {text}"))
            .advise(format!("{why}; encode blanks and special characters as %XX")),
    })?;
    let is_ours = match uri.path.as_str() {
        "/embed" => uri.transport.is_none() && uri.host.is_none(),
        "/system" | "/session" => true,
        _ => false,
    };
    if uri.scheme != "secret" || !is_ours {
        return Err(Error::no_driver_for(text).advise(how_it_is_named(&uri)));
    }
    Ok(uri)
}

/// What may have been meant by a URI that isn't ours.
fn how_it_is_named(uri: &Uri) -> &'static str {
    if uri.scheme != "secret" {
        return "only secrets are served here: the same URI with secret in front, as in secret+tls://host/system";
    }
    if uri.path.contains('&') {
        return "parameters begin with ?, as in secret://vault.example.org/system?no_verify=1";
    }
    if uri.host.is_some() {
        return "a keystore on another host is named so: secret://vault.example.org/system";
    }
    "keystores are named secret:///embed?root=DIR (in this process), secret:///system and secret:///session (a \
     daemon's), secret://vault.example.org/system (on another host)"
}

fn is_embedded(uri: &Uri) -> bool {
    uri.path == "/embed"
}

/// The root that a URI names, and the keys to open it with.
fn locate(text: &str, options: OpenOptions) -> Result<(Root, Keys), Error> {
    let uri = parse(text)?;
    if !is_embedded(&uri) {
        return Err(Error::failed(format!(
            "the keystore of {text} is opened by its daemon, not by this process"
        ))
        .advise("this works on a keystore in a directory: secret:///embed?root=DIR"));
    }
    let root = uri.param("root").ok_or_else(|| {
        Error::new(ErrorCode::InvalidArg, ErrorDomain::None, "Missing URI parameter 'root'")
            .advise("say where the keystore lies: secret:///embed?root=/some/directory")
    })?;
    Ok((Root::embed(Path::new(root))?, keys_for(&uri, options)))
}

/// The keys for the keystore that a URI names.
fn keys_for(uri: &Uri, options: OpenOptions) -> Keys {
    let environment = || std::env::var_os("STRONGROOM_KEY_FILE").filter(|value| !value.is_empty());
    let host_key = uri.param("key").filter(|key| !key.is_empty()).map(PathBuf::from);
    let host_key_given = options.key_file.is_some();
    let host_key = host_key.or(options.key_file).or_else(|| environment().map(PathBuf::from));
    let OpenOptions { passphrase, recovery_key, .. } = options;
    Keys { host_key, host_key_given, host_key_bytes: None, passphrase, recovery_key }
}

/// How to open a keystore, beyond its URI. The default suits most.
#[derive(Default)]
pub struct OpenOptions {
    /// The host key's file. Precedence: the URI's `key=FILE`, this, the environment's `STRONGROOM_KEY_FILE`, the
    /// systemd credential `secrets-encryption-key`, then the default place.
    pub key_file: Option<PathBuf>,
    /// A passphrase to open a passphrase slot with.
    pub passphrase: Option<SecretBytes>,
    /// A recovery key, as it was shown, to open the recovery slot with.
    pub recovery_key: Option<SecretBytes>,
    /// Change nothing, and read no values.
    pub read_only: bool,
    /// Who can be asked for what a daemon's server wants to know: names, passwords, whether an unknown host is the right one.
    /// Without one, nobody is.
    pub ask: Option<Arc<dyn Ask>>,
}

impl std::fmt::Debug for OpenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key_file, passphrase, recovery_key, read_only, ask } = self;
        f.debug_struct("OpenOptions")
            .field("key_file", key_file)
            .field("passphrase", passphrase)
            .field("recovery_key", recovery_key)
            .field("read_only", read_only)
            .field("ask", &ask.is_some())
            .finish()
    }
}

impl OpenOptions {
    fn has_keys(&self) -> bool {
        self.key_file.is_some() || self.passphrase.is_some() || self.recovery_key.is_some()
    }
}

impl Connection {
    /// Opens the keystore that `uri` names.
    ///
    /// `secret:///system` and `secret:///session` are the keystores of this host's and of this user's daemon, which may be
    /// Strongroom's or libvirt's own. They are reached over a Unix socket, found as libvirt finds it; `?socket=PATH` names
    /// another, `?mode=direct` and `?mode=legacy` choose between `virtsecretd` and `libvirtd`. A user's own daemon is
    /// started if need be (not with `LIBVIRT_AUTOSTART=0`). When the daemon ends the connection, every call fails from
    /// then on, and [`Events`] end.
    ///
    /// Daemons of other hosts are reached in these ways. All take the parameters of libvirt's own URIs.
    ///
    /// | URI | how |
    /// |---|---|
    /// | `secret+ssh://user@host/system` | the system's `ssh`; `command=`, `keyfile=`, `no_verify=`, `no_tty=`, `proxy=`, `netcat=`, `socket=` |
    /// | `secret://host/system` | TLS with X.509 certificates; `pkipath=`, `no_verify=`, `no_sanity=`, `tls_priority=` |
    /// | `secret+tcp://host/system` | TCP, which SASL has to encrypt (feature `sasl`), or else it is refused; `auth=`, `authfile=`, and our own `cleartext=1` for laboratories |
    /// | `secret+libssh://user@host/system` | an ssh client in this process (feature `libssh`; `libssh2` is the same); `sshauth=`, `known_hosts=`, `known_hosts_verify=` |
    /// | `secret+ext://host/system?command=PROGRAM` | any program that connects its standard streams to a daemon; `argv=` |
    ///
    /// A server that is reached by TLS or TCP has 30 seconds to let us in, a person's time not counted.
    ///
    /// What a person has to be asked on the way, [`OpenOptions::ask`] is asked. A word without a colon is looked up among the
    /// `uri_aliases` of `libvirt.conf`.
    ///
    /// ```no_run
    /// let daemon = strongroom::Connection::open("secret:///session")?;
    /// println!("{} secrets", daemon.num_of_secrets()?);
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    ///
    /// `secret:///embed?root=DIR` is a keystore in the directory `DIR` (an absolute path), which this process has to
    /// itself while it is open. `key=FILE` names the host key's file; [`OpenOptions::key_file`] says where it is looked
    /// for otherwise. Blanks and special characters are written as `%XX`. It is made if it doesn't exist yet.
    ///
    /// A keystore whose key isn't there opens all the same, *locked*: secrets are listed, and each call that needs the
    /// key says what was tried.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let (root, keys) = (directory.path().join("root"), directory.path().join("keys"));
    /// # let (root, keys) = (root.display(), keys.display());
    /// use strongroom::Connection;
    ///
    /// let uri = format!("secret:///embed?root={root}&key={keys}/host.key");
    /// let uuid = Connection::open(&uri)?.define_xml("<secret/>", 0)?.uuid();
    ///
    /// std::fs::remove_file(format!("{keys}/host.key"))?;
    /// let locked = Connection::open(&uri)?;
    /// let secret = locked.lookup_by_uuid(uuid)?;
    /// let error = secret.set_value(b"new").unwrap_err();
    /// assert!(error.to_string().contains("the keystore is locked: no key file"), "{error}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(uri: &str) -> Result<Self, Error> {
        Self::open_with(uri, OpenOptions::default())
    }

    /// [`open`](Self::open), with options.
    pub fn open_with(uri: &str, options: OpenOptions) -> Result<Self, Error> {
        Self::open_meant(Meant::by(uri)?, options)
    }

    /// The same for a URI that no alias is looked for in any more.
    pub(crate) fn open_meant(meant: Meant, options: OpenOptions) -> Result<Self, Error> {
        let uri = &meant.uri;
        let parsed = parse(uri)?;
        if is_embedded(&parsed) {
            return Ok(Self::over(Embedded::open(uri, options)?.keystore()));
        }
        if options.has_keys() {
            let detail = format!("a key was given for {uri}, whose daemon opens its keystore with its own");
            return Err(
                Error::new(ErrorCode::InvalidArg, ErrorDomain::None, detail).advise("leave out the key")
            );
        }
        Ok(Self::over(Arc::new(Client::open(meant, &parsed, options.read_only, options.ask)?)))
    }

    /// A connection to a keystore at hand.
    pub fn over(keystore: Arc<dyn Keystore>) -> Self {
        Self { keystore }
    }

    /// The keystore itself, for what takes one: [`Volumes`](crate::volume::Volumes), say.
    pub fn keystore(&self) -> Arc<dyn Keystore> {
        Arc::clone(&self.keystore)
    }

    /// The URI that was opened.
    pub fn uri(&self) -> String {
        self.keystore.uri()
    }

    /// Why the keystore is locked, if it is. Opening one whose key is missing or wrong is no error: its definitions are
    /// listed (unproved), new ephemeral secrets work, and everything else fails with this error.
    pub fn locked(&self) -> Option<Error> {
        self.keystore.locked()
    }

    /// How many secrets there are.
    pub fn num_of_secrets(&self) -> Result<usize, Error> {
        self.keystore.num_of_secrets()
    }

    /// The UUIDs of at most `max` secrets, in no order.
    pub fn list_secrets(&self, max: usize) -> Result<Vec<Uuid>, Error> {
        self.keystore.list_secrets(max)
    }

    /// The secrets that `flags` selects, in no order: see [`ListFlags`](crate::ListFlags); 0 selects all.
    pub fn list_all(&self, flags: u32) -> Result<Vec<Secret>, Error> {
        let handles = self.keystore.list_all(flags)?;
        Ok(handles.into_iter().map(|handle| self.secret(handle)).collect())
    }

    /// The secret of this UUID.
    pub fn lookup_by_uuid(&self, uuid: Uuid) -> Result<Secret, Error> {
        self.keystore.lookup_by_uuid(uuid).map(|handle| self.secret(handle))
    }

    /// The secret of this UUID, read as leniently as libvirt reads it.
    pub fn lookup_by_uuid_string(&self, text: &str) -> Result<Secret, Error> {
        let uuid = parse_uuid(text.as_bytes()).ok_or_else(Error::bad_uuid_string)?;
        self.lookup_by_uuid(uuid)
    }

    /// The secret of this usage. The type `none` never matches.
    pub fn lookup_by_usage(&self, kind: UsageType, id: &str) -> Result<Secret, Error> {
        self.keystore.lookup_by_usage(kind, id).map(|handle| self.secret(handle))
    }

    /// Defines a secret, or redefines the one with the document's UUID: see [`DefineFlags`](crate::DefineFlags).
    pub fn define_xml(&self, xml: impl AsRef<[u8]>, flags: u32) -> Result<Secret, Error> {
        self.keystore.define_xml(xml.as_ref(), flags).map(|handle| self.secret(handle))
    }

    /// The events of this kind from now on, of all secrets or of one.
    pub fn events(&self, kind: EventKind, only: Option<Uuid>) -> Result<Events, Error> {
        let (send, receive) = mpsc::channel();
        let sink = Box::new(move |event: &Event| _ = send.send(event.clone()));
        let subscription = self.keystore.subscribe(kind, only, sink)?;
        Ok(Events { receive, ended: Cell::new(false), subscription, _keystore: Arc::clone(&self.keystore) })
    }

    /// The same keystore for a caller who may read private values. A program that opened the keystore itself may; a
    /// client of a daemon may only with the host's system token.
    pub fn elevated(&self) -> Result<Self, Error> {
        self.keystore.elevated().map(Self::over)
    }

    fn secret(&self, handle: Handle) -> Secret {
        Secret { keystore: Arc::clone(&self.keystore), handle }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("uri", &self.uri()).finish()
    }
}

/// One secret of a keystore. Clones are cheap. It stays usable, and its calls fail, after the secret is undefined.
///
/// A *private* secret's value isn't given to an ordinary caller, not even to the one who set it:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let root = directory.path().display();
/// # let connection = strongroom::Connection::open(&format!("secret:///embed?root={root}&key={root}/host.key"))?;
/// use secrecy::ExposeSecret;
/// use strongroom::ErrorCode;
///
/// let secret = connection.define_xml("<secret private='yes'/>", 0)?;
/// secret.set_value(b"for the hypervisor only")?;
/// assert_eq!(secret.value().unwrap_err().code(), ErrorCode::InvalidSecret);
///
/// let elevated = connection.elevated()?.lookup_by_uuid(secret.uuid())?;
/// assert_eq!(elevated.value()?.expose_secret(), b"for the hypervisor only");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Secret {
    keystore: Arc<dyn Keystore>,
    handle: Handle,
}

impl Secret {
    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.handle.uuid
    }

    /// Its UUID as libvirt prints it: lower case, with dashes.
    pub fn uuid_string(&self) -> String {
        self.handle.uuid.to_string()
    }

    /// Its usage when it was looked up.
    pub fn usage(&self) -> &Usage {
        &self.handle.usage
    }

    /// The type of its usage.
    pub fn usage_type(&self) -> UsageType {
        self.handle.usage.kind
    }

    /// The id of its usage; empty if the type is none.
    pub fn usage_id(&self) -> &str {
        &self.handle.usage.id
    }

    /// The `<secret>` document.
    pub fn xml_desc(&self) -> Result<String, Error> {
        self.keystore.xml_desc(self.handle.uuid, NO_FLAGS)
    }

    /// Sets the value: 1 to 65,536 bytes. It is durable when this returns. The caller's copy is the caller's to wipe;
    /// [`set_secret_value`](Self::set_secret_value) makes no copy.
    pub fn set_value(&self, value: &[u8]) -> Result<(), Error> {
        if value.len() > MAX_VALUE {
            return Err(Error::value_too_long(value.len()));
        }
        self.set_secret_value(SecretBytes::copy_of(value)?)
    }

    /// Sets the value from secret memory.
    pub fn set_secret_value(&self, value: SecretBytes) -> Result<(), Error> {
        self.keystore.set_value(self.handle.uuid, value, NO_FLAGS)
    }

    /// The value, in secret memory. Refused for a private secret unless the connection is
    /// [elevated](Connection::elevated).
    pub fn value(&self) -> Result<SecretBytes, Error> {
        self.keystore.value(self.handle.uuid, NO_FLAGS)
    }

    /// Removes the secret, definition and value.
    pub fn undefine(&self) -> Result<(), Error> {
        self.keystore.undefine(self.handle.uuid)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Events as they come: an iterator that waits, and ends only when the connection to the daemon is lost. Dropping it ends
/// the subscription.
pub struct Events {
    receive: Receiver<Event>,
    ended: Cell<bool>,
    subscription: Subscription,
    _keystore: Arc<dyn Keystore>,
}

impl Events {
    /// The next event, or `None` if none came in time, or none will come any more ([`ended`](Self::ended)).
    pub fn next_within(&self, time: Duration) -> Option<Event> {
        let next = self.receive.recv_timeout(time);
        self.ended.set(next == Err(RecvTimeoutError::Disconnected));
        next.ok()
    }

    /// Whether the last look found that the connection is lost: any call then says why.
    pub fn ended(&self) -> bool {
        self.ended.get()
    }

    /// The subscription's id.
    pub fn id(&self) -> i32 {
        self.subscription.id()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let next = self.receive.recv().ok();
        self.ended.set(next.is_none());
        next
    }
}
