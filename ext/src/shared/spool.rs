//! A worker's end of the spool: it owns one ring, opens a record as it admits a request, and closes it at the end.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::account::{Account, Words};
use super::cells::Error;
use super::limit::{Demand, Hold, Plans, longest_wait};
use super::record::{DONE, Facts, HELD, INTENT, Opening, RELEASING, Record};
use super::ring::{self, CLOSED, FREE, OPEN, Ring, SETTLING, TAKEN};
use super::rule::Wait;
use super::state::State;
use super::window::Clock;
use super::{file, settle};

/// More rings than any host has workers.
const MAX_RINGS: u32 = 100_000;
/// So many free slots are looked up at once.
const REFILL: usize = 1024;

#[derive(Debug)]
pub struct Spool {
    pub state: Arc<State>,
    ring: Ring,
    pub number: u32,
    pub recovered: u64,
    /// Slots that are free, the next one last. Reused newest first, so that few pages are touched.
    free: Mutex<Vec<usize>>,
}

/// What a request is called in its row.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    pub route: &'a [u8],
    pub model: &'a [u8],
    pub request_id: &'a [u8],
}

#[derive(Debug)]
pub enum Admission {
    Open {
        slot: usize,
        words: Words,
    },
    Refused {
        index: usize,
        wait: Wait,
        words: Words,
    },
    /// The ring has no free record: nobody drains it.
    Full,
}

impl Spool {
    /// Claims a ring that nobody holds, or makes one of `records`, and settles what a dead owner left in it.
    pub fn open(folder: &Path, state: Arc<State>, records: usize) -> io::Result<Self> {
        file::make_folder(folder)?;
        let _alone = file::lock_folder(folder)?;
        for number in 0..MAX_RINGS {
            if let Some(ring) = claim(&ring::path(folder, number), records)? {
                let recovered = settle::recover(&state, &ring);
                return Ok(Self {
                    state,
                    ring,
                    number,
                    recovered,
                    free: Mutex::default(),
                });
            }
        }
        Err(io::Error::other("too many rings"))
    }

    fn slots(&self) -> MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A free slot, marked so that no other look-up finds it.
    fn pop(&self) -> Option<usize> {
        let mut slots = self.slots();
        if slots.is_empty() {
            slots.extend(self.ring.in_state(&[FREE]).take(REFILL));
            slots.reverse();
        }
        let slot = slots.pop()?;
        self.ring.set_state(slot, TAKEN);
        Some(slot)
    }

    fn push(&self, slot: usize) {
        let mut slots = self.slots();
        self.ring.set_state(slot, FREE);
        slots.push(slot);
    }

    /// How many records are free.
    pub fn free(&self) -> usize {
        self.ring.in_state(&[FREE]).count()
    }

    /// Takes `demand` of all limits of the account or nothing, and opens a record of it.
    pub fn admit(
        &self,
        account: &Account,
        texts: &Texts<'_>,
        demand: &Demand,
        clock: &Clock,
    ) -> Result<Admission, Error> {
        account.resolve(&self.state)?;
        let mut plans = Plans::default();
        let refused = longest_wait(&self.state, &account.limits, demand, clock, &mut plans);
        if let Some((index, wait)) = refused {
            return Ok(Admission::Refused {
                index,
                wait,
                words: account.words(&self.state),
            });
        }
        let holds = account
            .limits
            .iter()
            .filter(|limit| demand.of(limit.measure) > 0)
            .count();
        let Some((slot, record)) = self.begin(account, texts, clock, holds) else {
            return Ok(Admission::Full);
        };
        match self.take(account, demand, clock, &plans, &record) {
            Ok(Ok(words)) => Ok(Admission::Open { slot, words }),
            refused => {
                self.roll_back(slot, &record, clock.now);
                let refused = refused?.err().unwrap_or((0, Wait::Ns(1)));
                let words = account.words(&self.state);
                Ok(Admission::Refused {
                    index: refused.0,
                    wait: refused.1,
                    words,
                })
            }
        }
    }

