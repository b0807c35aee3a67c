//! A client by TLS: rustls, with nothing of ours in it.
//!
//! Leans on `pki` and `wire`. Refuses a daemon that doesn't confirm the client's certificate.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use crate::pki::Certificates;
use crate::support::daemon::PATIENCE;
use crate::support::wire::Client;

/// Connects by this version of TLS.
pub(crate) fn connect(
    to: SocketAddr,
    by: &Certificates,
    version: &'static SupportedProtocolVersion,
) -> Client<TlsStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(by.authority.pem().as_bytes()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(by.client.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(by.client.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = config.with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let socket = TcpStream::connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    stream.flush().unwrap();
    let mut confirmed = [0];
    stream.read_exact(&mut confirmed).unwrap();
    assert_eq!(confirmed, [1], "the daemon doesn't confirm the certificate");
    Client::over(stream)
}

pub(crate) type TlsStream = StreamOwned<ClientConnection, TcpStream>;
