//! Keepalive: a ping, a pong, and how to tell them.
//!
//! Both ways, at any time, before authentication too. Leans on `packet`. Refuses nothing: unknown procedures of this program
//! are for the receiver to swallow.

use super::packet::{Header, Kind, Status, packet};
use super::program;

/// A ping or a pong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// "Are you there?"
    Ping,
    /// "I am."
    Pong,
}

impl Beat {
    /// What this header is, if it is of the keepalive program and one of the two.
    pub fn of(header: &Header) -> Option<Self> {
        match (header.program, header.version, header.kind, header.procedure) {
            (program::KEEPALIVE, 1, Kind::Message, 1) => Some(Self::Ping),
            (program::KEEPALIVE, 1, Kind::Message, 2) => Some(Self::Pong),
            _ => None,
        }
    }

    /// The packet.
    pub fn packet(self) -> Vec<u8> {
        let procedure = match self {
            Self::Ping => 1,
            Self::Pong => 2,
        };
        let (program, kind) = (program::KEEPALIVE, Kind::Message);
        packet(Header { program, version: 1, procedure, kind, serial: 0, status: Status::Ok }, &())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::xdr::{Decode, Reader};

    #[test]
    fn a_beat_is_a_bare_packet_of_28_bytes() {
        for beat in [Beat::Ping, Beat::Pong] {
            let bytes = beat.packet();
            assert_eq!(bytes.len(), 28);
            assert_eq!(Beat::of(&Header::decode(&mut Reader::new(&bytes[4..])).unwrap()), Some(beat));
        }
    }
}
