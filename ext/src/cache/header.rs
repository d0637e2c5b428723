//! What stands of an entry at the head of its first block, so that an entry takes no memory but its blocks.

use super::arena::{Arena, Place};

/// A number of an entry: where it stands.
#[derive(Clone, Copy, Debug)]
pub struct Number(usize);
/// A number of 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Small(usize);

const KEY: usize = 0;
pub const MODEL: Number = Number(32);
pub const TENANT: Number = Number(40);
pub const STORED_NS: Number = Number(48);
pub const EXPIRES_NS: Number = Number(56);
pub const BLOCKS: Small = Small(64);
pub const NAME_BYTES: Small = Small(68);
pub const HEAD_BYTES: Small = Small(72);
pub const CHUNKS: Small = Small(76);
pub const BODY_BYTES: Small = Small(80);
/// How often it was found.
pub const FOUND: Small = Small(84);
pub const READERS: Small = Small(88);
/// The model's row of figures.
pub const ROW: Small = Small(92);
pub const KIND: Small = Small(96);
/// Hits that count for eviction, at most 3.
pub const USE: Small = Small(100);
/// OUT, SMALL or MAIN.
pub const QUEUE: Small = Small(104);
/// 1 if it stands among those whose facts have changed.
pub const CHANGED: Small = Small(108);
/// The links of its queue, to the one before and the one after.
pub const QUEUED: [Small; 2] = [Small(112), Small(116)];
/// The links of those that have changed.
pub const LISTED: [Small; 2] = [Small(120), Small(124)];
/// Here the model's name begins, then the head, the chunks' lengths (32 bits each), the chunks.
pub const HEADER: usize = 128;

pub const OUT: u32 = 0;
pub const SMALL: u32 = 1;
pub const MAIN: u32 = 2;

impl Arena {
    #[inline]
    pub fn key(&self, entry: u32) -> [u8; 32] {
        self.field(entry, KEY)
    }

    pub fn set_key(&mut self, entry: u32, key: &[u8; 32]) {
        self.set_field(entry, KEY, *key);
    }

    #[inline]
    pub fn number(&self, entry: u32, number: Number) -> u64 {
        u64::from_ne_bytes(self.field(entry, number.0))
    }

    pub fn set_number(&mut self, entry: u32, number: Number, value: u64) {
        self.set_field(entry, number.0, value.to_ne_bytes());
    }

    #[inline]
    pub fn get(&self, entry: u32, number: Small) -> u32 {
        u32::from_ne_bytes(self.field(entry, number.0))
    }

    #[inline]
    pub fn set(&mut self, entry: u32, number: Small, value: u32) {
        self.set_field(entry, number.0, value.to_ne_bytes());
    }

    /// The place of the entry's byte at that distance behind its header.
    pub fn place(&self, entry: u32, distance: usize) -> Place {
        let mut place = Place {
            block: entry,
            at: HEADER,
        };
        self.skip(&mut place, distance);
        place
    }
}
