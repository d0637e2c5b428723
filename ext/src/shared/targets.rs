//! The targets file: who is busy, who waits, what is broken, for all processes of a state_dir.
//!
//! A header, the line's tags by key, a cell a backend and a cell a target. Counts stand once a slot, so that those of
//! a dead process can be taken away exactly; a sum over the slots is what all have. No lock on any request's path.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};

use rustix::fs::{MemfdFlags, memfd_create};

use super::breaker::Breaker;
use super::file;
use super::map::Map;
use super::slots::{SLOTS, Slot, Slots};
use super::state::fingerprint;
use super::targets_cells::Uses;

/// "pntarget", the last byte the layout's version: another layout is made anew.
const MAGIC: u64 = u64::from_le_bytes(*b"pntarg\x00\x01");
const MAX_CELLS: usize = 1 << 20;

// Where each word stands in the header.
const AT_MAGIC: usize = 0;
const AT_BOOT: usize = 1;
const AT_BACKENDS: usize = 2;
const AT_TARGETS: usize = 3;
const AT_GENERATION: usize = 4;
/// No slot from here on was ever claimed since it was last found free.
const AT_SLOTS_USED: usize = 5;
pub(super) const AT_BACKENDS_USED: usize = 6;
pub(super) const AT_TARGETS_USED: usize = 7;
/// The tag of the last one served.
pub(super) const AT_SERVED: usize = 8;
/// The highest tag given out.
pub(super) const AT_HIGHEST: usize = 9;
/// A word a slot: not 0 while it is claimed.
const AT_CLAIMED: usize = 64;
/// A word a slot: so many of its requests wait.
const AT_IN_LINE: usize = AT_CLAIMED + SLOTS;
const HEADER_BYTES: usize = 8192;
/// The next tag of each key, by the key's low bits.
pub(super) const KEYS: usize = 65_536;
const BACKENDS_AT: usize = HEADER_BYTES + KEYS * 8;

/// A backend's cell: key, flags, who uses it, then a word a slot of each of the three.
pub(super) const BACKEND_WORDS: usize = 8 + 3 * SLOTS;
/// A target's cell: key, the breaker's words, who uses it, the window's parts.
pub(super) const TARGET_WORDS: usize = 24;

/// The backend gets no new requests.
pub const FLAG_DRAINED: u64 = 1;
/// Its health check failed.
pub const FLAG_DOWN: u64 = 2;

/// The memory, and this process's slot in it.
#[derive(Debug)]
pub struct Targets {
    map: Map,
    file: File,
    path: PathBuf,
    slots: Slots,
    slot: Slot,
    process: u32,
    pub(super) backends: usize,
    pub(super) targets: usize,
    pub(super) uses: Mutex<Uses>,
}

/// A backend's counts, up to the last slot in use.
#[derive(Clone, Copy)]
pub struct Backend<'a> {
    pub flags: &'a AtomicU64,
    pub in_flight: &'a [AtomicU64],
    /// The lowest tag that waits here, a slot; 0 = nobody waits.
    pub lowest: &'a [AtomicU64],
    pub waiting: &'a [AtomicU64],
}

impl Targets {
    /// Opens the file, or makes it if it is not there, foreign, or of another boot; an empty path is memory of its own.
    pub fn open(path: &Path, boot_id: &[u8], backends: usize, targets: usize) -> io::Result<Self> {
        let (backends, targets) = (backends.clamp(1, MAX_CELLS), targets.clamp(1, MAX_CELLS));
        if path.as_os_str().is_empty() {
            let file = File::from(memfd_create("penstock-targets", MemfdFlags::CLOEXEC)?);
            file.set_len(length(backends, targets) as u64)?;
            let map = filled(&file, 0, backends, targets)?;
            return Self::with(map, file, path, Slots::private());
        }
        let _alone = file::lock_folder(&folder_of(path))?;
        let boot = fingerprint(boot_id);
        let (map, file) = match there(path, boot)? {
            Some(there) => there,
            None => {
                let file = file::make(path, length(backends, targets))?;
                let map = filled(&file, boot, backends, targets)?;
                file::publish(path)?;
                (map, file)
            }
        };
        Self::with(map, file, path, Slots::of(path)?)
    }

