//! Packets out of a byte stream, without a buffer for those who wait.
//!
//! What a client has sent stays in the kernel until a whole packet is there: it is looked at first (MSG_PEEK), and taken when it can
//! be answered. So ten thousand idle clients, or such as send half a packet and stop, cost no memory here. A packet that is larger
//! than the reader's own page is gathered in memory of its own: secret memory if it may carry a value, and never more than
//! the call can have use for; the rest is read and let go.
//!
//! On an encrypted stream a record takes the packet's part: [`Records`] opens it on the reader's pages, and packets are cut
//! from what it holds.
//!
//! Leans on `rpc` for lengths and headers, on `memory` for where values land. Refuses lengths that no packet has, and file
//! descriptors where there can't be any. Those that come along are closed by the kernel, because nobody asks it for them.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};
use secrecy::{ExposeSecret, ExposeSecretMut};
use zeroize::Zeroizing;

use super::records::{LONGEST_SMALL, OPENED_SIZE, Plain, RECORD_SIZE, Records, Stopped};
use super::room::Room;
use super::transit::{Load, Transit};
use crate::memory::{Exhausted, SecretBytes};
use crate::net::layer::Open;
use crate::rpc::packet::{HEAD, MAX_FDS, packet_length};
use crate::rpc::{Decode, Header, Kind, Reader};

/// What has come.
pub(super) enum Incoming<'a> {
    /// A packet: its header and its arguments, or as much of them as a call has use for.
    Packet(Header, &'a [u8]),
    /// A large packet, or a record, for which there is no room at present. It stays where it is.
    Crowded,
    /// A large packet that had to be let go, because there is no secret memory.
    Starved(Header, Exhausted),
    /// Part of a packet, and others shall have their turn.
    Part,
    /// The client is gone, or speaks another language: why, for the log.
    End(&'static str),
}

/// When what is missing of a packet may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// In a moment: it is worth waiting.
    Soon,
    /// It should have come by now. The kernel may have no room for it, because the client's buffer is small: make some.
    Late,
    /// The client sends no more.
    Never,
}

/// Where a thread reads packets. Nothing stays in it between two of them.
pub(super) struct Page {
    /// Packets.
    packets: SecretBytes,
    /// A record, while it is opened; nothing where there are none.
    record: SecretBytes,
}

impl Page {
    /// For streams that aren't encrypted.
    pub(super) fn bare() -> Result<Self, Exhausted> {
        Ok(Self { packets: SecretBytes::zeroed(PAGE_SIZE)?, record: SecretBytes::zeroed(0)? })
    }

    /// For those that are.
    pub(super) fn of_records() -> Result<Self, Exhausted> {
        Ok(Self { packets: SecretBytes::zeroed(OPENED_SIZE)?, record: SecretBytes::zeroed(RECORD_SIZE)? })
    }

    /// Whether no packet is left on it.
    #[cfg(test)]
    pub(super) fn is_wiped(&self) -> bool {
        self.packets.expose_secret().iter().all(|byte| *byte == 0)
    }
}

/// One client's byte stream.
pub(super) struct Inbound {
    /// Whether file descriptors may come along.
    descriptors: bool,
    /// If it is encrypted.
    records: Option<Records>,
    large: Option<Large>,
    /// Bytes that only carried file descriptors, still to come.
    swallow: usize,
    /// How much of the page was written to.
    touched: usize,
    /// Part of a packet was there, and not all of it.
    half: bool,
}

/// A packet that doesn't fit into the page.
struct Large {
    header: Header,
    /// Bytes still to come.
    missing: usize,
    kept: Kept,
    load: Load,
}

/// What has come of it.
enum Kept {
    /// So many of the bytes are filled.
    Secret(SecretBytes, usize),
    /// Grows with what really comes, up to so many. Wiped all the same: a stranger may show a very long password.
    Ordinary(Zeroizing<Vec<u8>>, usize),
    /// Nothing, for want of memory.
    Nothing(Exhausted),
}

impl Inbound {
    /// A stream that isn't encrypted, as yet.
    pub(super) fn bare(descriptors: bool) -> Self {
        Self { descriptors, records: None, large: None, swallow: 0, touched: 0, half: false }
    }

    /// From here on it is.
    pub(super) fn secure(&mut self, opener: Box<dyn Open>) {
        self.records = Some(Records::new(opener));
    }

    /// Whether it is encrypted: it is read on another page then.
    pub(super) fn is_secure(&self) -> bool {
        self.records.is_some()
    }

    /// How much is missing of a packet that it holds memory for, if there is one.
    pub(super) fn missing(&self) -> Option<usize> {
        let of_small = |records: &Records| match needs(records.front()) {
            Ok(missing @ 1..) if !records.front().is_empty() => Some(missing),
            _ => records.missing(),
        };
        match &self.large {
            Some(large) => Some(large.missing),
            None => self.records.as_ref().and_then(of_small),
        }
    }

