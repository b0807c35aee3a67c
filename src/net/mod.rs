//! Who is at the other end of a byte stream.

pub(crate) mod peer;
pub(crate) mod token;
