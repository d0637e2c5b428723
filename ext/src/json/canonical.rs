//! One spelling for every body that means the same: members sorted by key, of equal keys the last, no white space, one
//! spelling for every string and number. What stays as it was is not copied: the spelling is a list of pieces.
//!
//! It is JSON but for commas between members, which nothing needs. Work and memory grow with the body's length only
//! (times its logarithm for the sorting), however it is nested: an object out of order is not moved, it is noted in
//! which order its members are to be read.

use std::ops::Range;
use std::str;

use super::cursor::{Checked, Cursor};
use super::error::JsonError;
use super::peek::not_utf8;
use super::string::Text;
use super::{canonical_number, canonical_string};

/// Offsets are of 32 bits, and a rewritten text may be longer than what it came from.
const MAX_BYTES: usize = 1 << 30;

/// Where some of the text stands: in the body, or behind its end in what was written anew.
#[derive(Clone, Copy)]
struct Piece {
    start: u32,
    /// ORDER: `start` is the index of an order, in which the members of the object that begins here are read.
    end: u32,
}

const ORDER: u32 = u32::MAX;

struct Member {
    key: Piece,
    /// Key and value.
    pieces: Range<u32>,
}

/// An object whose members are not to be read in the order they stand.
struct Order {
    /// Into `sorted`.
    members: Range<u32>,
    /// The piece after the last member: its closing brace.
    end: u32,
}

#[derive(Clone, Copy)]
struct Level {
    is_object: bool,
    /// It has had a member or item.
    started: bool,
    in_order: bool,
    /// Its first piece, and where its members begin in `members`.
    piece: u32,
    members: u32,
}

/// The canonical spelling of a body.
pub struct Canonical<'a> {
    body: &'a [u8],
    /// What is spelt otherwise than in the body.
    written: Vec<u8>,
    pieces: Vec<Piece>,
    orders: Vec<Order>,
    sorted: Vec<Range<u32>>,
}

/// Reads a body that must be one JSON object, without its outermost members that are named in `left_out`.
pub fn canonical<'a>(body: &'a [u8], left_out: &[&str]) -> Result<Canonical<'a>, JsonError> {
    let text = str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    let reader = Reader {
        cursor: Cursor::new(text),
        left_out,
        levels: Vec::with_capacity(16),
        members: Vec::with_capacity(32),
        sealed: 0,
        out: Canonical {
            body,
            written: Vec::new(),
            pieces: Vec::with_capacity(64),
            orders: Vec::new(),
            sorted: Vec::new(),
        },
    };
    reader.read().map_err(|fault| JsonError::new(body, fault))
}

impl Canonical<'_> {
    /// Gives the spelling to `feed`, part by part.
    pub fn each(&self, mut feed: impl FnMut(&[u8])) {
        let whole = 0..self.pieces.len() as u32;
        let mut rest = Vec::from([whole]);
        while let Some(range) = rest.pop() {
            let Some(pieces) = self.pieces.get(span(&range)) else {
                continue;
            };
            for piece in pieces {
                if piece.end != ORDER {
                    feed(self.text(*piece));
                    continue;
                }
                let Some(order) = self.orders.get(piece.start as usize) else {
                    continue;
                };
                feed(b"{");
                rest.push(order.end..range.end);
                let members = self.sorted.get(span(&order.members)).unwrap_or_default();
                rest.extend(members.iter().rev().cloned());
                break;
            }
        }
    }

    fn text(&self, piece: Piece) -> &[u8] {
        let (start, end) = (piece.start as usize, piece.end as usize);
        match start.checked_sub(self.body.len()) {
            None => self.body.get(start..end),
            Some(start) => self.written.get(start..end - self.body.len()),
        }
        .unwrap_or_default()
    }
}

fn span(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

struct Reader<'a, 'n> {
    cursor: Cursor<'a>,
    left_out: &'n [&'n str],
    levels: Vec<Level>,
    /// Of all objects that are open, the innermost's last.
    members: Vec<Member>,
    /// The pieces before this one are complete.
    sealed: usize,
    out: Canonical<'a>,
}

