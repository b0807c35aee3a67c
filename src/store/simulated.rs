//! A disk that can lose power: what tests run the store on.
//!
//! It keeps durable and volatile state apart, for each file and for each directory entry. A file's writes become durable
//! when it is synced, a directory's entries when the directory is. [`SimulatedDisk::cut_power_at`] stops the disk at the
//! n-th operation; [`SimulatedDisk::after_power_cut`] is then what a machine might find: what was durable, plus any part
//! of the rest, in pieces of 512 bytes for contents and in order for entries.
//!
//! Leans on nothing. Refuses to be kinder than a real disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Directory, Disk, File};

/// A simulated machine's disk: two directories, `etc` and `run`.
#[derive(Clone, Default)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Platter>>);

#[derive(Default)]
struct Platter {
    files: Vec<Contents>,
    entries: [Entries; 2],
    operations: usize,
    stop_at: Option<usize>,
    fail_at: Option<usize>,
    full: bool,
    /// Sectors that can't be read: of which file, and which.
    bad: Vec<(usize, usize)>,
}

#[derive(Default, Clone)]
struct Contents {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Default, Clone)]
struct Entries {
    live: BTreeMap<String, usize>,
    /// The states of the directory since it was last synced, oldest first: any of them may be found after a cut.
    history: Vec<BTreeMap<String, usize>>,
}

/// Which of the volatile state a power cut leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Left {
    /// Only what was synced.
    Nothing,
    /// Everything: as after a kill, when the system lives on.
    All,
    /// Any part of it, drawn by this seed.
    Some(u64),
}

const SECTOR: usize = 512;

impl SimulatedDisk {
    /// The store's view of it.
    pub(crate) fn disk(&self) -> Disk {
        let directory = |which| Arc::new(SimulatedDirectory { disk: self.clone(), which });
        Disk { etc: directory(0), run: directory(1) }
    }

    /// How many operations that change something were made so far.
    pub(crate) fn operations(&self) -> usize {
        self.platter().operations
    }

    /// Makes operation `n` (counted from 0) and all later ones fail: the power is gone.
    pub(crate) fn cut_power_at(&self, n: usize) {
        self.platter().stop_at = Some(n);
    }

    /// Makes operation `n` fail, and no other.
    pub(crate) fn fail_at(&self, n: usize) {
        self.platter().fail_at = Some(n);
    }

    /// Makes every write that lengthens a file stop half-way, or no longer.
    pub(crate) fn set_full(&self, full: bool) {
        self.platter().full = full;
    }

    /// The disk that the next boot finds.
    pub(crate) fn after_power_cut(&self, left: Left) -> Self {
        let platter = self.platter();
        let mut chance = Chance(match left {
            Left::Some(seed) => seed,
            _ => 0,
        });
        let files = platter.files.iter().map(|contents| contents.after(left, &mut chance)).collect();
        let entries = platter.entries.clone().map(|entries| entries.after(left, &mut chance));
        Self(Arc::new(Mutex::new(Platter { files, entries, ..Platter::default() })))
    }

    /// The disk as it is when a process was killed and the machine lives on: what is not durable yet is still not.
    pub(crate) fn after_kill(&self) -> Self {
        let platter = self.platter();
        let (files, entries) = (platter.files.clone(), platter.entries.clone());
        Self(Arc::new(Mutex::new(Platter { files, entries, ..Platter::default() })))
    }

    /// A file's live bytes, to be looked at or spoiled.
    pub(crate) fn with_file<R>(&self, name: &str, act: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let mut platter = self.platter();
        let which = platter.entries.iter().find_map(|entries| entries.live.get(name).copied());
        let number = which.unwrap_or_else(|| panic!("the simulated disk has no {name}"));
        let contents = &mut platter.files[number];
        let result = act(&mut contents.live);
        contents.durable = contents.live.clone();
        result
    }

    /// Whether these bytes lie in any file, those that have no name any more among them.
    pub(crate) fn has_bytes(&self, bytes: &[u8]) -> bool {
        let found = |contents: &Contents| contents.live.windows(bytes.len()).any(|window| window == bytes);
        self.platter().files.iter().any(found)
    }

    /// Makes the sector of a file that this byte is in unreadable, for good.
    pub(crate) fn spoil_sector(&self, name: &str, at: usize) {
        let mut platter = self.platter();
        let number = platter.entries.iter().find_map(|entries| entries.live.get(name).copied());
        platter.bad.extend(number.map(|number| (number, at / SECTOR)));
    }

    /// Whether a directory (`etc` 0, `run` 1) has this name.
    pub(crate) fn has(&self, which: usize, name: &str) -> bool {
        self.platter().entries[which].live.contains_key(name)
    }

