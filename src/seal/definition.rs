//! A definition's bytes inside a frame: the shortest thing that holds one.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | usage type (libvirt's number) |
//! | 1 | 1 | flags: bit 0 private |
//! | 2 | 2 | zero |
//! | 4 | 4 | length of the usage id, u32 little-endian |
//! | 8 | 4 | length of the description; 0: none |
//! | 12 | … | usage id, description, both UTF-8 |
//!
//! The UUID is the frame's. Leans on `secret`. Refuses anything but exactly this: the bytes were authenticated, so
//! anything else was written by a version that is not this one.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::sync::Arc;

use ::uuid::Uuid;

use crate::secret::{Definition, Usage, UsageType};

pub(super) fn encode(definition: &Definition) -> Option<Vec<u8>> {
    let Definition { usage, description, private, .. } = definition;
    let description = description.as_deref().unwrap_or_default();
    let mut bytes = vec![usage.kind as u8, u8::from(*private), 0, 0];
    for text in [&usage.id, description] {
        bytes.extend(u32::try_from(text.len()).ok()?.to_le_bytes());
    }
    bytes.extend(usage.id.as_bytes());
    bytes.extend(description.as_bytes());
    Some(bytes)
}

pub(super) fn decode(uuid: Uuid, bytes: &[u8]) -> Option<Definition> {
    let (&[kind, flags, 0, 0], rest) = bytes.split_first_chunk()? else { return None };
    let (id_len, rest) = rest.split_first_chunk()?;
    let (description_len, rest) = rest.split_first_chunk()?;
    let (id, description) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*id_len)).ok()?)?;
    if description.len() != usize::try_from(u32::from_le_bytes(*description_len)).ok()? || flags > 1 {
        return None;
    }
    let text = |bytes| std::str::from_utf8(bytes).ok().map(Arc::<str>::from);
    Some(Definition {
        uuid,
        usage: Usage { kind: UsageType::from_number(i32::from(kind))?, id: text(id)? },
        description: if description.is_empty() { None } else { Some(text(description)?) },
        private: flags == 1,
        ephemeral: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_survives_and_its_bytes_are_frozen() {
        let definition = Definition {
            uuid: Uuid::nil(),
            usage: Usage { kind: UsageType::Ceph, id: "client.one".into() },
            description: Some("d".into()),
            private: true,
            ephemeral: false,
        };
        let bytes = encode(&definition).unwrap();
        assert_eq!(bytes, b"\x02\x01\0\0\x0a\0\0\0\x01\0\0\0client.oned");
        assert_eq!(decode(Uuid::nil(), &bytes), Some(definition));
        assert_eq!(decode(Uuid::nil(), &bytes[..bytes.len() - 1]), None);
    }
}
