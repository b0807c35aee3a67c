//! What the one who runs a keystore asks of it, beyond libvirt's API: keys, rotation, copies, repair, whole secrets.
//!
//! The second hinge of the house, beside [`Keystore`](crate::Keystore): `driver` implements [`Administration`] in this
//! process, `client` over a daemon's admin socket, so that every command works on both alike. Leans on `secret` for its
//! words and on `memory` for keys and values; all else is plain data. Refuses to know how any of it is done.

mod finding;
mod key;
mod status;
mod verified;

use std::ops::ControlFlow;

use ::uuid::Uuid;

use crate::memory::SecretBytes;
use crate::secret::{Definition, Error};

pub use finding::Finding;
pub use key::Key;
pub use status::{Argon2Status, KeyStatus, LogStatus, Made, MemoryStatus, Rotation, SlotStatus, Status};
pub use verified::{Checked, Lost, RecordState, Repaired, Restored, Verified, usage_in_words};

/// A keystore as the one who runs it sees it. All calls may block, and may be made from any thread.
pub trait Administration: Inventory {
    /// How it stands.
    fn status(&self) -> Result<Status, Error>;

    /// Makes a slot for this key: durable, and opened with it once, when this returns.
    fn add_key(&self, key: &Key, label: &str) -> Result<SlotStatus, Error>;

    /// Puts a key in the place of a slot's, in one step: a crash leaves the old slot or the new one.
    fn change_key(&self, slot: Uuid, key: &Key, label: &str) -> Result<SlotStatus, Error>;

    /// Removes a slot. Refused unless another one has been proved to work: by one of these keys, now, or by a key that
    /// opened the keystore or was tested since.
    fn remove_key(&self, slot: Uuid, proof: &[Key]) -> Result<SlotStatus, Error>;

    /// The slot that this key opens, tried on the keyring as it lies on disk. Works on a locked keystore, and leaves it so.
    fn test_key(&self, key: &Key) -> Result<SlotStatus, Error>;

    /// The keyring's bytes as they lie on disk: sealed, to be kept elsewhere.
    fn keyring(&self) -> Result<Vec<u8>, Error>;

    /// Replaces the root key. A slot stays if one of these keys opens it, or the host key that is in its place; every other
    /// one must be among those to `forget`. Gives the slots that there are now.
    fn rekey(&self, keys: &[Key], forget: &[Uuid]) -> Result<Vec<SlotStatus>, Error>;

    /// Begins a new epoch, or goes on with one that is under way, and returns when nothing is left of the one before.
    /// `watch` is called now and then with how far it is. When it breaks off, this returns; a daemon goes on by itself, and
    /// what stays undone in this process the next call does.
    fn rotate(&self, watch: &mut dyn FnMut(Rotation) -> ControlFlow<()>) -> Result<(), Error>;

    /// Checks every record and every file, and changes nothing.
    fn verify(&self) -> Result<Verified, Error>;

    /// Keeps every record that opens, moves what is damaged aside, writes the `.xml` copies anew, and says what was lost.
    fn repair(&self) -> Result<Repaired, Error>;

    /// A sealed copy of this moment, while changes go on.
    fn backup(&self) -> Result<Box<dyn Backup>, Error>;
}

/// Whole secrets, in and out: a definition together with its value, past the rules of libvirt's API (`private` says who
/// may read a value over *that*).
pub trait Inventory: Send + Sync {
    /// The next persistent secrets behind `after`, in the order of their UUIDs, at most `max`.
    fn list(&self, after: Option<Uuid>, max: usize) -> Result<Vec<Uuid>, Error>;

    /// A persistent secret: its definition, and its value if it has one.
    fn read(&self, uuid: Uuid) -> Result<Option<(Definition, Option<SecretBytes>)>, Error>;

    /// Puts a new persistent secret in, definition and value as one change: durable when this returns. What is there
    /// already stays as it is.
    fn put(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<Put, Error>;

    /// Whether exactly this is there: read back from the disk, opened, and compared.
    fn holds(&self, definition: &Definition, value: Option<&SecretBytes>) -> Result<bool, Error>;
}

/// What came of putting a secret in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there now.
    Added,
    /// Exactly this was there.
    Same,
    /// A secret of its UUID was there, with another definition or value, and stays.
    Differs,
    /// Another secret has its usage, and keeps it.
    UsageTaken(Uuid),
}

/// A sealed copy on its way out. Dropping it ends it.
pub trait Backup: Send {
    /// How long the whole is, in bytes.
    fn total(&self) -> u64;

    /// The next piece, at most 1 MiB; `None` behind the last.
    fn next_piece(&mut self) -> Result<Option<Vec<u8>>, Error>;
}
