//! Base64 as GLib's `g_base64_decode` reads it, which is how libvirt reads it: character by character.
//!
//! Leans on nothing. Refuses nothing: characters outside the alphabet are passed over, `=` counts as a digit of value 0
//! wherever it stands, every fourth digit ends a group, an incomplete last group gives nothing, and of a group's three
//! bytes only those are given that its last two characters don't cancel by being `=`.

/// What is known of the group that is being read.
#[derive(Default)]
pub(crate) struct Base64 {
    group: u32,
    digits: u32,
    last: u8,
}

impl Base64 {
    /// Takes the next character; gives the bytes of the group that it ends, if it ends one.
    pub(crate) fn take(&mut self, character: u8) -> impl Iterator<Item = u8> + use<> {
        let mut group = [None; 3];
        if let Some(digit) = digit(character) {
            let before_last = std::mem::replace(&mut self.last, character);
            self.group = self.group << 6 | u32::from(digit);
            self.digits += 1;
            if self.digits == 4 {
                let [_, first, second, third] = self.group.to_be_bytes();
                let kept = |byte, canceller| Some(byte).filter(|_| canceller != b'=');
                group = [Some(first), kept(second, before_last), kept(third, character)];
                (self.group, self.digits) = (0, 0);
            }
        }
        group.into_iter().flatten()
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    }
}
