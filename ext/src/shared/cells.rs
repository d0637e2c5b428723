//! The table of cells: found by key without a lock, added and removed under one.
//!
//! Open addressing, linear probing. A key is EMPTY, TOMB (removed; probes go on) or a limit's. Who changes a cell's
//! word looks at the key before and after, so a change that meets a removal is undone and made on the right cell.
//! Removal marks the word DEAD first, which no change can follow; a remover that is killed leaves a DEAD cell, that
//! the next one who needs it, under the lock, makes new.

use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use super::rule::{self, Rule};
use super::state::{CELL_BYTES, HEADER_BYTES, State};
use super::window::{Clock, Window};

const EMPTY: u64 = 0;
const TOMB: u64 = 1;
const DEAD: u64 = u64::MAX;
/// An index of no cell: not looked up yet.
pub const NOWHERE: u32 = u32::MAX;
/// Cells swept in one go: inserts in other processes wait no longer than this takes (~30 us).
const SWEEP_STEP: u32 = 8192;
/// Calendar cells stay this long after their window, lest a clock that steps back finds them forgotten.
const SWEEP_GRACE_NS: u64 = 2 * 3_600_000_000_000;

#[derive(Debug)]
pub enum Error {
    Io(io::Error),
    /// No room for another cell.
    Full,
    /// The cell exists with another window.
    Mismatch,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Io(error)
    }
}

struct Cell<'a> {
    key: &'a AtomicU64,
    word: &'a AtomicU64,
    window: &'a AtomicU64,
}

/// A change that was made: where, and the word it left.
#[derive(Clone, Copy, Debug)]
pub struct Changed<T> {
    pub index: u32,
    pub made: T,
}

