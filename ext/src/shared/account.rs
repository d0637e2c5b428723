//! An account: the limits of a principal, the names its rows carry, and what its answers' headers say of them.

use super::cells::Error;
use super::limit::{Limit, MAX_HOLDS, Measure};
use super::rule::Standing;
use super::state::State;
use super::window::{Clock, Window};

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
}

/// The cells' words at one moment, in the order of the limits.
pub type Words = [u64; MAX_HOLDS];
pub type Headers = Vec<(&'static [u8], Vec<u8>)>;

impl Account {
    pub fn new(limits: Vec<Limit>, names: Names) -> Result<Self, &'static str> {
        if limits.len() > MAX_HOLDS {
            return Err("an account has at most 16 limits");
        }
        Ok(Self {
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

    /// X-RateLimit-* (one limit) and RateLimit-Policy (all), RateLimit (one) of draft-ietf-httpapi-ratelimit-headers.
    ///
    /// told: the limit to tell of, or None for the tightest: the one of which the least part is left. Meters are
    /// never told of, and in flight, which has no window, only where there is nothing else.
    pub fn headers(&self, words: &Words, told: Option<usize>, clock: &Clock) -> Headers {
        let limits: Vec<Told<'_>> = self
            .standing(words, clock)
            .enumerate()
            .filter_map(|(index, (limit, standing))| Told::new(index, limit, standing))
            .collect();
        let one = limits.iter().find(|limit| Some(limit.index) == told);
        let Some(one) = one.or_else(|| {
            limits
                .iter()
                .min_by(|a, b| a.tightness().total_cmp(&b.tightness()))
        }) else {
            return Vec::new();
        };
        let policies: Vec<String> = limits.iter().map(|limit| limit.policy(clock)).collect();
        let reset_ns = clock.wall.saturating_add(one.standing.resets_in);
        let now = format!(
            "\"{}\";r={};t={}",
            one.name(),
            one.left(),
            one.standing.resets_in.div_ceil(SECOND_NS)
        );
        vec![
            (b"x-ratelimit-limit", one.amount.to_string().into()),
            (b"x-ratelimit-remaining", one.left().to_string().into()),
            (
                b"x-ratelimit-reset",
                reset_ns.div_ceil(SECOND_NS).to_string().into(),
            ),
            (b"ratelimit-policy", policies.join(", ").into()),
            (b"ratelimit", now.into()),
        ]
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// A limit that headers tell of.
struct Told<'a> {
    index: usize,
    limit: &'a Limit,
    amount: u64,
    standing: Standing,
}

impl<'a> Told<'a> {
    fn new(index: usize, limit: &'a Limit, standing: Standing) -> Option<Self> {
        Some(Self {
            index,
            limit,
            amount: limit.rule.amount?,
            standing,
        })
    }

    fn left(&self) -> u64 {
        self.amount.saturating_sub(self.standing.used)
    }

    /// The part that is left, 0 to 1; in flight behind all others.
    fn tightness(&self) -> f64 {
        let part = self.left() as f64 / self.amount.max(1) as f64;
        if self.limit.rule.window == Window::None {
            2.0 + part
        } else {
            part
        }
    }

    /// The name as a structured field's string (RFC 8941 §3.3.3) may have it.
    fn name(&self) -> String {
        let plain = |byte: &&u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        self.limit
            .name
            .iter()
            .filter(plain)
            .map(|&byte| char::from(byte))
            .collect()
    }

    fn policy(&self, clock: &Clock) -> String {
        let unit = match self.limit.measure {
            Measure::Requests | Measure::LlmRequests => "",
            Measure::Tokens => ";qu=\"tokens\"",
            Measure::NanoUsd => ";qu=\"nano-usd\"",
            Measure::InFlight => ";qu=\"concurrent-requests\"",
        };
        let rule = &self.limit.rule;
        let window = match rule.window {
            Window::None => String::new(),
            Window::Bucket => format!(";w={}", self.period_s()),
            window => format!(";w={}", clock.length_s(window)),
        };
        format!("\"{}\";q={}{unit}{window}", self.name(), self.amount)
    }

    /// A bucket's period, as near as its increment tells.
    fn period_s(&self) -> u64 {
        let period = self.limit.rule.increment.saturating_mul(self.amount);
        ((period + SECOND_NS / 2) / SECOND_NS).max(1)
    }
}
