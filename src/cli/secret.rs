//! virsh's commands on secrets: what they do, what they say, and in which order they check.
//!
//! Speaks to the keystore through the library's face only, as any program would. Leans on `input` and `prompt` for
//! values, on `output` for all that is shown. Refuses to hold a value outside secret memory; the one exception is
//! virsh's own, a value typed on the command line, of which this file wipes its copy and warns.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use ::uuid::Uuid;
use zeroize::Zeroize;

use super::args::{
    DefineArguments, EventArguments, GetValueArguments, ListArguments, SecretCommand, SetValueArguments,
};
use super::failure::Failure;
use super::output::{Output, warn};
use super::{input, prompt};
use crate::clock;
use crate::memory::SecretBytes;
use crate::secret::{DefineFlags, Error, Event, EventKind, Lifecycle, ListFlags, MAX_VALUE, UsageType};
use crate::{Connection, Secret};

/// Runs a command against an open keystore.
pub(super) fn run(
    command: SecretCommand,
    connection: &Connection,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        SecretCommand::Define(arguments) => define(&arguments, connection, output),
        SecretCommand::DumpXml(arguments) => {
            let (secret, _) = look_up(connection, arguments.secret.as_ref())?;
            output.text(&secret.xml_desc()?)
        }
        SecretCommand::SetValue(arguments) => set_value(arguments, connection, output),
        SecretCommand::GetValue(arguments) => show_value(&arguments, connection, output),
        SecretCommand::Undefine(arguments) => {
            let (secret, typed) = look_up(connection, arguments.secret.as_ref())?;
            secret
                .undefine()
                .map_err(|error| Failure::told(format!("Failed to delete secret {typed}")).because(error))?;
            output.extra(&format!("Secret {typed} deleted\n"))
        }
        SecretCommand::List(arguments) => list(&arguments, connection, output),
        SecretCommand::Event(arguments) => watch(&arguments, connection, output),
    }
}

fn define(arguments: &DefineArguments, connection: &Connection, output: &mut Output) -> Result<(), Failure> {
    let file = given("file", arguments.file.as_ref())?.cloned().unwrap_or_default();
    let flags = if arguments.validate { DefineFlags::VALIDATE } else { 0 };
    let xml = input::xml_from_file(&file)?;
    let secret = connection.define_xml(&xml, flags).map_err(|error| {
        Failure::told(format!("Failed to set attributes from {}", file.display())).because(error)
    })?;
    warn_if_locked(connection);
    output.extra(&format!("Secret {} created\n", secret.uuid_string()))
}

fn set_value(
    mut arguments: SetValueArguments,
    connection: &Connection,
    output: &mut Output,
) -> Result<(), Failure> {
    let (file, base64) = (arguments.file.is_some(), arguments.base64.is_some());
    let (plain, interactive) = (arguments.plain, arguments.interactive);
    for (one, other, both) in [
        ("file", "base64", file && base64),
        ("plain", "base64", plain && base64),
        ("interactive", "base64", interactive && base64),
        ("interactive", "plain", interactive && plain),
        ("interactive", "file", interactive && file),
    ] {
        if both {
            return Err(Failure::told(format!("Options --{one} and --{other} are mutually exclusive")));
        }
    }
    let (secret, _) = look_up(connection, arguments.secret.as_ref())?;
    given("base64", arguments.base64.as_ref())?;
    let value = if let Some(text) = arguments.base64.take() {
        warn("Passing secret value as command-line argument is insecure!");
        typed_openly(text)?
    } else if let Some(file) = given("file", arguments.file.as_ref())? {
        input::value_from_file(file, plain)?
    } else if interactive {
        asked_for(output)?
    } else {
        piped_in()?
    };
    secret
        .set_secret_value(value)
        .map_err(|error| Failure::told("Failed to set secret value").because(error))?;
    output.extra("Secret value set\n")
}

