//! A limit on its cell: taking from it, and giving back what was taken.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::cells::{Error, NOWHERE, key_of};
use super::rule::{self, MAX_CALENDAR, Rule, Wait};
use super::state::State;
use super::window::{Clock, Window};

/// The most limits a record can hold.
pub const MAX_HOLDS: usize = 16;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Measure {
    Requests = 0,
    LlmRequests = 1,
    Tokens = 2,
    NanoUsd = 3,
    InFlight = 4,
}

impl Measure {
    pub const ALL: [Measure; 5] = [
        Measure::Requests,
        Measure::LlmRequests,
        Measure::Tokens,
        Measure::NanoUsd,
        Measure::InFlight,
    ];

    pub fn of(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// What a request may need at worst, or used in the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    pub requests: u64,
    pub llm_requests: u64,
    pub tokens: u64,
    pub nano_usd: u64,
    pub in_flight: u64,
}

impl Demand {
    pub fn of(&self, measure: Measure) -> u64 {
        match measure {
            Measure::Requests => self.requests,
            Measure::LlmRequests => self.llm_requests,
            Measure::Tokens => self.tokens,
            Measure::NanoUsd => self.nano_usd,
            Measure::InFlight => self.in_flight,
        }
    }
}

#[derive(Debug)]
pub struct Limit {
    pub name: Box<[u8]>,
    pub key: u64,
    pub measure: Measure,
    pub rule: Rule,
    /// Where its cell was last seen.
    hint: AtomicU32,
}

/// Something taken from a cell: all that is needed to give it back, without the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    pub index: u32,
    pub key: u64,
    pub measure: u8,
    pub window: u8,
    pub amount: u64,
    pub mark: u64,
    pub increment: u64,
}

/// What taking would make of a cell; true as long as the word that was seen stands there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    pub seen: u64,
    pub word: u64,
    pub mark: u64,
}

pub type Plans = [Plan; MAX_HOLDS];

impl Limit {
    /// amount: -1 for a meter. What is wrong with the arguments is said in words.
    pub fn new(
        name: &[u8],
        cell: u64,
        measure: Measure,
        window: Window,
        period_ns: u64,
        amount: i64,
    ) -> Result<Self, &'static str> {
        let amount = match u64::try_from(amount) {
            Ok(amount) if amount > MAX_CALENDAR => return Err("an amount is at most 2**48 - 2"),
            Ok(amount) => Some(amount),
            Err(_) if amount == -1 && window != Window::Bucket => None,
            Err(_) if amount == -1 => return Err("a bucket has an amount"),
            Err(_) => return Err("an amount is at least 0, or -1"),
        };
        if (measure == Measure::InFlight) != (window == Window::None) {
            return Err("in flight has no window, all else has one");
        }
        if window == Window::Bucket && period_ns == 0 {
            return Err("a bucket has a period");
        }
        let rule = Rule::new(window, period_ns, amount);
        let hint = AtomicU32::new(NOWHERE);
        Ok(Self {
            name: name.into(),
            key: key_of(cell),
            measure,
            rule,
            hint,
        })
    }

    /// The cell's word, 0 if there is none yet.
    pub fn word(&self, state: &State) -> u64 {
        state.word(self.key, self.rule.window, &self.hint)
    }

    /// A hold as it stands before anything is taken.
    pub fn hold(&self, amount: u64) -> Hold {
        Hold {
            index: self.hint.load(Relaxed),
            key: self.key,
            measure: self.measure as u8,
            window: self.rule.window as u8,
            amount,
            mark: 0,
            increment: self.rule.increment,
        }
    }

    /// Sees to it that the cell is there, so that a hold says where.
    pub fn resolve(&self, state: &State) -> Result<(), Error> {
        if self.hint.load(Relaxed) == NOWHERE {
            self.hint
                .store(state.resolve(self.key, self.rule.window)?, Relaxed);
        }
        Ok(())
    }

    /// Takes `n`: the hold and the word it left.
    pub fn take(
        &self,
        state: &State,
        n: u64,
        clock: &Clock,
    ) -> Result<Result<(Hold, u64), Wait>, Error> {
        let hint = self.hint.load(Relaxed);
        let change = |word| {
            self.rule
                .take(word, n, clock)
                .map(|taken| (taken.word, taken))
        };
        let changed = match state.change(self.key, self.rule.window, hint, change)? {
            Ok(changed) => changed,
            Err(wait) => return Ok(Err(wait)),
        };
        if changed.index != hint {
            self.hint.store(changed.index, Relaxed);
        }
        let hold = Hold {
            index: changed.index,
            mark: changed.made.mark,
            ..self.hold(n)
        };
        Ok(Ok((hold, changed.made.word)))
    }
}

