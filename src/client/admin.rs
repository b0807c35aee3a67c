//! A daemon's admin socket, for our own program there: its keystore's standing, unlocking, locking.
//!
//! One call after the other, on the thread that makes it. Leans on `rpc`. Refuses to let a key touch ordinary memory: each
//! call is made and sent in secret memory (what is answered holds no key). Waits as long as the daemon does: Argon2 takes
//! a second, and others may be trying too.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use crate::memory::SecretBytes;
use crate::rpc::packet::{HEAD, packet_length};
use crate::rpc::remote::ErrorBody;
use crate::rpc::strongroom::{Key, Status, Unlock, procedure};
use crate::rpc::xdr::{List, Malformed};
use crate::rpc::{Encode, Header, Kind, Status as Went, VERSION, Value, decode, program, secret_packet};
use crate::secret::{Error, ErrorCode, ErrorDomain};

/// A connection to an admin socket.
pub(crate) struct Admin {
    path: PathBuf,
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
        Ok(Self { path: path.to_owned(), socket, serial: 0 })
    }

    /// How the keystore stands: JSON.
    pub(crate) fn status(&mut self) -> Result<String, Error> {
        let reply = self.call(procedure::STATUS, &())?;
        Ok(decode::<Status<'_>>(&reply).map_err(unreadable)?.json.to_text())
    }

    /// Opens the keystore, with the host key where the daemon finds it or with these keys, each with its
    /// [kind](crate::rpc::strongroom::key).
    pub(crate) fn unlock(&mut self, keys: &[(u32, SecretBytes)]) -> Result<(), Error> {
        let keys =
            keys.iter().map(|(kind, secret)| Key { kind: *kind, secret: Value(secret.expose_secret()) });
        self.call(procedure::UNLOCK, &Unlock { keys: List(keys.collect()) }).map(drop)
    }

    /// Closes the keystore.
    pub(crate) fn lock(&mut self) -> Result<(), Error> {
        self.call(procedure::LOCK, &()).map(drop)
    }

    fn call(&mut self, procedure: i32, body: &impl Encode) -> Result<Vec<u8>, Error> {
        self.serial += 1;
        let call = Header {
            program: program::STRONGROOM,
            version: VERSION,
            procedure,
            kind: Kind::Call,
            serial: self.serial,
            status: Went::Ok,
        };
        let packet = secret_packet(call, body)?;
        let lost = |error| self.lost(&error);
        (&self.socket).write_all(packet.expose_secret()).map_err(lost)?;
        drop(packet);
        loop {
            let (header, body) = receive(&self.socket).map_err(lost)?;
            if header.kind == Kind::Message {
                continue; // no answer to anything
            }
            return match header.status {
                status if header != call.reply(status) => Err(unreadable(Malformed)),
                Went::Ok => Ok(body),
                _ => Err(reported(&body)),
            };
        }
    }

    /// The daemon has ended the connection, or something else went wrong on the way.
    fn lost(&self, error: &io::Error) -> Error {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Error::failed(format!("the daemon at '{path}' ended the connection without an answer"))
                    .advise(FOR_WHOM)
            }
            _ => Error::system(format!("cannot talk to the daemon at '{path}'"), error),
        }
    }
}

/// The next packet, whatever it is.
fn receive(mut socket: &UnixStream) -> io::Result<(Header, Vec<u8>)> {
    let mut head = [0; HEAD];
    socket.read_exact(&mut head)?;
    let ([length, header @ ..], _) = head.as_chunks::<4>() else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let length = packet_length(*length).map_err(io::Error::other)?;
    let header: Header = decode(header.as_flattened()).map_err(io::Error::other)?;
    let mut body = vec![0; length - HEAD];
    socket.read_exact(&mut body)?;
    Ok((header, body))
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
            "this is a daemon of libvirt's own, or of another version of Strongroom: only strongroomd's keystore can be \
             locked and unlocked",
        ),
        None => error,
    }
}

fn unreadable(_: Malformed) -> Error {
    Error::new(ErrorCode::Rpc, ErrorDomain::Rpc, "Unable to decode message payload")
}

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
            let (call, body) = receive(&socket).unwrap();
            socket.write_all(&answer(call, &body)).unwrap();
        });
        let admin = Admin::connect(&path).unwrap();
        (directory, admin, serving)
    }

    #[test]
    fn keys_arrive_with_their_kinds() {
        let (_directory, mut admin, serving) = daemon(|call, body| {
            let asked: Unlock<'_> = decode(body).unwrap();
            let seen: Vec<_> = asked.keys.0.iter().map(|key| (key.kind, key.secret.0)).collect();
            assert_eq!(seen, [(1, &b"correct horse"[..]), (3, &[7; 32])]);
            packet(call.reply(Went::Ok), &())
        });
        let keys = [(1, &b"correct horse"[..]), (3, &[7; 32])];
        let keys = keys.map(|(kind, key)| (kind, SecretBytes::copy_of(key).unwrap()));
        admin.unlock(&keys).unwrap();
        serving.join().unwrap();
    }

    #[test]
    fn an_error_comes_with_its_advice() {
        let (_directory, mut admin, _serving) = daemon(|call, _| {
            refusal(call, &Error::not_now("the keystore is locked: wrong passphrase").advise("try another"))
        });
        let error = admin.unlock(&[]).unwrap_err();
        let text = "Requested operation is not valid: the keystore is locked: wrong passphrase";
        assert_eq!((error.to_string().as_str(), error.advice()), (text, Some("try another")));
        assert_eq!(error.code(), ErrorCode::OperationInvalid);
    }

    #[test]
    fn a_daemon_that_says_nothing_is_an_error_that_says_why() {
        let (_directory, mut admin, _serving) = daemon(|_, _| Vec::new());
        let error = admin.lock().unwrap_err();
        assert!(error.to_string().contains("without an answer"), "{error}");
        assert_eq!(error.advice(), Some(FOR_WHOM));
    }
}
