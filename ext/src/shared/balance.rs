//! The targets one request may go to, and which of them it takes: the least busy, one by weight, or a fast one.
//!
//! A place is taken before it is counted: first the own count rises, then the sum is looked at, and who finds it too
//! high gives back. So all who hold a place at once have seen each other, and never are there more than may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};

use super::balance_pick::{Choice, pick};
use super::breaker::{Breaker, Failure, Pass, Rule};
use super::targets::{Backend, FLAG_DOWN, FLAG_DRAINED, Targets, total};
use super::targets_cells::Cell;

/// A mask of members has a bit each.
pub const MAX_MEMBERS: usize = 64;
/// Two who come at once may both find one too many and give back: so often one tries again.
const TRIES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastInFlight,
    Weighted,
    Latency,
}

#[derive(Debug)]
pub struct Member {
    pub backend: Arc<Cell>,
    pub target: Arc<Cell>,
    pub weight: u64,
    /// 0 = no limit.
    pub max_in_flight: u64,
}

#[derive(Debug)]
pub struct Balancer {
    targets: Arc<Targets>,
    members: Box<[Member]>,
    balance: Balance,
    pub rule: Rule,
}

/// What came of trying to take a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    Taken {
        index: usize,
        probe: bool,
    },
    /// Where it may go all places are taken.
    Full,
    /// There is nowhere it may go.
    None,
}

/// What one may know of a member.
#[derive(Debug)]
pub struct View {
    /// Why it is not taken now; "" = it is.
    pub why: &'static str,
    pub in_flight: u64,
    pub waiting: u64,
    pub breaker: u64,
    pub failures_in_row: u64,
    pub retry_in: u64,
    pub latency: u64,
}

/// A member's cells.
struct Seen<'a> {
    backend: Backend<'a>,
    breaker: Breaker<'a>,
    member: &'a Member,
}

impl Balancer {
    /// None if there are too many members, or some are of other targets.
    pub fn new(
        targets: Arc<Targets>,
        members: Vec<Member>,
        balance: Balance,
        rule: Rule,
    ) -> Option<Self> {
        let is_of_them = |cell: &Cell| Arc::ptr_eq(&cell.targets, &targets);
        let sound = members.len() <= MAX_MEMBERS
            && members
                .iter()
                .all(|member| is_of_them(&member.backend) && is_of_them(&member.target));
        for breaker in members.iter().filter_map(|member| member.target.breaker()) {
            breaker.set_window(rule.window_ns);
        }
        sound.then(|| Self {
            targets,
            members: members.into(),
            balance,
            rule,
        })
    }

