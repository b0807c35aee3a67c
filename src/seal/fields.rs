//! Reading a table of fields: one after the other, little-endian.
//!
//! Leans on nothing. Refuses to read past the end: there are zeros, or `None` where the caller can't know the length.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

/// What is left of a table.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes, if there are so many.
    pub(super) fn try_take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    /// The next `N` bytes, of a table that is long enough.
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        self.try_take().unwrap_or([0; N])
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}
