//! Server-sent events (WHATWG HTML §9.2): lines ended by LF, CRLF or CR, events ended by an empty line.
//!
//! Where the standard throws an event away that lacks its empty line at the end of the stream, this one takes it:
//! servers do close right after `data: [DONE]`.

use memchr::{memchr2, memrchr_iter};

use super::facts::{Facts, Kind};
use super::lines::{Line, MAX_LINE_BYTES, empty};

#[derive(Default)]
pub(super) struct Sse {
    line: Line,
    event: Event,
    /// A line has been read: a byte order mark can no longer come.
    begun: bool,
    /// The last byte was a CR, which an LF may yet complete.
    after_cr: bool,
}

impl Sse {
    pub fn feed(&mut self, data: &[u8], facts: &mut Facts) {
        let mut rest = data;
        let mut searched = false;
        while !rest.is_empty() && !facts.is_complete() {
            if !searched && self.is_between_events() {
                // Once a feed, so that a large chunk with many marks is searched twice at most.
                searched = true;
                rest = if facts.is_plain(rest) {
                    after_last_event(rest)
                } else {
                    rest
                };
            } else {
                rest = self.take_line(rest, facts);
            }
        }
    }

    fn is_between_events(&self) -> bool {
        self.begun && !self.after_cr && self.line.is_empty() && self.event.is_empty()
    }

    /// Take one line, or hold what there is of it; what follows.
    fn take_line<'a>(&mut self, data: &'a [u8], facts: &mut Facts) -> &'a [u8] {
        let rest_of_crlf = data.strip_prefix(b"\n").filter(|_| self.after_cr);
        self.after_cr = false;
        if let Some(rest) = rest_of_crlf {
            return rest;
        }
        let Some((piece, rest)) =
            memchr2(b'\n', b'\r', data).and_then(|end| data.split_at_checked(end))
        else {
            self.line.hold(data);
            return &[];
        };
        self.end_line(piece, facts);
        self.after_cr = rest == b"\r";
        rest.strip_prefix(b"\r\n")
            .or(rest.get(1..))
            .unwrap_or_default()
    }

    fn end_line(&mut self, piece: &[u8], facts: &mut Facts) {
        match self.line.complete(piece) {
            Some(line) if self.begun => self.event.line(line, facts),
            Some(line) => self
                .event
                .line(line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line), facts),
            None => self.event.spoil(),
        }
        self.begun = true;
        self.line.clear();
    }

    pub fn finish(&mut self, facts: &mut Facts) {
        if facts.is_complete() {
            return;
        }
        if !self.line.is_empty() {
            self.end_line(&[], facts);
        }
        if self.event.spoiled && self.event.name != Kind::Error {
            return; // How it would have ended was never seen.
        }
        self.event.dispatch(facts);
    }
}

/// What follows the last empty line, whose lines end in LF or CRLF.
fn after_last_event(data: &[u8]) -> &[u8] {
    let is_empty_line = |end: &usize| {
        let before = data.get(..*end).unwrap_or_default();
        before.ends_with(b"\n") || before.ends_with(b"\n\r")
    };
    memrchr_iter(b'\n', data)
        .find(is_empty_line)
        .and_then(|end| data.get(end + 1..))
        .unwrap_or(data)
}

/// An event whose empty line has not come yet.
#[derive(Default)]
struct Event {
    name: Kind,
    data: Vec<u8>,
    has_data: bool,
    /// A line or all of its data is too long to be read.
    spoiled: bool,
}

impl Event {
    fn is_empty(&self) -> bool {
        self.name == Kind::Other && !self.has_data && !self.spoiled
    }

    fn line(&mut self, line: &[u8], facts: &mut Facts) {
        if line.is_empty() {
            return self.dispatch(facts);
        }
        match field(line) {
            (b"data", value) => self.add_data(value),
            (b"event", value) => self.name = Kind::of(value),
            _ => (),
        }
    }

    fn add_data(&mut self, value: &[u8]) {
        if self.data.len() + value.len() >= MAX_LINE_BYTES {
            self.spoil();
        }
        if self.spoiled {
            return;
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
    }

    fn spoil(&mut self) {
        self.spoiled = true;
        empty(&mut self.data);
    }

    fn dispatch(&mut self, facts: &mut Facts) {
        if self.spoiled {
            facts.unread_event(self.name);
        } else if !self.is_empty() {
            facts.event(self.name, &self.data);
        }
        self.name = Kind::Other;
        self.has_data = false;
        self.spoiled = false;
        empty(&mut self.data);
    }
}

/// Name and value of a line: all of it is a name without a colon; one space after the colon does not count.
pub(super) fn field(line: &[u8]) -> (&[u8], &[u8]) {
    let colon = line.iter().take(6).position(|&byte| byte == b':');
    let Some((name, value)) = colon.and_then(|at| line.split_at_checked(at)) else {
        return (line, &[]);
    };
    let value = value.get(1..).unwrap_or_default();
    (name, value.strip_prefix(b" ").unwrap_or(value))
}