    /// How much it holds that has come and wasn't looked at: of packets, whole or not, and of records.
    pub(super) fn held(&self) -> usize {
        self.records.as_ref().map_or(0, Records::held)
    }

    /// The same, if a small call is there whole. A large one that waits for room is no reason to let anybody go.
    pub(super) fn unanswered(&self) -> usize {
        let front = self.records.as_ref().map_or(&[][..], Records::front);
        match packet_length_of(front) {
            Some(length) if length <= front.len().min(LONGEST_SMALL) && self.large.is_none() => front.len(),
            _ => 0,
        }
    }

    /// Whether what it holds is worth another look before more has come.
    pub(super) fn holds_packet(&self) -> bool {
        let front = self.records.as_ref().map_or(&[][..], Records::front);
        let on_front = self.large.is_none() && !front.is_empty() && needs(front).unwrap_or(0) == 0;
        on_front || self.records.as_ref().is_some_and(Records::holds_record)
    }

    /// Whether part of a packet has come, and is left where it is.
    pub(super) fn has_seen_half(&self) -> bool {
        self.half
    }

    /// Wipes what was written to the page.
    pub(super) fn wipe(&mut self, page: &mut Page) {
        page.packets.wipe_front(std::mem::take(&mut self.touched));
    }

    /// The next packet, if it is there; [`io::ErrorKind::WouldBlock`] if it isn't yet. The page is overwritten.
    ///
    /// `rest`: whether to wait for what is missing. `room` says what a large packet of such a length is worth; nothing if none
    /// may be begun now.
    pub(super) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        page: &'a mut Page,
        rest: Rest,
        transit: &Arc<Transit>,
        room: impl FnOnce(&Header, usize) -> Option<Room>,
        kept: &'a mut Option<Gathered>,
    ) -> io::Result<Incoming<'a>> {
        if let Some(mut records) = self.records.take() {
            let received = self.receive_opened(&mut records, socket, page, rest, transit, room, kept);
            records.done();
            self.records = Some(records);
            return received;
        }
        let page = &mut page.packets;
        while self.swallow > 0 {
            self.touched = self.swallow;
            match recv(socket, &mut page.expose_secret_mut()[..self.swallow], RecvFlags::empty())?.0 {
                0 => return Ok(Incoming::End("it ended before its file descriptors")),
                taken => self.swallow -= taken,
            }
        }
        if self.large.is_none() {
            let (seen, _) = recv(socket, &mut *page.expose_secret_mut(), RecvFlags::PEEK)?;
            self.touched = seen;
            self.half = false;
            if seen == 0 {
                return Ok(Incoming::End("it closed"));
            }
            let mut waiting = || match rest {
                Rest::Never => Ok(Incoming::End("it ended amid a packet")),
                Rest::Soon | Rest::Late => {
                    self.half = true;
                    Err(io::ErrorKind::WouldBlock.into())
                }
            };
            let bytes = &page.expose_secret()[..seen];
            let Some(word) = bytes.first_chunk() else { return waiting() };
            let Ok(length) = packet_length(*word) else {
                return Ok(Incoming::End(NO_PACKET));
            };
            let Ok(header) = Header::decode(&mut Reader::new(&bytes[4..])) else { return waiting() };
            // Memory is for those who send something: a header alone gets none, whatever length it claims.
            if seen < length.min(page.len()) && rest != Rest::Late {
                return waiting();
            }
            if seen >= length {
                take(socket, &mut page.expose_secret_mut()[..length])?;
                return Ok(self.packet(header, &page.expose_secret()[HEAD..length]));
            }
            let Some(room) = room(&header, length) else { return Ok(Incoming::Crowded) };
            take(socket, &mut page.expose_secret_mut()[..HEAD])?;
            self.large = Some(Large::begin(header, length - HEAD, &room, transit));
        }
        let Some(large) = &mut self.large else { return Err(io::ErrorKind::WouldBlock.into()) };
        self.touched = page.len();
        while large.missing > 0 {
            match large.gather(socket, page) {
                Ok(0) => return Ok(Incoming::End("it ended amid a packet")),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.gathered(kept))
    }

    /// The same, out of records.
    #[expect(clippy::too_many_arguments, reason = "those of `receive`, and the records")]
    fn receive_opened<'a>(
        &mut self,
        records: &mut Records,
        socket: BorrowedFd<'_>,
        page: &'a mut Page,
        rest: Rest,
        transit: &Arc<Transit>,
        room: impl FnOnce(&Header, usize) -> Option<Room>,
        kept: &'a mut Option<Gathered>,
    ) -> io::Result<Incoming<'a>> {
        let Page { packets: page, record } = page;
        self.half = false;
        // What waits goes onto the page: of whole packets the first, else all that there is.
        let Ok(missing) = needs(records.front()) else { return Ok(Incoming::End(NO_PACKET)) };
        let wanted = match packet_length_of(records.front()) {
            Some(length) if missing == 0 && length <= LONGEST_SMALL => length,
            _ => records.front().len(),
        };
        page.overwrite(0, &records.front()[..wanted]);
        records.used(wanted);
        let (mut from, mut end, mut room, mut opened) = (0, wanted, Some(room), 0);
        loop {
            self.touched = self.touched.max(end);
            if let Some(large) = &mut self.large {
                from += large.absorb(&page.expose_secret()[from..end]);
                if large.missing == 0 {
                    return Ok(match records.keep(&page.expose_secret()[from..end], transit) {
                        Ok(()) => self.gathered(kept),
                        Err(_) => Incoming::End(NO_MEMORY),
                    });
                }
                (from, end) = (0, 0);
            }
            let front = &page.expose_secret()[from..end];
            match needs(front) {
                Err(()) => return Ok(Incoming::End(NO_PACKET)),
                Ok(0) if self.large.is_none() => {
                    let (Some(length), Ok(header)) =
                        (packet_length_of(front), Header::decode(&mut Reader::new(&front[4..])))
                    else {
                        return Ok(Incoming::End(NO_PACKET));
                    };
                    if length <= LONGEST_SMALL {
                        return Ok(match records.keep(&front[length..], transit) {
                            Ok(()) => self.packet(header, &page.expose_secret()[from + HEAD..from + length]),
                            Err(_) => Incoming::End(NO_MEMORY),
                        });
                    }
                    let Some(room) = room.take().and_then(|room| room(&header, length)) else {
                        return Ok(match records.keep(front, transit) {
                            Ok(()) => Incoming::Crowded,
                            Err(_) => Incoming::End(NO_MEMORY),
                        });
                    };
                    from += HEAD;
                    self.large = Some(Large::begin(header, length - HEAD, &room, transit));
                    continue;
                }
                Ok(_) => {}
            }
            // Only here: a large packet has all that is its own, and what is left is the beginning of one.
            if opened == MOST_RECORDS {
                return Ok(match records.keep(front, transit) {
                    Ok(()) => Incoming::Part,
                    Err(_) => Incoming::End(NO_MEMORY),
                });
            }
            opened += 1;
            let elsewhere = self.large.as_ref().map_or(0, |large| large.missing);
            let plain = Plain { page: &mut *page, filled: end, elsewhere };
            end = match records.next(socket, record, plain, rest, transit) {
                Ok(end) => end,
                Err(Stopped::End(ending)) => {
                    self.touched = page.len(); // some of it may have been opened
                    return Ok(Incoming::End(ending));
                }
                Err(stopped) => {
                    if records.keep(&page.expose_secret()[from..end], transit).is_err() {
                        return Ok(Incoming::End(NO_MEMORY));
                    }
                    return match stopped {
                        Stopped::Crowded => Ok(Incoming::Crowded),
                        Stopped::Failed(error) => Err(error),
                        Stopped::Half | Stopped::End(_) => {
                            self.half = true;
                            Err(io::ErrorKind::WouldBlock.into())
                        }
                    };
                }
            };
        }
    }

    /// A packet that is on the page.
    fn packet<'a>(&mut self, header: Header, body: &'a [u8]) -> Incoming<'a> {
        match self.arguments(&header, body) {
            Ok(arguments) => Incoming::Packet(header, arguments),
            Err(ending) => Incoming::End(ending),
        }
    }

    /// The large packet, now that all of it is there.
    fn gathered<'a>(&mut self, kept: &'a mut Option<Gathered>) -> Incoming<'a> {
        let Some(large) = self.large.take() else { return Incoming::Part };
        let header = large.header;
        if let Kept::Nothing(exhausted) = large.kept {
            return Incoming::Starved(header, exhausted);
        }
        let gathered = kept.insert(Gathered { kept: large.kept, _load: large.load });
        self.packet(header, gathered.bytes())
    }

    /// The arguments, behind the number of file descriptors if some come along; or why it is over.
    fn arguments<'a>(&mut self, header: &Header, body: &'a [u8]) -> Result<&'a [u8], &'static str> {
        if header.kind != Kind::CallWithFds {
            return Ok(body);
        }
        let mut reader = Reader::new(body);
        let count = u32::decode(&mut reader).ok().filter(|count| *count <= MAX_FDS).ok_or(TOO_MANY_FDS)?;
        if count > 0 && !self.descriptors {
            return Err("it sent file descriptors where none can come along");
        }
        self.swallow = usize::try_from(count).map_err(|_| TOO_MANY_FDS)?;
        Ok(reader.rest())
    }
}

