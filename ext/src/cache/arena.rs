//! Memory in blocks of one size, an entry a chain of them: whatever the sizes, nothing is lost between entries, and
//! there is never more than was reserved. Blocks that were never used take no memory: the kernel gives zeros late.

pub const BLOCK: usize = 512;
/// No block, and the end of a chain.
pub const NONE: u32 = u32::MAX;

#[derive(Debug, Default)]
pub struct Arena {
    bytes: Vec<u8>,
    /// The block after each in its chain.
    next: Vec<u32>,
    /// The first of the chain of blocks that are free again.
    free: u32,
    /// From here on none was ever used.
    fresh: u32,
    used: u32,
}

/// Where in a chain one stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub block: u32,
    pub at: usize,
}

impl Arena {
    pub fn new(blocks: u32) -> Self {
        Self {
            bytes: vec![0; blocks as usize * BLOCK],
            next: vec![0; blocks as usize],
            free: NONE,
            ..Self::default()
        }
    }

    pub fn blocks(&self) -> u32 {
        self.next.len() as u32
    }

    pub fn used(&self) -> u32 {
        self.used
    }

    /// A chain of `count` blocks; None if there are not so many.
    pub fn allocate(&mut self, count: u32) -> Option<u32> {
        if count > self.blocks() - self.used {
            return None;
        }
        let mut first = NONE;
        for _ in 0..count {
            let block = self.pop();
            self.link(block, first);
            first = block;
        }
        self.used += count;
        Some(first)
    }

    fn pop(&mut self) -> u32 {
        if self.free == NONE {
            self.fresh += 1;
            return self.fresh - 1;
        }
        let block = self.free;
        self.free = self.after(block);
        block
    }

    fn link(&mut self, block: u32, next: u32) {
        if let Some(link) = self.next.get_mut(block as usize) {
            *link = next;
        }
    }

    fn after(&self, block: u32) -> u32 {
        self.next.get(block as usize).copied().unwrap_or(NONE)
    }

    /// Makes all blocks of a chain free.
    pub fn release(&mut self, first: u32) {
        let (mut last, mut count) = (first, 1);
        while self.after(last) != NONE {
            last = self.after(last);
            count += 1;
        }
        self.link(last, self.free);
        self.free = first;
        self.used = self.used.saturating_sub(count);
    }

    /// `LENGTH` bytes at an offset of a block; zeros if it has not so many.
    #[inline]
    pub fn field<const LENGTH: usize>(&self, block: u32, at: usize) -> [u8; LENGTH] {
        let start = block as usize * BLOCK + at;
        let bytes = self.bytes.get(start..).and_then(<[u8]>::first_chunk);
        bytes.copied().unwrap_or([0; LENGTH])
    }

    #[inline]
    pub fn set_field<const LENGTH: usize>(&mut self, block: u32, at: usize, value: [u8; LENGTH]) {
        let start = block as usize * BLOCK + at;
        let bytes = self.bytes.get_mut(start..);
        if let Some(bytes) = bytes.and_then(<[u8]>::first_chunk_mut) {
            *bytes = value;
        }
    }

    /// So many of the bytes from there on as its block holds.
    fn part(&self, place: Place, length: usize) -> std::ops::Range<usize> {
        let start = place.block as usize * BLOCK + place.at;
        start..start + length.min(BLOCK - place.at)
    }

    fn step(&self, place: &mut Place, length: usize) {
        place.at += length;
        if place.at >= BLOCK {
            *place = Place {
                block: self.after(place.block),
                at: 0,
            };
        }
    }

    pub fn write(&mut self, place: &mut Place, mut bytes: &[u8]) {
        while !bytes.is_empty() && place.block != NONE {
            let part = self.part(*place, bytes.len());
            let (now, rest) = bytes.split_at(part.len());
            if let Some(to) = self.bytes.get_mut(part) {
                to.copy_from_slice(now);
            }
            self.step(place, now.len());
            bytes = rest;
        }
    }

    pub fn read(&self, place: &mut Place, mut out: &mut [u8]) {
        while !out.is_empty() && place.block != NONE {
            let part = self.part(*place, out.len());
            let (now, rest) = out.split_at_mut(part.len());
            if let Some(from) = self.bytes.get(part) {
                now.copy_from_slice(from);
            }
            self.step(place, now.len());
            out = rest;
        }
    }

    pub fn skip(&self, place: &mut Place, mut length: usize) {
        while length > 0 && place.block != NONE {
            let part = length.min(BLOCK - place.at);
            self.step(place, part);
            length -= part;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Chains taken and given back in any order keep what was written in them, and nothing is lost.
        #[test]
        fn chains(steps in prop::collection::vec((1..9u32, any::<bool>(), any::<u8>()), 0..200)) {
            let mut arena = Arena::new(40);
            let mut held: Vec<(u32, Vec<u8>)> = Vec::new();
            for (count, give_back, byte) in steps {
                if give_back && !held.is_empty() {
                    let (first, _) = held.remove(usize::from(byte) % held.len());
                    arena.release(first);
                } else if let Some(block) = arena.allocate(count) {
                    let bytes = vec![byte; count as usize * BLOCK - usize::from(byte)];
                    let mut place = Place { block, at: 0 };
                    let (one, rest) = bytes.split_at(bytes.len() / 3);
                    arena.write(&mut place, one);
                    arena.write(&mut place, rest);
                    held.push((block, bytes));
                }
                let used: usize = held.iter().map(|(_, bytes)| bytes.len().div_ceil(BLOCK)).sum();
                prop_assert_eq!(arena.used() as usize, used);
                for (block, bytes) in &held {
                    let mut read = vec![0; bytes.len() - bytes.len() / 4];
                    let mut place = Place { block: *block, at: 0 };
                    arena.skip(&mut place, bytes.len() / 4);
                    arena.read(&mut place, &mut read);
                    prop_assert_eq!(&read[..], bytes.get(bytes.len() / 4..).unwrap());
                }
            }
        }
    }

    #[test]
    fn none_at_all() {
        let mut arena = Arena::new(0);
        assert_eq!(arena.allocate(1), None);
        arena.write(&mut Place { block: NONE, at: 0 }, b"nowhere");
        assert_eq!(arena.field::<4>(7, 0), [0; 4]);
    }
}
