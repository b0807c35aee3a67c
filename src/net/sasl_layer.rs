//! The layer that SASL leaves behind: records with their length in front, opened and sealed by Cyrus.
//!
//! Leans on `sasl` for the two operations. Its halves share a connection, one at a time. Refuses records longer than the other
//! end was told to send; and another end that takes so little at a time that what is sealed would grow without measure.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::layer::{Broken, Layer, MAX_RECORD, Open, Seal};
use super::negotiation::SaslError;
use super::sasl::{Conn, too_long};

/// A layer of so many bits on a connection that has agreed upon one, and that takes `most` bytes at a time.
pub(super) fn layer(conn: Conn, bits: u32, most: usize) -> Result<Layer, SaslError> {
    if most < LEAST {
        let detail = format!("the other end takes only {most} bytes at a time, fewer than {LEAST}");
        return Err(SaslError { detail, ..too_long() });
    }
    let conn = Arc::new(Mutex::new(conn));
    Ok(Layer { opener: Box::new(Opener(Arc::clone(&conn))), sealer: Box::new(Sealer { conn, most }), bits })
}

struct Opener(Arc<Mutex<Conn>>);

struct Sealer {
    conn: Arc<Mutex<Conn>>,
    /// How many bytes are sealed at once.
    most: usize,
}

impl Open for Opener {
    fn record(&self, front: &[u8]) -> Result<Option<usize>, Broken> {
        let Some(word) = front.first_chunk() else { return Ok(None) };
        match usize::try_from(u32::from_be_bytes(*word)) {
            Ok(length @ 1..=LONGEST) => Ok(Some(HEAD + length)),
            _ => Err(Broken::Malformed("a SASL record has a length that none has")),
        }
    }

    fn open(&mut self, record: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
        held(&self.0).decode(record, take).map_err(|error| {
            tracing::debug!("{error}");
            Broken::Malformed("a SASL record doesn't open")
        })
    }
}

impl Seal for Sealer {
    fn seal(&mut self, plain: &[&[u8]], sealed: &mut Vec<u8>) -> Result<(), Broken> {
        let conn = held(&self.conn);
        for chunk in plain.iter().flat_map(|part| part.chunks(self.most)) {
            conn.encode(chunk, sealed).map_err(|error| {
                tracing::debug!("{error}");
                Broken::Malformed("SASL doesn't seal")
            })?;
        }
        Ok(())
    }

    fn close(&mut self, _: &mut Vec<u8>) {} // SASL has no word for it
}

fn held(conn: &Mutex<Conn>) -> MutexGuard<'_, Conn> {
    conn.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the other end must take at a time, at least: a record of Kerberos has 60 bytes of its own. libvirt's take 64 KiB.
const LEAST: usize = 1024;

/// The length in front.
const HEAD: usize = 4;

/// The longest record behind it.
const LONGEST: usize = MAX_RECORD - HEAD;
