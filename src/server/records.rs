//! What an encrypted stream's records hold, from the socket to plaintext in secret memory.
//!
//! A record that isn't whole stays in the kernel, as half a packet does on a bare stream; only if it is late its bytes
//! are taken into ordinary memory, never more than a record's. A whole one is opened on the reader's own pages. What a
//! packet has left over waits in secret memory of the connection. Both are counted. Leans on `net`'s layers for what a
//! record is. Refuses records that don't open, more plaintext than a record can have, and to open one before there is
//! memory for all that may be left over: what is opened can't be put back.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::inbound::{Rest, take};
use super::transit::{Load, Transit};
use crate::memory::{Exhausted, SecretBytes};
use crate::net::layer::{Broken, MAX_RECORD, Open};

/// The records of one stream.
pub(super) struct Records {
    opener: Box<dyn Open>,
    /// Of a record that was late.
    sealed: Vec<u8>,
    /// Plaintext that wasn't asked for yet.
    opened: Option<Opened>,
    /// For what may have to be kept, while it is looked at.
    room: Option<SecretBytes>,
    _sealed_load: Option<Load>,
}

struct Opened {
    bytes: SecretBytes,
    /// How much of it is used.
    from: usize,
    _load: Load,
}

/// Where plaintext goes.
pub(super) struct Plain<'a> {
    pub(super) page: &'a mut SecretBytes,
    /// So much of the page is filled.
    pub(super) filled: usize,
    /// So much more has a place elsewhere, and need not be kept.
    pub(super) elsewhere: usize,
}

/// Why there is no plaintext.
pub(super) enum Stopped {
    /// It will be there when more has come.
    Half,
    /// It will be there when there is memory for it.
    Crowded,
    /// It never will.
    End(&'static str),
    Failed(io::Error),
}

impl Records {
    pub(super) fn new(opener: Box<dyn Open>) -> Self {
        Self { opener, sealed: Vec::new(), opened: None, room: None, _sealed_load: None }
    }

    /// Plaintext that waits here.
    pub(super) fn front(&self) -> &[u8] {
        self.opened.as_ref().map_or(&[], |opened| &opened.bytes.expose_secret()[opened.from..])
    }

    /// So much of it is used. It can be kept again.
    pub(super) fn used(&mut self, count: usize) {
        if let Some(opened) = &mut self.opened {
            opened.from += count;
            if opened.from >= opened.bytes.len() {
                self.room = self.opened.take().map(|opened| opened.bytes);
            }
        }
    }

    /// Keeps this for later. Nothing may wait here by then. It doesn't fail for what was used, or opened, since the last
    /// [`done`](Self::done).
    pub(super) fn keep(&mut self, plain: &[u8], transit: &Arc<Transit>) -> Result<(), Exhausted> {
        if !plain.is_empty() {
            let (bytes, size) = match (SecretBytes::copy_of(plain), self.room.take()) {
                (Ok(bytes), _) => (bytes, plain.len()), // no larger than it must be
                (Err(_), Some(mut room)) if room.len() >= plain.len() => {
                    let size = room.len();
                    room.overwrite(0, plain);
                    room.truncate(plain.len());
                    (room, size)
                }
                (Err(exhausted), _) => return Err(exhausted),
            };
            let load = transit.secret(size.next_power_of_two());
            self.opened = Some(Opened { bytes, from: 0, _load: load });
        }
        Ok(())
    }

    /// Nothing more will be kept, for now.
    pub(super) fn done(&mut self) {
        self.room = None; // wiped, as it is dropped
    }

    /// How much waits here, opened or not.
    pub(super) fn held(&self) -> usize {
        self.front().len() + self.sealed.len()
    }

    /// If it holds part of a record: how much may still come, at most.
    pub(super) fn missing(&self) -> Option<usize> {
        (!self.sealed.is_empty() && !self.holds_record()).then(|| MAX_RECORD - self.sealed.len())
    }

    /// Whether it holds all of a record that wasn't opened yet.
    pub(super) fn holds_record(&self) -> bool {
        let is_whole =
            || matches!(self.opener.record(&self.sealed), Ok(Some(length)) if length <= self.sealed.len());
        !self.sealed.is_empty() && is_whole()
    }

