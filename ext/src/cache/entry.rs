//! An entry that is being read: its bytes stay as long as this lives, evicted or not.

use std::sync::{Arc, Mutex, PoisonError};

use super::arena::{Arena, Place};
use super::header::*;
use super::store::{SharedStore, Wanted};

/// Where the reader stands: before a chunk's length, and before the chunk.
#[derive(Clone, Copy, Debug)]
struct Cursor {
    index: usize,
    length: Place,
    chunk: Place,
}

impl Cursor {
    /// Before the first chunk; `before` bytes stand before the lengths.
    fn start(arena: &Arena, entry: u32, before: usize, chunks: usize) -> Self {
        let length = arena.place(entry, before);
        let mut chunk = length;
        arena.skip(&mut chunk, chunks * 4);
        Self {
            index: 0,
            length,
            chunk,
        }
    }
}

#[derive(Debug)]
pub struct Entry {
    store: Arc<SharedStore>,
    entry: u32,
    /// Most read chunk after chunk, so the next one need not be looked for.
    cursor: Mutex<Cursor>,
    pub kind: u32,
    pub stored_ns: u64,
    pub expires_ns: u64,
    pub head_bytes: usize,
    pub body_bytes: usize,
    pub chunks: usize,
    name_bytes: usize,
}

impl Entry {
    /// The entry of a key, if there is one.
    pub fn get(store: &Arc<SharedStore>, wanted: &Wanted<'_>) -> Option<Self> {
        let mut locked = store.lock();
        let entry = locked.get(wanted)?;
        let arena = &locked.arena;
        let number = |of: Small| arena.get(entry, of) as usize;
        let (name_bytes, head_bytes, chunks) =
            (number(NAME_BYTES), number(HEAD_BYTES), number(CHUNKS));
        let before = name_bytes + head_bytes;
        Some(Self {
            store: store.clone(),
            entry,
            cursor: Mutex::new(Cursor::start(arena, entry, before, chunks)),
            kind: arena.get(entry, KIND),
            stored_ns: arena.number(entry, STORED_NS),
            expires_ns: arena.number(entry, EXPIRES_NS),
            head_bytes,
            body_bytes: number(BODY_BYTES),
            chunks,
            name_bytes,
        })
    }

    /// How often it was found until now.
    pub fn hits(&self) -> u32 {
        self.store.lock().arena.get(self.entry, FOUND)
    }

    /// Fills `out` from the head's first byte on.
    pub fn read_head(&self, out: &mut [u8]) {
        let store = self.store.lock();
        let mut place = store.arena.place(self.entry, self.name_bytes);
        store.arena.read(&mut place, out);
    }

    /// Fills `out` from the first chunk's first byte on.
    pub fn read_body(&self, out: &mut [u8]) {
        let store = self.store.lock();
        let mut place = self.start(&store.arena).chunk;
        store.arena.read(&mut place, out);
    }

    fn start(&self, arena: &Arena) -> Cursor {
        let before = self.name_bytes + self.head_bytes;
        Cursor::start(arena, self.entry, before, self.chunks)
    }

    /// The length of a chunk, and where it stands; None if there is no such.
    pub fn find(&self, index: usize) -> Option<(usize, Place)> {
        if index >= self.chunks {
            return None;
        }
        let store = self.store.lock();
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        if index < cursor.index {
            *cursor = self.start(&store.arena);
        }
        loop {
            let chunk = cursor.chunk;
            let mut length = [0; 4];
            store.arena.read(&mut cursor.length, &mut length);
            let length = u32::from_ne_bytes(length) as usize;
            store.arena.skip(&mut cursor.chunk, length);
            cursor.index += 1;
            if cursor.index > index {
                return Some((length, chunk));
            }
        }
    }

    /// Fills `out` from a place that was found.
    pub fn read(&self, mut place: Place, out: &mut [u8]) {
        self.store.lock().arena.read(&mut place, out);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.store.lock().release(self.entry);
    }
}
