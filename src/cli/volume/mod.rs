//! `strongroom volume`: encrypted volumes with their secrets.
//!
//! Leans on the room of that name. Refuses to show a passphrase: it is written, if at all, to a descriptor that was named.

mod args;
mod keeper;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::args::{ChangeArguments, CheckArguments, CreateArguments, DeleteArguments, OrphansArguments};
use self::keeper::Keeper;
use super::args::Arguments;
use super::failure::Failure;
use super::output::{self, Output};
use super::progress::Progress;
use super::{connect, input};
use crate::memory::SecretBytes;
use crate::secret::parse_uuid;
use crate::volume::{
    self, HandOver, Named, Original, Orphan, Plan, Reading, Removal, Verdict, Volumes, parse_size,
};
pub(crate) use args::VolumeCommand;

/// Runs a command.
pub(super) fn run(
    command: &VolumeCommand,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let writes = match command {
        VolumeCommand::Create(_) => Some("making volumes"),
        VolumeCommand::ChangePassphrase(_) => Some("changing passphrases"),
        VolumeCommand::Delete(_) => Some("removing volumes"),
        VolumeCommand::Check(_) | VolumeCommand::Orphans(_) => None,
    };
    if let (Some(what), true) = (writes, arguments.connect.readonly) {
        return Err(Failure::told(format!("read only access prevents {what}")).advise("leave out -r"));
    }
    match command {
        VolumeCommand::Create(these) => create(these, arguments, output),
        VolumeCommand::Check(these) => check(these, arguments, output),
        VolumeCommand::ChangePassphrase(these) => change(these, arguments, output),
        VolumeCommand::Delete(these) => delete(these, arguments, output),
        VolumeCommand::Orphans(these) => orphans(these, arguments, output),
    }
}

fn create(these: &CreateArguments, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let plan = plan(these)?;
    let keeper = these.passphrase_to_fd.map(Keeper::at).transpose()?;
    let mut keeper = keeper.map(Keeper::apart_from_results).transpose()?;
    let connection = connect(&arguments.connect)?;
    if plan.ephemeral && keeper.is_none() && connection.uri().starts_with("secret:///embed") {
        return Err(Failure::told(
            "this keystore ends with the command, and the volume's ephemeral secret with it",
        )
        .advise(
            "keep its passphrase with --passphrase-to-fd N, or use a daemon's keystore: -c secret:///system",
        ));
    }
    let volumes = over(&connection, these.iter_time);
    let created = {
        let mut bar = None;
        let mut hand_over = keeper.as_mut().map(|keeper| |passphrase: &SecretBytes| keeper.take(passphrase));
        volumes.create(&plan, hand_over.as_mut().map(|it| it as HandOver<'_>), &mut |progress| {
            if let volume::Progress::Bytes { done, total } = progress {
                let what = if plan.copy_of.is_some() { "Copying" } else { "Allocating" };
                bar.get_or_insert_with(|| Progress::of_bytes(what, total, arguments.quiet)).at(done, total);
            }
        })?
    };
    if created.was_there {
        output::warn(
            "an earlier run had made this volume, and was cut short before it could say so; it is as that one was told",
        );
    }
    if plan.ephemeral && keeper.is_none() {
        output::warn(&format!(
            "its passphrase ends with the keystore's daemon: before that keep it, by strongroom secret-get-value --plain --elevated {}",
            created.uuid
        ));
    }
    extra_line(output, format!("Volume {} created", created.path.display()))?;
    output.extra("\n")?;
    output.text(&format!("{}\n{}", created.uuid, created.encryption()))
}

fn plan(these: &CreateArguments) -> Result<Plan, Failure> {
    let mut plan = match (&these.xml, &these.path) {
        (Some(file), None) => Plan::from_xml(&input::xml_from_file(file)?, these.directory.as_deref())?,
        (None, Some(path)) => {
            let copy_of = original(these);
            let size = match (&these.size, &copy_of) {
                (Some(size), _) => bytes(size)?,
                (None, Some(_)) => 0,
                (None, None) => {
                    return Err(Failure::told("the volume's size is missing")
                        .advise("give it with --size, such as --size 10G"));
                }
            };
            Plan { copy_of, ..Plan::new(path, these.format.into(), size) }
        }
        _ => {
            return Err(Failure::told("what shall be made is missing")
                .advise("give a path and --size, or a volume's description with --xml FILE"));
        }
    };
    if let Some(named) = &these.secret {
        plan.secret = Some(secret_called(named));
    }
    if these.passphrase_to_fd.is_some() && plan.secret.is_some() {
        return Err(Failure::told(
            "no passphrase is made for a volume that uses the value of a secret that was named",
        )
        .advise("leave out --passphrase-to-fd: the secret's value opens the volume"));
    }
    if let Some(preallocation) = these.preallocation {
        plan.preallocation = preallocation.into();
    }
    if these.ephemeral && plan.secret.is_some() {
        return Err(Failure::told("the secret that was named is as it is, ephemeral or not")
            .advise("leave out --ephemeral"));
    }
    (plan.ephemeral, plan.replace) = (these.ephemeral, these.overwrite);
    Ok(plan)
}

