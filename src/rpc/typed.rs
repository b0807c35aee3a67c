//! Typed parameters: a list of named values, each with its type beside it.
//!
//! CONNECT_SET_IDENTITY sends them, and the admin program both ways. Leans on `xdr`. Refuses names of 80 bytes and more and
//! types that don't exist; which names and types a call takes is for the call to say.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use super::xdr::{Decode, Encode, Malformed, Reader, Sink, Text};

/// The longest name, in bytes: one less than its field in libvirt's C struct.
pub const MAX_NAME: usize = 79;

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter<'a> {
    /// Its name.
    pub name: Text<'a>,
    /// Its value.
    pub value: Typed<'a>,
}

/// A value with its type. Strings may be tokens: Debug shows none.
#[derive(Clone, Copy, PartialEq)]
#[allow(missing_docs)] // the types are libvirt's own
pub enum Typed<'a> {
    Int(i32),
    UInt(u32),
    LLong(i64),
    ULLong(u64),
    Double(f64),
    Boolean(bool),
    String(Text<'a>),
}

impl Typed<'_> {
    /// Its type's name, as libvirt's errors print it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::UInt(_) => "uint",
            Self::LLong(_) => "llong",
            Self::ULLong(_) => "ullong",
            Self::Double(_) => "double",
            Self::Boolean(_) => "boolean",
            Self::String(_) => "string",
        }
    }
}

impl std::fmt::Debug for Typed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Typed::{}(..)", self.type_name())
    }
}

impl<'a> Decode<'a> for Typed<'a> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(match i32::decode(from)? {
            1 => Self::Int(i32::decode(from)?),
            2 => Self::UInt(u32::decode(from)?),
            3 => Self::LLong(i64::decode(from)?),
            4 => Self::ULLong(u64::decode(from)?),
            5 => Self::Double(f64::decode(from)?),
            6 => Self::Boolean(i32::decode(from)? != 0),
            7 => Self::String(Text::decode(from)?),
            _ => return Err(Malformed),
        })
    }
}

impl Encode for Typed<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        match self {
            Self::Int(number) => (1i32.encode(to), number.encode(to)),
            Self::UInt(number) => (2i32.encode(to), number.encode(to)),
            Self::LLong(number) => (3i32.encode(to), number.encode(to)),
            Self::ULLong(number) => (4i32.encode(to), number.encode(to)),
            Self::Double(number) => (5i32.encode(to), number.encode(to)),
            Self::Boolean(yes) => (6i32.encode(to), i32::from(*yes).encode(to)),
            Self::String(text) => (7i32.encode(to), text.encode(to)),
        };
    }
}

impl<'a> Decode<'a> for Parameter<'a> {
    fn decode(from: &mut Reader<'a>) -> Result<Self, Malformed> {
        Ok(Self { name: Text::decode(from)?, value: Typed::decode(from)? })
    }
}

impl Encode for Parameter<'_> {
    fn encode<S: Sink>(&self, to: &mut S) {
        self.name.encode(to);
        self.value.encode(to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_as_it_was_written() {
        for value in [
            Typed::Int(-1),
            Typed::UInt(u32::MAX),
            Typed::LLong(i64::MIN),
            Typed::ULLong(u64::MAX),
            Typed::Double(0.5),
            Typed::Boolean(true),
            Typed::String(Text(b"abcde")),
        ] {
            let parameter = Parameter { name: Text(b"name"), value };
            let mut bytes = Vec::new();
            parameter.encode(&mut bytes);
            assert_eq!(Parameter::decode(&mut Reader::new(&bytes)), Ok(parameter));
        }
        assert_eq!(Typed::decode(&mut Reader::new(&[0, 0, 0, 8, 0, 0, 0, 0])), Err(Malformed));
        assert_eq!(format!("{:?}", Typed::String(Text(b"token"))), "Typed::string(..)");
    }
}
