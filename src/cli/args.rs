//! What may be typed: one tree for parsing, help, completions and manual pages.
//!
//! Commands and options are virsh's, ours are marked as such. Leans on clap. virsh lets an argument stand on its own
//! or be named (`secret-get-value UUID`, `secret-get-value --secret UUID`), fills the unnamed ones in order, and words
//! its complaints its own way; [`place`] and [`complaint`] do the same. Refuses abbreviated options, as virsh does.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand};

use super::check::{CHECK_HELP, CheckArguments};
use super::failure::Failure;
use super::keystore::KeystoreCommand;
use super::pki::PkiCommand;
use super::volume::VolumeCommand;
use crate::client::Meant;

/// Keep the secrets of virtualization hosts encrypted at rest, with virsh's own commands
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) connect: ConnectArguments,

    /// Say only what was asked for: no headers, no success messages, no newline after a value
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Environment:
  VIRSH_DEFAULT_CONNECT_URI  the keystore, when there is no --connect
  LIBVIRT_DEFAULT_URI        likewise, when the former is not set either; then uri_default of libvirt.conf
  STRONGROOM_KEY_FILE        the host key's file, when there is no --key-file
  NO_COLOR                   no colours in messages

Examples:
  Make a secret in a keystore of your own, set its value without a trace, and read it back:
    export VIRSH_DEFAULT_CONNECT_URI='secret:///embed?root=/srv/keystore'
    strongroom init
    strongroom secret-define cinder.xml
    strongroom secret-set-value UUID --interactive
    strongroom -q secret-get-value UUID --plain
  Let a program make the value, which then passes through a pipe only:
    openssl rand 32 | strongroom secret-set-value UUID
  See how the keystore stands, and check all of it:
    strongroom status
    strongroom verify
  Open the keystore of a daemon that didn't find its key:
    strongroom -c secret:///system unlock
  Watch what happens:
    strongroom secret-event --event lifecycle --loop --timestamp";

/// Which keystore, and how to open it.
#[derive(Debug, Args)]
pub(crate) struct ConnectArguments {
    /// The keystore's URI: secret:///embed?root=DIR, secret:///session, secret:///system, secret+ssh://HOST/system, …
    #[arg(short, long, value_name = "URI", global = true)]
    pub(crate) connect: Option<String>,

    /// Change nothing, and read no values
    #[arg(short, long, global = true)]
    pub(crate) readonly: bool,

    /// The file of the host key that opens the keystore
    #[arg(long, value_name = "FILE", global = true, help_heading = UNLOCKING)]
    pub(crate) key_file: Option<PathBuf>,

    /// Ask for the passphrase that opens the keystore
    #[arg(long, global = true, help_heading = UNLOCKING, conflicts_with = "passphrase_fd")]
    pub(crate) passphrase: bool,

    /// Read the passphrase, one line, from this open file descriptor
    #[arg(long, value_name = "N", global = true, help_heading = UNLOCKING)]
    pub(crate) passphrase_fd: Option<RawFd>,

    /// Ask for the recovery key
    #[arg(long, global = true, help_heading = UNLOCKING, conflicts_with = "recovery_key_fd")]
    pub(crate) recovery_key: bool,

    /// Read the recovery key, one line, from this open file descriptor
    #[arg(long, value_name = "N", global = true, help_heading = UNLOCKING)]
    pub(crate) recovery_key_fd: Option<RawFd>,

    /// What `connect`, or the environment, has turned out to mean.
    #[arg(skip)]
    pub(super) meant: OnceCell<Option<Meant>>,
}

const UNLOCKING: &str = "Unlocking";

/// The commands: virsh's on secrets, ours on the keystore.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Secret(SecretCommand),

    #[command(flatten)]
    Keystore(KeystoreCommand),

    /// Make encrypted volumes with their secrets; prove, change and remove them together
    #[command(subcommand)]
    Volume(VolumeCommand),

    /// Say whether the secrets that guests, pools and volumes name are there
    #[command(after_help = CHECK_HELP)]
    Check(CheckArguments),

    #[command(flatten)]
    Pki(PkiCommand),

    /// Show what there is, or how one command is used
    #[command(override_usage = "strongroom help [COMMAND]")]
    Help {
        /// The command
        command: Vec<OsString>,
    },

    /// Carry a connection that came in by ssh to this host's daemon
    #[command(name = "ssh-helper", after_help = SSH_HELPER_HELP)]
    SshHelper(SshHelperArguments),

    /// Write what packages install: completions and manual pages
    #[command(subcommand, hide = true)]
    Generate(GenerateCommand),
}

