//! The arena: secret pages cut into blocks, each owned by one [`Block`], each wiped before it is free again.
//!
//! Leans on `pages` for the memory and `blocks` for the books. Refuses to lend a byte to two owners: that is the
//! invariant under every `unsafe` below.

use std::slice;
use std::sync::{Mutex, PoisonError};

use super::Exhausted;
use super::blocks::{Blocks, order_of};
use super::pages::{Pages, Protection};

/// A bounded piece of secret memory.
pub(super) struct Arena {
    pages: Pages,
    books: Mutex<Blocks>,
}

impl Arena {
    /// An arena of `size` bytes (a power of two), or the largest half, quarter, … that the system grants.
    pub(super) fn new(size: usize) -> Self {
        let pages = Pages::map(size);
        let books = Mutex::new(Blocks::new(pages.len()));
        Self { pages, books }
    }

    /// A block of `len` bytes, all zero, aligned to `SMALLEST`.
    pub(super) fn allocate(&'static self, len: usize) -> Result<Block, Exhausted> {
        let order = order_of(len);
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        match books.take(order) {
            Some(offset) => Ok(Block { arena: self, offset, len }),
            None => Err(Exhausted { wanted: len, used: books.used(), size: self.pages.len() }),
        }
    }

    pub(super) fn protection(&self) -> Protection {
        self.pages.protection()
    }

    pub(super) fn usage(&self) -> (usize, usize) {
        (self.books.lock().unwrap_or_else(PoisonError::into_inner).used(), self.pages.len())
    }
}

/// One block of an arena: the only way to its bytes while it lives.
pub(super) struct Block {
    arena: &'static Arena,
    offset: usize,
    len: usize,
}

impl Block {
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the books gave at least [offset, offset + len) to this block alone (blocks.rs, proved by its property
        // test) and it lies inside the pages, which live for ever and are zeroed when mapped. `&self` keeps
        // `bytes_mut` away.
        unsafe { slice::from_raw_parts(self.start(), self.len) }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` keeps every other reference into this block away.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len) }
    }
}

impl Block {
    fn start(&self) -> *mut u8 {
        self.arena.pages.start().wrapping_add(self.offset)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        wipe(self.bytes_mut());
        let mut books = self.arena.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.give_back(self.offset, order_of(self.len));
    }
}

/// Wipes. `Zeroize` would do it a byte at a time; this is one `memset`, which the barrier keeps from being left out.
pub(super) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_wiped_before_it_is_given_again() {
        let arena: &'static Arena = Box::leak(Box::new(Arena::new(1 << 16)));
        let mut first = arena.allocate(100).unwrap();
        first.bytes_mut().fill(0xA5);
        let offset = first.offset;
        drop(first);
        let again = arena.allocate(100).unwrap();
        assert_eq!(again.offset, offset);
        assert!(again.bytes().iter().all(|&byte| byte == 0));
    }

    #[test]
    fn threads_share_one_arena() {
        let arena: &'static Arena = Box::leak(Box::new(Arena::new(1 << 16)));
        std::thread::scope(|scope| {
            for id in 0..4_u8 {
                scope.spawn(move || {
                    for round in 0..200 {
                        let mut block = arena.allocate(64 + round * 7).unwrap();
                        block.bytes_mut().fill(id);
                        assert!(block.bytes().iter().all(|&byte| byte == id));
                    }
                });
            }
        });
        assert_eq!(arena.usage().0, 0);
    }
}
