//! What lies between a socket's bytes and packets where a stream is encrypted: records that are opened, and sealed.
//!
//! Two layers are there: TLS and SASL. Both cut the stream into records whose length stands in front, and both have two
//! halves that different threads may hold. A record is read whole, into secret memory, before it is opened, so that
//! plaintext has its place from its first byte on; what is sealed lies in ordinary memory. Leans on nothing. Refuses to
//! go on after a record that doesn't open: an attacker may have made it.

use std::fmt;

/// An encrypted stream's two halves.
pub(crate) struct Layer {
    /// For what comes.
    pub(crate) opener: Box<dyn Open>,
    /// For what goes.
    pub(crate) sealer: Box<dyn Seal>,
    /// The bits of the key that it is encrypted with, as a security strength factor: 0 if it only authenticates.
    pub(crate) bits: u32,
}

/// Opens the records that come.
pub(crate) trait Open: Send {
    /// How long the record is that begins with `front`, its own head included. `None`: too little is there to say. Never
    /// more than [`MAX_RECORD`].
    fn record(&self, front: &[u8]) -> Result<Option<usize>, Broken>;

    /// Opens one whole record, in its place or elsewhere, and hands what was in it to `take`, in one or more parts or in none.
    /// `record` may hold plaintext afterwards: it is the caller's to wipe.
    fn open(&mut self, record: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken>;
}

/// Seals what goes.
pub(crate) trait Seal: Send {
    /// Appends records to `sealed` that hold the parts of `plain`, one behind the other.
    fn seal(&mut self, plain: &[&[u8]], sealed: &mut Vec<u8>) -> Result<(), Broken>;

    /// Appends what says that nothing more will come, if the layer has a word for it.
    fn close(&mut self, sealed: &mut Vec<u8>);
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The other end has said that it ends.
    Closed,
    /// What came is no record, or one that doesn't open.
    Malformed(&'static str),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other end has closed it"),
            Self::Malformed(what) => f.write_str(what),
        }
    }
}

/// The longest record of any layer, its head included: TLS 1.2's (RFC 5246, 6.2.3). SASL's peers are told to keep to it.
pub(crate) const MAX_RECORD: usize = 5 + (16 << 10) + 2048;
