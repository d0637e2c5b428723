//! A record of the ring: one request, from its admission to its settling, in 128 words that survive their writer.
//!
//! All stores are in program order, so that of a killed process exactly the last ones are missing. What a hold's
//! flag says is true of its cell, but for a moment: INTENT and RELEASING stand around the change of the cell itself.

use std::sync::atomic::{AtomicU64, Ordering::*};

use super::limit::{Hold, MAX_HOLDS};

pub const RECORD_WORDS: usize = 128;

// Where each word stands.
const AT_ROW: usize = 0;
const AT_WALL: usize = 1;
const AT_MS: usize = 2;
const AT_TTFT: usize = 3;
const AT_PROMPT: usize = 4;
const AT_COMPLETION: usize = 5;
const AT_CACHED: usize = 6;
const AT_REASONING: usize = 7;
const AT_NANO_USD: usize = 8;
/// outcome, flags (8 bits each), status (16 bits).
const AT_OUTCOME: usize = 9;
/// The lengths of the names and of backend and error, 8 bits each.
const AT_LENGTHS: usize = 10;
const AT_LATER_LENGTHS: usize = 11;
const AT_NOW: usize = 12;
/// Which state file the holds are in.
const AT_BIRTH: usize = 13;
/// How many holds follow; behind them the texts.
const AT_HOLDS: usize = 14;
const FIRST_HOLD: usize = 15;
const HOLD_WORDS: usize = 5;

/// The states of a hold.
pub const INTENT: u8 = 1;
pub const HELD: u8 = 2;
pub const RELEASING: u8 = 3;
pub const DONE: u8 = 4;

/// The most bytes of each text that is kept: key, tenant, user, tier, route, model, request id.
const NAME_BYTES: [usize; 7] = [96, 128, 128, 64, 64, 160, 128];
/// The same of backend and error.
const LATER_BYTES: [usize; 2] = [64, 255];

/// The sum, rounded up to whole words.
#[allow(clippy::indexing_slicing, reason = "computed by the compiler")]
const fn whole_words(lengths: &[usize]) -> usize {
    let (mut sum, mut index) = (0, 0);
    while index < lengths.len() {
        sum += lengths[index];
        index += 1;
    }
    sum.next_multiple_of(8)
}

/// What is known when a request has been answered. Times in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    pub outcome: u8,
    pub flags: u8,
    pub status: u16,
    pub prompt: u64,
    pub completion: u64,
    pub cached: u64,
    pub reasoning: u64,
    pub nano_usd: u64,
    pub ms: f64,
    pub ttft_ms: f64,
}

/// What is known when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    pub row: u64,
    pub wall: u64,
    pub now: u64,
    pub birth: u64,
    /// key, tenant, user, tier, route, model, request id.
    pub names: [&'a [u8]; 7],
    /// So many holds will follow.
    pub holds: usize,
}

/// The words of one record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a>(pub &'a [AtomicU64; RECORD_WORDS]);

