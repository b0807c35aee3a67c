//! `strongroom init`: a new keystore, and what opens it.
//!
//! Leans on `prompt` and on the driver. The recovery key goes from secret memory straight to standard output, once.
//! Refuses options that open a keystore, for there is none yet; refuses to ask where nobody sits.

use std::io::{self, IsTerminal};

use super::InitArguments;
use super::key::show_recovery_key;
use super::status::{words, worth};
use crate::administration::Made;
use crate::cli::args::ConnectArguments;
use crate::cli::failure::Failure;
use crate::cli::output::{Field, Output};
use crate::cli::{input, named, prompt};
use crate::driver::{NewStore, check_passphrase};
use crate::memory::SecretBytes;
use crate::seal::RecoveryKey;
use crate::secret::Error;
use crate::{Embedded, OpenOptions};

/// Asks what it has to, makes the keystore, and says what was made.
pub(super) fn run(
    arguments: &InitArguments,
    connect: &ConnectArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    refuse_keys(connect)?;
    let uri = named(connect)?.uri;
    let options = OpenOptions { key_file: connect.key_file.clone(), ..OpenOptions::default() };
    if Embedded::exists(&uri)? {
        // Nobody shall think of a passphrase for nothing. The driver looks again, under its lock.
        return Err(Failure::told(format!("there is a keystore already, or what is left of one, at {uri}"))
            .advise("nothing was changed; see how it stands with: strongroom status"));
    }
    let passphrase = passphrase(arguments)?;
    let recovery_key = match wants_recovery_key(arguments)? {
        true => Some(RecoveryKey::random().map_err(|error| Error::failed(error.to_string()))?),
        false => None,
    };
    let text = recovery_key.as_ref().map(RecoveryKey::text).transpose().map_err(Error::from)?;
    let new = NewStore {
        without_host_key: arguments.without_host_key,
        passphrase,
        recovery_key,
        without_copies: arguments.without_xml_copies,
    };
    let made = Embedded::init(&uri, options, &new)?;
    output.extra_fields(&sheet(&made))?;
    if let Some(text) = text {
        show_recovery_key(&text, output).map_err(|failure| {
            Failure::told("the keystore was made, but its recovery key could not be shown")
                .because(failure)
                .advise("nobody has seen it: remove the new keystore and make it again")
        })?;
    }
    output.extra("\nNext: strongroom secret-define FILE\n")
}

fn refuse_keys(connect: &ConnectArguments) -> Result<(), Failure> {
    let passphrase = connect.passphrase || connect.passphrase_fd.is_some();
    let recovery_key = connect.recovery_key || connect.recovery_key_fd.is_some();
    let (given, meant) = match (passphrase, recovery_key) {
        (true, _) => ("--passphrase", "--with-passphrase"),
        (_, true) => ("--recovery-key", "--with-recovery-key"),
        (false, false) => return Ok(()),
    };
    Err(Failure::told(format!("{given} opens a keystore that is there; 'init' makes a new one"))
        .advise(format!("did you mean '{meant}'?")))
}

fn passphrase(arguments: &InitArguments) -> Result<Option<SecretBytes>, Failure> {
    let passphrase = match arguments.with_passphrase_fd {
        Some(number) => input::line_from_descriptor(number)?,
        None if !arguments.with_passphrase => return Ok(None),
        None => prompt::prompt_twice("New passphrase: ", "The same again: ")?.ok_or_else(|| {
            Failure::told("there is no terminal to ask for the passphrase on")
                .advise("pipe it in with --with-passphrase-fd 0")
        })?,
    };
    check_passphrase(&passphrase)?;
    Ok(Some(passphrase))
}

/// Whether there shall be a recovery key: as was said, or as is answered now; without anybody to ask, none.
fn wants_recovery_key(arguments: &InitArguments) -> Result<bool, Failure> {
    let somebody = io::stdin().is_terminal() && io::stdout().is_terminal();
    if arguments.with_recovery_key || arguments.without_recovery_key || !somebody {
        return Ok(arguments.with_recovery_key);
    }
    prompt::yes_or_no("Make a recovery key, to get in when every other key is lost? [y/n] ")
}

fn sheet(made: &Made) -> Vec<Field> {
    let mut sheet = vec![Field::of("Made", made.directory.display())];
    let host_key = made.host_key.as_ref().map(|path| path.display().to_string());
    for key in &made.keys {
        let called = match (&host_key, key.slot.label.is_empty()) {
            (Some(path), false) => format!("{} '{path}'", key.slot.kind),
            _ => words(&key.slot),
        };
        sheet.push(Field::of("Opens with", called));
        sheet.extend(worth(key));
    }
    let copies =
        if made.copies { "kept: who can read the directory sees the definitions" } else { "not kept" };
    sheet.push(Field::of("XML copies", copies));
    if let (Some(_), [_]) = (&host_key, &made.keys[..]) {
        sheet.push(Field::of("Mind", "the host key alone opens it: keep a copy of its file in a safe place"));
    }
    sheet
}
