//! A daemon's admin socket, for our own program there: [`Administration`] of its keystore, unlocking and locking it.
//!
//! One call after the other, on the thread that makes it. Leans on `rpc`. Refuses to let a key or a value touch ordinary
//! memory: a call with one is made and sent in secret memory, and so is an answer read that may have one. Waits as
//! long as the daemon does: Argon2 takes a second, and others may be trying too.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use ::uuid::Uuid;
use secrecy::{ExposeSecret, ExposeSecretMut};
use serde::de::DeserializeOwned;

use crate::administration::{
    Administration, Backup, Inventory, Key, Put, Repaired, Rotation, SlotStatus, Status, Verified,
};
use crate::memory::SecretBytes;
use crate::rpc::packet::{HEAD, packet_length};
use crate::rpc::remote::ErrorBody;
use crate::rpc::strongroom::{self, Json, MAX_UUIDS, Unlock, Whole, key, placed, procedure};
use crate::rpc::xdr::{List, Malformed};
use crate::rpc::{Encode, Header, Kind, Status as Went, VERSION, Value, decode, program, secret_packet};
use crate::secret::{Definition, Error, ErrorCode, ErrorDomain};

/// A connection to an admin socket.
#[derive(Debug)]
pub(crate) struct Admin {
    path: PathBuf,
    line: Mutex<Line>,
}

/// The socket, and the number of the last call.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    serial: u32,
}

impl Admin {
    /// Connects to the daemon that listens there.
    pub(crate) fn connect(path: &Path) -> Result<Self, Error> {
        let socket = UnixStream::connect(path).map_err(|error| {
            let plain = Error::system(format!("Failed to connect socket to '{}'", path.display()), &error);
            match error.kind() {
                io::ErrorKind::PermissionDenied => plain.advise(FOR_WHOM),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => plain.advise(
                    "is the daemon running? name another with --connect secret:///system or \
                     secret:///session, or its admin socket with --admin-socket PATH",
                ),
                _ => plain,
            }
        })?;
        Ok(Self { path: path.to_owned(), line: Mutex::new(Line { socket, serial: 0 }) })
    }

    /// How the keystore stands, as the daemon says it: JSON.
    pub(crate) fn status_json(&self) -> Result<String, Error> {
        let reply = self.call(procedure::STATUS, &())?;
        Ok(decode::<Json<'_>>(&reply).map_err(unreadable)?.json.to_text())
    }

    /// Opens the keystore, with the host key where the daemon finds it or with these keys.
    pub(crate) fn unlock(&self, keys: &[Key]) -> Result<(), Error> {
        self.call(procedure::UNLOCK, &Unlock { keys: on_the_wire(keys) }).map(drop)
    }

    /// Closes the keystore.
    pub(crate) fn lock(&self) -> Result<(), Error> {
        self.call(procedure::LOCK, &()).map(drop)
    }

    /// A call that is answered in JSON.
    fn ask<T: DeserializeOwned>(&self, procedure: i32, body: &impl Encode) -> Result<T, Error> {
        let reply = self.call(procedure, body)?;
        let json = decode::<Json<'_>>(&reply).map_err(unreadable)?.json;
        serde_json::from_slice(json.0).map_err(|error| {
            Error::new(
                ErrorCode::Rpc,
                ErrorDomain::Rpc,
                format!("the daemon's answer can't be read: {error}"),
            )
            .advise("the daemon is of another version: see that both are of one")
        })
    }

    /// A call whose answer holds nothing secret.
    fn call(&self, procedure: i32, body: &impl Encode) -> Result<Vec<u8>, Error> {
        self.talk(procedure, body, |mut socket, length| {
            let mut body = vec![0; length];
            socket.read_exact(&mut body)?;
            Ok(body)
        })
    }

    /// A call whose answer may hold a value.
    fn call_for_secret(&self, procedure: i32, body: &impl Encode) -> Result<SecretBytes, Error> {
        self.talk(procedure, body, |mut socket, length| {
            let mut body = SecretBytes::zeroed(length).map_err(io::Error::other)?;
            socket.read_exact(body.expose_secret_mut())?;
            Ok(body)
        })
    }

    fn talk<T: AsBytes>(
        &self,
        procedure: i32,
        body: &impl Encode,
        read: impl Fn(&UnixStream, usize) -> io::Result<T>,
    ) -> Result<T, Error> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.serial += 1;
        let call = Header {
            program: program::STRONGROOM,
            version: VERSION,
            procedure,
            kind: Kind::Call,
            serial: line.serial,
            status: Went::Ok,
        };
        let packet = secret_packet(call, body)?;
        let first = line.serial == 1;
        let lost = |error| self.lost(&error, first);
        (&line.socket).write_all(packet.expose_secret()).map_err(lost)?;
        drop(packet);
        loop {
            let (header, length) = receive_head(&line.socket).map_err(lost)?;
            let body = read(&line.socket, length).map_err(lost)?;
            if header.kind == Kind::Message {
                continue; // no answer to anything
            }
            return match header.status {
                status if header != call.reply(status) => Err(unreadable(Malformed)),
                Went::Ok => Ok(body),
                _ => Err(reported(body.bytes())),
            };
        }
    }