/// A value from the command line, where the whole host could see it, and of which this process has further copies: wiping
/// the one at hand is manners, not protection.
fn typed_openly(text: OsString) -> Result<SecretBytes, Failure> {
    let mut text = text.into_encoded_bytes();
    let kept = SecretBytes::copy_of(&text);
    text.zeroize();
    input::from_base64(kept.map_err(Error::from)?)
}

/// A value typed at a prompt; without a terminal a line of standard input, as the C library's getpass has it.
fn asked_for(output: &mut Output) -> Result<SecretBytes, Failure> {
    const QUESTION: &str = "Enter new value for secret:";
    match prompt::prompt(QUESTION)? {
        Some(value) => Ok(value),
        None => {
            output.text(QUESTION)?;
            input::line_from_stdin(MAX_VALUE)
        }
    }
}

/// Ours: a value from a pipe, when no option says where it is.
fn piped_in() -> Result<SecretBytes, Failure> {
    let missing = || {
        Failure::told("Input secret value is missing")
            .advise("give --interactive, --file FILE, or the value itself on standard input")
    };
    if io::stdin().is_terminal() {
        return Err(missing());
    }
    let value = input::value_from_stdin()?;
    if value.is_empty() { Err(missing()) } else { Ok(value) }
}

fn show_value(
    arguments: &GetValueArguments,
    connection: &Connection,
    output: &mut Output,
) -> Result<(), Failure> {
    let elevated = arguments.elevated.then(|| connection.elevated()).transpose()?;
    let connection = elevated.as_ref().unwrap_or(connection);
    let (secret, _) = look_up(connection, arguments.secret.secret.as_ref())?;
    let value = secret.value()?;
    if arguments.plain { output.value(&value) } else { output.value(&input::to_base64(&value)?) }
}

fn list(arguments: &ListArguments, connection: &Connection, output: &mut Output) -> Result<(), Failure> {
    let flags = [
        (arguments.ephemeral, ListFlags::EPHEMERAL),
        (arguments.no_ephemeral, ListFlags::NO_EPHEMERAL),
        (arguments.private, ListFlags::PRIVATE),
        (arguments.no_private, ListFlags::NO_PRIVATE),
    ];
    let flags = flags.iter().filter(|(wanted, _)| *wanted).fold(0, |flags, (_, flag)| flags | flag);
    let mut secrets = connection
        .list_all(flags)
        .map_err(|error| Failure::told("Failed to list node secrets").because(error))?;
    warn_if_locked(connection);
    secrets.sort_by_key(Secret::uuid);
    let rows: Vec<_> = secrets.iter().map(|secret| [secret.uuid_string(), usage(secret)]).collect();
    output.table(["UUID", "Usage"], &rows)
}

/// What a locked keystore lists comes from the `.xml` copies: whoever reads it must know.
fn warn_if_locked(connection: &Connection) {
    if let Some(why) = connection.locked() {
        warn(&format!("{}; what is shown is not proved", why.detail()));
    }
}

fn usage(secret: &Secret) -> String {
    match secret.usage_type() {
        UsageType::None => "Unused".to_owned(),
        kind => format!("{} {}", kind.name(), secret.usage_id()),
    }
}

fn watch(arguments: &EventArguments, connection: &Connection, output: &mut Output) -> Result<(), Failure> {
    if arguments.list {
        return KINDS.iter().try_for_each(|(name, _)| output.text(&format!("{name}\n")));
    }
    let Some(name) = given("event", arguments.event.as_ref())? else {
        return Err(Failure::told("either --list or --event <type> is required"));
    };
    let Some((_, kind)) = KINDS.iter().find(|(known, _)| name == known) else {
        return Err(Failure::told(format!("unknown event type {}", name.display())));
    };
    let end = arguments.timeout.as_deref().map(seconds).transpose()?.map(|time| Instant::now() + time);
    let only = match &arguments.secret {
        Some(_) => Some(look_up(connection, arguments.secret.as_ref())?.0.uuid()),
        None => None,
    };
    let received = wait(arguments, (*kind, only, end), connection, output)?;
    output.text(&format!("events received: {received}\n"))?;
    if received == 0 { Err(Failure::Silent) } else { Ok(()) }
}

