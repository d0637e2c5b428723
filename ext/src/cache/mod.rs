//! Answers kept for requests that mean the same: their key, and a worker's part of the memory for them.
//!
//! `key` tells requests apart. `store` keeps entries in the blocks of an `arena`, found by an `index`; `eviction` makes
//! room by S3-FIFO, with two `queue`s and a `ghost`; an `entry` is one that is being read. `clears` is memory that all
//! workers share: what is to be forgotten, and `figures` of how often what was found. Times are arguments.

mod arena;
mod clears;
mod entry;
mod eviction;
mod figures;
mod ghost;
mod header;
mod index;
mod key;
mod queue;
mod store;

pub use clears::{Clears, Kind};
pub use entry::Entry;
pub use figures::{COUNTS, Figures};
pub use key::cache_key;
pub use store::{Fact, Offer, SharedStore, Store, Wanted};