    /// A record that holds nothing; None if the ring is full.
    pub fn book(&self, account: &Account, texts: &Texts<'_>, clock: &Clock) -> Option<usize> {
        self.begin(account, texts, clock, 0).map(|(slot, _)| slot)
    }

    fn begin(
        &self,
        account: &Account,
        texts: &Texts<'_>,
        clock: &Clock,
        holds: usize,
    ) -> Option<(usize, Record<'_>)> {
        let slot = self.pop()?;
        let record = self.ring.record(slot)?;
        let names = &account.names;
        let (route, model, request_id) = (texts.route, texts.model, texts.request_id);
        record.open(&Opening {
            row: self.state.next_row(clock.wall),
            wall: clock.wall,
            now: clock.now,
            birth: self.state.birth,
            names: [
                &names.key,
                &names.tenant,
                &names.user,
                &names.tier,
                route,
                model,
                request_id,
            ],
            holds,
        });
        self.ring.set_state(slot, OPEN);
        Some((slot, record))
    }

    /// One limit after the other, each in the record before and after its cell is changed.
    fn take(
        &self,
        account: &Account,
        demand: &Demand,
        clock: &Clock,
        plans: &Plans,
        record: &Record<'_>,
    ) -> Result<Result<Words, (usize, Wait)>, Error> {
        let mut words = Words::default();
        let mut held = 0;
        let each = account.limits.iter().zip(plans).zip(&mut words);
        for (index, ((limit, plan), word)) in each.enumerate() {
            let n = demand.of(limit.measure);
            if n == 0 {
                *word = plan.seen;
                continue;
            }
            let planned = Hold {
                mark: plan.mark,
                ..limit.hold(n)
            };
            record.set_hold(held, &planned, INTENT);
            // Nearly always nobody has changed the cell since it was looked at.
            if self
                .state
                .replace(limit.key, planned.index, plan.seen, plan.word)
            {
                record.set_flag(held, HELD);
                *word = plan.word;
                held += 1;
                continue;
            }
            match limit.take(&self.state, n, clock) {
                Ok(Ok((hold, left))) => {
                    record.set_hold(held, &hold, HELD);
                    *word = left;
                }
                refused => {
                    record.set_flag(held, DONE);
                    return refused
                        .map(|refused| refused.map(|_| words).map_err(|wait| (index, wait)));
                }
            }
            held += 1;
        }
        Ok(Ok(words))
    }

    /// A lost race: gives back what was taken, last first.
    fn roll_back(&self, slot: usize, record: &Record<'_>, now: u64) {
        for index in (0..record.holds())
            .rev()
            .filter(|&index| record.flag(index) == HELD)
        {
            record.set_flag(index, RELEASING);
            record.hold(index).settle(&self.state, 0, now);
            record.set_flag(index, DONE);
        }
        self.push(slot);
    }

    /// Ends an open record: its holds become what was used.
    pub fn close(&self, slot: usize, facts: &Facts, backend: &[u8], error: &[u8]) {
        settle::close(&self.state, &self.ring, slot, facts, backend, error);
    }
}

/// The ring of that name, locked; None if somebody else holds it. Made if it is not there or cannot be used.
fn claim(path: &Path, records: usize) -> io::Result<Option<Ring>> {
    let Some(file) = file::open(path)? else {
        return Ring::make(path, records).map(Some);
    };
    if !file::try_lock(&file)? {
        return Ok(None);
    }
    let keep = file.try_clone()?;
    match Ring::mapped(file) {
        Some(ring)
            if ring.states().len() == records
                || ring.in_state(&[OPEN, SETTLING, CLOSED]).next().is_some() =>
        {
            file::fill_holes(&keep)?;
            Ok(Some(ring))
        }
        _ => Ring::make(path, records).map(Some),
    }
}
