//! A byte stream and who is at its other end.
//!
//! `peer` knows the process behind a Unix socket, `token` knows libvirt's daemons from other programs. Leans on `memory`
//! and `secret`. Refuses to judge: whoever asks decides what a peer may do.

#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "who has connected is for daemons to judge"))]
pub(crate) mod peer;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod layer;
pub(crate) mod tls;
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "a client reads the token; making it is for daemons")
)]
pub(crate) mod token;
