//! `strongroom key`: what opens a keystore, one slot each.
//!
//! Leans on [`Administration`](crate::Administration) for the doing; here are the asking and the telling. Refuses to
//! guess which slot is meant.

mod args;

use std::fs::File;
use std::io::Read;

use super::args::DaemonArguments;
use super::reach::{Reached, host_key, reach, root};
use super::sealed_file::{self, is_stdout};
use super::status::{in_full, words};
use super::{check_writable, json};
use crate::Embedded;
use crate::administration::{Key, SlotStatus};
use crate::cli::args::ConnectArguments;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::{Arguments, input, meant, options, prompt};
use crate::clock;
use crate::driver::{Driver, Keys, check_passphrase, read_host_key, read_or_make_host_key};
use crate::memory::SecretBytes;
use crate::seal::RecoveryKey;
use crate::secret::Error;
pub(crate) use args::KeyCommand;
use args::{AddArguments, ChangeArguments, NewKey, PassphraseSource, RestoreArguments};

/// Runs a command.
pub(super) fn run(command: &KeyCommand, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    match command {
        KeyCommand::List(these) => {
            let slots = reach(arguments, &these.daemon)?.keystore.status()?.slots;
            if these.json { json(&slots, output) } else { list(&slots, output) }
        }
        KeyCommand::Add(these) => add(these, arguments, output),
        KeyCommand::Change(these) => change(these, arguments, output),
        KeyCommand::Remove(these) => {
            let Reached { keystore, given } = to_change(arguments, &these.daemon)?;
            let slot = slot_called(&these.slot, &keystore.status()?.slots).and_then(slot_id)?;
            let gone = keystore.remove_key(slot, &given)?;
            output.extra(&format!("Slot removed: {}\n", in_full(&gone)))
        }
        KeyCommand::Test(these) => {
            let Reached { keystore, mut given } = reach(arguments, &these.daemon)?;
            if !given.iter().any(|key| matches!(key, Key::Host(_))) {
                given.extend(host_key(&arguments.connect)?);
            }
            if given.is_empty() {
                return Err(Failure::told("no key was given to be tested")
                    .advise("give one: --key-file FILE, --passphrase or --recovery-key"));
            }
            given.iter().try_for_each(|key| {
                let slot = keystore.test_key(key)?;
                output.text(&format!("The {} opens the slot {}\n", key.name(), in_full(&slot)))
            })
        }
        KeyCommand::Backup(these) => {
            let keyring = reach(arguments, &these.daemon)?.keystore.keyring()?;
            sealed_file::write(&these.file, |file| file.put(&keyring))?;
            match is_stdout(&these.file) {
                true => Ok(()),
                false => output.extra(&format!("Keyring copied: {} bytes, sealed\n", keyring.len())),
            }
        }
        KeyCommand::Restore(these) => restore(these, &arguments.connect, output),
    }
}

fn list(slots: &[SlotStatus], output: &mut Output) -> Result<(), Failure> {
    let rows: Vec<_> = slots
        .iter()
        .map(|slot| {
            let cost = slot
                .argon2id
                .as_ref()
                .map(|cost| format!("Argon2id {} MiB, passes: {}", cost.memory_kib / 1024, cost.passes));
            let (kind, made) = (slot.kind.to_string(), clock::date(slot.made_at));
            [slot.id.clone(), kind, made, slot.label.clone(), cost.unwrap_or_default()]
        })
        .collect();
    output.table(["ID", "Opened by", "Made", "Label", "Cost of a guess"], &rows)
}

fn add(arguments: &AddArguments, all: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let keystore = to_change(all, &arguments.daemon)?.keystore;
    let (key, label) = match &arguments.new {
        NewKey::Passphrase { source, label } => (new_passphrase(source)?, label.label.clone()),
        NewKey::RecoveryKey { label } => (new_recovery_key()?, label.label.clone()),
        NewKey::HostKey { file } => {
            if let Some(why) = keystore.status()?.locked {
                return Err(Failure::told(why).advise("open it first: strongroom unlock")); // and make no key file
            }
            let (key, label) = read_or_make_host_key(file)?;
            (Key::Host(key), Some(label))
        }
        NewKey::Credential { file } => (Key::Credential(read_host_key(file)?), None),
    };
    let slot = keystore.add_key(&key, &label.unwrap_or_default())?;
    output.extra(&format!("Slot added: {}\n", in_full(&slot)))?;
    tell_where(&key, &slot, output)?;
    tell_recovery_key(&key, output, |failure| {
        Failure::told("the slot is there, but its recovery key could not be shown")
            .because(failure)
            .advise(format!("nobody has seen it: strongroom key remove {}", slot.id))
    })
}

