//! The drainer's end of the spool: the closed records of all rings, and the rings that nobody owns any more.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::{Facts, Record};
use super::ring::{self, CLOSED, FREE, OPEN, Ring, SETTLING};
use super::state::State;
use super::{file, settle};

/// So many rows of a ring are taken before the next ring has its turn.
const TURN: usize = 64;

/// A closed record, read.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub id: u64,
    pub wall: u64,
    pub facts: Facts,
    /// Where in the batch its texts begin.
    at: usize,
    lengths: [u8; 9],
}

/// Rows, and the texts of all of them in one piece: most are short, and a batch has thousands.
#[derive(Debug, Default)]
pub struct Batch {
    pub rows: Vec<Row>,
    texts: Vec<u8>,
}

impl Batch {
    /// key, tenant, user, tier, route, model, request id, backend, error.
    pub fn texts(&self, row: &Row) -> [&[u8]; 9] {
        let mut rest = self.texts.get(row.at..).unwrap_or_default();
        row.lengths.map(|length| {
            let (text, behind) = rest.split_at(usize::from(length).min(rest.len()));
            rest = behind;
            text
        })
    }

    fn push(&mut self, record: &Record<'_>) {
        self.rows.push(Row {
            id: record.row(),
            wall: record.wall(),
            facts: record.facts(),
            at: self.texts.len(),
            lengths: record.read_texts(&mut self.texts),
        });
    }
}

#[derive(Debug)]
pub struct Rings {
    folder: PathBuf,
    state: Arc<State>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    rings: BTreeMap<u32, View>,
    /// Ring, slot and row id of what was taken last.
    taken: Vec<(u32, usize, u64)>,
}

/// A ring, and the slot its next look begins at.
#[derive(Debug)]
struct View {
    ring: Ring,
    cursor: usize,
}

/// What the rings hold, in records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Closed, not freed yet.
    pub waiting: u64,
    pub open: u64,
    pub capacity: u64,
    /// Rings, not records, with a living owner.
    pub owned: u64,
}

impl Rings {
    pub fn new(folder: &Path, state: Arc<State>) -> Self {
        Self {
            folder: folder.to_owned(),
            state,
            seen: Mutex::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most `limit` rows, of every ring about as many. Taken ones are given again until `free` is called.
    pub fn take(&self, limit: usize) -> io::Result<Batch> {
        let mut seen = self.seen();
        seen.discover(&self.folder)?;
        self.adopt(&seen)?;
        Ok(seen.collect(limit))
    }

    /// The rows of the last `take` are stored: their records are free again.
    pub fn free(&self) {
        let mut seen = self.seen();
        for (number, slot, id) in std::mem::take(&mut seen.taken) {
            let Some(view) = seen.rings.get(&number) else {
                continue;
            };
            let ours = view
                .ring
                .record(slot)
                .is_some_and(|record| record.row() == id);
            if let Some(state) = view.ring.states().get(slot).filter(|_| ours) {
                let _ = state.compare_exchange(CLOSED, FREE, SeqCst, Acquire);
            }
        }
    }

    /// Settles what dead owners left.
    fn adopt(&self, seen: &Seen) -> io::Result<()> {
        let unsettled = |view: &&View| view.ring.has(OPEN);
        let rings: Vec<&View> = seen.rings.values().filter(unsettled).collect();
        if rings.is_empty() {
            return Ok(());
        }
        // Under the folder's lock a worker that starts does not take our short hold of a ring for an owner.
        let _alone = file::lock_folder(&self.folder)?;
        for view in rings {
            if file::try_lock(&view.ring.file)? {
                settle::recover(&self.state, &view.ring);
                file::unlock(&view.ring.file)?;
            }
        }
        Ok(())
    }

    pub fn counts(&self) -> io::Result<Counts> {
        let mut seen = self.seen();
        seen.discover(&self.folder)?;
        let mut counts = Counts::default();
        for view in seen.rings.values() {
            counts.capacity += view.ring.states().len() as u64;
            for state in view.ring.states() {
                match state.load(Acquire) {
                    CLOSED => counts.waiting += 1,
                    OPEN | SETTLING => counts.open += 1,
                    _ => {}
                }
            }
        }
        if !seen.rings.is_empty() {
            let _alone = file::lock_folder(&self.folder)?;
            for view in seen.rings.values() {
                match file::try_lock(&view.ring.file)? {
                    true => file::unlock(&view.ring.file)?,
                    false => counts.owned += 1,
                }
            }
        }
        Ok(counts)
    }
}

impl Seen {
    /// Maps rings that are new or were made anew; those that cannot be used are their next owner's to make anew.
    fn discover(&mut self, folder: &Path) -> io::Result<()> {
        let numbers = ring::numbers(folder)?;
        self.rings
            .retain(|number, view| file::same(&view.ring.file, &ring::path(folder, *number)));
        for number in numbers {
            if self.rings.contains_key(&number) {
                continue;
            }
            let Ok(Some(file)) = file::open(&ring::path(folder, number)) else {
                continue;
            };
            self.rings
                .extend(Ring::mapped(file).map(|ring| (number, View { ring, cursor: 0 })));
        }
        Ok(())
    }

    fn collect(&mut self, limit: usize) -> Batch {
        let mut batch = Batch::default();
        self.taken.clear();
        let taken = &mut self.taken;
        let mut looks: Vec<(u32, &mut View, usize)> = self
            .rings
            .iter_mut()
            .map(|(&number, view)| (number, view, 0))
            .collect();
        while !looks.is_empty() && batch.rows.len() < limit {
            looks.retain_mut(|(number, view, looked)| {
                let end = batch.rows.len().saturating_add(TURN).min(limit);
                while batch.rows.len() < end {
                    let Some((slot, record)) = view.next(looked) else {
                        return false;
                    };
                    taken.push((*number, slot, record.row()));
                    batch.push(&record);
                }
                true
            });
        }
        batch
    }
}

impl View {
    /// The next closed record; None when all were looked at. looked: how many slots were.
    fn next(&mut self, looked: &mut usize) -> Option<(usize, Record<'_>)> {
        let count = self.ring.states().len();
        while *looked < count {
            let from = self.cursor;
            let most = count - (*looked).max(from);
            let found = self.ring.next_in(CLOSED, from, most);
            let passed = found.map_or(most, |slot| slot - from + 1);
            self.cursor = (from + passed) % count;
            *looked += passed;
            if let Some(slot) = found {
                return Some((slot, self.ring.record(slot)?));
            }
        }
        None
    }
}
