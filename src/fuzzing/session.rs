//! Any bytes as one client's conversation with the daemon: packets, one after the other, through the session alone.
//!
//! Leans on `server`. Refuses nothing. The first byte says over which socket the client came; packets follow as they
//! stand on the wire. The keystore behind it is real, and the same for all conversations.

use crate::server::rehearse;

/// No packet makes the session panic, and each call gets one reply: with its program, version, procedure and serial, and
/// with a body that can be read. A private value is never in one, whatever was said before.
pub fn fuzz_session(bytes: &[u8]) {
    let Some((&socket, bytes)) = bytes.split_first() else { return };
    rehearse(socket, bytes);
}
