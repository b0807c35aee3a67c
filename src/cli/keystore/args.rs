//! What may be typed behind our commands on the keystore as a whole; behind `key`, see [`key`](super::key).
//!
//! Leans on clap. What opens an existing keystore (`--passphrase`, `--recovery-key`) and what a new one shall have
//! (`--with-passphrase`, `--with-recovery-key`) have names of their own, so that nobody mistakes one for the other.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Subcommand};

pub(crate) use super::key::KeyCommand;

/// Our commands on the keystore itself.
#[derive(Debug, Subcommand)]
pub(crate) enum KeystoreCommand {
    /// Make a new keystore: choose what opens it
    #[command(after_help = INIT_HELP)]
    Init(InitArguments),

    /// Show how the keystore stands: open or locked, its keys, its size, what was found
    #[command(after_help = STATUS_HELP)]
    Status(ShowArguments),

    /// Open a running daemon's locked keystore
    #[command(after_help = UNLOCK_HELP)]
    Unlock(DaemonArguments),

    /// Close a running daemon's keystore and wipe its keys
    #[command(after_help = LOCK_HELP)]
    Lock(DaemonArguments),

    /// List, add, change, remove and test what opens the keystore
    #[command(subcommand)]
    Key(KeyCommand),

    /// Seal every secret anew under a new key, while clients are served
    #[command(after_help = ROTATE_HELP)]
    Rotate(RotateArguments),

    /// Replace the root key, which the slots wrap
    #[command(after_help = REKEY_HELP)]
    Rekey(RekeyArguments),

    /// Copy the keystore, sealed, to a file, while clients are served
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupArguments),

    /// Make a keystore from a backup; no daemon may run
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArguments),

    /// Take in the secrets of a directory that libvirt's own driver wrote
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArguments),

    /// Write the secrets into a directory that libvirt's own driver reads
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArguments),

    /// Check every record and every file of the keystore, or a backup; repair it
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArguments),
}

const INIT_HELP: &str = "\
Any one of its slots opens a keystore:
  host key      A file of 32 bytes, made if it isn't there: --key-file FILE, or
                $STRONGROOM_KEY_FILE, or /etc/strongroom/host.key for root and
                ~/.config/strongroom/host.key for others. It opens the keystore
                without asking anybody, and protects copies that lack this file.
  passphrase    Nothing on the disk opens the keystore. At least 8 bytes.
  recovery key  36 letters and digits, shown once, to be kept on paper: the way
                in when all else is lost.

Examples:
  A host that starts unattended, with a way back in:
    strongroom init --with-recovery-key
  One person's keystore; later commands take --passphrase:
    strongroom init --with-passphrase --without-host-key
  In a script: -q leaves nothing but the recovery key on standard output:
    strongroom -q init --with-recovery-key | gpg -er admins > recovery.gpg";

const STATUS_HELP: &str = "\
A locked keystore is shown too, with the reason and what opens it; that is no
failure. Fails if there is no keystore, or if it can't be opened at all.

A daemon is asked for its own keystore: --connect secret:///system or
secret:///session, or --admin-socket PATH. Only root and the user that the
daemon runs as may ask.";

const UNLOCK_HELP: &str = "\
Which daemon: --connect secret:///system or secret:///session (?socket=PATH
names its main socket: the admin socket lies beside it), or --admin-socket
PATH; without either this user's own, for root the system's. Only root and the
user that the daemon runs as may unlock.

What with: --key-file, --passphrase, --passphrase-fd, --recovery-key or
--recovery-key-fd. Files are read by this command, so the daemon needs no
access to them. Without any of them the daemon looks for the host key where it
looks when it starts; if it isn't there and a passphrase opens the keystore, it
is asked for. All that was defined stays, clients stay connected, and nothing
is started anew.

Examples:
  The host key's file is back in its place:
    strongroom unlock
  With the recovery key from paper, on this user's own daemon:
    strongroom -c secret:///session unlock --recovery-key
  From a script, which has the passphrase elsewhere:
    pass show hosts/h1 | strongroom unlock --passphrase-fd 0";

const LOCK_HELP: &str = "\
Calls under way are finished first. From then on secrets are listed, but none
is read or changed; new ephemeral secrets work. Nothing opens the keystore
again but 'strongroom unlock' and a new start of the daemon: a key that is in
its place does not.

Which daemon: as for 'strongroom unlock'.";

const VERIFY_HELP: &str = "\
One line for each finding, 'problem:' or 'note:'; the last line always is
  secrets ok: N, problems: N, notes: N
Problems mean that something is lost or in doubt. Notes lose nothing: a file
that belongs to no secret, an .xml copy that differs.

--repair keeps every record that opens, moves what is damaged aside under
another name, writes the .xml copies anew, and says what was lost by UUID and
usage. It deletes nothing.

A backup is checked with the keys that open it: --key-file, --passphrase,
--recovery-key, or the host key of this host.

Exit status: 0 if there is no problem, or none is left; 1 if there is one, or
something was lost, or the keystore can't be opened.";

const ROTATE_HELP: &str = "\
A running daemon does it in the background and goes on though this command, or
the daemon, is ended: this command shows how far it is. 'strongroom status'
says when it is time for it. Afterwards the key before is gone: a copy of the
log from before opens only with a copy of the keyring from before.";

const REKEY_HELP: &str = "\
For when somebody may have had the root key: who could open the keystore on
this host, or has a copy of the keyring and a key to it. Slots stay if their
keys are given (--passphrase, --recovery-key, --key-file) or lie in their
place; each of the others has to be named with --forget, and can be added
again. Then rotate.

