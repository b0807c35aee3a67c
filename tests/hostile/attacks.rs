//! What an enemy does to a daemon: each way alone, over a socket of its own, in its own time.
//!
//! Leans on `support::wire` for packets that are right as far as they should be. Refuses to wait for the daemon: an enemy's
//! writes end when the socket is full, and what it holds open it holds without reading.

use std::collections::VecDeque;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use uuid::Uuid;

use super::support::wire::{self, KEEPALIVE, REMOTE, Xdr, number};
use super::support::{Dice, Place};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attack {
    RandomBytes,
    RandomLength,
    HalfAPacketThenSilence,
    HalfAPacketThenTheEnd,
    EndlessPacket,
    LargestDefinitions,
    HalfAValueHeld,
    ValuesNeverRead,
    ValuesReadSlowly,
    ListsNeverRead,
    CallsNeverRead,
    EventsNeverRead,
    Descriptors,
    Streams,
    ConnectAndClose,
    PingsNeverRead,
    ReadOnlyRefused,
    ClosedAmidACall,
    HalfClosed,
    Identities,
}

impl Attack {
    pub(crate) const ALL: [Self; 20] = [
        Self::RandomBytes,
        Self::RandomLength,
        Self::HalfAPacketThenSilence,
        Self::HalfAPacketThenTheEnd,
        Self::EndlessPacket,
        Self::LargestDefinitions,
        Self::HalfAValueHeld,
        Self::ValuesNeverRead,
        Self::ValuesReadSlowly,
        Self::ListsNeverRead,
        Self::CallsNeverRead,
        Self::EventsNeverRead,
        Self::Descriptors,
        Self::Streams,
        Self::ConnectAndClose,
        Self::PingsNeverRead,
        Self::ReadOnlyRefused,
        Self::ClosedAmidACall,
        Self::HalfClosed,
        Self::Identities,
    ];
}

/// One hostile client. What it has opened and not closed stays open as long as it lives.
pub(crate) struct Enemy {
    pub(crate) place: Place,
    pub(crate) dice: Dice,
    /// A secret with a value of the largest size.
    pub(crate) large: Uuid,
    /// One whose value this enemy may change.
    pub(crate) own: Uuid,
    held: VecDeque<UnixStream>,
}

impl Enemy {
    pub(crate) fn new(place: &Place, dice: Dice, large: Uuid, own: Uuid) -> Self {
        Self { place: place.clone(), dice, large, own, held: VecDeque::new() }
    }

