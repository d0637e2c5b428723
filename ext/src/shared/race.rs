//! Two threads that ask at the same moment, round by round: for tests of what only one may be told.

use std::sync::atomic::{AtomicU64, Ordering::*};

/// In how many of the rounds so many of the two were told yes. `end` runs once between rounds.
pub fn of_two(
    rounds: u64,
    ask: impl Fn(u64, usize) -> bool + Sync,
    end: impl Fn() + Sync,
) -> [u64; 3] {
    let (here, yes) = (AtomicU64::new(0), AtomicU64::new(0));
    let told = [const { AtomicU64::new(0) }; 3];
    let meet = |at: u64| {
        here.fetch_add(1, SeqCst);
        while here.load(SeqCst) < 2 * at {
            std::hint::spin_loop();
        }
    };
    let run = |number: usize| {
        for round in 0..rounds {
            meet(3 * round + 1);
            yes.fetch_add(u64::from(ask(round, number)), SeqCst);
            meet(3 * round + 2);
            if number == 0 {
                let count = told.get(yes.swap(0, SeqCst) as usize);
                count.map(|count| count.fetch_add(1, SeqCst));
                end();
            }
            meet(3 * round + 3);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(0));
        scope.spawn(|| run(1));
    });
    told.map(|count| count.load(SeqCst))
}
