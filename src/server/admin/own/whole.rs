//! Everything at once, and whole secrets: checking, repairing and copying the keystore, and moving secrets in and out.
//!
//! Leans on the parts of [`own`](super). A secret that is read whole goes out around its value, as over libvirt's
//! protocol; one that is put in is copied from the packet into secret memory. A connection has at most one copy under
//! way, which ends with it. Refuses a definition that is none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::uuid::Uuid;

use super::super::super::outgoing::Outgoing;
use super::super::super::session::{Action, Call, Held, reply};
use super::super::{Calls, failure};
use super::json;
use crate::administration::{Backup, Put, Verified};
use crate::memory::SecretBytes;
use crate::rpc::Text;
use crate::rpc::strongroom::{
    After, Answer, BeforeValue, Found, Length, MAX_UUIDS, Piece, Placed, Uuids, Which, Whole, placed,
};
use crate::rpc::xdr::{Bytes, List};
use crate::secret::{Definition, Error};

/// The copy that a connection has under way, and when it was last asked for a piece.
pub(in crate::server::admin) type Copying = Arc<Mutex<Option<(Box<dyn Backup>, Instant)>>>;

impl Calls {
    pub(super) fn verify(&self, call: &Call<'_>) -> Action {
        self.work(call, Held::Ordinary(0), move |keystore, call| json(call, &brief(keystore.verify()?)))
    }

    pub(super) fn repair(&self, call: &Call<'_>) -> Action {
        let (host, peer) = (Arc::clone(&self.host), self.peer);
        self.work(call, Held::Ordinary(0), move |keystore, call| {
            let mut repaired = keystore.repair()?;
            let (kept, lost) = (repaired.kept, repaired.lost.len() + repaired.without_value.len());
            tracing::warn!("the keystore was repaired: secrets kept whole: {kept}, lost or without value: {lost} ({peer})");
            for lost in &repaired.lost {
                tracing::warn!("lost: secret {} {}", lost.uuid, lost.usage.as_deref().unwrap_or_default());
            }
            for lost in &repaired.without_value {
                tracing::warn!("value lost: secret {} {}", lost.uuid, lost.usage.as_deref().unwrap_or_default());
            }
            host.rotation.look(); // one that stood still may go on
            // An answer has an end; the log has them all.
            repaired.lost.truncate(NAMED);
            repaired.without_value.truncate(NAMED);
            json(call, &repaired)
        })
    }

    pub(super) fn backup(&self, call: &Call<'_>) -> Action {
        let (copying, peer) = (Arc::clone(&self.copying), self.peer);
        let ours = Arc::clone(&copying);
        self.work(call, Held::Ordinary(0), move |keystore, call| {
            let mut copying = copying.lock().unwrap_or_else(PoisonError::into_inner);
            *copying = None; // the one before is given up, whether or not this one begins
            let copy = keystore.backup()?;
            tracing::info!("a sealed copy is taken ({peer})");
            let bytes = copying.insert((copy, Instant::now())).0.total();
            drop(copying);
            end_when_idle(&ours);
            Ok(reply(call, &Length { bytes }))
        })
    }

    pub(super) fn backup_piece(&self, call: &Call<'_>) -> Action {
        let copying = Arc::clone(&self.copying);
        self.work(call, Held::Ordinary(2 << 20), move |_, call| {
            let mut copying = copying.lock().unwrap_or_else(PoisonError::into_inner);
            let Some((copy, asked)) = &mut *copying else {
                return Err(failure::invalid("no copy is under way").advise("begin it again"));
            };
            *asked = Instant::now();
            let piece = copy.next_piece().inspect_err(|error| tracing::warn!("the copy broke off: {error}"));
            if !matches!(piece, Ok(Some(_))) {
                *copying = None;
            }
            Ok(reply(call, &Piece { bytes: Bytes(&piece?.unwrap_or_default()) }))
        })
    }

