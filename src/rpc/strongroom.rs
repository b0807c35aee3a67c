//! Our own program, on the admin socket beside libvirt's: what the one who runs a keystore asks of it.
//!
//! Version 1. Framing, errors and keepalive are libvirt's; an error's `str3` holds our advice, if there is some. A packet
//! with a key or a value in it is made, sent, read and kept in secret memory. What holds neither is answered in JSON, so
//! that it can grow. Leans on `xdr`. Refuses more keys and names at once than a keyring has slots.

use super::xdr::{Bytes, List, Text, Value, body};

/// The numbers of the calls.
pub mod procedure {
    /// How the keystore stands: nothing is asked, [`Json`](super::Json) answers (`Status`).
    pub const STATUS: i32 = 1;
    /// Open the keystore: [`Unlock`](super::Unlock) asks, nothing is answered. No error if it is open.
    pub const UNLOCK: i32 = 2;
    /// Close the keystore and wipe its keys: nothing is asked or answered. No error if it is locked.
    pub const LOCK: i32 = 3;
    /// Make a slot: [`NewSlot`](super::NewSlot) asks, [`Json`](super::Json) answers (`SlotStatus`).
    pub const KEY_ADD: i32 = 4;
    /// Put a key in the place of a slot's: [`ChangeSlot`](super::ChangeSlot) asks, [`Json`](super::Json) answers.
    pub const KEY_CHANGE: i32 = 5;
    /// Remove a slot: [`RemoveSlot`](super::RemoveSlot) asks, [`Json`](super::Json) answers.
    pub const KEY_REMOVE: i32 = 6;
    /// Which slot does this key open: [`Unlock`](super::Unlock) with one key asks, [`Json`](super::Json) answers.
    pub const KEY_TEST: i32 = 7;
    /// The keyring as it lies on disk: nothing is asked, [`Piece`](super::Piece) answers.
    pub const KEYRING: i32 = 8;
    /// Replace the root key: [`Rekey`](super::Rekey) asks, [`Json`](super::Json) answers (a list of `SlotStatus`).
    pub const REKEY: i32 = 9;
    /// Begin a new epoch, or go on with one, in the background; STATUS says how far it is. Nothing is asked or answered.
    pub const ROTATE: i32 = 10;
    /// Check everything: nothing is asked, [`Json`](super::Json) answers (`Verified`).
    pub const VERIFY: i32 = 11;
    /// Keep what opens, move aside what doesn't: nothing is asked, [`Json`](super::Json) answers (`Repaired`).
    pub const REPAIR: i32 = 12;
    /// Begin a sealed copy of this moment: nothing is asked, [`Length`](super::Length) answers. One at a time and connection;
    /// it ends with the connection, or when the next begins.
    pub const BACKUP: i32 = 13;
    /// The next piece of the copy: nothing is asked, [`Piece`](super::Piece) answers; an empty one is behind the last.
    pub const BACKUP_PIECE: i32 = 14;
    /// Persistent secrets: [`After`](super::After) asks, [`Uuids`](super::Uuids) answers.
    pub const LIST: i32 = 15;
    /// A secret whole: [`Which`](super::Which) asks, [`Found`](super::Found) answers.
    pub const READ: i32 = 16;
    /// A new secret whole: [`Whole`](super::Whole) asks, [`Placed`](super::Placed) answers.
    pub const PUT: i32 = 17;
    /// Whether exactly this is there, read back from the disk: [`Whole`](super::Whole) asks, [`Answer`](super::Answer) answers.
    pub const HOLDS: i32 = 18;
}

/// What a key that is given is.
pub mod key {
    /// A passphrase, as it was typed.
    pub const PASSPHRASE: u32 = 1;
    /// A recovery key, as it was shown; blanks, dashes and case don't matter.
    pub const RECOVERY: u32 = 2;
    /// The 32 bytes of a host key.
    pub const HOST: u32 = 3;
    /// The 32 bytes of the systemd credential, for a slot that shall be called so. It opens what a host key does.
    pub const CREDENTIAL: u32 = 4;
}

