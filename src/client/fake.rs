//! A server for tests, which says what it is told to.
//!
//! Leans on `rpc`, from the other side. Refuses nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::Client;
use super::route::Route;
use super::way::{Unix, Way};
use super::wire::Wire;
use crate::rpc::packet::{HEAD, packet_length};
use crate::rpc::remote::procedure;
use crate::rpc::{Encode, Header, Kind, Status, VERSION, decode, packet, program};

/// The server's end of a connection.
pub(super) struct Fake(pub(super) UnixStream);

impl Fake {
    /// A client as it is once it is in, and its server. The client pings after `beat` when it was told that it may.
    pub(super) fn with_client(beat: Duration) -> (Client, Self) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let wire: Arc<Wire> = Wire::start(ours, beat).unwrap();
        let uri = "secret:///system".to_owned();
        (Client { wire, uri, route: route(), read_only: false, has_events: true, ask: None }, Self(theirs))
    }

    /// The next packet.
    pub(super) fn packet(&mut self) -> (Header, Vec<u8>) {
        let mut word = [0; 4];
        self.0.read_exact(&mut word).unwrap();
        let mut rest = vec![0; packet_length(word).unwrap() - 4];
        self.0.read_exact(&mut rest).unwrap();
        (decode(&rest).unwrap(), rest[HEAD - 4..].to_vec())
    }

    /// The next packet, which is a call of this procedure.
    pub(super) fn call(&mut self, procedure: i32) -> (Header, Vec<u8>) {
        let (header, body) = self.packet();
        assert_eq!((header.program, header.version), (program::REMOTE, VERSION));
        assert_eq!((header.kind, header.status, header.procedure), (Kind::Call, Status::Ok, procedure));
        (header, body)
    }

    /// Answers well.
    pub(super) fn reply(&mut self, call: Header, body: &impl Encode) {
        self.send(&packet(call.reply(Status::Ok), body));
    }

    /// Sends an event.
    pub(super) fn event(&mut self, procedure: i32, body: &impl Encode) {
        let (program, version, kind) = (program::REMOTE, VERSION, Kind::Message);
        self.send(&packet(Header { program, version, procedure, kind, serial: 1, status: Status::Ok }, body));
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The client's good-bye, and the end.
    pub(super) fn reply_to_close(&mut self) {
        let (call, _) = self.call(procedure::CONNECT_CLOSE);
        self.reply(call, &());
        assert_eq!(self.0.read(&mut [0]).unwrap(), 0);
    }
}

/// A way to nowhere.
pub(super) fn route() -> Route {
    Route {
        way: Way::Unix(Unix {
            socket: "/nonexistent/socket".into(),
            daemon: None,
            token: "/nonexistent/token".into(),
        }),
        name: "secret:///system".to_owned(),
        authentication: None,
        host: "localhost".to_owned(),
        user: None,
        authfile: None,
    }
}