    /// Opens the next record behind what is on the page. How much is filled now: as much as before, if the record had
    /// nothing to say.
    pub(super) fn next(
        &mut self,
        socket: BorrowedFd<'_>,
        record: &mut SecretBytes,
        plain: Plain<'_>,
        rest: Rest,
        transit: &Arc<Transit>,
    ) -> Result<usize, Stopped> {
        let Plain { page, filled, elsewhere } = plain;
        let left_over = |length: usize| (filled + length).saturating_sub(elsewhere);
        let length = match self.sealed.is_empty() {
            true => self.whole(socket, record, left_over, rest, transit)?,
            false => None,
        };
        let length = match length {
            Some(length) => length,
            None => self.complete(socket, record, left_over)?,
        };
        let (mut end, mut fits) = (filled, true);
        let opened = self.opener.open(&mut record.expose_secret_mut()[..length], &mut |part| {
            fits &= part.len() <= page.len() - end;
            if fits {
                page.overwrite(end, part);
                end += part.len();
            }
        });
        record.wipe_front(length);
        match opened {
            Ok(()) if fits => Ok(end),
            Ok(()) => Err(Stopped::End("it sent a record with more in it than a record has")),
            Err(broken) => Err(Stopped::End(why(broken))),
        }
    }

    /// The next record's length, when all of it was there and is taken. `None`: it is late, and what there was of it is
    /// here now.
    fn whole(
        &mut self,
        socket: BorrowedFd<'_>,
        place: &mut SecretBytes,
        left_over: impl Fn(usize) -> usize,
        rest: Rest,
        transit: &Arc<Transit>,
    ) -> Result<Option<usize>, Stopped> {
        let place = place.expose_secret_mut();
        let (seen, _) = recv(socket, &mut place[..MAX_RECORD], RecvFlags::PEEK).map_err(failed)?;
        if seen == 0 {
            return Err(Stopped::End("it closed"));
        }
        match self.opener.record(&place[..seen]) {
            Err(broken) => Err(Stopped::End(why(broken))),
            Ok(Some(length)) if length > MAX_RECORD => Err(Stopped::End("it sent a record that is too long")),
            Ok(Some(length)) if length <= seen => {
                self.make_room(left_over(length))?;
                take(socket, &mut place[..length]).map_err(Stopped::Failed)?;
                Ok(Some(length))
            }
            Ok(_) => match rest {
                Rest::Never => Err(Stopped::End("it ended amid a record")),
                Rest::Soon => Err(Stopped::Half),
                Rest::Late => {
                    take(socket, &mut place[..seen]).map_err(Stopped::Failed)?;
                    self._sealed_load = Some(transit.ordinary(MAX_RECORD));
                    self.sealed.extend_from_slice(&place[..seen]);
                    Ok(None)
                }
            },
        }
    }

    /// Takes the rest of the record that is here in part, and puts all of it in its place.
    fn complete(
        &mut self,
        socket: BorrowedFd<'_>,
        place: &mut SecretBytes,
        left_over: impl Fn(usize) -> usize,
    ) -> Result<usize, Stopped> {
        let place = place.expose_secret_mut();
        loop {
            let have = self.sealed.len();
            let length = match self.opener.record(&self.sealed) {
                Ok(length) => length.unwrap_or(have + 1),
                Err(broken) => return Err(Stopped::End(why(broken))),
            };
            if length > MAX_RECORD {
                return Err(Stopped::End("it sent a record that is too long"));
            }
            if length <= have {
                self.make_room(left_over(length))?;
                place[..length].copy_from_slice(&self.sealed);
                (self.sealed, self._sealed_load) = (Vec::new(), None);
                return Ok(length);
            }
            match recv(socket, &mut place[..length - have], RecvFlags::empty()).map_err(failed)?.0 {
                0 => return Err(Stopped::End("it ended amid a record")),
                taken => self.sealed.extend_from_slice(&place[..taken]),
            }
        }
    }

    /// Has room for so much, before it is opened.
    fn make_room(&mut self, most: usize) -> Result<(), Stopped> {
        if self.room.as_ref().map_or(0, SecretBytes::len) < most {
            self.room = Some(SecretBytes::zeroed(most).map_err(|_| Stopped::Crowded)?);
        }
        Ok(())
    }
}

fn failed(error: rustix::io::Errno) -> Stopped {
    Stopped::Failed(error.into())
}

fn why(broken: Broken) -> &'static str {
    match broken {
        Broken::Closed => "it closed",
        Broken::Malformed(what) => what,
    }
}

/// The place of the records themselves.
pub(super) const RECORD_SIZE: usize = MAX_RECORD;

