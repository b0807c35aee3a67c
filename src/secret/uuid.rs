//! UUIDs as libvirt reads and makes them.
//!
//! Leans on the uuid crate for the type and its printing, on ring for chance. Refuses what libvirt refuses, which is
//! neither RFC 9562's nor the crate's own reading: leading blanks, and dashes and spaces between digit pairs, are in;
//! braces and URNs are out.

use ::uuid::{Builder, Uuid};
use ring::rand::{SecureRandom, SystemRandom};

/// Reads a UUID leniently: any white space, then 32 hex digits in pairs with any number of `-` and spaces before each
/// pair, then nothing but white space.
pub fn parse_uuid(text: &[u8]) -> Option<Uuid> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0B;
    let mut rest = text.trim_ascii_start();
    while let Some((first, tail)) = rest.split_first()
        && is_space(first)
    {
        rest = tail;
    }
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        while let [b'-' | b' ', tail @ ..] = rest {
            rest = tail;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
        rest = tail;
    }
    rest.iter().all(is_space).then_some(Uuid::from_bytes(bytes))
}

/// A new random UUID (version 4), or `None` if the system has no randomness to give.
pub fn random_uuid() -> Option<Uuid> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(Builder::from_random_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libvirt_reads() {
        let same = Uuid::from_bytes([
            0x3f, 0x6b, 0x2c, 0x1e, 0x7a, 0x54, 0x4d, 0x0b, 0x9c, 0x1d, 0x5e, 0x8f, 0x00, 0xaa, 0x12, 0x34,
        ]);
        for text in [
            "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234",
            "3F6B2C1E7A544D0B9C1D5E8F00AA1234",
            "\t\n\x0b 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 \n\t",
            "-- 3f- -6b2c1e7a54---4d0b9c1d5e8f00aa1234",
        ] {
            assert_eq!(parse_uuid(text.as_bytes()), Some(same), "{text:?}");
        }
        assert_eq!(parse_uuid(&[b'0'; 32]), Some(Uuid::nil()));
    }

    #[test]
    fn refuses_what_libvirt_refuses() {
        for text in [
            "",
            "   ",
            "3-f6b2c1e7a544d0b9c1d5e8f00aa1234",
            "3f6b\t2c1e7a544d0b9c1d5e8f00aa1234",
            "3f6b\n2c1e7a544d0b9c1d5e8f00aa1234",
            "3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234-",
            "{3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234}",
            "3f6b2c1e7a544d0b9c1d5e8f00aa123",
            "3f6b2c1e7a544d0b9c1d5e8f00aa12345",
            "gg6b2c1e7a544d0b9c1d5e8f00aa1234",
        ] {
            assert_eq!(parse_uuid(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn made_ones_are_version_4() {
        let uuid = random_uuid().unwrap();
        assert_eq!((uuid.get_version_num(), uuid.as_bytes()[8] >> 6), (4, 0b10));
    }
}
