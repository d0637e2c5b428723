//! A worker's part of the cache: entries in an arena, found by key, held by those that read them.

use std::collections::TryReserveError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::{Arena, BLOCK};
use super::clears::{Clears, Pending};
use super::figures::{HITS, MISSES, STORED};
use super::ghost::{self, Ghost};
use super::header::*;
use super::index::{self, Index};
use super::queue::Queue;
use crate::shared::fingerprint;

/// What a block takes besides its own bytes: its link, its places in the index and among the ghosts.
const BYTES_PER_BLOCK: usize = BLOCK + 4 + index::BYTES_PER_BLOCK + ghost::BYTES_PER_BLOCK;
/// What a store takes of the reserved memory besides its blocks, at most.
const BYTES_AT_LEAST: usize = 64;
const MOST_USE: u32 = 3;

/// What is to be stored.
#[derive(Debug)]
pub struct Offer<'a> {
    pub key: &'a [u8; 32],
    pub model: &'a [u8],
    pub tenant: &'a [u8],
    pub head: &'a [u8],
    pub chunks: &'a [&'a [u8]],
    pub kind: u32,
    pub now_ns: u64,
    pub ttl_ns: u64,
    /// The generation of clears when it was asked for.
    pub since: Option<u64>,
}

/// What is looked for.
#[derive(Debug)]
pub struct Wanted<'a> {
    pub key: &'a [u8; 32],
    pub now_ns: u64,
    /// Stored then or later.
    pub stored_from_ns: u64,
    /// Fresh until then at least.
    pub fresh_until_ns: u64,
}

/// What the database is told of an entry.
#[derive(Debug)]
pub struct Fact {
    pub key: [u8; 32],
    pub model: Vec<u8>,
    pub stored_ns: u64,
    pub expires_ns: u64,
    pub hits: u32,
}

#[derive(Debug)]
pub struct Store {
    pub(super) arena: Arena,
    pub(super) index: Index,
    pub(super) ghost: Ghost,
    pub(super) small: Queue,
    pub(super) main: Queue,
    /// Those whose facts were not told since they changed.
    changed: Queue,
    /// Blocks of entries that are being read.
    held: u32,
    pub entries: usize,
    pub(super) clears: Arc<Clears>,
    /// The generation of clears that was seen to.
    cleared: u64,
    max_entry_bytes: usize,
}

/// A store that its entries share.
#[derive(Debug)]
pub struct SharedStore(Mutex<Store>);