    #[inline]
    fn seen(&self, index: usize) -> Option<Seen<'_>> {
        let member = self.members.get(index)?;
        Some(Seen {
            backend: member.backend.backend()?,
            breaker: member.target.breaker()?,
            member,
        })
    }

    /// Takes a place at the member that the balance says, of those not in `avoid`.
    pub fn take(&self, now: u64, random: u64, avoid: u64, tag: u64) -> Take {
        let (up, down) = self.usable(now, avoid);
        match self.take_of(up, now, random, tag) {
            Take::None => self.take_of(down, now, random, tag),
            taken => taken,
        }
    }

    /// The members that may be taken but for their places: those that are up, and those that are down.
    fn usable(&self, now: u64, avoid: u64) -> (u64, u64) {
        let (mut up, mut down) = (0, 0);
        for index in (0..self.members.len()).filter(|index| avoid >> index & 1 == 0) {
            let Some(seen) = self.seen(index) else {
                continue;
            };
            let flags = seen.backend.flags.load(Acquire);
            let passes = matches!(seen.breaker.pass(now, &self.rule), Pass::Free | Pass::Probe);
            match flags {
                _ if flags & FLAG_DRAINED != 0 || !passes => {}
                _ if flags & FLAG_DOWN != 0 => down |= 1 << index,
                _ => up |= 1 << index,
            }
        }
        (up, down)
    }

    fn take_of(&self, mut usable: u64, now: u64, random: u64, tag: u64) -> Take {
        let mut none = Take::None;
        while usable != 0 {
            let choice = |index| self.choice(index, now);
            let Some(index) = pick(self.balance, usable, random, choice) else {
                break;
            };
            match self.take_at(index, now, tag) {
                Take::None => {}
                Take::Full => none = Take::Full,
                taken => return taken,
            }
            usable &= !(1 << index);
        }
        none
    }

    fn choice(&self, index: usize, now: u64) -> Choice {
        let Some(seen) = self.seen(index) else {
            return Choice::default();
        };
        let is_free = seen.breaker.pass(now, &self.rule) == Pass::Free;
        Choice {
            in_flight: seen.backend.in_flight(),
            weight: seen.member.weight,
            latency: if is_free {
                seen.breaker.fresh_latency(now)
            } else {
                0
            },
        }
    }

    /// Takes a place at a member, and its probe if it lets only that through.
    fn take_at(&self, index: usize, now: u64, tag: u64) -> Take {
        let slot = self.targets.slot();
        let Some(seen) = self.seen(index) else {
            return Take::None;
        };
        if !seen.take_place(slot, tag) {
            return Take::Full;
        }
        let probe = match seen.breaker.pass(now, &self.rule) {
            Pass::Free => false,
            Pass::Probe if seen.breaker.probe(now, slot, &self.rule) => true,
            _ => {
                give_place(seen.backend.in_flight.get(slot));
                return Take::None;
            }
        };
        Take::Taken { index, probe }
    }

    /// Takes a place where nothing is wrong and nobody else is.
    pub fn take_idle(&self, now: u64, random: u64, avoid: u64) -> Take {
        let mut idle = self.idle(now, avoid);
        let choice = |index| self.choice(index, now);
        while let Some(index) = pick(Balance::Weighted, idle, random, choice) {
            idle &= !(1 << index);
            let seen = self.seen(index);
            if seen.is_some_and(|seen| seen.take_below(self.targets.slot(), 1)) {
                let probe = false;
                return Take::Taken { index, probe };
            }
        }
        Take::None
    }

    /// The members where nothing is wrong, nobody is and nobody waits.
    fn idle(&self, now: u64, avoid: u64) -> u64 {
        let (up, _) = self.usable(now, avoid);
        let idle = (0..self.members.len()).filter(|&index| {
            up >> index & 1 != 0
                && self.seen(index).is_some_and(|seen| {
                    seen.breaker.pass(now, &self.rule) == Pass::Free
                        && seen.backend.in_flight() == 0
                        && !seen.backend.is_before_me(0, self.targets.slot())
                })
        });
        idle.fold(0, |mask, index| mask | 1 << index)
    }

    /// The place is free again; a probe that told nothing is given back.
    pub fn release(&self, index: usize, probe: bool) {
        let slot = self.targets.slot();
        let Some(seen) = self.seen(index) else { return };
        give_place(seen.backend.in_flight.get(slot));
        if probe {
            seen.breaker.give_back(slot);
        }
    }

    /// The member answered, after so many ns. True: this closed its breaker.
    pub fn answered(&self, index: usize, probe: bool, now: u64, latency: u64) -> bool {
        self.seen(index)
            .is_some_and(|seen| seen.breaker.answered(probe, now, latency, &self.rule))
    }

    /// The member failed. True: this opened its breaker.
    pub fn failed(&self, index: usize, probe: bool, now: u64, failure: Failure) -> bool {
        self.seen(index)
            .is_some_and(|seen| seen.breaker.failed(probe, now, failure, &self.rule))
    }

    /// ns until the first breaker of the members that are not drained lets one through; 0 = one does.
    pub fn retry_in(&self, now: u64) -> u64 {
        let all = (0..self.members.len()).filter_map(|index| self.seen(index));
        let open = all.filter(|seen| seen.backend.flags.load(Acquire) & FLAG_DRAINED == 0);
        let waits = open.map(|seen| seen.breaker.pass(now, &self.rule).wait());
        waits.min().unwrap_or(0)
    }

    /// The members whose place one may wait for.
    pub fn full(&self, now: u64, avoid: u64) -> u64 {
        let (up, down) = self.usable(now, avoid);
        let usable = if up != 0 { up } else { down };
        let full = (0..self.members.len()).filter(|&index| {
            usable >> index & 1 != 0 && self.seen(index).is_some_and(|seen| seen.is_full())
        });
        full.fold(0, |mask, index| mask | 1 << index)
    }

    /// What one may know of each member.
    pub fn view(&self, now: u64) -> Vec<View> {
        let all = (0..self.members.len()).filter_map(|index| self.seen(index));
        all.map(|seen| View {
            why: seen.why(now, &self.rule),
            in_flight: seen.backend.in_flight(),
            waiting: seen.backend.waiting(),
            breaker: seen.breaker.state(now),
            failures_in_row: seen.breaker.failures_in_row(),
            retry_in: seen.breaker.retry_in(now),
            latency: seen.breaker.latency(),
        })
        .collect()
    }
}