impl<'a> Reader<'a, '_> {
    fn read(mut self) -> Checked<Canonical<'a>> {
        if self.out.body.len() > MAX_BYTES {
            return self.cursor.fault("at most 1 GiB");
        }
        self.cursor.open_body()?;
        self.enter(true);
        while let Some(&level) = self.levels.last() {
            let more = match level.is_object {
                true => self.next_member(level)?,
                false => self.next_item(level)?,
            };
            if more {
                self.value()?;
            }
        }
        self.cursor.end()?;
        Ok(self.out)
    }

    /// The container that was just opened.
    fn enter(&mut self, is_object: bool) {
        self.levels.push(Level {
            is_object,
            started: false,
            in_order: true,
            piece: self.out.pieces.len() as u32,
            members: self.members.len() as u32,
        });
        if is_object {
            self.seal();
        }
        self.push_body(self.cursor.at - 1, self.cursor.at);
    }

    /// The next piece is one of its own.
    fn seal(&mut self) {
        self.sealed = self.out.pieces.len();
    }

    fn value(&mut self) -> Checked<()> {
        match self.cursor.byte() {
            bracket @ (b'{' | b'[') => {
                self.cursor.open()?;
                self.enter(bracket == b'{');
            }
            b'"' => {
                let text = self.cursor.string()?;
                self.push_text(&text);
            }
            _ => self.push_scalar()?,
        }
        Ok(())
    }

    fn next_item(&mut self, level: Level) -> Checked<bool> {
        let comma = level.started && self.cursor.byte() == b',';
        if comma {
            self.push_byte(self.cursor.at, b',');
        }
        if !self.cursor.next_item()? {
            self.levels.pop();
            self.push_byte(self.cursor.at - 1, b']');
            return Ok(false);
        }
        if level.started && !comma {
            self.push_written(b",");
        }
        self.start_level();
        Ok(true)
    }

    fn next_member(&mut self, level: Level) -> Checked<bool> {
        self.end_member(level);
        while let Some(key) = self.cursor.next_key()? {
            if self.levels.len() == 1 && self.left_out.contains(&key.name().as_ref()) {
                self.cursor.skip()?;
                continue;
            }
            self.begin_member(&key);
            return Ok(true);
        }
        self.leave_object();
        Ok(false)
    }

    fn start_level(&mut self) {
        if let Some(level) = self.levels.last_mut() {
            level.started = true;
        }
    }

    fn begin_member(&mut self, key: &Text<'a>) {
        self.seal();
        let first = self.out.pieces.len() as u32;
        self.push_text(key);
        let place = self.out.pieces.last().copied();
        let place = place.unwrap_or(Piece { start: 0, end: 0 });
        self.push_byte(key.end, b':');
        let in_order = self.follows(place);
        if let Some(level) = self.levels.last_mut() {
            level.started = true;
            level.in_order &= in_order;
        }
        self.members.push(Member {
            key: place,
            pieces: first..first,
        });
    }

    /// Whether the key comes after that of the member before it.
    fn follows(&self, key: Piece) -> bool {
        let first = self.levels.last().map_or(0, |level| level.members as usize);
        let before = self.members.get(first..).and_then(<[_]>::last);
        before.is_none_or(|before| self.out.text(before.key) < self.out.text(key))
    }

    fn end_member(&mut self, level: Level) {
        let end = self.out.pieces.len() as u32;
        if let Some(member) = self.members.last_mut().filter(|_| level.started) {
            member.pieces.end = end;
        }
    }

    fn leave_object(&mut self) {
        let Some(level) = self.levels.pop() else {
            return;
        };
        let end = self.out.pieces.len() as u32;
        if !level.in_order {
            let order = self.order(level, end);
            if let Some(piece) = self.out.pieces.get_mut(level.piece as usize) {
                *piece = Piece {
                    start: self.out.orders.len() as u32,
                    end: ORDER,
                };
            }
            self.out.orders.push(order);
        }
        self.members.truncate(level.members as usize);
        self.seal();
        self.push_body(self.cursor.at - 1, self.cursor.at);
    }

    /// The members by key; of those with the same the last.
    fn order(&mut self, level: Level, end: u32) -> Order {
        let out = &mut self.out;
        let mut sorted = std::mem::take(&mut out.sorted);
        let members = self.members.get_mut(level.members as usize..);
        let members = members.unwrap_or_default();
        // A stable sort: equal keys stay as they stood.
        members.sort_by(|one, other| out.text(one.key).cmp(out.text(other.key)));
        let first = sorted.len() as u32;
        let mut following = members.iter().skip(1).map(|member| Some(member.key));
        for member in members.iter() {
            let next = following.next().flatten();
            if next.is_none_or(|next| out.text(next) != out.text(member.key)) {
                sorted.push(member.pieces.clone());
            }
        }
        let members = first..sorted.len() as u32;
        out.sorted = sorted;
        Order { members, end }
    }

    fn push_text(&mut self, text: &Text<'_>) {
        if !text.respelt {
            self.push_body(text.start, text.end);
        } else {
            let from = self.out.written.len();
            canonical_string::push(&mut self.out.written, text.raw);
            self.push_written_from(from);
        }
    }

    fn push_scalar(&mut self) -> Checked<()> {
        let start = self.cursor.at;
        self.cursor.scalar()?;
        let text = self.cursor.text.get(start..self.cursor.at);
        let text = text.unwrap_or_default();
        if canonical_number::is_canonical(text) {
            self.push_body(start, self.cursor.at);
        } else {
            let from = self.out.written.len();
            canonical_number::push(&mut self.out.written, text);
            self.push_written_from(from);
        }
        Ok(())
    }

    /// A byte that may stand at `at`: taken from there if that makes the last piece longer.
    fn push_byte(&mut self, at: usize, byte: u8) {
        if self.out.body.get(at) == Some(&byte) && self.continues(at) {
            self.push_body(at, at + 1);
        } else {
            self.push_written(&[byte]);
        }
    }

    fn continues(&self, at: usize) -> bool {
        let last = self.out.pieces.get(self.sealed..).and_then(<[_]>::last);
        last.is_some_and(|last| last.end as usize == at)
    }

    fn push_body(&mut self, start: usize, end: usize) {
        let (start, end) = (start as u32, end as u32);
        let open = self.out.pieces.get_mut(self.sealed..);
        match open.and_then(<[_]>::last_mut) {
            Some(last) if last.end == start => last.end = end,
            _ => self.out.pieces.push(Piece { start, end }),
        }
    }

    fn push_written(&mut self, bytes: &[u8]) {
        let from = self.out.written.len();
        self.out.written.extend_from_slice(bytes);
        self.push_written_from(from);
    }

    /// A piece of what was written from there on.
    fn push_written_from(&mut self, from: usize) {
        let body = self.out.body.len();
        self.push_body(body + from, body + self.out.written.len());
    }
}
