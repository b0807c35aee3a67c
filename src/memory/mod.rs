//! Memory for values and keys: never swapped, never dumped, wiped when it is let go.
//!
//! [`SecretBytes`] is a byte string and [`SecretCell`] a fixed object (a ring key) that live in one bounded
//! arena of pages the rest of the system can't reach: `memfd_secret(2)` pages where the kernel has them, locked
//! and undumpable pages elsewhere. [`protection`] says which. [`scrubbed`] runs a function and wipes the stack and
//! the vector registers behind it, because ring keeps copies of a key there and wipes nothing itself.
//!
//! Leans on memmap2 and rustix for the pages, zeroize for the wiping, secrecy for the traits through which bytes
//! are seen. Refuses to grow: when the arena is full, allocation is an honest [`Exhausted`], never ordinary memory.
//!
//! This room and `net/sasl.rs` are the only homes of `unsafe`.
#![allow(unsafe_code)]

mod arena;
mod blocks;
mod harden;
mod pages;
mod registers;

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::sync::OnceLock;

use secrecy::{ExposeSecret, ExposeSecretMut};

use arena::{Arena, Block};
pub use harden::harden_process;
pub use pages::Protection;

/// The arena is out of room (or could not be made): nothing was allocated.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("secret memory is exhausted: {wanted} bytes asked for, {used} of {size} bytes in use")]
pub struct Exhausted {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes in use at that moment.
    pub used: usize,
    /// Bytes the arena has in all; 0 if the system gave none (see RLIMIT_MEMLOCK).
    pub size: usize,
}

/// How this process's secret memory is protected. Makes the arena if it is not there yet.
pub fn protection() -> Protection {
    arena().protection()
}

/// Bytes of secret memory in use, and in all.
pub fn usage() -> (usize, usize) {
    arena().usage()
}

/// The process's one arena. Sized once, at first use: 4 MiB, or what RLIMIT_MEMLOCK leaves of it.
fn arena() -> &'static Arena {
    static ARENA: OnceLock<Arena> = OnceLock::new();
    ARENA.get_or_init(|| Arena::new(ARENA_SIZE))
}

/// Room for some thirty values of the largest size (65,536 bytes, sealed in blocks of 128 KiB) at once; half of the usual
/// RLIMIT_MEMLOCK.
const ARENA_SIZE: usize = 4 << 20;

/// A byte string in secret memory. Wiped on drop; its bytes are seen only through secrecy's traits.
pub struct SecretBytes {
    block: Block,
    len: usize,
}

impl SecretBytes {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Result<Self, Exhausted> {
        #[cfg(test)]
        scarcity::check(len)?;
        Ok(Self { block: arena().allocate(len)?, len })
    }

    /// A copy of `bytes`. The original is the caller's to wipe.
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Exhausted> {
        let mut copy = Self::zeroed(bytes.len())?;
        copy.expose_secret_mut().copy_from_slice(bytes);
        // The bytes went through them, and the last of them are still there.
        registers::clear();
        Ok(copy)
    }

    /// Another copy of these bytes: deliberate, hence not `Clone`.
    pub fn try_clone(&self) -> Result<Self, Exhausted> {
        Self::copy_of(self.expose_secret())
    }

    /// Overwrites the bytes from `at` on with these, which must fit; none of them stay in registers.
    pub fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        self.expose_secret_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        registers::clear();
    }

    /// Wipes the first `len` bytes, or all if there are fewer.
    pub fn wipe_front(&mut self, len: usize) {
        let bytes = self.expose_secret_mut();
        let len = len.min(bytes.len());
        arena::wipe(&mut bytes[..len]);
    }

    /// Keeps the first `len` bytes and wipes the rest. No effect when there are no more than `len`.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            arena::wipe(&mut self.expose_secret_mut()[len..]);
            self.len = len;
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl ExposeSecret<[u8]> for SecretBytes {
    fn expose_secret(&self) -> &[u8] {
        &self.block.bytes()[..self.len]
    }
}

