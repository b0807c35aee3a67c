//! Our own program on the admin socket: how the keystore stands, unlocking it, locking it.
//!
//! All three may wait, for Argon2 or for calls under way, so they run where that is no harm; tries to unlock go one after
//! the other in the driver. A key is copied from the packet into secret memory of its own. Leans on `driver`. Refuses
//! kinds of keys that it doesn't know; puts who tried, and whether it went well, into the log, and nothing of the key.

use std::sync::Arc;

use super::super::failure::{no_procedure, unencodable};
use super::super::session::{Action, Call, Held, reply};
use super::{Calls, failure};
use crate::driver::Keys;
use crate::memory::SecretBytes;
use crate::rpc::Text;
use crate::rpc::strongroom::{self, key, procedure};
use crate::secret::Error;

impl Calls {
    pub(super) fn own(&self, call: &Call<'_>) -> Result<Action, Error> {
        match call.header.procedure {
            procedure::STATUS => Ok(self.status(call)),
            procedure::UNLOCK => self.unlock(call),
            procedure::LOCK => Ok(self.lock(call)),
            _ => Err(no_procedure(&call.header)),
        }
    }

    fn status(&self, call: &Call<'_>) -> Action {
        let driver = Arc::clone(&self.host.secrets.driver);
        Action::work(call.header, self.peer, Held::Ordinary(0), move |call| {
            let json = serde_json::to_string_pretty(&driver.status())
                .ok()
                .filter(|json| json.len() <= Text::MAX)
                .ok_or_else(unencodable)?;
            Ok(reply(call, &strongroom::Status { json: json.as_str().into() }))
        })
    }

    fn unlock(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: strongroom::Unlock<'_> = call.read()?;
        let keys = keys(&asked)?;
        // The keys, and the copies that are tried.
        let held = asked.keys.0.iter().map(|key| 2 * key.secret.0.len().next_power_of_two()).sum();
        let (driver, peer) = (Arc::clone(&self.host.secrets.driver), self.peer);
        Ok(Action::work(call.header, peer, Held::Secret(held), move |call| {
            driver.unlock(&keys).inspect_err(|error| {
                tracing::warn!("a try to unlock the keystore failed: {} ({peer})", error.detail());
            })?;
            tracing::info!("the keystore is unlocked ({peer})");
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

/// What was given, in memory of its own.
fn keys(asked: &strongroom::Unlock<'_>) -> Result<Keys, Error> {
    let mut keys = Keys::default();
    for given in &asked.keys.0 {
        let place = match given.kind {
            key::PASSPHRASE => &mut keys.passphrase,
            key::RECOVERY => &mut keys.recovery_key,
            key::HOST => &mut keys.host_key_bytes,
            other => {
                return Err(failure::invalid(format!("there is no key of kind {other}"))
                    .advise("the daemon is older than who calls it: see that both are of one version"));
            }
        };
        if place.replace(SecretBytes::copy_of(given.secret.0)?).is_some() {
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
    use crate::rpc::xdr::List;

    fn read(given: &[(u32, &'static [u8])]) -> Result<Keys, String> {
        let of = |&(kind, secret): &(u32, &'static [u8])| strongroom::Key { kind, secret: Value(secret) };
        let asked = strongroom::Unlock { keys: List(given.iter().map(of).collect()) };
        keys(&asked).map_err(|error| error.to_string())
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
        assert_eq!(read(&[(4, b"x")]).unwrap_err(), "invalid argument: there is no key of kind 4");
        assert_eq!(
            read(&[(key::HOST, b"x"), (key::HOST, b"y")]).unwrap_err(),
            "invalid argument: two keys of one kind were given"
        );
    }
}
