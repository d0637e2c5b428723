//! What the head of an answer says of an account's limits. All that never changes is written once, with the account.

use super::account::Words;
use super::limit::{Limit, Measure};
use super::window::{Clock, Window};
use crate::decimal;

const SECOND_NS: u64 = 1_000_000_000;

/// The lines of X-RateLimit-* (one limit), RateLimit-Policy (all) and RateLimit (one), as
/// draft-ietf-httpapi-ratelimit-headers-10 has them.
#[derive(Debug)]
pub struct Headlines {
    told: Box<[Told]>,
    /// The policies of all; between two parts stands how long this month is, in s.
    policies: Box<[Box<[u8]>]>,
    /// As long as lines get.
    room: usize,
}

/// A limit that the lines may tell of.
#[derive(Debug)]
struct Told {
    index: usize,
    amount: u64,
    /// Of in flight, which has no window, only where there is nothing else.
    is_last: bool,
    /// Two lines up to what is left.
    start: Box<[u8]>,
    /// The line `ratelimit` up to what is left.
    name: Box<[u8]>,
}

impl Headlines {
    /// Meters are never told of.
    pub fn new(limits: &[Limit]) -> Self {
        let told = |(index, limit): (usize, &Limit)| {
            let amount = limit.rule.amount?;
            let start = format!("x-ratelimit-limit: {amount}\r\nx-ratelimit-remaining: ");
            let name = format!("\r\nratelimit: \"{}\";r=", name(limit));
            Some(Told {
                index,
                amount,
                is_last: limit.rule.window == Window::None,
                start: start.into_bytes().into(),
                name: name.into_bytes().into(),
            })
        };
        let told: Box<[Told]> = limits.iter().enumerate().filter_map(told).collect();
        let policies: Box<[Box<[u8]>]> = policies(limits)
            .into_iter()
            .map(|part| part.into_bytes().into())
            .collect();
        let sum: usize = policies.iter().map(|part| part.len() + 20).sum();
        let longest = told.iter().map(|told| told.start.len() + told.name.len());
        let room = sum + longest.max().unwrap_or(0) + 5 * 24;
        Self {
            told,
            policies,
            room,
        }
    }

    /// Appends the five lines, each ended by CRLF; none without limits.
    ///
    /// told: the limit to tell of, or None for the tightest: the one of which the least part is left.
    pub fn push(
        &self,
        lines: &mut Vec<u8>,
        limits: &[Limit],
        words: &Words,
        told: Option<usize>,
        clock: &Clock,
    ) {
        let Some((one, left, resets_in)) = self.pick(limits, words, told, clock) else {
            return;
        };
        let left = decimal::Decimal::new(left);
        let reset = clock.wall.saturating_add(resets_in).div_ceil(SECOND_NS);
        lines.reserve(self.room);
        lines.extend_from_slice(&one.start);
        lines.extend_from_slice(left.as_bytes());
        lines.extend_from_slice(b"\r\nx-ratelimit-reset: ");
        decimal::push(lines, reset);
        lines.extend_from_slice(b"\r\nratelimit-policy: ");
        let mut parts = self.policies.iter();
        lines.extend_from_slice(parts.next().map_or(b"", |part| part));
        for part in parts {
            decimal::push(lines, clock.length_s(Window::Month));
            lines.extend_from_slice(part);
        }
        lines.extend_from_slice(&one.name);
        lines.extend_from_slice(left.as_bytes());
        lines.extend_from_slice(b";t=");
        decimal::push(lines, resets_in.div_ceil(SECOND_NS));
        lines.extend_from_slice(b"\r\n");
    }

    /// The limit to tell of, what is left of it, and in how many ns it resets.
    fn pick(
        &self,
        limits: &[Limit],
        words: &Words,
        told: Option<usize>,
        clock: &Clock,
    ) -> Option<(&Told, u64, u64)> {
        let mut picked: Option<(f64, &Told, u64)> = None;
        for one in &self.told {
            let (limit, word) = (limits.get(one.index)?, *words.get(one.index)?);
            let left = one.amount.saturating_sub(limit.rule.used(word, clock));
            if told == Some(one.index) {
                picked = Some((0.0, one, left));
                break;
            }
            let part = left as f64 / one.amount.max(1) as f64;
            let part = if one.is_last { 2.0 + part } else { part };
            if picked.as_ref().is_none_or(|(least, ..)| part < *least) {
                picked = Some((part, one, left));
            }
        }
        let (_, one, left) = picked?;
        let (limit, word) = (limits.get(one.index)?, *words.get(one.index)?);
        Some((one, left, limit.rule.resets_in(word, clock)))
    }
}

/// The policies of all limits, cut where the length of a month belongs.
fn policies(limits: &[Limit]) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut add = |text: &str, cut: bool| {
        if let Some(part) = parts.last_mut() {
            part.push_str(text);
        }
        if cut {
            parts.push(String::new());
        }
    };
    let told = limits
        .iter()
        .filter_map(|limit| Some((limit, limit.rule.amount?)));
    for (index, (limit, amount)) in told.enumerate() {
        let between = if index > 0 { ", " } else { "" };
        let unit = match limit.measure {
            Measure::Requests | Measure::LlmRequests => "",
            Measure::Tokens => ";qu=\"tokens\"",
            Measure::NanoUsd => ";qu=\"nano-usd\"",
            Measure::InFlight => ";qu=\"concurrent-requests\"",
        };
        let policy = format!("{between}\"{}\";q={amount}{unit}", name(limit));
        add(&policy, false);
        match limit.rule.window {
            Window::None => {}
            Window::Bucket => add(&format!(";w={}", period_s(limit, amount)), false),
            Window::Hour => add(";w=3600", false),
            Window::Day => add(";w=86400", false),
            Window::Month => add(";w=", true),
        }
    }
    parts
}

/// The name as a structured field's string (RFC 8941 §3.3.3) may have it.
fn name(limit: &Limit) -> String {
    let plain = |byte: &&u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    limit
        .name
        .iter()
        .filter(plain)
        .map(|&byte| char::from(byte))
        .collect()
}

/// A bucket's period, as near as its increment tells.
fn period_s(limit: &Limit, amount: u64) -> u64 {
    let period = limit.rule.increment.saturating_mul(amount);
    (period.saturating_add(SECOND_NS / 2) / SECOND_NS).max(1)
}