    /// The daemon has ended the connection, or something else went wrong on the way.
    fn lost(&self, error: &io::Error, first: bool) -> Error {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                let plain =
                    Error::failed(format!("the daemon at '{path}' ended the connection without an answer"));
                plain.advise(if first { FOR_WHOM } else { ENDED })
            }
            _ => Error::system(format!("cannot talk to the daemon at '{path}'"), error),
        }
    }
}

impl Administration for Admin {
    fn status(&self) -> Result<Status, Error> {
        self.ask(procedure::STATUS, &())
    }

    fn add_key(&self, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        self.ask(procedure::KEY_ADD, &strongroom::NewSlot { key: wire_key(key), label: label.into() })
    }

    fn change_key(&self, slot: Uuid, key: &Key, label: &str) -> Result<SlotStatus, Error> {
        let (slot, key, label) = (slot.into_bytes(), wire_key(key), label.into());
        self.ask(procedure::KEY_CHANGE, &strongroom::ChangeSlot { slot, key, label })
    }

    fn remove_key(&self, slot: Uuid, proof: &[Key]) -> Result<SlotStatus, Error> {
        let (slot, proof) = (slot.into_bytes(), on_the_wire(proof));
        self.ask(procedure::KEY_REMOVE, &strongroom::RemoveSlot { slot, proof })
    }

    fn test_key(&self, key: &Key) -> Result<SlotStatus, Error> {
        self.ask(procedure::KEY_TEST, &Unlock { keys: List(vec![wire_key(key)]) })
    }

    fn keyring(&self) -> Result<Vec<u8>, Error> {
        let reply = self.call(procedure::KEYRING, &())?;
        Ok(decode::<strongroom::Piece<'_>>(&reply).map_err(unreadable)?.bytes.0.to_vec())
    }

    fn rekey(&self, keys: &[Key], forget: &[Uuid]) -> Result<Vec<SlotStatus>, Error> {
        let forget = List(forget.iter().copied().map(Uuid::into_bytes).collect());
        self.ask(procedure::REKEY, &strongroom::Rekey { keys: on_the_wire(keys), forget })
    }

    fn rotate(&self, watch: &mut dyn FnMut(Rotation) -> ControlFlow<()>) -> Result<(), Error> {
        self.call(procedure::ROTATE, &())?;
        loop {
            let status = self.status()?;
            if let Some(why) = status.locked {
                return Err(Error::not_now(format!("{why}; the rotation goes on when it is open again"))
                    .advise(status.advice.unwrap_or_default()));
            }
            let Some(rotation) = status.rotation else { return Ok(()) };
            if let Some(why) = status.rotation_stopped.or(status.read_only) {
                return Err(Error::failed(format!("the rotation stands still: {why}"))
                    .advise(status.advice.unwrap_or_default()));
            }
            if watch(rotation).is_break() {
                return Ok(());
            }
            thread::sleep(GLANCE);
        }
    }

    fn verify(&self) -> Result<Verified, Error> {
        self.ask(procedure::VERIFY, &())
    }

    fn repair(&self) -> Result<Repaired, Error> {
        self.ask(procedure::REPAIR, &())
    }

    fn backup(&self) -> Result<Box<dyn Backup>, Error> {
        // A copy belongs to its connection.
        let admin = Self::connect(&self.path)?;
        let reply = admin.call(procedure::BACKUP, &())?;
        let total = decode::<strongroom::Length>(&reply).map_err(unreadable)?.bytes;
        Ok(Box::new(Copy { admin, total }))
    }
}

impl Inventory for Admin {
    fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error> {
        let max = u32::try_from(max.min(MAX_UUIDS)).unwrap_or(u32::MAX);
        let reply =
            self.call(procedure::LIST, &strongroom::After { after: after.map(Uuid::into_bytes), max })?;
        let uuids = decode::<strongroom::Uuids>(&reply).map_err(unreadable)?.uuids;
        Ok(uuids.0.into_iter().map(Uuid::from_bytes).collect())
    }

    fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error> {
        let reply = self.call_for_secret(procedure::READ, &strongroom::Which { uuid: uuid.into_bytes() })?;
        let found: strongroom::Found<'_> = decode(reply.expose_secret()).map_err(unreadable)?;
        let Some(secret) = found.secret else { return Ok(None) };
        let value = secret.value.map(|value| SecretBytes::copy_of(value.0)).transpose()?;
        Ok(Some((Definition::from_xml(secret.xml.0, false)?, value)))
    }

    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error> {
        let xml = definition.to_xml();
        let reply = self.call(procedure::PUT, &whole(&xml, value)?)?;
        let placed: strongroom::Placed = decode(&reply).map_err(unreadable)?;
        match placed.what {
            placed::ADDED => Ok(Put::Added),
            placed::SAME => Ok(Put::Same),
            placed::DIFFERS => Ok(Put::Differs),
            placed::USAGE_TAKEN => Ok(Put::UsageTaken(Uuid::from_bytes(placed.other))),
            _ => Err(unreadable(Malformed)),
        }
    }

    fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error> {
        let xml = definition.to_xml();
        let reply = self.call(procedure::HOLDS, &whole(&xml, value)?)?;
        Ok(decode::<strongroom::Answer>(&reply).map_err(unreadable)?.yes != 0)
    }
}

/// A copy on its way from a daemon.
struct Copy {
    admin: Admin,
    total: u64,
}

impl Backup for Copy {
    fn total(&self) -> u64 {
        self.total
    }

    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let reply = self.admin.call(procedure::BACKUP_PIECE, &())?;
        let piece = decode::<strongroom::Piece<'_>>(&reply).map_err(unreadable)?.bytes.0;
        Ok((!piece.is_empty()).then(|| piece.to_vec()))
    }
}

/// The body of a reply, wherever it is.
trait AsBytes {
    fn bytes(&self) -> &[u8];
}

impl AsBytes for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl AsBytes for SecretBytes {
    fn bytes(&self) -> &[u8] {
        self.expose_secret()
    }
}

fn on_the_wire(keys: &[Key]) -> List<strongroom::Key<'_>, { strongroom::MAX_SLOTS }> {
    List(keys.iter().map(wire_key).collect())
}

fn wire_key(key: &Key) -> strongroom::Key<'_> {
    let (kind, secret) = match key {
        Key::Passphrase(secret) => (key::PASSPHRASE, secret),
        Key::Recovery(secret) => (key::RECOVERY, secret),
        Key::Host(secret) => (key::HOST, secret),
        Key::Credential(secret) => (key::CREDENTIAL, secret),
    };
    strongroom::Key { kind, secret: Value(secret.expose_secret()) }
}

/// A secret, if the daemon keeps room for a packet of its size.
fn whole<'a>(xml: &'a str, value: Option<&'a SecretBytes>) -> Result<Whole<'a>, Error> {
    if xml.len() > strongroom::MAX_DEFINITION {
        let detail = format!(
            "its definition is {} bytes long; a daemon takes {} here",
            xml.len(),
            strongroom::MAX_DEFINITION
        );
        return Err(Error::failed(detail).advise("define it with: strongroom secret-define"));
    }
    Ok(Whole { xml: xml.into(), value: value.map(|value| Value(value.expose_secret())) })
}