/// A size as it was typed. One without a unit is one of bytes, which of so few nobody means.
fn bytes(size: &str) -> Result<u64, Failure> {
    let bytes = parse_size(size).ok_or_else(|| {
        Failure::told(format!("'{size}' is no size"))
            .advise("give a number of bytes, or one with a unit: 512M, 10GiB, 2TB")
    })?;
    match bytes {
        1..FEWEST if size.bytes().all(|it| it.is_ascii_digit()) => {
            Err(Failure::told(format!("{bytes} bytes are no disk"))
                .advise(format!("give the size's unit: {size}G, {size}M")))
        }
        bytes => Ok(bytes),
    }
}

/// The smallest disk whose size may be said in bytes: a floppy's.
const FEWEST: u64 = 1_474_560;

fn original(these: &CreateArguments) -> Option<Original> {
    let reading = match these.original_format {
        Some(format) => Reading::Plain(format.into()),
        None => Reading::Encrypted(these.original_secret.as_deref().map(secret_called)),
    };
    these.copy_of.clone().map(|path| Original { path, reading })
}

fn check(these: &CheckArguments, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let volumes = over(&connect(&arguments.connect)?, None);
    let named = these.secret.as_deref().map(secret_called);
    let mut tally = Tally::new("volumes whose passphrase is in doubt");
    for path in &these.paths {
        let shown = path.display();
        match volumes.check(path, named.as_ref()) {
            Ok(checked) => {
                let (uuid, good) = (checked.uuid, checked.verdict == Verdict::Opens);
                let line = match checked.verdict {
                    Verdict::Opens => format!("ok: {shown}: secret {uuid} opens it"),
                    Verdict::DoesNot => format!("problem: {shown}: secret {uuid} doesn't open it"),
                    Verdict::NoValue => format!("problem: {shown}: secret {uuid} has no value"),
                    Verdict::Unprovable => format!(
                        "problem: {shown}: is encrypted as of old (AES), which takes every passphrase for the right one"
                    ),
                };
                if good {
                    extra_line(output, line)?;
                } else {
                    output.lines(&[line])?;
                }
                tally.count(good);
            }
            Err(error) => tally.failed(error.into(), &these.paths, path),
        }
    }
    tally.end()
}