    /// Claims a slot; the folder must be locked.
    fn with(map: Map, file: File, path: &Path, slots: Slots) -> io::Result<Self> {
        let slot = slots.claim()?;
        let [backends, targets] = sizes(&map);
        let opened = Self {
            map,
            file,
            path: path.to_owned(),
            slots,
            slot,
            process: std::process::id(),
            backends,
            targets,
            uses: Mutex::default(),
        };
        opened.clear(opened.slot());
        if let Some(claimed) = opened.by_slot(AT_CLAIMED).get(opened.slot()) {
            claimed.store(u64::from(opened.process).max(1), SeqCst);
        }
        let used = opened.slot() as u64 + 1;
        opened.header(AT_SLOTS_USED).fetch_max(used, SeqCst);
        Ok(opened)
    }

    pub fn slot(&self) -> usize {
        self.slot.index
    }

    /// Whether this process opened it, not one that was forked later.
    pub(super) fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    #[inline]
    pub(super) fn header(&self, index: usize) -> &AtomicU64 {
        word(&self.map, index)
    }

    fn by_slot(&self, at: usize) -> &[AtomicU64] {
        self.map.words(at * 8, SLOTS)
    }

    /// How many of each slot's requests wait.
    pub(super) fn in_line(&self) -> &[AtomicU64] {
        let counts = self.by_slot(AT_IN_LINE);
        counts.get(..self.slots_used()).unwrap_or(counts)
    }

    #[inline]
    pub(super) fn slots_used(&self) -> usize {
        (self.header(AT_SLOTS_USED).load(SeqCst) as usize).min(SLOTS)
    }

    /// The next tag of a key.
    pub(super) fn next_tag(&self, key: u64) -> Option<&AtomicU64> {
        let index = key as usize % KEYS;
        self.map.words(HEADER_BYTES + index * 8, 1).first()
    }

    #[inline]
    pub(super) fn backend_words(&self, index: usize) -> &[AtomicU64] {
        let at = BACKENDS_AT + index * BACKEND_WORDS * 8;
        self.map.words(at, BACKEND_WORDS)
    }

    #[inline]
    pub(super) fn target_words(&self, index: usize) -> &[AtomicU64] {
        let at = BACKENDS_AT + (self.backends * BACKEND_WORDS + index * TARGET_WORDS) * 8;
        self.map.words(at, TARGET_WORDS)
    }