const KINDS: [(&str, EventKind); 2] =
    [("lifecycle", EventKind::Lifecycle), ("value-changed", EventKind::ValueChanged)];

/// Shows events as they come, until there are enough, time is up, or Ctrl-C. Returns how many.
fn wait(
    arguments: &EventArguments,
    (kind, only, end): (EventKind, Option<Uuid>, Option<Instant>),
    connection: &Connection,
    output: &mut Output,
) -> Result<u64, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))
        .map_err(|error| Failure::system("cannot wait for Ctrl-C", &error))?;
    let events = connection.events(kind, only)?;
    let mut received = 0;
    loop {
        let left = end.map_or(GLANCE, |end| end.saturating_duration_since(Instant::now()));
        if let Some(event) = events.next_within(left.min(GLANCE)) {
            received += 1;
            output.text(&told(&event, arguments.timestamp.then(SystemTime::now)))?;
            if !arguments.r#loop {
                return Ok(received);
            }
        } else if events.ended() {
            // Any call tells why.
            connection.num_of_secrets()?;
            return Ok(received);
        } else if interrupted.load(Ordering::Relaxed) {
            output.text("event loop interrupted\n")?;
            return Ok(received);
        } else if left.is_zero() {
            output.text("event loop timed out\n")?;
            return Ok(received);
        }
    }
}

/// How often to look whether Ctrl-C was pressed.
const GLANCE: Duration = Duration::from_millis(50);

fn told(event: &Event, at: Option<SystemTime>) -> String {
    let at = at.map(|time| format!("{}: ", clock::timestamp(time))).unwrap_or_default();
    let uuid = event.secret().uuid;
    match event {
        Event::Lifecycle(_, what) => {
            let what = match what {
                Lifecycle::Defined => "Defined",
                Lifecycle::Undefined => "Undefined",
            };
            format!("{at}event 'lifecycle' for secret {uuid}: {what}\n")
        }
        Event::ValueChanged(_) => format!("{at}event 'value-changed' for secret {uuid}\n"),
    }
}

/// A timeout, in virsh's range: at least a second, and its milliseconds fit a C int.
fn seconds(typed: &str) -> Result<Duration, Failure> {
    match typed.parse() {
        Ok(seconds @ 1..=2_147_483) => Ok(Duration::from_secs(seconds)),
        _ => Err(Failure::told(format!(
            "Numeric value '{typed}' for <timeout> option is malformed or out of range"
        ))),
    }
}

/// The secret that was typed, and how it was typed.
fn look_up(connection: &Connection, typed: Option<&OsString>) -> Result<(Secret, String), Failure> {
    let typed = given("secret", typed)?.map(|typed| typed.display().to_string()).unwrap_or_default();
    match connection.lookup_by_uuid_string(&typed) {
        Ok(secret) => Ok((secret, typed)),
        Err(error) => Err(Failure::told(format!("failed to get secret '{typed}'")).because(error)),
    }
}

