//! The arithmetic of one cell's word: what a limit makes of it. Pure; `tests/oracle/limits.py` is its slow twin.
//!
//! A bucket's word is its theoretical arrival time (GCRA), ns on the monotonic clock. A calendar's is 16 bits of
//! window index over 48 bits of amount; 0 is one never used. In flight it is 32 bits of version over 32 bits of count.

use super::window::{Clock, Window, newer};

/// The largest amount a calendar cell holds. Money in nano-USD: 281,474 USD.
pub const MAX_CALENDAR: u64 = (1 << 48) - 2;
pub const MAX_IN_FLIGHT: u64 = u32::MAX as u64 - 1;
/// Nobody knows when a request in flight ends; asking again after this is polite.
const IN_FLIGHT_WAIT_NS: u64 = 1_000_000_000;
/// A backend that reports absurd usage must not close a bucket for ever: it is never further ahead than this.
const MAX_DEBT_NS: u64 = 3_600_000_000_000;

/// A limit without its name: what is counted how, up to what.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub window: Window,
    /// None: counted, never refused.
    pub amount: Option<u64>,
    /// ns that one unit takes to flow back into a bucket.
    pub increment: u64,
}

/// Why nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// More is asked for than the limit ever allows.
    Never,
    Ns(u64),
}

/// A word after taking, and what giving back must know: the window index, or where the bucket's time then stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub word: u64,
    pub mark: u64,
}

/// What a word says of its cell now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub used: u64,
    /// Until the window ends or the bucket is full again, ns; 0 in flight.
    pub resets_in: u64,
}

impl Rule {
    pub fn new(window: Window, period: u64, amount: Option<u64>) -> Self {
        let increment = match window {
            Window::Bucket => period.div_ceil(amount.unwrap_or(1).max(1)).max(1),
            _ => 0,
        };
        Self {
            window,
            amount,
            increment,
        }
    }

    /// What `n` more make of the word.
    pub fn take(&self, word: u64, n: u64, clock: &Clock) -> Result<Taken, Wait> {
        if self.amount.is_some_and(|amount| n > amount) {
            return Err(Wait::Never);
        }
        match self.window {
            Window::Bucket => self.take_bucket(word, n, clock.now),
            Window::None => self.take_in_flight(word, n),
            _ => self.take_calendar(word, n, clock),
        }
    }

    fn take_bucket(&self, arrival: u64, n: u64, now: u64) -> Result<Taken, Wait> {
        let end = arrival
            .max(now)
            .saturating_add(n.saturating_mul(self.increment));
        let capacity = self
            .amount
            .unwrap_or(u64::MAX)
            .saturating_mul(self.increment);
        match end - now {
            ahead if ahead > capacity => Err(Wait::Ns(ahead - capacity)),
            _ => Ok(Taken {
                word: end.min(u64::MAX - 1),
                mark: end,
            }),
        }
    }

    fn take_calendar(&self, word: u64, n: u64, clock: &Clock) -> Result<Taken, Wait> {
        let (index, used) = current(word, self.window, clock);
        let total = used.saturating_add(n);
        if self.amount.is_some_and(|amount| total > amount) {
            let end = clock.until_end(self.window, clock.widen(self.window, index));
            return Err(Wait::Ns(end.max(1)));
        }
        Ok(Taken {
            word: calendar(index, total),
            mark: u64::from(index),
        })
    }

    fn take_in_flight(&self, word: u64, n: u64) -> Result<Taken, Wait> {
        let count = word & COUNT;
        if count.saturating_add(n) > self.amount.unwrap_or(MAX_IN_FLIGHT).min(MAX_IN_FLIGHT) {
            return Err(Wait::Ns(IN_FLIGHT_WAIT_NS));
        }
        Ok(Taken {
            word: in_flight(word, count + n),
            mark: 0,
        })
    }

    pub fn standing(&self, word: u64, clock: &Clock) -> Standing {
        Standing {
            used: self.used(word, clock),
            resets_in: self.resets_in(word, clock),
        }
    }

    #[inline]
    pub fn used(&self, word: u64, clock: &Clock) -> u64 {
        match self.window {
            Window::Bucket => word
                .saturating_sub(clock.now)
                .div_ceil(self.increment.max(1)),
            Window::None => word & COUNT,
            window => current(word, window, clock).1,
        }
    }

    pub fn resets_in(&self, word: u64, clock: &Clock) -> u64 {
        match self.window {
            Window::Bucket => word.saturating_sub(clock.now),
            Window::None => 0,
            window => {
                let (index, _) = current(word, window, clock);
                clock.until_end(window, clock.widen(window, index))
            }
        }
    }
}

