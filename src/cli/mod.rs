//! What a person types: virsh's secret commands on our keystores, and our own on the keystore itself.
//!
//! The top floor. It parses ([`args`]), connects, runs the command ([`secret`], [`keystore`], [`check`]), tells what went wrong
//! ([`failure`], [`output`]) and answers with virsh's exit status. Leans on the library's face and on nothing behind
//! it. Refuses to let a value or a passphrase live outside secret memory: they come in through [`input`] and
//! [`prompt`], and go out unbuffered.

mod args;
mod check;
mod failure;
mod generate;
mod input;
mod keystore;
mod output;
mod pki;
mod progress;
mod prompt;
mod secret;
mod ssh_helper;
mod volume;
mod warnings;

use std::os::fd::RawFd;
use std::process::ExitCode;
use std::sync::Arc;

use crate::client::Meant;
use crate::memory::{SecretBytes, harden_process};
use crate::{Connection, OpenOptions};
use args::{Arguments, Command, ConnectArguments};
use failure::Failure;
use output::Output;

/// Runs the command line: parses, connects, does it, and says how it went.
pub fn main() -> ExitCode {
    harden_process();
    warnings::show();
    let typed = ssh_helper::under_its_own_name(std::env::args_os().collect());
    match args::parse(typed).and_then(|arguments| arguments.map_or(Ok(()), run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::tell(&failure);
            ExitCode::from(failure.status())
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let mut output = Output::new(arguments.quiet);
    match arguments.command {
        Command::Help { command } => args::help(command),
        Command::Generate(command) => generate::run(&command, &mut output),
        Command::SshHelper(command) => ssh_helper::run(&command, arguments.connect.readonly, &mut output),
        Command::Keystore(ref command) => keystore::run(command, &arguments, &mut output),
        Command::Check(ref these) => check::run(these, &arguments.connect, &mut output),
        Command::Pki(command) => pki::run(&command, &mut output),
        Command::Volume(ref command) => volume::run(command, &arguments, &mut output),
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

/// Connects as virsh does, with its line on top when that fails.
fn connect(arguments: &ConnectArguments) -> Result<Connection, Failure> {
    let failed = || Failure::told("failed to connect to the hypervisor");
    let meant = named(arguments).map_err(|failure| failed().because(failure))?;
    Connection::open_meant(meant, options(arguments)?).map_err(|error| failed().because(error))
}

/// The keystore that was named.
fn named(arguments: &ConnectArguments) -> Result<Meant, Failure> {
    match meant(arguments)? {
        Some(meant) => Ok(meant),
        None => Meant::by_nothing()?.ok_or_else(|| {
            Failure::told("no keystore was named").advise(
                "give one, for example --connect 'secret:///embed?root=/srv/keystore', or set VIRSH_DEFAULT_CONNECT_URI",
            )
        }),
    }
}

/// How to open it. Asks for what there is to ask for.
fn options(arguments: &ConnectArguments) -> Result<OpenOptions, Failure> {
    Ok(OpenOptions {
        key_file: arguments.key_file.clone(),
        passphrase: told("passphrase", arguments.passphrase, arguments.passphrase_fd)?,
        recovery_key: told("recovery key", arguments.recovery_key, arguments.recovery_key_fd)?,
        read_only: arguments.readonly,
        ask: Some(Arc::new(prompt::Terminal)),
    })
}

/// What was named, from where virsh takes it. An empty word is none. It is looked into once.
fn meant(arguments: &ConnectArguments) -> Result<Option<Meant>, Failure> {
    if let Some(known) = arguments.meant.get() {
        return Ok(known.clone());
    }
    let variable = |name| std::env::var(name).ok();
    let words =
        [arguments.connect.clone(), variable("VIRSH_DEFAULT_CONNECT_URI"), variable("LIBVIRT_DEFAULT_URI")];
    let word = words.into_iter().flatten().find(|word| !word.is_empty());
    let found = word.map(|word| Meant::by(&word)).transpose()?;
    Ok(arguments.meant.get_or_init(|| found).clone())
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
