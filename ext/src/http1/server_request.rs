//! One request line and head from a client, read strictly: httparse, then the rules it leaves to its callers.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::field::elements;
use super::refused::Refused;
use super::request::{Kept, RequestHead};
use super::target::Target;

/// Clients send 5 to 30; the array of this size is on the stack and not initialised.
pub(super) const MAX_LINES: usize = 256;

/// RFC 9112 §2.2 lets a server skip empty lines before a request; more than four are somebody's game.
pub(super) const MAX_EMPTY_BYTES: usize = 8;

#[derive(Debug)]
pub struct Request {
    pub http10: bool,
    pub keep_alive: bool,
    pub expects_continue: bool,
    pub head: RequestHead,
    /// The whole head; names are made lower-case in it.
    bytes: Vec<u8>,
    lines: Vec<Line>,
    method: Range<usize>,
    path: Range<usize>,
    query: Range<usize>,
}

#[derive(Debug)]
struct Line {
    name: Range<usize>,
    value: Range<usize>,
    kept: Option<Kept>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub head_bytes: usize,
    pub lines: usize,
}

/// Read the head that `input` begins with, and say where it ended: None if it is not whole.
///
/// The answer depends only on the whole lines in `input`, so that no split of the bytes changes it.
pub(super) fn parse(input: &[u8], limits: Limits) -> Result<Option<(Request, usize)>, Refused> {
    let skipped = empty_bytes(input)?;
    let here = input.get(skipped..).unwrap_or_default();
    let head = here.get(..limits.head_bytes).unwrap_or(here);
    let parsed = match parse_lines(head, limits) {
        Err(_) => {
            let whole = memchr::memrchr(b'\n', head).map_or(0, |at| at + 1);
            parse_lines(head.get(..whole).unwrap_or_default(), limits)?
        }
        Ok(parsed) => parsed,
    };
    match parsed {
        Some((request, end)) => Ok(Some((request, skipped + end))),
        None => check_length(here.len(), limits).map(|()| None),
    }
}

/// `length` bytes have come of a head that is not whole.
pub(super) fn check_length(length: usize, limits: Limits) -> Result<(), Refused> {
    if length < limits.head_bytes {
        return Ok(());
    }
    let text = format!("the head is over {} bytes", limits.head_bytes);
    Err(Refused::new(431, text))
}

/// How many bytes of empty lines stand before the request line.
pub(super) fn empty_bytes(input: &[u8]) -> Result<usize, Refused> {
    let mut rest = input;
    while let [b'\r', b'\n', after @ ..] = rest {
        rest = after;
        if input.len() - rest.len() > MAX_EMPTY_BYTES {
            return Err(Refused::new(400, "empty lines instead of a request"));
        }
    }
    match rest {
        [b'\n', ..] => Err(Refused::new(400, BARE_LF)),
        _ => Ok(input.len() - rest.len()),
    }
}

const BARE_LF: &str = "a line ends in a bare LF";

fn parse_lines(input: &[u8], limits: Limits) -> Result<Option<(Request, usize)>, Refused> {
    let mut place = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut parsed = httparse::Request::new(&mut []);
    let slots = place.get_mut(..limits.lines).unwrap_or_default();
    match parsed.parse_with_uninit_headers(input, slots) {
        Ok(httparse::Status::Complete(end)) => {
            let input = input.get(..end).unwrap_or_default();
            Ok(Some((Request::read(input, &parsed)?, end)))
        }
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(Refused::by_parser(error, input, limits.lines)),
    }
}

impl Request {
    pub fn method(&self) -> &str {
        std::str::from_utf8(self.text(&self.method)).unwrap_or_default()
    }

    pub fn path(&self) -> &[u8] {
        if self.path.is_empty() {
            b"/"
        } else {
            self.text(&self.path)
        }
    }

    pub fn query(&self) -> &[u8] {
        self.text(&self.query)
    }

    /// Lower-case names and values, in order, and which of them are worth keeping by themselves.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8], Option<Kept>)> {
        self.lines
            .iter()
            .map(|line| (self.text(&line.name), self.text(&line.value), line.kept))
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    fn read(input: &[u8], parsed: &httparse::Request<'_, '_>) -> Result<Self, Refused> {
        // httparse takes LF alone as a line end; others take it as a byte of the line.
        let mut ends = memchr::memchr_iter(b'\n', input);
        if !ends.all(|at| at > 0 && input.get(at - 1) == Some(&b'\r')) {
            return Err(Refused::new(400, BARE_LF));
        }
        let method = parsed.method.unwrap_or_default().as_bytes();
        if method == b"CONNECT" {
            return Err(Refused::new(501, "CONNECT is not served"));
        }
        let text = parsed.path.unwrap_or_default().as_bytes();
        let target =
            Target::read(text, method == b"OPTIONS").map_err(|why| Refused::new(400, why))?;
        let start = position(input, text).start;
        let shifted = |range: Range<usize>| start + range.start..start + range.end;
        let mut this = Self {
            http10: parsed.version == Some(0),
            keep_alive: false,
            expects_continue: false,
            head: RequestHead::new(),
            bytes: input.to_vec(),
            lines: Vec::with_capacity(parsed.headers.len()),
            method: position(input, method),
            path: shifted(target.path),
            query: shifted(target.query),
        };
        this.read_lines(input, parsed)?;
        let authority = target.authority.and_then(|range| text.get(range));
        if authority.is_some_and(|authority| !this.is_host(authority)) {
            return Err(Refused::new(
                400,
                "the request target and Host name different hosts",
            ));
        }
        Ok(this)
    }

    fn read_lines(
        &mut self,
        input: &[u8],
        parsed: &httparse::Request<'_, '_>,
    ) -> Result<(), Refused> {
        let mut closes = false;
        let mut keeps = false;
        for header in parsed.headers.iter() {
            let name = position(input, header.name.as_bytes());
            let value = header.value;
            let lower = self.bytes.get_mut(name.clone()).unwrap_or_default();
            lower.make_ascii_lowercase();
            if lower == b"connection" {
                for option in elements(value) {
                    closes |= option.eq_ignore_ascii_case(b"close");
                    keeps |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            } else if lower == b"expect" {
                self.expects_continue |= !self.http10
                    && elements(value).any(|option| option.eq_ignore_ascii_case(b"100-continue"));
            }
            let kept = self.head.line(lower, value);
            self.lines.push(Line {
                name,
                value: position(input, value),
                kept,
            });
        }
        self.head.finish();
        self.keep_alive = !closes && (keeps || !self.http10);
        if let Some(problem) = self.head.problem() {
            return Err(Refused::new(400, problem));
        }
        if self.http10 && self.head.is_chunked() {
            return Err(Refused::new(
                400,
                "Transfer-Encoding in an HTTP/1.0 request",
            ));
        }
        Ok(())
    }

    fn is_host(&self, authority: &[u8]) -> bool {
        self.lines().any(|(_, value, kept)| {
            kept == Some(Kept::Host) && value.eq_ignore_ascii_case(authority)
        })
    }
}

/// Where `part`, a slice of `whole`, stands in it.
fn position(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}