impl ExposeSecretMut<[u8]> for SecretBytes {
    fn expose_secret_mut(&mut self) -> &mut [u8] {
        &mut self.block.bytes_mut()[..self.len]
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes([REDACTED])")
    }
}

/// One object of type `T` in secret memory, every byte of it wiped on drop.
///
/// Made for ring's keys, which are flat (no heap behind them) and have no destructor of their own.
pub struct SecretCell<T> {
    block: Block,
    holds: PhantomData<T>,
}

impl<T: Send + Sync + 'static> SecretCell<T> {
    /// Puts what `make` returns into secret memory, then wipes the stack that `make` and the move used.
    pub fn build(make: impl FnOnce() -> T) -> Result<Self, Exhausted> {
        const {
            assert!(!mem::needs_drop::<T>(), "a secret cell holds flat types only");
            assert!(align_of::<T>() <= blocks::SMALLEST, "blocks are aligned to their smallest size");
        }
        let mut block = arena().allocate(size_of::<T>())?;
        scrubbed(|| {
            let place = block.bytes_mut().as_mut_ptr().cast::<T>();
            // SAFETY: `allocate` gave at least size_of::<T>() bytes, aligned to SMALLEST, which the assertion above
            // holds against align_of::<T>(); the block is ours alone.
            unsafe { place.write(make()) };
        });
        Ok(Self { block, holds: PhantomData })
    }

    /// The object.
    pub fn expose(&self) -> &T {
        let place = self.block.bytes().as_ptr().cast::<T>();
        // SAFETY: `build` is the only constructor, and wrote a valid `T` at this aligned place.
        unsafe { &*place }
    }
}

impl<T> fmt::Debug for SecretCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretCell([REDACTED])")
    }
}

/// Runs `work`, then wipes the stack below this call and the vector registers: what it left there of keys is gone when this
/// returns.
pub fn scrubbed<R>(work: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn run<R>(work: impl FnOnce() -> R) -> R {
        work()
    }
    #[inline(never)]
    fn scrub() {
        let stack = [0_u8; SCRUBBED_STACK];
        zeroize::optimization_barrier(&stack); // the zeros are written
        registers::clear();
    }
    let result = run(work);
    scrub();
    result
}

/// Deeper than ring's AES-GCM and HKDF go in a release build (measured: under 4 KiB), with a wide margin.
const SCRUBBED_STACK: usize = 16 << 10;

#[cfg(test)]
pub(crate) mod scarcity {
    //! An arena without room, for one thread of a test.

    use std::cell::Cell;

    use super::Exhausted;

    thread_local! {
        static SCARCE: Cell<bool> = const { Cell::new(false) };
    }

    /// While this runs, this thread gets no secret bytes.
    pub(crate) fn while_scarce<R>(work: impl FnOnce() -> R) -> R {
        SCARCE.set(true);
        let done = work();
        SCARCE.set(false);
        done
    }

    pub(super) fn check(wanted: usize) -> Result<(), Exhausted> {
        match SCARCE.get() {
            true => Err(Exhausted { wanted, used: 0, size: 0 }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_kept_cut_and_hidden() {
        let mut bytes = SecretBytes::copy_of(b"correct horse").unwrap();
        assert_eq!(bytes.expose_secret(), b"correct horse");
        bytes.truncate(7);
        assert_eq!(bytes.expose_secret(), b"correct");
        assert_eq!(format!("{bytes:?}"), "SecretBytes([REDACTED])");
    }

    #[test]
    fn an_empty_string_is_allowed() {
        let empty = SecretBytes::zeroed(0).unwrap();
        assert!(empty.is_empty());
        assert_eq!(empty.expose_secret(), b"");
    }

    #[test]
    fn a_cell_gives_back_what_was_built() {
        let cell = SecretCell::build(|| [7_u64; 100]).unwrap();
        assert_eq!(cell.expose(), &[7_u64; 100]);
    }

    #[test]
    fn more_than_the_arena_has_is_an_honest_error() {
        let error = SecretBytes::zeroed(ARENA_SIZE * 2).unwrap_err();
        assert_eq!(error.wanted, ARENA_SIZE * 2);
        assert!(error.to_string().contains("exhausted"));
    }
}
