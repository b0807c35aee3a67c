//! What may be typed behind `strongroom volume`.
//!
//! Leans on clap. Refuses a passphrase among the arguments: there is no option for one.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::volume::{Format, Preallocation};

/// Our commands on volumes.
#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make an encrypted volume, and the secret that opens it
    #[command(override_usage = CREATE_USAGE, after_help = CREATE_HELP)]
    Create(CreateArguments),

    /// Say whether the stored passphrase opens a volume, without showing it
    #[command(after_help = CHECK_HELP)]
    Check(CheckArguments),

    /// Give volumes new random passphrases, in their images and in the keystore
    #[command(after_help = CHANGE_HELP)]
    ChangePassphrase(ChangeArguments),

    /// Remove volumes with their secrets, or the secrets of volumes that are gone
    #[command(after_help = DELETE_HELP)]
    Delete(DeleteArguments),

    /// List secrets whose volumes are gone, volumes without secrets, and what was cut short
    #[command(after_help = ORPHANS_HELP)]
    Orphans(OrphansArguments),
}

const CREATE_USAGE: &str = "\
strongroom volume create <PATH> --size SIZE [--format raw|qcow2] [OPTIONS]
       strongroom volume create <PATH> --copy-of PATH [OPTIONS]
       strongroom volume create --xml FILE [--directory DIR] [OPTIONS]";

const CREATE_HELP: &str = "\
Without --secret, a random passphrase is made, and a private secret of usage
volume for it. Shown are the secret's UUID and the element for the guest's disk.
The image is made on this host, by qemu-img, wherever the keystore is.
If this is cut short, run it again: it finishes or clears what was begun.

With --passphrase-to-fd the passphrase is written once, before the volume has
its name. A file must be empty, and has it when it is on the disk. A pipe must
be read meanwhile, within a minute; a socket is only written to. If that fails,
nothing is made. What has read it must keep it. If that fails to, the secret's
value can still be read, that of an ephemeral secret until its daemon ends:
    strongroom -q secret-get-value --plain --elevated UUID

Examples:
  A disk of 20 GiB with a passphrase that nobody has to know:
    strongroom volume create /var/lib/libvirt/images/db.qcow2 --size 20G
  As a libvirt volume is described, with the secret that it names:
    strongroom volume create --xml db.xml --directory /var/lib/libvirt/images
  An encrypted copy of a disk that isn't, or that has the AES of old (qcow):
    strongroom volume create /srv/new.qcow2 --copy-of /srv/old.img --original-format raw
    strongroom volume create /srv/new.qcow2 --copy-of /srv/aes.qcow2
  With a passphrase that is on no disk of this host; the UUID goes to 'made':
    strongroom -c secret:///system volume create /srv/db.qcow2 --size 20G \\
      --ephemeral --passphrase-to-fd 3 3>&1 >made | vault-put db";

const CHECK_HELP: &str = "\
Opens the volume as a guest would; one that a guest has open can be checked too.
Nothing is changed.
Exit status: 0 if every volume opens; 1 if one doesn't, or can't be tried.";

const CHANGE_HELP: &str = "\
The volume must not be in use. At every moment the secret's value opens it; if
this is cut short, run it again. One volume is done after the other.
With --passphrase-to-fd the new passphrase is written before the old one ceases
to open the volume. A file must be empty, and has it when it is on the disk. A
pipe must be read meanwhile, within a minute; a socket is only written to. If
that fails, the old one stays good; run this again. What has read the new one
must keep it. If that fails to, the secret's value can still be read, that of an
ephemeral secret until its daemon ends:
    strongroom -q secret-get-value --plain --elevated UUID

Exit status: 0 if every passphrase is changed; 1 if one is not.";

const DELETE_HELP: &str = "\
The volume must not be in use, and its secret's value must open it. Its image
goes first, then its secret: there is never an image that nothing opens.
An image that isn't there may be on a disk that isn't mounted: its secret stays,
unless you say with --gone that it won't come back.
Exit status: 0 if every one is removed; 1 if one is not.";

