//! The server side of one connection: request heads, then bodies by RFC 9112 §6.3, a request at a time.
//!
//! One `feed` is one thing the socket gave. It answers with the request if its head became whole, where in the input
//! the body bytes are, and whether the message is whole. Any split of the bytes gives the same in sum.

use super::chunked::Chunked;
use super::refused::Refused;
use super::response::Body;
use super::server_request::{
    Limits, MAX_EMPTY_BYTES, MAX_LINES, Request, check_length, empty_bytes, parse,
};

/// A caller that was told a request is whole stops reading; what comes all the same is kept up to here.
const MAX_KEPT_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub struct RequestParser {
    limits: Limits,
    /// A head that has not come whole yet, or, when a request is whole, what came behind it.
    buffer: Vec<u8>,
    /// So many bytes of the buffer are read already.
    start: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Head,
    Length(u64),
    Chunked(Chunked),
    /// The request is whole; the next one is not looked at yet.
    Done,
    Refused,
}

/// What one feed brought.
#[derive(Debug)]
pub struct FedRequest {
    pub request: Option<Request>,
    pub body: Body,
    pub done: bool,
}

impl RequestParser {
    pub fn new(max_head_bytes: usize, max_headers: usize) -> Self {
        Self {
            limits: Limits {
                head_bytes: max_head_bytes,
                lines: max_headers.min(MAX_LINES),
            },
            buffer: Vec::new(),
            start: 0,
            state: State::Head,
        }
    }

    pub fn feed(&mut self, data: &[u8]) -> Result<FedRequest, Refused> {
        let (fed, end) = self.advance(data).inspect_err(|_| self.give_up())?;
        if let Some(rest) = data.get(end..).filter(|rest| !rest.is_empty()) {
            self.keep(rest).inspect_err(|_| self.give_up())?;
        }
        Ok(fed)
    }

    /// The request before is answered: go on with what was kept, and give its body bytes by themselves.
    pub fn next_request(&mut self) -> Result<(FedRequest, Vec<u8>), Refused> {
        match self.state {
            State::Done => self.state = State::Head,
            State::Head => return Ok((self.feed(b"")?, Vec::new())),
            _ => {
                self.give_up();
                return Err(Refused::new(400, "the request before is not whole"));
            }
        }
        let kept = std::mem::take(&mut self.buffer);
        let start = std::mem::take(&mut self.start);
        let data = kept.get(start..).unwrap_or_default();
        let (fed, end) = self.advance(data).inspect_err(|_| self.give_up())?;
        let body = fed.body.parts(data).flatten().copied().collect();
        if end < data.len() {
            // A train of small requests is not moved for each of them.
            self.buffer = kept;
            self.start = start + end;
        }
        Ok((fed, body))
    }

    /// The client has begun a request that was not given out yet. Empty lines are none.
    pub fn pending(&self) -> bool {
        let here = self.buffer.get(self.start..).unwrap_or_default();
        here.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    fn give_up(&mut self) {
        self.state = State::Refused;
        self.buffer = Vec::new();
        self.start = 0;
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), Refused> {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.start = 0;
        if self.buffer.len() > MAX_KEPT_BYTES {
            let text = format!("over {MAX_KEPT_BYTES} bytes before the answer");
            return Err(Refused::new(400, text));
        }
        self.buffer.extend_from_slice(rest);
        Ok(())
    }

    /// Read on in `data`: what it brought, and where in it the request ended (its length if it goes on).
    fn advance(&mut self, data: &[u8]) -> Result<(FedRequest, usize), Refused> {
        let mut fed = FedRequest {
            request: None,
            body: Body::Nothing,
            done: false,
        };
        let mut at = 0;
        if matches!(self.state, State::Head) {
            let Some((request, end)) = self.head(data)? else {
                return Ok((fed, data.len()));
            };
            self.state = if request.head.is_chunked() {
                State::Chunked(Chunked::new())
            } else {
                State::Length(request.head.content_length().unwrap_or_default())
            };
            fed.request = Some(request);
            at = end;
        }
        let end = self.body(data, at, &mut fed.body)?;
        if end.is_some() {
            self.state = State::Done;
            fed.done = true;
        }
        Ok((fed, end.unwrap_or(data.len())))
    }

    /// The body from `at`: where it ended, None if it goes on.
    fn body(&mut self, data: &[u8], at: usize, body: &mut Body) -> Result<Option<usize>, Refused> {
        match &mut self.state {
            State::Chunked(chunked) => chunked
                .feed(data, at, body)
                .map_err(|error| Refused::new(400, error.to_string())),
            State::Length(left) => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(data.len().saturating_sub(at));
                if here > 0 {
                    body.push(at..at + here);
                    *left -= here as u64;
                }
                Ok((*left == 0).then_some(at + here))
            }
            State::Done => Ok(Some(0)),
            State::Head | State::Refused => {
                Err(Refused::new(400, "the connection was refused before"))
            }
        }
    }

    /// The request and where in `data` its head ended; None if more has to come.
    fn head(&mut self, data: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
        if self.buffer.is_empty() {
            let parsed = parse(data, self.limits)?;
            if parsed.is_none() {
                self.buffer.extend_from_slice(data);
            }
            return Ok(parsed);
        }
        let before = self.buffer.len();
        let most = self.limits.head_bytes.saturating_add(MAX_EMPTY_BYTES + 2);
        let more = data.get(..most.saturating_sub(before)).unwrap_or(data);
        self.buffer.extend_from_slice(more);
        // A head ends in LF, so without a new one there is nothing to parse: a head that comes byte by byte is parsed
        // once a line.
        if memchr::memchr(b'\n', more).is_none() {
            let skipped = empty_bytes(&self.buffer)?;
            check_length(self.buffer.len().saturating_sub(skipped), self.limits)?;
            return Ok(None);
        }
        let Some((request, end)) = parse(&self.buffer, self.limits)? else {
            return Ok(None);
        };
        self.buffer = Vec::new();
        Ok(Some((request, end.saturating_sub(before))))
    }
}