/// What came of putting a secret in.
pub mod placed {
    /// It is there now.
    pub const ADDED: u32 = 0;
    /// Exactly this was there.
    pub const SAME: u32 = 1;
    /// Its UUID is another one's.
    pub const DIFFERS: u32 = 2;
    /// Its usage is another one's.
    pub const USAGE_TAKEN: u32 = 3;
}

/// The most keys, or slots, in a call: a keyring has no more.
pub const MAX_SLOTS: usize = 32;

/// The longest definition in a call, in bytes: such a call is read into secret memory whole.
pub const MAX_DEFINITION: usize = 2 * crate::secret::MAX_VALUE - 1024;

/// The longest piece, in bytes.
pub const MAX_PIECE: usize = 1 << 20;

/// The most secrets in an answer to LIST.
pub const MAX_UUIDS: usize = 4096;

body! {
    /// An answer that isn't secret.
    Json<'a> {
        /// JSON, UTF-8.
        json: Text<'a>,
    }
}

body! {
    /// UNLOCK and KEY_TEST ask.
    Unlock<'a> {
        /// What to open it with, at most one of each kind. UNLOCK without any: the host key, where the daemon finds it.
        keys: List<Key<'a>, MAX_SLOTS>,
    }
}

body! {
    /// A key.
    Key<'a> {
        /// What it is, see [`key`].
        kind: u32,
        /// The key itself.
        secret: Value<'a>,
    }
}

body! {
    /// KEY_ADD asks.
    NewSlot<'a> {
        /// What shall open it.
        key: Key<'a>,
        /// What it shall be called: at most 64 bytes.
        label: Text<'a>,
    }
}

body! {
    /// KEY_CHANGE asks.
    ChangeSlot<'a> {
        /// Which slot.
        slot: [u8; 16],
        /// What shall open it from now on.
        key: Key<'a>,
        /// What it shall be called.
        label: Text<'a>,
    }
}

body! {
    /// KEY_REMOVE asks.
    RemoveSlot<'a> {
        /// Which slot.
        slot: [u8; 16],
        /// Keys that open other slots.
        proof: List<Key<'a>, MAX_SLOTS>,
    }
}

body! {
    /// REKEY asks.
    Rekey<'a> {
        /// Keys that open the slots that shall stay.
        keys: List<Key<'a>, MAX_SLOTS>,
        /// Slots that shall go.
        forget: List<[u8; 16], MAX_SLOTS>,
    }
}

body! {
    /// BACKUP answers.
    Length {
        /// How long the copy is, in bytes.
        bytes: u64,
    }
}

body! {
    /// BACKUP_PIECE and KEYRING answer: sealed bytes.
    Piece<'a> {
        /// They.
        bytes: Bytes<'a, MAX_PIECE>,
    }
}

body! {
    /// LIST asks.
    After {
        /// Those behind this UUID; from the first, if none.
        after: Option<[u8; 16]>,
        /// At most so many, and at most [`MAX_UUIDS`].
        max: u32,
    }
}

body! {
    /// LIST answers.
    Uuids {
        /// In order.
        uuids: List<[u8; 16], MAX_UUIDS>,
    }
}

body! {
    /// READ asks.
    Which {
        /// The secret.
        uuid: [u8; 16],
    }
}

body! {
    /// READ answers.
    Found<'a> {
        /// The secret, if it is there.
        secret: Option<Whole<'a>>,
    }
}

body! {
    /// READ's answer for a secret with a value, up to the value: that is sent from where it was opened.
    BeforeValue<'a> {
        /// 1: the secret is there.
        here: u32,
        /// Its definition.
        xml: Text<'a>,
        /// 1: it has a value.
        has_value: u32,
    }
}

body! {
    /// A secret whole. PUT and HOLDS ask.
    Whole<'a> {
        /// Its definition.
        xml: Text<'a>,
        /// Its value, if it has one.
        value: Option<Value<'a>>,
    }
}

body! {
    /// PUT answers.
    Placed {
        /// See [`placed`].
        what: u32,
        /// For [`placed::USAGE_TAKEN`], the secret that has the usage.
        other: [u8; 16],
    }
}

body! {
    /// HOLDS answers.
    Answer {
        /// 1: yes. 0: no.
        yes: u32,
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
