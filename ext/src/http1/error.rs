//! What a backend did wrong, in words for whoever reads the log.

use std::fmt;

/// A broken rule of HTTP/1.1. The connection cannot be used again: nobody knows where the next response would begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The head does not parse, and why.
    NotHttp(&'static str),
    HeadTooLong(usize),
    /// Two headers, or two values of one, say different things about where the body ends.
    Framing(&'static str),
    /// A chunked body does not follow RFC 9112 §7.1.
    Chunk(&'static str),
    SwitchingProtocols,
    /// Bytes came while no response was expected.
    Unasked,
    /// The parser had failed before.
    Failed,
    /// The connection closed, and where that was.
    Closed(&'static str),
    ClosedInBody {
        got: u64,
        of: u64,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotHttp(why) => write!(f, "the response head is not HTTP/1.1: {why}"),
            Self::HeadTooLong(limit) => write!(f, "response head is over {limit} bytes"),
            Self::Framing(why) => write!(f, "the response cannot be framed: {why}"),
            Self::Chunk(why) => write!(f, "the chunked body is broken: {why}"),
            Self::SwitchingProtocols => {
                f.write_str("101 Switching Protocols, which was not asked for")
            }
            Self::Unasked => f.write_str("bytes that no request asked for"),
            Self::Failed => {
                f.write_str("the connection broke HTTP/1.1 before and cannot be used again")
            }
            Self::Closed(place) => write!(f, "closed {place}"),
            Self::ClosedInBody { got, of } => write!(f, "closed after {got} of {of} body bytes"),
        }
    }
}

impl std::error::Error for ProtocolError {}
