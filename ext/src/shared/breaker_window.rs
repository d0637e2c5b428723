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
        self.add(now, 1, failed, window_ns);
    }

    /// One that was counted as answered failed after all.
    pub fn failed_late(self, now: u64, window_ns: u64) {
        self.add(now, 0, true, window_ns);
    }

    #[inline]
    fn add(self, now: u64, requests: u64, failed: bool, window_ns: u64) {
        let number = number(now, window_ns);
        let Some(part) = self.0.get((number % PARTS) as usize) else {
            return;
        };
        let mut word = part.load(Relaxed);
        loop {
            let is_past = word == 0 || part_age(number, word) >= PARTS;
            let fresh = (number & NUMBER) << NUMBER_SHIFT;
            let base = if is_past { fresh } else { word };
            match part.compare_exchange_weak(word, plus(base, requests, failed), SeqCst, Relaxed) {
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

/// So many more; counts that are full stay so.
fn plus(word: u64, requests: u64, failed: bool) -> u64 {
    if (word >> REQUESTS_SHIFT) & COUNT == COUNT || word & COUNT == COUNT {
        return word;
    }
    word + (requests << REQUESTS_SHIFT) + u64::from(failed)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: u64 = 1_000;
    const PART: u64 = WINDOW / PARTS;

    fn words() -> Vec<AtomicU64> {
        (0..PARTS).map(|_| AtomicU64::new(0)).collect()
    }

    proptest! {
        /// The sum is that of the requests in the last ten parts, whatever was before.
        #[test]
        fn a_sliding_sum(steps in prop::collection::vec((0..400_u64, any::<bool>()), 0..200), start in 0..1_u64 << 50) {
            let words = words();
            let (mut now, mut ended) = (start, Vec::new());
            for (step, failed) in steps {
                now += step;
                Parts(&words).count(now, failed, WINDOW);
                ended.push((now, failed));
                let recent = ended.iter().filter(|(at, _)| now / PART - at / PART < PARTS);
                let wanted = recent.fold((0, 0), |(all, bad), (_, failed)| (all + 1, bad + u64::from(*failed)));
                prop_assert_eq!(Parts(&words).sum(now, WINDOW), wanted);
            }
        }
    }

    #[test]
    fn one_that_comes_late_is_counted() {
        let words = words();
        Parts(&words).count(50 * PART, false, WINDOW);
        Parts(&words).count(50 * PART - 1, true, WINDOW);
        Parts(&words).count(41 * PART, true, WINDOW);
        assert_eq!(Parts(&words).sum(50 * PART, WINDOW), (3, 2));
    }

    #[test]
    fn a_full_count_stays_full() {
        let words = words();
        let full = NUMBER << NUMBER_SHIFT | COUNT << REQUESTS_SHIFT | 5;
        assert_eq!(plus(full, 1, true), full);
        assert_eq!(plus(full - (1 << REQUESTS_SHIFT), 1, true), full + 1);
        Parts(&words).count(0, true, 0);
        assert_eq!(Parts(&words).sum(0, 0), (1, 1));
    }
}