impl SharedStore {
    /// Err: the kernel would not give so much.
    pub fn new(
        max_bytes: usize,
        clears: Arc<Clears>,
        max_entry_bytes: usize,
    ) -> Result<Self, TryReserveError> {
        // What is reserved below would end the process if it could not be had; nothing of it is touched here.
        Vec::<u8>::new().try_reserve_exact(max_bytes)?;
        Ok(Self(Mutex::new(Store::new(
            max_bytes,
            clears,
            max_entry_bytes,
        ))))
    }

    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    fn new(max_bytes: usize, clears: Arc<Clears>, max_entry_bytes: usize) -> Self {
        let blocks = max_bytes.saturating_sub(BYTES_AT_LEAST) / BYTES_PER_BLOCK;
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX).min(u32::MAX - 2);
        Self {
            arena: Arena::new(blocks),
            index: Index::new(blocks),
            ghost: Ghost::new(blocks),
            small: Queue::new(QUEUED),
            main: Queue::new(QUEUED),
            changed: Queue::new(LISTED),
            held: 0,
            entries: 0,
            cleared: clears.generation(),
            clears,
            max_entry_bytes,
        }
    }

    pub fn bytes(&self) -> usize {
        self.arena.used() as usize * BLOCK
    }

    /// The entry, which is held until `release`.
    pub fn get(&mut self, wanted: &Wanted<'_>) -> Option<u32> {
        self.forget_cleared();
        let entry = self.index.find(&self.arena, wanted.key)?;
        let expires = self.arena.number(entry, EXPIRES_NS);
        if expires <= wanted.now_ns {
            self.remove(entry);
            return None;
        }
        let stored = self.arena.number(entry, STORED_NS);
        if stored < wanted.stored_from_ns || expires < wanted.fresh_until_ns {
            return None;
        }
        self.hit(entry);
        Some(entry)
    }

    /// Nothing was found for a request of that model.
    pub fn missed(&self, model: &[u8]) {
        self.clears.count(self.clears.row(model), MISSES, 1);
    }

    fn hit(&mut self, entry: u32) {
        let arena = &mut self.arena;
        arena.set(entry, FOUND, arena.get(entry, FOUND).saturating_add(1));
        arena.set(entry, USE, (arena.get(entry, USE) + 1).min(MOST_USE));
        let readers = arena.get(entry, READERS);
        if readers == 0 {
            self.held += arena.get(entry, BLOCKS);
        }
        arena.set(entry, READERS, readers + 1);
        self.clears.count(arena.get(entry, ROW), HITS, 1);
        self.note_change(entry);
    }

    /// One that held it reads no more. What was evicted meanwhile is free after the last one.
    pub(super) fn release(&mut self, entry: u32) {
        let readers = self.arena.get(entry, READERS).saturating_sub(1);
        self.arena.set(entry, READERS, readers);
        if readers > 0 {
            return;
        }
        self.held = self.held.saturating_sub(self.arena.get(entry, BLOCKS));
        if self.arena.get(entry, QUEUE) == OUT {
            self.free(entry);
        }
    }

    /// Whether it was stored.
    pub fn put(&mut self, offer: &Offer<'_>) -> bool {
        self.forget_cleared();
        let (model, tenant) = (fingerprint(offer.model), fingerprint(offer.tenant));
        let cleared = |pending: Pending| pending.covers(model, tenant);
        let late = offer.since.and_then(|since| self.clears.since(since));
        let Some(blocks) = self.blocks_of(offer) else {
            return false;
        };
        if offer.ttl_ns == 0 || late.is_some_and(cleared) {
            return false;
        }
        // What is being read cannot be made room of.
        if blocks > self.arena.blocks() - self.held {
            return false;
        }
        let queue = self.replace(offer.key);
        let Some(entry) = self.make_room(blocks, offer.now_ns) else {
            return false;
        };
        self.arena.set(entry, BLOCKS, blocks);
        self.arena.set_number(entry, MODEL, model);
        self.arena.set_number(entry, TENANT, tenant);
        self.fill(entry, offer);
        self.enter(entry, queue);
        self.clears.count(self.arena.get(entry, ROW), STORED, 1);
        true
    }

    /// How many it takes; None if it is too big.
    fn blocks_of(&self, offer: &Offer<'_>) -> Option<u32> {
        let body: usize = offer.chunks.iter().map(|chunk| chunk.len()).sum();
        if body + offer.head.len() > self.max_entry_bytes || offer.model.len() > BLOCK {
            return None;
        }
        let lengths = offer.chunks.len() * 4;
        let bytes = HEADER + offer.model.len() + offer.head.len() + lengths + body;
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).ok()?;
        (blocks <= self.arena.blocks() && u32::try_from(body).is_ok()).then_some(blocks)
    }

    /// Writes an entry of which BLOCKS, MODEL and TENANT are set.
    fn fill(&mut self, entry: u32, offer: &Offer<'_>) {
        let body: usize = offer.chunks.iter().map(|chunk| chunk.len()).sum();
        let row = self.clears.row(offer.model);
        let arena = &mut self.arena;
        arena.set_key(entry, offer.key);
        arena.set_number(entry, STORED_NS, offer.now_ns);
        let expires = offer.now_ns.saturating_add(offer.ttl_ns);
        arena.set_number(entry, EXPIRES_NS, expires);
        for (number, value) in [
            (NAME_BYTES, offer.model.len() as u32),
            (HEAD_BYTES, offer.head.len() as u32),
            (CHUNKS, offer.chunks.len() as u32),
            (BODY_BYTES, body as u32),
            (ROW, row),
            (KIND, offer.kind),
            (FOUND, 0),
            (READERS, 0),
            (USE, 0),
            (CHANGED, 0),
        ] {
            arena.set(entry, number, value);
        }
        let mut place = arena.place(entry, 0);
        arena.write(&mut place, offer.model);
        arena.write(&mut place, offer.head);
        for chunk in offer.chunks {
            arena.write(&mut place, &(chunk.len() as u32).to_ne_bytes());
        }
        for chunk in offer.chunks {
            arena.write(&mut place, chunk);
        }
    }

    fn enter(&mut self, entry: u32, queue: u32) {
        self.arena.set(entry, QUEUE, queue);
        match queue {
            MAIN => self.main.push(&mut self.arena, entry),
            _ => self.small.push(&mut self.arena, entry),
        }
        self.index.insert(&self.arena, entry);
        self.entries += 1;
        self.tell(1, self.arena.used());
        self.note_change(entry);
    }

    /// Takes an entry out of everything. It stays for those that read it.
    pub(super) fn remove(&mut self, entry: u32) {
        let key = self.arena.key(entry);
        self.index.remove(&self.arena, &key);
        match self.arena.get(entry, QUEUE) {
            MAIN => self.main.remove(&mut self.arena, entry),
            _ => self.small.remove(&mut self.arena, entry),
        }
        if self.arena.get(entry, CHANGED) == 1 {
            self.changed.remove(&mut self.arena, entry);
        }
        self.arena.set(entry, QUEUE, OUT);
        self.entries -= 1;
        self.tell(u64::MAX, self.arena.used());
        if self.arena.get(entry, READERS) == 0 {
            self.free(entry);
        }
    }

    fn free(&mut self, entry: u32) {
        let before = self.arena.used();
        self.arena.release(entry);
        self.tell(0, before);
    }

    /// Tells the other workers' figures: so many entries more, and what is used now against `before`.
    pub(super) fn tell(&self, entries: u64, before: u32) {
        let blocks = u64::from(self.arena.used()).wrapping_sub(u64::from(before));
        self.clears
            .change(entries, blocks.wrapping_mul(BLOCK as u64));
    }

    fn note_change(&mut self, entry: u32) {
        if self.arena.get(entry, CHANGED) == 0 {
            self.arena.set(entry, CHANGED, 1);
            self.changed.push(&mut self.arena, entry);
        }
    }

    /// Those that were stored or found since they were last told, the first ones first.
    pub fn facts(&mut self, limit: usize) -> Vec<Fact> {
        let mut facts = Vec::new();
        while facts.len() < limit {
            let Some(entry) = self.changed.oldest() else {
                break;
            };
            self.changed.remove(&mut self.arena, entry);
            self.arena.set(entry, CHANGED, 0);
            facts.push(self.fact(entry));
        }
        facts
    }

    fn fact(&self, entry: u32) -> Fact {
        let mut model = vec![0; self.arena.get(entry, NAME_BYTES) as usize];
        self.arena.read(&mut self.arena.place(entry, 0), &mut model);
        Fact {
            key: self.arena.key(entry),
            model,
            stored_ns: self.arena.number(entry, STORED_NS),
            expires_ns: self.arena.number(entry, EXPIRES_NS),
            hits: self.arena.get(entry, FOUND),
        }
    }

    #[inline]
    fn forget_cleared(&mut self) {
        if let Some(pending) = self.clears.since(self.cleared) {
            self.forget(&pending);
        }
    }

    #[cold]
    fn forget(&mut self, pending: &Pending) {
        self.cleared = pending.until;
        let arena = &self.arena;
        let all = self.small.entries(arena).chain(self.main.entries(arena));
        let covered = |&entry: &u32| {
            let (model, tenant) = (arena.number(entry, MODEL), arena.number(entry, TENANT));
            pending.covers(model, tenant)
        };
        let covered: Vec<u32> = all.filter(covered).collect();
        covered.into_iter().for_each(|entry| self.remove(entry));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let (entries, bytes) = (self.entries as u64, self.bytes() as u64);
        self.clears
            .change(entries.wrapping_neg(), bytes.wrapping_neg());
    }
}