fn change(arguments: &ChangeArguments, all: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let keystore = to_change(all, &arguments.daemon)?.keystore;
    let slots = keystore.status()?.slots;
    let before = slot_called(&arguments.slot, &slots)?;
    let file = arguments.host_key_file.as_deref();
    let (key, label) = match (&*before.kind, file) {
        ("passphrase", None) => (new_passphrase(&arguments.source)?, before.label.clone()),
        ("recovery key", None) => (new_recovery_key()?, before.label.clone()),
        ("credential", Some(file)) => (Key::Credential(read_host_key(file)?), before.label.clone()),
        ("host key", Some(file)) => {
            let (key, label) = read_or_make_host_key(file)?;
            (Key::Host(key), label)
        }
        (kind, None) => {
            return Err(Failure::told(format!("the new key for the slot of the {kind} is missing"))
                .advise("name its file with --host-key-file FILE"));
        }
        (kind, Some(_)) => {
            return Err(Failure::told(format!("--host-key-file is not for the slot of a {kind}"))
                .advise("leave it out: a passphrase is asked for, a recovery key is made"));
        }
    };
    let label = arguments.label.label.clone().unwrap_or(label);
    // Shown before the old one goes: whatever happens then, somebody has the key that opens the slot.
    tell_recovery_key(&key, output, |failure| {
        Failure::told("nothing was changed: the new recovery key could not be shown").because(failure)
    })?;
    let slot = keystore.change_key(slot_id(before)?, &key, &label).map_err(|error| match key {
        Key::Recovery(_) => {
            Failure::told("the recovery key that was just shown opens nothing: the slot is as it was")
                .because(error)
        }
        _ => error.into(),
    })?;
    output.extra(&format!("Slot changed: {}\n", in_full(&slot)))?;
    tell_where(&key, &slot, output)
}

