//! Volumes with their secrets: encrypted images, and the passphrases that open them, made, proved, changed and removed
//! together.
//!
//! [`Volumes`] does it, on any [`Keystore`] and by qemu-img ([`tool`]), in orders that leave, wherever they are cut short, no
//! image without its secret, and what a second run recognizes and finishes or clears: `create` and `change` tell how. Leans on
//! `secret` and `memory`. Refuses to hand a passphrase on in any way but by an inherited descriptor, to overwrite unasked,
//! and to undefine a secret that isn't the volume's own.

mod change;
mod check;
mod create;
mod delete;
mod image;
mod mark;
mod original;
mod orphans;
mod passphrase;
mod place;
mod plan;
mod secrets;
mod tool;
mod unnamed;

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

pub use change::Changed;
pub use check::{Checked, Verdict};
pub use create::Created;
pub use delete::{Deleted, Removal};
pub use original::{Original, Reading};
pub use orphans::Orphan;
pub use plan::{Cipher, Format, Plan, Preallocation, parse_size};

use crate::memory::SecretBytes;
pub use crate::references::Named;
use crate::secret::{Error, Keystore};
use tool::Tool;

/// Volumes whose secrets are in one keystore.
pub struct Volumes {
    keystore: Arc<dyn Keystore>,
    tool: Tool,
}

impl Volumes {
    /// Those whose secrets are in this keystore. If it lets this caller read private values, they are read.
    pub fn over(keystore: Arc<dyn Keystore>) -> Self {
        let keystore = keystore.elevated().unwrap_or(keystore);
        Self { keystore, tool: Tool { program: "qemu-img".into(), iterate: None } }
    }

    /// With another qemu-img: a path, or a name among the programs.
    pub fn by_program(mut self, program: impl Into<OsString>) -> Self {
        self.tool.program = program.into();
        self
    }

    /// With this much time for each passphrase that is tried, instead of a tenth of a second for those that are made here,
    /// which have 256 bits, and QEMU's two seconds for others, which may be weak.
    pub fn iterating(mut self, time: Duration) -> Self {
        self.tool.iterate = Some(time);
        self
    }
}

impl std::fmt::Debug for Volumes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Volumes").field("keystore", &self.keystore.uri()).finish_non_exhaustive()
    }
}

/// Hears what is about to be done, and how far it is.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// Takes the passphrase that is to open a volume, for whoever keeps it. An error of its ends the work before that counts.
pub type HandOver<'a> = &'a mut dyn FnMut(&SecretBytes) -> Result<(), Error>;

/// Who hears of a work.
struct Ears<'a, 'b> {
    watch: Watch<'a>,
    hand_over: Option<HandOver<'b>>,
}

impl Ears<'_, '_> {
    fn next(&mut self, step: Step) {
        (self.watch)(Progress::Next(step));
    }

    fn hand_over(&mut self, passphrase: &SecretBytes) -> Result<(), Error> {
        self.hand_over.as_mut().map_or(Ok(()), |hand_over| hand_over(passphrase))
    }
}

/// What a [`Watch`] hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// This comes next. All before it is durable.
    Next(Step),
    /// So many bytes of the image have their place on the disk.
    Bytes {
        /// Those that have.
        done: u64,
        /// Those that shall.
        total: u64,
    },
}

/// The steps of making, changing and removing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Create: a secret is defined, marked as unfinished.
    Define,
    /// Create: it gets its value.
    SetPassphrase,
    /// Create: the image is made, under a name of its own beside the volume's.
    Make,
    /// Create: the image gets the volume's name.
    Name,
    /// Create: the mark goes.
    Finish,
    /// Change: the secret that is to hold the old and the new passphrase is defined.
    Note,
    /// Change: and gets them for its value.
    NotePassphrases,
    /// Change: the new passphrase gets a slot of the image's.
    Add,
    /// Change: the volume's secret gets the new passphrase.
    Store,
    /// Change: the old passphrase's slot is erased.
    Erase,
    /// Change: the two passphrases are forgotten.
    Forget,
    /// Delete: the image is removed.
    Remove,
    /// Delete: its secret is undefined.
    Undefine,
}
