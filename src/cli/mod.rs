//! What a person types: virsh's secret commands, on our keystores.
//!
//! The top floor. It parses ([`args`]), connects, runs the command ([`secret`]), tells what went wrong ([`failure`],
//! [`output`]) and answers with virsh's exit status. Leans on the library's face and on nothing behind it. Refuses
//! to let a value or a passphrase live outside secret memory: they come in through [`input`] and [`prompt`], and go
//! out unbuffered.

mod args;
mod failure;
#[cfg(test)]
mod fake;
mod generate;
mod input;
mod output;
mod prompt;
mod secret;

use std::os::fd::RawFd;
use std::process::ExitCode;

use crate::memory::{SecretBytes, harden_process};
use crate::{Connection, OpenOptions};
use args::{Command, ConnectArguments};
use failure::Failure;
use output::Output;

/// Runs the command line: parses, connects, does it, and says how it went.
pub fn main() -> ExitCode {
    harden_process();
    match args::parse(std::env::args_os().collect()).and_then(|arguments| arguments.map_or(Ok(()), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::tell(&failure);
            ExitCode::from(failure.status())
        }
    }
}

fn run(arguments: args::Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.quiet);
    match arguments.command {
        Command::Generate(command) => generate::run(&command, &mut output),
        Command::Secret(command) => {
            let connection = connect(&arguments.connect)?;
            finish(secret::run(command, &connection, &mut output), &mut output)
        }
    }
}

/// Ends a command as virsh does: its failure is told, then comes an empty line, be it done or not.
fn finish(result: Result<(), Failure>, output: &mut Output) -> Result<(), Failure> {
    if let Err(failure) = &result {
        output::tell(failure);
    }
    match (result, output.extra("\n")) {
        (Ok(()), end) => end,
        (Err(Failure::Interrupted), _) => Err(Failure::Interrupted),
        (Err(_), _) => Err(Failure::Silent), // told above
    }
}

fn connect(arguments: &ConnectArguments) -> Result<Connection, Failure> {
    let failed = || Failure::told("failed to connect to the hypervisor");
    let Some(uri) = uri(arguments) else {
        return Err(failed().because(Failure::told("no keystore was named")).advise(
            "give one, for example --connect 'secret:///embed?root=/srv/keystore', or set VIRSH_DEFAULT_CONNECT_URI",
        ));
    };
    let options = OpenOptions {
        key_file: arguments.key_file.clone(),
        passphrase: told("passphrase", arguments.passphrase, arguments.passphrase_fd)?,
        recovery_key: told("recovery key", arguments.recovery_key, arguments.recovery_key_fd)?,
    };
    Connection::open_with(&uri, options).map_err(|error| failed().because(error))
}

/// The URI, from where virsh takes it. An empty one is none.
fn uri(arguments: &ConnectArguments) -> Option<String> {
    let variable = |name| std::env::var(name).ok();
    [arguments.connect.clone(), variable("VIRSH_DEFAULT_CONNECT_URI"), variable("LIBVIRT_DEFAULT_URI")]
        .into_iter()
        .flatten()
        .find(|uri| !uri.is_empty())
}

/// A passphrase or recovery key, asked for or read from a descriptor.
fn told(what: &str, ask: bool, descriptor: Option<RawFd>) -> Result<Option<SecretBytes>, Failure> {
    if let Some(number) = descriptor {
        return input::line_from_descriptor(number).map(Some);
    }
    if !ask {
        return Ok(None);
    }
    match prompt::prompt(&format!("Enter the {what}: "))? {
        Some(answer) => Ok(Some(answer)),
        None => {
            let option = what.replace(' ', "-");
            Err(Failure::told(format!("there is no terminal to ask for the {what} on"))
                .advise(format!("pipe it in with --{option}-fd 0")))
        }
    }
}
