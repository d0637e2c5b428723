//! Streams of one JSON object a line, as Ollama writes them.

use memchr::{memchr, memrchr};

use super::facts::{Facts, Kind};
use super::lines::Line;

#[derive(Default)]
pub(super) struct Ndjson {
    line: Line,
}

impl Ndjson {
    pub fn feed(&mut self, data: &[u8], facts: &mut Facts) {
        let mut rest = data;
        if self.line.is_empty() && facts.is_plain(rest) {
            rest = after_last_line(rest);
        }
        while !rest.is_empty() && !facts.is_complete() {
            rest = self.take_line(rest, facts);
        }
    }

    /// Take one line, or hold what there is of it; what follows.
    fn take_line<'a>(&mut self, data: &'a [u8], facts: &mut Facts) -> &'a [u8] {
        let Some((piece, rest)) = memchr(b'\n', data).and_then(|end| data.split_at_checked(end))
        else {
            self.line.hold(data);
            return &[];
        };
        self.end_line(piece, facts);
        rest.get(1..).unwrap_or_default()
    }

    fn end_line(&mut self, piece: &[u8], facts: &mut Facts) {
        if let Some(line) = self.line.complete(piece) {
            facts.event(Kind::Other, line);
        }
        self.line.clear();
    }

    /// A last line needs no line end.
    pub fn finish(&mut self, facts: &mut Facts) {
        if !facts.is_complete() {
            self.end_line(&[], facts);
        }
    }
}

fn after_last_line(data: &[u8]) -> &[u8] {
    memrchr(b'\n', data)
        .and_then(|end| data.get(end + 1..))
        .unwrap_or(data)
}
