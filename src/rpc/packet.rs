//! A packet: four bytes of length, six words of header, a body.
//!
//! | offset | size | field | |
//! |---|---|---|---|
//! | 0 | 4 | length | of the whole packet, these four bytes included |
//! | 4 | 4 | program | |
//! | 8 | 4 | version | |
//! | 12 | 4 | procedure | signed |
//! | 16 | 4 | kind | [`Kind`] |
//! | 20 | 4 | serial | chosen by the caller, echoed in the reply |
//! | 24 | 4 | status | [`Status`] |
//! | 28 | | body | XDR |
//!
//! Leans on `xdr`, and on `memory` for packets that carry values. Refuses lengths that no packet has; keeps unknown
//! kinds and statuses as they are.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::xdr::{Count, Decode, Encode, Malformed, Reader, Sink, padding};
use crate::memory::{Exhausted, SecretBytes};

/// The bytes before the body: length and header.
pub const HEAD: usize = 28;

/// The longest packet, its length included: 32 MiB and four bytes.
pub const MAX_PACKET: usize = (32 << 20) + 4;

/// The most file descriptors that may come with a packet.
pub const MAX_FDS: u32 = 32;

/// A length that no packet has. The stream can't be followed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no packet is {0} bytes long")]
pub struct BadLength(pub u32);

/// How long a packet is, from its first four bytes.
pub fn packet_length(word: [u8; 4]) -> Result<usize, BadLength> {
    let length = u32::from_be_bytes(word);
    match usize::try_from(length) {
        Ok(bytes @ HEAD..=MAX_PACKET) => Ok(bytes),
        _ => Err(BadLength(length)),
    }
}

/// What stands before every body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which protocol.
    pub program: u32,
    /// Its version.
    pub version: u32,
    /// Which call or event.
    pub procedure: i32,
    /// Call, reply, event, …
    pub kind: Kind,
    /// Chosen by the caller; the reply has the same.
    pub serial: u32,
    /// Whether a reply is a result or an error.
    pub status: Status,
}

impl Header {
    /// The header of the reply to this call.
    pub fn reply(self, status: Status) -> Self {
        Self { kind: Kind::Reply, status, ..self }
    }
}

impl Decode<'_> for Header {
    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            program: u32::decode(from)?,
            version: u32::decode(from)?,
            procedure: i32::decode(from)?,
            kind: Kind::from_number(u32::decode(from)?),
            serial: u32::decode(from)?,
            status: Status::from_number(u32::decode(from)?),
        })
    }
}

impl Encode for Header {
    fn encode<S: Sink>(&self, to: &mut S) {
        self.program.encode(to);
        self.version.encode(to);
        self.procedure.encode(to);
        self.kind.number().encode(to);
        self.serial.encode(to);
        self.status.number().encode(to);
    }
}

/// Words with names, unknown ones kept.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $number:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$word_doc])* $word,)*
            /// None of these.
            Other(u32),
        }

        impl $name {
            fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$word,)*
                    other => Self::Other(other),
                }
            }

            /// As it stands on the wire.
            pub fn number(self) -> u32 {
                match self {
                    $(Self::$word => $number,)*
                    Self::Other(other) => other,
                }
            }
        }
    };
}

words! {
    /// What kind of packet it is.
    Kind {
        /// A client asks.
        Call = 0,
        /// The server answers.
        Reply = 1,
        /// Events and keepalive, either way.
        Message = 2,
        /// Part of a stream; no secret procedure has one.
        Stream = 3,
        /// A call with file descriptors.
        CallWithFds = 4,
        /// A reply with file descriptors.
        ReplyWithFds = 5,
        /// A hole in a stream.
        StreamHole = 6,
    }
}

words! {
    /// How it went.
    Status {
        /// Well; the body is the result. Always so in calls and messages.
        Ok = 0,
        /// Not well; the body is an error.
        Error = 1,
        /// A stream goes on.
        Continue = 2,
    }
}

