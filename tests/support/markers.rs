//! Looking for bytes that must not be there: in files, in another process's memory, in a core.
//!
//! A needle is found if any 16 bytes in a row of it are. Leans on `/proc/PID/maps` and `/proc/PID/mem`, which root may read
//! even of a hardened process. Refuses to call memory clean that could not be read, unless it is secret memory.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const WINDOW: usize = 16;

/// Bytes to look for, each with the name under which it is reported.
#[derive(Debug, Default)]
pub(crate) struct Needles {
    /// Every window of every needle, by its first eight bytes.
    windows: HashMap<u64, Vec<([u8; WINDOW], String)>>,
    /// A bit for each hash of those first eight bytes: most places are passed by with one look.
    seen: Vec<u64>,
}

impl Needles {
    pub(crate) fn new() -> Self {
        Self { windows: HashMap::new(), seen: vec![0; 1 << 10] }
    }

    /// Adds a needle of at least 16 bytes.
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= WINDOW, "{name} is too short to be looked for");
        for window in bytes.windows(WINDOW) {
            let start = u64::from_le_bytes(window[..8].try_into().unwrap());
            let window = window.try_into().unwrap();
            self.windows.entry(start).or_default().push((window, name.to_owned()));
            let hash = hash(start);
            self.seen[hash >> 6] |= 1 << (hash & 63);
        }
    }

    /// Adds a needle as it is, and as people write bytes: in hexadecimal and in base64.
    pub(crate) fn add_written(&mut self, name: &str, bytes: &[u8]) {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE};
        self.add(name, bytes);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(&format!("{name} in hexadecimal"), hex.as_bytes());
        self.add(&format!("{name} in upper-case hexadecimal"), hex.to_uppercase().as_bytes());
        self.add(&format!("{name} in base64"), STANDARD.encode(bytes).as_bytes());
        self.add(&format!("{name} in URL-safe base64"), URL_SAFE.encode(bytes).as_bytes());
    }

    /// Which needles are in these bytes, and where first.
    pub(crate) fn in_bytes(&self, bytes: &[u8]) -> HashMap<&str, usize> {
        let mut found = HashMap::new();
        let Some(first) = bytes.first_chunk::<8>() else { return found };
        let mut start = u64::from_le_bytes(*first);
        for at in 0..bytes.len().saturating_sub(WINDOW - 1) {
            let hash = hash(start);
            if self.seen[hash >> 6] >> (hash & 63) & 1 == 1 {
                let here = self.windows.get(&start).into_iter().flatten();
                for (_, name) in here.filter(|(window, _)| window[..] == bytes[at..at + WINDOW]) {
                    found.entry(name.as_str()).or_insert(at);
                }
            }
            start = start >> 8 | u64::from(bytes[at + 8]) << 56;
        }
        found
    }

    /// Which needles are in a file.
    pub(crate) fn in_file(&self, path: &Path) -> Vec<String> {
        let found = self.in_bytes(&std::fs::read(path).unwrap());
        found.into_iter().map(|(name, at)| format!("{name}: {} at byte {at}", path.display())).collect()
    }

    /// Which needles are in the memory of a process.
    pub(crate) fn in_process(&self, pid: u32) -> Memory {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let file = format!("/proc/{pid}/mem");
        let file = File::open(file).expect("root reads the memory of other processes: run this as root");
        let mut memory = Memory::default();
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            let name = fields.nth(3).unwrap_or("anonymous");
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            // The kernel's own pages in every process; they can't be read like this and hold nothing of it.
            if !rights.starts_with('r') || name.starts_with("[vvar") || name == "[vsyscall]" {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            let read = file.read_exact_at(&mut bytes, from);
            match (read, name.starts_with("/secretmem")) {
                (Err(_), true) => memory.secret += 1,
                (Ok(()), true) => panic!("secret memory can be read: {line}"),
                // A thread may have ended meanwhile.
                (Err(_), false) if is_gone(pid, range) => {}
                (Err(error), false) => panic!("cannot read {line}: {error}"),
                (Ok(()), false) => {
                    memory.scanned += bytes.len();
                    let found = self.in_bytes(&bytes).into_iter();
                    memory.found.extend(found.map(|(what, at)| {
                        format!("{what}: in {name} ({rights}) at {:#x}", from + at as u64)
                    }));
                }
            }
        }
        memory
    }
}

/// Whether a process has no such mapping any more.
fn is_gone(pid: u32, range: &str) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    !maps.lines().any(|line| line.starts_with(range))
}

/// What a scan of a process's memory saw.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Bytes looked at.
    pub(crate) scanned: usize,
    /// Mappings of secret memory: there, and unreadable.
    pub(crate) secret: usize,
    /// The needles found, and where.
    pub(crate) found: Vec<String>,
}

fn hash(start: u64) -> usize {
    (start.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as usize
}
