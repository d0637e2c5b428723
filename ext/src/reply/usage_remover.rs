//! A chat or completions stream without the chunk of usage that only we have asked for.
//!
//! Whole events go on at once; an event whose end has not come is held back, so that it can be removed.

use std::borrow::Cow;
use std::mem;

use super::event_end::EventEnd;
use super::lines::{MAX_LINE_BYTES, empty};
use super::usage_chunk::is_usage_chunk;

/// Removes the events whose data is an object with an empty array "choices" and an object "usage".
#[derive(Default)]
pub struct UsageRemover {
    end: EventEnd,
    /// The event under way, from its first byte.
    held: Vec<u8>,
    /// The event under way is longer than any that is held, and goes on unread.
    overlong: bool,
    /// The event before was removed.
    removed: bool,
}

impl UsageRemover {
    pub fn new() -> Self {
        Self::default()
    }

    /// What goes on of the bytes held and these: `data` itself where it is nothing else.
    pub fn feed<'a>(&mut self, data: &'a [u8]) -> Cow<'a, [u8]> {
        let mut passed = Passed::new(data);
        let mut start = 0;
        if !self.is_inside_event() {
            start = self.take_lf(start, &mut passed);
        }
        while let Some(length) = self.end.find(passed.after(start)) {
            self.end_event(start, start + length, &mut passed);
            start = self.take_lf(start + length, &mut passed);
        }
        self.hold(start, &mut passed);
        passed.done()
    }

    /// The body has ended: the event that has not.
    pub fn finish(&mut self) -> Vec<u8> {
        mem::take(&mut self.held)
    }

    fn is_inside_event(&self) -> bool {
        self.overlong || !self.held.is_empty()
    }

    /// The LF of a CRLF shares the fate of the event that its CR has ended; what follows it.
    fn take_lf(&mut self, at: usize, passed: &mut Passed<'_>) -> usize {
        if !self.end.takes_lf(passed.after(at)) {
            return at;
        }
        if self.removed {
            passed.remove(at, at + 1);
        }
        at + 1
    }

    /// The event under way ends with these bytes.
    fn end_event(&mut self, start: usize, end: usize, passed: &mut Passed<'_>) {
        let before = self.held.len();
        let part = passed.between(start, end);
        let overlong = mem::take(&mut self.overlong) || before + part.len() > MAX_LINE_BYTES;
        self.removed = !overlong && self.is_removed(part);
        if self.removed {
            passed.remove(start, end);
        } else {
            passed.put(self.held.get(..before).unwrap_or_default());
        }
        empty(&mut self.held);
    }

    fn is_removed(&mut self, part: &[u8]) -> bool {
        if self.held.is_empty() {
            return is_usage_chunk(part);
        }
        self.held.extend_from_slice(part);
        is_usage_chunk(&self.held)
    }

    /// The event under way goes on after these bytes.
    fn hold(&mut self, start: usize, passed: &mut Passed<'_>) {
        let part = passed.after(start);
        self.overlong |= self.held.len() + part.len() > MAX_LINE_BYTES;
        if self.overlong {
            passed.put(&self.held);
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(part);
            passed.end = start;
        }
    }
}

/// What goes on of some data: all of it but what was removed, behind what was held.
struct Passed<'a> {
    data: &'a [u8],
    /// What goes on before `data[start..end]`.
    before: Vec<u8>,
    start: usize,
    end: usize,
}

impl<'a> Passed<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            before: Vec::new(),
            start: 0,
            end: data.len(),
        }
    }

    fn after(&self, start: usize) -> &'a [u8] {
        self.data.get(start..).unwrap_or_default()
    }

    fn between(&self, start: usize, end: usize) -> &'a [u8] {
        self.data.get(start..end).unwrap_or_default()
    }

    /// Bytes held, which are older than all data.
    fn put(&mut self, held: &[u8]) {
        self.before.extend_from_slice(held);
    }

    fn remove(&mut self, start: usize, end: usize) {
        self.before
            .extend_from_slice(self.between(self.start, start));
        self.start = end;
    }

    fn done(mut self) -> Cow<'a, [u8]> {
        let rest = self.between(self.start, self.end);
        if self.before.is_empty() {
            return Cow::Borrowed(rest);
        }
        self.before.extend_from_slice(rest);
        Cow::Owned(self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHUNK: &str = r#"data: {"choices":[],"usage":{"prompt_tokens":1}}"#;

    fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut remover = UsageRemover::new();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&remover.feed(piece));
        }
        out.extend_from_slice(&remover.finish());
        out
    }

    #[test]
    fn only_the_chunk_of_usage_goes() {
        for end in ["\n", "\r\n", "\r"] {
            let rest = format!("data: {{\"choices\":[{{}}],\"usage\":null}}{end}{end}");
            let done = format!("data: [DONE]{end}{end}");
            let body = format!("{rest}{CHUNK}{end}{end}{done}");
            for at in 0..=body.len() {
                let (head, tail) = body.as_bytes().split_at(at);
                assert_eq!(run([head, tail]), format!("{rest}{done}").as_bytes());
            }
            assert_eq!(run(body.as_bytes().chunks(1)), (rest + &done).as_bytes());
        }
    }

    #[test]
    fn whole_events_go_on_at_once_and_uncopied() {
        let mut remover = UsageRemover::new();
        let event = b"data: {\"choices\":[{\"delta\":{}}]}\r\n\r\n";
        assert!(matches!(remover.feed(event), Cow::Borrowed(all) if all.len() == event.len()));
        assert_eq!(&*remover.feed(b"data: x\n\nda"), b"data: x\n\n");
        assert_eq!(remover.finish(), b"da");
    }

    #[test]
    fn an_event_too_long_to_hold_goes_on() {
        let mut body = CHUNK.as_bytes().to_vec();
        body.resize(MAX_LINE_BYTES, b' ');
        body.extend_from_slice(b"\n\n");
        assert_eq!(run([body.as_slice()]), body);
        assert_eq!(run(body.chunks(1 << 20)), body);
        let fits = body.get(2..).map(<[u8]>::to_vec).unwrap_or_default();
        let mut fits_event = b"da".to_vec();
        fits_event.extend(fits.get(..fits.len() - 4).unwrap_or_default());
        fits_event.extend_from_slice(b"\n\n");
        assert_eq!(fits_event.len(), MAX_LINE_BYTES);
        assert!(run([fits_event.as_slice()]).is_empty());
        assert!(run(fits_event.chunks(1 << 20)).is_empty());
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            lines in prop::collection::vec(prop::sample::select(vec![
                "\n", "\r", "\r\n", "\n\n", "\r\n\r\n", CHUNK, "data: [DONE]", "data: {\"choices\":[],", "data:\"usage\":{}}",
                "event: x", ": c", "\u{feff}",
            ]), 0..12),
            places in prop::collection::vec(0usize..400, 0..6),
        ) {
            let body = lines.concat().into_bytes();
            let mut places: Vec<_> = places.into_iter().map(|place| place % (body.len() + 1)).collect();
            places.sort_unstable();
            let mut pieces = Vec::new();
            let mut rest = body.as_slice();
            for place in places.iter().rev() {
                let (head, tail) = rest.split_at(*place);
                pieces.push(tail);
                rest = head;
            }
            pieces.push(rest);
            prop_assert_eq!(run(pieces.into_iter().rev()), run([body.as_slice()]));
            prop_assert_eq!(run(body.chunks(1)), run([body.as_slice()]));
        }
    }
}