    /// Does it once. The daemon may hang up at any time, or let nobody in: then it is over.
    pub(crate) fn attack(&mut self, attack: Attack) {
        match attack {
            Attack::RandomBytes => {
                let (mut stream, length) = (some!(self.stranger()), self.dice.roll(100_000));
                let bytes = self.bytes(length);
                put(&mut stream, &bytes);
            }
            Attack::RandomLength => {
                let mut stream = some!(self.stranger());
                for _ in 0..20 {
                    let length = self.dice.roll(200);
                    let body = self.bytes(length);
                    let mut packet = wire::packet(REMOTE, self.procedure(), 0, 1, 0, &body);
                    let length = match self.dice.roll(3) {
                        0 => self.dice.roll(1 << 32),
                        1 => self.dice.roll(400),
                        _ => (32 << 20) + self.dice.roll(9),
                    };
                    packet[..4].copy_from_slice(&(length as u32).to_be_bytes());
                    put(&mut stream, &packet);
                }
                self.hold(stream);
            }
            Attack::HalfAPacketThenSilence | Attack::HalfAPacketThenTheEnd => {
                let mut stream = some!(self.stranger());
                let packet = self.call_with(600);
                let half = self.dice.roll(packet.len() as u64) as usize;
                put(&mut stream, &packet[..half]);
                if attack == Attack::HalfAPacketThenSilence {
                    self.hold(stream);
                }
            }
            Attack::EndlessPacket => self.send_an_endless_packet(),
            Attack::LargestDefinitions => self.define_the_largest(),
            Attack::HalfAValueHeld => {
                for _ in 0..4 {
                    let mut stream = some!(self.guest(false));
                    let packet = wire::call(number::SET_VALUE, 2, &wire::set_body(self.own, &[0xAA; 65_536]));
                    put(&mut stream, &packet[..packet.len() / 2]);
                    self.hold(stream);
                }
            }
            Attack::ValuesNeverRead => {
                for _ in 0..4 {
                    let call = wire::call(number::GET_VALUE, 2, &wire::flagged_body(self.large));
                    let mut stream = some!(self.guest(false));
                    put(&mut stream, &call.repeat(50));
                    self.hold(stream);
                }
            }
            Attack::ValuesReadSlowly => self.read_values_slowly(),
            Attack::ListsNeverRead => {
                let read_only = self.dice.roll(2) == 0;
                let mut stream = some!(self.guest(read_only));
                let list = wire::call(number::LIST_ALL, 2, &Xdr::default().number(1).number(0));
                let xml = wire::call(number::GET_XML, 3, &wire::flagged_body(self.own));
                put(&mut stream, &[list, xml].concat().repeat(1_000));
                self.hold(stream);
            }
            Attack::CallsNeverRead => {
                let read_only = self.dice.roll(2) == 0;
                let mut stream = some!(self.guest(read_only));
                let mut flood = Vec::new();
                while flood.len() < 400_000 {
                    flood.extend(self.call_with(40));
                }
                put(&mut stream, &flood);
                self.hold(stream);
            }
            Attack::EventsNeverRead => self.ask_for_events(),
            Attack::Descriptors => self.send_descriptors(),
            Attack::Streams => {
                let mut stream = some!(self.guest(false));
                for kind in [1, 2, 3, 5, 6, 7, u32::MAX] {
                    for status in 0..4 {
                        let length = self.dice.roll(3_000);
                        let body = self.bytes(length);
                        put(&mut stream, &wire::packet(REMOTE, self.procedure(), kind, 9, status, &body));
                    }
                }
            }
            Attack::ConnectAndClose => {
                for _ in 0..300 {
                    drop(self.stranger());
                }
            }
            Attack::PingsNeverRead => {
                let mut stream = some!(self.stranger());
                let ping = wire::packet(KEEPALIVE, 1, 2, 0, 0, b"");
                put(&mut stream, &ping.repeat(20_000));
                self.hold(stream);
            }
            Attack::ReadOnlyRefused => {
                let mut stream = some!(self.guest(true));
                for _ in 0..50 {
                    let set = wire::call(number::SET_VALUE, 2, &wire::set_body(self.own, &[1; 60_000]));
                    let get = wire::call(number::GET_VALUE, 3, &wire::flagged_body(self.large));
                    let gone = wire::call(number::UNDEFINE, 4, &Xdr::default().secret(self.large));
                    put(&mut stream, &[set, get, gone].concat());
                }
                self.hold(stream);
            }
            Attack::ClosedAmidACall => {
                for _ in 0..10 {
                    let mut stream = some!(self.guest(false));
                    let set = wire::call(number::SET_VALUE, 2, &wire::set_body(self.own, &[2; 30_000]));
                    put(&mut stream, &set.repeat(1 + self.dice.roll(6) as usize));
                }
            }
            Attack::HalfClosed => {
                let mut stream = some!(self.guest(false));
                let get = wire::call(number::GET_VALUE, 2, &wire::flagged_body(self.large));
                let end = self.dice.roll(get.len() as u64) as usize;
                put(&mut stream, &[&get.repeat(20), &get[..end]].concat());
                _ = stream.shutdown(Shutdown::Write);
                self.hold(stream);
            }
            Attack::Identities => {
                let mut stream = some!(self.guest(false));
                let parameters: Vec<(String, Vec<u8>)> = (0..self.dice.roll(30))
                    .map(|at| (format!("name-{at}"), vec![b'x'; self.dice.roll(30_000) as usize]))
                    .collect();
                let borrowed: Vec<_> = parameters.iter().map(|(name, text)| (&name[..], &text[..])).collect();
                let call = wire::call(number::SET_IDENTITY, 2, &wire::identity_body(&borrowed));
                put(&mut stream, &call.repeat(3));
                self.hold(stream);
            }
        }
    }

