//! Our own program on the admin socket: what the one who runs a keystore asks of it.
//!
//! [`keys`] is about slots, the root key and the epoch, [`whole`] about everything at once and about whole secrets;
//! here are the keystore's standing, unlocking and locking. All may wait, for Argon2, for the disk or for calls under
//! way, so they run where that is no harm. A key is copied from the packet into secret memory of its own. Leans on
//! `driver`. Refuses kinds of keys that it doesn't know; puts who did what, and whether it went well, into the log,
//! and nothing of a key or a value.

mod keys;
mod whole;

use std::sync::Arc;

use serde::Serialize;

pub(super) use whole::Copying;

use super::super::failure::{no_procedure, unencodable};
use super::super::outgoing::Outgoing;
use super::super::session::{Action, Call, Held, reply};
use super::{Calls, failure};
use crate::administration::{Administration, Key};
use crate::driver::{Administrator, Keys};
use crate::memory::SecretBytes;
use crate::rpc::strongroom::{self, key, procedure};
use crate::rpc::{Header, Text};
use crate::secret::Error;

impl Calls {
    pub(super) fn own(&self, call: &Call<'_>) -> Result<Action, Error> {
        match call.header.procedure {
            procedure::STATUS => {
                Ok(self.work(call, Held::Ordinary(0), |keystore, call| json(call, &keystore.status()?)))
            }
            procedure::UNLOCK => self.unlock(call),
            procedure::LOCK => Ok(self.lock(call)),
            procedure::KEY_ADD => self.add_key(call),
            procedure::KEY_CHANGE => self.change_key(call),
            procedure::KEY_REMOVE => self.remove_key(call),
            procedure::KEY_TEST => self.test_key(call),
            procedure::KEYRING => Ok(self.keyring(call)),
            procedure::REKEY => self.rekey(call),
            procedure::ROTATE => Ok(self.rotate(call)),
            procedure::VERIFY => Ok(self.verify(call)),
            procedure::REPAIR => Ok(self.repair(call)),
            procedure::BACKUP => Ok(self.backup(call)),
            procedure::BACKUP_PIECE => Ok(self.backup_piece(call)),
            procedure::LIST => self.list(call),
            procedure::READ => self.read(call),
            procedure::PUT => self.put(call),
            procedure::HOLDS => self.holds(call),
            _ => Err(no_procedure(&call.header)),
        }
    }

    /// A call on the keystore that may wait.
    fn work(
        &self,
        call: &Call<'_>,
        held: Held,
        run: impl FnOnce(&dyn Administration, Header) -> Result<Outgoing, Error> + Send + 'static,
    ) -> Action {
        let keystore = Administrator(Arc::clone(&self.host.secrets.driver));
        Action::work(call.header, self.peer, held, move |call| run(&keystore, call))
    }

    fn unlock(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: strongroom::Unlock<'_> = call.read()?;
        let keys = to_unlock_with(given(&asked.keys.0)?)?;
        let (host, peer) = (Arc::clone(&self.host), self.peer);
        Ok(Action::work(call.header, peer, held(&asked.keys.0), move |call| {
            host.secrets.driver.unlock(&keys).inspect_err(|error| {
                tracing::warn!("a try to unlock the keystore failed: {} ({peer})", error.detail());
            })?;
            tracing::info!("the keystore is unlocked ({peer})");
            host.rotation.look();
            Ok(reply(call, &()))
        }))
    }

    fn lock(&self, call: &Call<'_>) -> Action {
        let (driver, peer) = (Arc::clone(&self.host.secrets.driver), self.peer);
        Action::work(call.header, peer, Held::Ordinary(0), move |call| {
            driver.lock()?;
            tracing::warn!("the keystore is locked ({peer}); strongroom unlock opens it");
            Ok(reply(call, &()))
        })
    }
}

/// An answer in JSON.
fn json(call: Header, content: &impl Serialize) -> Result<Outgoing, Error> {
    let json = serde_json::to_string_pretty(content).ok().filter(|json| json.len() <= Text::MAX);
    let json = json.ok_or_else(unencodable)?;
    Ok(reply(call, &strongroom::Json { json: json.as_str().into() }))
}

/// What was given, in memory of its own.
fn given(asked: &[strongroom::Key<'_>]) -> Result<Vec<Key>, Error> {
    asked.iter().map(given_key).collect()
}

fn given_key(asked: &strongroom::Key<'_>) -> Result<Key, Error> {
    let secret = SecretBytes::copy_of(asked.secret.0)?;
    match asked.kind {
        key::PASSPHRASE => Ok(Key::Passphrase(secret)),
        key::RECOVERY => Ok(Key::Recovery(secret)),
        key::HOST => Ok(Key::Host(secret)),
        key::CREDENTIAL => Ok(Key::Credential(secret)),
        other => Err(failure::invalid(format!("there is no key of kind {other}"))
            .advise("the daemon is older than who calls it: see that both are of one version")),
    }
}

/// What a call with keys holds: they, and the copies that are tried.
fn held(asked: &[strongroom::Key<'_>]) -> Held {
    Held::Secret(asked.iter().map(|key| 2 * key.secret.0.len().next_power_of_two()).sum())
}

/// One key of each kind.
fn to_unlock_with(given: Vec<Key>) -> Result<Keys, Error> {
    let mut keys = Keys::default();
    for key in given {
        let (place, secret) = match key {
            Key::Passphrase(secret) => (&mut keys.passphrase, secret),
            Key::Recovery(secret) => (&mut keys.recovery_key, secret),
            Key::Host(secret) | Key::Credential(secret) => (&mut keys.host_key_bytes, secret),
        };
        if place.replace(secret).is_some() {
            return Err(failure::invalid("two keys of one kind were given").advise("give one at a time"));
        }
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;
    use crate::rpc::Value;

    fn read(given: &[(u32, &'static [u8])]) -> Result<Keys, String> {
        let of = |&(kind, secret): &(u32, &'static [u8])| strongroom::Key { kind, secret: Value(secret) };
        let asked: Vec<_> = given.iter().map(of).collect();
        super::given(&asked).and_then(to_unlock_with).map_err(|error| error.to_string())
    }

    #[test]
    fn each_key_goes_to_its_place() {
        let given = read(&[(key::HOST, b"h"), (key::PASSPHRASE, b"p"), (key::RECOVERY, b"r")]).unwrap();
        let seen = |key: Option<SecretBytes>| key.unwrap().expose_secret().to_vec();
        assert_eq!(seen(given.host_key_bytes), b"h");
        assert_eq!((seen(given.passphrase), seen(given.recovery_key)), (b"p".to_vec(), b"r".to_vec()));
        assert!(given.host_key.is_none(), "no path comes from a client");
    }

    #[test]
    fn keys_of_another_kind_or_given_twice_are_refused() {
        assert_eq!(read(&[(5, b"x")]).unwrap_err(), "invalid argument: there is no key of kind 5");
        assert_eq!(
            read(&[(key::HOST, b"x"), (key::HOST, b"y")]).unwrap_err(),
            "invalid argument: two keys of one kind were given"
        );
    }
}
