//! A ring file: the states of its records, one byte each and close together, and the records.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::*};

use super::file;
use super::map::Map;
use super::record::{RECORD_WORDS, Record};

/// "pnring" and the layout's version: another layout is made anew.
const MAGIC: u64 = u64::from_le_bytes(*b"pnring\x00\x01");
const HEADER_BYTES: usize = 4096;
const RECORD_BYTES: usize = RECORD_WORDS * 8;
const MAX_RECORDS: usize = 1 << 24;
/// So many states are looked at together.
const BLOCK: usize = 64;

/// The states of a record, in the order it takes them.
pub const FREE: u8 = 0;
/// Being written by its owner; nothing is held yet.
pub const TAKEN: u8 = 1;
pub const OPEN: u8 = 2;
/// Its facts are written, its holds are being settled.
pub const SETTLING: u8 = 3;
pub const CLOSED: u8 = 4;

#[derive(Debug)]
pub struct Ring {
    map: Map,
    pub file: File,
}

impl Ring {
    /// The ring in the file, if it is one of ours and whole.
    pub fn mapped(file: File) -> Option<Self> {
        let header = Map::new(&file, HEADER_BYTES, 0..0).ok()?;
        let [magic, records] = header.words(0, 2) else {
            return None;
        };
        let (magic, records) = (
            magic.load(Acquire),
            usize::try_from(records.load(Acquire)).ok()?,
        );
        if magic != MAGIC || records == 0 || records > MAX_RECORDS {
            return None;
        }
        let map = Map::new(&file, length(records), states(records)).ok()?;
        Some(Self { map, file })
    }

    /// Makes a ring, locked, in place of whatever has that name.
    pub fn make(path: &Path, records: usize) -> io::Result<Self> {
        let records = records.clamp(1, MAX_RECORDS);
        let file = file::make(path, length(records))?;
        let map = Map::new(&file, length(records), states(records))?;
        if let [magic, count] = map.words(0, 2) {
            count.store(records as u64, Relaxed);
            magic.store(MAGIC, Release);
        }
        if !file::try_lock(&file)? {
            return Err(io::Error::other("a file nobody knows is locked"));
        }
        file::publish(path)?;
        Ok(Self { map, file })
    }

    pub fn states(&self) -> &[AtomicU8] {
        self.map.bytes()
    }

    pub fn set_state(&self, slot: usize, to: u8) {
        if let Some(state) = self.states().get(slot) {
            state.store(to, Release);
        }
    }

    pub fn record(&self, slot: usize) -> Option<Record<'_>> {
        let at = states(self.states().len())
            .end
            .next_multiple_of(HEADER_BYTES)
            + slot * RECORD_BYTES;
        self.map.words(at, RECORD_WORDS).try_into().ok().map(Record)
    }

    /// Whether any record is in a state with one of these bits.
    pub fn has(&self, bits: u8) -> bool {
        let blocks = self.states().chunks(BLOCK);
        blocks.into_iter().any(|block| bits_of(block) & bits != 0)
    }

    /// The first slot of that state, of `most` from `from` on. A block without its bits costs one look.
    pub fn next_in(&self, wanted: u8, from: usize, most: usize) -> Option<usize> {
        let states = self.states().get(from..)?;
        let states = states.get(..most).unwrap_or(states);
        if states.first()?.load(Acquire) == wanted {
            return Some(from);
        }
        let mut at = from;
        for block in states.chunks(BLOCK) {
            if bits_of(block) & wanted == wanted {
                let found = block.iter().position(|state| state.load(Acquire) == wanted);
                if let Some(found) = found {
                    return Some(at + found);
                }
            }
            at += block.len();
        }
        None
    }

    /// The slots in one of these states.
    pub fn in_state<'a>(&'a self, wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let wants_free = wanted.contains(&FREE);
        let blocks = self.states().chunks(BLOCK).enumerate();
        blocks
            .filter(move |(_, block)| wants_free || bits_of(block) != FREE)
            .flat_map(|(number, block)| block.iter().zip(number * BLOCK..))
            .filter(|(state, _)| wanted.contains(&state.load(Acquire)))
            .map(|(_, slot)| slot)
    }
}

/// All bits that any of these states has.
fn bits_of(states: &[AtomicU8]) -> u8 {
    states
        .iter()
        .fold(0, |bits, state| bits | state.load(Acquire))
}

fn states(records: usize) -> std::ops::Range<usize> {
    HEADER_BYTES..HEADER_BYTES + records
}

fn length(records: usize) -> usize {
    states(records).end.next_multiple_of(HEADER_BYTES) + records * RECORD_BYTES
}

/// The name of the ring of that number.
pub fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:03}.ring"))
}

/// All rings that are there, by number; a folder that is not there has none.
pub fn numbers(folder: &Path) -> io::Result<Vec<u32>> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let number: Option<u32> = name
            .to_str()
            .and_then(|name| name.strip_suffix(".ring"))
            .and_then(|text| text.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}