    /// 32 MiB, in pieces: of a call that has a use for them, or hasn't; to the end, or not.
    fn send_an_endless_packet(&mut self) {
        let stranger = self.dice.roll(2) == 0;
        let mut stream = some!(if stranger { self.stranger() } else { self.guest(false) });
        let mut packet = wire::packet(REMOTE, self.procedure(), 0, 1, 0, &Xdr::default().number(4 << 20).0);
        packet[..4].copy_from_slice(&((32 << 20) + 4_u32).to_be_bytes());
        put(&mut stream, &packet);
        let (until, slowly) = (Instant::now() + Duration::from_secs(1), self.dice.roll(2) == 0);
        let piece = vec![b'x'; if slowly { 700 } else { 64 << 10 }];
        let mut sent = packet.len();
        while sent < (32 << 20) + 4 && Instant::now() < until {
            if stream.write_all(&piece[..piece.len().min((32 << 20) + 4 - sent)]).is_err() {
                return;
            }
            sent += piece.len();
            if slowly {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.hold(stream);
    }

    fn define_the_largest(&mut self) {
        let filler = match self.dice.roll(3) {
            0 => "<a>".repeat(1_300_000),
            1 => "x".repeat(4_100_000),
            _ => "&amp;".repeat(800_000),
        };
        let xml = format!(
            "<secret><uuid>{}</uuid><description>{filler}</description>\
             <usage type='ceph'><name>{}</name></usage></secret>",
            self.own, self.own
        );
        let mut stream = some!(self.guest(false));
        let call = wire::call(number::DEFINE, 2, &wire::define_body(&xml));
        for _ in 0..2 {
            put(&mut stream, &call);
        }
        self.hold(stream);
    }

    /// A kilobyte now and then: a client that always moves, and always holds something.
    fn read_values_slowly(&mut self) {
        let call = wire::call(number::GET_VALUE, 2, &wire::flagged_body(self.large));
        let mut streams: Vec<_> = (0..8).filter_map(|_| self.guest(false)).collect();
        for stream in &mut streams {
            put(stream, &call.repeat(50));
        }
        for _ in 0..20 {
            for stream in &mut streams {
                _ = stream.set_nonblocking(true);
                _ = stream.read(&mut [0; 1024]);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// As many registrations as one likes, then changes of values that nobody wants to hear of.
    fn ask_for_events(&mut self) {
        let mut stream = some!(self.guest(false));
        let register = |event: i32, only: Option<Uuid>| {
            let body = Xdr::default().number(event);
            let body = match only {
                Some(uuid) => body.number(1).secret(uuid),
                None => body.number(0),
            };
            wire::call(number::REGISTER, 2, &body)
        };
        let mut flood = [register(0, None), register(1, None)].concat();
        for _ in 0..4_000 {
            flood.extend(register(1, Some(Uuid::from_u64_pair(self.dice.roll(u64::MAX), 1))));
        }
        // Their answers are read, or the flood would end early.
        let mut reader = stream.try_clone().unwrap();
        _ = reader.set_nonblocking(true);
        let mut page = vec![0; 1 << 20];
        for piece in flood.chunks(10_000) {
            put(&mut stream, piece);
            while reader.read(&mut page).is_ok_and(|read| read > 0) {}
        }
        _ = stream.set_nonblocking(false);
        self.hold(stream);
        let mut writer = some!(self.guest(false));
        let set = wire::call(number::SET_VALUE, 3, &wire::set_body(self.own, b"event"));
        for _ in 0..100 {
            put(&mut writer, &set.repeat(10));
            std::thread::sleep(Duration::from_millis(2));
        }
        self.hold(writer);
    }

    fn send_descriptors(&mut self) {
        let stream = some!(self.guest(false));
        for _ in 0..10 {
            let count = self.dice.roll(40) as usize;
            let null = std::fs::File::open("/dev/null").unwrap();
            let descriptors = vec![null.as_fd(); count.clamp(1, 32)];
            let mut body = Xdr::default().number(count as u32).0;
            body.extend(wire::flagged_body(self.large).0);
            let packet = wire::packet(REMOTE, number::GET_VALUE, 4, 5, 0, &body);
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            let sent = sendmsg(
                &stream,
                &[IoSlice::new(&packet)],
                &mut control,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            );
            // libvirt sends each descriptor with a byte of its own behind the packet; half of the time, so do we.
            if sent.is_err() || self.dice.roll(2) == 0 {
                break;
            }
            put(&mut &stream, &vec![0; count]);
        }
        self.hold(stream);
    }

    /// A connection that has not said a word, to any of the sockets.
    fn stranger(&mut self) -> Option<UnixStream> {
        let socket = match self.dice.roll(6) {
            0 => self.place.admin_socket(),
            1 | 2 => self.place.read_only_socket(),
            _ => self.place.socket(),
        };
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_write_timeout(Some(WRITES)).unwrap();
        Some(stream)
    }

    /// One that has opened the keystore.
    fn guest(&mut self, read_only: bool) -> Option<UnixStream> {
        let socket = if read_only { self.place.read_only_socket() } else { self.place.socket() };
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_write_timeout(Some(WRITES)).unwrap();
        put(&mut stream, &wire::call(number::OPEN, 1, &wire::open_body("secret:///system")));
        Some(stream)
    }

    fn hold(&mut self, stream: UnixStream) {
        self.held.push_back(stream);
        if self.held.len() > MOST_HELD {
            self.held.pop_front();
        }
    }

    /// A call that exists or doesn't, with arguments that make no sense.
    fn call_with(&mut self, most: u64) -> Vec<u8> {
        let length = self.dice.roll(most) & !3;
        let body = self.bytes(length);
        wire::packet(REMOTE, self.procedure(), 0, 7, 0, &body)
    }

    /// Nothing that would destroy what the good client works with: undefining takes the right UUID anyway.
    fn procedure(&mut self) -> i32 {
        const LIKED: [i32; 12] = [1, 60, 66, 67, 70, 139, 140, 142, 144, 145, 380, 419];
        match self.dice.roll(3) {
            0 => self.dice.roll(500) as i32 - 20,
            1 => self.dice.roll(1 << 32) as u32 as i32,
            _ => LIKED[self.dice.roll(LIKED.len() as u64) as usize],
        }
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| self.dice.roll(256) as u8).collect()
    }
}

/// Writes what can be written.
fn put(mut stream: impl Write, bytes: &[u8]) {
    _ = stream.write_all(bytes);
}

/// The connection, if there is one.
macro_rules! some {
    ($stream:expr) => {
        match $stream {
            Some(stream) => stream,
            None => return,
        }
    };
}
use some;

/// How long an enemy waits for a socket that is full.
const WRITES: Duration = Duration::from_millis(100);

/// What an enemy keeps open at once.
const MOST_HELD: usize = 100;
