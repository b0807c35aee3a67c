//! Noise as edits: what a fuzzer's bytes do to a file that was sound.
//!
//! Noise alone never proves itself under a key, so it tests little behind the first check. Edits keep most of a file
//! as it was sealed and change what an attacker or a failing disk would: bits, places, lengths. Each edit is six bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | what: modulo 8, in the order of [`apply`]'s arms |
//! | 1 | 2 | where, little-endian, modulo the file's length |
//! | 3 | 2 | where else, likewise |
//! | 5 | 1 | how much, or which |
//!
//! Leans on nothing. Refuses nothing: every input is a list of edits, the empty one among them.

/// What stays in order between two edits: the parts that move as a whole (frames, slots), by where each begins.
pub(super) type Parts = fn(&[u8]) -> Vec<usize>;

/// Applies at most sixteen edits. No file grows past four times its first length.
pub(super) fn apply(file: &mut Vec<u8>, edits: &[u8], parts: Parts) {
    let largest = file.len().saturating_mul(4);
    for edit in edits.chunks_exact(6).take(16) {
        let &[what, a, b, c, d, how] = edit else { continue };
        if file.is_empty() {
            return;
        }
        let within = |low, high| usize::from(u16::from_le_bytes([low, high])) % file.len();
        let (at, from) = (within(a, b), within(c, d));
        let mut starts = parts(file);
        starts.retain(|start| *start < file.len());
        let part = |number: usize| {
            let number = number.checked_rem(starts.len())?;
            let end = starts.get(number + 1).copied().unwrap_or(file.len());
            Some(starts[number]..end)
        };
        match what % 8 {
            0 => file[at] ^= 1 << (how % 8),
            1 => file[at] = how,
            2 => file.truncate(at),
            3 => {
                let len = usize::from(how).saturating_mul(8).min(file.len() - at.max(from));
                file.copy_within(from..from + len, at);
            }
            4 => {
                let len = usize::from(how).saturating_mul(8).min(file.len() - at);
                file[at..at + len].fill(0);
            }
            // Two parts change places.
            5 => {
                let (Some(one), Some(two)) = (part(at), part(from)) else { continue };
                let (one, two) = if one.start <= two.start { (one, two) } else { (two, one) };
                if one.end <= two.start {
                    let between = &file[one.end..two.start];
                    let swapped = [&file[two.clone()], between, &file[one.clone()]].concat();
                    file[one.start..two.end].copy_from_slice(&swapped);
                }
            }
            // A part stands twice.
            6 => {
                let (Some(place), Some(copied)) = (part(at), part(from)) else { continue };
                if file.len() + copied.len() <= largest {
                    let copied = file[copied].to_vec();
                    file.splice(place.start..place.start, copied);
                }
            }
            // Parts are gone.
            _ => {
                if let Some(gone) = part(at) {
                    file.drain(gone);
                }
            }
        }
    }
}
