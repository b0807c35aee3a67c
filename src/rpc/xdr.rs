//! XDR (RFC 4506) with libvirt's habits: what a message body is made of.
//!
//! Reading borrows from the packet; writing goes to any [`Sink`], so that a body with a value is written into secret
//! memory by the same code. libvirt's habits, measured: pad bytes aren't looked at, a string ends at its first NUL, any
//! non-zero word makes an optional present, and bytes behind the last field are ignored. Leans on `memory` for what may be a password. Refuses
//! lengths over their bound or over what is there, before anything is allocated for them.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use secrecy::ExposeSecretMut;

use crate::memory::{Exhausted, SecretBytes};

/// Why a body can't be read: it ends early, or a length is out of bounds. Whoever sent it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message's payload can't be read")]
pub struct Malformed;

/// What can be read from a packet, borrowing from it.
pub trait Decode<'a>: Sized {
    /// Reads one; the reader then stands behind it.
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed>;
}

/// What can be written to a packet.
pub trait Encode {
    /// Writes it, padded to four bytes.
    fn encode<S: Sink>(&self, to: &mut S);
}

/// Where bytes are written.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Debug, Default, Clone, Copy)]
pub struct Count(pub usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }
}

/// What is left to read of a packet.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What hasn't been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes.
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    /// A length, not over `max`.
    fn length(&mut self, max: usize) -> Result<usize, Malformed> {
        let length = usize::try_from(u32::decode(self)?).map_err(|_| Malformed)?;
        if length <= max { Ok(length) } else { Err(Malformed) }
    }

    /// A counted byte string of at most `max` bytes, and the padding behind it.
    fn opaque(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let length = self.length(max)?;
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        Ok(bytes)
    }
}

/// Zero to three bytes up to the next multiple of four.
pub fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

fn put_opaque<S: Sink>(bytes: &[u8], to: &mut S) {
    // No body is as long as 4 GiB: a packet holds 32 MiB.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).encode(to);
    to.put(bytes);
    to.put([0; 3].get(..padding(bytes.len())).unwrap_or_default());
}

/// A string: at most 4 MiB, of any bytes but NUL. Not always UTF-8: errors echo what a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Text<'a>(pub &'a [u8]);

impl Text<'_> {
    /// The longest string, in bytes (libvirt's REMOTE_STRING_MAX).
    pub const MAX: usize = 4 << 20;

    /// As UTF-8; what isn't is replaced.
    pub fn to_text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(text.as_bytes())
    }
}

impl<'a> Decode<'a> for Text<'a> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let bytes = from.opaque(Self::MAX)?;
        Ok(Self(bytes.split(|&byte| byte == 0).next().unwrap_or_default()))
    }
}

impl Encode for Text<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        put_opaque(self.0, to);
    }
}

/// A secret's value: at most 65,536 bytes. Its bytes are the packet's; it shows none of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(pub &'a [u8]);

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Value([REDACTED])")
    }
}

impl<'a> Decode<'a> for Value<'a> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        from.opaque(crate::secret::MAX_VALUE).map(Self)
    }
}

impl Encode for Value<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        put_opaque(self.0, to);
    }
}

/// libvirt's `char data<65536>`: a counted array in which every byte has a word of its own. It may hold a password, and shows
/// none of its bytes.
#[derive(Clone, Copy)]
pub enum Chars<'a> {
    /// As they lie in a packet: the low eight bits of each word count, whatever the others are.
    Wide(&'a [u8]),
    /// To be written.
    Plain(&'a [u8]),
}

impl<'a> Chars<'a> {
    /// The most bytes.
    pub const MAX: usize = 65_536;

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Wide(words) => words.len() / WORD,
            Self::Plain(bytes) => bytes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let (bytes, step) = match self {
            Self::Wide(words) => (words.get(WORD - 1..).unwrap_or_default(), WORD),
            Self::Plain(bytes) => (bytes, 1),
        };
        bytes.iter().step_by(step).copied()
    }

    /// A copy of them, in secret memory.
    pub fn to_secret(self) -> Result<SecretBytes, Exhausted> {
        let mut copy = SecretBytes::zeroed(self.len())?;
        copy.expose_secret_mut().iter_mut().zip(self.bytes()).for_each(|(place, byte)| *place = byte);
        Ok(copy)
    }
}

impl PartialEq for Chars<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes().eq(other.bytes())
    }
}

impl std::fmt::Debug for Chars<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chars([REDACTED])")
    }
}

impl<'a> Decode<'a> for Chars<'a> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = from.length(Self::MAX)?;
        from.take(length.saturating_mul(WORD)).map(Chars::Wide)
    }
}

impl Encode for Chars<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).encode(to);
        self.bytes().for_each(|byte| to.put(&[0, 0, 0, byte]));
    }
}

/// The bytes of a word.
const WORD: usize = 4;

/// A counted byte string of at most `MAX` bytes, which are no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes<'a, const MAX: usize>(pub &'a [u8]);

impl<'a, const MAX: usize> Decode<'a> for Bytes<'a, MAX> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        from.opaque(MAX).map(Self)
    }
}

impl<const MAX: usize> Encode for Bytes<'_, MAX> {
    fn encode<S: Sink>(&self, to: &mut S) {
        put_opaque(self.0, to);
    }
}

/// A counted array of at most `MAX` elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const MAX: usize>(pub Vec<T>);

impl<'a, T: Decode<'a>, const MAX: usize> Decode<'a> for List<T, MAX> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        let length = from.length(MAX)?;
        // Every element takes four bytes at least: more than that can't be there.
        let mut list = Vec::with_capacity(length.min(from.rest.len() / 4));
        for _ in 0..length {
            list.push(T::decode(from)?);
        }
        Ok(Self(list))
    }
}

