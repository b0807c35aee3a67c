//! Packets out of a byte stream, without a buffer for those who wait.
//!
//! What a client has sent stays in the kernel until a whole packet is there: it is looked at first (MSG_PEEK), and taken when it can
//! be answered. So ten thousand idle clients, or such as send half a packet and stop, cost no memory here. A packet that is larger
//! than the reader's own page is gathered in memory of its own: secret memory if it may carry a value, and never more than
//! the call can have use for; the rest is read and let go.
//!
//! Leans on `rpc` for lengths and headers, on `memory` for where values land. Refuses lengths that no packet has. File
//! descriptors that come along are closed by the kernel, because nobody asks it for them.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::net::{RecvFlags, recv};
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::transit::{Load, Transit};
use crate::memory::{Exhausted, SecretBytes};
use crate::rpc::packet::{HEAD, MAX_FDS, packet_length};
use crate::rpc::{Decode, Header, Kind, Reader};

/// What has come.
pub(super) enum Incoming<'a> {
    /// A packet: its header and its arguments, or as much of them as a call has use for.
    Packet(Header, &'a [u8]),
    /// A large packet, for which there is no room at present. It stays in the kernel.
    Crowded,
    /// A large packet that had to be let go, because there is no secret memory.
    Starved(Header, Exhausted),
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

/// How much of a large packet to keep, and where.
pub(super) struct Room {
    /// The longest arguments that this call has.
    pub(super) bytes: usize,
    /// They may hold a value.
    pub(super) secret: bool,
}

impl Room {
    /// For whom nothing is kept.
    pub(super) const NONE: Self = Self { bytes: 0, secret: false };
}

/// One client's byte stream.
#[derive(Default)]
pub(super) struct Inbound {
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
    /// Grows with what really comes, up to so many.
    Ordinary(Vec<u8>, usize),
    /// Nothing, for want of memory.
    Nothing(Exhausted),
}

impl Inbound {
    /// How much is missing of a packet that it holds memory for, if there is one.
    pub(super) fn missing(&self) -> Option<usize> {
        self.large.as_ref().map(|large| large.missing)
    }

    /// Whether part of a packet has come, and is left where it is.
    pub(super) fn has_seen_half(&self) -> bool {
        self.half
    }

    /// Wipes what was written to the page.
    pub(super) fn wipe(&mut self, page: &mut SecretBytes) {
        page.wipe_front(std::mem::take(&mut self.touched));
    }

    /// The next packet, if it is there; [`io::ErrorKind::WouldBlock`] if it isn't yet. The page is overwritten.
    ///
    /// `rest`: whether to wait for what is missing. `room` says what a large packet is worth; nothing if none may be begun now.
    pub(super) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        page: &'a mut SecretBytes,
        rest: Rest,
        transit: &Arc<Transit>,
        room: impl FnOnce(&Header) -> Option<Room>,
        kept: &'a mut Option<Gathered>,
    ) -> io::Result<Incoming<'a>> {
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
                return Ok(Incoming::End("it sent a length that no packet has"));
            };
            let Ok(header) = Header::decode(&mut Reader::new(&bytes[4..])) else { return waiting() };
            // Memory is for those who send something: a header alone gets none, whatever length it claims.
            if seen < length.min(page.len()) && rest != Rest::Late {
                return waiting();
            }
            if seen >= length {
                take(socket, &mut page.expose_secret_mut()[..length])?;
                let Some(arguments) = self.arguments(&header, &page.expose_secret()[HEAD..length]) else {
                    return Ok(Incoming::End(TOO_MANY_FDS));
                };
                return Ok(Incoming::Packet(header, arguments));
            }
            let Some(room) = room(&header) else { return Ok(Incoming::Crowded) };
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
        let Some(large) = self.large.take() else { return Err(io::ErrorKind::WouldBlock.into()) };
        let header = large.header;
        if let Kept::Nothing(exhausted) = large.kept {
            return Ok(Incoming::Starved(header, exhausted));
        }
        let gathered = kept.insert(Gathered { kept: large.kept, _load: large.load });
        match self.arguments(&header, gathered.bytes()) {
            Some(arguments) => Ok(Incoming::Packet(header, arguments)),
            None => Ok(Incoming::End(TOO_MANY_FDS)),
        }
    }

    /// The arguments, behind the number of file descriptors if some come along.
    fn arguments<'a>(&mut self, header: &Header, body: &'a [u8]) -> Option<&'a [u8]> {
        if header.kind != Kind::CallWithFds {
            return Some(body);
        }
        let mut reader = Reader::new(body);
        let count = u32::decode(&mut reader).ok().filter(|count| *count <= MAX_FDS)?;
        self.swallow = usize::try_from(count).ok()?;
        Some(reader.rest())
    }
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
            None => (Kept::Ordinary(Vec::new(), keep), transit.ordinary(0)),
        };
        Self { header, missing, kept, load }
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
                (&mut page[..some.min(*keep - bytes.len())], Some(bytes))
            }
            Kept::Secret(..) | Kept::Ordinary(..) | Kept::Nothing(_) => (&mut page[..some], None),
        };
        let taken = recv(socket, &mut *place, RecvFlags::empty())?.0;
        if let Some(bytes) = ordinary {
            bytes.extend_from_slice(&place[..taken]);
            self.load.grow(bytes.capacity());
        }
        self.missing -= taken;
        Ok(taken)
    }
}

/// Takes what was seen to be there.
fn take(socket: BorrowedFd<'_>, mut place: &mut [u8]) -> io::Result<()> {
    while !place.is_empty() {
        match recv(socket, &mut *place, RecvFlags::empty())?.0 {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            taken => place = &mut place[taken..],
        }
    }
    Ok(())
}

const TOO_MANY_FDS: &str = "it sent more file descriptors than a packet may have";
