//! `strongroom status`: how a keystore stands, on one sheet.
//!
//! Leans on [`Status`], which is also what `--json` writes. Refuses to show a keystore as safer than it is: what its
//! key does not protect against stands beside what it does.

use super::{ShowArguments, json};
use crate::administration::{KeyStatus, SlotStatus, Status};
use crate::cli::failure::Failure;
use crate::cli::output::{Field, Output, Tone};
use crate::clock;

/// Shows it.
pub(super) fn run(arguments: &ShowArguments, status: &Status, output: &mut Output) -> Result<(), Failure> {
    if arguments.json { json(status, output) } else { output.fields(&sheet(status)) }
}

fn sheet(status: &Status) -> Vec<Field> {
    let mut sheet =
        vec![Field::of("Keystore", &status.uri), Field::of("Directory", &status.directory), standing(status)];
    sheet.extend(status.advice.as_ref().map(|advice| Field::of("To do", advice)));
    sheet.extend(list(
        "Findings",
        status.findings.iter().map(|finding| Field {
            tone: if finding.is_damage() { Tone::Bad } else { Tone::Doubtful },
            ..Field::of("", finding)
        }),
    ));
    let kept = if status.locked.is_some() { "with an .xml copy" } else { "persistent" };
    sheet.push(Field::of("Secrets", format!("{} {kept}, {} ephemeral", status.secrets, status.ephemeral)));
    if let Some(key) = &status.key {
        sheet.push(Field::of("Opened with", words(&key.slot)));
        sheet.extend(worth(key));
    }
    let slots = status.slots.iter().map(|slot| Field::of("", in_full(slot)));
    sheet.extend(list("Slots", slots));
    sheet.extend(status.copies.map(|kept| Field::of("XML copies", if kept { "kept" } else { "not kept" })));
    sheet.extend(status.log.as_ref().map(|log| {
        let percent = (log.in_use * 100).checked_div(log.bytes).unwrap_or(0);
        let (bytes, in_use) = (grouped(log.bytes), grouped(log.in_use));
        Field::of("Log", format!("{bytes} bytes, {in_use} of them in use ({percent} %)"))
    }));
    sheet.extend(status.generation.map(|generation| Field::of("Generation", generation)));
    sheet.extend(status.store.as_ref().map(|store| Field::of("Store", store)));
    sheet.extend(epochs(status));
    sheet.push(Field::of("Memory", &status.memory.protection));
    sheet.extend(list(
        "Rollback",
        status.rollback.split_inclusive("; ").map(|part| Field::of("", part.trim_end())),
    ));
    sheet
}

fn standing(status: &Status) -> Field {
    let (content, tone) = match (&status.locked, &status.read_only) {
        (Some(why), _) => (why.replacen("the keystore is locked", "locked", 1), Tone::Bad),
        (None, Some(why)) => (format!("open, but takes no changes: {why}"), Tone::Doubtful),
        (None, None) => ("open".to_owned(), Tone::Good),
    };
    Field { tone, ..Field::of("State", content) }
}

/// The epoch in force, how long and for how much it is; and whether it is time for another.
fn epochs(status: &Status) -> Vec<Field> {
    let Some((current, older)) = status.epochs.split_last() else { return Vec::new() };
    let mut content = format!("{current} in force");
    if let Some(began) = status.epoch_began {
        content.push_str(&format!(" since {}", clock::date(began)));
    }
    if let Some(writes) = status.epoch_writes {
        content.push_str(&format!(", writes: {}", grouped(writes)));
    }
    if !older.is_empty() {
        let older: Vec<String> = older.iter().map(u32::to_string).collect();
        content.push_str(&format!("; still there: {}", older.join(", ")));
    }
    let mut fields = vec![Field::of("Epochs", content)];
    let doubtful = |name, content: String| Field { tone: Tone::Doubtful, ..Field::of(name, content) };
    fields.extend(status.rotation.map(|rotation| {
        let (done, total) = (grouped(rotation.done), grouped(rotation.total));
        let how = "under way; if nobody goes on with it: strongroom rotate";
        let how = status.rotation_stopped.as_deref().unwrap_or(how);
        doubtful("Rotation", format!("{done} of {total} secrets are in epoch {}: {how}", rotation.epoch))
    }));
    fields.extend(status.rotation_due.as_ref().map(|due| doubtful("Rotation", format!("due: {due}"))));
    fields
}

/// What a key is worth: the lines that `init` and `status` share.
pub(super) fn worth(key: &KeyStatus) -> Vec<Field> {
    let mut fields =
        vec![Field::of("  protects from", &key.protects), Field::of("  but not from", &key.does_not)];
    fields.extend(
        key.advice.as_ref().map(|advice| Field { tone: Tone::Doubtful, ..Field::of("  better", advice) }),
    );
    fields
}

/// What a slot is called: its kind, and its label if it has one.
pub(super) fn words(slot: &SlotStatus) -> String {
    if slot.label.is_empty() { slot.kind.to_string() } else { format!("{} '{}'", slot.kind, slot.label) }
}

/// A slot with all that can be said of it.
pub(super) fn in_full(slot: &SlotStatus) -> String {
    let cost = slot.argon2id.as_ref().map(|cost| {
        let mib = cost.memory_kib / 1024;
        format!(", Argon2id {mib} MiB, passes: {}, lanes: {}", cost.passes, cost.lanes)
    });
    let (words, date, cost) = (words(slot), clock::date(slot.made_at), cost.unwrap_or_default());
    format!("{words}, made {date}{cost}, id {}", slot.id)
}

/// The name stands at the first entry only.
fn list(name: &'static str, entries: impl Iterator<Item = Field>) -> impl Iterator<Item = Field> {
    entries.enumerate().map(move |(at, entry)| if at == 0 { Field { name, ..entry } } else { entry })
}

/// 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