impl Seen<'_> {
    /// Takes a place unless all are taken or others go first.
    #[inline]
    fn take_place(&self, slot: usize, tag: u64) -> bool {
        let most = self.member.max_in_flight;
        if most == 0 {
            self.backend
                .in_flight
                .get(slot)
                .map(|own| own.fetch_add(1, SeqCst));
            return true;
        }
        !self.backend.is_before_me(tag, slot) && self.take_below(slot, most)
    }

    /// Takes a place if so there are `most` in flight at most.
    fn take_below(&self, slot: usize, most: u64) -> bool {
        let Some(own) = self.backend.in_flight.get(slot) else {
            return false;
        };
        for _ in 0..TRIES {
            if self.backend.in_flight() >= most {
                return false;
            }
            own.fetch_add(1, SeqCst);
            if self.backend.in_flight() <= most {
                return true;
            }
            give_place(Some(own));
        }
        false
    }

    /// Whether a newcomer finds no place.
    fn is_full(&self) -> bool {
        let most = self.member.max_in_flight;
        most != 0 && (self.backend.in_flight() >= most || self.backend.waiting() != 0)
    }

    fn why(&self, now: u64, rule: &Rule) -> &'static str {
        let flags = self.backend.flags.load(Acquire);
        match self.breaker.pass(now, rule) {
            _ if flags & FLAG_DRAINED != 0 => "drained",
            Pass::Wait(_) => "open",
            Pass::Probed => "half_open",
            _ if self.is_full() => "full",
            _ if flags & FLAG_DOWN != 0 => "down",
            _ => "",
        }
    }
}

impl Backend<'_> {
    /// How many are in flight, in all processes.
    #[inline]
    pub fn in_flight(&self) -> u64 {
        total(self.in_flight)
    }
}

/// A place less; never below none, also if somebody releases twice.
fn give_place(own: Option<&AtomicU64>) {
    if let Some(own) = own {
        let _ = own.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::super::race::of_two;
    use super::super::targets_cells::Kind;
    use super::*;

    const RULE: Rule = Rule {
        failures: 5,
        ratio: 0.5,
        window_ns: 30_000_000_000,
        min_requests: 10,
        recovery_ns: 60_000_000_000,
    };

    /// Of one member with so many places.
    fn balancer(targets: &Arc<Targets>, most: u64) -> Balancer {
        let cell = |kind| Arc::new(Cell::of(targets, kind, 7).unwrap());
        let member = Member {
            backend: cell(Kind::Backend),
            target: cell(Kind::Target),
            weight: 1,
            max_in_flight: most,
        };
        Balancer::new(targets.clone(), vec![member], Balance::LeastInFlight, RULE).unwrap()
    }

    /// Two processes' worth of slots that take at once.
    #[test]
    fn never_more_than_places() {
        const ROUNDS: u64 = 3_000;
        let folder = std::env::temp_dir().join(format!("penstock-balance-{}", std::process::id()));
        super::super::file::make_folder(&folder).unwrap();
        let path = folder.join("targets.shm");
        let open = || Arc::new(Targets::open(&path, b"boot", 4, 4).unwrap());
        let two = [open(), open()].map(|targets| balancer(&targets, 1));
        let take = |_, number: usize| {
            let one = two.get(number).unwrap();
            matches!(one.take(1, 0, 0, 0), Take::Taken { .. })
        };
        let release = || two.iter().for_each(|one| one.release(0, false));
        let [_, _, both] = of_two(ROUNDS, take, release);
        assert_eq!(both, 0);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn memory_of_its_own_needs_no_path() {
        let targets = Arc::new(Targets::open(Path::new(""), b"", 1, 1).unwrap());
        assert!(targets.lead().unwrap());
        assert_eq!(targets.sweep().unwrap(), 0);
        assert!(matches!(
            balancer(&targets, 0).take(1, 0, 0, 0),
            Take::Taken { .. }
        ));
    }
}
