//! How often what happened to each model's answers, counted by all workers in one place.

use std::sync::atomic::Ordering::*;

use super::clears::{AT_ROWS, Clears};
use crate::shared::fingerprint;

/// A row a model, and one for all others.
const ROWS: usize = 256;
const REST: usize = ROWS;
/// Fingerprint, length of the name, name, counts.
const ROW_WORDS: usize = 32;
const NAME_WORDS: usize = 20;
const AT_COUNTS: usize = 2 + NAME_WORDS;
pub const COUNTS: [&str; 5] = ["HITS", "MISSES", "EVICTIONS", "SHARED", "STORED"];
pub const HITS: usize = 0;
pub const MISSES: usize = 1;
pub const EVICTIONS: usize = 2;
pub const STORED: usize = 4;

pub(super) const ROWS_WORDS: usize = (ROWS + 1) * ROW_WORDS;

/// A model's name and counts.
pub type Figures = (Vec<u8>, [u64; COUNTS.len()]);

impl Clears {
    /// The row of a model's figures.
    pub fn row(&self, model: &[u8]) -> u32 {
        let key = fingerprint(model).max(1);
        let found = self.find_row(key);
        let row = found.unwrap_or_else(|| {
            let added = self.alone(|| self.add_row(key, model));
            added.unwrap_or(REST)
        });
        row as u32
    }

    /// Its row, or the one for the rest if all are taken; None if it may be given one.
    fn find_row(&self, key: u64) -> Option<usize> {
        for row in probes(key) {
            match self.word(row_at(row)).load(Acquire) {
                0 => return None,
                found if found == key => return Some(row),
                _ => {}
            }
        }
        Some(REST)
    }

    /// Under the lock.
    fn add_row(&self, key: u64, model: &[u8]) -> usize {
        if let Some(row) = self.find_row(key) {
            return row;
        }
        let is_free = |&row: &usize| self.word(row_at(row)).load(Acquire) == 0;
        let Some(row) = probes(key).find(is_free) else {
            return REST;
        };
        let at = row_at(row);
        let name = model.get(..NAME_WORDS * 8).unwrap_or(model);
        for (index, part) in name.chunks(8).enumerate() {
            let mut bytes = [0; 8];
            bytes
                .iter_mut()
                .zip(part)
                .for_each(|(to, &from)| *to = from);
            self.word(at + 2 + index)
                .store(u64::from_le_bytes(bytes), Relaxed);
        }
        self.word(at + 1).store(name.len() as u64, Relaxed);
        self.word(at).store(key, SeqCst);
        row
    }

    pub fn count(&self, row: u32, what: usize, n: u64) {
        let at = row_at(row as usize) + AT_COUNTS + what.min(COUNTS.len());
        self.word(at).fetch_add(n, Relaxed);
    }

    /// All models of which something was counted; the rest under an empty name.
    pub fn figures(&self) -> Vec<Figures> {
        let rows = (0..=ROWS).map(|row| (self.name(row), self.counts(row)));
        rows.filter(|(_, counts)| counts.iter().any(|&count| count > 0))
            .collect()
    }

    fn name(&self, row: usize) -> Vec<u8> {
        let at = row_at(row);
        let words = (0..NAME_WORDS).map(|index| self.word(at + 2 + index).load(Acquire));
        let mut name: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        name.truncate(self.word(at + 1).load(Acquire) as usize);
        name
    }

    fn counts(&self, row: usize) -> [u64; COUNTS.len()] {
        let at = row_at(row) + AT_COUNTS;
        std::array::from_fn(|what| self.word(at + what).load(Relaxed))
    }
}

fn row_at(row: usize) -> usize {
    AT_ROWS + row.min(REST) * ROW_WORDS
}

fn probes(key: u64) -> impl Iterator<Item = usize> {
    let home = key as usize % ROWS;
    (0..ROWS).map(move |step| (home + step) % ROWS)
}
