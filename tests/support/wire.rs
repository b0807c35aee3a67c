//! libvirt's wire as a test speaks it: bodies, packets, calls and their answers, over a Unix socket, or whatever
//! else carries bytes both ways.
//!
//! Written apart from `src/rpc`, so that the two can't share a mistake. Leans on std. Refuses to hide anything: an
//! attacker builds its packets from the same parts as a good client, only worse.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use uuid::Uuid;

pub(crate) const REMOTE: u32 = 0x2000_8086;
pub(crate) const KEEPALIVE: u32 = 0x6b65_6570;

/// The numbers of the calls that tests make.
pub(crate) mod number {
    pub(crate) const OPEN: i32 = 1;
    pub(crate) const CLOSE: i32 = 2;
    pub(crate) const AUTH_LIST: i32 = 66;
    pub(crate) const SASL_INIT: i32 = 67;
    pub(crate) const SASL_START: i32 = 68;
    pub(crate) const NUM_OF_SECRETS: i32 = 139;
    pub(crate) const DEFINE: i32 = 142;
    pub(crate) const GET_XML: i32 = 143;
    pub(crate) const SET_VALUE: i32 = 144;
    pub(crate) const GET_VALUE: i32 = 145;
    pub(crate) const UNDEFINE: i32 = 146;
    pub(crate) const LIST_ALL: i32 = 287;
    pub(crate) const REGISTER: i32 = 380;
    pub(crate) const SET_IDENTITY: i32 = 419;
}

/// A body, or a whole packet, in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Xdr(pub(crate) Vec<u8>);

impl Xdr {
    pub(crate) fn number(mut self, number: impl TryInto<i64>) -> Self {
        let number = number.try_into().ok().unwrap();
        self.0.extend(&number.to_be_bytes()[4..]);
        self
    }

    pub(crate) fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// With its length before it and padding behind it.
    pub(crate) fn opaque(self, bytes: &[u8]) -> Self {
        let mut with = self.number(bytes.len() as u32).fixed(bytes);
        with.0.resize(with.0.len().next_multiple_of(4), 0);
        with
    }

    /// A secret's name as calls carry it.
    pub(crate) fn secret(self, uuid: Uuid) -> Self {
        self.fixed(uuid.as_bytes()).number(0).opaque(b"")
    }
}

/// A packet with every field of its header at will.
pub(crate) fn packet(
    program: u32,
    procedure: i32,
    kind: u32,
    serial: u32,
    status: u32,
    body: &[u8],
) -> Vec<u8> {
    let head = Xdr::default().number(28 + body.len() as u32).number(program).number(1).number(procedure);
    head.number(kind).number(serial).number(status).fixed(body).0
}

/// An ordinary call.
pub(crate) fn call(procedure: i32, serial: u32, body: &Xdr) -> Vec<u8> {
    packet(REMOTE, procedure, 0, serial, 0, &body.0)
}

pub(crate) fn open_body(uri: &str) -> Xdr {
    Xdr::default().number(1).opaque(uri.as_bytes()).number(0)
}

pub(crate) fn set_body(uuid: Uuid, value: &[u8]) -> Xdr {
    Xdr::default().secret(uuid).opaque(value).number(0)
}

pub(crate) fn flagged_body(uuid: Uuid) -> Xdr {
    Xdr::default().secret(uuid).number(0)
}

pub(crate) fn define_body(xml: &str) -> Xdr {
    Xdr::default().opaque(xml.as_bytes()).number(0)
}

/// Parameters that are all strings.
pub(crate) fn identity_body(parameters: &[(&str, &[u8])]) -> Xdr {
    let start = Xdr::default().number(parameters.len() as u32);
    let one = |body: Xdr, (name, text): &(&str, &[u8])| body.opaque(name.as_bytes()).number(7).opaque(text);
    parameters.iter().fold(start, one).number(0)
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) procedure: i32,
    pub(crate) kind: u32,
    pub(crate) serial: u32,
    pub(crate) status: u32,
    pub(crate) body: Vec<u8>,
}

/// An error that a daemon answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: i32,
    pub(crate) message: String,
    /// The whole body, with all fields.
    pub(crate) body: Vec<u8>,
}

/// A client that keeps to the rules.
#[derive(Debug)]
pub(crate) struct Client<S = UnixStream> {
    pub(crate) stream: S,
    serial: u32,
}

