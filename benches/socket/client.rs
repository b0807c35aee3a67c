//! The load generator: one blocking client that speaks libvirt's RPC by itself, the same for every daemon.
//!
//! Leans on the standard library alone and on nothing of ours, so that no daemon is measured with its own code. A call that
//! was prepared costs one write and, mostly, one read: nothing is allocated or built while the clock runs.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(crate) const OPEN: u32 = 1;
pub(crate) const DEFINE: u32 = 142;
pub(crate) const SET_VALUE: u32 = 144;
pub(crate) const GET_VALUE: u32 = 145;
pub(crate) const LIST_ALL: u32 = 287;

/// The bytes before a packet's body.
const HEAD: usize = 28;

/// `S`: what it speaks over.
pub(crate) struct Client<S = UnixStream> {
    stream: S,
    call: Vec<u8>,
    reply: Vec<u8>,
}

impl Client {
    /// Connects and opens the connection's keystore.
    pub(crate) fn open(socket: &Path, uri: &str) -> Self {
        Self::opened(UnixStream::connect(socket).unwrap(), uri)
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, call: Vec::new(), reply: Vec::new() }
    }

    /// Opens the connection's keystore over a stream.
    pub(crate) fn opened(stream: S, uri: &str) -> Self {
        let mut client = Self::over(stream);
        let name = [&1_u32.to_be_bytes()[..], &text(uri.as_bytes())].concat();
        client.prepare(OPEN, &[&name, &[0; 4]]);
        client.call();
        client
    }

    /// The call that [`call`](Self::call) makes from now on.
    pub(crate) fn prepare(&mut self, procedure: u32, body: &[&[u8]]) {
        let body = body.concat();
        let words = [u32::try_from(HEAD + body.len()).unwrap(), REMOTE, 1, procedure, 0, 7, 0];
        self.call = words.iter().flat_map(|word| word.to_be_bytes()).chain(body).collect();
    }

    pub(crate) fn prepare_get(&mut self, secret: [u8; 16]) {
        self.prepare(GET_VALUE, &[&secret, &[0; 8], &[0; 4]]);
    }

    pub(crate) fn prepare_set(&mut self, secret: [u8; 16], value: &[u8]) {
        self.prepare(SET_VALUE, &[&secret, &[0; 8], &text(value), &[0; 4]]);
    }

    /// How long the prepared call is.
    pub(crate) fn call_len(&self) -> usize {
        self.call.len()
    }

    /// Sends the prepared call and waits for its reply. The reply, whole.
    pub(crate) fn call(&mut self) -> &[u8] {
        self.send();
        self.receive()
    }

    pub(crate) fn send(&mut self) {
        self.stream.write_all(&self.call).unwrap();
    }

    pub(crate) fn receive(&mut self) -> &[u8] {
        let mut have = 0;
        loop {
            if have == self.reply.len() {
                self.reply.resize((2 * have).max(1 << 10), 0);
            }
            let read = self.stream.read(&mut self.reply[have..]).unwrap();
            assert!(read > 0, "the daemon closed the connection");
            have += read;
            if have >= HEAD && have >= word(&self.reply, 0) {
                break;
            }
        }
        // A set gives an event too, but nobody here has asked for any.
        assert_eq!((have, word(&self.reply, 20)), (word(&self.reply, 0), 7), "no reply to this call");
        let message = || String::from_utf8_lossy(&self.reply[HEAD..have.min(400)]);
        assert_eq!(word(&self.reply, 24), 0, "the daemon refuses: {}", message());
        &self.reply[..have]
    }
}

/// A string or byte string as XDR has it.
pub(crate) fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes, &[0; 3][..bytes.len().wrapping_neg() % 4]].concat()
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

const REMOTE: u32 = 0x2000_8086;
