//! Sockets on the network.
//!
//! One for each address that `listen_addr` means, IPv4 and IPv6 apart, as libvirt does. Leans on std to look addresses up
//! and on rustix for the system calls; a port's name is looked up in /etc/services here, because std asks nobody. Refuses
//! to listen on some of the addresses only, but for a protocol that the host hasn't got.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::super::process::StartError;
use super::{Listener, Listening, Role, backlog, refused};

/// A port to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Port {
    /// What it is for.
    pub(in super::super) role: Role,
    /// An address, or a name that has some. `None`: all of this host.
    pub(in super::super) host: Option<String>,
    /// A number, or a name in /etc/services.
    pub(in super::super) port: String,
    /// `max_queued_clients`, as configured; 0 stands for libvirt's 30.
    pub(in super::super) backlog: u32,
}

/// Listens on every address of it.
pub(super) fn bind(wanted: &Port) -> Result<Vec<Listening>, StartError> {
    let (address_key, port_key) = match wanted.role {
        Role::Tls => ("listen_addr", "tls_port"),
        _ => ("listen_addr", "tcp_port"),
    };
    let services = || std::fs::read("/etc/services").unwrap_or_default();
    let Some(port) = number(&wanted.port, services) else {
        let why = match is_number(&wanted.port) {
            true => "ports are numbers from 1 to 65535",
            false => "/etc/services knows no TCP service of that name",
        };
        let line = format!("cannot listen on port '{}': {why}", wanted.port);
        return Err(refused(line).advise(format!("write a port's number, from 1 to 65535, in {port_key}")));
    };
    let addresses = match &wanted.host {
        Some(host) => addresses(host, port).map_err(|error| {
            refused(format!("cannot listen on '{host}': no address of that name is known: {error}"))
                .advise(format!("write an address of this host in {address_key}"))
        })?,
        None => vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()],
    };
    let mut listening = Vec::new();
    for address in addresses {
        match bind_one(address, wanted.backlog) {
            Ok(socket) => {
                listening.push(Listening {
                    role: wanted.role,
                    socket: Listener::Ip(socket.into()),
                    name: None,
                });
            }
            // All addresses are meant, and the host has no IPv6, or no IPv4.
            Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if wanted.host.is_none() => {}
            Err(error) => {
                let advice = match error {
                    Errno::ADDRINUSE => format!(
                        "another program has it (ss -tlnp says which): stop that one, or choose another {port_key}"
                    ),
                    Errno::ADDRNOTAVAIL => {
                        format!("it is no address of this host: {address_key} names another")
                    }
                    Errno::ACCESS => format!("ports below 1024 are for root: choose another {port_key}"),
                    _ => format!("{address_key} and {port_key} say where to listen"),
                };
                return Err(
                    refused(format!("cannot listen on {address}: {}", io::Error::from(error))).advise(advice)
                );
            }
        }
    }
    match listening.is_empty() {
        false => Ok(listening),
        true => Err(refused(format!("cannot listen on port {port}: this host has no network"))),
    }
}

/// All that a name or an address means, each once.
fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let mut addresses: Vec<SocketAddr> = match bare.parse::<IpAddr>() {
        Ok(address) => vec![(address, port).into()],
        Err(_) => (bare, port).to_socket_addrs()?.collect(),
    };
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

fn bind_one(address: SocketAddr, queue: u32) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?; // a daemon that ended a moment ago left connections behind
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?; // IPv4 has a socket of its own
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, backlog(queue))?;
    Ok(socket)
}

fn is_number(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit())
}

/// The port's number, from itself or from the lines of /etc/services: `name number/tcp other names # remark`.
fn number(port: &str, services: impl FnOnce() -> Vec<u8>) -> Option<u16> {
    if is_number(port) {
        return port.parse().ok();
    }
    let services = services();
    let services = String::from_utf8_lossy(&services);
    services.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let (name, number) = (words.next()?, words.next()?);
        let number = number.strip_suffix("/tcp")?;
        (name == port || words.any(|other| other == port)).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: Option<&str>, port: &str) -> Port {
        Port { role: Role::Tcp, host: host.map(str::to_owned), port: port.to_owned(), backlog: 0 }
    }

    #[test]
    fn a_port_has_a_number_or_a_name_in_the_list_of_services() {
        let list =
            || b"# x 1/tcp\nvault 7/udp\nvault\t70000/tcp\nsafe 16509/tcp strongbox vault # a box\n".to_vec();
        let number = |port| number(port, list);
        assert_eq!((number("16514"), number("0"), number("65536")), (Some(16514), Some(0), None));
        assert_eq!(
            (number("safe"), number("strongbox"), number("vault")),
            (Some(16509), Some(16509), Some(16509))
        );
        for unknown in ["", "x", "box", "-1", "+1", "1 ", "7/udp"] {
            assert_eq!(number(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn each_address_has_a_socket_and_no_other() {
        let bound = bind(&port(Some("127.0.0.1"), "0")).unwrap();
        assert_eq!((bound.len(), bound[0].role), (1, Role::Tcp));
        let address = bound[0].address().unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0);
        std::net::TcpStream::connect(address).unwrap();
        let error = bind(&port(Some("127.0.0.1"), &address.port().to_string())).unwrap_err();
        assert!(
            error.line().starts_with(&format!("cannot listen on {address}: Address already in use")),
            "{error}"
        );
        assert_eq!(error.exit().status(), 6);
    }

    #[test]
    fn all_addresses_are_those_of_both_protocols() {
        let all = bind(&port(None, "0")).unwrap();
        let has_ipv6 =
            std::fs::exists("/proc/net/if_inet6").unwrap() && std::net::TcpListener::bind("[::1]:0").is_ok();
        let families: Vec<bool> = all.iter().map(|one| one.address().unwrap().is_ipv6()).collect();
        assert_eq!(families, if has_ipv6 { vec![false, true] } else { vec![false] });
        if has_ipv6 {
            let v6 = bind(&port(Some("[::1]"), "0")).unwrap();
            // Its number is free for IPv4: the two don't share a socket.
            let same = v6[0].address().unwrap().port();
            assert!(bind(&port(Some("127.0.0.1"), &same.to_string())).is_ok());
        }
    }

    #[test]
    fn what_cannot_be_listened_on_is_told_with_the_key() {
        for (wanted, line, advice) in [
            (port(None, "no-such-service"), "/etc/services knows no TCP service", "tcp_port"),
            (port(None, "65536"), "port '65536': ports are numbers from 1 to 65535", "tcp_port"),
            (port(Some("no-such-host.invalid"), "0"), "no address of that name", "listen_addr"),
            (port(Some("192.0.2.1"), "0"), "cannot listen on 192.0.2.1:0", "listen_addr"),
        ] {
            let error = bind(&wanted).unwrap_err();
            assert!(error.line().contains(line) && error.advice().unwrap().contains(advice), "{error}");
        }
    }
}