/// An option's argument, which virsh won't have empty.
fn given<'a>(name: &str, argument: Option<&'a OsString>) -> Result<Option<&'a OsString>, Failure> {
    match argument {
        Some(argument) if argument.is_empty() => {
            Err(Failure::told(format!("Failed to get option '{name}': Option argument is empty")))
        }
        argument => Ok(argument),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::super::args::{self, Command};
    use super::*;
    use crate::secret::{Handle, Usage};

    const FIRST: Uuid = ::uuid::uuid!("11111111-1111-4111-8111-111111111111");
    const SECOND: Uuid = ::uuid::uuid!("22222222-2222-4222-8222-222222222222");

    /// A keystore with two secrets, and the folder that it lasts as long as.
    fn keystore() -> (tempfile::TempDir, Connection) {
        let root = tempfile::tempdir().unwrap();
        let shown = root.path().display();
        let connection =
            Connection::open(&format!("secret:///embed?root={shown}/root&key={shown}/host.key")).unwrap();
        let usage = "<usage type='ceph'><name>one</name></usage>";
        for (uuid, usage) in [(SECOND, ""), (FIRST, usage)] {
            connection.define_xml(format!("<secret><uuid>{uuid}</uuid>{usage}</secret>"), 0).unwrap();
        }
        (root, connection)
    }

    /// What a command line writes to standard output, or how it fails.
    fn ran(connection: &Connection, line: &str) -> Result<String, Failure> {
        let typed = format!("strongroom {line}").split(' ').map(OsString::from).collect();
        let arguments = args::parse(typed)?.unwrap();
        let Command::Secret(command) = arguments.command else { panic!("{line}") };
        let written = Rc::new(RefCell::new(Vec::new()));
        run(command, connection, &mut Output::into(arguments.quiet, &written))?;
        Ok(String::from_utf8(written.take()).unwrap())
    }

    fn lines(failure: Failure) -> Vec<String> {
        match failure {
            Failure::Told { lines, .. } => lines,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_value_is_set_and_shown() {
        let ((_root, connection), uuid) = (keystore(), FIRST);
        assert_eq!(
            lines(ran(&connection, &format!("secret-get-value {uuid}")).unwrap_err()),
            [format!("Secret not found: secret '{uuid}' does not have a value")]
        );
        assert_eq!(
            ran(&connection, &format!("secret-set-value {uuid} aGVsbG8=")).unwrap(),
            "Secret value set\n"
        );
        assert_eq!(ran(&connection, &format!("secret-get-value {uuid}")).unwrap(), "aGVsbG8=");
        assert_eq!(ran(&connection, &format!("secret-get-value --plain --secret {uuid}")).unwrap(), "hello");
        assert_eq!(ran(&connection, &format!("-q secret-set-value {uuid} aGVs")).unwrap(), "");
    }

    #[test]
    fn the_list_is_sorted() {
        let table = ran(&keystore().1, "-q secret-list").unwrap();
        assert_eq!(table, format!(" {FIRST}   ceph one\n {SECOND}   Unused\n"));
    }

    #[test]
    fn checks_come_in_virshs_order() {
        let (_root, connection) = keystore();
        for (line, told) in [
            ("secret-set-value nope v --file x", vec!["Options --file and --base64 are mutually exclusive"]),
            (
                "secret-set-value nope --interactive --plain",
                vec!["Options --interactive and --plain are mutually exclusive"],
            ),
            (
                "secret-set-value nope --file /nope",
                vec![
                    "failed to get secret 'nope'",
                    "uuidstr in virSecretLookupByUUIDString must be a valid UUID",
                ],
            ),
            ("secret-event", vec!["either --list or --event <type> is required"]),
            ("secret-event --event x --timeout 0", vec!["unknown event type x"]),
            (
                "secret-event --event lifecycle --timeout 0 --secret nope",
                vec!["Numeric value '0' for <timeout> option is malformed or out of range"],
            ),
            ("secret-define /nope", vec!["Failed to open file '/nope': No such file or directory"]),
        ] {
            assert_eq!(lines(ran(&connection, line).unwrap_err()), told, "{line}");
        }
    }

    #[test]
    fn the_kinds_of_event_are_listed() {
        assert_eq!(ran(&keystore().1, "secret-event --list").unwrap(), "lifecycle\nvalue-changed\n");
    }

    #[test]
    fn events_are_told_as_virsh_tells_them() {
        let handle = Handle { uuid: FIRST, usage: Usage::none() };
        let (defined, changed) =
            (Event::Lifecycle(handle.clone(), Lifecycle::Defined), Event::ValueChanged(handle));
        let uuid = FIRST;
        assert_eq!(told(&defined, None), format!("event 'lifecycle' for secret {uuid}: Defined\n"));
        let at = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_303_468_106));
        let expected = format!("2026-11-21 23:24:28.106+0000: event 'value-changed' for secret {uuid}\n");
        assert_eq!(told(&changed, at), expected);
    }
}