/// Where plaintext is put together: part of a packet, and a record's behind it. A block of secret memory.
pub(super) const OPENED_SIZE: usize = 32 << 10;

/// A packet that is longer is gathered elsewhere.
pub(super) const LONGEST_SMALL: usize = OPENED_SIZE - MAX_RECORD;

#[cfg(test)]
pub(super) mod toy {
    //! A layer that hides nothing: a length of four bytes, then every byte turned over.

    use super::*;
    use crate::net::layer::{Layer, Seal};

    pub(in super::super) struct Toy {
        /// The most that a record holds.
        pub(in super::super) most: usize,
    }

    pub(in super::super) fn layer(most: usize) -> Layer {
        Layer { opener: Box::new(Toy { most }), sealer: Box::new(Toy { most }), bits: 1 }
    }

    impl Open for Toy {
        fn record(&self, front: &[u8]) -> Result<Option<usize>, Broken> {
            let Some(word) = front.first_chunk() else { return Ok(None) };
            match u32::from_be_bytes(*word) as usize {
                0 => Err(Broken::Closed),
                length if length > self.most => Err(Broken::Malformed("too long")),
                length => Ok(Some(4 + length)),
            }
        }

        fn open(&mut self, record: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
            record[4..].iter_mut().for_each(|byte| *byte = !*byte);
            let (front, back) = record[4..].split_at(record.len() / 3); // in two parts
            take(front);
            take(back);
            Ok(())
        }
    }

    impl Seal for Toy {
        fn seal(&mut self, plain: &[&[u8]], sealed: &mut Vec<u8>) -> Result<(), Broken> {
            for record in plain.concat().chunks(self.most) {
                sealed.extend((record.len() as u32).to_be_bytes());
                sealed.extend(record.iter().map(|byte| !byte));
            }
            Ok(())
        }

