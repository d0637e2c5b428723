//! The state file: a header of counters, and the cells of all limits in a table that every process shares.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Mutex, PoisonError};

use super::file;
use super::map::Map;

/// "penstock", and the layout's version in the last byte: another layout is made anew.
const MAGIC: u64 = u64::from_le_bytes(*b"pnstate\x01");
/// The header is this long, the cells follow.
pub(super) const HEADER_BYTES: usize = 4096;
pub(super) const CELL_BYTES: usize = 32;
const MIN_CELLS: usize = 64;
const MAX_CELLS: usize = 1 << 26;

// Where each word stands in the header.
const AT_MAGIC: usize = 0;
const AT_CELLS: usize = 1;
const AT_BOOT: usize = 2;
const AT_GENERATION: usize = 3;
const AT_ROW: usize = 4;
const AT_ROW_FLOOR: usize = 5;
const AT_BEATEN: usize = 6;
const AT_USED: usize = 7;
const AT_NOTE: usize = 8;
const AT_BIRTH: usize = 9;
/// Two notes of a length and 64 words; the counter at AT_NOTE says which one holds.
const AT_NOTES: [usize; 2] = [16, 96];
pub const MAX_NOTE_BYTES: usize = 512;

/// Row ids rise by this; the bits below tell hosts apart.
const ROW_STEP: u64 = 1024;
/// 2025-01-01, ms since 1970: from here row ids count, so that 63 bits last for 69 years.
const ROW_EPOCH_MS: u64 = 1_735_689_600_000;

/// The memory all processes of one state_dir share.
#[derive(Debug)]
pub struct State {
    pub(super) map: Map,
    /// The file's lock keeps other processes out, the mutex other threads.
    lock: Mutex<OwnLock>,
    pub(super) capacity: u32,
    host: u64,
    /// Tells this file from all that were made before or after it.
    pub(super) birth: u64,
    pub fresh: bool,
}

impl State {
    /// Opens the file, or makes it with room for `cells` if it is not there, foreign, or of another boot.
    pub fn open(path: &Path, boot_id: &[u8], cells: usize) -> io::Result<Self> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let _alone = file::lock_folder(&folder)?;
        let boot = fingerprint(boot_id);
        let mut before = Before::default();
        if let Some(file) = file::open(path)? {
            match Self::mapped(&file) {
                Some((map, capacity)) if at(&map, AT_BOOT) == boot => {
                    file::fill_holes(&file)?;
                    return Ok(Self::with(map, file, capacity, boot, false));
                }
                Some((map, _)) => before = Before::of(&map),
                None => {}
            }
        }
        let cells = cells.clamp(MIN_CELLS, MAX_CELLS).next_power_of_two();
        let (map, file) = make(path, boot, cells, &before)?;
        Ok(Self::with(
            map,
            file,
            u32::try_from(cells).unwrap_or(u32::MAX),
            boot,
            true,
        ))
    }

    fn with(map: Map, file: File, capacity: u32, boot: u64, fresh: bool) -> Self {
        let lock = Mutex::new(OwnLock {
            process: std::process::id(),
            file,
        });
        let birth = at(&map, AT_BIRTH);
        Self {
            map,
            lock,
            capacity,
            host: (boot >> 32) % ROW_STEP,
            birth,
            fresh,
        }
    }

    /// The file's map and number of cells, if it is one of ours and whole.
    fn mapped(file: &File) -> Option<(Map, u32)> {
        let header = Map::new(file, HEADER_BYTES, 0..0).ok()?;
        let cells = usize::try_from(at(&header, AT_CELLS)).ok()?;
        let sound = at(&header, AT_MAGIC) == MAGIC
            && cells.is_power_of_two()
            && (MIN_CELLS..=MAX_CELLS).contains(&cells);
        let map = Map::new(file, length(if sound { cells } else { return None }), 0..0).ok()?;
        Some((map, u32::try_from(cells).ok()?))
    }

    /// Runs `change` while nobody else adds or removes cells.
    pub(super) fn alone<T>(&self, change: impl FnOnce() -> T) -> io::Result<T> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let process = std::process::id();
        if lock.process != process {
            *lock = OwnLock {
                process,
                file: file::open_again(&lock.file)?,
            };
        }
        file::lock(&lock.file)?;
        let made = change();
        file::unlock(&lock.file)?;
        Ok(made)
    }

    fn header(&self, index: usize) -> &AtomicU64 {
        word(&self.map, index)
    }

    /// A number no row of this or any other host has. Ids begin at the time of the first row.
    pub fn next_row(&self, wall_ns: u64) -> u64 {
        let counter = self.header(AT_ROW);
        if counter.load(Relaxed) == 0 {
            let ms = (wall_ns / 1_000_000).saturating_sub(ROW_EPOCH_MS).max(1);
            let first = ((ms & ((1 << 41) - 1)) << 22).max(self.header(AT_ROW_FLOOR).load(Relaxed));
            let _ = counter.compare_exchange(0, first & !(ROW_STEP - 1), SeqCst, SeqCst);
        }
        (counter.fetch_add(ROW_STEP, Relaxed) & !(1 << 63)) | self.host
    }

    pub fn keys_generation(&self) -> u64 {
        self.header(AT_GENERATION).load(Acquire)
    }

    /// The new generation.
    pub fn bump_keys(&self) -> u64 {
        self.header(AT_GENERATION).fetch_add(1, SeqCst) + 1
    }

    pub fn beat(&self, now_ns: u64) {
        self.header(AT_BEATEN).store(now_ns, Release);
    }

    pub fn beaten_ns(&self) -> u64 {
        self.header(AT_BEATEN).load(Acquire)
    }

    pub fn cells_used(&self) -> u64 {
        self.header(AT_USED).load(Relaxed)
    }

    pub(super) fn set_cells_used(&self, used: u64) {
        self.header(AT_USED).store(used, Relaxed);
    }

    /// Writes the note that does not hold now, then says that it does: nobody reads half of one.
    pub fn set_note(&self, text: &[u8]) -> io::Result<()> {
        self.alone(|| {
            let version = self.header(AT_NOTE).load(Acquire).wrapping_add(1);
            let text = text.get(..MAX_NOTE_BYTES).unwrap_or(text);
            let [length, words @ ..] = self.note_words(version) else {
                return;
            };
            length.store(text.len() as u64, Relaxed);
            for (word, part) in words.iter().zip(text.chunks(8)) {
                word.store(little(part), Relaxed);
            }
            self.header(AT_NOTE).store(version, SeqCst);
        })
    }

    pub fn note(&self) -> Vec<u8> {
        loop {
            let version = self.header(AT_NOTE).load(Acquire);
            let [length, words @ ..] = self.note_words(version) else {
                return Vec::new();
            };
            let length = usize::try_from(length.load(Acquire))
                .unwrap_or(0)
                .min(MAX_NOTE_BYTES);
            let mut text: Vec<u8> = words
                .iter()
                .flat_map(|word| word.load(Acquire).to_le_bytes())
                .collect();
            text.truncate(length);
            if self.header(AT_NOTE).load(SeqCst) == version {
                return text;
            }
        }
    }

    fn note_words(&self, version: u64) -> &[AtomicU64] {
        let [even, odd] = AT_NOTES;
        let at = if version % 2 == 0 { even } else { odd };
        self.map.words(at * 8, 1 + MAX_NOTE_BYTES / 8)
    }
}