/// virsh's commands on secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Define a secret, or change its definition, from an XML file
    #[command(name = "secret-define", override_usage = "strongroom secret-define [--validate] <FILE>")]
    #[command(after_help = DEFINE_HELP)]
    Define(DefineArguments),

    /// Show a secret's definition as XML
    #[command(name = "secret-dumpxml", override_usage = "strongroom secret-dumpxml <SECRET>")]
    DumpXml(SecretArgument),

    /// Set a secret's value, from a file, a pipe or the terminal
    #[command(name = "secret-set-value", override_usage = SET_VALUE_USAGE, after_help = SET_VALUE_HELP)]
    SetValue(SetValueArguments),

    /// Show a secret's value, in base64 or as it is
    #[command(name = "secret-get-value")]
    #[command(override_usage = "strongroom secret-get-value [--plain] [--elevated] <SECRET>")]
    GetValue(GetValueArguments),

    /// Remove a secret, definition and value
    #[command(name = "secret-undefine", override_usage = "strongroom secret-undefine <SECRET>")]
    Undefine(SecretArgument),

    /// List secrets with what they are used for
    #[command(name = "secret-list")]
    List(ListArguments),

    /// Wait for events, or list the kinds there are
    #[command(name = "secret-event", override_usage = EVENT_USAGE)]
    Event(EventArguments),
}

const DEFINE_HELP: &str = "\
Example, for a Ceph client; a UUID is made up if the file names none:
  <secret ephemeral='no' private='no'>
    <description>cinder's key</description>
    <usage type='ceph'>
      <name>client.cinder secret</name>
    </usage>
  </secret>
A file that names a known UUID changes that secret; its value stays.";

const SET_VALUE_USAGE: &str = "\
strongroom secret-set-value <SECRET> --interactive
       strongroom secret-set-value <SECRET> [--file FILE] [--plain]
       strongroom secret-set-value <SECRET> --base64 STRING";

const SET_VALUE_HELP: &str = "\
Without any option the value is read from standard input as it is, if that is no terminal.
A file is taken for base64 unless --plain says otherwise. A value has 1 to 65,536 bytes.";

const EVENT_USAGE: &str = "\
strongroom secret-event [SECRET] --event NAME [--loop] [--timeout SECONDS] [--timestamp]
       strongroom secret-event --list";

#[derive(Debug, Args)]
pub(crate) struct DefineArguments {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    word: Option<OsString>,

    #[arg(long, hide = true)]
    pub(crate) file: Option<OsString>,