impl<T: Encode, const MAX: usize> Encode for List<T, MAX> {
    fn encode<S: Sink>(&self, to: &mut S) {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX).encode(to);
        self.0.iter().for_each(|element| element.encode(to));
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        // Any word but 0 means "present": the pure-Go client sends 01 00 00 00.
        if u32::decode(from)? == 0 { Ok(None) } else { T::decode(from).map(Some) }
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode<S: Sink>(&self, to: &mut S) {
        u32::from(self.is_some()).encode(to);
        if let Some(it) = self {
            it.encode(to);
        }
    }
}

impl Decode<'_> for () {
    fn decode(_: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(())
    }
}

impl Encode for () {
    fn encode<S: Sink>(&self, _: &mut S) {}
}

impl<'a, const N: usize> Decode<'a> for [u8; N] {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        const { assert!(N.is_multiple_of(4), "fixed byte strings here need no padding") };
        from.array()
    }
}

impl<const N: usize> Encode for [u8; N] {
    fn encode<S: Sink>(&self, to: &mut S) {
        to.put(self);
    }
}

/// Numbers are big-endian.
macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Decode<'_> for $number {
            fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(Self::from_be_bytes)
            }
        }

        impl Encode for $number {
            fn encode<S: Sink>(&self, to: &mut S) {
                to.put(&self.to_be_bytes());
            }
        }
    )*};
}

numbers!(i32 u32 i64 u64 f64);

/// A body: its fields one after the other.
macro_rules! body {
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name $(<$life>)? {
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl<'a> $crate::rpc::xdr::Decode<'a> for $name $(<$life>)? {
            fn decode(
                from: &mut $crate::rpc::xdr::Reader<'a>,
            ) -> Result<Self, $crate::rpc::xdr::Malformed> {
                Ok(Self { $($field: <$type as $crate::rpc::xdr::Decode<'a>>::decode(from)?,)* })
            }
        }

        impl $(<$life>)? $crate::rpc::xdr::Encode for $name $(<$life>)? {
            fn encode<S: $crate::rpc::xdr::Sink>(&self, to: &mut S) {
                $($crate::rpc::xdr::Encode::encode(&self.$field, to);)*
            }
        }
    };
}
pub(super) use body;

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn read<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<(T, usize), Malformed> {
        let mut reader = Reader::new(bytes);
        T::decode(&mut reader).map(|it| (it, reader.rest().len()))
    }

    fn written(it: &impl Encode) -> Vec<u8> {
        let mut bytes = Vec::new();
        it.encode(&mut bytes);
        let mut count = Count::default();
        it.encode(&mut count);
        assert_eq!(count.0, bytes.len());
        bytes
    }

    #[test]
    fn a_string_is_padded_and_ends_at_its_first_nul() {
        assert_eq!(written(&Text(b"n1")), b"\0\0\0\x02n1\0\0");
        assert_eq!(read::<Text<'_>>(b"\0\0\0\x05ab\0cdxxx").unwrap(), (Text(b"ab"), 0));
        assert_eq!(read::<Text<'_>>(b"\0\0\0\x05abc"), Err(Malformed));
        assert_eq!(
            read::<Text<'_>>(b"\0\0\0\x01a\0\0"),
            Err(Malformed),
            "padding must be there, whatever it holds"
        );
    }

    #[test]
    fn any_word_but_zero_means_present() {
        assert_eq!(read::<Option<i32>>(b"\x01\0\0\0\0\0\0\x07").unwrap(), (Some(7), 0));
        assert_eq!(read::<Option<i32>>(b"\0\0\0\0\0\0\0\x07").unwrap(), (None, 4));
        assert_eq!(written(&Some(Text(b""))), [0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_length_is_held_against_its_bound_and_against_what_is_there() {
        assert_eq!(read::<List<u32, 2>>(b"\0\0\0\x03\0\0\0\x01\0\0\0\x01\0\0\0\x01"), Err(Malformed));
        assert_eq!(read::<List<u32, 0x7fff_ffff>>(b"\x7f\xff\xff\xff\0\0\0\x01"), Err(Malformed));
        assert_eq!(read::<Value<'_>>(&[0, 1, 0, 1]), Err(Malformed));
        assert_eq!(read::<Text<'_>>(&[0xff; 8]), Err(Malformed));
    }

    #[test]
    fn every_char_has_a_word_of_which_the_low_bits_count() {
        let wire = b"\0\0\0\x03\xff\xff\xff\x80\0\0\0\x01\x12\x34\x56\x78";
        let (chars, left) = read::<Chars<'_>>(wire).unwrap();
        assert_eq!((chars, left, chars.len()), (Chars::Plain(b"\x80\x01\x78"), 0, 3));
        assert_eq!(chars.to_secret().unwrap().expose_secret(), b"\x80\x01\x78");
        assert_eq!(written(&chars), b"\0\0\0\x03\0\0\0\x80\0\0\0\x01\0\0\0\x78");
        assert_eq!(read::<Chars<'_>>(&wire[..15]), Err(Malformed));
        assert_eq!(read::<Chars<'_>>(&[0, 1, 0, 1]), Err(Malformed));
        assert_eq!(read::<Chars<'_>>(&[0; 4]).unwrap(), (Chars::Plain(b""), 0));
        let longest = [&[0, 1, 0, 0][..], &[7; 4 * Chars::MAX]].concat();
        assert_eq!(read::<Chars<'_>>(&longest).unwrap().0.len(), Chars::MAX);
        assert!(!format!("{:?}", Chars::Plain(b"hunter2")).contains("104"));
    }

    #[test]
    fn a_value_shows_nothing() {
        assert_eq!(format!("{:?}", Value(b"hunter2")), "Value([REDACTED])");
    }
}
