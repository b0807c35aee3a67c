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
use zeroize::Zeroize;

use super::transit::{Load, Transit};
use crate::memory::SecretBytes;
use crate::rpc::packet::{HEAD, MAX_FDS, packet_length};
use crate::rpc::{Decode, Header, Kind, Reader};

/// What has come.
pub(super) enum Incoming<'a> {
    /// A packet: its header and its arguments, or as much of them as a call has use for.
    Packet(Header, &'a [u8]),
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
    /// Bytes to keep, in all.
    keep: usize,
    kept: Kept,
    load: Load,
}

/// Grows with what really comes, up to what the call has use for.
enum Kept {
    /// So many of the bytes are filled.
    Secret(SecretBytes, usize),
    Ordinary(Vec<u8>),
}

impl Inbound {
    /// Whether it holds memory for a packet that isn't whole.
    pub(super) fn is_gathering(&self) -> bool {
        self.large.is_some()
    }

    /// Whether part of a packet has come, and is left where it is.
    pub(super) fn has_seen_half(&self) -> bool {
        self.half
    }

    /// Wipes what was written to the page.
    pub(super) fn wipe(&mut self, page: &mut SecretBytes) {
        page.expose_secret_mut()[..std::mem::take(&mut self.touched)].zeroize();
    }

    /// The next packet, if it is there; [`io::ErrorKind::WouldBlock`] if it isn't yet. The page is overwritten.
    ///
    /// `rest`: whether to wait for what is missing. `room` says what a large packet is worth.
    pub(super) fn receive<'a>(
        &mut self,
        socket: BorrowedFd<'_>,
        page: &'a mut SecretBytes,
        rest: Rest,
        transit: &Arc<Transit>,
        room: impl FnOnce(&Header) -> Room,
        kept: &'a mut Option<Gathered>,
    ) -> io::Result<Incoming<'a>> {
        while self.swallow > 0 {
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
            take(socket, &mut page.expose_secret_mut()[..HEAD])?;
            self.large = Some(Large::begin(header, length - HEAD, &room(&header), transit)?);
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
        let gathered = kept.insert(Gathered { kept: large.kept, _load: large.load });
        self.half = false;
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
            Kept::Secret(bytes, filled) => &bytes.expose_secret()[..*filled],
            Kept::Ordinary(bytes) => bytes,
        }
    }
}

impl Large {
    fn begin(header: Header, missing: usize, room: &Room, transit: &Arc<Transit>) -> io::Result<Self> {
        let keep = missing.min(room.bytes);
        let (kept, load) = if room.secret && keep > 0 {
            let bytes = SecretBytes::zeroed(keep.min(FIRST)).map_err(io::Error::other)?;
            let load = transit.load(bytes.len(), 0);
            (Kept::Secret(bytes, 0), load)
        } else {
            (Kept::Ordinary(Vec::new()), transit.load(0, 0))
        };
        Ok(Self { header, missing, keep, kept, load })
    }

    /// Takes what there is, up to the packet's end; no more than a page at once.
    fn gather(&mut self, socket: BorrowedFd<'_>, page: &mut SecretBytes) -> io::Result<usize> {
        let taken = match &mut self.kept {
            Kept::Secret(bytes, filled) if *filled < self.keep => {
                if *filled == bytes.len() {
                    let mut more =
                        SecretBytes::zeroed(self.keep.min(2 * bytes.len())).map_err(io::Error::other)?;
                    more.overwrite(0, bytes.expose_secret());
                    self.load.change(more.len().next_power_of_two(), 0);
                    *bytes = more;
                }
                let taken = recv(socket, &mut bytes.expose_secret_mut()[*filled..], RecvFlags::empty())?.0;
                *filled += taken;
                taken
            }
            Kept::Ordinary(bytes) if bytes.len() < self.keep => {
                let page = page.expose_secret_mut();
                let some = page.len().min(self.keep - bytes.len());
                let taken = recv(socket, &mut page[..some], RecvFlags::empty())?.0;
                bytes.extend_from_slice(&page[..taken]);
                self.load.change(0, bytes.capacity());
                taken
            }
            Kept::Secret(..) | Kept::Ordinary(_) => {
                let page = page.expose_secret_mut();
                let some = page.len().min(self.missing);
                recv(socket, &mut page[..some], RecvFlags::empty())?.0
            }
        };
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

/// What half a packet gets of secret memory at first.
const FIRST: usize = 8 << 10;

const TOO_MANY_FDS: &str = "it sent more file descriptors than a packet may have";
