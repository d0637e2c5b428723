//! The client side of one connection: heads, then bodies by RFC 9112 §6.3, a response at a time.
//!
//! One `feed` is one thing the socket gave. It answers with the head if that became whole, where in the input the
//! body bytes are, and whether the message goes on. Any split of the bytes gives the same in sum.

use std::fmt;
use std::ops::Range;

use super::chunked::Chunked;
use super::error::ProtocolError;
use super::head::{Parsed, ResponseHead, parse};

#[derive(Debug)]
pub struct ResponseParser {
    max_head_bytes: usize,
    /// A head that has not come whole yet.
    buffer: Vec<u8>,
    head_request: bool,
    /// The connection ends with this response.
    closes: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No response is expected: the last one is whole, or there was none.
    Idle,
    Head,
    Length {
        left: u64,
        of: u64,
    },
    Chunked(Chunked),
    UntilClose,
    /// Good bytes were given, what came behind them breaks HTTP like this.
    Broken(ProtocolError),
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    Open = 0,
    Done = 1,
    DoneClose = 2,
    Broken = 3,
}

/// What one feed brought.
#[derive(Debug)]
pub struct Fed {
    pub head: Option<ResponseHead>,
    pub body: Body,
    pub end: End,
}

/// Which parts of the fed bytes are body.
#[derive(Debug, Default)]
pub enum Body {
    #[default]
    Nothing,
    One(Range<usize>),
    /// Several chunks came at once.
    Many(Vec<Range<usize>>),
}

impl Body {
    pub fn push(&mut self, part: Range<usize>) {
        match self {
            Self::Nothing => *self = Self::One(part),
            Self::One(first) => *self = Self::Many(vec![first.clone(), part]),
            Self::Many(parts) => parts.push(part),
        }
    }

    pub fn ranges(&self) -> &[Range<usize>] {
        match self {
            Self::Nothing => &[],
            Self::One(part) => std::slice::from_ref(part),
            Self::Many(parts) => parts,
        }
    }

    /// The parts of `data`, which is what was fed.
    pub fn parts<'a>(&'a self, data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.ranges()
            .iter()
            .map(|part| data.get(part.clone()).unwrap_or_default())
    }
}

impl ResponseParser {
    pub fn new(max_head_bytes: usize) -> Self {
        Self {
            max_head_bytes,
            buffer: Vec::new(),
            head_request: false,
            closes: false,
            state: State::Idle,
        }
    }

    /// A request is under way, its answer is the next thing to come.
    pub fn expect(&mut self, head_request: bool) {
        self.buffer = Vec::new();
        self.head_request = head_request;
        self.closes = false;
        self.state = State::Head;
    }

    pub fn feed(&mut self, data: &[u8]) -> Result<Fed, ProtocolError> {
        let fed = self.advance(data);
        if fed.is_err() {
            self.state = State::Failed;
            self.buffer = Vec::new();
        }
        fed
    }

    /// The backend closed the connection: fine only where that is how the body ends.
    pub fn feed_eof(&mut self) -> Result<End, ProtocolError> {
        let error = match std::mem::replace(&mut self.state, State::Failed) {
            State::UntilClose => {
                self.state = State::Idle;
                return Ok(End::DoneClose);
            }
            State::Idle => ProtocolError::Closed("while no answer was expected"),
            State::Head if self.buffer.is_empty() => ProtocolError::Closed("before an answer"),
            State::Head => ProtocolError::Closed("inside the head"),
            State::Length { left, of } => ProtocolError::ClosedInBody { got: of - left, of },
            State::Chunked(chunked) => ProtocolError::Closed(chunked.place()),
            State::Broken(error) => error,
            State::Failed => ProtocolError::Failed,
        };
        self.buffer = Vec::new();
        Err(error)
    }

    fn advance(&mut self, data: &[u8]) -> Result<Fed, ProtocolError> {
        let mut fed = Fed {
            head: None,
            body: Body::Nothing,
            end: End::Open,
        };
        let mut at = 0;
        if matches!(self.state, State::Head) {
            let Some((head, end)) = self.head(data)? else {
                return Ok(fed);
            };
            self.state = self.framing(&head);
            self.closes = head.closes;
            fed.head = Some(head);
            at = end;
        }
        let end = match self.body(data, at, &mut fed.body) {
            Ok(end) => end,
            Err(error) if fed.head.is_none() && fed.body.ranges().is_empty() => return Err(error),
            Err(error) => {
                // The split decides whether good bytes come with bad ones; the good ones must not depend on it.
                self.state = State::Broken(error);
                fed.end = End::Broken;
                return Ok(fed);
            }
        };
        if let Some(end) = end {
            self.state = State::Idle;
            // Nothing was asked for that could be answered by more bytes, and what they are nobody knows.
            self.closes |= end < data.len();
            fed.end = if self.closes {
                End::DoneClose
            } else {
                End::Done
            };
        }
        Ok(fed)
    }

