//! A byte stream and who is at its other end.
//!
//! `peer` knows the process behind a Unix socket, `token` knows libvirt's daemons from other programs, `tls` knows hosts and
//! people by their certificates and encrypts what goes between. Leans on `memory` and `secret`. Refuses to judge what a peer
//! may do: whoever asks decides.

#[cfg_attr(not(feature = "daemon"), allow(dead_code, reason = "who has connected is for daemons to judge"))]
pub(crate) mod peer;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod layer;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod dn;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod glob;
#[allow(dead_code, reason = "its users are on their way")]
pub(crate) mod tls;
#[cfg_attr(
    not(feature = "daemon"),
    allow(dead_code, reason = "a client reads the token; making it is for daemons")
)]
pub(crate) mod token;