        fn close(&mut self, sealed: &mut Vec<u8>) {
            sealed.extend([0; 4]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::super::inbound::{Inbound, Incoming, Page};
    use super::super::room::Room;
    use super::*;
    use crate::memory::scarcity::while_scarce;
    use crate::net::layer::Seal;
    use crate::rpc::packet::{HEAD, packet_length};
    use crate::rpc::{Header, Kind, Status, packet, program};

    /// What became of one look.
    #[derive(Debug, PartialEq, Eq)]
    enum Seen {
        Packet(u32, Vec<u8>),
        Crowded,
        Part,
        Nothing,
        End(&'static str),
    }

    struct Reader {
        socket: UnixStream,
        inbound: Inbound,
        page: Page,
        transit: Arc<Transit>,
    }

    impl Reader {
        fn new() -> (Self, UnixStream) {
            let (socket, other) = UnixStream::pair().unwrap();
            socket.set_nonblocking(true).unwrap();
            let mut inbound = Inbound::bare(false);
            inbound.secure(toy::layer(16 << 10).opener);
            (Self { socket, inbound, page: Page::of_records().unwrap(), transit: Arc::default() }, other)
        }

        fn look(&mut self, rest: Rest, room: Option<Room>) -> Seen {
            loop {
                let mut kept = None;
                let (page, transit) = (&mut self.page, &self.transit);
                let seen = match self.inbound.receive(
                    self.socket.as_fd(),
                    page,
                    rest,
                    transit,
                    |_, _| room,
                    &mut kept,
                ) {
                    Ok(Incoming::Packet(header, arguments)) => {
                        Seen::Packet(header.serial, arguments.to_vec())
                    }
                    Ok(Incoming::Crowded) => Seen::Crowded,
                    Ok(Incoming::Part) => Seen::Part,
                    Ok(Incoming::Starved(..)) => Seen::End("starved"),
                    Ok(Incoming::End(ending)) => Seen::End(ending),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Seen::Nothing,
                    Err(error) => panic!("{error}"),
                };
                drop(kept);
                self.inbound.wipe(&mut self.page);
                if seen != Seen::Part {
                    return seen;
                }
                assert!(self.page.is_wiped());
            }
        }

        /// How much of secret memory, and of ordinary, it counts as held.
        fn holds(&self) -> (usize, usize) {
            self.transit.held()
        }
    }

    const ALL: Option<Room> = Some(Room { bytes: 1 << 20, secret: true });

    fn a_packet(serial: u32, body: usize) -> Vec<u8> {
        let (kind, status) = (Kind::Call, Status::Ok);
        let header = Header { program: program::REMOTE, version: 1, procedure: 1, kind, serial, status };
        let mut bytes = packet(header, &());
        bytes.extend((0..body).map(|at| (at * 7 + serial as usize) as u8));
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(packet_length(length.to_be_bytes()), Ok(bytes.len()));
        bytes
    }

    #[test]
    fn packets_come_out_whole_however_the_records_cut_them() {
        let bodies = [
            0,
            1,
            500,
            LONGEST_SMALL - HEAD - 1,
            LONGEST_SMALL - HEAD,
            LONGEST_SMALL - HEAD + 1,
            70_000,
            4,
            0,
        ];
        let packets: Vec<Vec<u8>> = (0..).zip(bodies).map(|(serial, body)| a_packet(serial, body)).collect();
        let cuts = [(1, 100), (27, 1), (29, 50), (1000, 999), (16 << 10, 16 << 10), (16 << 10, 70_000)];
        for ((most, piece), scarce) in cuts.into_iter().flat_map(|cut| [(cut, false), (cut, true)]) {
            let mut crowded = 0;
            let (mut reader, mut other) = Reader::new();
            let mut sealed = Vec::new();
            toy::Toy { most }.seal(&[&packets.concat()], &mut sealed).unwrap();
            let mut seen = Vec::new();
            for piece in sealed.chunks(piece) {
                other.write_all(piece).unwrap();
                loop {
                    // Where there is no memory at present nothing is lost.
                    if scarce {
                        match while_scarce(|| reader.look(Rest::Late, None)) {
                            Seen::Packet(serial, body) => seen.push((serial, body)),
                            Seen::Crowded => {
                                crowded += 1;
                                assert!(!reader.inbound.has_seen_half(), "it is for us to go on");
                            }
                            Seen::Nothing => {}
                            other => panic!("{other:?}"),
                        }
                    }
                    match reader.look(if seen.len() % 2 == 0 { Rest::Soon } else { Rest::Late }, ALL) {
                        Seen::Packet(serial, body) => seen.push((serial, body)),
                        Seen::Nothing => break,
                        other => panic!("{other:?}"),
                    }
                }
                assert!(!reader.inbound.holds_packet());
            }
            let expected: Vec<(u32, Vec<u8>)> =
                (0..).zip(packets.iter().map(|packet| packet[HEAD..].to_vec())).collect();
            assert!(seen == expected, "records of {most}, in pieces of {piece}");
            assert_eq!(crowded > 0, scarce);
            assert_eq!((reader.holds(), reader.inbound.missing()), ((0, 0), None));
            drop(other);
            assert_eq!(reader.look(Rest::Never, ALL), Seen::End("it closed"));
        }
    }

    #[test]
    fn others_have_their_turn_amid_a_large_packet_and_nothing_of_it_is_lost() {
        for most in [100, 933, 60_000 / 64] {
            let (mut reader, mut other) = Reader::new();
            let (large, next) = (a_packet(1, 60_000), a_packet(2, 5));
            let mut sealed = Vec::new();
            toy::Toy { most }.seal(&[&large, &next, &large, &next], &mut sealed).unwrap();
            let writes = std::thread::spawn(move || other.write_all(&sealed).map(|()| other));
            for packet in [&large, &next, &large, &next] {
                let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
                let seen = loop {
                    match reader.look(Rest::Soon, ALL) {
                        Seen::Nothing if std::time::Instant::now() < deadline => std::thread::yield_now(),
                        seen => break seen,
                    }
                };
                assert!(
                    matches!(&seen, Seen::Packet(_, body) if *body == packet[HEAD..]),
                    "records of {most}"
                );
            }
            // Not by dropping it alone: another test may be forking, and its child have a copy for a moment.
            writes.join().unwrap().unwrap().shutdown(std::net::Shutdown::Both).unwrap();
            assert_eq!((reader.look(Rest::Never, ALL), reader.holds()), (Seen::End("it closed"), (0, 0)));
        }
    }

    #[test]
    fn many_packets_in_a_record_come_one_by_one_without_the_socket() {
        let (mut reader, mut other) = Reader::new();
        let packets: Vec<u8> = (0..100).flat_map(|serial| a_packet(serial, 8)).collect();
        let mut sealed = Vec::new();
        toy::Toy { most: 16 << 10 }.seal(&[&packets, &[0, 0]], &mut sealed).unwrap();
        other.write_all(&sealed).unwrap();
        assert!(!reader.inbound.holds_packet());
        for serial in 0..100 {
            assert!(matches!(reader.look(Rest::Soon, None), Seen::Packet(found, _) if found == serial));
            assert_eq!(reader.inbound.holds_packet(), serial < 99);
            assert!(reader.holds().0 > 0, "what is left over is counted");
            let calls = (99 - serial as usize) * packets.len() / 100;
            let unanswered = if calls > 0 { calls + 2 } else { 0 };
            assert_eq!((reader.inbound.held(), reader.inbound.unanswered()), (calls + 2, unanswered));
        }
        assert_eq!((reader.look(Rest::Soon, None), reader.inbound.missing()), (Seen::Nothing, Some(2)));
    }

    #[test]
    fn half_a_record_stays_in_the_kernel_until_it_is_late() {
        let (mut reader, mut other) = Reader::new();
        let mut sealed = Vec::new();
        toy::Toy { most: 16 << 10 }.seal(&[&a_packet(1, 2000)], &mut sealed).unwrap();
        other.write_all(&sealed[..1000]).unwrap();
        assert_eq!(reader.look(Rest::Soon, ALL), Seen::Nothing);
        assert_eq!(
            (reader.inbound.has_seen_half(), reader.inbound.missing(), reader.holds()),
            (true, None, (0, 0))
        );
        assert_eq!(reader.look(Rest::Late, ALL), Seen::Nothing);
        assert_eq!((reader.inbound.missing(), reader.holds()), (Some(MAX_RECORD - 1000), (0, MAX_RECORD)));
        other.write_all(&sealed[1000..]).unwrap();
        assert!(matches!(reader.look(Rest::Soon, ALL), Seen::Packet(1, body) if body.len() == 2000));
        assert_eq!((reader.inbound.missing(), reader.holds()), (None, (0, 0)));
    }

    #[test]
    fn a_large_packet_waits_for_room_and_is_begun_only_when_much_of_it_is_there() {
        let (mut reader, mut other) = Reader::new();
        let mut sealed = Vec::new();
        toy::Toy { most: 1000 }.seal(&[&a_packet(1, 60_000)], &mut sealed).unwrap();
        other.write_all(&sealed[..5 * 1004]).unwrap();
        assert_eq!(reader.look(Rest::Soon, ALL), Seen::Nothing);
        assert_eq!(reader.holds().0, 8192, "as much as has come, not as much as is claimed");
        other.write_all(&sealed[5 * 1004..20 * 1004]).unwrap();
        assert_eq!(reader.look(Rest::Soon, None), Seen::Crowded);
        assert!(reader.inbound.holds_packet(), "to be looked at again");
        assert_eq!(reader.inbound.missing(), None, "it is for us to go on");
        assert_eq!(
            (reader.inbound.held() > 0, reader.inbound.unanswered()),
            (true, 0),
            "nobody is let go for it"
        );
        other.write_all(&sealed[20 * 1004..]).unwrap();
        assert!(matches!(reader.look(Rest::Soon, ALL), Seen::Packet(1, body) if body.len() == 60_000));
    }

    #[test]
    fn what_is_no_record_or_no_packet_ends_it() {
        let end = |bytes: &[u8]| {
            let (mut reader, mut other) = Reader::new();
            other.write_all(bytes).unwrap();
            drop(other);
            reader.look(Rest::Never, ALL)
        };
        let sealed = |plain: &[u8]| {
            let mut sealed = Vec::new();
            toy::Toy { most: 16 << 10 }.seal(&[plain], &mut sealed).unwrap();
            sealed
        };
        assert_eq!(end(b"\xff\xff\xff\xff"), Seen::End("too long"));
        assert_eq!(end(b"\0\0\0\0"), Seen::End("it closed"));
        assert_eq!(end(b"\0\0\x01\0abc"), Seen::End("it ended amid a record"));
        assert_eq!(
            end(&sealed(b"\0\0\0\x1bxxxxxxxxxxxxxxxxxxxxxxxxxxxxx")),
            Seen::End("it sent a length that no packet has")
        );
        let with_fds = {
            let mut packet = a_packet(1, 0);
            packet[19] = 4;
            packet.extend([0, 0, 0, 1]);
            packet[3] += 4;
            packet
        };
        assert_eq!(end(&sealed(&with_fds)), Seen::End("it sent file descriptors where none can come along"));
    }
}
