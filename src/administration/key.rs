//! Keys as they are given: typed, or read from a file.
//!
//! Leans on `memory`: a key is there and nowhere else, and prints as nothing.

use crate::memory::SecretBytes;

/// A key that opens a slot, or shall open a new one.
#[derive(Debug)]
pub enum Key {
    /// A passphrase, as it was typed.
    Passphrase(SecretBytes),
    /// A recovery key, as it was shown; blanks, dashes and case don't matter.
    Recovery(SecretBytes),
    /// The 32 bytes of a host key, from its file.
    Host(SecretBytes),
    /// The 32 bytes of the systemd credential `secrets-encryption-key`. It opens what [`Host`](Self::Host) does; a new slot
    /// remembers which of the two it is.
    Credential(SecretBytes),
}

impl Key {
    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::Recovery(_) => "recovery key",
            Self::Host(_) => "host key",
            Self::Credential(_) => "credential",
        }
    }
}