impl Record<'_> {
    fn set(&self, index: usize, value: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Release);
        }
    }

    fn get(&self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |word| word.load(Acquire))
    }

    pub fn open(&self, opening: &Opening<'_>) {
        self.set(AT_ROW, opening.row);
        self.set(AT_WALL, opening.wall);
        self.set(AT_NOW, opening.now);
        self.set(AT_BIRTH, opening.birth);
        for index in AT_MS..=AT_OUTCOME {
            self.set(index, 0);
        }
        let holds = opening.holds.min(MAX_HOLDS);
        self.set(AT_HOLDS, holds as u64);
        for index in 0..holds {
            self.set(FIRST_HOLD + index * HOLD_WORDS, 0);
        }
        self.set(AT_LATER_LENGTHS, 0);
        self.set(
            AT_LENGTHS,
            self.put_texts::<{ whole_words(&NAME_BYTES) }>(
                self.texts_at(),
                &opening.names,
                &NAME_BYTES,
            ),
        );
    }

    /// Writes texts one behind the other from that word on, as far as there is room; their lengths, 8 bits each.
    /// BYTES: no less than all of `most`.
    fn put_texts<const BYTES: usize>(&self, at: usize, texts: &[&[u8]], most: &[usize]) -> u64 {
        let mut buffer = [0; BYTES];
        let room = RECORD_WORDS.saturating_sub(at) * 8;
        let (mut end, mut lengths) = (0, 0);
        for (index, (text, most)) in texts.iter().zip(most).enumerate() {
            let text = cut(text, (*most).min(room - end));
            if let Some(place) = buffer.get_mut(end..end + text.len()) {
                place.copy_from_slice(text);
                end += text.len();
                lengths |= (text.len() as u64) << (8 * index);
            }
        }
        let words = self.0.get(at..).unwrap_or_default();
        let parts = buffer.chunks_exact(8).take(end.div_ceil(8));
        for (word, part) in words.iter().zip(parts) {
            let bytes = part.first_chunk().copied().unwrap_or_default();
            word.store(u64::from_le_bytes(bytes), Release);
        }
        lengths
    }

    fn texts_at(&self) -> usize {
        FIRST_HOLD + self.holds() * HOLD_WORDS
    }

    /// Backend and error begin at the first whole word behind the names.
    fn later_texts_at(&self) -> usize {
        self.texts_at() + sum(self.get(AT_LENGTHS)).div_ceil(8)
    }

    pub fn write_facts(&self, facts: &Facts, backend: &[u8], error: &[u8]) {
        self.set(AT_MS, facts.ms.to_bits());
        self.set(AT_TTFT, facts.ttft_ms.to_bits());
        self.set(AT_PROMPT, facts.prompt);
        self.set(AT_COMPLETION, facts.completion);
        self.set(AT_CACHED, facts.cached);
        self.set(AT_REASONING, facts.reasoning);
        self.set(AT_NANO_USD, facts.nano_usd);
        let packed =
            u64::from(facts.outcome) | u64::from(facts.flags) << 8 | u64::from(facts.status) << 16;
        self.set(AT_OUTCOME, packed);
        let lengths = self.put_texts::<{ whole_words(&LATER_BYTES) }>(
            self.later_texts_at(),
            &[backend, error],
            &LATER_BYTES,
        );
        self.set(AT_LATER_LENGTHS, lengths);
    }

    pub fn facts(&self) -> Facts {
        let packed = self.get(AT_OUTCOME);
        Facts {
            outcome: packed as u8,
            flags: (packed >> 8) as u8,
            status: (packed >> 16) as u16,
            prompt: self.get(AT_PROMPT),
            completion: self.get(AT_COMPLETION),
            cached: self.get(AT_CACHED),
            reasoning: self.get(AT_REASONING),
            nano_usd: self.get(AT_NANO_USD),
            ms: f64::from_bits(self.get(AT_MS)),
            ttft_ms: f64::from_bits(self.get(AT_TTFT)),
        }
    }

    pub fn row(&self) -> u64 {
        self.get(AT_ROW)
    }

    pub fn wall(&self) -> u64 {
        self.get(AT_WALL)
    }

    /// The monotonic clock at admission, ns.
    pub fn now(&self) -> u64 {
        self.get(AT_NOW)
    }

    /// Which state file the holds are in: those of another one are nobody's.
    pub fn birth(&self) -> u64 {
        self.get(AT_BIRTH)
    }

    pub fn holds(&self) -> usize {
        usize::try_from(self.get(AT_HOLDS))
            .unwrap_or(MAX_HOLDS)
            .min(MAX_HOLDS)
    }

    /// The words of a hold: what it is with its flag, key, amount, mark, increment.
    #[inline]
    fn hold_words(&self, index: usize) -> Option<&[AtomicU64; HOLD_WORDS]> {
        let at = FIRST_HOLD + index.min(MAX_HOLDS - 1) * HOLD_WORDS;
        self.0.get(at..)?.first_chunk()
    }

    /// Writes a hold, its flag last.
    #[inline]
    pub fn set_hold(&self, index: usize, hold: &Hold, flag: u8) {
        let Some([first, key, amount, mark, increment]) = self.hold_words(index) else {
            return;
        };
        key.store(hold.key, Release);
        amount.store(hold.amount, Release);
        mark.store(hold.mark, Release);
        increment.store(hold.increment, Release);
        let kind = u64::from(hold.measure) << 8 | u64::from(hold.window) << 16;
        first.store(
            u64::from(hold.index) << 32 | kind | u64::from(flag),
            Release,
        );
    }

    #[inline]
    pub fn hold(&self, index: usize) -> Hold {
        let Some([first, key, amount, mark, increment]) = self.hold_words(index) else {
            return Hold::default();
        };
        let first = first.load(Acquire);
        Hold {
            index: (first >> 32) as u32,
            measure: (first >> 8) as u8,
            window: (first >> 16) as u8,
            key: key.load(Acquire),
            amount: amount.load(Acquire),
            mark: mark.load(Acquire),
            increment: increment.load(Acquire),
        }
    }

    pub fn flag(&self, index: usize) -> u8 {
        self.get(FIRST_HOLD + index * HOLD_WORDS) as u8
    }

    pub fn set_flag(&self, index: usize, flag: u8) {
        let at = FIRST_HOLD + index.min(MAX_HOLDS - 1) * HOLD_WORDS;
        self.set(at, self.get(at) & !0xff | u64::from(flag));
    }

    /// Appends key, tenant, user, tier, route, model, request id, backend and error, one behind the other; their lengths.
    pub fn read_texts(&self, into: &mut Vec<u8>) -> [u8; 9] {
        let mut lengths = [0; 9];
        let (names, later) = lengths.split_at_mut(7);
        self.read(self.texts_at(), self.get(AT_LENGTHS), names, into);
        let at = self.later_texts_at();
        self.read(at, self.get(AT_LATER_LENGTHS), later, into);
        lengths
    }

    /// Appends the texts that begin at that word, as far as they lie in the record, and notes how long each one is.
    fn read(&self, at: usize, told: u64, lengths: &mut [u8], into: &mut Vec<u8>) {
        let words = self.0.get(at..).unwrap_or_default();
        let mut room = words.len() * 8;
        let mut end = into.len();
        for (length, told) in lengths.iter_mut().zip(told.to_le_bytes()) {
            *length = told.min(room.min(255) as u8);
            room -= usize::from(*length);
            end += usize::from(*length);
        }
        let count = (end - into.len()).div_ceil(8);
        for word in words.iter().take(count) {
            into.extend_from_slice(&word.load(Acquire).to_le_bytes());
        }
        into.truncate(end);
    }
}