fn restore(
    arguments: &RestoreArguments,
    connect: &ConnectArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    check_writable(connect, "putting a keyring back")?;
    let root = root(connect)?;
    let failed = |error| Failure::system(format_args!("cannot read '{}'", arguments.file.display()), &error);
    let mut bytes = Vec::new();
    let file = File::open(&arguments.file).map_err(failed)?;
    file.take(crate::seal::MAX_KEYRING as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    let restored = Driver::restore_keyring(&root, &bytes, &keys(connect)?, arguments.older)?;
    let mut lines = vec![format!("The keyring is back; it opens with the {}", words(&restored.slot))];
    lines.extend(restored.kept_as.map(|file| format!("kept aside: {file}")));
    if !output.is_quiet() {
        output.lines(&lines)?;
    }
    match restored.older_than {
        Some(_) => output
            .extra("It is an older one: see that no slot is back that was removed: strongroom key list\n"),
        None => Ok(()),
    }
}

/// The keystore, if it may be changed.
fn to_change(arguments: &Arguments, daemon: &DaemonArguments) -> Result<Reached, Failure> {
    check_writable(&arguments.connect, "changing what opens the keystore")?;
    reach(arguments, daemon)
}

/// The keys to open something with that no process has open.
pub(super) fn keys(connect: &ConnectArguments) -> Result<Keys, Failure> {
    let uri = meant(connect)?.map_or_else(|| DEFAULT.to_owned(), |meant| meant.uri);
    Ok(Embedded::keys(&uri, options(connect)?)?)
}

fn new_passphrase(source: &PassphraseSource) -> Result<Key, Failure> {
    let passphrase = match (source.from_fd, &source.from_file) {
        (Some(number), _) => input::line_from_descriptor(number)?,
        (None, Some(file)) => input::line_from_file(file)?,
        (None, None) => prompt::prompt_twice("New passphrase: ", "The same again: ")?.ok_or_else(|| {
            Failure::told("there is no terminal to ask for the new passphrase on")
                .advise("pipe it in with --from-fd 0, or name a file with --from-file FILE")
        })?,
    };
    check_passphrase(&passphrase)?;
    Ok(Key::Passphrase(passphrase))
}

fn new_recovery_key() -> Result<Key, Failure> {
    let key = RecoveryKey::random().map_err(|error| Error::failed(error.to_string()))?;
    Ok(Key::Recovery(key.text().map_err(Error::from)?))
}

fn tell_recovery_key(
    key: &Key,
    output: &mut Output,
    untold: impl FnOnce(Failure) -> Failure,
) -> Result<(), Failure> {
    let Key::Recovery(text) = key else { return Ok(()) };
    show_recovery_key(text, output).map_err(untold)
}

/// A key file opens nothing where nobody looks for it.
fn tell_where(key: &Key, slot: &SlotStatus, output: &mut Output) -> Result<(), Failure> {
    match key {
        Key::Host(_) if slot.label != "/etc/strongroom/host.key" => output.extra(&format!(
            "It opens the keystore where it is looked for: name '{}' as host_key_file in virtsecretd.conf, or with --key-file\n",
            slot.label
        )),
        _ => Ok(()),
    }
}

/// Shows a recovery key; to a script, nothing else.
pub(super) fn show_recovery_key(text: &SecretBytes, output: &mut Output) -> Result<(), Failure> {
    output.extra("\nThe recovery key, shown this once and kept nowhere:\n\n    ")?;
    output.value(text)?;
    output.text("\n")?;
    output.extra(
        "\nWrite it down and keep it away from this host. Whoever has it and a copy of the keystore can read\n\
         everything; without it, losing the other keys loses everything.\n",
    )
}

/// The one slot that is meant: by id or its beginning, by what opens it, or by its label.
pub(super) fn slot_called<'a>(text: &str, slots: &'a [SlotStatus]) -> Result<&'a SlotStatus, Failure> {
    if text.is_empty() {
        return Err(Failure::told("it wasn't said which slot").advise("see them with: strongroom key list"));
    }
    let by_id = |slot: &&SlotStatus| text.len() >= SHORTEST_ID && slot.id.starts_with(&text.to_lowercase());
    let by_word =
        |slot: &&SlotStatus| slot.kind.replace(' ', "-") == text || *slot.kind == *text || slot.label == text;
    let mut found: Vec<_> = slots.iter().filter(by_id).collect();
    if found.is_empty() {
        found = slots.iter().filter(by_word).collect();
    }
    match found[..] {
        [slot] => Ok(slot),
        [] => {
            Err(Failure::told(format!("there is no slot '{text}'"))
                .advise("see them with: strongroom key list"))
        }
        _ => {
            let ids: Vec<_> = found.iter().map(|slot| slot.id.as_str()).collect();
            Err(Failure::told(format!("'{text}' may be any of these slots: {}", ids.join(", ")))
                .advise("name it by its id"))
        }
    }
}

pub(super) fn slot_id(slot: &SlotStatus) -> Result<::uuid::Uuid, Failure> {
    slot.id.parse().map_err(|_| Failure::told(format!("'{}' is no slot's id ({})", slot.id, words(slot))))
}

/// Whose keys are meant when no keystore is named: those of this host.
const DEFAULT: &str = "secret:///system";

/// The shortest beginning of an id.
const SHORTEST_ID: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: &str, kind: &'static str, label: &str) -> SlotStatus {
        SlotStatus { id: id.into(), kind: kind.into(), label: label.into(), made_at: 0, argon2id: None }
    }

    #[test]
    fn a_slot_is_called_by_its_id_its_kind_or_its_label_if_one_only_fits() {
        let slots = [
            slot("aaaa1111-0000-0000-0000-000000000000", "host key", "/etc/strongroom/host.key"),
            slot("aaaa2222-0000-0000-0000-000000000000", "passphrase", "on call"),
            slot("bbbb3333-0000-0000-0000-000000000000", "passphrase", ""),
        ];
        for (text, found) in [
            ("aaaa1", Ok(0)),
            ("AAAA1111-0000-0000-0000-000000000000", Ok(0)),
            ("host-key", Ok(0)),
            ("host key", Ok(0)),
            ("on call", Ok(1)),
            ("bbbb", Ok(2)),
            ("aaaa", Err("'aaaa' may be any of these slots")),
            ("passphrase", Err("'passphrase' may be any")),
            ("bbb", Err("there is no slot 'bbb'")),
            ("", Err("it wasn't said which slot")),
        ] {
            match (slot_called(text, &slots), found) {
                (Ok(slot), Ok(at)) => assert_eq!(slot.id, slots[at].id, "{text}"),
                (Err(Failure::Told { lines, .. }), Err(told)) => {
                    assert!(lines[0].starts_with(told), "{lines:?}");
                }
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }
}
