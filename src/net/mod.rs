//! A byte stream and who is at its other end.
//!
//! `layer` says what an encrypted stream is, `sasl` makes one by Cyrus, `around` says what SASL must do where. `peer` knows the process behind a Unix socket, `token` knows libvirt's daemons from other programs. Leans on `memory`
//! and `secret`. Refuses to judge: whoever asks decides what a peer may do.

#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod around;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod glob;
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "who has connected is for daemons to judge"))]
pub(crate) mod peer;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod layer;
#[cfg(feature = "sasl")]
#[allow(dead_code, reason = "its users are on their way")]
mod negotiation;
#[cfg(feature = "sasl")]
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod sasl;
#[cfg(feature = "sasl")]
mod sasl_layer;
#[cfg(test)]
#[cfg(feature = "sasl")]
pub(crate) mod sasl_tests;
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "a client reads the token; making it is for daemons")
)]
pub(crate) mod token;
