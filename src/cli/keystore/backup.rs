//! `strongroom backup` and `strongroom restore`: the whole keystore as one sealed file, and back.
//!
//! Leans on [`Administration`](crate::Administration) for the copy and on `driver` for putting it back, which needs
//! the root for itself. Refuses to write over anything: a backup never replaces a file, a restored keystore only what
//! it is told to.

use super::key::keys;
use super::reach::{reach, root};
use super::sealed_file::{self, is_stdout};
use super::{BackupArguments, RestoreArguments, check_writable, told_lost};
use crate::administration::Finding;
use crate::cli::Arguments;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::clock;
use crate::driver::{Driver, RestoreOptions};

/// Takes a copy.
pub(super) fn backup(
    these: &BackupArguments,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let keystore = reach(arguments, &these.daemon)?.keystore;
    let status = keystore.status()?;
    let total = sealed_file::write(&these.file, |file| {
        let mut copy = keystore.backup()?;
        let total = copy.total();
        let bar = Progress::of_bytes("Copying", total, arguments.quiet);
        let mut done = 0;
        while let Some(piece) = copy.next_piece()? {
            file.put(&piece)?;
            done += piece.len() as u64;
            bar.at(done, total);
        }
        if done != total {
            return Err(Failure::told(format!("the copy broke off: {done} of {total} bytes came"))
                .advise("take it again"));
        }
        Ok(total)
    })?;
    if !is_stdout(&these.file) {
        let key = match status.key.filter(|key| key.slot.kind == "host key").map(|key| key.slot.label) {
            Some(file) if arguments.connect.key_file.is_none() => format!("--key-file '{file}' "),
            _ => String::new(),
        };
        output.extra(&format!(
            "Copied: {total} bytes, sealed; it opens with the keystore's keys of now. Check it with:\n  \
             strongroom verify {key}'{}'\n",
            these.file.display()
        ))?;
    }
    match status.findings.iter().any(Finding::is_damage) {
        false => Ok(()),
        true => Err(Failure::told(
            "the copy was taken of a damaged keystore: it holds what still opens, and nothing else",
        )
        .advise("keep the copies from before; see what is damaged with: strongroom verify")),
    }
}

/// Puts a copy in the place of a keystore.
pub(super) fn restore(
    these: &RestoreArguments,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    check_writable(&arguments.connect, "restoring")?;
    let root = root(&arguments.connect)?;
    let keys = keys(&arguments.connect)?;
    let options = RestoreOptions { replace: these.replace, older: these.older, partial: these.partial };
    let restored = Driver::restore(&root, &these.file, &keys, options)?;
    let taken = clock::date(restored.made_at);
    output.extra(&format!("Restored, as of {taken}: {} secrets\n", restored.restored))?;
    if !arguments.quiet {
        let aside = restored.aside.iter().map(|file| format!("kept aside: {file}"));
        output.lines(&aside.collect::<Vec<_>>())?;
    }
    if these.older {
        output.extra("Slots that were removed since the backup are back: strongroom key list\n")?;
    }
    let mut lost: Vec<String> = restored.lost.iter().map(|lost| told_lost("lost", lost)).collect();
    lost.extend(restored.without_value.iter().map(|lost| told_lost("value lost", lost)));
    output.lines(&lost)?;
    match lost.len() + restored.unnamed {
        0 => Ok(()),
        count => {
            Err(Failure::told(format!("not all of the backup could be restored; lost, at most: {count}"))
                .advise("define these anew, or restore them from another backup"))
        }
    }
}
