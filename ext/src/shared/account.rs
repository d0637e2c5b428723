//! An account: the limits of a principal, the names its rows carry, and what its answers' headers say of them.

use super::cells::Error;
use super::headlines::Headlines;
use super::limit::{Limit, MAX_HOLDS, Measure};
use super::rule::Standing;
use super::state::State;
use super::window::Clock;

/// What a principal's rows are signed with.
#[derive(Debug, Default)]
pub struct Names {
    pub key: Box<[u8]>,
    pub tenant: Box<[u8]>,
    pub user: Box<[u8]>,
    pub tier: Box<[u8]>,
}

#[derive(Debug)]
pub struct Account {
    pub limits: Box<[Limit]>,
    pub names: Names,
    headlines: Headlines,
}

/// The cells' words at one moment, in the order of the limits.
pub type Words = [u64; MAX_HOLDS];

impl Account {
    pub fn new(limits: Vec<Limit>, names: Names) -> Result<Self, &'static str> {
        if limits.len() > MAX_HOLDS {
            return Err("an account has at most 16 limits");
        }
        Ok(Self {
            headlines: Headlines::new(&limits),
            limits: limits.into(),
            names,
        })
    }

    /// Whether one of its limits (not meters) is of that measure.
    pub fn limits_measure(&self, measure: Measure) -> bool {
        self.limits
            .iter()
            .any(|limit| limit.measure == measure && limit.rule.amount.is_some())
    }

    /// Sees to it that all cells are there.
    pub fn resolve(&self, state: &State) -> Result<(), Error> {
        self.limits
            .iter()
            .try_for_each(|limit| limit.resolve(state))
    }

    pub fn words(&self, state: &State) -> Words {
        let mut words = Words::default();
        for (word, limit) in words.iter_mut().zip(&self.limits) {
            *word = limit.word(state);
        }
        words
    }

    /// Every limit with what its word says.
    pub fn standing<'a>(
        &'a self,
        words: &Words,
        clock: &Clock,
    ) -> impl Iterator<Item = (&'a Limit, Standing)> {
        self.limits
            .iter()
            .zip(words)
            .map(|(limit, &word)| (limit, limit.rule.standing(word, clock)))
    }

    /// Appends what an answer's head says of the limits: see `Headlines::push`.
    pub fn push_header_lines(
        &self,
        lines: &mut Vec<u8>,
        words: &Words,
        told: Option<usize>,
        clock: &Clock,
    ) {
        self.headlines.push(lines, &self.limits, words, told, clock);
    }
}