    pub(super) fn list(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: After = call.read()?;
        let max = usize::try_from(asked.max).unwrap_or(MAX_UUIDS).min(MAX_UUIDS);
        Ok(self.work(call, Held::Ordinary(0), move |keystore, call| {
            let uuids = keystore.list(asked.after.map(Uuid::from_bytes), max)?;
            let uuids = List(uuids.into_iter().map(Uuid::into_bytes).collect());
            Ok(reply(call, &Uuids { uuids }))
        }))
    }

    pub(super) fn read(&self, call: &Call<'_>) -> Result<Action, Error> {
        let asked: Which = call.read()?;
        Ok(self.work(call, Held::Ordinary(0), move |keystore, call| {
            let Some((definition, value)) = keystore.read(Uuid::from_bytes(asked.uuid))? else {
                return Ok(reply(call, &Found { secret: None }));
            };
            let xml = definition.to_xml();
            let xml = Text::from(xml.as_str());
            Ok(match value {
                None => reply(call, &Found { secret: Some(Whole { xml, value: None }) }),
                Some(value) => Outgoing::ending_in(call, &BeforeValue { here: 1, xml, has_value: 1 }, value),
            })
        }))
    }

    pub(super) fn put(&self, call: &Call<'_>) -> Result<Action, Error> {
        let (definition, value, held) = whole(&call.read()?)?;
        Ok(self.work(call, held, move |keystore, call| {
            let (what, other) = match keystore.put(&definition, value.as_ref())? {
                Put::Added => (placed::ADDED, Uuid::nil()),
                Put::Same => (placed::SAME, Uuid::nil()),
                Put::Differs => (placed::DIFFERS, Uuid::nil()),
                Put::UsageTaken(other) => (placed::USAGE_TAKEN, other),
            };
            Ok(reply(call, &Placed { what, other: other.into_bytes() }))
        }))
    }

    pub(super) fn holds(&self, call: &Call<'_>) -> Result<Action, Error> {
        let (definition, value, held) = whole(&call.read()?)?;
        Ok(self.work(call, held, move |keystore, call| {
            let yes = keystore.holds(&definition, value.as_ref())?;
            Ok(reply(call, &Answer { yes: yes.into() }))
        }))
    }
}

/// Gives a copy up that nobody takes: as long as it lasts, what is superseded can't be wiped.
fn end_when_idle(copying: &Copying) {
    let copying = Arc::downgrade(copying);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LONGEST_IDLENESS).await;
            let Some(copying) = copying.upgrade() else { return };
            let mut copying = copying.lock().unwrap_or_else(PoisonError::into_inner);
            match &*copying {
                Some((_, asked)) if asked.elapsed() < LONGEST_IDLENESS => {}
                Some(_) => {
                    tracing::warn!(
                        "a copy of the keystore is given up: nobody has taken a piece of it for a minute"
                    );
                    *copying = None;
                    return;
                }
                None => return,
            }
        }
    });
}

/// A secret, in memory of its own.
fn whole(asked: &Whole<'_>) -> Result<(Definition, Option<SecretBytes>, Held), Error> {
    let definition = Definition::from_xml(asked.xml.0, false)?;
    let value = asked.value.map(|value| SecretBytes::copy_of(value.0)).transpose()?;
    // The value, and the frame that it is sealed in or the one that it is compared with.
    let held = value.as_ref().map_or(0, |value| 2 * value.len().next_power_of_two());
    Ok((definition, value, Held::Secret(held)))
}

/// Of very many secrets, only those with which something is wrong: an answer has an end.
fn brief(mut verified: Verified) -> Verified {
    if verified.secrets.len() > NAMED {
        verified.secrets.retain(|secret| !secret.state.is_sound());
    }
    verified
}

/// How long a copy waits for who takes it.
const LONGEST_IDLENESS: Duration = Duration::from_secs(60);

/// So many secrets are named one by one when all is well with them.
const NAMED: usize = 10_000;
