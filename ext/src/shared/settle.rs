//! Ending a record: what it holds becomes what was used. The living owner does it, or whoever finds the dead one's.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use super::limit::Measure;
use super::record::{DONE, Facts, HELD, INTENT, RELEASING, Record};
use super::ring::{self, CLOSED, FREE, OPEN, Ring, SETTLING, TAKEN};
use super::state::State;
use super::{FLAG_BACKEND, OUTCOME_LOST, file};

/// Writes the facts and settles the holds by them. The record must be open.
pub fn close(state: &State, ring: &Ring, slot: usize, facts: &Facts, backend: &[u8], error: &[u8]) {
    let Some(record) = ring.record(slot) else {
        return;
    };
    record.write_facts(facts, backend, error);
    ring.set_state(slot, SETTLING);
    finish(state, ring, slot, &record, facts, 0);
}

/// The holds of a settling record, then the record itself.
fn finish(
    state: &State,
    ring: &Ring,
    slot: usize,
    record: &Record<'_>,
    facts: &Facts,
    at_least: u64,
) {
    let took = if facts.ms > 0.0 {
        (facts.ms * 1e6) as u64
    } else {
        0
    };
    let now = record.now().saturating_add(took).max(at_least);
    // A state file made anew never counted what was held in the one before.
    let holds = if record.birth() == state.birth {
        record.holds()
    } else {
        0
    };
    for index in 0..holds {
        if record.flag(index) != HELD {
            continue;
        }
        let hold = record.hold(index);
        let actual = used(hold.measure, hold.amount, facts);
        if actual != hold.amount {
            record.set_flag(index, RELEASING);
            hold.settle(state, actual, now);
        }
        record.set_flag(index, DONE);
    }
    ring.set_state(slot, CLOSED);
}

/// What of a hold was used in the end.
fn used(measure: u8, held: u64, facts: &Facts) -> u64 {
    match Measure::of(u64::from(measure)) {
        Some(Measure::LlmRequests) if facts.flags & FLAG_BACKEND == 0 => 0,
        Some(Measure::Tokens) => facts.prompt.saturating_add(facts.completion),
        Some(Measure::NanoUsd) => facts.nano_usd,
        Some(Measure::InFlight) => 0,
        _ => held,
    }
}

/// Settles what a dead owner left: open records are lost, begun settlings are finished; how many there were.
///
/// Call only under the ring's lock. A lost request stays counted as one; tokens, money and its place in flight are
/// given back. A hold whose cell was being changed at the moment of death is left as it is: that never admits too
/// much, and `reconcile` mends the ones in flight.
pub fn recover(state: &State, ring: &Ring) -> u64 {
    let mut count = 0;
    for (slot, found) in ring.states().iter().enumerate() {
        let found = found.load(std::sync::atomic::Ordering::Acquire);
        let (OPEN | SETTLING, Some(record)) = (found, ring.record(slot)) else {
            if found == TAKEN || found > CLOSED {
                ring.set_state(slot, FREE);
            }
            continue;
        };
        if found == OPEN {
            record.write_facts(&lost(&record), b"", b"");
            ring.set_state(slot, SETTLING);
        }
        // The clock is not ours to read: the keeper's last beat is near enough.
        finish(
            state,
            ring,
            slot,
            &record,
            &record.facts(),
            state.beaten_ns(),
        );
        count += 1;
    }
    count
}

fn lost(record: &Record<'_>) -> Facts {
    let reached = (0..record.holds()).any(|index| {
        record.flag(index) == HELD && record.hold(index).measure == Measure::LlmRequests as u8
    });
    let flags = if reached { FLAG_BACKEND } else { 0 };
    Facts {
        outcome: OUTCOME_LOST,
        flags,
        ms: f64::NAN,
        ttft_ms: f64::NAN,
        ..Facts::default()
    }
}

/// Gives back the places in flight that no open record of any ring holds; how many cells were lowered.
pub fn reconcile(state: &State, folder: &Path) -> io::Result<u64> {
    let mut rings = Vec::new();
    for number in ring::numbers(folder)? {
        rings.extend(file::open(&ring::path(folder, number))?.and_then(Ring::mapped));
    }
    state.reconcile(|| held_in_flight(state, &rings))
}

fn held_in_flight(state: &State, rings: &[Ring]) -> HashMap<u64, u64> {
    let mut held = HashMap::new();
    for ring in rings {
        let records = ring
            .in_state(&[OPEN, SETTLING])
            .filter_map(|slot| ring.record(slot));
        for record in records.filter(|record| record.birth() == state.birth) {
            for index in 0..record.holds() {
                let hold = record.hold(index);
                let holds = matches!(record.flag(index), INTENT | HELD | RELEASING);
                if holds && hold.measure == Measure::InFlight as u8 {
                    *held.entry(hold.key).or_insert(0) += hold.amount;
                }
            }
        }
    }
    held
}