Example, where the passphrase is known to one person too many:
  strongroom rekey --recovery-key --forget passphrase
  strongroom rotate
  strongroom key add passphrase";

const BACKUP_HELP: &str = "\
The copy is as it was at one moment, and as sealed as the keystore. Whoever has
it and one of the keys of that moment can read it; keep a recovery key or a
passphrase for a backup that shall be opened on another host.

Examples:
  strongroom backup /srv/backup/keystore-$(date +%F)
  strongroom backup - | ssh vault 'cat > keystore'";

const IMPORT_HELP: &str = "\
Stop libvirt's own driver first. Definitions and values go in as one change
each, are read back and compared; what the keystore has already stays as it is.
It can be ended at any moment and run again. A wrong key is noticed before
anything is imported.

--remove-originals overwrites the bytes of the values' files before it removes
them. File systems that copy on write, SSDs and snapshots may keep older copies
all the same.

Examples:
  strongroom -c secret:///system import --dry-run /etc/libvirt/secrets
  strongroom -c secret:///system import --remove-originals /etc/libvirt/secrets";

const EXPORT_HELP: &str = "\
Every persistent secret, private ones too, as libvirt's own driver lays them
out. Ephemeral ones are nowhere but in memory, and stay there.

Examples:
  strongroom -c secret:///system export --libvirt /root/out --encrypt-with key
  strongroom -c secret:///system export --libvirt /root/out --plaintext";

const RESTORE_HELP: &str = "\
Into a root where no keystore is; the backup is checked before anything is
written. --replace puts it in the place of a keystore that is there, whose
files are kept aside; an older one in the place of a newer one needs --older as
well.

Examples:
  strongroom -c secret:///system restore /mnt/keystore-11-01 --recovery-key
  strongroom -c 'secret:///embed?root=/srv/k' restore keystore --passphrase";

#[derive(Debug, Args)]
pub(crate) struct InitArguments {
    /// Let a passphrase open it; asks for it twice
    #[arg(long, conflicts_with = "with_passphrase_fd")]
    pub(super) with_passphrase: bool,

    /// Let a passphrase open it: one line from this open file descriptor
    #[arg(long, value_name = "N")]
    pub(super) with_passphrase_fd: Option<RawFd>,

    /// Let a recovery key open it, and show it once; else a terminal is asked
    #[arg(long, conflicts_with = "without_recovery_key")]
    pub(super) with_recovery_key: bool,

    /// Make no recovery key, and don't ask
    #[arg(long)]
    pub(super) without_recovery_key: bool,

    /// Don't let the host key open it: each time somebody has to be asked
    #[arg(long)]
    pub(super) without_host_key: bool,

    /// Keep definitions in the encrypted log only, without the .xml copies libvirt would have
    #[arg(long)]
    pub(super) without_xml_copies: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// Write JSON, for programs
    #[arg(long)]
    pub(super) json: bool,
}

/// Which daemon.
#[derive(Debug, Default, Args)]
pub(crate) struct DaemonArguments {
    /// The daemon's admin socket, whatever --connect says
    #[arg(long, value_name = "PATH", global = true)]
    pub(super) admin_socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// Begin it, and leave it to the daemon
    #[arg(long)]
    pub(super) no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RekeyArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// Let this slot go: an id, or as for 'strongroom key change'. May be given more than once
    #[arg(long, value_name = "SLOT")]
    pub(super) forget: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// The file to write; it must not be there yet. - is standard output
    pub(super) file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArguments {
    /// The backup
    pub(super) file: PathBuf,

    /// Put it in the place of a keystore that is there
    #[arg(long)]
    pub(super) replace: bool,

    /// Even if that one is newer, or another one
    #[arg(long, requires = "replace")]
    pub(super) older: bool,

    /// Restore what opens of a damaged backup
    #[arg(long)]
    pub(super) partial: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// The directory: libvirt's is /etc/libvirt/secrets, a user's ~/.config/libvirt/secrets
    pub(super) directory: PathBuf,

    /// Only say what would happen
    #[arg(long)]
    pub(super) dry_run: bool,

    /// The 32 bytes that libvirt 12.1 and later encrypted values with; else the systemd credential, if there is one
    #[arg(long, value_name = "FILE")]
    pub(super) libvirt_key: Option<PathBuf>,

    /// Where values are encrypted and there is no key for them, import the others
    #[arg(long)]
    pub(super) without_encrypted: bool,

    /// The key is right, whatever chance may have done: remove also the originals of few encrypted values
    #[arg(long)]
    pub(super) trust_key: bool,

    /// Overwrite and remove each original once its secret was read back and compared
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) remove_originals: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// The directory to write; made if it isn't there
    #[arg(long, value_name = "DIR")]
    pub(super) libvirt: PathBuf,

    /// Encrypt the values for libvirt 12.1 and later, with the 32 bytes in this file
    #[arg(long, value_name = "FILE", conflicts_with = "plaintext")]
    pub(super) encrypt_with: Option<PathBuf>,

    /// Write the values as they are, in base64: whoever reads the disk, or a copy of it, has every one
    #[arg(long)]
    pub(super) plaintext: bool,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    #[command(flatten)]
    pub(super) daemon: DaemonArguments,

    /// A backup to check, instead of the keystore
    #[arg(conflicts_with_all = ["repair", "admin_socket"])]
    pub(super) file: Option<PathBuf>,

    /// Keep what opens, move aside what doesn't
    #[arg(long)]
    pub(super) repair: bool,

    /// Write JSON, for programs
    #[arg(long)]
    pub(super) json: bool,

    /// List the secrets that are in order too
    #[arg(short, long)]
    pub(super) verbose: bool,
}
