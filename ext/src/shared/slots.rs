//! Each process that maps such a file has a slot of its own, and one of them leads.
//!
//! A slot, and the lead, is a lock on a file of its own: the kernel drops it with its holder, however that ends, so
//! what a dead process held can be told from what a slow one holds. Own files, as a `flock` is on a whole file.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use super::file;

/// So many processes at once.
pub const SLOTS: usize = 256;

/// The folder of the lock files; None for memory that no other process has.
#[derive(Debug)]
pub struct Slots {
    folder: Option<PathBuf>,
    lead: Mutex<Option<File>>,
}

/// A slot that is held as long as this lives.
#[derive(Debug)]
pub struct Slot {
    pub index: usize,
    _lock: Option<File>,
}

impl Slots {
    /// The locks that belong to the mapped file of that path.
    pub fn of(path: &Path) -> io::Result<Self> {
        let folder = path.with_extension("slots");
        file::make_folder(&folder)?;
        Ok(Self {
            folder: Some(folder),
            lead: Mutex::default(),
        })
    }

    pub fn private() -> Self {
        Self {
            folder: None,
            lead: Mutex::default(),
        }
    }

    /// The first slot that nobody holds.
    pub fn claim(&self) -> io::Result<Slot> {
        for index in 0..SLOTS {
            if let Some(slot) = self.try_claim(index)? {
                return Ok(slot);
            }
        }
        Err(io::Error::other(format!(
            "{SLOTS} processes use it already"
        )))
    }

    /// That slot, if nobody holds it.
    pub fn try_claim(&self, index: usize) -> io::Result<Option<Slot>> {
        let Some(folder) = &self.folder else {
            return Ok(Some(Slot { index, _lock: None }));
        };
        let lock = locked(&folder.join(format!("{index:03}")))?;
        Ok(lock.map(|lock| Slot {
            index,
            _lock: Some(lock),
        }))
    }

    /// Whether no other process may have a slot.
    pub fn are_private(&self) -> bool {
        self.folder.is_none()
    }

    /// Becomes the one that leads if nobody is; whether it is.
    pub fn lead(&self) -> io::Result<bool> {
        let Some(folder) = &self.folder else {
            return Ok(true);
        };
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        if lead.is_none() {
            *lead = locked(&folder.join("lead"))?;
        }
        Ok(lead.is_some())
    }
}

/// The file, made if it is not there, with its lock; None if another has that.
fn locked(path: &Path) -> io::Result<Option<File>> {
    let custom = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    let lock = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(custom)
        .open(path)?;
    Ok(file::try_lock(&lock)?.then_some(lock))
}
