//! What all workers of a state_dir know of the cache: what is to be forgotten, how often what was found, how full it is.
//!
//! The last clears stand in a ring; a store that is behind by more forgets all. Names are told apart by 64 bits: two
//! that share them are cleared together. How full it is stands once a slot, so that a dead worker's part can be taken
//! away; a sum over the slots is what all have.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::*};

use rustix::fs::{MemfdFlags, memfd_create};

use super::figures::ROWS_WORDS;
use crate::shared::file;
use crate::shared::fingerprint;
use crate::shared::map::Map;
use crate::shared::slots::{SLOTS, Slot, Slots};

/// "pncache", the last byte the layout's version: another layout is made anew.
const MAGIC: u64 = u64::from_le_bytes(*b"pncache\x01");

// Where each word stands.
const AT_MAGIC: usize = 0;
const AT_BOOT: usize = 1;
/// How many clears there were.
const AT_GENERATION: usize = 2;
/// No slot from here on was ever claimed.
const AT_SLOTS_USED: usize = 3;
/// A word a slot: not 0 while it is claimed.
const AT_CLAIMED: usize = 64;
const AT_ENTRIES: usize = AT_CLAIMED + SLOTS;
const AT_BYTES: usize = AT_ENTRIES + SLOTS;
/// The ring: what is meant, and the fingerprint of its name.
const AT_RING: usize = AT_BYTES + SLOTS;
const RING: u64 = 64;
/// The models' figures.
pub(super) const AT_ROWS: usize = 1024;

const LENGTH: usize = (AT_ROWS + ROWS_WORDS) * 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    All = 0,
    Model = 1,
    Tenant = 2,
}

impl Kind {
    pub fn of(number: u64) -> Option<Self> {
        [Self::All, Self::Model, Self::Tenant]
            .into_iter()
            .find(|&kind| kind as u64 == number)
    }
}

/// Clears since some moment.
#[derive(Debug)]
pub struct Pending {
    /// Which were all.
    pub until: u64,
    all: bool,
    /// Kind and fingerprint.
    some: Vec<(u64, u64)>,
}

impl Pending {
    pub fn covers(&self, model: u64, tenant: u64) -> bool {
        let named = |&(kind, name): &(u64, u64)| {
            (kind == Kind::Model as u64 && name == model)
                || (kind == Kind::Tenant as u64 && name == tenant)
        };
        self.all || self.some.iter().any(named)
    }
}

/// The memory, and this process's slot in it.
#[derive(Debug)]
pub struct Clears {
    map: Map,
    file: File,
    slots: Slots,
    slot: Slot,
}

