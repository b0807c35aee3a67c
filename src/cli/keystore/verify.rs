//! `strongroom verify`: the keystore's fsck.
//!
//! Leans on the store's own check, and only words it. Refuses to call a keystore sound that it could not open: every
//! way of not having checked ends in status 1.

use serde::Serialize;

use super::key::keys;
use super::reach::{reach, root};
use super::{VerifyArguments, check_writable, daemon, json, told_lost};
use crate::administration::{Administration, Checked, Finding, RecordState, Verified};
use crate::cli::Arguments;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::client::Admin;
use crate::driver::{Driver, verify_backup};

/// Opens, checks or repairs, and tells.
pub(super) fn run(arguments: &VerifyArguments, all: &Arguments, output: &mut Output) -> Result<(), Failure> {
    if arguments.repair {
        return repair(arguments, all, output);
    }
    let checked = match &arguments.file {
        Some(file) => keys(&all.connect).and_then(|keys| Ok(verify_backup(file, &keys)?)),
        None => reach(all, &arguments.daemon).and_then(|reached| Ok(reached.keystore.verify()?)),
    };
    let verified = match checked {
        Ok(verified) => verified,
        Err(failure) => {
            if arguments.json {
                json(&Unchecked::of(&failure), output)?;
            }
            return Err(failure);
        }
    };
    let report = Report::of(&verified);
    if arguments.json {
        json(&report, output)?;
    } else {
        output.lines(&report.text(arguments.verbose))?;
    }
    match advice(&verified.findings, arguments.file.is_some()) {
        Some(advice) => Err(Failure::Told { lines: Vec::new(), hint: Some(advice.to_owned()) }),
        None => Ok(()),
    }
}

/// Repairs it where it is open; where it can't be opened, where it lies.
fn repair(arguments: &VerifyArguments, all: &Arguments, output: &mut Output) -> Result<(), Failure> {
    check_writable(&all.connect, "repairing")?;
    let repaired = match daemon::meant(&arguments.daemon, &all.connect) {
        None => {
            let (root, keys) = (root(&all.connect)?, keys(&all.connect)?);
            if !root.has_keystore()? {
                return Err(Failure::told("there is no keystore to repair").advise("mind the spelling"));
            }
            match Driver::open(root.clone(), String::new(), &keys) {
                Ok(driver) => driver.repair()?,
                Err(_) => Driver::repair_root(&root, &keys)?,
            }
        }
        Some(socket) => {
            let socket = socket?;
            match Admin::connect(&socket) {
                Ok(daemon) => daemon.repair()?,
                // A daemon doesn't start on a keystore that can't be opened.
                Err(_) if !socket.exists() && arguments.daemon.admin_socket.is_none() => {
                    Driver::repair_root(&root(&all.connect)?, &keys(&all.connect)?)?
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    if arguments.json {
        json(&repaired, output)?;
    } else {
        let lost = repaired.lost.iter().map(|lost| told_lost("lost", lost));
        let values = repaired.without_value.iter().map(|lost| told_lost("value lost", lost));
        let aside = repaired.aside.iter().map(|file| format!("kept aside: {file}"));
        // What is damaged is told by what was lost; that it was an older log too is told by nothing else.
        let older = repaired.findings.iter().filter(|finding| matches!(finding, Finding::RolledBack { .. }));
        let older = older.map(|finding| format!("problem: {finding}"));
        output.lines(&older.chain(lost).chain(values).chain(aside).collect::<Vec<_>>())?;
        if repaired.unnamed > 0 {
            output.lines(&[format!("lost without a name: at most {} records", repaired.unnamed)])?;
        }
        let (values, lost) = (repaired.without_value.len(), repaired.lost.len());
        output.lines(&[format!("secrets kept: {}, without value: {values}, lost: {lost}", repaired.kept)])?;
    }
    match repaired.lost.is_empty() && repaired.without_value.is_empty() && repaired.unnamed == 0 {
        true => Ok(()),
        false => Err(Failure::Told {
            lines: Vec::new(),
            hint: Some("what was lost may be in a backup; set lost values anew".to_owned()),
        }),
    }
}

/// What to do about the worst problem, if there is one.
fn advice(findings: &[Finding], of_backup: bool) -> Option<&'static str> {
    let worst = findings.iter().filter(|finding| finding.is_damage()).map(|finding| match finding {
        Finding::TornTail { .. } => 0,
        Finding::DefinitionDamaged { .. } | Finding::ValueDamaged { .. } => 1,
        _ => 2,
    });
    worst.max().map(|worst| match worst {
        _ if of_backup => "what is ok can be restored: strongroom restore --partial; and take another backup",
        0 => "make the last change again if it is missing: it was never confirmed",
        1 => "undefine the damaged secrets and define them again, or restore a backup elsewhere and take them from there",
        _ => {
            "what is ok can still be read; keep it, and set aside what is damaged, with: strongroom verify --repair; or put \
             a backup in its place: strongroom restore --replace"
        }
    })
}

/// What a program reads.
#[derive(Serialize)]
struct Report<'a> {
    ok: usize,
    problems: usize,
    notes: usize,
    secrets: &'a [Checked],
    findings: Vec<Told<'a>>,
}

/// A finding, with its weight and its words.
#[derive(Serialize)]
struct Told<'a> {
    problem: bool,
    text: String,
    #[serde(flatten)]
    finding: &'a Finding,
}

/// What a program reads when there was nothing to check.
#[derive(Serialize)]
struct Unchecked<'a> {
    error: String,
    hint: Option<&'a str>,
}

impl<'a> Report<'a> {
    fn of(verified: &'a Verified) -> Self {
        let told =
            |finding| Told { problem: Finding::is_damage(finding), text: finding.to_string(), finding };
        let findings: Vec<Told<'_>> = verified.findings.iter().map(told).collect();
        let problems = findings.iter().filter(|told| told.problem).count();
        let notes = findings.len() - problems;
        Self { ok: verified.sound, problems, notes, secrets: &verified.secrets, findings }
    }

    fn text(&self, verbose: bool) -> Vec<String> {
        let mut lines = Vec::new();
        if verbose {
            let sound = self.secrets.iter().filter(|secret| secret.state.is_sound());
            lines.extend(sound.map(|secret| {
                let value = if secret.state == RecordState::NoValue { " (no value)" } else { "" };
                format!("ok: secret {}{}{value}", secret.uuid, used_for(secret))
            }));
        }
        let weight = |told: &Told<'_>| if told.problem { "problem" } else { "note" };
        lines.extend(self.findings.iter().map(|told| format!("{}: {}", weight(told), told.text)));
        lines.push(format!("secrets ok: {}, problems: {}, notes: {}", self.ok, self.problems, self.notes));
        lines
    }
}

fn used_for(secret: &Checked) -> String {
    match &secret.usage {
        Some(usage) if usage.contains(' ') => format!(" {usage}"),
        _ => String::new(),
    }
}

impl<'a> Unchecked<'a> {
    fn of(failure: &'a Failure) -> Self {
        match failure {
            Failure::Told { lines, hint } => Self { error: lines.join(": "), hint: hint.as_deref() },
            Failure::Interrupted | Failure::Silent => Self { error: "interrupted".to_owned(), hint: None },
        }
    }
}
