//! A packet on its way out: in ordinary memory, or around a value that stays in secret memory until the kernel has it.
//!
//! Leans on `rpc` for the bytes. Refuses to copy a value: it is sent from where it was opened, and wiped when it is gone.

use std::io::IoSlice;

use secrecy::ExposeSecret;

use crate::memory::SecretBytes;
use crate::rpc::{Encode, Header, Status, packet};

/// A packet, and how much of it is sent.
pub(super) struct Outgoing {
    front: Vec<u8>,
    value: Option<SecretBytes>,
    pad: usize,
    sent: usize,
}

impl Outgoing {
    /// The reply to a call whose result is nothing but a value.
    pub(super) fn value(call: Header, value: SecretBytes) -> Self {
        Self::ending_in(call, &(), value)
    }

    /// The reply to a call whose result ends in a value.
    pub(super) fn ending_in(call: Header, before: &impl Encode, value: SecretBytes) -> Self {
        let (front, pad) = packet::around_value(call.reply(Status::Ok), before, value.len());
        Self { front, value: Some(value), pad, sent: 0 }
    }

    /// Whether it holds secret memory.
    pub(super) fn is_secret(&self) -> bool {
        self.value.is_some()
    }

    /// How many bytes it has in all.
    pub(super) fn len(&self) -> usize {
        self.front.len() + self.value.as_ref().map_or(0, SecretBytes::len) + self.pad
    }

    /// How many of them are still to be sent.
    pub(super) fn missing(&self) -> usize {
        self.len() - self.sent
    }

    /// What is still to be sent.
    pub(super) fn rest(&self) -> [IoSlice<'_>; 3] {
        let value = self.value.as_ref().map_or(&[][..], ExposeSecret::expose_secret);
        let mut skip = self.sent;
        [&self.front, value, &[0; 3][..self.pad]].map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            IoSlice::new(&part[from..])
        })
    }

    /// So many bytes more were sent. Whether that is all.
    pub(super) fn advance(&mut self, sent: usize) -> bool {
        self.sent += sent;
        self.sent >= self.len()
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(packet: Vec<u8>) -> Self {
        Self { front: packet, value: None, pad: 0, sent: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::{Kind, Value, program};

    #[test]
    fn a_reply_sent_byte_by_byte_is_the_whole_packet() {
        let call = Header {
            program: program::REMOTE,
            version: 1,
            procedure: 145,
            kind: Kind::Call,
            serial: 4,
            status: Status::Ok,
        };
        let mut reply = Outgoing::value(call, SecretBytes::copy_of(b"seven b").unwrap());
        let mut sent = Vec::new();
        loop {
            let byte = reply.rest().iter().find_map(|part| part.first().copied()).unwrap();
            sent.push(byte);
            if reply.advance(1) {
                break;
            }
        }
        assert_eq!(sent, packet(call.reply(Status::Ok), &Value(b"seven b")));
    }
}