const COUNT: u64 = u32::MAX as u64;

/// The window a calendar cell counts in now, and what it has counted there. A newer window begins at 0; the index
/// never goes back, so an older clock keeps counting in the cell's own window.
pub fn current(word: u64, window: Window, clock: &Clock) -> (u16, u64) {
    let ours = clock.index(window) as u16;
    let index = (word >> 48) as u16;
    match word {
        0 => (ours, 0),
        _ if newer(ours, index) > 0 => (ours, 0),
        _ => (index, word & ((1 << 48) - 1)),
    }
}

pub fn calendar(index: u16, amount: u64) -> u64 {
    (u64::from(index) << 48) | amount.min(MAX_CALENDAR)
}

/// The word with another count, its version raised.
pub fn in_flight(word: u64, count: u64) -> u64 {
    let version = (word >> 32).wrapping_add(1) & COUNT;
    (version << 32) | count.min(MAX_IN_FLIGHT)
}

/// What a calendar word becomes when `reserved` units turn out to be `actual`; None once its window has passed.
pub fn settle_calendar(word: u64, mark: u64, reserved: u64, actual: u64) -> Option<u64> {
    let index = (word >> 48) as u16;
    let used = word & ((1 << 48) - 1);
    let settled = used
        .saturating_sub(reserved.saturating_sub(actual))
        .saturating_add(actual.saturating_sub(reserved));
    (word != 0 && u64::from(index) == mark).then(|| calendar(index, settled))
}

/// The same for a bucket. Of what is given back, the part that has flowed back by itself already does not count:
/// the reservation stood for the time up to `mark`, and that before `now` is gone.
pub fn settle_bucket(
    arrival: u64,
    mark: u64,
    increment: u64,
    reserved: u64,
    actual: u64,
    now: u64,
) -> Option<u64> {
    let back = reserved
        .saturating_sub(actual)
        .saturating_mul(increment)
        .min(mark.saturating_sub(now));
    let excess = actual
        .saturating_sub(reserved)
        .saturating_mul(increment)
        .min(MAX_DEBT_NS);
    match (back, excess) {
        (0, 0) => None,
        (0, excess) => {
            let settled = arrival
                .max(now)
                .saturating_add(excess)
                .min(now.saturating_add(MAX_DEBT_NS));
            (settled > arrival).then_some(settled)
        }
        (back, _) => Some(arrival.saturating_sub(back)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn burst(rule: &Rule, mut word: u64, clock: &Clock) -> u64 {
        let mut count = 0;
        while let Ok(taken) = rule.take(word, 1, clock) {
            word = taken.word;
            count += 1;
        }
        count
    }

    #[test]
    fn a_bucket_admits_exactly_its_amount_at_once() {
        let clock = Clock::new(7 * HOUR, 0);
        for amount in [1, 2, 3, 7, 1000, 999_999] {
            let rule = Rule::new(Window::Bucket, 1_000_000_000, Some(amount));
            assert_eq!(burst(&rule, 0, &clock), amount);
        }
    }

    #[test]
    fn a_calendar_never_goes_back() {
        let rule = Rule::new(Window::Hour, 0, Some(10));
        let late = Clock::new(0, 500_001 * HOUR);
        let early = Clock::new(0, 500_000 * HOUR);
        let word = rule.take(0, 10, &late).unwrap().word;
        assert_eq!(rule.take(word, 1, &early), Err(Wait::Ns(2 * HOUR)));
        let after = Clock::new(0, 500_002 * HOUR);
        assert_eq!(
            current(
                rule.take(word, 1, &after).unwrap().word,
                Window::Hour,
                &after
            )
            .1,
            1
        );
    }

    #[test]
    fn more_than_the_amount_is_never() {
        for window in Window::ALL {
            let rule = Rule::new(window, HOUR, Some(5));
            assert_eq!(rule.take(0, 6, &Clock::new(HOUR, HOUR)), Err(Wait::Never));
        }
    }

    #[test]
    fn what_flowed_back_is_not_given_back_twice() {
        // 10 units of 1 ns each taken at 100: at 107 seven are back, three are left to give.
        assert_eq!(settle_bucket(110, 110, 1, 10, 0, 107), Some(107));
        assert_eq!(settle_bucket(110, 110, 1, 10, 0, 200), None);
        assert_eq!(settle_bucket(110, 110, 1, 10, 8, 100), Some(108));
        assert_eq!(settle_bucket(110, 110, 1, 10, 12, 100), Some(112));
    }
}