impl Clears {
    /// Opens the file, or makes it if it is not there, foreign, or of another boot; an empty path is memory of its own.
    pub fn open(path: &Path, boot_id: &[u8]) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            let file = File::from(memfd_create("penstock-cache", MemfdFlags::CLOEXEC)?);
            file.set_len(LENGTH as u64)?;
            return Self::with(filled(&file, 0)?, file, Slots::private());
        }
        let _alone = file::lock_folder(&folder_of(path))?;
        let boot = fingerprint(boot_id);
        let there = file::open(path)?.and_then(|file| Some((mapped(&file, boot)?, file)));
        let (map, file) = match there {
            Some(there) => there,
            None => {
                let file = file::make(path, LENGTH)?;
                let map = filled(&file, boot)?;
                file::publish(path)?;
                (map, file)
            }
        };
        file::fill_holes(&file)?;
        Self::with(map, file, Slots::of(path)?)
    }

    /// Claims a slot; the folder must be locked.
    fn with(map: Map, file: File, slots: Slots) -> io::Result<Self> {
        let slot = slots.claim()?;
        let opened = Self {
            map,
            file,
            slots,
            slot,
        };
        opened.empty(opened.slot.index);
        let claimed = opened.word(AT_CLAIMED + opened.slot.index);
        claimed.store(u64::from(std::process::id()).max(1), SeqCst);
        let used = opened.slot.index as u64 + 1;
        opened.word(AT_SLOTS_USED).fetch_max(used, SeqCst);
        Ok(opened)
    }

    #[inline]
    pub(super) fn word(&self, index: usize) -> &AtomicU64 {
        word(&self.map, index)
    }

    /// Runs `change` while nobody else clears or adds a model.
    pub(super) fn alone<T>(&self, change: impl FnOnce() -> T) -> io::Result<T> {
        let lock = file::open_again(&self.file)?;
        file::lock(&lock)?;
        Ok(change())
    }

    /// Tells all stores to forget; the new generation.
    pub fn clear(&self, kind: Kind, name: &[u8]) -> io::Result<u64> {
        self.alone(|| {
            let generation = self.generation();
            let at = ring_at(generation);
            self.word(at).store(kind as u64, SeqCst);
            self.word(at + 1).store(fingerprint(name), SeqCst);
            self.word(AT_GENERATION).store(generation + 1, SeqCst);
            generation + 1
        })
    }

    /// How many clears there were.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.word(AT_GENERATION).load(Acquire)
    }

    /// What was cleared since a generation; None if nothing.
    #[inline]
    pub fn since(&self, generation: u64) -> Option<Pending> {
        let until = self.generation();
        (until != generation).then(|| self.pending(generation, until))
    }

    #[cold]
    fn pending(&self, generation: u64, until: u64) -> Pending {
        // The one place that may be written just now is the oldest one's, so one less than all can be read.
        let too_old = |until: u64| until.wrapping_sub(generation) >= RING;
        let mut some = Vec::new();
        if !too_old(until) {
            some.extend((generation..until).map(|at| {
                let at = ring_at(at);
                (self.word(at).load(SeqCst), self.word(at + 1).load(SeqCst))
            }));
        }
        let all = too_old(self.generation()) || some.iter().any(|&(kind, _)| kind == 0);
        Pending { until, all, some }
    }

    /// This worker's part changed; negative numbers wrap.
    pub fn change(&self, entries: u64, bytes: u64) {
        let slot = self.slot.index;
        self.word(AT_ENTRIES + slot).fetch_add(entries, Relaxed);
        self.word(AT_BYTES + slot).fetch_add(bytes, Relaxed);
    }

    pub fn entries(&self) -> u64 {
        self.sum(AT_ENTRIES)
    }

    pub fn bytes(&self) -> u64 {
        self.sum(AT_BYTES)
    }

    fn slots_used(&self) -> usize {
        (self.word(AT_SLOTS_USED).load(SeqCst) as usize).min(SLOTS)
    }

    fn sum(&self, at: usize) -> u64 {
        let slots = 0..self.slots_used();
        let parts = slots.map(|slot| self.word(at + slot).load(Relaxed));
        parts.fold(0, u64::wrapping_add)
    }

    fn empty(&self, slot: usize) {
        self.word(AT_ENTRIES + slot).store(0, SeqCst);
        self.word(AT_BYTES + slot).store(0, SeqCst);
    }

    /// Takes away the parts of processes that are no more; of how many.
    pub fn sweep(&self) -> io::Result<usize> {
        if self.slots.are_private() {
            return Ok(0);
        }
        let mut freed = 0;
        for index in (0..self.slots_used()).filter(|&index| index != self.slot.index) {
            let claimed = self.word(AT_CLAIMED + index);
            if claimed.load(SeqCst) == 0 {
                continue;
            }
            // While it is held here, nobody can claim it.
            let Some(_slot) = self.slots.try_claim(index)? else {
                continue;
            };
            self.empty(index);
            claimed.store(0, SeqCst);
            freed += 1;
        }
        Ok(freed)
    }
}

fn ring_at(generation: u64) -> usize {
    AT_RING + 2 * (generation % RING) as usize
}

/// The file's map, if it is one of ours, whole, and of this boot.
fn mapped(file: &File, boot: u64) -> Option<Map> {
    let map = Map::new(file, LENGTH, 0..0).ok()?;
    let sound =
        word(&map, AT_MAGIC).load(Acquire) == MAGIC && word(&map, AT_BOOT).load(Acquire) == boot;
    sound.then_some(map)
}

/// A map of a file of zeros, with its header.
fn filled(file: &File, boot: u64) -> io::Result<Map> {
    let map = Map::new(file, LENGTH, 0..0)?;
    word(&map, AT_BOOT).store(boot, Relaxed);
    word(&map, AT_MAGIC).store(MAGIC, Release);
    Ok(map)
}

#[inline]
fn word(map: &Map, index: usize) -> &AtomicU64 {
    static NOWHERE: AtomicU64 = AtomicU64::new(0);
    map.words(index * 8, 1).first().unwrap_or(&NOWHERE)
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