impl Hold {
    /// What was held turns out to be `actual`. now: monotonic, ns.
    pub fn settle(&self, state: &State, actual: u64, now: u64) {
        match Window::of(u64::from(self.window)) {
            Some(Window::None) => self.release(state, actual),
            Some(Window::Bucket) => self.settle_bucket(state, actual, now),
            Some(_) if actual != self.amount => {
                state.change_if_there(self.key, self.index, |word| {
                    rule::settle_calendar(word, self.mark, self.amount, actual)
                })
            }
            _ => {}
        }
    }

    fn release(&self, state: &State, actual: u64) {
        let back = self.amount.saturating_sub(actual);
        state.change_if_there(self.key, self.index, |word| {
            let count = word & u64::from(u32::MAX);
            (back > 0 && count > 0).then(|| rule::in_flight(word, count.saturating_sub(back)))
        });
    }

    fn settle_bucket(&self, state: &State, actual: u64, now: u64) {
        let settled =
            |word| rule::settle_bucket(word, self.mark, self.increment, self.amount, actual, now);
        if actual > self.amount {
            // A swept bucket was full, and must be made again to be charged. Without room it stays full.
            let _ = state.change(self.key, Window::Bucket, self.index, |word| {
                settled(word).map(|word| (word, ())).ok_or(())
            });
        } else if actual < self.amount {
            state.change_if_there(self.key, self.index, settled);
        }
    }
}

/// Takes `demand` of all limits or nothing, without a record. Err: which one refused, and why.
pub fn take_all(
    state: &State,
    limits: &[Limit],
    demand: &Demand,
    clock: &Clock,
) -> Result<Result<(), (usize, Wait)>, Error> {
    if let Some(refused) = longest_wait(state, limits, demand, clock, &mut Plans::default()) {
        return Ok(Err(refused));
    }
    let mut held: Vec<Hold> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let taken = limit.take(state, demand.of(limit.measure), clock);
        if let Ok(Ok((hold, _))) = taken {
            held.push(hold);
            continue;
        }
        held.iter()
            .rev()
            .for_each(|hold| hold.settle(state, 0, clock.now));
        return taken.map(|refused| refused.map(|_| ()).map_err(|wait| (index, wait)));
    }
    Ok(Ok(()))
}

/// Looks without taking: the limit that refuses for longest, a `Never` before all others. If none does, `plans` say
/// what taking will do.
pub fn longest_wait(
    state: &State,
    limits: &[Limit],
    demand: &Demand,
    clock: &Clock,
    plans: &mut Plans,
) -> Option<(usize, Wait)> {
    let mut longest: Option<(usize, Wait)> = None;
    for (index, (limit, plan)) in limits.iter().zip(plans).enumerate() {
        plan.seen = limit.word(state);
        let n = demand.of(limit.measure);
        if n == 0 {
            continue;
        }
        let wait = match limit.rule.take(plan.seen, n, clock) {
            Ok(taken) => {
                (plan.word, plan.mark) = (taken.word, taken.mark);
                continue;
            }
            Err(wait) => wait,
        };
        match (wait, longest) {
            (Wait::Never, _) => return Some((index, wait)),
            (Wait::Ns(ns), Some((_, Wait::Ns(before)))) if ns <= before => {}
            _ => longest = Some((index, wait)),
        }
    }
    longest
}
