//! The circuit breaker of a target, and how fast it answers, in words that all processes change.
//!
//! State, the probe's owner and the time of the last turn are one word, so nobody sees half of a turn, and of many
//! who would turn it one does. While half open exactly one probe is out, until it tells or is given back.

use std::sync::atomic::{AtomicU64, Ordering::*};

use super::breaker_window::Parts;

pub const CLOSED: u64 = 0;
pub const OPEN: u64 = 1;
pub const HALF_OPEN: u64 = 2;
const STATE_BITS: u64 = 3;
/// It opened because no connection could be made.
const CONNECT: u64 = 4;
const SLOT_SHIFT: u32 = 3;
/// Open: from when a probe may go; half open: when the probe went, 0 = none is out; closed: since when, 0 = always. us
/// of the monotonic clock, up.
const TIME_SHIFT: u32 = 11;

/// A probe that was let out somewhere may be about to tell: so long until one looks again.
const PROBE_WAIT_NS: u64 = 1_000_000_000;
/// What a target that was never measured counts as when it fails: failing must not look fast.
const FIRST_FAILURE_NS: u64 = 1_000_000_000;
const LEAST_FAILURE_NS: u64 = 1_000_000;
const MOST_LATENCY_NS: u64 = 60_000_000_000;
/// A measured latency counts half as much after so long without another, so nothing is avoided for ever.
const LATENCY_HALVES_NS: u64 = 60_000_000_000;

/// When a breaker opens and for how long. 0 failures, or a ratio of 0: not by that.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub failures: u64,
    pub ratio: f64,
    pub window_ns: u64,
    pub min_requests: u64,
    pub recovery_ns: u64,
}

/// How a target failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When the request took its place, ns.
    pub taken: u64,
    /// No connection could be made, or it was broken off: the backend may be away.
    pub connect: bool,
    /// It had answered, and did not end that.
    pub late: bool,
}

/// What a breaker says to one who wants to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Free,
    /// Only as the probe.
    Probe,
    /// Not for so many ns.
    Wait(u64),
    /// A probe is out.
    Probed,
}

/// So many words further on the window's parts stand.
const PARTS_AT: usize = 4;

/// A target's words.
#[derive(Clone, Copy)]
pub struct Breaker<'a> {
    state: &'a AtomicU64,
    row: &'a AtomicU64,
    latency: &'a AtomicU64,
    measured: &'a AtomicU64,
    /// The window's length, ns, as it was last configured.
    window: &'a AtomicU64,
    parts: Parts<'a>,
}

impl<'a> Breaker<'a> {
    #[inline]
    pub fn of(words: &'a [AtomicU64]) -> Option<Self> {
        let [
            _,
            state,
            _,
            _,
            _,
            _,
            row,
            latency,
            measured,
            window,
            rest @ ..,
        ] = words
        else {
            return None;
        };
        Some(Self {
            state,
            row,
            latency,
            measured,
            window,
            parts: Parts(rest.get(PARTS_AT..)?),
        })
    }

    /// Whether a request may go there.
    #[inline]
    pub fn pass(&self, now: u64, rule: &Rule) -> Pass {
        pass(self.state.load(SeqCst), now, rule)
    }

    /// Lets a probe of this slot out, if it may still go and nobody else's did.
    pub fn probe(&self, now: u64, slot: usize, rule: &Rule) -> bool {
        let word = self.state.load(SeqCst);
        let owner = (slot as u64) << SLOT_SHIFT;
        let out = HALF_OPEN | word & CONNECT | owner | micros(now).max(1) << TIME_SHIFT;
        pass(word, now, rule) == Pass::Probe && self.turn(word, out)
    }

    /// The probe of this slot ended without telling anything: another may go.
    pub fn give_back(&self, slot: usize) {
        let word = self.state.load(SeqCst);
        if state_of(word) == HALF_OPEN && slot_of(word) == slot && time_of(word) != 0 {
            self.turn(word, HALF_OPEN | word & CONNECT);
        }
    }

    /// The target answered, after so long. True: this closed it.
    #[inline]
    pub fn answered(&self, probe: bool, now: u64, latency: u64, rule: &Rule) -> bool {
        self.measure(now, |old| match old {
            0 => latency.clamp(1, MOST_LATENCY_NS),
            _ => (old - old / 4 + latency.min(MOST_LATENCY_NS) / 4).max(1),
        });
        let word = self.state.load(SeqCst);
        if state_of(word) == CLOSED {
            if self.row.load(Relaxed) != 0 {
                self.row.store(0, SeqCst);
            }
            self.parts.count(now, false, rule.window_ns);
        }
        if !probe || state_of(word) != HALF_OPEN {
            return false;
        }
        // Before it closes: what failed then must not count among what fails now.
        self.forget();
        self.turn(word, CLOSED | micros(now) << TIME_SHIFT)
    }

