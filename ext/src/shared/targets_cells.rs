//! Which cell belongs to which backend or target, and who still uses it.
//!
//! Cells are looked up when a configuration is read, under the file's lock. Each says by a bit a slot which processes
//! use it; when no cell was never used, one that nobody uses any more is made new.

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, MutexGuard, PoisonError};

use super::breaker::Breaker;
use super::cells::Error;
use super::slots::SLOTS;
use super::targets::{AT_BACKENDS_USED, AT_TARGETS_USED, Backend, FLAG_DRAINED, Targets};

/// Where the bits of the slots stand in a cell; the same in both kinds.
const USERS_AT: usize = 2;
const USERS: usize = SLOTS / 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Backend,
    Target,
}

/// How many handles this process has on each cell.
#[derive(Debug, Default)]
pub struct Uses {
    backends: Vec<u32>,
    targets: Vec<u32>,
}

impl Uses {
    fn of(&mut self, kind: Kind, index: usize) -> Option<&mut u32> {
        let counts = match kind {
            Kind::Backend => &mut self.backends,
            Kind::Target => &mut self.targets,
        };
        if counts.len() <= index {
            counts.resize(index + 1, 0);
        }
        counts.get_mut(index)
    }
}

/// A cell in use: it stays the same one's as long as this lives.
#[derive(Debug)]
pub struct Cell {
    pub targets: Arc<Targets>,
    pub index: usize,
    kind: Kind,
}

impl Cell {
    /// The cell of that id, which is made if there is none.
    pub fn of(targets: &Arc<Targets>, kind: Kind, id: u64) -> Result<Self, Error> {
        let mut uses = targets.uses();
        let index = targets.alone(|| targets.resolve(kind, id))??;
        if let Some(count) = uses.of(kind, index) {
            *count += 1;
        }
        Ok(Self {
            targets: targets.clone(),
            index,
            kind,
        })
    }

    /// What stands in a backend's cell.
    pub fn backend(&self) -> Option<Backend<'_>> {
        self.targets.backend(self.index)
    }

    /// What stands in a target's cell.
    pub fn breaker(&self) -> Option<Breaker<'_>> {
        self.targets.breaker(self.index)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let mut uses = self.targets.uses();
        // A fork's copy is nobody's use.
        if !self.targets.is_ours() {
            return;
        }
        let Some(count) = uses.of(self.kind, self.index) else {
            return;
        };
        *count = count.saturating_sub(1);
        if *count == 0 {
            let words = self.targets.cell_words(self.kind, self.index);
            self.targets.unuse(words, self.targets.slot());
        }
    }
}

impl Targets {
    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cell_words(&self, kind: Kind, index: usize) -> &[AtomicU64] {
        match kind {
            Kind::Backend => self.backend_words(index),
            Kind::Target => self.target_words(index),
        }
    }

    /// How many cells of a kind have ever been used.
    pub(super) fn used(&self, at: usize, capacity: usize) -> usize {
        (self.header(at).load(Acquire) as usize).min(capacity)
    }

    /// Under the lock: the index of the id's cell, now used by this process.
    fn resolve(&self, kind: Kind, id: u64) -> Result<usize, Error> {
        let (at, capacity) = match kind {
            Kind::Backend => (AT_BACKENDS_USED, self.backends),
            Kind::Target => (AT_TARGETS_USED, self.targets),
        };
        let (key, used) = (key_of(id), self.used(at, capacity));
        let has_key = |index: usize| key_at(self.cell_words(kind, index)) == key;
        let index = match (0..used).find(|&index| has_key(index)) {
            Some(index) => index,
            None if used < capacity => {
                self.renew(kind, used, key);
                self.header(at).store(used as u64 + 1, Release);
                used
            }
            None => {
                let mut unused = (0..used).filter(|&index| self.is_unused(kind, index));
                let index = unused.next().ok_or(Error::Full)?;
                self.renew(kind, index, key);
                index
            }
        };
        let words = self.cell_words(kind, index);
        if let Some(users) = words.get(USERS_AT + self.slot() / 64) {
            users.fetch_or(1 << (self.slot() % 64), SeqCst);
        }
        Ok(index)
    }

    /// Makes a cell new, for that key.
    fn renew(&self, kind: Kind, index: usize, key: u64) {
        let words = self.cell_words(kind, index);
        words.iter().for_each(|word| word.store(0, SeqCst));
        if let Some(first) = words.first() {
            first.store(key, SeqCst);
        }
    }

    /// Whether no process uses a cell, and it says nothing that must be kept.
    fn is_unused(&self, kind: Kind, index: usize) -> bool {
        let words = self.cell_words(kind, index);
        let users = words.get(USERS_AT..USERS_AT + USERS).unwrap_or(words);
        let drained = match kind {
            Kind::Backend => self
                .backend(index)
                .is_some_and(|backend| backend.flags.load(Acquire) & FLAG_DRAINED != 0),
            Kind::Target => false,
        };
        !drained && users.iter().all(|bits| bits.load(SeqCst) == 0)
    }

    /// The slot does not use the cell any more.
    pub(super) fn unuse(&self, words: &[AtomicU64], slot: usize) {
        if let Some(users) = words.get(USERS_AT + slot / 64) {
            users.fetch_and(!(1 << (slot % 64)), SeqCst);
        }
    }
}

fn key_at(words: &[AtomicU64]) -> u64 {
    words.first().map_or(0, |key| key.load(Acquire))
}

/// An id as a key, which is never 0.
fn key_of(id: u64) -> u64 {
    if id == 0 { 1 << 63 } else { id }
}
