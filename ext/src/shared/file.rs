//! Making, opening and locking the files that are mapped.
//!
//! A file is made under another name and renamed when it is whole, so nobody ever maps half of one, and those who
//! have an older one mapped keep it. Its blocks are allocated at once: a full disk must fail here, not as a SIGBUS at
//! the first write. Locks are `flock`s, which the kernel drops with a dead holder.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, remove_file, rename};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;

/// Makes the folder, for its owner only, if it is not there.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Holds the folder's lock until dropped; waits for it.
pub fn lock_folder(path: &Path) -> io::Result<File> {
    let folder = File::open(path)?;
    lock(&folder)?;
    Ok(folder)
}

/// The same file in an opening, and with a lock, of its own.
pub fn open_again(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Takes the file's lock; waits for it.
pub fn lock(file: &File) -> io::Result<()> {
    loop {
        match flock(file, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Takes the file's lock if nobody holds it; it is held until `file` and all its copies are closed.
pub fn try_lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The file for reading and writing; None if there is none. Anything but a regular file is an error.
pub fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let custom = i32::try_from(flags).unwrap_or(0);
    let file = match OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(custom)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other(format!(
            "{} is not a regular file",
            path.display()
        )));
    }
    Ok(Some(file))
}

/// A file of `length` zero bytes, not yet under its name: `publish` gives it that.
pub fn make(path: &Path, length: usize) -> io::Result<File> {
    let unfinished = unfinished(path);
    match remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    allocate(&file, length).inspect_err(|_| drop(remove_file(&unfinished)))?;
    Ok(file)
}

/// Gives a made file its name, in place of whatever had it.
pub fn publish(path: &Path) -> io::Result<()> {
    rename(unfinished(path), path)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    PathBuf::from(name)
}

fn allocate(mut file: &File, length: usize) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, length as u64) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        other => return Ok(other?),
    }
    let zeros = [0; 65536];
    let mut left = length;
    while left > 0 {
        let part = zeros.get(..left).unwrap_or(&zeros);
        file.write_all(part)?;
        left -= part.len();
    }
    Ok(())
}

/// Sees to it that an opened file has blocks for all its bytes, as a copied one may have holes.
pub fn fill_holes(file: &File) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, file.metadata()?.len()) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// Whether both are the same file, as they are not when one was replaced meanwhile.
pub fn same(file: &File, path: &Path) -> bool {
    let pair = file
        .metadata()
        .and_then(|ours| Ok((ours, path.metadata()?)));
    pair.is_ok_and(|(ours, theirs)| ours.ino() == theirs.ino() && ours.dev() == theirs.dev())
}

/// Gives up a lock.
pub fn unlock(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::Unlock)?)
}