/// The state file, opened by this process: a fork shares its parent's opening, and so its lock.
#[derive(Debug)]
struct OwnLock {
    process: u32,
    file: File,
}

/// What of a file survives its making anew.
#[derive(Default)]
struct Before {
    row: u64,
    generation: u64,
}

impl Before {
    fn of(map: &Map) -> Self {
        let row = at(map, AT_ROW).max(at(map, AT_ROW_FLOOR)) & !(1 << 63);
        Self {
            row,
            generation: at(map, AT_GENERATION),
        }
    }
}

fn make(path: &Path, boot: u64, cells: usize, before: &Before) -> io::Result<(Map, File)> {
    let file = file::make(path, length(cells))?;
    let map = Map::new(&file, length(cells), 0..0)?;
    word(&map, AT_CELLS).store(cells as u64, Relaxed);
    word(&map, AT_BOOT).store(boot, Relaxed);
    word(&map, AT_GENERATION).store(before.generation.wrapping_add(1), Relaxed);
    let facts = file.metadata()?;
    let [inode, s, ns] = [facts.ino(), facts.mtime() as u64, facts.mtime_nsec() as u64];
    let birth = [boot, inode, s, ns].map(u64::to_le_bytes);
    word(&map, AT_BIRTH).store(fingerprint(birth.as_flattened()), Relaxed);
    word(&map, AT_ROW_FLOOR).store(before.row, Relaxed);
    word(&map, AT_MAGIC).store(MAGIC, Release);
    file::publish(path)?;
    Ok((map, file))
}

fn length(cells: usize) -> usize {
    HEADER_BYTES + cells * CELL_BYTES
}

/// A word of the header, which every map of a state file holds whole.
fn word(map: &Map, index: usize) -> &AtomicU64 {
    static NOWHERE: AtomicU64 = AtomicU64::new(0);
    map.words(index * 8, 1).first().unwrap_or(&NOWHERE)
}

fn at(map: &Map, index: usize) -> u64 {
    word(map, index).load(Acquire)
}

/// FNV-1a, then mixed so that the low bits depend on all.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Up to 8 bytes as a word, the first lowest.
pub(super) fn little(part: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    for (to, from) in bytes.iter_mut().zip(part) {
        *to = *from;
    }
    u64::from_le_bytes(bytes)
}
