//! How many requests, and failures among them, a target had of late: a sliding window of ten parts, a word each.

use std::sync::atomic::{AtomicU64, Ordering::*};

/// So many parts make a window.
const PARTS: u64 = 10;
/// A word: the part's number, requests, failures.
const NUMBER_SHIFT: u32 = 40;
const REQUESTS_SHIFT: u32 = 20;
const COUNT: u64 = (1 << 20) - 1;
const NUMBER: u64 = (1 << 24) - 1;

#[derive(Clone, Copy)]
pub struct Parts<'a>(pub &'a [AtomicU64]);

impl Parts<'_> {
    /// Counts a request that ended now.
    #[inline]
    pub fn count(self, now: u64, failed: bool, window_ns: u64) {
        let number = number(now, window_ns);
        let Some(part) = self.0.get((number % PARTS) as usize) else {
            return;
        };
        let mut word = part.load(Relaxed);
        loop {
            let is_past = word == 0 || part_age(number, word) >= PARTS;
            let fresh = (number & NUMBER) << NUMBER_SHIFT;
            let base = if is_past { fresh } else { word };
            match part.compare_exchange_weak(word, plus(base, failed), SeqCst, Relaxed) {
                Ok(_) => return,
                Err(there) => word = there,
            }
        }
    }

    /// (requests, failures) of the window that ends now.
    pub fn sum(self, now: u64, window_ns: u64) -> (u64, u64) {
        let number = number(now, window_ns);
        let words = self.0.iter().map(|part| part.load(SeqCst));
        let current = words.filter(|&word| word != 0 && part_age(number, word) < PARTS);
        current.fold((0, 0), |(requests, failures), word| {
            let more = (word >> REQUESTS_SHIFT) & COUNT;
            (requests + more, failures + (word & COUNT))
        })
    }

    pub fn clear(self) {
        self.0.iter().for_each(|part| part.store(0, SeqCst));
    }
}

/// A request more; a count that is full stays so.
fn plus(word: u64, failed: bool) -> u64 {
    if (word >> REQUESTS_SHIFT) & COUNT == COUNT {
        return word;
    }
    word + (1 << REQUESTS_SHIFT) + u64::from(failed)
}

/// The number of the part that now lies in.
fn number(now: u64, window_ns: u64) -> u64 {
    now / (window_ns / PARTS).max(1)
}

/// How many parts ago a word's part was. 0 for one that is ahead by less than a window: of two clocks that were read
/// at a part's end one may come late.
fn part_age(number: u64, word: u64) -> u64 {
    let age = number.wrapping_sub(word >> NUMBER_SHIFT) & NUMBER;
    if age > NUMBER - PARTS { 0 } else { age }
}
