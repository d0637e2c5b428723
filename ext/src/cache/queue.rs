//! A list of entries that are linked through their headers: first in, first out, or taken out anywhere.

use super::arena::{Arena, NONE};
use super::header::{BLOCKS, Small};

#[derive(Debug)]
pub struct Queue {
    links: [Small; 2],
    /// The last and the first one in.
    newest: u32,
    oldest: u32,
    /// What its entries take.
    pub blocks: u32,
}

impl Queue {
    /// Which links of an entry it uses.
    pub fn new(links: [Small; 2]) -> Self {
        Self {
            links,
            newest: NONE,
            oldest: NONE,
            blocks: 0,
        }
    }

    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }

    pub fn push(&mut self, arena: &mut Arena, entry: u32) {
        let [newer, older] = self.links;
        arena.set(entry, newer, NONE);
        arena.set(entry, older, self.newest);
        match self.newest {
            NONE => self.oldest = entry,
            newest => arena.set(newest, newer, entry),
        }
        self.newest = entry;
        self.blocks += arena.get(entry, BLOCKS);
    }

    pub fn remove(&mut self, arena: &mut Arena, entry: u32) {
        let [newer, older] = self.links;
        let (after, before) = (arena.get(entry, newer), arena.get(entry, older));
        match after {
            NONE => self.newest = before,
            after => arena.set(after, older, before),
        }
        match before {
            NONE => self.oldest = after,
            before => arena.set(before, newer, after),
        }
        self.blocks = self.blocks.saturating_sub(arena.get(entry, BLOCKS));
    }

    /// All entries, the oldest first.
    pub fn entries<'a>(&self, arena: &'a Arena) -> impl Iterator<Item = u32> + use<'a> {
        let [newer, _] = self.links;
        let real = |entry: u32| (entry != NONE).then_some(entry);
        std::iter::successors(real(self.oldest), move |&entry| {
            real(arena.get(entry, newer))
        })
    }
}