/// How many bytes of a packet must still come before something can be done about it; or there is no packet of that length.
fn needs(front: &[u8]) -> Result<usize, ()> {
    match front.first_chunk() {
        Some(word) => match packet_length(*word) {
            Ok(length) => Ok(length.min(LONGEST_SMALL).saturating_sub(front.len())),
            Err(_) => Err(()),
        },
        None => Ok(4 - front.len()),
    }
}

fn packet_length_of(front: &[u8]) -> Option<usize> {
    packet_length(*front.first_chunk()?).ok()
}

/// A large packet's arguments, whole. They are wiped, if they must be, when it is dropped.
pub(super) struct Gathered {
    kept: Kept,
    _load: Load,
}

impl Gathered {
    fn bytes(&self) -> &[u8] {
        match &self.kept {
            Kept::Secret(bytes, _) => bytes.expose_secret(),
            Kept::Ordinary(bytes, _) => bytes,
            Kept::Nothing(_) => &[],
        }
    }
}

impl Large {
    fn begin(header: Header, missing: usize, room: &Room, transit: &Arc<Transit>) -> Self {
        let keep = missing.min(room.bytes);
        let (kept, load) = match room.secret.then(|| SecretBytes::zeroed(keep)) {
            Some(Ok(bytes)) => (Kept::Secret(bytes, 0), transit.secret(keep.next_power_of_two())),
            Some(Err(exhausted)) => (Kept::Nothing(exhausted), transit.ordinary(0)),
            None => (Kept::Ordinary(Zeroizing::default(), keep), transit.ordinary(0)),
        };
        Self { header, missing, kept, load }
    }

