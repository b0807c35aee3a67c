//! A byte stream and who is at its other end.
//!
//! `peer` knows the process behind a Unix socket, `token` knows libvirt's daemons from other programs. Leans on `memory`
//! and `secret`. Refuses to judge: whoever asks decides what a peer may do.
#![cfg_attr(not(test), expect(dead_code, reason = "the sessions that use it aren't here yet"))]

pub(crate) mod peer;
pub(crate) mod token;
