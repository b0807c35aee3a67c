//! A byte stream and who is at its other end.
//!
//! `layer` says what an encrypted stream is. `tls` knows hosts and people by their certificates and encrypts what goes
//! between; `sasl` does both by Cyrus, and `around` says what it must do where. `peer` knows who has connected, `token` knows
//! libvirt's daemons from other programs. Leans on `memory` and `secret`. Refuses to judge what a peer may do: whoever asks
//! decides.

#[cfg_attr(not(feature = "sasl"), allow(dead_code, reason = "how strong it must be is for SASL to know"))]
pub(crate) mod around;
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "lists of who may come in are for daemons"))]
pub(crate) mod glob;
#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "who has connected is for daemons to judge"))]
pub(crate) mod peer;
pub(crate) mod layer;
pub(crate) mod dn;
#[cfg_attr(
    not(all(feature = "cli", feature = "daemon")),
    allow(
        dead_code,
        reason = "a server's side is for daemons, the survey of a host's files for the command line"
    )
)]
pub(crate) mod tls;
#[cfg(feature = "sasl")]
mod negotiation;
#[cfg(feature = "sasl")]
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