    #[inline]
    pub fn backend(&self, index: usize) -> Option<Backend<'_>> {
        let used = self.slots_used();
        let (head, counts) = self.backend_words(index).split_at_checked(8)?;
        let (in_flight, counts) = counts.split_at_checked(SLOTS)?;
        let (lowest, waiting) = counts.split_at_checked(SLOTS)?;
        Some(Backend {
            flags: head.get(1)?,
            in_flight: in_flight.get(..used)?,
            lowest: lowest.get(..used)?,
            waiting: waiting.get(..used)?,
        })
    }

    #[inline]
    pub fn breaker(&self, index: usize) -> Option<Breaker<'_>> {
        Breaker::of(self.target_words(index))
    }

    /// Runs `change` while nobody else adds or removes cells.
    pub(super) fn alone<T>(&self, change: impl FnOnce() -> T) -> io::Result<T> {
        // An opening of its own each time: it locks out other threads, and a fork's, as well.
        let lock = file::open_again(&self.file)?;
        file::lock(&lock)?;
        Ok(change())
    }

    /// Takes away what the processes held that are no more; of how many.
    pub fn sweep(&self) -> io::Result<usize> {
        if self.slots.are_private() {
            return Ok(0);
        }
        let mut freed = 0;
        for index in (0..self.slots_used()).filter(|&index| index != self.slot()) {
            let Some(claimed) = self.by_slot(AT_CLAIMED).get(index) else {
                break;
            };
            if claimed.load(SeqCst) == 0 {
                continue;
            }
            // While it is held here, nobody can claim it.
            let Some(_slot) = self.slots.try_claim(index)? else {
                continue;
            };
            self.clear(index);
            claimed.store(0, SeqCst);
            freed += 1;
        }
        if freed > 0 {
            self.forget_last_slots()?;
        }
        Ok(freed)
    }

    /// Sums need not look at the slots behind the last claimed one.
    fn forget_last_slots(&self) -> io::Result<()> {
        let folder = File::open(folder_of(&self.path))?;
        if file::try_lock(&folder)? {
            let mut claimed = self.by_slot(AT_CLAIMED).iter();
            let last = claimed.rposition(|claimed| claimed.load(SeqCst) != 0);
            let used = last.map_or(0, |last| last as u64 + 1);
            self.header(AT_SLOTS_USED).store(used, SeqCst);
        }
        Ok(())
    }

    /// Takes away all that stands under a slot whose holder is no more.
    fn clear(&self, slot: usize) {
        for index in 0..self.used(AT_BACKENDS_USED, self.backends) {
            let words = self.backend_words(index);
            for kind in 0..3 {
                if let Some(count) = words.get(8 + kind * SLOTS + slot) {
                    count.store(0, SeqCst);
                }
            }
            self.unuse(words, slot);
        }
        for index in 0..self.used(AT_TARGETS_USED, self.targets) {
            if let Some(breaker) = self.breaker(index) {
                breaker.give_back(slot);
            }
            self.unuse(self.target_words(index), slot);
        }
        if let Some(in_line) = self.in_line().get(slot) {
            in_line.store(0, SeqCst);
        }
    }

    /// Tries to be, or to stay, the one process that checks health.
    pub fn lead(&self) -> io::Result<bool> {
        self.slots.lead()
    }

    pub fn generation(&self) -> u64 {
        self.header(AT_GENERATION).load(Acquire)
    }

    /// The new generation.
    pub fn bump(&self) -> u64 {
        self.header(AT_GENERATION).fetch_add(1, SeqCst) + 1
    }
}

/// The file's map, if it is one of ours, whole, and of this boot.
fn there(path: &Path, boot: u64) -> io::Result<Option<(Map, File)>> {
    let Some(file) = file::open(path)? else {
        return Ok(None);
    };
    let Some(map) = mapped(&file, boot) else {
        return Ok(None);
    };
    file::fill_holes(&file)?;
    Ok(Some((map, file)))
}

fn mapped(file: &File, boot: u64) -> Option<Map> {
    let header = Map::new(file, HEADER_BYTES, 0..0).ok()?;
    let [backends, targets] = sizes(&header);
    let sound = word(&header, AT_MAGIC).load(Acquire) == MAGIC
        && word(&header, AT_BOOT).load(Acquire) == boot
        && (1..=MAX_CELLS).contains(&backends)
        && (1..=MAX_CELLS).contains(&targets);
    let map = sound.then(|| Map::new(file, length(backends, targets), 0..0));
    map?.ok()
}

/// A map of a file of zeros, with its header.
fn filled(file: &File, boot: u64, backends: usize, targets: usize) -> io::Result<Map> {
    let map = Map::new(file, length(backends, targets), 0..0)?;
    word(&map, AT_BOOT).store(boot, Relaxed);
    word(&map, AT_BACKENDS).store(backends as u64, Relaxed);
    word(&map, AT_TARGETS).store(targets as u64, Relaxed);
    word(&map, AT_MAGIC).store(MAGIC, Release);
    Ok(map)
}

/// Room for so many backends and targets.
fn sizes(map: &Map) -> [usize; 2] {
    [AT_BACKENDS, AT_TARGETS].map(|at| word(map, at).load(Acquire) as usize)
}

fn length(backends: usize, targets: usize) -> usize {
    BACKENDS_AT + (backends * BACKEND_WORDS + targets * TARGET_WORDS) * 8
}

/// A word of the header, which every map of a targets file holds whole.
#[inline]
fn word(map: &Map, index: usize) -> &AtomicU64 {
    static NOWHERE: AtomicU64 = AtomicU64::new(0);
    map.words(index * 8, 1).first().unwrap_or(&NOWHERE)
}

/// All slots' counts together.
#[inline]
pub(super) fn total(counts: &[AtomicU64]) -> u64 {
    let counts = counts.iter().map(|count| count.load(SeqCst));
    counts.fold(0, u64::saturating_add)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