impl Client {
    /// Connects, and opens the keystore. No answer may take longer than `patience`.
    pub(crate) fn open(socket: &Path, patience: Duration) -> io::Result<Self> {
        let mut client = Self::connect(socket, patience)?;
        client.call(number::AUTH_LIST, &Xdr::default())?.unwrap();
        client.call(number::OPEN, &open_body("secret:///system"))?.unwrap();
        Ok(client)
    }

    pub(crate) fn connect(socket: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self::over(stream))
    }
}

impl<S: Read + Write> Client<S> {
    /// Over a connection that is there.
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, serial: 0 }
    }

    /// Calls, and waits for the answer; events and pings in between are dropped.
    pub(crate) fn call(&mut self, procedure: i32, body: &Xdr) -> io::Result<Result<Vec<u8>, Fault>> {
        self.serial += 1;
        self.stream.write_all(&call(procedure, self.serial, body))?;
        loop {
            let answer = self.receive()?;
            if answer.kind != 1 {
                continue;
            }
            assert_eq!((answer.procedure, answer.serial), (procedure, self.serial), "another call's answer");
            return Ok(if answer.status == 0 { Ok(answer.body) } else { Err(fault(answer.body)) });
        }
    }

    pub(crate) fn receive(&mut self) -> io::Result<Packet> {
        let mut head = [0; 28];
        self.stream.read_exact(&mut head)?;
        let word = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let mut body = vec![0; word(0) as usize - 28];
        self.stream.read_exact(&mut body)?;
        Ok(Packet {
            procedure: word(12).cast_signed(),
            kind: word(16),
            serial: word(20),
            status: word(24),
            body,
        })
    }

    pub(crate) fn define(&mut self, xml: &str) -> io::Result<Result<Uuid, Fault>> {
        let answer = self.call(number::DEFINE, &define_body(xml))?;
        Ok(answer.map(|body| Uuid::from_slice(&body[..16]).unwrap()))
    }

    pub(crate) fn set(&mut self, uuid: Uuid, value: &[u8]) -> io::Result<Result<(), Fault>> {
        Ok(self.call(number::SET_VALUE, &set_body(uuid, value))?.map(drop))
    }

    pub(crate) fn get(&mut self, uuid: Uuid) -> io::Result<Result<Vec<u8>, Fault>> {
        let answer = self.call(number::GET_VALUE, &flagged_body(uuid))?;
        Ok(answer.map(|body| opaque(&body).to_vec()))
    }

    pub(crate) fn undefine(&mut self, uuid: Uuid) -> io::Result<Result<(), Fault>> {
        Ok(self.call(number::UNDEFINE, &Xdr::default().secret(uuid))?.map(drop))
    }

    pub(crate) fn xml(&mut self, uuid: Uuid) -> io::Result<Result<String, Fault>> {
        let answer = self.call(number::GET_XML, &flagged_body(uuid))?;
        Ok(answer.map(|body| String::from_utf8(opaque(&body).to_vec()).unwrap()))
    }

    pub(crate) fn list(&mut self) -> io::Result<Vec<Uuid>> {
        let body = self.call(number::LIST_ALL, &Xdr::default().number(1).number(0))?.unwrap();
        let mut rest = &body[..];
        let mut uuids = Vec::new();
        for _ in 0..first_number(rest) {
            uuids.push(Uuid::from_slice(&rest[4..20]).unwrap());
            let id = &rest[24..];
            rest = &rest[24 + (first_number(id) as usize).next_multiple_of(4)..];
        }
        Ok(uuids)
    }

    pub(crate) fn identify(&mut self, token: &[u8]) -> io::Result<Result<(), Fault>> {
        Ok(self.call(number::SET_IDENTITY, &identity_body(&[("system.token", token)]))?.map(drop))
    }
}

fn first_number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(*bytes.first_chunk().unwrap())
}

fn opaque(bytes: &[u8]) -> &[u8] {
    &bytes[4..][..first_number(bytes) as usize]
}

fn fault(body: Vec<u8>) -> Fault {
    let code = first_number(&body).cast_signed();
    let message = match first_number(&body[8..]) {
        0 => String::new(),
        _ => String::from_utf8_lossy(opaque(&body[12..])).into_owned(),
    };
    Fault { code, message, body }
}