impl State {
    fn cell(&self, index: u32) -> Option<Cell<'_>> {
        match self
            .map
            .words(HEADER_BYTES + index as usize * CELL_BYTES, CELL_BYTES / 8)
        {
            [key, word, window, _] => Some(Cell { key, word, window }),
            _ => None,
        }
    }

    fn home(&self, key: u64) -> u32 {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32 & (self.capacity - 1)
    }

    /// The indexes in the order they are probed for a key.
    fn probes(&self, key: u64) -> impl Iterator<Item = u32> {
        let (home, mask) = (self.home(key), self.capacity - 1);
        (0..self.capacity).map(move |step| home.wrapping_add(step) & mask)
    }

    /// The index of a key's cell. May miss one that is being added just now.
    pub fn find(&self, key: u64) -> Option<u32> {
        for index in self.probes(key) {
            match self.cell(index)?.key.load(Acquire) {
                EMPTY => return None,
                found if found == key => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// The key's word, 0 if it has no cell. `hint` remembers where the cell is.
    pub fn word(&self, key: u64, window: Window, hint: &AtomicU32) -> u64 {
        if let Some(word) = self.live_word(key, hint.load(Relaxed)) {
            return word;
        }
        let found = self
            .find(key)
            .and_then(|index| self.checked(index, window).ok());
        let Some(index) = found else { return 0 };
        hint.store(index, Relaxed);
        self.live_word(key, index).unwrap_or(0)
    }

    fn live_word(&self, key: u64, index: u32) -> Option<u64> {
        let cell = self.cell(index)?;
        let word = cell.word.load(Acquire);
        (word != DEAD && cell.key.load(Acquire) == key).then_some(word)
    }

    /// The index of the key's cell, which is made if there is none.
    pub fn resolve(&self, key: u64, window: Window) -> Result<u32, Error> {
        if let Some(index) = self
            .find(key)
            .filter(|&index| self.live_word(key, index).is_some())
        {
            return self.checked(index, window);
        }
        self.alone(|| self.insert(key, window))?
    }

    fn checked(&self, index: u32, window: Window) -> Result<u32, Error> {
        let there = self.cell(index).map(|cell| cell.window.load(Acquire));
        if there == Some(window as u64) {
            Ok(index)
        } else {
            Err(Error::Mismatch)
        }
    }

    /// Under the lock.
    fn insert(&self, key: u64, window: Window) -> Result<u32, Error> {
        let mut free = None;
        for index in self.probes(key) {
            let Some(cell) = self.cell(index) else { break };
            match cell.key.load(Acquire) {
                found if found == key => {
                    let _ = cell.word.compare_exchange(DEAD, 0, SeqCst, SeqCst);
                    return self.checked(index, window);
                }
                EMPTY => {
                    free = free.or(Some((index, cell)));
                    break;
                }
                TOMB => free = free.or(Some((index, cell))),
                _ => {}
            }
        }
        // An eighth stays free: without empty cells every miss would look at the whole table.
        let full = self.cells_used() >= u64::from(self.capacity - self.capacity / 8);
        let (index, cell) = free.filter(|_| !full).ok_or(Error::Full)?;
        cell.word.store(0, Release);
        cell.window.store(window as u64, Release);
        cell.key.store(key, SeqCst);
        self.set_cells_used(self.cells_used() + 1);
        Ok(index)
    }

    /// Replaces the word of a key's cell by what `change` makes of it, however many others do so too.
    ///
    /// `change` may run more than once; what it refuses with is handed back.
    pub fn change<T, E>(
        &self,
        key: u64,
        window: Window,
        hint: u32,
        mut change: impl FnMut(u64) -> Result<(u64, T), E>,
    ) -> Result<Result<Changed<T>, E>, Error> {
        let mut index = hint;
        loop {
            let Some((word, cell)) = self.live_word(key, index).zip(self.cell(index)) else {
                index = self.resolve(key, window)?;
                continue;
            };
            let (new, made) = match change(word) {
                Ok(made) => made,
                Err(refused) => return Ok(Err(refused)),
            };
            if cell
                .word
                .compare_exchange(word, new, SeqCst, Acquire)
                .is_err()
            {
                continue;
            }
            if cell.key.load(SeqCst) == key {
                return Ok(Ok(Changed { index, made }));
            }
            // The cell was removed in between. If another key has it and uses it already, it keeps what we took:
            // too little is admitted there, never too much.
            let _ = cell.word.compare_exchange(new, word, SeqCst, Acquire);
        }
    }

    /// Replaces the word of a key's cell if it is still `seen`. False: nothing was changed, and `change` is to be asked.
    #[inline]
    pub fn replace(&self, key: u64, index: u32, seen: u64, new: u64) -> bool {
        let Some(cell) = self.cell(index) else {
            return false;
        };
        if cell.key.load(Acquire) != key
            || cell
                .word
                .compare_exchange(seen, new, SeqCst, Acquire)
                .is_err()
        {
            return false;
        }
        if cell.key.load(SeqCst) == key {
            return true;
        }
        // Removed in between: see `change`.
        let _ = cell.word.compare_exchange(new, seen, SeqCst, Acquire);
        false
    }

    /// Like `change`, for a cell that need not be there: if it was removed, nothing is left to change.
    pub fn change_if_there(&self, key: u64, hint: u32, mut change: impl FnMut(u64) -> Option<u64>) {
        let mut index = hint;
        loop {
            let Some((word, cell)) = self.live_word(key, index).zip(self.cell(index)) else {
                match self.find(key) {
                    Some(found) if found != index => index = found,
                    _ => return,
                }
                continue;
            };
            let Some(new) = change(word) else { return };
            if cell
                .word
                .compare_exchange(word, new, SeqCst, Acquire)
                .is_err()
            {
                continue;
            }
            if cell.key.load(SeqCst) == key {
                return;
            }
            let _ = cell.word.compare_exchange(new, word, SeqCst, Acquire);
        }
    }

    /// Sets a calendar cell to an amount used in the window the clock lies in.
    pub fn seed(&self, key: u64, window: Window, amount: u64, clock: &Clock) -> Result<(), Error> {
        let word = rule::calendar(clock.index(window) as u16, amount);
        let made = self.change(key, window, NOWHERE, |_| {
            Ok::<_, std::convert::Infallible>((word, ()))
        })?;
        made.map(|_| ()).map_err(|never| match never {})
    }

    /// What a calendar or in-flight cell counts now.
    pub fn used(&self, key: u64, window: Window, clock: &Clock) -> u64 {
        let word = self.word(key, window, &AtomicU32::new(NOWHERE));
        Rule::new(window, 0, None).standing(word, clock).used
    }

    /// Removes the cells that equal new ones; how many.
    pub fn sweep(&self, clock: &Clock) -> io::Result<u64> {
        let (mut freed, mut used, mut end) = (0, 0, self.capacity);
        while end > 0 {
            let start = end.saturating_sub(SWEEP_STEP);
            self.alone(|| {
                for index in (start..end).rev() {
                    match self.sweep_cell(index, clock) {
                        Some(true) => freed += 1,
                        Some(false) => used += 1,
                        None => {}
                    }
                }
            })?;
            end = start;
        }
        // Cells added meanwhile in the parts already passed are missed; the count is only a guard against a full table.
        self.alone(|| self.set_cells_used(used))?;
        Ok(freed)
    }

    /// Under the lock: whether a cell in use was removed; None if it was not in use.
    fn sweep_cell(&self, index: u32, clock: &Clock) -> Option<bool> {
        let cell = self.cell(index)?;
        let removed = match cell.key.load(Acquire) {
            EMPTY => return None,
            TOMB => None,
            _ if !self.retire(&cell, clock) => return Some(false),
            _ => {
                cell.key.store(TOMB, SeqCst);
                Some(true)
            }
        };
        cell.word.store(0, SeqCst);
        // No probe needs to pass a tomb that an empty cell follows.
        let next = self.cell((index + 1) & (self.capacity - 1))?;
        if next.key.load(Acquire) == EMPTY {
            cell.key.store(EMPTY, SeqCst);
        }
        removed
    }

    /// Marks a cell that equals a new one DEAD.
    fn retire(&self, cell: &Cell<'_>, clock: &Clock) -> bool {
        let word = cell.word.load(Acquire);
        let like_new = match Window::of(cell.window.load(Acquire)) {
            None => true,
            _ if word == DEAD => true,
            Some(Window::Bucket) => word <= clock.now,
            Some(Window::None) => word & u64::from(u32::MAX) == 0,
            Some(window) => {
                let ended = clock.widen(window, (word >> 48) as u16);
                word == 0 || clock.since_end(window, ended) >= SWEEP_GRACE_NS
            }
        };
        like_new
            && cell
                .word
                .compare_exchange(word, DEAD, SeqCst, Acquire)
                .is_ok()
    }

    /// Lowers the in-flight cells that count more than `held` says of their key; how many were lowered.
    ///
    /// `held` must look after this has read the word: every change raises the word's version, so a count that is
    /// written had no change between.
    pub fn reconcile(
        &self,
        held: impl Fn() -> std::collections::HashMap<u64, u64>,
    ) -> io::Result<u64> {
        self.alone(|| {
            let cells = (0..self.capacity).filter_map(|index| {
                let cell = self.cell(index)?;
                let word = cell.word.load(SeqCst);
                let counts = cell.window.load(Acquire) == Window::None as u64
                    && word & u64::from(u32::MAX) > 0;
                let key = cell.key.load(SeqCst);
                (counts && key > TOMB && word != DEAD).then_some((cell, key, word))
            });
            let cells: Vec<_> = cells.collect();
            let held = held();
            let lowered = cells.into_iter().filter(|(cell, key, word)| {
                let count = held.get(key).copied().unwrap_or(0);
                let new = rule::in_flight(*word, count);
                count < word & u64::from(u32::MAX)
                    && cell
                        .word
                        .compare_exchange(*word, new, SeqCst, Acquire)
                        .is_ok()
            });
            lowered.count() as u64
        })
    }
}

/// A cell's key: what is not EMPTY or TOMB.
pub fn key_of(cell: u64) -> u64 {
    if cell > TOMB { cell } else { cell | 1 << 63 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn state(name: &str) -> State {
        let path = std::env::temp_dir().join(format!("penstock-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let state = State::open(&path, b"boot", 64).unwrap();
        std::fs::remove_file(&path).unwrap();
        state
    }

    fn add(state: &State, key: u64, hint: u32) -> Result<u32, Error> {
        let one_more = |word: u64| Ok::<_, Infallible>((word + 1, ()));
        let changed = state.change(key, Window::Bucket, hint, one_more)?;
        Ok(changed.unwrap_or_else(|never| match never {}).index)
    }

    proptest! {
        /// Adding, sweeping and reading in any order, keys colliding at will, is what a map does.
        #[test]
        fn the_table_is_a_map(steps in prop::collection::vec((0..40u64, 0..8u8), 0..400)) {
            let state = state("map");
            let mut twin: HashMap<u64, u64> = HashMap::new();
            let mut hints: HashMap<u64, u32> = HashMap::new();
            for (key, what) in steps {
                let key = key_of(key << 58 | key);
                if what == 0 {
                    // Buckets whose time is not past stay.
                    let freed = state.sweep(&Clock::new(2, 0)).unwrap();
                    let before = twin.len();
                    twin.retain(|_, word| *word > 2);
                    prop_assert_eq!(freed as usize, before - twin.len());
                    prop_assert_eq!(state.cells_used() as usize, twin.len());
                } else if twin.len() < 56 || twin.contains_key(&key) {
                    let hint = hints.get(&key).copied().unwrap_or(NOWHERE);
                    hints.insert(key, add(&state, key, hint).unwrap());
                    *twin.entry(key).or_insert(0) += 1;
                }
                for (&key, &word) in &twin {
                    prop_assert_eq!(state.word(key, Window::Bucket, &AtomicU32::new(NOWHERE)), word);
                }
            }
        }
    }

    #[test]
    fn a_cell_whose_remover_died_is_made_new() {
        let state = state("dead");
        let index = add(&state, 77, NOWHERE).unwrap();
        state.cell(index).unwrap().word.store(DEAD, SeqCst);
        assert_eq!(state.word(77, Window::Bucket, &AtomicU32::new(index)), 0);
        assert_eq!(add(&state, 77, index).unwrap(), index);
        assert_eq!(state.word(77, Window::Bucket, &AtomicU32::new(index)), 1);
    }

    #[test]
    fn a_tomb_with_a_stray_word_is_made_new() {
        let state = state("tomb");
        let index = add(&state, 77, NOWHERE).unwrap();
        state.cell(index).unwrap().key.store(TOMB, SeqCst);
        assert_eq!(add(&state, 77, index).unwrap(), index);
        assert_eq!(state.word(77, Window::Bucket, &AtomicU32::new(NOWHERE)), 1);
    }
}
