//! Connecting to a host by TCP.
//!
//! Leans on std, whose look-ups are the system's. Every address of the name is tried, in the system's order, IPv6 and IPv4.
//! Refuses to let one of them, from which nothing comes, take the time of those behind it.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Instant;

use rustix::io::Errno;

use crate::secret::{Error, ErrorDomain};

/// The addresses that a host's name has. How long that takes is the resolver's affair.
pub(super) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| unresolved(host, port, &error))?;
    Ok(addresses.collect())
}

/// A connection to one of these addresses of a host, without Nagle's delay: calls are short, and somebody waits for each.
/// `end`: when all of them have had their time. `nobody`: what to do if nobody listens there.
pub(super) fn connect(
    host: &str,
    port: u16,
    addresses: &[SocketAddr],
    end: Instant,
    nobody: &str,
) -> Result<TcpStream, Error> {
    let system = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
    let mut last = system(Errno::ADDRNOTAVAIL);
    for (at, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / left;
        let connected = match share.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => TcpStream::connect_timeout(address, share),
        };
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = system(Errno::TIMEDOUT), // std has other words
            Err(error) => last = error,
        }
    }
    let failed = Error::system(format!("unable to connect to server at '{host}:{port}'"), &last);
    Err(failed.in_domain(ErrorDomain::Rpc).advise(match last.kind() {
        io::ErrorKind::ConnectionRefused => nobody,
        _ => "is the host up, and does every firewall between here and there let the port through?",
    }))
}

fn unresolved(host: &str, port: u16, error: &io::Error) -> Error {
    let text = error.to_string();
    // std puts words of its own before the resolver's.
    let cause = io::Error::other(text.rsplit(": ").next().unwrap_or_default().to_owned());
    Error::system(format!("Unable to resolve address '{host}' service '{port}'"), &cause)
        .in_domain(ErrorDomain::Rpc)
        .advise("mind the spelling of the host's name in the URI")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    fn connect(host: &str, port: u16) -> Result<TcpStream, Error> {
        super::connect(
            host,
            port,
            &resolve(host, port)?,
            Instant::now() + Duration::from_secs(20),
            "start it",
        )
    }

    #[test]
    fn every_address_of_a_name_is_tried() {
        // On one of the two that this name usually has.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = connect("localhost", listener.local_addr().unwrap().port()).unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[test]
    fn what_fails_is_said_as_libvirt_says_it() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let refused = connect("127.0.0.1", port).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("unable to connect to server at '127.0.0.1:{port}': Connection refused")
        );
        assert_eq!((refused.code().number(), refused.domain()), (38, ErrorDomain::Rpc));
        let late = super::connect(
            "127.0.0.1",
            port,
            &resolve("127.0.0.1", port).unwrap(),
            Instant::now(),
            "start it",
        )
        .unwrap_err()
        .to_string();
        assert_eq!(late, format!("unable to connect to server at '127.0.0.1:{port}': Connection timed out"));
        let unknown = connect("nosuch.invalid", 16509).unwrap_err().to_string();
        let begins = "Unable to resolve address 'nosuch.invalid' service '16509': ";
        assert!(unknown.starts_with(begins) && unknown.len() > begins.len(), "{unknown}");
        assert!(!unknown[begins.len()..].contains(':'), "{unknown}");
    }
}
