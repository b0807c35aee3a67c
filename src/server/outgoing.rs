//! Packets on their way out: in ordinary memory, or around a value that stays in secret memory until the kernel has it.
//!
//! Leans on `rpc` for the bytes, on `net` for the layer of an encrypted stream. Refuses to copy a value: it is sent from
//! where it was opened, or sealed from there, and wiped when it is gone; and to take more for a client whose socket has no room.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use secrecy::ExposeSecret;
use tokio::io::Interest;

use super::stream::Stream;
use super::transit::{Load, Transit};
use crate::memory::SecretBytes;
use crate::net::layer::{Broken, Seal};
use crate::rpc::{Encode, Header, Status, packet};

/// What one client is to be sent: replies and events, oldest first.
pub(super) struct Outbound {
    packets: VecDeque<Outgoing>,
    transit: Arc<Transit>,
    /// What they hold of memory.
    load: Vec<Load>,
    /// What goes is sealed by it, if the stream is encrypted.
    sealer: Option<Box<dyn Seal>>,
    /// What was sent since the socket was last known to have room for a whole value.
    unchecked: usize,
}

impl Outbound {
    /// On a stream that isn't encrypted, as yet.
    pub(super) fn bare(transit: Arc<Transit>) -> Self {
        Self { packets: VecDeque::new(), transit, load: Vec::new(), sealer: None, unchecked: 0 }
    }

    /// From here on it is; what is queued already goes as it is.
    pub(super) fn secure(&mut self, sealer: Box<dyn Seal>) {
        self.packets.iter_mut().for_each(Outgoing::settle);
        self.sealer = Some(sealer);
    }

    pub(super) fn push(&mut self, packet: Outgoing) {
        self.packets.push_back(packet);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many bytes are still to be sent.
    pub(super) fn missing(&self) -> usize {
        self.packets.iter().map(Outgoing::missing).sum()
    }

    /// Sends as much as the socket takes. Err: why nothing can be sent any more.
    pub(super) fn send(&mut self, stream: &Stream) -> Result<(), &'static str> {
        while let Some(packet) = self.packets.front_mut() {
            if let Some(sealer) = &mut self.sealer {
                packet.seal(sealer.as_mut()).map_err(|_| "its stream can't be sealed any more")?;
            }
            match stream.try_write_vectored(&packet.rest()) {
                Ok(0) => return Err("it closed"),
                Ok(sent) => {
                    self.unchecked += sent + OVERHEAD;
                    if packet.advance(sent) {
                        self.packets.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err("it closed"),
            }
        }
        let load = |packet: &Outgoing| match packet.is_secret() {
            true => self.transit.secret(packet.len().next_power_of_two()),
            false => self.transit.ordinary(packet.len()),
        };
        self.load = self.packets.iter().map(load).collect();
        Ok(())
    }

    /// Whether the socket takes a whole value at once, so that none has to wait here. A client that sends calls and reads
    /// no replies is not answered any more before it has.
    pub(super) fn has_room(&mut self, stream: &Stream) -> bool {
        if !self.packets.is_empty() {
            return false;
        }
        if self.unchecked > MOST_UNCHECKED {
            // The kernel calls it writable if three quarters of it are free: the runtime, until a write has failed.
            let ask = || match rustix::event::poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&NOW)) {
                Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                Ok(_) | Err(_) => Ok(()),
            };
            if stream.try_io(Interest::WRITABLE, ask).is_err() {
                return false;
            }
            self.unchecked = 0;
        }
        true
    }

    /// Says that no more will come, if the stream has a word for it and nothing lies before it.
    pub(super) fn say_goodbye(&mut self, stream: &Stream) {
        if let Some(sealer) = self.sealer.as_mut().filter(|_| self.packets.is_empty()) {
            let mut goodbye = Vec::new();
            sealer.close(&mut goodbye);
            _ = stream.try_write_vectored(&[IoSlice::new(&goodbye)]);
        }
    }
}

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
    fn is_secret(&self) -> bool {
        self.value.is_some()
    }

    /// How many bytes it has in all.
    pub(super) fn len(&self) -> usize {
        self.front.len() + self.value.as_ref().map_or(0, SecretBytes::len) + self.pad
    }

    /// How many of them are still to be sent.
    fn missing(&self) -> usize {
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
    fn seal(&mut self, sealer: &mut dyn Seal) -> Result<(), Broken> {
        if !self.settled {
            let mut sealed = Vec::new();
            sealer.seal(&self.parts(), &mut sealed)?;
            *self = Self { settled: true, ..sealed.into() };
        }
        Ok(())
    }

    /// It goes as it is, whatever comes behind it.
    fn settle(&mut self) {
        self.settled = true;
    }

    /// So many bytes more were sent. Whether that is all.
    fn advance(&mut self, sent: usize) -> bool {
        self.sent += sent;
        self.sent >= self.len()
    }
}

impl From<Vec<u8>> for Outgoing {
    fn from(packet: Vec<u8>) -> Self {
        Self { front: packet, value: None, pad: 0, sent: 0, settled: false }
    }
}

/// What is sent before the socket is asked whether it has room: with it, and with the quarter that may be full when it says
/// that it has, two of the largest values still fit.
const MOST_UNCHECKED: usize = 32 << 10;

/// What the kernel adds to a packet, about.
const OVERHEAD: usize = 768;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

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
