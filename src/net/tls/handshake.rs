//! A handshake, record by record: rustls', until the keys are there and our own layer takes over.
//!
//! Leans on rustls' unbuffered connections, `record` and `verify`. Refuses handshakes that take more than 128 KiB, resumption
//! and early data. A server asks for a certificate, doesn't demand one, and judges it when all is said: libvirt's clients
//! wait for a byte then, and to be refused is to see none. A client judges at once, before it shows its own.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{
    AlertDescription, CertificateError, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    ExtractedSecrets, OtherError, ProtocolVersion, SignatureScheme,
};

use super::cipher::{HEAD, Unfit, Version};
use super::error::TlsError;
use super::record::{self, Next};
use super::verify::{Judge, Side, is_for};
use super::{Acceptor, Judged};
use crate::memory::scrubbed;
use crate::net::layer::{Broken, Layer, MAX_RECORD};

/// A handshake under way. It touches no socket.
pub(crate) struct Handshake {
    engine: Option<Engine>,
    /// What has come and isn't used up: a message may be spread over records.
    incoming: Vec<u8>,
    /// As many bytes have come in all.
    taken: usize,
}

enum Engine {
    Server(Box<UnbufferedServerConnection>, Arc<Acceptor>),
    Client(Box<UnbufferedClientConnection>),
}

/// What a handshake has led to.
pub(crate) struct Established {
    /// What is behind it, both ways.
    pub(crate) layer: Layer,
    /// The other end's name as GnuTLS prints it, if it is proved.
    pub(crate) peer: Option<String>,
    /// A server's judgement of its client. A client has none to give: what it doesn't accept has failed before.
    pub(crate) verdict: Result<(), TlsError>,
    /// What would have been said against a client if anybody were refused.
    pub(crate) excused: Option<TlsError>,
}

impl Handshake {
    pub(super) fn server(connection: UnbufferedServerConnection, acceptor: Arc<Acceptor>) -> Self {
        Self::of(Engine::Server(Box::new(connection), acceptor))
    }

    pub(super) fn client(connection: UnbufferedClientConnection) -> Self {
        Self::of(Engine::Client(Box::new(connection)))
    }

    fn of(engine: Engine) -> Self {
        Self { engine: Some(engine), incoming: Vec::new(), taken: 0 }
    }

    /// How long the record is that begins so; `None` if too little is there to say.
    pub(crate) fn record(front: &[u8]) -> Result<Option<usize>, Broken> {
        record::length(front, MAX_RECORD)
    }

    /// Takes one whole record, its head included, and appends what must be sent to `out`: an alert too, when it fails. A
    /// client begins with an empty one. `None`: more is needed. Nothing may be fed any more after it has ended or failed.
    pub(crate) fn step(
        &mut self,
        record: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Established>, TlsError> {
        self.taken += record.len();
        if self.taken > MAX_HANDSHAKE {
            self.engine = None;
            return Err(failed("it takes more than 128 KiB"));
        }
        self.incoming.extend_from_slice(record);
        let engine = self.engine.as_mut().ok_or_else(|| failed("it is over"))?;
        let ended = match engine {
            Engine::Server(connection, _) => advance(&mut **connection, &mut self.incoming, out),
            Engine::Client(connection) => advance(&mut **connection, &mut self.incoming, out),
        };
        match ended {
            Ok(false) => Ok(None),
            Ok(true) => match self.engine.take() {
                Some(Engine::Server(connection, acceptor)) => server_end(*connection, &acceptor).map(Some),
                Some(Engine::Client(connection)) => client_end(*connection).map(Some),
                None => Err(failed("it is over")),
            },
            Err(error) => {
                let side = match self.engine.take() {
                    Some(Engine::Server(..)) => Side::Server,
                    _ => Side::Client,
                };
                Err(refusal(&error, side).unwrap_or_else(|| told(&error)))
            }
        }
    }
}

/// The server's end of it: now the client is judged.
fn server_end(connection: UnbufferedServerConnection, acceptor: &Acceptor) -> Result<Established, TlsError> {
    let chain = connection.peer_certificates().unwrap_or_default();
    let (peer, verdict, excused) = match acceptor.judge(chain, UnixTime::now()) {
        Judged::Proved(name) => (Some(name), Ok(()), None),
        Judged::Excused(error) => (None, Ok(()), Some(error)),
        Judged::Refused(error) => (None, Err(error), None),
    };
    let layer = take_over(connection, false)?;
    Ok(Established { layer, peer, verdict, excused })
}

/// The client's end of it: the server was judged on the way.
fn client_end(connection: UnbufferedClientConnection) -> Result<Established, TlsError> {
    let first = connection.peer_certificates().and_then(|chain| chain.first());
    let peer = first.and_then(|certificate| crate::net::dn::of(certificate));
    let layer = take_over(connection, true)?;
    Ok(Established { layer, peer, verdict: Ok(()), excused: None })
}

/// The layer of a connection whose handshake is over. rustls and its copies of the keys go.
fn take_over<C: Connection>(connection: C, tickets: bool) -> Result<Layer, TlsError> {
    let version = match connection.state().protocol_version() {
        Some(ProtocolVersion::TLSv1_3) => Version::Tls13,
        Some(ProtocolVersion::TLSv1_2) => Version::Tls12,
        _ => return Err(failed("the other end speaks no version of TLS that we do")),
    };
    scrubbed(|| {
        let (secrets, next) = connection.finish().map_err(|error| told(&error))?;
        record::layer(version, secrets, next, tickets).map_err(|unfit| match unfit {
            Unfit::Suite => failed("the cipher that was agreed on is none of ours"),
            Unfit::Memory(exhausted) => failed(&exhausted.to_string()),
        })
    })
}

/// A connection of rustls', whichever side it is. Its two types have the same methods, and no trait.
trait Connection {
    type Data;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn state(&self) -> &CommonState;
    fn finish(self) -> Result<(ExtractedSecrets, Box<dyn Next>), Error>;
}

macro_rules! connection {
    ($side:ty, $data:ty) => {
        impl Connection for $side {
            type Data = $data;

            fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, $data> {
                self.process_tls_records(incoming)
            }

            fn state(&self) -> &CommonState {
                self
            }

            fn finish(self) -> Result<(ExtractedSecrets, Box<dyn Next>), Error> {
                let (secrets, next) = self.dangerous_into_kernel_connection()?;
                Ok((secrets, Box::new(next)))
            }
        }
    };
}

connection!(UnbufferedServerConnection, ServerConnectionData);
connection!(UnbufferedClientConnection, ClientConnectionData);

/// Goes on as far as what has come allows. `true`: the handshake is over.
fn advance<C: Connection>(
    connection: &mut C,
    incoming: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<bool, Error> {
    let failure = loop {
        let UnbufferedStatus { discard, state } = connection.process(incoming);
        let ended = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, out);
                None
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                None
            }
            Ok(ConnectionState::BlockedHandshake) => Some(Ok(false)),
            Ok(ConnectionState::WriteTraffic(_)) => Some(Ok(true)),
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                Some(Err(Error::General("the other end has closed it".to_owned())))
            }
            Ok(_) => Some(Err(Error::General("data came before its end".to_owned()))),
            Err(error) => break error,
        };
        incoming.drain(..discard);
        match ended {
            Some(Ok(true)) if !incoming.is_empty() => {
                return Err(Error::General("more came than belongs to it".to_owned()));
            }
            Some(ended) => return ended,
            None => {}
        }
    };
    // The alert is left to be fetched. What has come is not looked at again: rustls would complain of it twice.
    while connection.state().wants_write() {
        let Ok(ConnectionState::EncodeTlsData(data)) = connection.process(&mut []).state else { break };
        encode(data, out);
    }
    Err(failure)
}

