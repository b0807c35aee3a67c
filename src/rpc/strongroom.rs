//! Our own program, on the admin socket beside libvirt's: how the keystore stands, unlocking it, locking it.
//!
//! Version 1. Framing, errors and keepalive are libvirt's; an error's `str3` holds our advice, if there is some. A call
//! with a key in it is made, sent, read and kept in secret memory. Leans on `xdr`. Refuses more keys than there are kinds.

use super::xdr::{List, Text, Value, body};

/// The numbers of the calls.
pub mod procedure {
    /// How the keystore stands: nothing is asked, [`Status`](super::Status) answers.
    pub const STATUS: i32 = 1;
    /// Open the keystore: [`Unlock`](super::Unlock) asks, nothing is answered. No error if it is open.
    pub const UNLOCK: i32 = 2;
    /// Close the keystore and wipe its keys: nothing is asked or answered. No error if it is locked.
    pub const LOCK: i32 = 3;
}

/// What a key that is given is.
pub mod key {
    /// A passphrase, as it was typed.
    pub const PASSPHRASE: u32 = 1;
    /// A recovery key, as it was shown; blanks, dashes and case don't matter.
    pub const RECOVERY: u32 = 2;
    /// The 32 bytes of a host key.
    pub const HOST: u32 = 3;
}

/// The most keys that a call has: one of each kind.
pub const MAX_KEYS: usize = 3;

body! {
    /// STATUS answers.
    Status<'a> {
        /// JSON: what `strongroom status --json` shows.
        json: Text<'a>,
    }
}

body! {
    /// UNLOCK asks.
    Unlock<'a> {
        /// What to open it with; none: the host key, which is looked for again. It is looked for in any case.
        keys: List<Key<'a>, MAX_KEYS>,
    }
}

body! {
    /// A key to unlock with.
    Key<'a> {
        /// What it is, see [`key`].
        kind: u32,
        /// The key itself.
        secret: Value<'a>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_no_debug_output() {
        let unlock = Unlock { keys: List(vec![Key { kind: key::PASSPHRASE, secret: Value(b"hunter2") }]) };
        let shown = format!("{unlock:?}");
        assert!(shown.contains("REDACTED") && !shown.contains("104, 117"), "{shown}");
    }
}