    /// The target failed in this way. True: this opened it.
    ///
    /// One that took its place before the breaker closed tells of the time before, and nothing of now.
    pub fn failed(&self, probe: bool, now: u64, failure: Failure, rule: &Rule) -> bool {
        let word = self.state.load(SeqCst);
        if state_of(word) == CLOSED && failure.taken < nanos(word) {
            return false;
        }
        self.measure(now, |old| match old {
            0 => FIRST_FAILURE_NS,
            _ => old
                .saturating_mul(2)
                .clamp(LEAST_FAILURE_NS, MOST_LATENCY_NS),
        });
        let row = self.row.fetch_add(1, SeqCst).saturating_add(1);
        let opens = match state_of(word) {
            CLOSED => {
                if failure.late {
                    self.parts.failed_late(now, rule.window_ns);
                } else {
                    self.parts.count(now, true, rule.window_ns);
                }
                rule.failures > 0 && row >= rule.failures || self.is_failing(now, rule)
            }
            HALF_OPEN => probe,
            _ => false,
        };
        let cause = if failure.connect { CONNECT } else { 0 };
        let until = micros(now.saturating_add(rule.recovery_ns));
        opens && self.turn(word, OPEN | cause | until << TIME_SHIFT)
    }

    /// Whether too many of the window's requests failed.
    fn is_failing(&self, now: u64, rule: &Rule) -> bool {
        let (requests, failures) = self.parts.sum(now, rule.window_ns);
        let most = rule.ratio * requests as f64;
        rule.ratio > 0.0 && requests >= rule.min_requests && failures as f64 >= most
    }

    /// A check could connect: if it is open because nobody could, a probe may go at once. Whether it is.
    pub fn probe_early(&self) -> bool {
        let word = self.state.load(SeqCst);
        state_of(word) == OPEN && word & CONNECT != 0 && self.turn(word, HALF_OPEN | CONNECT)
    }

    /// Closed, and nothing known, as at first.
    pub fn reset(&self) {
        self.forget();
        self.latency.store(0, SeqCst);
        self.state.store(CLOSED, SeqCst);
    }

    fn forget(&self) {
        self.row.store(0, SeqCst);
        self.parts.clear();
    }

    fn turn(&self, from: u64, to: u64) -> bool {
        let turned = self.state.compare_exchange(from, to, SeqCst, SeqCst);
        turned.is_ok()
    }

    /// CLOSED, OPEN, or HALF_OPEN: a probe may go or is out.
    pub fn state(&self, now: u64) -> u64 {
        let word = self.state.load(SeqCst);
        match state_of(word) {
            OPEN if open_for(word, now) == 0 => HALF_OPEN,
            state => state,
        }
    }

    /// While it is open: until a probe may go. ns.
    pub fn retry_in(&self, now: u64) -> u64 {
        let word = self.state.load(SeqCst);
        if state_of(word) == OPEN {
            open_for(word, now)
        } else {
            0
        }
    }

    pub fn failures_in_row(&self) -> u64 {
        self.row.load(SeqCst)
    }

    /// Says how long the window is, for those who look at it.
    pub fn set_window(&self, window_ns: u64) {
        self.window.store(window_ns, Release);
    }

    /// Requests, and failures among them, of the window that ends now.
    pub fn window(&self, now: u64) -> (u64, u64) {
        self.parts.sum(now, self.window.load(Acquire))
    }

    /// The mean time to an answer's head, ns; 0 = not measured.
    pub fn latency(&self) -> u64 {
        self.latency.load(Relaxed)
    }

    /// The same, believed less the older it is.
    #[inline]
    pub fn fresh_latency(&self, now: u64) -> u64 {
        let latency = self.latency();
        let age = now.saturating_sub(self.measured.load(Relaxed));
        let halved = latency >> (age / LATENCY_HALVES_NS).min(63);
        halved.max(latency.min(1))
    }

    #[inline]
    fn measure(&self, now: u64, next: impl Fn(u64) -> u64) {
        // Two at once may lose one of both measurements: it is a mean.
        self.latency.store(next(self.latency()), Relaxed);
        self.measured.store(now, Relaxed);
    }
}

impl Pass {
    /// ns until a request may go.
    pub fn wait(self) -> u64 {
        match self {
            Pass::Free | Pass::Probe => 0,
            Pass::Wait(ns) => ns,
            Pass::Probed => PROBE_WAIT_NS,
        }
    }
}

