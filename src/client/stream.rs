//! A connected stream: its socket, and the layer that encrypts it, if there is one.
//!
//! Two halves. [`Inflow`] is the reader's: bytes as they were meant, whatever they came in. [`Outflow`] is held by whoever
//! writes. Without a layer both hand on to the socket and add nothing. Leans on `net`'s layers. Refuses to have plaintext
//! of a layer anywhere but in secret memory, and to read on behind a record that doesn't open.

use std::mem;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::io::Errno;
use secrecy::{ExposeSecret, ExposeSecretMut};

use super::socket::Socket;
use crate::memory::{Exhausted, SecretBytes, scrubbed};
use crate::net::layer::{Broken, Layer, MAX_RECORD, Open, Seal};

/// A stream on which nobody has said anything yet.
pub(super) struct Stream {
    pub(super) inflow: Inflow,
    pub(super) outflow: Outflow,
    /// The bits of the layer's key.
    pub(super) bits: u32,
}

impl Stream {
    /// A stream in the clear.
    pub(super) fn plain(socket: Socket) -> Self {
        Self::new(socket, None, None, 0)
    }

    /// A stream in a layer.
    pub(super) fn in_layer(socket: Socket, layer: Layer) -> Self {
        Self::new(socket, Some(layer.opener), Some(layer.sealer), layer.bits)
    }

    fn new(socket: Socket, opener: Option<Box<dyn Open>>, sealer: Option<Box<dyn Seal>>, bits: u32) -> Self {
        let socket = Arc::new(socket);
        let inflow = Inflow {
            socket: Arc::clone(&socket),
            layered: opener.map(Layered::new),
            next: Arc::default(),
            clear: 0,
            end: None,
        };
        Self { inflow, outflow: Outflow { socket, sealer, sealed: Vec::new(), rest: Vec::new() }, bits }
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::plain(Socket::new(stream))
    }
}

/// A layer's opener on its way to the thread that reads.
#[derive(Default)]
pub(super) struct Next {
    is_there: AtomicBool,
    opener: Mutex<Option<Box<dyn Open>>>,
}

impl Next {
    /// What comes from now on goes through this.
    pub(super) fn put(&self, opener: Box<dyn Open>) {
        *self.opener.lock().unwrap_or_else(PoisonError::into_inner) = Some(opener);
        self.is_there.store(true, Ordering::Release);
    }

    fn take(&self) -> Option<Box<dyn Open>> {
        if !self.is_there.load(Ordering::Acquire) {
            return None;
        }
        self.is_there.store(false, Ordering::Relaxed);
        self.opener.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Why nothing more can be read, or not now.
#[derive(Debug)]
pub(super) enum Stop {
    /// As the system says. EAGAIN: nothing came in time.
    System(Errno),
    /// The layer is broken, or at its end.
    Layer(Broken),
    /// No secret memory for what came.
    NoMemory(Exhausted),
}

/// What comes.
pub(super) struct Inflow {
    pub(super) socket: Arc<Socket>,
    layered: Option<Layered>,
    pub(super) next: Arc<Next>,
    /// How much of the packet that is being read came in the clear.
    clear: usize,
    /// When reading from the layer ends with EAGAIN, if that isn't the socket's business.
    pub(super) end: Option<Instant>,
}

impl Inflow {
    /// What is read next begins a packet.
    pub(super) fn begin_packet(&mut self) {
        self.clear = 0;
    }

    /// Reads what there is, at least a byte. 0: the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> Result<usize, Stop> {
        loop {
            if let Some(layered) = &mut self.layered {
                return layered.read(&self.socket, into, self.end);
            }
            let read = self.socket.read(into).map_err(Stop::System)?;
            // The layer may have come while nothing else did: then these are its first bytes.
            match self.next.take() {
                // The peer has nothing to say between its last word in the clear and our first in the layer.
                Some(_) if self.clear > 0 => {
                    return Err(Stop::Layer(Broken::Malformed(
                        "it goes on in the clear behind the authentication",
                    )));
                }
                Some(opener) => {
                    let mut layered = Layered::new(opener);
                    layered.sealed.extend_from_slice(&into[..read]);
                    self.layered = Some(layered);
                    if read == 0 {
                        return Ok(0);
                    }
                }
                None => {
                    self.clear += read;
                    return Ok(read);
                }
            }
        }
    }
}

/// Records on their way in.
struct Layered {
    opener: Box<dyn Open>,
    /// What came and isn't opened yet.
    sealed: Vec<u8>,
    /// What is opened and not read yet, and how much of it is.
    opened: Option<(SecretBytes, usize)>,
}

impl Layered {
    fn new(opener: Box<dyn Open>) -> Self {
        Self { opener, sealed: Vec::new(), opened: None }
    }

