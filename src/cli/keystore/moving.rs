//! `strongroom import` and `strongroom export`: from libvirt's own directory, and into one.
//!
//! Leans on `transfer` for the doing; here are the table and what to do next. Refuses to write plaintext values
//! unless that is said in so many words.

use super::reach::reach;
use super::{ExportArguments, ImportArguments, check_writable};
use crate::cli::Arguments;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::progress::Progress;
use crate::transfer::{
    ExportForm, Exported, ImportOptions, Imported, LibvirtKey, Originals, Outcome, Summary, export, import,
};

/// Takes a directory's secrets in.
pub(super) fn take_in(
    these: &ImportArguments,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    if !these.dry_run {
        check_writable(&arguments.connect, "importing")?;
    }
    let key = match &these.libvirt_key {
        Some(file) => Some(LibvirtKey::read(file)?),
        None => LibvirtKey::credential()?,
    };
    let keystore = reach(arguments, &these.daemon)?.keystore;
    let status = keystore.status()?;
    let options = ImportOptions {
        dry_run: these.dry_run,
        remove_originals: these.remove_originals,
        without_encrypted: these.without_encrypted,
        without_copies: status.copies == Some(false),
        trust_key: these.trust_key,
        store: status.store.and_then(|id| id.parse().ok()),
    };
    let mut rows = Vec::new();
    let done = {
        let bar = Progress::of("Importing", 0, arguments.quiet);
        import(&these.directory, key.as_ref(), &*keystore, &options, &mut |row| {
            rows.push(cells(row, these.dry_run));
            bar.at(rows.len() as u64, rows.len() as u64);
        })
    };
    // What was done before an error is done.
    if !rows.is_empty() && (!arguments.quiet || done.is_err()) {
        output.table(["Secret", "Usage", "Result", "Originals", "Note"], &rows)?;
    }
    let summary = done?;
    output.extra(&format!("\n{}\n", counts(&summary)))?;
    remarks(&summary, these).iter().for_each(|remark| output::warn(remark));
    match (summary.is_complete(), summary.left) {
        (true, 0) => Ok(()),
        (true, left) => Err(Failure::told(format!("originals that are left: {left}")).advise(
            "every secret is in the keystore; see the table for why its originals stay, and what to do",
        )),
        (false, _) => Err(Failure::told(
            "not every secret of the directory is in the keystore as it should be",
        )
        .advise(
            "see which with: strongroom import --dry-run; import again when it is mended: what is in the keystore \
             already stays as it is",
        )),
    }
}

/// Writes a directory that libvirt reads.
pub(super) fn give_out(
    these: &ExportArguments,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let form = match (&these.encrypt_with, these.plaintext) {
        (Some(file), _) => ExportForm::Encrypted(LibvirtKey::read(file)?),
        (None, true) => ExportForm::Plaintext,
        (None, false) => {
            return Err(Failure::told("it wasn't said in which form the values shall be written").advise(
                "--encrypt-with FILE for libvirt 12.1 and later, with the 32 bytes of its key; --plaintext for every \
                 version: whoever reads the disk then has every value",
            ));
        }
    };
    let keystore = reach(arguments, &these.daemon)?.keystore;
    let total = keystore.status()?.secrets as u64;
    let (mut written, mut failed) = (0, Vec::new());
    let done = {
        let bar = Progress::of("Exporting", total, arguments.quiet);
        let mut count = 0;
        export(&*keystore, &these.libvirt, &form, &mut |secret| {
            count += 1;
            bar.at(count, total);
            match &secret.outcome {
                Ok(Exported::Written) => written += 1,
                Ok(Exported::AlreadyThere) => {}
                Err(error) => {
                    let usage = secret.usage.as_deref().unwrap_or_default();
                    failed.push(format!("{} {usage}: {error}", secret.uuid));
                }
            }
        })
    };
    output.lines(&failed)?;
    let there = done?;
    output.extra(&format!("Secrets written: {written}; in the directory now: {there}\n"))?;
    match failed.len() {
        0 => Ok(()),
        count => Err(Failure::told(format!("secrets that were not written: {count}"))
            .advise("see what is wrong with them with: strongroom verify")),
    }
}

fn cells(row: &Imported, dry_run: bool) -> [String; 5] {
    let result = match row.outcome {
        Outcome::Added if dry_run => "to be imported",
        outcome => outcome.name(),
    };
    let originals = match row.originals {
        Originals::Kept => "kept",
        Originals::Removed => "removed",
        Originals::Left => "left",
    };
    let (usage, hint) = (row.usage.clone().unwrap_or_default(), row.hint.clone().unwrap_or_default());
    [row.name.clone(), usage, result.to_owned(), originals.to_owned(), hint]
}

fn counts(summary: &Summary) -> String {
    let mut counts = vec![match summary.dry_run {
        true => format!("would be imported: {}", summary.added),
        false => format!("imported: {}", summary.added),
    }];
    for (count, what) in [
        (summary.already_there, "already there"),
        (summary.differs, "differ, and stay as the keystore has them"),
        (summary.usage_taken, "whose usage another secret has"),
        (summary.unreadable, "unreadable"),
        (summary.no_key, "encrypted, without a key"),
        (summary.ephemeral, "ephemeral"),
        (summary.refused, "refused"),
        (summary.removed, "originals removed"),
        (summary.left, "originals left"),
    ] {
        if count > 0 {
            counts.push(format!("{what}: {count}"));
        }
    }
    counts.join(", ")
}

/// What else the operator should know.
fn remarks(summary: &Summary, these: &ImportArguments) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(mode) = summary.loose_directory {
        remarks.push(format!("others could look into '{}' (mode {mode:04o})", these.directory.display()));
    }
    if let Some(one_in) = summary.key.and_then(crate::transfer::KeyTrial::one_in) {
        remarks.push(format!(
            "so few values are encrypted that a wrong key would have passed in one of {one_in} cases: look at one of them"
        ));
    }
    if summary.plain_left > 0 && !summary.dry_run {
        let what = match these.remove_originals {
            true => "the table says why they stay",
            false => "--remove-originals overwrites and removes those that are imported",
        };
        remarks.push(format!(
            "plaintext values still lie in '{}': {}; {what}",
            these.directory.display(),
            summary.plain_left
        ));
    }
    remarks
}