#[inline]
fn pass(word: u64, now: u64, rule: &Rule) -> Pass {
    match state_of(word) {
        CLOSED => Pass::Free,
        OPEN => match open_for(word, now) {
            0 => Pass::Probe,
            ns => Pass::Wait(ns),
        },
        // A probe that told nothing for so long is lost.
        _ if time_of(word) == 0
            || now >= nanos(word).saturating_add(rule.recovery_ns.saturating_mul(2)) =>
        {
            Pass::Probe
        }
        _ => Pass::Probed,
    }
}

fn open_for(word: u64, now: u64) -> u64 {
    nanos(word).saturating_sub(now)
}

fn state_of(word: u64) -> u64 {
    word & STATE_BITS
}

fn slot_of(word: u64) -> usize {
    usize::from((word >> SLOT_SHIFT) as u8)
}

fn time_of(word: u64) -> u64 {
    word >> TIME_SHIFT
}

fn nanos(word: u64) -> u64 {
    time_of(word) * 1000
}

fn micros(ns: u64) -> u64 {
    ns.div_ceil(1000) & (u64::MAX >> TIME_SHIFT)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    const EARLY: Failure = Failure {
        taken: u64::MAX,
        connect: false,
        late: false,
    };
    const AWAY: Failure = Failure {
        taken: u64::MAX,
        connect: true,
        late: false,
    };
    const LATE: Failure = Failure {
        taken: u64::MAX,
        connect: false,
        late: true,
    };

    use super::super::race::of_two;
    use super::*;

    const RULE: Rule = Rule {
        failures: 5,
        ratio: 0.5,
        window_ns: 30_000_000_000,
        min_requests: 10,
        recovery_ns: 60_000_000_000,
    };
    const NOW: u64 = 1_000_000_000_000_000;

    /// One failure opens it.
    const ONE: Rule = Rule {
        failures: 1,
        ..RULE
    };

    fn words() -> Vec<AtomicU64> {
        (0..24).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn of_two_at_once_one_turns_it() {
        const ROUNDS: u64 = 3_000;
        let words = words();
        let breaker = Breaker::of(&words).unwrap();
        let at = |round: u64| NOW + round * 2 * RULE.recovery_ns;
        while !breaker.failed(false, NOW - RULE.recovery_ns, EARLY, &RULE) {}
        let probe = |round, slot| breaker.probe(at(round), slot, &RULE);
        assert_eq!(of_two(ROUNDS, probe, || ()), [0, ROUNDS, 0]);
        let since = at(ROUNDS);
        breaker.reset();
        let turns = |round, _| match round % 2 {
            0 => breaker.failed(breaker.state(0) == HALF_OPEN, since, EARLY, &ONE),
            _ => {
                let later = since + ONE.recovery_ns;
                breaker.probe(later, 0, &ONE);
                breaker.answered(true, later, 1, &ONE)
            }
        };
        assert_eq!(of_two(ROUNDS, turns, || ()), [0, ROUNDS, 0]);
    }

    #[test]
    fn only_its_owner_gives_a_probe_back() {
        let words = words();
        let breaker = Breaker::of(&words).unwrap();
        while !breaker.failed(false, NOW, AWAY, &RULE) {}
        assert!(breaker.probe(NOW + RULE.recovery_ns, 255, &RULE));
        breaker.give_back(0);
        assert_eq!(breaker.pass(NOW + RULE.recovery_ns, &RULE), Pass::Probed);
        breaker.give_back(255);
        assert_eq!(breaker.pass(NOW + RULE.recovery_ns, &RULE), Pass::Probe);
        assert!(!breaker.probe_early(), "a probe may go already");
    }

    #[test]
    fn times_that_are_no_whole_us_are_late_not_early() {
        let words = words();
        let breaker = Breaker::of(&words).unwrap();
        while !breaker.failed(false, NOW + 1, EARLY, &RULE) {}
        assert_eq!(
            breaker.pass(NOW + 999 + RULE.recovery_ns, &RULE),
            Pass::Wait(1)
        );
        assert_eq!(
            breaker.pass(NOW + 1000 + RULE.recovery_ns, &RULE),
            Pass::Probe
        );
    }

    #[test]
    fn words_that_make_no_sense_do_no_harm() {
        let words = words();
        let breaker = Breaker::of(&words).unwrap();
        for value in [u64::MAX, u64::MAX - 1, 3, 1 << 63] {
            words.iter().for_each(|word| word.store(value, SeqCst));
            for now in [0, NOW, u64::MAX] {
                let _ = (breaker.pass(now, &RULE), breaker.probe(now, 1, &RULE));
                let _ = (breaker.failed(true, now, LATE, &RULE), breaker.window(now));
                let _ = (
                    breaker.answered(true, now, u64::MAX, &RULE),
                    breaker.fresh_latency(now),
                );
                let _ = (breaker.retry_in(now), breaker.state(now));
            }
        }
    }
}
