//! A byte stream and who is at its other end.
//!
//! `layer` says what an encrypted stream is. `tls` knows hosts and people by their certificates and encrypts what goes
//! between; `sasl` does both by Cyrus, and `around` says what it must do where. `peer` knows who has connected, `token` knows
//! libvirt's daemons from other programs. Leans on `memory` and `secret`. Refuses to judge what a peer may do: whoever asks
//! decides.

#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod around;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod glob;
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "who has connected is for daemons to judge"))]
pub(crate) mod peer;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod layer;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod dn;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod tls;
#[cfg(feature = "sasl")]
#[allow(dead_code, reason = "its users are on their way")]
mod negotiation;
#[cfg(feature = "sasl")]
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod sasl;
#[cfg(feature = "sasl")]
mod sasl_layer;
#[cfg(all(test, feature = "sasl"))]
pub(crate) mod sasl_tests;
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "a client reads the token; making it is for daemons")
)]
pub(crate) mod token;
