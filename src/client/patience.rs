//! How long a server on the network may take until it has let us in.
//!
//! From the connection to the open keystore there is one end to all waiting, however often the server says a little. Whoever
//! types a password is given back the time that it takes. Leans on nothing. Refuses to wait for ever, as libvirt's client does, for
//! somebody who takes the connection and says nothing.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::secret::{Error, ErrorDomain};

/// With a server, while we are not in.
#[derive(Debug)]
pub(super) struct Patience {
    server: String,
    limit: Duration,
    /// When it is over.
    pub(super) end: Instant,
}

impl Patience {
    /// From now on, with the server that a transport leads to.
    pub(super) fn new(transport: &str, host: &str, port: u16, limit: Duration) -> Self {
        Self { server: format!("{transport} server at '{host}:{port}'"), limit, end: Instant::now() + limit }
    }

    /// So much of the time wasn't the server's.
    #[cfg_attr(not(feature = "sasl"), allow(dead_code, reason = "nobody is asked"))]
    pub(super) fn excuse(&mut self, time: Duration) {
        self.end += time;
    }

    /// The error of a server that wasn't done at the end.
    pub(super) fn over(&self) -> Error {
        let Self { server, limit, .. } = self;
        let error = io::Error::from_raw_os_error(Errno::TIMEDOUT.raw_os_error());
        Error::system(format!("the {server} hasn't let us in within {limit:?}"), &error)
            .in_domain(ErrorDomain::Rpc)
            .advise(
                "see there that the port is the daemon's, and that the daemon is neither stopped nor full (max_clients); its log \
                 may say more",
            )
    }
}

/// How long is given, where nobody says otherwise.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::client::fake::route;
    use crate::client::open;
    use crate::client::route::Route;
    use crate::client::tls::Tls;
    use crate::client::way::Way;
    use crate::net::tls::{Acceptor, Files, Handshake, Rules};

    const SHORT: Duration = Duration::from_millis(200);

    const CERTIFICATES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tls");

    /// What comes of a server that takes the connection and then does this.
    fn give_up(way: impl FnOnce(u16) -> Way, serve: impl FnOnce(TcpStream) + Send) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let route = Route { way: way(port), ..route() };
        thread::scope(|scope| {
            scope.spawn(|| serve(listener.accept().unwrap().0));
            let begun = Instant::now();
            let Err(error) = open::open(&route, false, None, SHORT) else { panic!("it is open") };
            assert!(begun.elapsed() >= SHORT && begun.elapsed() < SHORT * 20, "{:?}", begun.elapsed());
            assert!(error.advice().is_some_and(|advice| advice.contains("max_clients")), "{error:?}");
            error.to_string().replace(&port.to_string(), "PORT")
        })
    }

    fn tcp(port: u16) -> Way {
        Way::Tcp { host: "127.0.0.1".to_owned(), port, cleartext: true }
    }

    fn tls(port: u16) -> Way {
        let (host, pkipath) = ("127.0.0.1".to_owned(), Some(CERTIFICATES.into()));
        Way::Tls(Tls { host, port, pkipath, sanity: false, verify: false, priority: None })
    }

    /// Until the client has gone.
    fn say_nothing(mut stream: TcpStream) {
        _ = io::copy(&mut stream, &mut io::sink());
    }

    /// The beginning of a record, byte by byte, for as long as anybody takes it.
    fn trickle(mut stream: TcpStream) {
        let mut record = [0x16, 3, 3, 0x40, 0].into_iter().chain(std::iter::repeat(0));
        while stream.write_all(&[record.next().unwrap()]).is_ok() {
            thread::sleep(SHORT / 20);
        }
    }

    /// Shakes hands, and doesn't say whether the client is let in.
    fn leave_it_at_that(mut stream: TcpStream) {
        let rules = Rules { sanity: false, verify: false, priority: None };
        let file = |name: &str| Path::new(CERTIFICATES).join(name);
        let own = vec![(file("servercert.pem"), file("serverkey.pem"))];
        let files = Files { ca: file("cacert.pem"), crl: None, crl_is_named: false, own };
        let mut handshake = Arc::new(Acceptor::load(&files, &rules, None).unwrap()).accept().unwrap();
        loop {
            let mut record = vec![0; 5];
            stream.read_exact(&mut record).unwrap();
            record.resize(Handshake::record(&record).unwrap().unwrap(), 0);
            stream.read_exact(&mut record[5..]).unwrap();
            let mut out = Vec::new();
            let established = handshake.step(&mut record, &mut out).unwrap();
            stream.write_all(&out).unwrap();
            if established.is_some() {
                return say_nothing(stream);
            }
        }
    }

    #[test]
    fn a_server_that_lets_nobody_in_is_given_up() {
        let told = "server at '127.0.0.1:PORT' hasn't let us in within 200ms: Connection timed out";
        assert_eq!(give_up(tcp, say_nothing), format!("the TCP {told}"));
        for serve in [say_nothing, trickle, leave_it_at_that] {
            assert_eq!(give_up(tls, serve), format!("the TLS {told}"));
        }
    }

    #[test]
    fn a_persons_time_is_given_back() {
        let mut patience = Patience::new("TCP", "h", 1, SHORT);
        let end = patience.end;
        patience.excuse(SHORT);
        assert_eq!(patience.end, end + SHORT);
    }
}
