//! What may be typed behind `key`.
//!
//! Leans on clap. What a new slot shall take is a word of its own (`key add passphrase`), so that nobody mistakes the
//! options that open the keystore for it. Refuses a passphrase as an argument: other users see those.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::super::args::{BackupArguments, DaemonArguments, ShowArguments};

/// The commands on the ways to open a keystore.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// List what opens the keystore
    List(ShowArguments),

    /// Let something more open it: a passphrase, a recovery key, a host key, the systemd credential
    #[command(after_help = ADD_HELP)]
    Add(AddArguments),

    /// Put something new in the place of what opens a slot
    #[command(after_help = CHANGE_HELP)]
    Change(ChangeArguments),

    /// Take a slot away
    #[command(after_help = REMOVE_HELP)]
    Remove(RemoveArguments),

    /// See which slot a key opens, and change nothing
    #[command(after_help = TEST_HELP)]
    Test(TestArguments),

    /// Write a copy of the keyring to a file, to be kept elsewhere
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupArguments),

    /// Put a copy of the keyring back in the place of a lost or damaged one; no daemon may run
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArguments),
}

const ADD_HELP: &str = "\
A new passphrase is asked for twice, or read from a file (its first line) or a
descriptor. It is made costly to guess: about a second of Argon2id on the host
that keeps the keystore. A recovery key is shown once. A host key's file is
made if it isn't there.

Examples:
  strongroom key add passphrase --label 'the on-call team'
  strongroom key add host-key /etc/strongroom/host-2026.key
  strongroom -q key add recovery-key | gpg -er admins > recovery.gpg";

const CHANGE_HELP: &str = "\
SLOT is an id as 'strongroom key list' shows it, or its beginning; or, where
there is one such slot only, passphrase, recovery-key, host-key, credential or
its label. In one step: after a crash the old key opens the slot, or the new
one does.

Examples:
  strongroom key change passphrase
  strongroom key change host-key --host-key-file /etc/strongroom/host-2026.key";

const REMOVE_HELP: &str = "\
What remains must have been proved to work: give its key (--passphrase,
--recovery-key, --key-file), test it first, or let it be what opened the
keystore. So nobody locks himself out.

Example:
  strongroom key remove passphrase --recovery-key";

const TEST_HELP: &str = "\
Works on a locked keystore too, and leaves it locked.

Example:
  strongroom key test --recovery-key";

const BACKUP_HELP: &str = "\
The copy is as sealed as the keyring itself: it opens with the same keys, and
only with them. Make one whenever the slots have changed; without the keyring
no key opens anything.";

const RESTORE_HELP: &str = "\
Give a key that opens the copy. An older copy than the keyring that was last in
use is refused unless --older says so: slots that were removed since open the
keystore again. What it replaces is kept aside.

Example:
  strongroom key restore /backup/keyring --recovery-key";

#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// What shall open it
    #[command(subcommand)]
    pub(super) new: NewKey,
}

/// What a new slot takes.
#[derive(Debug, Subcommand)]
pub(crate) enum NewKey {
    /// A passphrase of at least 8 bytes
    Passphrase {
        #[command(flatten)]
        source: PassphraseSource,

        #[command(flatten)]
        label: LabelArgument,
    },
    /// A recovery key, shown once: the way in when all else is lost
    RecoveryKey {
        #[command(flatten)]
        label: LabelArgument,
    },
    /// A file of 32 bytes, which opens the keystore without asking anybody
    HostKey {
        /// The file; made if it isn't there
        file: PathBuf,
    },
    /// The systemd credential secrets-encryption-key, from the file that it is made of
    Credential {
        /// The 32 bytes that systemd will hand to the daemon
        file: PathBuf,
    },
}

/// Where a new passphrase comes from.
#[derive(Debug, Args)]
pub(crate) struct PassphraseSource {
    /// Read the new passphrase, one line, from this open file descriptor
    #[arg(long, value_name = "N", conflicts_with = "from_file")]
    pub(super) from_fd: Option<RawFd>,

    /// Read the new passphrase, its first line, from this file
    #[arg(long, value_name = "FILE")]
    pub(super) from_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct LabelArgument {
    /// What the slot is called in lists, at most 64 bytes
    #[arg(long, value_name = "TEXT")]
    pub(super) label: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// Which slot
    pub(super) slot: String,

    #[command(flatten)]
    pub(super) source: PassphraseSource,

    /// For a host key's slot or the credential's: the new key's file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from_fd", "from_file"])]
    pub(super) host_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub(super) label: LabelArgument,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// Which slot, as for 'strongroom key change'
    pub(super) slot: String,
}

#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The copy
    pub(super) file: PathBuf,

    /// Take it though it is older than the keyring that was last in use
    #[arg(long)]
    pub(super) older: bool,
}
