//! Our own commands, on the keystore as a whole: making it, seeing how it stands, its keys, copies and repair.
//!
//! They look behind libvirt's API, through [`Administration`](crate::Administration): on a keystore opened in this
//! process, or on a daemon's over its admin socket ([`reach`]). Leans on [`Embedded`](crate::Embedded) and `client`.
//! Refuses to make a keystore in passing: only `init` and `restore` do, so that a mistyped root is not taken for an
//! empty keystore.

mod args;
mod backup;
mod daemon;
mod init;
mod key;
mod moving;
mod reach;
mod rotation;
mod sealed_file;
mod status;
mod verify;

use serde::Serialize;

use super::Arguments;
use super::args::ConnectArguments;
use super::failure::Failure;
use super::output::Output;
use crate::administration::Lost;
use crate::secret::Error;
pub(super) use args::KeystoreCommand;
use args::{
    BackupArguments, DaemonArguments, ExportArguments, ImportArguments, InitArguments, RekeyArguments,
    RestoreArguments, RotateArguments, ShowArguments, VerifyArguments,
};

/// Runs a command.
pub(super) fn run(
    command: &KeystoreCommand,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        KeystoreCommand::Init(these) => init::run(these, &arguments.connect, output),
        KeystoreCommand::Status(these) => match daemon::meant(&these.daemon, &arguments.connect) {
            Some(socket) => daemon::status(&socket?, these, output),
            None => status::run(these, &reach::open(arguments)?.status(), output),
        },
        KeystoreCommand::Unlock(these) => daemon::unlock(these, &arguments.connect, output),
        KeystoreCommand::Lock(these) => daemon::lock(these, &arguments.connect, output),
        KeystoreCommand::Key(command) => key::run(command, arguments, output),
        KeystoreCommand::Rotate(these) => rotation::rotate(these, arguments, output),
        KeystoreCommand::Rekey(these) => rotation::rekey(these, arguments, output),
        KeystoreCommand::Backup(these) => backup::backup(these, arguments, output),
        KeystoreCommand::Restore(these) => backup::restore(these, arguments, output),
        KeystoreCommand::Import(these) => moving::take_in(these, arguments, output),
        KeystoreCommand::Export(these) => moving::give_out(these, arguments, output),
        KeystoreCommand::Verify(these) => verify::run(these, arguments, output),
    }
}

/// Refuses what changes something under `-r`.
fn check_writable(connect: &ConnectArguments, what: &str) -> Result<(), Failure> {
    match connect.readonly {
        true => Err(Failure::told(format!("read only access prevents {what}")).advise("leave out -r")),
        false => Ok(()),
    }
}

/// Writes what a program reads.
fn json(content: &impl Serialize, output: &mut Output) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(content)
        .map_err(|error| Error::failed(format!("cannot write JSON: {error}")))?;
    output.text(&format!("{text}\n"))
}

/// A line about a secret that is gone, or its value.
fn told_lost(what: &str, lost: &Lost) -> String {
    match &lost.usage {
        Some(usage) => format!("{what}: secret {} {usage}", lost.uuid),
        None => format!("{what}: secret {}", lost.uuid),
    }
}