/// Appends what rustls has to send.
fn encode<Data>(mut data: EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let start = out.len();
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        out.resize(start + size.required_size, 0);
        // It has just said that it fits.
        _ = data.encode(&mut out[start..]);
    }
}

/// What a failure of rustls' means: often it is one of ours.
fn told(error: &Error) -> TlsError {
    if let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error
        && let Some(ours) = inner.downcast_ref::<TlsError>()
    {
        return ours.clone();
    }
    failed(&error.to_string())
}

/// What the other end has said no to, in plain words. `side`: ours.
fn refusal(error: &Error, side: Side) -> Option<TlsError> {
    let Error::AlertReceived(alert) = error else { return None };
    let other = match side {
        Side::Server => "client",
        Side::Client => "server",
    };
    let why = match alert {
        AlertDescription::BadCertificate => "it is bad, or not for the name that was meant",
        AlertDescription::UnsupportedCertificate => "it is of a kind that isn't supported there",
        AlertDescription::CertificateRevoked => "it is revoked",
        AlertDescription::CertificateExpired => "it has expired, by the clock there",
        AlertDescription::UnknownCA => "its CA isn't known there",
        AlertDescription::CertificateUnknown => "it isn't accepted there",
        AlertDescription::AccessDenied => "it may not come in",
        AlertDescription::HandshakeFailure
        | AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity => {
            let text =
                format!("the {other} finds no version of TLS, or no cipher, that both have ({alert:?})");
            return Some(failed(&text).advise("compare tls_priority on both ends"));
        }
        _ => return None,
    };
    let advice = match side {
        Side::Server => {
            "does the client's CA certificate match our ca_file? does the URI's host stand in our certificate?"
        }
        Side::Client => "is our certificate signed by a CA in the server's ca_file?",
    };
    Some(failed(&format!("the {other} refuses our certificate: {why} ({alert:?})")).advise(advice))
}

fn failed(why: &str) -> TlsError {
    TlsError::new(format!("TLS handshake failed: {why}"))
}

/// A server's part in the handshake: any certificate will do, if whoever shows it has its key.
#[derive(Debug)]
pub(super) struct AnyClient(pub(super) WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None, so that every client shows what it has, and a wrong CA has a name in the log.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// A client's part in it: the server's certificate must be proved, and be for this host.
#[derive(Debug)]
pub(super) struct OneServer {
    pub(super) judge: Judge,
    /// Whether to insist.
    pub(super) verify: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for OneServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(end_entity).chain(intermediates).cloned().collect();
        let judged = self.judge.judge(&chain, Side::Server, now);
        let judged = judged.and_then(|proof| is_for(end_entity, server_name, proof.constrained));
        match judged {
            Err(error) if self.verify => {
                Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error)))))
            }
            Err(error) => {
                tracing::warn!("{error}; it is accepted all the same, because no_verify is set");
                Ok(ServerCertVerified::assertion())
            }
            Ok(()) => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The most that a handshake takes: two chains of sixteen certificates are less.
const MAX_HANDSHAKE: usize = 128 << 10;
const _: () = assert!(MAX_HANDSHAKE > MAX_RECORD && MAX_RECORD > HEAD);