    /// Takes from what was opened, up to the packet's end; how much.
    fn absorb(&mut self, opened: &[u8]) -> usize {
        let some = opened.len().min(self.missing);
        match &mut self.kept {
            Kept::Secret(bytes, have) => {
                let kept = some.min(bytes.len() - *have);
                bytes.overwrite(*have, &opened[..kept]);
                *have += kept;
            }
            Kept::Ordinary(bytes, keep) => {
                append(bytes, &opened[..some.min(*keep - bytes.len())], *keep);
                self.load.grow(bytes.capacity());
            }
            Kept::Nothing(_) => {}
        }
        self.missing -= some;
        some
    }

    /// Takes what there is, up to the packet's end.
    fn gather(&mut self, socket: BorrowedFd<'_>, page: &mut SecretBytes) -> io::Result<usize> {
        let page = page.expose_secret_mut();
        let some = page.len().min(self.missing);
        let (place, ordinary) = match &mut self.kept {
            Kept::Secret(bytes, have) if *have < bytes.len() => {
                let taken = recv(socket, &mut bytes.expose_secret_mut()[*have..], RecvFlags::empty())?.0;
                *have += taken;
                self.missing -= taken;
                return Ok(taken);
            }
            Kept::Ordinary(bytes, keep) if bytes.len() < *keep => {
                (&mut page[..some.min(*keep - bytes.len())], Some((bytes, *keep)))
            }
            Kept::Secret(..) | Kept::Ordinary(..) | Kept::Nothing(_) => (&mut page[..some], None),
        };
        let taken = recv(socket, &mut *place, RecvFlags::empty())?.0;
        if let Some((bytes, most)) = ordinary {
            append(bytes, &place[..taken], most);
            self.load.grow(bytes.capacity());
        }
        self.missing -= taken;
        Ok(taken)
    }
}

/// Appends these to bytes that grow up to so many. Where they were before they grew, they are wiped.
fn append(bytes: &mut Zeroizing<Vec<u8>>, more: &[u8], most: usize) {
    let length = bytes.len() + more.len();
    if length > bytes.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.max((2 * bytes.capacity()).min(most))));
        larger.extend_from_slice(bytes);
        *bytes = larger;
    }
    bytes.extend_from_slice(more);
}

/// Takes what was seen to be there.
pub(super) fn take(socket: BorrowedFd<'_>, mut place: &mut [u8]) -> io::Result<()> {
    while !place.is_empty() {
        match recv(socket, &mut *place, RecvFlags::empty())?.0 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => place = &mut place[taken..],
        }
    }
    Ok(())
}

/// Larger than any packet but for large values, definitions and what strangers send.
pub(super) const PAGE_SIZE: usize = 16 << 10;

/// Records that are opened before others have their turn.
const MOST_RECORDS: usize = 64;

const NO_PACKET: &str = "it sent a length that no packet has";

const NO_MEMORY: &str = "there is no secret memory";

const TOO_MANY_FDS: &str = "it sent more file descriptors than a packet may have";