    fn read(&mut self, socket: &Socket, into: &mut [u8], end: Option<Instant>) -> Result<usize, Stop> {
        loop {
            if let Some((opened, taken)) = &mut self.opened {
                let rest = &opened.expose_secret()[*taken..];
                let now = rest.len().min(into.len());
                scrubbed(|| into[..now].copy_from_slice(&rest[..now]));
                *taken += now;
                if *taken == opened.len() {
                    self.opened = None;
                }
                return Ok(now);
            }
            match self.opener.record(&self.sealed).map_err(Stop::Layer)? {
                Some(length) if length <= self.sealed.len() => self.open(length)?,
                _ => {
                    let have = self.sealed.len();
                    self.sealed.resize(MAX_RECORD.max(have + 1), 0);
                    let into = &mut self.sealed[have..];
                    let read = match end {
                        Some(end) => socket.read_until(into, end),
                        None => socket.read(into),
                    };
                    self.sealed.truncate(have + *read.as_ref().unwrap_or(&0));
                    if read.map_err(Stop::System)? == 0 {
                        return Ok(0);
                    }
                }
            }
        }
    }

    /// Opens the record of this length, in secret memory from its first byte on.
    fn open(&mut self, length: usize) -> Result<(), Stop> {
        let mut record = SecretBytes::zeroed(length).map_err(Stop::NoMemory)?;
        record.expose_secret_mut().copy_from_slice(&self.sealed[..length]);
        self.sealed.drain(..length);
        let mut opened = SecretBytes::zeroed(length).map_err(Stop::NoMemory)?;
        let mut len = 0;
        let mut fits = true;
        let result = scrubbed(|| {
            self.opener.open(record.expose_secret_mut(), &mut |part| {
                match opened.expose_secret_mut().get_mut(len..len + part.len()) {
                    Some(place) => place.copy_from_slice(part),
                    None => fits = false,
                }
                len += part.len();
            })
        });
        result.map_err(Stop::Layer)?;
        if !fits {
            return Err(Stop::Layer(Broken::Malformed("a record holds more than it is long")));
        }
        if len > 0 {
            opened.truncate(len);
            self.opened = Some((opened, 0));
        }
        Ok(())
    }
}

/// What goes.
pub(super) struct Outflow {
    pub(super) socket: Arc<Socket>,
    sealer: Option<Box<dyn Seal>>,
    /// Where packets are sealed.
    sealed: Vec<u8>,
    /// What was begun and has not gone out whole: nothing may go before it.
    rest: Vec<u8>,
}

impl Outflow {
    /// What goes from now on goes through this.
    pub(super) fn secure(&mut self, sealer: Box<dyn Seal>) {
        self.sealer = Some(sealer);
    }

    /// Sends all of it. After an error nothing can be sent any more.
    pub(super) fn send(&mut self, packet: &[u8]) -> Result<(), Errno> {
        let rest = mem::take(&mut self.rest);
        self.socket.send(&rest)?;
        let Some(sealer) = &mut self.sealer else { return self.socket.send(packet) };
        self.sealed.clear();
        sealer.seal(&[packet], &mut self.sealed).map_err(|_| Errno::IO)?;
        self.socket.send(&self.sealed)
    }

    /// Begins to send it, unless there is no room for what was begun before: then it says no.
    pub(super) fn send_soon(&mut self, packet: &[u8]) -> Result<bool, Errno> {
        if !self.send_rest()? {
            return Ok(false);
        }
        match &mut self.sealer {
            Some(sealer) => sealer.seal(&[packet], &mut self.rest).map_err(|_| Errno::IO)?,
            None => self.rest.extend_from_slice(packet),
        }
        self.send_rest()?;
        Ok(true)
    }

