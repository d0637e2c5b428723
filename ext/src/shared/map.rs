//! A file mapped into memory, seen only as atomics.
//!
//! `unsafe` stands here because mapping a file is: other processes change the bytes at any time. Atomics make that
//! defined, and a length checked against the file keeps every access inside it. Words and bytes lie in ranges that
//! never overlap, so no memory is ever read in two sizes.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The first `length` bytes of a file, shared with every process that maps it.
#[derive(Debug)]
pub struct Map {
    start: NonNull<u8>,
    length: usize,
    /// This part is bytes, all else words.
    bytes: Range<usize>,
}

// SAFETY: the mapping belongs to no thread, and all access goes through atomics.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `length` bytes, of which `bytes` are single bytes and all others words. The file must be that long.
    pub fn new(file: &File, length: usize, bytes: Range<usize>) -> io::Result<Self> {
        let there = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length == 0 || there < length || bytes.start > bytes.end || bytes.end > length {
            return Err(io::Error::other("the file is shorter than its layout"));
        }
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address the kernel picks overlaps nothing of ours.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                flags,
                MapFlags::SHARED,
                file,
                0,
            )?
        };
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self {
            start,
            length,
            bytes,
        })
    }

    /// `count` words from byte `at`; none if they are not aligned or not wholly in the part that is words.
    #[inline]
    pub fn words(&self, at: usize, count: usize) -> &[AtomicU64] {
        let end = count.checked_mul(8).and_then(|size| size.checked_add(at));
        let inside = end.is_some_and(|end| {
            end <= self.bytes.start || (at >= self.bytes.end && end <= self.length)
        });
        if !inside || at % 8 != 0 {
            return &[];
        }
        // SAFETY: in bounds and aligned (the mapping starts at a page) as just checked; alive as long as self is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(at).cast(), count) }
    }

    /// All of the part that is bytes.
    #[inline]
    pub fn bytes(&self) -> &[AtomicU8] {
        let count = self.bytes.end - self.bytes.start;
        // SAFETY: `new` checked that the range lies in the mapping; alive as long as self is.
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr().add(self.bytes.start).cast(), count)
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no slice of it outlives self.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}
