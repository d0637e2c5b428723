//! Which entries go when room is needed: S3-FIFO (Yang et al., SOSP 2023), sizes counted in blocks.
//!
//! A new entry enters the small queue, a tenth of the room; used there it goes on to the main queue, else it leaves and
//! only a mark of its key stays. A key that comes again while its mark is there enters the main queue at once, whose
//! entries go round as often as they were used, at most three times. So what is asked for once, as in a scan, passes
//! through the small queue alone. One hit in the small queue is enough to stay, where the paper asks for two: on Zipf
//! traces with scans that finds up to 7 % more.

use super::figures::EVICTIONS;
use super::header::*;
use super::store::Store;

/// Used so often in the small queue, an entry goes on to the main one.
const USE_TO_STAY: u32 = 1;
/// So many used entries are spared for one that comes; the next ones go as if they were not used. Else 128,000 small
/// ones, all used, would go round three times for one of 5 MB: 14 ms in which the worker does nothing else, now 3.
const MOST_SPARED: usize = 2_000;

impl Store {
    /// Removes an entry of that key; the queue that a new one enters.
    pub(super) fn replace(&mut self, key: &[u8; 32]) -> u32 {
        if let Some(old) = self.index.find(&self.arena, key) {
            let queue = self.arena.get(old, QUEUE);
            self.remove(old);
            return queue;
        }
        let main = self.arena.blocks() - self.arena.blocks() / 10;
        match self.ghost.take(key, main) {
            true => MAIN,
            false => SMALL,
        }
    }

    /// A chain of so many blocks; None if what is there is being read.
    pub(super) fn make_room(&mut self, blocks: u32, now_ns: u64) -> Option<u32> {
        let mut spared = 0;
        while self.arena.blocks() - self.arena.used() < blocks {
            spared += usize::from(self.evict(now_ns, spared < MOST_SPARED)?);
        }
        let before = self.arena.used();
        let first = self.arena.allocate(blocks);
        self.tell(0, before);
        first
    }

    /// One step of eviction: whether an entry was spared that could have gone; None if there is nothing to evict.
    fn evict(&mut self, now_ns: u64, may_spare: bool) -> Option<bool> {
        let main = self.main.oldest();
        let full = self.small.blocks >= self.arena.blocks() / 10;
        let small = self.small.oldest().filter(|_| full || main.is_none());
        let entry = small.or(main)?;
        if self.arena.number(entry, EXPIRES_NS) <= now_ns {
            self.remove(entry);
            return Some(false);
        }
        let used = self.arena.get(entry, USE);
        let spared = match small {
            Some(_) => may_spare && used >= USE_TO_STAY,
            None => may_spare && used > 0,
        };
        match (spared, small) {
            (true, Some(_)) => self.promote(entry),
            (true, None) => self.go_round(entry, used),
            (false, _) => self.drive_out(entry, small.is_some()),
        }
        Some(spared)
    }

    /// From the small queue to the main one, as if it were new there.
    fn promote(&mut self, entry: u32) {
        self.small.remove(&mut self.arena, entry);
        self.main.push(&mut self.arena, entry);
        self.arena.set(entry, USE, 0);
        self.arena.set(entry, QUEUE, MAIN);
    }

    fn go_round(&mut self, entry: u32, used: u32) {
        self.arena.set(entry, USE, used.saturating_sub(1));
        self.main.remove(&mut self.arena, entry);
        self.main.push(&mut self.arena, entry);
    }

    fn drive_out(&mut self, entry: u32, mark: bool) {
        if mark {
            let blocks = self.arena.get(entry, BLOCKS);
            self.ghost.add(&self.arena.key(entry), blocks);
        }
        self.clears.count(self.arena.get(entry, ROW), EVICTIONS, 1);
        self.remove(entry);
    }
}