    /// Check the XML against the schema first
    #[arg(long)]
    pub(crate) validate: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SecretArgument {
    /// The secret's UUID
    #[arg(value_name = "SECRET")]
    word: Option<OsString>,

    #[arg(long, hide = true)]
    pub(crate) secret: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct SetValueArguments {
    /// The secret's UUID
    #[arg(value_name = "SECRET")]
    first: Option<OsString>,

    /// The value in base64; every user of this host can see it, so better use another way
    #[arg(value_name = "BASE64")]
    second: Option<OsString>,

    #[arg(long, hide = true)]
    pub(crate) secret: Option<OsString>,

    /// Read the value from this file; - is standard input
    #[arg(long)]
    pub(crate) file: Option<OsString>,

    /// The file holds the value itself, not its base64 form
    #[arg(long)]
    pub(crate) plain: bool,

    /// Ask for the value on the terminal, without showing it
    #[arg(long)]
    pub(crate) interactive: bool,

    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub(crate) base64: Option<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct GetValueArguments {
    #[command(flatten)]
    pub(crate) secret: SecretArgument,

    /// Write the value itself, not its base64 form
    #[arg(long)]
    pub(crate) plain: bool,

    /// Give a private value too; for who opens the keystore, or may read the host's system token
    #[arg(long)]
    pub(crate) elevated: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// List ephemeral secrets
    #[arg(long)]
    pub(crate) ephemeral: bool,

    /// List non-ephemeral secrets
    #[arg(long)]
    pub(crate) no_ephemeral: bool,

    /// List private secrets
    #[arg(long)]
    pub(crate) private: bool,

    /// List non-private secrets
    #[arg(long)]
    pub(crate) no_private: bool,
}

#[derive(Debug, Args)]
pub(crate) struct EventArguments {
    /// Only events of the secret with this UUID
    #[arg(value_name = "SECRET")]
    first: Option<OsString>,

    #[arg(hide = true)]
    second: Option<OsString>,

    #[arg(long, hide = true)]
    pub(crate) secret: Option<OsString>,

    /// The kind of event to wait for: lifecycle or value-changed
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<OsString>,

    /// Go on until the timeout or Ctrl-C, not just to the first event
    #[arg(long)]
    pub(crate) r#loop: bool,

    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub(crate) timeout: Option<String>,

    /// List the kinds of event
    #[arg(long)]
    pub(crate) list: bool,

    /// Show the time of each event
    #[arg(long)]
    pub(crate) timestamp: bool,
}

/// What the far side of an ssh connection is told.
#[derive(Debug, Args)]
pub(crate) struct SshHelperArguments {
    /// The daemon, as this host names it: secret:///system or secret:///session
    #[arg(value_name = "URI", required_unless_present = "version")]
    pub(crate) uri: Option<String>,

    /// Show the version
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
}

const SSH_HELPER_HELP: &str = "\
Clients run it on the far host, over ssh; nobody types it. It stands in for libvirt's virt-ssh-helper, also under that
name. It finds the daemon's socket as a client on this host would, starts a user's own daemon if need be, and carries
bytes between its standard streams and the socket until one of them ends, which it reports as a failure.";

/// What the build and the packages need.
#[derive(Debug, Subcommand)]
pub(crate) enum GenerateCommand {
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// A manual page for each command, into a directory
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// Parses what was typed. `Err` holds what to tell; `Ok(None)`: help or the version was asked for, and was given.
pub(crate) fn parse(typed: Vec<OsString>) -> Result<Option<Arguments>, Failure> {
    match Arguments::try_parse_from(&typed) {
        Ok(mut arguments) => {
            if let Command::Secret(command) = &mut arguments.command {
                command.settle()?;
            }
            Ok(Some(arguments))
        }
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            error.print().map(|()| None).map_err(|_| Failure::Silent)
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            _ = error.print();
            Err(Failure::Silent)
        }
        Err(error) => Err(complaint(&error, &typed)),
    }
}

/// Shows what `--help` shows, of a command or of all. A command that isn't there is told of as if it had been typed itself.
pub(crate) fn help(command: Vec<OsString>) -> Result<(), Failure> {
    let typed = std::iter::once("strongroom".into()).chain(command).chain(std::iter::once("--help".into()));
    parse(typed.collect()).map(drop)
}

impl SecretCommand {
    /// Gives each unnamed argument its name.
    fn settle(&mut self) -> Result<(), Failure> {
        match self {
            Self::Define(it) => place("secret-define", [it.word.take()], [("file", &mut it.file, true)]),
            Self::DumpXml(it) => it.settle("secret-dumpxml"),
            Self::GetValue(it) => it.secret.settle("secret-get-value"),
            Self::Undefine(it) => it.settle("secret-undefine"),
            Self::List(_) => Ok(()),
            Self::SetValue(it) => place(
                "secret-set-value",
                [it.first.take(), it.second.take()],
                [("secret", &mut it.secret, true), ("base64", &mut it.base64, false)],
            ),
            Self::Event(it) => place(
                "secret-event",
                [it.first.take(), it.second.take()],
                [("secret", &mut it.secret, false), ("event", &mut it.event, false)],
            ),
        }
    }
}

impl SecretArgument {
    fn settle(&mut self, command: &str) -> Result<(), Failure> {
        place(command, [self.word.take()], [("secret", &mut self.secret, true)])
    }
}

/// Puts unnamed words into the options that weren't named, in order, as virsh does; then misses what is required.
fn place<const N: usize>(
    command: &str,
    words: [Option<OsString>; N],
    mut options: [(&str, &mut Option<OsString>, bool); N],
) -> Result<(), Failure> {
    for word in words.into_iter().flatten() {
        match options.iter_mut().find(|(_, option, _)| option.is_none()) {
            Some((_, option, _)) => **option = Some(word),
            None => {
                return Err(
                    Failure::told(format!("unexpected data '{}'", word.display())).advise(try_help(command))
                );
            }
        }
    }
    match options.iter().find(|(_, option, required)| *required && option.is_none()) {
        Some((name, ..)) => {
            Err(Failure::told(format!("command '{command}' requires <{name}> option"))
                .advise(try_help(command)))
        }
        None => Ok(()),
    }
}

fn try_help(command: &str) -> String {
    format!("try 'strongroom {command} --help'")
}

/// virsh's words for what clap found wrong, with clap's guess at what was meant as the advice.
fn complaint(error: &clap::Error, typed: &[OsString]) -> Failure {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.last().cloned(), // suggestions: the best comes last
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let name = argument.split([' ', '=']).next().unwrap_or_default();
    let tree = Arguments::command();
    let before = typed.iter().skip(1).take_while(|word| name.is_empty() || *word != name);
    let (mut node, mut names) = (&tree, Vec::new());
    for word in before {
        if let Some(command) = node.find_subcommand(word) {
            node = command;
            names.push(command.get_name());
        }
    }
    let command = Some(names.join(" ")).filter(|command| !command.is_empty());
    let command = command.as_deref();
    let line = match (error.kind(), command) {
        (ErrorKind::InvalidSubcommand, _) => {
            format!("unknown command: '{}'", context(ContextKind::InvalidSubcommand).unwrap_or_default())
        }
        (ErrorKind::UnknownArgument, Some(command)) if name.starts_with('-') => {
            format!("command '{command}' doesn't support option {name}")
        }
        (ErrorKind::UnknownArgument, None) => format!("unsupported option '{name}'. See --help."),
        (ErrorKind::UnknownArgument, Some(_)) => format!("unexpected data '{argument}'"),
        (ErrorKind::MissingRequiredArgument, Some(command)) => {
            format!("command '{command}' requires {argument}")
        }
        (ErrorKind::TooManyValues, _) => format!("invalid '=' after option {name}"),
        (ErrorKind::ArgumentConflict, _) => match context(ContextKind::PriorArg) {
            Some(prior) if prior != argument => {
                let prior = prior.split(' ').next().unwrap_or_default();
                format!("Options {name} and {prior} are mutually exclusive")
            }
            _ => format!("option {name} already seen"),
        },
        (ErrorKind::InvalidValue, None)
            if name == "--connect" && context(ContextKind::InvalidValue).is_none_or(|it| it.is_empty()) =>
        {
            "option '-c'/'--connect' requires an argument".to_owned()
        }
        (ErrorKind::InvalidValue, _) if context(ContextKind::InvalidValue).is_none_or(|it| it.is_empty()) => {
            format!("expected syntax: {name} <{}>", if name == "--timeout" { "number" } else { "string" })
        }
        _ => first_line(error),
    };
    let meant = context(ContextKind::SuggestedSubcommand).or_else(|| context(ContextKind::SuggestedArg));
    Failure::told(line).advise(match (meant, command) {
        (Some(meant), _) => format!("did you mean '{meant}'?"),
        (None, Some(command)) => try_help(command),
        (None, None) => "try 'strongroom --help'".to_owned(),
    })
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(words: &str) -> String {
        let typed = words.split(' ').map(OsString::from).collect();
        match parse(typed) {
            Err(Failure::Told { lines, .. }) => lines.join("\n"),
            other => panic!("{words}: {other:?}"),
        }
    }

    fn accepted(words: &str) -> SecretCommand {
        match parse(words.split(' ').map(OsString::from).collect()) {
            Ok(Some(Arguments { command: Command::Secret(command), .. })) => command,
            other => panic!("{words}: {other:?}"),
        }
    }

    #[test]
    fn the_tree_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_slip_of_the_finger_is_understood() {
        let typed = ["strongroom", "secret-lst"].map(OsString::from).to_vec();
        let Err(Failure::Told { hint, .. }) = parse(typed) else { panic!("accepted") };
        assert_eq!(hint.as_deref(), Some("did you mean 'secret-list'?"));
    }

    #[test]
    fn complaints_are_virshs() {
        for (typed, told) in [
            ("strongroom nosuch", "unknown command: 'nosuch'"),
            ("strongroom -c", "option '-c'/'--connect' requires an argument"),
            ("strongroom secret-lis", "unknown command: 'secret-lis'"),
            ("strongroom --nope secret-list", "unsupported option '--nope'. See --help."),
            ("strongroom secret-list --nope", "command 'secret-list' doesn't support option --nope"),
            (
                "strongroom secret-define --validat x",
                "command 'secret-define' doesn't support option --validat",
            ),
            ("strongroom secret-define --validate --validate x", "option --validate already seen"),
            ("strongroom secret-get-value", "command 'secret-get-value' requires <secret> option"),
            ("strongroom secret-get-value --secret", "expected syntax: --secret <string>"),
            ("strongroom secret-event --event lifecycle --timeout", "expected syntax: --timeout <number>"),
            ("strongroom secret-get-value a b c", "unexpected data 'b'"),
            ("strongroom secret-get-value --secret a b", "unexpected data 'b'"),
            ("strongroom secret-get-value --plain=1 a", "invalid '=' after option --plain"),
            ("strongroom secret-define", "command 'secret-define' requires <file> option"),
        ] {
            assert_eq!(refused(typed), told, "{typed}");
        }
    }

    #[test]
    fn an_argument_may_be_named() {
        for typed in [
            "strongroom secret-set-value u v",
            "strongroom secret-set-value --secret u v",
            "strongroom secret-set-value --base64=v u",
            "strongroom secret-set-value v --secret=u",
        ] {
            let SecretCommand::SetValue(it) = accepted(typed) else { panic!("{typed}") };
            assert_eq!((it.secret, it.base64), (Some("u".into()), Some("v".into())), "{typed}");
        }
    }
}