    /// The body of the message from `at`: where it ended, None if it goes on.
    fn body(
        &mut self,
        data: &[u8],
        at: usize,
        body: &mut Body,
    ) -> Result<Option<usize>, ProtocolError> {
        match &mut self.state {
            State::Chunked(chunked) => chunked.feed(data, at, body),
            State::Length { left, .. } => {
                let here = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(data.len() - at);
                if here > 0 {
                    body.push(at..at + here);
                    *left -= here as u64;
                }
                Ok((*left == 0).then_some(at + here))
            }
            State::UntilClose => {
                if at < data.len() {
                    body.push(at..data.len());
                }
                Ok(None)
            }
            State::Idle if data.is_empty() => Ok(Some(0)),
            State::Idle => Err(ProtocolError::Unasked),
            State::Broken(_) => match std::mem::replace(&mut self.state, State::Failed) {
                State::Broken(error) => Err(error),
                _ => Err(ProtocolError::Failed),
            },
            State::Failed | State::Head => Err(ProtocolError::Failed),
        }
    }

    /// RFC 9112 §6.3, in its order.
    fn framing(&self, head: &ResponseHead) -> State {
        if self.head_request || matches!(head.status, 204 | 304) {
            return State::Length { left: 0, of: 0 };
        }
        match head.content_length {
            _ if head.chunked => State::Chunked(Chunked::new()),
            Some(of) => State::Length { left: of, of },
            None => State::UntilClose,
        }
    }

    /// The final head and where in `data` it ended; None if more has to come.
    fn head(&mut self, data: &[u8]) -> Result<Option<(ResponseHead, usize)>, ProtocolError> {
        let mut at = 0;
        if !self.buffer.is_empty() {
            match self.buffered_head(data)? {
                Parsed::Partial => return Ok(None),
                Parsed::Interim(end) => at = end,
                Parsed::Final(head, end) => return Ok(Some((head, end))),
            }
        }
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            match parse(rest)? {
                Parsed::Partial => {
                    self.check_head_length(rest.len())?;
                    self.buffer.extend_from_slice(rest);
                    break;
                }
                Parsed::Interim(end) => {
                    self.check_head_length(end)?;
                    at += end;
                }
                Parsed::Final(head, end) => {
                    self.check_head_length(end)?;
                    return Ok(Some((head, at + end)));
                }
            }
        }
        Ok(None)
    }

    /// A head that began in an earlier feed; ends are counted in `data`.
    fn buffered_head(&mut self, data: &[u8]) -> Result<Parsed, ProtocolError> {
        let before = self.buffer.len();
        let room = self.max_head_bytes.saturating_add(1).saturating_sub(before);
        let more = data.get(..room).unwrap_or(data);
        self.buffer.extend_from_slice(more);
        // A head ends in LF, so without a new one there is nothing to parse: a head that comes byte by byte is parsed
        // once a line.
        let parsed = if memchr::memchr(b'\n', more).is_some() {
            parse(&self.buffer)?
        } else {
            Parsed::Partial
        };
        let (Parsed::Interim(end) | Parsed::Final(_, end)) = parsed else {
            self.check_head_length(self.buffer.len())?;
            return Ok(Parsed::Partial);
        };
        self.check_head_length(end)?;
        self.buffer = Vec::new();
        let end = end.saturating_sub(before);
        Ok(match parsed {
            Parsed::Final(head, _) => Parsed::Final(head, end),
            _ => Parsed::Interim(end),
        })
    }

    fn check_head_length(&self, length: usize) -> Result<(), ProtocolError> {
        if length > self.max_head_bytes {
            Err(ProtocolError::HeadTooLong(self.max_head_bytes))
        } else {
            Ok(())
        }
    }
}

/// One line: what the connection is doing.
impl fmt::Display for ResponseParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.state {
            State::Idle => f.write_str("idle"),
            State::Head => write!(f, "head, {} bytes of it", self.buffer.len()),
            State::Length { left, of } => write!(f, "body, {} of {of} bytes", of - left),
            State::Chunked(_) => f.write_str("chunked body"),
            State::UntilClose => f.write_str("body until close"),
            State::Broken(_) | State::Failed => f.write_str("failed"),
        }
    }
}
