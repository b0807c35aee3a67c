//! From a log's bytes to what they say: the latest frame of each secret, or what is damaged where.
//!
//! Batch by batch: heads are read and hashed; a commit that proves itself and states that very hash makes its batch
//! hold. What follows the last good commit is the *tail*: a write that was never acknowledged, torn by a crash. A bad
//! place with a good commit behind it is *damage*: frames start on multiples of [`GRAIN`], so reading resumes behind
//! it, and in the damaged batch each frame has to prove itself.
//!
//! Leans on `seal`. Refuses to believe a length, a number or a name that is not proved, and to read a secret's older
//! frame where a newer one is proved.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

use ::uuid::Uuid;

use super::super::disk::File;
use super::super::index::{Entry, Index, Place};
use super::Log;
use crate::memory::scrubbed;
use crate::seal::{Chain, GRAIN, HEAD_LEN, Head, HeadError, Keyring, Kind, StoreId};

/// What a log says.
pub(in crate::store) struct Recovered {
    pub(in crate::store) log: Log,
    pub(in crate::store) index: Index,
    /// Dead frames that can still be opened.
    pub(in crate::store) unwiped: Vec<Place>,
    pub(in crate::store) damage: Vec<Damage>,
    pub(in crate::store) tail: Option<Tail>,
    pub(in crate::store) anchor: AnchorSeen,
    /// Secrets whose latest frame deletes them.
    pub(in crate::store) deleted: Vec<Uuid>,
    /// The highest keyring serial that a commit states.
    pub(in crate::store) keyring_seen: u64,
}

/// A stretch of the log in which heads don't prove themselves or don't fit the commit behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) struct Damage {
    pub(in crate::store) bytes: Range<u64>,
    /// How many frames the commit covers, and how many of them were found.
    pub(in crate::store) frames: (usize, usize),
}

/// What follows the last good commit.
#[derive(Debug, Clone)]
pub(in crate::store) struct Tail {
    pub(in crate::store) bytes: Range<u64>,
    /// The secrets whose frames in it prove themselves, in order; all younger than the last good commit.
    pub(in crate::store) frames: Vec<(Uuid, Kind, Place)>,
    /// Whether anything in it, a frame or a commit, proves itself: not rubbish behind an old copy, then.
    pub(in crate::store) proved: bool,
}

/// How the log's commits stand to the anchor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum AnchorSeen {
    /// No anchor was given.
    None,
    /// There is a commit of its generation and chain.
    Same,
    /// Where it should be there is another commit, or none.
    Other,
    /// The log begins behind it: it was compacted since.
    Compacted,
    /// The log ends before it.
    Beyond,
}

/// Why a file can't be read as this store's log at all.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum Unreadable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it was written by a newer version of Strongroom (frame format {0})")]
    Newer(u8),
    #[error("it belongs to another store ({0})")]
    OtherStore(StoreId),
    #[error("nothing in it proves itself under this keyring")]
    Nothing,
}

/// What a log still says, whatever it has been through.
pub(in crate::store) struct Salvaged {
    pub(in crate::store) index: Index,
    pub(in crate::store) damage: Vec<Damage>,
    /// The last commit that proves itself; 0 if none does.
    pub(in crate::store) last_commit: u64,
    /// The highest number in it that proves itself.
    pub(in crate::store) generation: u64,
    /// Secrets whose latest frame deletes them.
    pub(in crate::store) deleted: Vec<Uuid>,
    /// The highest keyring serial that a commit states.
    pub(in crate::store) keyring_seen: u64,
    /// How its commits stand to the anchor's.
    pub(in crate::store) anchor: AnchorSeen,
}

impl Log {
    /// Reads every frame that proves itself, wherever it lies and whatever the commits around it say: for a log that is
    /// copied or repaired, and never appended to. A whole log gives what [`recover`](Self::recover) does.
    ///
    /// A frame that somebody put here from elsewhere is taken too, if it is the newest of its secret. Whoever asks for this
    /// has a table to hold it against, or has to take what there is.
    pub(in crate::store) fn salvage(
        file: &dyn File,
        keyring: &Keyring,
        anchor: Option<(u64, [u8; 32])>,
    ) -> Result<Salvaged, Unreadable> {
        let mut scan = Scan::new(file, keyring, anchor)?;
        scan.salvages = true;
        scrubbed(|| scan.run())?;
        let nothing = scan.last.is_none() && scan.index.len() == 0 && scan.reader.len > 0;
        match (scan.newer, scan.other_store) {
            (Some(version), _) if nothing || scan.newer_tail().is_some() => {
                return Err(Unreadable::Newer(version));
            }
            (None, Some(store)) if nothing => return Err(Unreadable::OtherStore(store)),
            _ => {}
        }
        scrubbed(|| scan.open_definitions())?;
        let anchor = scan.last.as_ref().map_or(AnchorSeen::None, |last| scan.anchor_seen(last));
        let last_commit = scan.last.as_ref().map_or(0, |last| last.generation);
        let Scan { index, damage, generation, keyring_seen, deleted, .. } = scan;
        let deleted = deleted.into_keys().collect();
        Ok(Salvaged { index, damage, last_commit, generation, deleted, keyring_seen, anchor })
    }

