//! Any bytes from the other end of a TLS connection: handshakes, and records behind them.
//!
//! Leans on `net`. Refuses nothing. The first byte says what the rest is: records that are sealed on the way, records as they
//! stand, a client's handshake with our server, a server's with our client.

use crate::net::tls::{Side, rehearsal};

/// Nothing panics, nothing opens that wasn't sealed, and after a fault nothing comes.
pub fn fuzz_tls(bytes: &[u8]) {
    let Some((&which, body)) = bytes.split_first() else { return };
    match which % 6 {
        0 => rehearsal::records(false, body),
        1 => rehearsal::records(true, body),
        2 => rehearsal::noise(false, body),
        3 => rehearsal::noise(true, body),
        4 => rehearsal::handshake(Side::Server, body),
        _ => rehearsal::handshake(Side::Client, body),
    }
}