/// The next packet's header, and the length of its body.
fn receive_head(mut socket: &UnixStream) -> io::Result<(Header, usize)> {
    let mut head = [0; HEAD];
    socket.read_exact(&mut head)?;
    let ([length, header @ ..], _) = head.as_chunks::<4>() else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let length = packet_length(*length).map_err(io::Error::other)?;
    let header: Header = decode(header.as_flattened()).map_err(io::Error::other)?;
    Ok((header, length - HEAD))
}

/// The error in the body of a reply, with the advice that our own program sends along.
fn reported(body: &[u8]) -> Error {
    let Ok(body) = decode::<ErrorBody<'_>>(body) else { return unreadable(Malformed) };
    let (code, domain) = (ErrorCode::from_number(body.code), ErrorDomain::from_number(body.domain));
    let message = body.message.unwrap_or_default().to_text();
    let errno = (code == ErrorCode::SystemError && body.int1 > 0).then_some(body.int1);
    let error = Error::reported(code, domain, &message, errno);
    match body.str3 {
        Some(advice) => error.advise(advice.to_text()),
        None if message.starts_with("Cannot find program") => error.advise(
            "this is a daemon of libvirt's own, or of another version of Strongroom: only strongroomd's keystore has \
             keys to ask for",
        ),
        None => error,
    }
}

fn unreadable(_: Malformed) -> Error {
    Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "Unable to decode message payload")
}

/// How often a rotation is looked at.
const GLANCE: Duration = Duration::from_millis(100);

const ENDED: &str =
    "see whether it runs, and its log; a rotation that was under way goes on when it is started again";

const FOR_WHOM: &str = "an admin socket is for the user that the daemon runs as, and for root";

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::rpc::fault::refusal;
    use crate::rpc::packet;

    /// Listens, and answers one call.
    fn daemon(
        answer: impl FnOnce(Header, &[u8]) -> Vec<u8> + Send + 'static,
    ) -> (tempfile::TempDir, Admin, JoinHandle<()>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin-sock");
        let listener = UnixListener::bind(&path).unwrap();
        let serving = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let (call, length) = receive_head(&socket).unwrap();
            let mut body = vec![0; length];
            socket.read_exact(&mut body).unwrap();
            socket.write_all(&answer(call, &body)).unwrap();
        });
        let admin = Admin::connect(&path).unwrap();
        (directory, admin, serving)
    }

    #[test]
    fn keys_arrive_with_their_kinds() {
        let (_directory, admin, serving) = daemon(|call, body| {
            let asked: Unlock<'_> = decode(body).unwrap();
            let seen: Vec<_> = asked.keys.0.iter().map(|key| (key.kind, key.secret.0)).collect();
            assert_eq!(seen, [(1, &b"correct horse"[..]), (3, &[7; 32])]);
            packet(call.reply(Went::Ok), &())
        });
        let secret = |bytes: &[u8]| SecretBytes::copy_of(bytes).unwrap();
        let keys = [Key::Passphrase(secret(b"correct horse")), Key::Host(secret(&[7; 32]))];
        admin.unlock(&keys).unwrap();
        serving.join().unwrap();
    }

    #[test]
    fn an_error_comes_with_its_advice() {
        let (_directory, admin, _serving) = daemon(|call, _| {
            refusal(call, &Error::not_now("the keystore is locked: wrong passphrase").advise("try another"))
        });
        let error = admin.unlock(&[]).unwrap_err();
        let text = "Requested operation is not valid: the keystore is locked: wrong passphrase";
        assert_eq!((error.to_string().as_str(), error.advice()), (text, Some("try another")));
        assert_eq!(error.code(), ErrorCode::OperationInvalid);
    }

    #[test]
    fn a_daemon_that_says_nothing_is_an_error_that_says_why() {
        let (_directory, admin, _serving) = daemon(|_, _| Vec::new());
        let error = admin.lock().unwrap_err();
        assert!(error.to_string().contains("without an answer"), "{error}");
        assert_eq!(error.advice(), Some(FOR_WHOM));
    }
}
