//! Keys of entries that were evicted soon after they came: one that comes again belongs to the main queue.
//!
//! A table of marks in sets of four. A mark is half of a key and when it was made, counted in blocks evicted until
//! then: a mark is as good as gone once more was evicted after it than the main queue holds.

const SET: usize = 4;

#[derive(Debug, Default)]
pub struct Ghost {
    sets: Vec<[u64; SET]>,
    evicted: u32,
}

/// Half as many marks as blocks: entries of one block each fill it for half of the main queue.
pub const BYTES_PER_BLOCK: usize = 4;

impl Ghost {
    pub fn new(blocks: u32) -> Self {
        Self {
            sets: vec![[0; SET]; blocks as usize / (2 * SET) + 1],
            evicted: 0,
        }
    }

    /// The key's set, and the half of it that a mark has.
    fn find(&mut self, key: &[u8; 32]) -> (Option<&mut [u64; SET]>, u32) {
        let hash = u64::from_le_bytes(*key.last_chunk().unwrap_or(&[0; 8]));
        let set = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        // Not 0, which is no mark.
        (self.sets.get_mut(set), hash as u32 | 1)
    }

    /// Marks the key of an entry of so many blocks.
    pub fn add(&mut self, key: &[u8; 32], blocks: u32) {
        self.evicted = self.evicted.wrapping_add(blocks);
        let now = self.evicted;
        let (Some(set), half) = self.find(key) else {
            return;
        };
        let age = |mark: u64| match mark {
            0 => u32::MAX,
            mark => now.wrapping_sub(mark as u32),
        };
        let same = set.iter().position(|&mark| (mark >> 32) as u32 == half);
        let oldest = set.iter().enumerate().max_by_key(|&(_, &mark)| age(mark));
        let place = same.or(oldest.map(|(place, _)| place));
        if let Some(mark) = place.and_then(|place| set.get_mut(place)) {
            *mark = u64::from(half) << 32 | u64::from(now);
        }
    }

    /// Whether the key was marked while at most `blocks` were evicted since; its mark is gone then.
    pub fn take(&mut self, key: &[u8; 32], blocks: u32) -> bool {
        let now = self.evicted;
        let (Some(set), half) = self.find(key) else {
            return false;
        };
        let Some(mark) = set.iter_mut().find(|mark| (**mark >> 32) as u32 == half) else {
            return false;
        };
        let age = now.wrapping_sub(*mark as u32);
        *mark = 0;
        age <= blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> [u8; 32] {
        let mut key = [0; 32];
        // The last byte is the highest of the set's number, the others tell marks of one set apart.
        key[24] = number << 1;
        key
    }

    #[test]
    fn a_mark_goes_as_others_are_made() {
        let mut ghost = Ghost::new(64);
        ghost.add(&key(1), 10);
        ghost.add(&key(2), 5);
        assert!(!ghost.take(&key(3), 100));
        assert!(ghost.take(&key(1), 5));
        assert!(!ghost.take(&key(1), 5), "it is gone");
        ghost.add(&key(3), 1);
        assert!(!ghost.take(&key(2), 0), "more was evicted since");
    }

    #[test]
    fn a_set_forgets_its_oldest() {
        let mut ghost = Ghost::new(0);
        (1..=6).for_each(|number| ghost.add(&key(number), 1));
        let there: Vec<u8> = (1..=6)
            .filter(|&number| ghost.take(&key(number), 100))
            .collect();
        assert_eq!(there, [3, 4, 5, 6]);
    }

    #[test]
    fn the_count_of_evicted_blocks_may_wrap() {
        let mut ghost = Ghost::new(64);
        ghost.add(&key(1), u32::MAX - 1);
        ghost.add(&key(2), 10);
        assert!(ghost.take(&key(1), 10));
        assert!(ghost.take(&key(2), 0));
    }
}