fn change(these: &ChangeArguments, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    if these.secret.is_some() && these.paths.len() > 1 {
        return Err(Failure::told("one secret can't hold the new passphrases of several volumes")
            .advise("name one volume with --secret"));
    }
    if these.passphrase_to_fd.is_some() && these.paths.len() > 1 {
        return Err(Failure::told("the passphrases of several volumes can't be written to one descriptor")
            .advise("name one volume with --passphrase-to-fd"));
    }
    let keeper = these.passphrase_to_fd.map(Keeper::at).transpose()?;
    let mut keeper = match arguments.quiet {
        true => keeper,
        false => keeper.map(Keeper::apart_from_results).transpose()?,
    };
    let volumes = over(&connect(&arguments.connect)?, these.iter_time);
    let named = these.secret.as_deref().map(secret_called);
    let mut tally = Tally::new("volumes whose passphrase is not changed");
    let total = these.paths.len() as u64;
    let bar = Progress::of("Changing", total, arguments.quiet || total < 2);
    for (at, path) in these.paths.iter().enumerate() {
        bar.at(at as u64, total);
        let mut hand_over = keeper.as_mut().map(|keeper| |passphrase: &SecretBytes| keeper.take(passphrase));
        let hand_over = hand_over.as_mut().map(|it| it as HandOver<'_>);
        match volumes.change_passphrase(path, named.as_ref(), hand_over, &mut |_| {}) {
            Ok(changed) => {
                let how = if changed.was_begun { "changed; an earlier run had begun it" } else { "changed" };
                extra_line(
                    output,
                    format!("{}: passphrase {how}, in secret {}", path.display(), changed.uuid),
                )?;
                tally.count(true);
            }
            Err(error) => tally.failed(error.into(), &these.paths, path),
        }
    }
    drop(bar);
    if these.paths.len() > 1 {
        output.extra(&format!("\nchanged: {}, failed: {}\n", tally.good, tally.bad))?;
    }
    tally.end()
}

fn delete(these: &DeleteArguments, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let removal = Removal { unproved: these.force, gone: these.gone };
    let volumes = over(&connect(&arguments.connect)?, None);
    let mut tally = Tally::new("volumes that are not removed");
    for path in &these.paths {
        match volumes.delete(path, removal, &mut |_| {}) {
            Ok(deleted) => {
                let (shown, uuid) = (path.display(), deleted.uuid);
                extra_line(
                    output,
                    match deleted.image {
                        true => format!("{shown}: removed, with its secret {uuid}"),
                        false => format!("{shown}: its secret {uuid} is removed; there was no image"),
                    },
                )?;
                tally.count(true);
            }
            Err(error) => tally.failed(error.into(), &these.paths, path),
        }
    }
    tally.end()
}

fn orphans(these: &OrphansArguments, arguments: &Arguments, output: &mut Output) -> Result<(), Failure> {
    let volumes = over(&connect(&arguments.connect)?, None);
    let orphans = volumes.orphans(&these.directories)?;
    let rows: Vec<_> = orphans
        .iter()
        .map(|orphan| {
            let (uuid, what) = match orphan {
                Orphan::Secret { uuid, .. } => (uuid.to_string(), "secret without a volume".to_owned()),
                Orphan::Volume { .. } => (String::new(), "volume without a secret of its own".to_owned()),
                Orphan::Creation { uuid, .. } => {
                    (uuid.to_string(), "creation cut short: create again".to_owned())
                }
                Orphan::Deletion { uuid, .. } => {
                    (uuid.to_string(), "removal cut short: delete again".to_owned())
                }
                Orphan::Elsewhere { uuid, host, .. } => {
                    (uuid.to_string(), format!("of the host {host}: see there"))
                }
                Orphan::Change { uuid, .. } => {
                    (uuid.to_string(), "change cut short: change-passphrase again".to_owned())
                }
                Orphan::Unnamed { .. } => {
                    (String::new(), "left by a creation cut short: create again, or remove it".to_owned())
                }
                Orphan::Unseen { why, .. } => (String::new(), why.clone()),
            };
            [orphan.path().display().to_string(), uuid, what]
        })
        .collect();
    output.table(["Path", "Secret", "What"], &rows)
}

/// How many of several went well.
struct Tally {
    good: usize,
    bad: usize,
    /// What the bad ones have in common.
    what: &'static str,
    told: Option<Failure>,
}

impl Tally {
    fn new(what: &'static str) -> Self {
        Self { good: 0, bad: 0, what, told: None }
    }

    fn count(&mut self, good: bool) {
        if good { self.good += 1 } else { self.bad += 1 }
    }

    /// One of these failed. It is told at once, unless it is the only one: then it is the command's own failure.
    fn failed(&mut self, failure: Failure, all: &[PathBuf], path: &Path) {
        self.bad += 1;
        if all.len() == 1 {
            self.told = Some(failure);
        } else {
            output::tell(&Failure::told(path.display().to_string()).because(failure));
        }
    }

    fn end(self) -> Result<(), Failure> {
        match (self.told, self.bad) {
            (Some(failure), _) => Err(failure),
            (None, 0) => Ok(()),
            (None, bad) => Err(Failure::told(format!("{}: {bad}", self.what))),
        }
    }
}

fn over(connection: &crate::Connection, iter_time: Option<NonZeroU64>) -> Volumes {
    let volumes = Volumes::over(connection.keystore());
    match iter_time {
        Some(time) => volumes.iterating(Duration::from_millis(time.get())),
        None => volumes,
    }
}

/// A line that `-q` leaves out, and that may hold what others have named.
fn extra_line(output: &mut Output, line: String) -> Result<(), Failure> {
    if output.is_quiet() { Ok(()) } else { output.lines(&[line]) }
}

/// A UUID, or else a volume's path as a secret's usage says it.
fn secret_called(text: &str) -> Named {
    parse_uuid(text.as_bytes()).map_or_else(|| Named::Usage(text.to_owned()), Named::Uuid)
}
