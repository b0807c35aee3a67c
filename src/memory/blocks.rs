//! Which part of the arena is free: a buddy allocator's bookkeeping, and nothing of the arena's bytes.
//!
//! Leans on nothing. The books stand in ordinary memory, so that no pointer or length lies among secrets. Blocks
//! are powers of two from 64 bytes up, aligned to their size; freeing joins a block with its free buddy.

use std::collections::BTreeSet;

/// The smallest block, and so the least alignment.
pub(super) const SMALLEST: usize = 64;

/// The free blocks of an arena, by order: order `n` is a block of `SMALLEST << n` bytes.
pub(super) struct Blocks {
    free: Vec<BTreeSet<usize>>,
    used: usize,
}

impl Blocks {
    /// Books for `size` bytes, all free. `size` is a power of two, or 0.
    pub(super) fn new(size: usize) -> Self {
        let mut free = Vec::new();
        if size >= SMALLEST {
            free.resize(order_of(size) + 1, BTreeSet::new());
            free[order_of(size)].insert(0);
        }
        Self { free, used: 0 }
    }

    /// The offset of a free block of `order`, now taken; the lowest there is. `None` when there is none.
    pub(super) fn take(&mut self, order: usize) -> Option<usize> {
        let found = (order..self.free.len()).find(|&larger| !self.free[larger].is_empty())?;
        let offset = self.free[found].pop_first()?;
        for half in (order..found).rev() {
            self.free[half].insert(offset + (SMALLEST << half));
        }
        self.used += SMALLEST << order;
        Some(offset)
    }

    /// Takes back a block that [`take`](Self::take) gave.
    pub(super) fn give_back(&mut self, mut offset: usize, mut order: usize) {
        self.used -= SMALLEST << order;
        while order + 1 < self.free.len() && self.free[order].remove(&(offset ^ (SMALLEST << order))) {
            offset &= !(SMALLEST << order);
            order += 1;
        }
        self.free[order].insert(offset);
    }

    /// Bytes in blocks taken.
    pub(super) fn used(&self) -> usize {
        self.used
    }
}

/// The order of the smallest block that holds `len` bytes.
pub(super) fn order_of(len: usize) -> usize {
    let blocks = len.max(1).div_ceil(SMALLEST);
    (usize::BITS - (blocks - 1).leading_zeros()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_are_the_next_power_of_two() {
        assert_eq!([0, 1, 64, 65, 128, 129, 65_536].map(order_of), [0, 0, 0, 1, 1, 2, 10]);
    }

    proptest! {
        // Miri takes a minute for what otherwise takes a hundredth of a second.
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 2 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]
        #[test]
        fn blocks_never_overlap_and_all_come_back(lens in prop::collection::vec(0_usize..9_000, 1..200), seed: u64) {
            let mut books = Blocks::new(1 << 18);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (step, len) in lens.into_iter().enumerate() {
                if (seed >> (step % 64)) & 1 == 1 && !taken.is_empty() {
                    let (offset, order) = taken.swap_remove(step % taken.len());
                    books.give_back(offset, order);
                }
                let order = order_of(len);
                let Some(offset) = books.take(order) else { continue };
                let end = offset + (SMALLEST << order);
                prop_assert!(end <= 1 << 18 && offset % (SMALLEST << order) == 0);
                prop_assert!(taken.iter().all(|&(o, n)| end <= o || o + (SMALLEST << n) <= offset));
                taken.push((offset, order));
            }
            for (offset, order) in taken {
                books.give_back(offset, order);
            }
            prop_assert_eq!(books.used(), 0);
            prop_assert_eq!(books.take(order_of(1 << 18)), Some(0));
        }
    }
}