/// A whole packet with this body, in ordinary memory. For bodies with a value there is [`secret_packet`].
///
/// [`secret_packet`]: super::secret_packet
pub fn packet(header: Header, body: &impl Encode) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    header.encode(&mut bytes);
    body.encode(&mut bytes);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
    if let Some(word) = bytes.first_chunk_mut() {
        *word = length;
    }
    bytes
}

/// A whole packet with this body, in secret memory.
pub fn secret_packet(header: Header, body: &impl Encode) -> Result<SecretBytes, Exhausted> {
    let mut length = Count(HEAD);
    body.encode(&mut length);
    let mut packet = SecretSink { bytes: SecretBytes::zeroed(length.0)?, at: 0 };
    u32::try_from(length.0).unwrap_or(u32::MAX).encode(&mut packet);
    header.encode(&mut packet);
    body.encode(&mut packet);
    Ok(packet.bytes)
}

/// What stands before a value of `length` bytes at the end of a reply, behind what else it tells, and how many zero bytes
/// follow it: so that the value is sent from where it lies.
pub fn around_value(header: Header, before: &impl Encode, length: usize) -> (Vec<u8>, usize) {
    let pad = padding(length);
    let mut count = Count(HEAD);
    before.encode(&mut count);
    let front_len = count.0.saturating_add(4);
    let whole = front_len.saturating_add(length).saturating_add(pad);
    let mut front = Vec::with_capacity(front_len);
    u32::try_from(whole).unwrap_or(u32::MAX).encode(&mut front);
    header.encode(&mut front);
    before.encode(&mut front);
    u32::try_from(length).unwrap_or(u32::MAX).encode(&mut front);
    (front, pad)
}

/// Writes into secret memory of the right size.
struct SecretSink {
    bytes: SecretBytes,
    at: usize,
}

impl Sink for SecretSink {
    fn put(&mut self, bytes: &[u8]) {
        self.bytes.overwrite(self.at, bytes);
        self.at = self.at.saturating_add(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::xdr::{Text, Value};
    use secrecy::ExposeSecret;

    #[test]
    fn a_header_reads_as_it_was_written() {
        let header = Header {
            program: 0x2000_8086,
            version: 1,
            procedure: -3,
            kind: Kind::Other(77),
            serial: 9,
            status: Status::Error,
        };
        let bytes = packet(header, &Text(b"abc"));
        assert_eq!(bytes.len(), HEAD + 8);
        assert_eq!(packet_length(*bytes.first_chunk().unwrap()), Ok(bytes.len()));
        assert_eq!(Header::decode(&mut Reader::new(&bytes[4..])), Ok(header));
        for cut in 4..HEAD {
            assert_eq!(Header::decode(&mut Reader::new(&bytes[4..cut])), Err(Malformed));
        }
    }

    #[test]
    fn a_packet_with_a_value_is_the_same_in_secret_memory_and_in_parts() {
        let header = Header {
            program: 1,
            version: 1,
            procedure: 145,
            kind: Kind::Reply,
            serial: 3,
            status: Status::Ok,
        };
        for value in [&b"a"[..], b"four", &[7; 999]] {
            let plain = packet(header, &Value(value));
            assert_eq!(secret_packet(header, &Value(value)).unwrap().expose_secret(), plain);
            let (front, pad) = around_value(header, &(), value.len());
            assert_eq!([&front[..], value, &vec![0; pad]].concat(), plain);
        }
    }

    #[test]
    fn only_lengths_that_packets_have_are_taken() {
        for (word, expected) in [
            (0, Err(BadLength(0))),
            (4, Err(BadLength(4))),
            (27, Err(BadLength(27))),
            (28, Ok(28)),
            (33_554_436, Ok(33_554_436)),
            (33_554_437, Err(BadLength(33_554_437))),
            (u32::MAX, Err(BadLength(u32::MAX))),
        ] {
            assert_eq!(packet_length(u32::to_be_bytes(word)), expected);
        }
    }
}
