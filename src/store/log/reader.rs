//! Reading a log's file, mostly forwards.
//!
//! Leans on `disk`. Refuses to read behind the end.

use std::io;

use super::super::disk::File;
use crate::seal::HEAD_LEN;

/// Reads a file mostly forwards, through a window.
pub(super) struct Reader<'a> {
    file: &'a dyn File,
    pub(super) len: u64,
    window: Vec<u8>,
    start: u64,
}

const WINDOW: usize = 1 << 20;

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a dyn File) -> io::Result<Self> {
        Ok(Self { file, len: file.size()?, window: Vec::new(), start: 0 })
    }

    /// The `len` bytes at `at`, or `None` if the file ends before.
    pub(super) fn bytes(&mut self, at: u64, len: usize) -> io::Result<Option<&[u8]>> {
        if at + len as u64 > self.len {
            return Ok(None);
        }
        let end = self.start + self.window.len() as u64;
        if at < self.start || at + len as u64 > end {
            let wanted = len.max(WINDOW).min(usize::try_from(self.len - at).unwrap_or(WINDOW));
            self.window.resize(wanted, 0);
            self.file.read_at(&mut self.window, at)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.window.get(from..from + len))
    }

    /// Whether there is nothing behind `at`, or zeros: a crash may leave a file longer than what was written.
    pub(super) fn only_zeros_from(&mut self, mut at: u64) -> io::Result<bool> {
        while at < self.len {
            let len = usize::try_from(self.len - at).unwrap_or(WINDOW).min(HEAD_LEN * 64);
            if self.bytes(at, len)?.is_none_or(|bytes| bytes.iter().any(|&byte| byte != 0)) {
                return Ok(false);
            }
            at += len as u64;
        }
        Ok(true)
    }
}
