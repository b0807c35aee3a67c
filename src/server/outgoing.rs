//! A packet on its way out: in ordinary memory, or around a value that stays in secret memory until the kernel has it.
//!
//! Leans on `rpc` for the bytes, on `net` for the layer of an encrypted stream. Refuses to copy a value: it is sent from
//! where it was opened, or sealed from there, and wiped when it is gone.

use std::io::IoSlice;

use secrecy::ExposeSecret;

use crate::memory::SecretBytes;
use crate::net::layer::{Broken, Seal};
use crate::rpc::{Encode, Header, Status, packet};

/// A packet, and how much of it is sent.
pub(super) struct Outgoing {
    front: Vec<u8>,
    value: Option<SecretBytes>,
    pad: usize,
    sent: usize,
    /// It goes as it is: sealed already, or from before there was a layer.
    settled: bool,
}

impl Outgoing {
    /// The reply to a call whose result is nothing but a value.
    pub(super) fn value(call: Header, value: SecretBytes) -> Self {
        Self::ending_in(call, &(), value)
    }

    /// The reply to a call whose result ends in a value.
    pub(super) fn ending_in(call: Header, before: &impl Encode, value: SecretBytes) -> Self {
        let (front, pad) = packet::around_value(call.reply(Status::Ok), before, value.len());
        Self { front, value: Some(value), pad, sent: 0, settled: false }
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
        let mut skip = self.sent;
        self.parts().map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            IoSlice::new(&part[from..])
        })
    }

    fn parts(&self) -> [&[u8]; 3] {
        let value = self.value.as_ref().map_or(&[][..], ExposeSecret::expose_secret);
        [&self.front, value, &[0; 3][..self.pad]]
    }

    /// Becomes records of a layer, unless it is settled. Of a value nothing is left here then.
    pub(super) fn seal(&mut self, sealer: &mut dyn Seal) -> Result<(), Broken> {
        if !self.settled {
            let mut sealed = Vec::new();
            sealer.seal(&self.parts(), &mut sealed)?;
            *self = Self { settled: true, ..sealed.into() };
        }
        Ok(())
    }

    /// It goes as it is, whatever comes behind it.
    #[cfg(feature = "sasl")]
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// So many bytes more were sent. Whether that is all.
    pub(super) fn advance(&mut self, sent: usize) -> bool {
        self.sent += sent;
        self.sent >= self.len()
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(packet: Vec<u8>) -> Self {
        Self { front: packet, value: None, pad: 0, sent: 0, settled: false }
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