    /// Reads a whole log. `anchor`: the generation and chain to look out for.
    pub(in crate::store) fn recover(
        file: Arc<dyn File>,
        keyring: &Keyring,
        anchor: Option<(u64, [u8; 32])>,
    ) -> Result<Recovered, Unreadable> {
        let mut scan = Scan::new(&*file, keyring, anchor)?;
        scrubbed(|| scan.run())?;
        if let Some(version) = scan.newer_tail() {
            return Err(Unreadable::Newer(version));
        }
        let Some(last) = scan.last.take() else { return Err(scan.unreadable()) };
        let anchor = scan.anchor_seen(&last);
        scrubbed(|| scan.open_definitions())?;
        let log = Self {
            file: Arc::clone(&file),
            end: scan.at,
            chain: Chain::after(&last),
            last_chain: last.chain(),
            generation: scan.generation,
            last_commit: last.generation,
            closed: matches!(last.kind, Kind::Commit { closed: true, .. }),
            holds: Arc::default(),
        };
        let Scan { index, unwiped, damage, tail, keyring_seen, deleted, .. } = scan;
        let deleted = deleted.into_keys().collect();
        Ok(Recovered { log, index, unwiped, damage, tail, anchor, deleted, keyring_seen })
    }
}

/// A log being read.
struct Scan<'a> {
    reader: Reader<'a>,
    keyring: &'a Keyring,
    /// Where the next batch begins.
    at: u64,
    chain: Chain,
    last: Option<Head>,
    generation: u64,
    index: Index,
    /// Deleted secrets, and by which generation.
    deleted: HashMap<Uuid, u64>,
    /// Frames that are wiped already, by place; the latest of their secret so far.
    wiped: HashSet<u64>,
    unwiped: Vec<Place>,
    damage: Vec<Damage>,
    tail: Option<Tail>,
    keyring_seen: u64,
    anchor: Option<(u64, [u8; 32])>,
    anchor_met: Option<bool>,
    first_commit: Option<u64>,
    /// What the first bytes say, should nothing prove itself.
    newer: Option<u8>,
    /// Where frames of a later version begin.
    newer_at: BTreeSet<u64>,
    other_store: Option<StoreId>,
    /// Take every frame that proves itself.
    salvages: bool,
}

/// A frame of a batch.
struct Member {
    uuid: Uuid,
    kind: Kind,
    place: Place,
    wiped: bool,
}

/// A batch and the commit that ends it.
struct Batch {
    members: Vec<Member>,
    commit: Head,
    end: u64,
}

/// What lies ahead of a bad place: frames that prove themselves, up to a commit that does (and where it ends), if any.
struct Searched {
    members: Vec<Member>,
    /// Heads that seem to be of wiped frames: nothing proves those any more.
    wiped: usize,
    commit: Option<(Head, u64)>,
}

