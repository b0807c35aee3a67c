//! Any bytes from the other end of a TLS connection: handshakes, records behind them, and certificates.
//!
//! Leans on `net`. Refuses nothing. The first byte says what the rest is: records that are sealed on the way (by a client,
//! if its highest bit is set), records as they stand, a client's handshake with our server, a server's with our client.

use crate::net::tls::{Side, rehearsal};

/// Nothing panics, nothing opens that wasn't sealed, and after a fault nothing comes.
pub fn fuzz_tls(bytes: &[u8]) {
    let Some((&which, body)) = bytes.split_first() else { return };
    let tickets = which & 0x80 == 0;
    match (which & 0x7F) % 6 {
        which @ (0 | 1) => {
            rehearsal::records(which == 1, tickets, body);
        }
        2 => rehearsal::noise(false, body),
        3 => rehearsal::noise(true, body),
        4 => rehearsal::handshake(Side::Server, body),
        _ => rehearsal::handshake(Side::Client, body),
    }
}

/// Reading, checking and judging certificates never panics, and proves nobody whom our CA hasn't signed.
pub fn fuzz_certificate(bytes: &[u8]) {
    rehearsal::certificates(bytes);
}