    /// Removes a name, durably, as a person would between two runs.
    pub(crate) fn forget(&self, which: usize, name: &str) {
        self.platter().entries[which].live.remove(name);
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an operation, and fails it if its time has come.
    fn operate(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let mut platter = self.platter();
        let number = platter.operations;
        platter.operations += 1;
        if platter.stop_at.is_some_and(|stop| number >= stop) || platter.fail_at == Some(number) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(platter)
    }
}

impl Contents {
    fn after(&self, left: Left, chance: &mut Chance) -> Self {
        let bytes = match left {
            Left::Nothing => self.durable.clone(),
            Left::All => self.live.clone(),
            Left::Some(_) => {
                let len = if chance.even() { self.live.len() } else { self.durable.len() };
                let mut bytes = vec![0; len];
                for (number, sector) in bytes.chunks_mut(SECTOR).enumerate() {
                    let from = if chance.even() { &self.live } else { &self.durable };
                    let from = from.get(number * SECTOR..).unwrap_or_default();
                    sector.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
                }
                bytes
            }
        };
        Self { live: bytes.clone(), durable: bytes }
    }
}

impl Entries {
    fn change(&mut self, change: impl FnOnce(&mut BTreeMap<String, usize>)) {
        self.history.push(self.live.clone());
        change(&mut self.live);
    }

    fn after(self, left: Left, chance: &mut Chance) -> Self {
        let durable = self.history.first().cloned();
        let live = match (left, durable) {
            (Left::All, _) | (_, None) => self.live,
            (Left::Nothing, Some(durable)) => durable,
            (Left::Some(_), Some(_)) => {
                let states: Vec<_> = self.history.into_iter().chain([self.live]).collect();
                states[chance.next() as usize % states.len()].clone()
            }
        };
        Self { live, history: Vec::new() }
    }
}

/// Repeatable chance (xorshift, as in Marsaglia 2003).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    fn even(&mut self) -> bool {
        self.next() & 1 == 0
    }
}

struct SimulatedDirectory {
    disk: SimulatedDisk,
    which: usize,
}

impl SimulatedDirectory {
    fn file(&self, number: usize) -> Arc<dyn File> {
        Arc::new(SimulatedFile { disk: self.disk.clone(), number })
    }
}

impl Directory for SimulatedDirectory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let number = self.disk.platter().entries[self.which].live.get(name).copied();
        number.map(|number| self.file(number)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut platter = self.disk.operate()?;
        if platter.entries[self.which].live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        platter.files.push(Contents::default());
        let number = platter.files.len() - 1;
        platter.entries[self.which].change(|live| _ = live.insert(name.into(), number));
        Ok(self.file(number))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.disk.operate()?;
        let number = platter.entries[self.which].live.get(from).copied();
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        platter.entries[self.which].change(|live| {
            live.remove(from);
            live.insert(to.into(), number);
        });
        Ok(())
    }

    fn link(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.disk.operate()?;
        let live = &platter.entries[self.which].live;
        let number = live.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        if live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        platter.entries[self.which].change(|live| _ = live.insert(to.into(), number));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = self.disk.operate()?;
        if !platter.entries[self.which].live.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        platter.entries[self.which].change(|live| _ = live.remove(name));
        Ok(())
    }

    fn names(&self, each: &mut dyn FnMut(&str)) -> io::Result<()> {
        let names: Vec<String> = self.disk.platter().entries[self.which].live.keys().cloned().collect();
        names.iter().for_each(|name| each(name));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate()?.entries[self.which].history.clear();
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut platter = self.disk.operate()?;
        platter.entries.iter_mut().for_each(|entries| entries.history.clear());
        platter.files.iter_mut().for_each(|contents| contents.durable = contents.live.clone());
        Ok(())
    }
}

struct SimulatedFile {
    disk: SimulatedDisk,
    number: usize,
}

impl File for SimulatedFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.platter().files[self.number].live.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let platter = self.disk.platter();
        let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let sectors = at / SECTOR..(at + bytes.len()).div_ceil(SECTOR);
        if platter.bad.iter().any(|(file, sector)| *file == self.number && sectors.contains(sector)) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let found = platter.files[self.number].live.get(at..at + bytes.len());
        bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut platter = self.disk.operate()?;
        let full = platter.full;
        let live = &mut platter.files[self.number].live;
        let end = at as usize + bytes.len();
        let stopped = full && end > live.len();
        let bytes = if stopped { &bytes[..bytes.len() / 2] } else { bytes };
        let end = at as usize + bytes.len();
        live.resize(live.len().max(end), 0);
        live[at as usize..end].copy_from_slice(bytes);
        if stopped { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate()?.files[self.number].live.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut platter = self.disk.operate()?;
        let contents = &mut platter.files[self.number];
        contents.durable = contents.live.clone();
        Ok(())
    }

    fn is_named(&self) -> io::Result<bool> {
        let platter = self.disk.platter();
        Ok(platter.entries.iter().any(|entries| entries.live.values().any(|number| *number == self.number)))
    }
}