impl<'a> Scan<'a> {
    fn new(file: &'a dyn File, keyring: &'a Keyring, anchor: Option<(u64, [u8; 32])>) -> io::Result<Self> {
        Ok(Self {
            reader: Reader::new(file)?,
            keyring,
            at: 0,
            chain: Chain::begin(keyring.store()),
            last: None,
            generation: 0,
            index: Index::default(),
            deleted: HashMap::new(),
            wiped: HashSet::new(),
            unwiped: Vec::new(),
            damage: Vec::new(),
            tail: None,
            keyring_seen: 0,
            anchor,
            anchor_met: None,
            first_commit: None,
            newer: None,
            newer_at: BTreeSet::new(),
            other_store: None,
            salvages: false,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        while !self.reader.only_zeros_from(self.at)? {
            if let Some(batch) = self.batch_in_order()? {
                self.accept(batch);
                continue;
            }
            let Searched { mut members, wiped, commit } = self.search(self.at)?;
            let after = self.last.as_ref().map_or(0, |last| last.generation);
            let proves_commit = commit.is_some();
            match commit {
                Some((commit, end)) if self.salvages => {
                    let frames = (commit.count(), members.len() + wiped);
                    self.damage.push(Damage { bytes: self.at..end, frames });
                    self.accept(Batch { members, commit, end });
                }
                None if self.salvages => {
                    let bytes = self.at..self.reader.len;
                    self.damage.push(Damage { bytes: bytes.clone(), frames: (0, members.len() + wiped) });
                    self.tail = members.is_empty().then(|| Tail { bytes, frames: Vec::new(), proved: false });
                    members.into_iter().for_each(|member| self.apply(member));
                    break;
                }
                // A commit that proves itself over frames that don't may be a torn write too, if it is the very last one:
                // a disk may write the end of a batch before its beginning. Not so a commit of nothing: it is only ever
                // written behind what is durable, when the log is closed or opened anew. Until then the anchor tells.
                Some((commit, end)) if commit.count() == 0 || self.search(end)?.commit.is_some() => {
                    // Frames are younger than the commit before them, save where compaction copied them: what isn't was
                    // put here from elsewhere.
                    let compacted = after == 0 || (commit.generation == after + 1 && commit.count() > 0);
                    members.retain(|member| compacted || member.place.generation > after);
                    let frames = (commit.count(), members.len());
                    self.damage.push(Damage { bytes: self.at..end, frames });
                    self.accept(Batch { members, commit, end });
                }
                _ => {
                    members.retain(|member| member.place.generation > after);
                    let frames: Vec<_> =
                        members.into_iter().map(|member| (member.uuid, member.kind, member.place)).collect();
                    let proved = proves_commit || !frames.is_empty();
                    self.tail = Some(Tail { bytes: self.at..self.reader.len, frames, proved });
                    break;
                }
            }
        }
        Ok(())
    }

    /// The batch that begins here, if every head of it is as the commit says.
    fn batch_in_order(&mut self) -> io::Result<Option<Batch>> {
        let (mut at, mut chain, mut members) = (self.at, self.chain.clone(), Vec::new());
        while let Some(head) = self.head_at(at)? {
            let end = at + head.frame_len() as u64;
            let Kind::Commit { count, .. } = head.kind else {
                chain.add(&head);
                members.push(Self::member(&head, at));
                at = end;
                continue;
            };
            let holds = count as usize == members.len()
                && chain.finish() == head.chain()
                && self.is_next_commit(&head);
            return Ok(holds.then_some(Batch { members, commit: head, end }));
        }
        Ok(None)
    }

    /// Looks for the next commit that proves itself, anywhere from `at` on, and for frames before it that do.
    fn search(&mut self, mut at: u64) -> io::Result<Searched> {
        let (mut members, mut wiped) = (Vec::new(), 0);
        while at + HEAD_LEN as u64 <= self.reader.len {
            let head = self.head_at(at)?;
            wiped += usize::from(head.as_ref().is_some_and(|head| head.is_wiped()));
            let Some(head) = head.filter(|head| proves(self.keyring, head)) else {
                at += GRAIN as u64;
                continue;
            };
            let end = at + head.frame_len() as u64;
            match head.kind {
                Kind::Commit { .. } if self.is_next_commit(&head) => {
                    return Ok(Searched { members, wiped, commit: Some((head, end)) });
                }
                Kind::Commit { .. } => {}
                Kind::Put { .. } | Kind::Delete => members.push(Self::member(&head, at)),
            }
            at = end;
        }
        Ok(Searched { members, wiped, commit: None })
    }

    /// The head of a frame that could begin here: of this store, and within the file.
    fn head_at(&mut self, at: u64) -> io::Result<Option<Head>> {
        let Some(bytes) = self.reader.bytes(at, HEAD_LEN)?.and_then(|bytes| bytes.first_chunk()) else {
            return Ok(None);
        };
        match Head::decode(bytes) {
            Ok(head) if head.store != self.keyring.store() => {
                self.other_store.get_or_insert(head.store);
                Ok(None)
            }
            Ok(head) => Ok(Some(head).filter(|head| at + head.frame_len() as u64 <= self.reader.len)),
            Err(HeadError::Newer(version)) => {
                self.newer.get_or_insert(version);
                self.newer_at.insert(at);
                Ok(None)
            }
            Err(HeadError::NoFrame) => Ok(None),
        }
    }

    fn member(head: &Head, at: u64) -> Member {
        Member { uuid: head.uuid, kind: head.kind, place: Place::of(head, at), wiped: head.is_wiped() }
    }

    /// Whether a commit proves itself and is later than the one before: an old one, copied here, is not.
    fn is_next_commit(&self, head: &Head) -> bool {
        self.last.as_ref().is_none_or(|last| head.generation > last.generation) && proves(self.keyring, head)
    }

    fn accept(&mut self, batch: Batch) {
        for member in batch.members {
            self.apply(member);
        }
        let commit = batch.commit;
        if let Kind::Commit { keyring, .. } = commit.kind {
            self.keyring_seen = self.keyring_seen.max(keyring);
        }
        if let Some((generation, chain)) = self.anchor
            && generation == commit.generation
        {
            self.anchor_met = Some(chain == commit.chain());
        }
        self.first_commit.get_or_insert(commit.generation);
        self.generation = self.generation.max(commit.generation);
        self.chain = Chain::after(&commit);
        self.at = batch.end;
        self.last = Some(commit);
    }

    /// Takes a frame into the index, if it is the newest of its secret.
    fn apply(&mut self, Member { uuid, kind, place, wiped }: Member) {
        self.generation = self.generation.max(place.generation);
        let newest = self.index.entry(uuid).map(|entry| entry.place.generation);
        let newest = newest.max(self.deleted.get(&uuid).copied());
        let is_newest = newest.is_none_or(|newest| place.generation > newest);
        let dead = match kind {
            Kind::Put { .. } if is_newest => {
                if wiped {
                    self.wiped.insert(place.at);
                }
                self.deleted.remove(&uuid);
                self.index.put(uuid, Entry { definition: None, place })
            }
            Kind::Put { .. } if !wiped => Some(place),
            Kind::Delete if is_newest => {
                self.deleted.insert(uuid, place.generation);
                self.index.remove(uuid)
            }
            _ => None,
        };
        self.unwiped.extend(dead.filter(|dead| !self.wiped.remove(&dead.at)));
    }

    /// Opens the definition of each secret's latest frame, in the order in which they lie.
    fn open_definitions(&mut self) -> io::Result<()> {
        let mut places: Vec<_> = self.index.entries().map(|(uuid, entry)| (entry.place, uuid)).collect();
        places.sort_unstable_by_key(|(place, _)| place.at);
        let mut sealed = Vec::new();
        for (place, uuid) in places {
            let frame = self.reader.bytes(place.at, place.frame_len as usize)?;
            let head = frame.and_then(|frame| Head::decode(frame.first_chunk()?).ok());
            let definition = head.zip(frame).and_then(|(head, frame)| {
                sealed.clear();
                sealed.extend(frame.get(head.definition())?);
                let cipher = self.keyring.cipher(head.epoch)?;
                cipher.open_definition_unscrubbed(&head, &mut sealed).ok()
            });
            if let Some(definition) = definition {
                self.index.define(uuid, Arc::new(definition));
            }
        }
        Ok(())
    }

    fn anchor_seen(&self, last: &Head) -> AnchorSeen {
        let Some((generation, _)) = self.anchor else { return AnchorSeen::None };
        match self.anchor_met {
            Some(true) => AnchorSeen::Same,
            Some(false) => AnchorSeen::Other,
            None if generation > last.generation => AnchorSeen::Beyond,
            None if self.first_commit.is_some_and(|first| generation < first) => AnchorSeen::Compacted,
            None => AnchorSeen::Other,
        }
    }

    /// Whether a later version went on where we see a tail: it must not be cut off as a torn write. A single such frame
    /// is more likely a damaged byte; what that version writes ends in a commit, and so has two at least.
    fn newer_tail(&self) -> Option<u8> {
        let tail = self.tail.as_ref().filter(|tail| tail.frames.is_empty())?;
        let begins_so = self.newer_at.contains(&tail.bytes.start);
        self.newer.filter(|_| begins_so && self.newer_at.range(tail.bytes.clone()).count() >= 2)
    }

    fn unreadable(&self) -> Unreadable {
        match (self.newer, self.other_store) {
            (Some(version), _) => Unreadable::Newer(version),
            (None, Some(store)) => Unreadable::OtherStore(store),
            (None, None) => Unreadable::Nothing,
        }
    }
}

/// Whether a head was sealed under a key of this keyring. The caller scrubs the stack.
pub(super) fn proves(keyring: &Keyring, head: &Head) -> bool {
    keyring.cipher(head.epoch).is_some_and(|cipher| cipher.proves_unscrubbed(head))
}

/// Reads a file mostly forwards, through a window.
pub(super) struct Reader<'a> {
    file: &'a dyn File,
    len: u64,
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
    fn only_zeros_from(&mut self, mut at: u64) -> io::Result<bool> {
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
