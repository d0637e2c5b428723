//! Memory that all processes of a state_dir share: limits, budgets, what is in flight, and the spool of usage rows.
//!
//! `targets` is another such file: who is busy, who waits in `line`, whose `breaker` is open, and `balance` picks by it.
//! `state` is one file of counters and `cells`; a `limit` is a `rule` on a cell. `spool` writes the `record`s of one
//! `ring`, `rings` drains them all, `settle` ends them, also for owners that were killed. No lock is held by anyone
//! while it may be stopped for long, and every lock ends with its holder. Times are arguments.

mod account;
mod balance;
mod balance_pick;
mod breaker;
mod breaker_window;
mod cells;
pub(crate) mod file;
mod headlines;
mod limit;
mod line;
pub(crate) mod map;
#[cfg(test)]
mod race;
mod record;
mod ring;
mod rings;
mod rule;
mod settle;
pub(crate) mod slots;
mod spool;
mod state;
mod targets;
mod targets_cells;
mod window;

pub use account::{Account, Names, Words};
pub use balance::{Balance, Balancer, MAX_MEMBERS, Member, Take, View};
pub use breaker::{Failure, Rule as BreakerRule};
pub use cells::{Error, key_of};
pub use limit::{Demand, Limit, Measure, take_all};
pub use record::Facts;
pub use rings::{Batch, Counts, Rings, Row};
pub use rule::Wait;
pub use settle::reconcile;
pub use spool::{Admission, Spool, Texts};
pub(crate) use state::fingerprint;
pub use state::{MAX_NOTE_BYTES, State};
pub use targets::{FLAG_DOWN, FLAG_DRAINED, Targets};
pub use targets_cells::{Cell, Kind};
pub use window::{Clock, Window, text};

/// How a request ended.
pub const OUTCOMES: [&str; 5] = ["answered", "refused", "failed", "cancelled", "lost"];
pub const OUTCOME_ANSWERED: u8 = 0;
/// Its owner died before it ended.
pub const OUTCOME_LOST: u8 = 4;

/// Answered from the cache.
pub const FLAG_CACHED: u8 = 1;
/// The usage is an estimate.
pub const FLAG_ESTIMATED: u8 = 2;
/// A backend was reached: it counts as an LLM request.
pub const FLAG_BACKEND: u8 = 4;
