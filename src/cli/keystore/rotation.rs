//! `strongroom rotate` and `strongroom rekey`: new keys inside, below what opens the keystore.
//!
//! Leans on [`Administration`](crate::Administration). Refuses to drop a slot in passing: `rekey` keeps those whose
//! keys are there, and the others have to be named.

use std::ops::ControlFlow;

use super::key::{slot_called, slot_id};
use super::reach::{Reached, reach};
use super::status::in_full;
use super::{RekeyArguments, RotateArguments, check_writable, daemon};
use crate::administration::Rotation;
use crate::cli::Arguments;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::progress::Progress;

/// Seals every secret anew under a new key.
pub(super) fn rotate(
    these: &RotateArguments,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    check_writable(&arguments.connect, "rotating")?;
    if these.no_wait && daemon::meant(&these.daemon, &arguments.connect).is_none() {
        return Err(Failure::told("no daemon has this keystore: nobody would go on with the rotation")
            .advise("leave out --no-wait"));
    }
    let keystore = reach(arguments, &these.daemon)?.keystore;
    let mut bar = None;
    let mut last: Option<Rotation> = None;
    keystore.rotate(&mut |rotation| {
        last = Some(rotation);
        if these.no_wait {
            return ControlFlow::Break(());
        }
        let bar = bar.get_or_insert_with(|| Progress::of("Sealing anew", rotation.total, arguments.quiet));
        bar.at(rotation.done, rotation.total);
        ControlFlow::Continue(())
    })?;
    drop(bar);
    let status = keystore.status()?;
    match status.rotation {
        Some(Rotation { epoch, done, total }) => output.extra(&format!(
            "Rotation to epoch {epoch} is under way: {done} of {total} secrets; strongroom status shows how far it is\n"
        )),
        None => {
            let epoch = status.epochs.last().copied().unwrap_or_default();
            output.extra(&format!("Rotated: every secret is sealed in epoch {epoch}, and the key before it is gone\n"))
        }
    }
}

/// Replaces the root key.
pub(super) fn rekey(
    these: &RekeyArguments,
    arguments: &Arguments,
    output: &mut Output,
) -> Result<(), Failure> {
    check_writable(&arguments.connect, "replacing the root key")?;
    let Reached { keystore, given } = reach(arguments, &these.daemon)?;
    let slots = keystore.status()?.slots;
    let forget = these.forget.iter().map(|text| slot_called(text, &slots).and_then(slot_id));
    let slots = keystore.rekey(&given, &forget.collect::<Result<Vec<_>, _>>()?)?;
    output.extra("The root key is a new one. These open it:\n")?;
    let lines: Vec<String> = slots.iter().map(|slot| format!("  {}", in_full(slot))).collect();
    output.lines(&lines)?;
    output
        .extra("\nBackups and kept copies of the old keyring still open what was sealed until now; next: strongroom rotate\n")
}
