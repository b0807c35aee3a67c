//! A TLS client of the network: rustls over a socket of a host's network, whoever's daemon is there.
//!
//! Nothing of ours is in it, so that no daemon is measured with its own code. Sockets belong to the network of the thread
//! that made them: [`inside`] does things there. Refuses a server that doesn't confirm our certificate.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, socket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::host::Host;
use crate::rpc::Client;
use crate::server::{NAME, Pki};

/// A client that is connected and has its keystore open.
pub(crate) type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// What a client needs to know.
pub(crate) fn config(pki: &Pki) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pki.authority.pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(pki.client.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pki.client.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    // Every connection is a first one.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Connects to this network's daemon. An error: it isn't there, or not in time.
pub(crate) fn connect(config: &Arc<ClientConfig>, patience: Duration) -> std::io::Result<TlsClient> {
    let socket = TcpStream::connect_timeout(&([127, 0, 0, 1], 16514).into(), patience)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(patience))?;
    let session = ClientConnection::new(Arc::clone(config), NAME.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let mut confirmed = [0];
    stream.flush()?;
    stream.read_exact(&mut confirmed)?;
    assert_eq!(confirmed, [1], "the daemon doesn't confirm our certificate");
    Ok(Client::opened(stream, "secret:///system"))
}

/// A client from this address of loopback that has begun a handshake, and says no more.
pub(crate) fn stall(from: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddr::from((from, 0)))?;
    rustix::net::connect(&socket, &SocketAddr::from(([127, 0, 0, 1], 16514)))?;
    let mut socket = TcpStream::from(socket);
    socket.write_all(&[0x16, 3, 1, 2, 0, 1])?;
    Ok(socket)
}

/// Does something in a host's network, on a thread of its own.
pub(crate) fn inside<T: Send>(host: &Host, act: impl FnOnce() -> T + Send) -> T {
    let network = host.network();
    std::thread::scope(|scope| {
        let there = scope.spawn(move || {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(network.as_fd(), Some(kind)).unwrap();
            act()
        });
        there.join().unwrap()
    })
}