const ORPHANS_HELP: &str = "\
Looks at the usages of all secrets, and into the directories that these name, on
this host. A volume without a secret of its own may be opened by another that a
guest names. Nothing is changed.
Exit status: 0, whatever is listed.";

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Where the volume shall be
    #[arg(value_name = "PATH", conflicts_with = "xml")]
    pub(super) path: Option<PathBuf>,

    /// How large it is for the guest: bytes, or with a unit such as M, GiB or TB
    #[arg(long, conflicts_with = "xml")]
    pub(super) size: Option<String>,

    /// Make it a copy of this image, as large; the image stays as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["xml", "size"])]
    pub(super) copy_of: Option<PathBuf>,

    /// The secret that opens the original, if not its own: its UUID, or the path in its usage
    #[arg(long, value_name = "SECRET", requires = "copy_of", conflicts_with = "original_format")]
    pub(super) original_secret: Option<String>,

    /// The original isn't encrypted, and has this format
    #[arg(long, value_name = "FORMAT", requires = "copy_of")]
    pub(super) original_format: Option<FormatWord>,

    /// The format of the image: qcow2 with LUKS inside, or raw, which is LUKS itself
    #[arg(long, default_value = "qcow2", conflicts_with = "xml")]
    pub(super) format: FormatWord,

    /// Make it as a libvirt volume is described: a file with a <volume>; - is standard input
    #[arg(long, value_name = "FILE")]
    pub(super) xml: Option<OsString>,

    /// Where the volume shall be if its description has no path
    #[arg(long, value_name = "DIR", requires = "xml")]
    pub(super) directory: Option<PathBuf>,

    /// Make no secret, but use the value of this one: its UUID, or the path in its usage
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Option<String>,

    /// Keep the new secret in memory only: it ends with the daemon
    #[arg(long)]
    pub(super) ephemeral: bool,

    /// Write the new passphrase to this open file descriptor, for whoever keeps it
    #[arg(long, value_name = "N")]
    pub(super) passphrase_to_fd: Option<RawFd>,

    /// Replace a file that has this name and lose what it holds; its secret, if it has one, opens the new volume too
    #[arg(long)]
    pub(super) overwrite: bool,

    /// How much of the disk space it gets at once
    #[arg(long, value_name = "HOW")]
    pub(super) preallocation: Option<PreallocationWord>,

    /// How long it shall take to try a passphrase, in milliseconds, against guessing; else 100, or 2000 with --secret
    #[arg(long, value_name = "MS")]
    pub(super) iter_time: Option<NonZeroU64>,
}

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The volumes
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// Try the value of this secret, not of the volume's own: its UUID, or the path in its usage
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ChangeArguments {
    /// The volumes
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// The secret that opens the volume, if it isn't its own; other volumes that it opens it will open no more
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Option<String>,

    /// Write the new passphrase to this open file descriptor; the volume of an ephemeral secret needs it
    #[arg(long, value_name = "N")]
    pub(super) passphrase_to_fd: Option<RawFd>,

    /// How long it shall take to try the new passphrase, in milliseconds, against guessing; else 100
    #[arg(long, value_name = "MS")]
    pub(super) iter_time: Option<NonZeroU64>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// The volumes
    #[arg(value_name = "PATH", required = true)]
    pub(super) paths: Vec<PathBuf>,

    /// Remove the image even if its secret's value doesn't open it, or nothing tells whether it does
    #[arg(long, conflicts_with = "gone")]
    pub(super) force: bool,

    /// The image is gone for good: remove the secret that is left, and nothing else
    #[arg(long)]
    pub(super) gone: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OrphansArguments {
    /// Look into these directories too
    #[arg(value_name = "DIR")]
    pub(super) directories: Vec<PathBuf>,
}

/// A [`Format`], as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum FormatWord {
    Raw,
    Qcow2,
}

impl From<FormatWord> for Format {
    fn from(word: FormatWord) -> Self {
        match word {
            FormatWord::Raw => Self::Raw,
            FormatWord::Qcow2 => Self::Qcow2,
        }
    }
}

/// A [`Preallocation`], as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum PreallocationWord {
    /// None
    Off,
    /// The tables of qcow2
    Metadata,
    /// All, without writing it
    Falloc,
    /// All, written
    Full,
}

impl From<PreallocationWord> for Preallocation {
    fn from(word: PreallocationWord) -> Self {
        match word {
            PreallocationWord::Off => Self::Off,
            PreallocationWord::Metadata => Self::Metadata,
            PreallocationWord::Falloc => Self::Falloc,
            PreallocationWord::Full => Self::Full,
        }
    }
}
