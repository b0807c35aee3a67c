//! Pages that nobody else can read: `memfd_secret(2)`, or locked and undumpable anonymous pages.
//!
//! Leans on memmap2 for the mapping (which stays mapped for ever: the process has one arena) and rustix for the
//! protection. A guard page stands at each end. Refuses to fall back to ordinary memory: where nothing can be locked,
//! there are no pages, and every allocation fails.

use std::fmt;
use std::fs::File;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::{io, ptr};

use memmap2::{MmapMut, MmapOptions};
use rustix::mm::{Advice, MprotectFlags};

/// What keeps other processes, swap and core dumps away from secret memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// `memfd_secret(2)`: the kernel itself has no mapping of these pages; not even root reads them by ptrace,
    /// `/proc/PID/mem` or a core dump.
    KernelSecret,
    /// `mlock(2)`, `MADV_DONTDUMP`, `MADV_DONTFORK`: never swapped or dumped, but root can read them.
    Locked,
    /// The system granted no locked memory (RLIMIT_MEMLOCK): nothing can be allocated.
    None,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KernelSecret => {
                "memfd_secret: not swapped, not dumped, not in /proc/PID/mem, not even for root"
            }
            Self::Locked => "locked pages: out of reach of swap and core dumps, but not of root",
            Self::None => "none: the system grants no locked memory (raise RLIMIT_MEMLOCK)",
        })
    }
}

/// A mapping with a guard page at either end.
pub(super) struct Pages {
    start: *mut u8,
    len: usize,
    protection: Protection,
}

// SAFETY: `Pages` is an address and a length that never change; who may touch which bytes is the arena's affair.
unsafe impl Send for Pages {}
// SAFETY: as above: shared access to the address and the length is harmless.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `size` usable bytes, or the largest half, quarter, … down to 64 KiB that the system grants.
    pub(super) fn map(size: usize) -> Self {
        let sizes = std::iter::successors(Some(size), |&size| (size > 64 << 10).then_some(size / 2));
        for size in sizes {
            for (map, protection) in
                [(kernel_secret as MapFn, Protection::KernelSecret), (locked as MapFn, Protection::Locked)]
            {
                if let Ok(mapping) = map(size) {
                    return Self { start: usable(mapping), len: size, protection };
                }
            }
        }
        Self { start: ptr::NonNull::dangling().as_ptr(), len: 0, protection: Protection::None }
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.start
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn protection(&self) -> Protection {
        self.protection
    }
}

type MapFn = fn(usize) -> io::Result<MmapMut>;

/// A mapping of a `memfd_secret` file, guards included. Locked by its nature.
fn kernel_secret(size: usize) -> io::Result<MmapMut> {
    if cfg!(miri) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the system call takes one flag word and touches no memory of ours.
    let number = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let descriptor =
        RawFd::try_from(number).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
    file.set_len((size + 2 * guard()) as u64)?;
    // SAFETY: the file has no name and its only descriptor is closed at the end of this function: nobody can change
    // or truncate it under the mapping.
    let mut mapping = unsafe { MmapOptions::new().map_mut(&file) }?;
    set_guards(&mut mapping, size)?;
    keep_from_children(&mut mapping)?;
    Ok(mapping)
}

/// Leaves the mapping out of forked children: one that had it would share, wipe and lend again what is the parent's.
fn keep_from_children(mapping: &mut MmapMut) -> io::Result<()> {
    let (start, len) = (mapping.as_mut_ptr(), mapping.len());
    // SAFETY: `start` and `len` are the whole of a mapping that we own; the advice changes no contents in this process.
    unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxDontFork) }?;
    Ok(())
}

/// An anonymous private mapping, guards included: locked, undumped.
fn locked(size: usize) -> io::Result<MmapMut> {
    let mut mapping = MmapMut::map_anon(size + 2 * guard())?;
    if cfg!(miri) {
        return Ok(mapping);
    }
    set_guards(&mut mapping, size)?;
    let start = usable_start(&mut mapping);
    // SAFETY: `start` and `size` are the inside of a private mapping that we own and that nobody uses yet; locking and
    // these advices change no contents.
    unsafe { rustix::mm::mlock(start.cast(), size) }?;
    // SAFETY: as above.
    unsafe { rustix::mm::madvise(start.cast(), size, Advice::LinuxDontDump) }?;
    keep_from_children(&mut mapping)?;
    Ok(mapping)
}

/// Makes the first and the last page unreachable: running over either end is a fault, not a leak.
fn set_guards(mapping: &mut MmapMut, size: usize) -> io::Result<()> {
    let first = mapping.as_mut_ptr();
    let last = usable_start(mapping).wrapping_add(size);
    for page in [first, last] {
        // SAFETY: both are whole pages at the ends of a mapping of `size + 2 * guard()` bytes that we own, and no
        // reference into them exists or will be made.
        unsafe { rustix::mm::mprotect(page.cast(), guard(), MprotectFlags::empty()) }?;
    }
    Ok(())
}

fn usable_start(mapping: &mut MmapMut) -> *mut u8 {
    mapping.as_mut_ptr().wrapping_add(guard())
}

/// Gives up the mapping's owner, so that it stays for the life of the process, and keeps its usable start.
fn usable(mapping: MmapMut) -> *mut u8 {
    let mapping = Box::leak(Box::new(mapping));
    usable_start(mapping)
}

/// One page.
fn guard() -> usize {
    rustix::param::page_size()
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_pages_can_be_written() {
        for map in [kernel_secret as MapFn, locked as MapFn] {
            let Ok(mut mapping) = map(64 << 10) else { continue };
            let inside = guard()..guard() + (64 << 10);
            mapping[inside.clone()].fill(0x5A);
            assert!(mapping[inside].iter().all(|&byte| byte == 0x5A));
        }
    }

    #[test]
    fn a_guard_page_stands_at_each_end() {
        let pages = Pages::map(64 << 10);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let first = format!("{:x}-{:x} ---", pages.start() as usize - guard(), pages.start() as usize);
        let last = pages.start() as usize + pages.len();
        assert!(maps.contains(&first), "no guard below:\n{maps}");
        assert!(maps.contains(&format!("{last:x}-{:x} ---", last + guard())), "no guard above:\n{maps}");
    }
}
