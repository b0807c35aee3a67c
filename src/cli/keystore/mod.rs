//! Our own commands, on the keystore as a whole: `init`, `status`, `unlock`, `lock`, `verify`.
//!
//! They look behind libvirt's API, so they open the keystore in this process, or ask its daemon on the admin socket
//! ([`daemon`]). Leans on [`Embedded`]. Refuses to make a
//! keystore in passing: only `init` does, so that a mistyped root is not taken for an empty keystore.

mod args;
mod daemon;
mod init;
mod status;
mod verify;

use serde::Serialize;

use super::failure::Failure;
use super::output::Output;
use super::{Arguments, named, options};
use crate::Embedded;
use crate::secret::Error;
pub(super) use args::KeystoreCommand;
use args::{DaemonArguments, InitArguments, ShowArguments, VerifyArguments};

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
            None => status::run(these, &open(arguments)?.status(), output),
        },
        KeystoreCommand::Unlock(these) => daemon::unlock(these, &arguments.connect, output),
        KeystoreCommand::Lock(these) => daemon::lock(these, &arguments.connect, output),
        KeystoreCommand::Verify(these) => verify::run(these, || open(arguments), output),
    }
}

/// Opens a keystore that is there.
fn open(arguments: &Arguments) -> Result<Embedded, Failure> {
    let uri = named(&arguments.connect)?;
    if !Embedded::exists(&uri)? {
        return Err(Failure::told(format!("there is no keystore at {uri}"))
            .advise("mind the spelling; or make one with: strongroom init"));
    }
    Ok(Embedded::open(&uri, options(&arguments.connect)?)?)
}

/// Writes what a program reads.
fn json(content: &impl Serialize, output: &mut Output) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(content)
        .map_err(|error| Error::failed(format!("cannot write JSON: {error}")))?;
    output.text(&format!("{text}\n"))
}