fn sum(lengths: u64) -> usize {
    lengths.to_le_bytes().into_iter().map(usize::from).sum()
}

/// At most so many bytes of a text, whole characters.
fn cut(text: &[u8], most: usize) -> &[u8] {
    if text.len() <= most {
        return text;
    }
    let inside = |end: &usize| text.get(*end).is_some_and(|byte| byte & 0xc0 == 0x80);
    let end = (0..=most).rev().find(|end| !inside(end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words() -> [AtomicU64; RECORD_WORDS] {
        std::array::from_fn(|_| AtomicU64::new(u64::MAX))
    }

    fn texts_of(record: &Record<'_>) -> Vec<String> {
        let mut bytes = b"before".to_vec();
        let lengths = record.read_texts(&mut bytes);
        let mut rest = bytes.strip_prefix(b"before").unwrap_or_default();
        let text = |length: u8| {
            let (text, behind) = rest.split_at(usize::from(length));
            rest = behind;
            String::from_utf8_lossy(text).into_owned()
        };
        lengths.into_iter().map(text).collect()
    }

    proptest! {
        #[test]
        fn texts_come_back_whole_or_cut(
            names in prop::array::uniform7("\\PC{0,80}"), later in prop::array::uniform2("\\PC{0,80}"), holds in 0..17usize,
        ) {
            let words = words();
            let record = Record(&words);
            let texts = names.each_ref().map(|name| name.as_bytes());
            record.open(&Opening { row: 1, wall: 2, now: 3, birth: 4, names: texts, holds });
            let held = Hold { index: 7, key: 8, measure: 2, window: 1, amount: 9, mark: 10, increment: 11 };
            for index in 0..holds {
                prop_assert_eq!(record.flag(index), 0);
                record.set_hold(index, &held, HELD);
            }
            let facts = Facts { outcome: 3, flags: 5, status: 499, prompt: 1, nano_usd: 6, ms: 1.5, ..Facts::default() };
            record.write_facts(&facts, later[0].as_bytes(), later[1].as_bytes());
            prop_assert_eq!(record.facts(), facts);
            for index in 0..holds {
                prop_assert_eq!((record.hold(index), record.flag(index)), (held, HELD));
            }
            let told = texts_of(&record);
            for (text, told) in names.iter().chain(&later).zip(&told) {
                prop_assert!(text.starts_with(told.as_str()));
            }
            let short = names.iter().chain(&later).map(|text| text.len()).sum::<usize>() < 240;
            prop_assert!(!short || names.iter().chain(&later).eq(&told));
        }

        #[test]
        fn garbage_is_read_without_harm(garbage in prop::collection::vec(any::<u64>(), RECORD_WORDS)) {
            let words: [AtomicU64; RECORD_WORDS] = std::array::from_fn(|index| AtomicU64::new(garbage.get(index).copied().unwrap_or(0)));
            let record = Record(&words);
            let _ = (texts_of(&record), record.facts(), record.hold(record.holds()));
            record.set_hold(1000, &Hold::default(), DONE);
            record.write_facts(&Facts::default(), b"backend", b"error");
        }
    }

    #[test]
    fn a_cut_is_never_inside_a_character() {
        assert_eq!(cut("aä".as_bytes(), 2), b"a");
        assert_eq!(cut("aä".as_bytes(), 3), "aä".as_bytes());
        assert_eq!(cut("😀".as_bytes(), 3), b"");
        assert_eq!(cut(b"\x80\x80\x80", 2), b"");
    }
}
