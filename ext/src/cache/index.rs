//! Where the entry of a key is: a table of open addresses, in memory of its own that never grows.

use super::arena::Arena;

#[derive(Debug, Default)]
pub struct Index {
    /// 0 = free, else an entry and 1.
    table: Vec<u32>,
}

/// Places a block, so that at most two of three are ever taken.
pub const BYTES_PER_BLOCK: usize = 6;

impl Index {
    pub fn new(blocks: u32) -> Self {
        let places = blocks as usize + blocks as usize / 2 + 1;
        Self {
            table: vec![0; places],
        }
    }

    /// Keys are hashes: any part of one is as good as another.
    fn home(&self, key: &[u8; 32]) -> usize {
        let first = u64::from_le_bytes(*key.first_chunk().unwrap_or(&[0; 8]));
        ((u128::from(first) * self.table.len() as u128) >> 64) as usize
    }

    fn at(&self, place: usize) -> Option<u32> {
        self.table.get(place)?.checked_sub(1)
    }

    fn after(&self, place: usize) -> usize {
        if place + 1 < self.table.len() {
            place + 1
        } else {
            0
        }
    }

    fn set(&mut self, place: usize, value: u32) {
        if let Some(word) = self.table.get_mut(place) {
            *word = value;
        }
    }

    pub fn find(&self, arena: &Arena, key: &[u8; 32]) -> Option<u32> {
        self.place(arena, key).and_then(|place| self.at(place))
    }

    fn place(&self, arena: &Arena, key: &[u8; 32]) -> Option<usize> {
        let mut place = self.home(key);
        while let Some(entry) = self.at(place) {
            if arena.key(entry) == *key {
                return Some(place);
            }
            place = self.after(place);
        }
        None
    }

    /// Its key must not be there yet.
    pub fn insert(&mut self, arena: &Arena, entry: u32) {
        let mut place = self.home(&arena.key(entry));
        while self.at(place).is_some() {
            place = self.after(place);
        }
        self.set(place, entry + 1);
    }

    /// Those behind it move up, so that no search ends too early.
    pub fn remove(&mut self, arena: &Arena, key: &[u8; 32]) {
        let Some(mut hole) = self.place(arena, key) else {
            return;
        };
        let mut place = self.after(hole);
        while let Some(entry) = self.at(place) {
            let home = self.home(&arena.key(entry));
            let stays = match hole <= place {
                true => hole < home && home <= place,
                false => hole < home || home <= place,
            };
            if !stays {
                self.set(hole, entry + 1);
                hole = place;
            }
            place = self.after(place);
        }
        self.set(hole, 0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;
    use std::collections::hash_map::Entry;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is a map, however close together the keys lie, also at the table's end.
        #[test]
        fn a_map(steps in prop::collection::vec((0..24u8, any::<bool>()), 0..300), spread in 0..3u32) {
            let mut arena = Arena::new(24);
            let mut index = Index::new(24);
            let mut twin: HashMap<u8, u32> = HashMap::new();
            for (name, remove) in steps {
                let mut key = [name; 32];
                // The high bits say where its home is: all at one place, at the end, or anywhere.
                key[7] = [0, 250, name.wrapping_mul(43)].get(spread as usize).copied().unwrap();
                if remove {
                    index.remove(&arena, &key);
                    if let Some(entry) = twin.remove(&name) {
                        arena.release(entry);
                    }
                } else if let Entry::Vacant(place) = twin.entry(name) {
                    let entry = arena.allocate(1).unwrap();
                    arena.set_key(entry, &key);
                    index.insert(&arena, entry);
                    place.insert(entry);
                }
                prop_assert_eq!(index.find(&arena, &key), twin.get(&name).copied());
                for &entry in twin.values() {
                    prop_assert_eq!(index.find(&arena, &arena.key(entry)), Some(entry));
                }
            }
        }
    }
}