    /// Sends what there is room for of what was begun. Whether all of it is gone.
    pub(super) fn send_rest(&mut self) -> Result<bool, Errno> {
        while !self.rest.is_empty() {
            match self.socket.send_now(&self.rest) {
                Ok(sent) => drop(self.rest.drain(..sent)),
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more will come, if the layer has a word for it and there is room for it.
    pub(super) fn close(&mut self) {
        if let Some(sealer) = &mut self.sealer {
            sealer.close(&mut self.rest);
            _ = self.send_rest();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// A layer that anybody can see through: records of `chunk` bytes behind four bytes of length, each byte turned over.
    pub(in super::super) fn toy(chunk: usize) -> Layer {
        Layer { opener: Box::new(Toy(chunk)), sealer: Box::new(Toy(chunk)), bits: 1 }
    }

    struct Toy(usize);

    impl Open for Toy {
        fn record(&self, front: &[u8]) -> Result<Option<usize>, Broken> {
            let Some(length) = front.first_chunk() else { return Ok(None) };
            match u32::from_be_bytes(*length) as usize {
                0 => Err(Broken::Closed),
                length if length + 4 > MAX_RECORD => Err(Broken::Malformed("too long")),
                length => Ok(Some(length + 4)),
            }
        }

        fn open(&mut self, record: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Broken> {
            let plain: Vec<u8> = record[4..].iter().map(|byte| !byte).collect();
            plain.chunks(3).for_each(take);
            if plain == b"bad" { Err(Broken::Malformed("a bad record")) } else { Ok(()) }
        }
    }

    impl Seal for Toy {
        fn seal(&mut self, plain: &[&[u8]], sealed: &mut Vec<u8>) -> Result<(), Broken> {
            for part in plain.concat().chunks(self.0) {
                sealed.extend_from_slice(&(part.len() as u32).to_be_bytes());
                sealed.extend(part.iter().map(|byte| !byte));
            }
            Ok(())
        }

        fn close(&mut self, sealed: &mut Vec<u8>) {
            sealed.extend_from_slice(&[0; 4]);
        }
    }

    /// What these bytes become in the layer.
    pub(in super::super) fn sealed(plain: &[u8], chunk: usize) -> Vec<u8> {
        let mut sealed = Vec::new();
        Toy(chunk).seal(&[plain], &mut sealed).unwrap();
        sealed
    }

    #[test]
    fn a_packet_begun_in_the_clear_does_not_go_on_in_the_layer() {
        for begun in [false, true] {
            let (mut theirs, ours) = UnixStream::pair().unwrap();
            let Stream { mut inflow, .. } = Stream::plain(Socket::new(ours));
            theirs.write_all(b"last word").unwrap();
            assert_eq!(read(&mut inflow, 9), b"last word");
            inflow.begin_packet();
            if begun {
                theirs.write_all(b"injected").unwrap();
                read(&mut inflow, 8);
            }
            inflow.next.put(toy(5).opener);
            theirs.write_all(&sealed(b"first", 5)).unwrap();
            match inflow.read(&mut [0; 5]) {
                Ok(_) => assert!(!begun),
                Err(stop) => assert!(begun && matches!(stop, Stop::Layer(Broken::Malformed(_))), "{stop:?}"),
            }
        }
    }

    fn pair() -> (UnixStream, Stream) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        (theirs, Stream::in_layer(Socket::new(ours), toy(5)))
    }

    fn read(inflow: &mut Inflow, len: usize) -> Vec<u8> {
        let mut all = vec![0; len];
        let mut have = 0;
        while have < len {
            have += inflow.read(&mut all[have..]).unwrap();
        }
        all
    }

    #[test]
    fn records_and_reads_need_not_line_up() {
        let (mut theirs, Stream { mut inflow, .. }) = pair();
        let plain: Vec<u8> = (0..1000_u32).map(|at| at as u8).collect();
        let bytes = sealed(&plain, 7);
        let writing = std::thread::spawn(move || {
            for part in bytes.chunks(13) {
                theirs.write_all(part).unwrap();
            }
            theirs
        });
        for part in plain.chunks(100) {
            assert_eq!(read(&mut inflow, part.len()), part);
        }
        drop(writing.join().unwrap());
        assert!(matches!(inflow.read(&mut [0]), Ok(0)));
    }

    #[test]
    fn nothing_is_read_behind_what_is_no_record() {
        for (bytes, told) in [
            (sealed(b"bad", 3), Broken::Malformed("a bad record")),
            (vec![0xFF; 4], Broken::Malformed("too long")),
            (vec![0; 4], Broken::Closed),
        ] {
            let (mut theirs, Stream { mut inflow, .. }) = pair();
            theirs.write_all(&[sealed(b"good", 4), bytes].concat()).unwrap();
            assert_eq!(read(&mut inflow, 4), b"good");
            assert!(matches!(inflow.read(&mut [0]), Err(Stop::Layer(why)) if why == told), "{told}");
        }
    }

    #[test]
    fn a_layer_takes_over_between_two_bytes() {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let Stream { mut inflow, .. } = Stream::from(ours);
        theirs.write_all(b"clear").unwrap();
        assert_eq!(read(&mut inflow, 5), b"clear");
        inflow.begin_packet();
        let Layer { opener, .. } = toy(5);
        let next = Arc::clone(&inflow.next);
        let reading = std::thread::spawn(move || read(&mut inflow, 6)); // it may wait in the clear already
        next.put(opener);
        theirs.write_all(&sealed(b"sealed", 4)).unwrap();
        assert_eq!(reading.join().unwrap(), b"sealed");
    }

    #[test]
    fn what_was_begun_goes_out_before_anything_else() {
        let (mut theirs, Stream { mut outflow, .. }) = pair();
        let mut filled = 0;
        while let Ok(sent) = outflow.socket.send_now(&[1; 4096]) {
            filled += sent;
        }
        assert_eq!(outflow.send_soon(b"begun"), Ok(true));
        assert_eq!(outflow.send_soon(b"no room"), Ok(false));
        theirs.read_exact(&mut vec![0; filled]).unwrap();
        outflow.send(b"behind").unwrap();
        outflow.close();
        drop(outflow);
        let mut rest = Vec::new();
        theirs.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [sealed(b"begun", 5), sealed(b"behind", 5), vec![0; 4]].concat());
    }
}
