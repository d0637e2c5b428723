//! Reads a chunked body (RFC 9112 §7.1) as it comes, strictly: what two readers could take differently is an error.
//!
//! Lines end in CRLF only. After the size may come white space (some servers pad it), then an extension, which is
//! dropped, as trailers are.

use super::error::ProtocolError;
use super::response::Body;

/// Of one size line with its extensions and CR; nobody sends 100.
const MAX_SIZE_LINE_BYTES: u32 = 1024;
/// Of all trailer lines, their ends counted.
const MAX_TRAILER_BYTES: u32 = 16 * 1024;

#[derive(Debug)]
pub struct Chunked {
    state: State,
    /// The chunk's size while it is read, then the bytes of it still to come.
    left: u64,
    /// Bytes of the size line, or of all trailers.
    line_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Padding,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
}

impl Chunked {
    pub fn new() -> Self {
        Self {
            state: State::Size,
            left: 0,
            line_bytes: 0,
        }
    }

    /// Read `data` from `at`, adding what is payload to `body`: where the message ended, None if it goes on.
    pub fn feed(
        &mut self,
        data: &[u8],
        mut at: usize,
        body: &mut Body,
    ) -> Result<Option<usize>, ProtocolError> {
        while let Some(&byte) = data.get(at) {
            if self.state == State::Data {
                let here = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(data.len() - at);
                body.push(at..at + here);
                at += here;
                self.left -= here as u64;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.state == State::LastLf && byte == b'\n' {
                return Ok(Some(at));
            }
            self.state = self.framing_byte(byte)?;
        }
        Ok(None)
    }

    /// In words, where a connection that closes now has stopped.
    pub fn place(&self) -> &'static str {
        match self.state {
            State::Size if self.line_bytes == 0 => "before the last chunk",
            State::Size | State::Padding | State::Extension | State::SizeLf => {
                "inside a chunk size line"
            }
            State::Data | State::DataCr | State::DataLf => "inside a chunk",
            State::TrailerStart | State::Trailer | State::TrailerLf | State::LastLf => {
                "inside the trailers"
            }
        }
    }

    #[inline]
    fn framing_byte(&mut self, byte: u8) -> Result<State, ProtocolError> {
        match (self.state, byte) {
            (State::Size, _) => self.size_byte(byte),
            (State::SizeLf, b'\n') if self.left > 0 => Ok(State::Data),
            (State::SizeLf, b'\n') => {
                self.line_bytes = 0;
                Ok(State::TrailerStart)
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.line_bytes = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::Padding | State::Extension, _) => self.extension_byte(byte),
            (State::TrailerStart | State::Trailer, _) => self.trailer_byte(byte),
            (State::TrailerLf, b'\n') => {
                self.count(MAX_TRAILER_BYTES, "the trailers are over 16384 bytes")?;
                Ok(State::TrailerStart)
            }
            (State::DataCr | State::DataLf, _) => {
                Err(ProtocolError::Chunk("a chunk is longer than its size"))
            }
            (State::SizeLf | State::TrailerLf | State::LastLf | State::Data, _) => {
                Err(ProtocolError::Chunk("CR without LF"))
            }
        }
    }

    #[inline]
    fn size_byte(&mut self, byte: u8) -> Result<State, ProtocolError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.line_bytes == 0 => {
                return Err(ProtocolError::Chunk("a chunk size is not a number"));
            }
            _ => return self.extension_byte(byte),
        };
        if self.line_bytes == 0 {
            self.left = 0;
        }
        if self.left > u64::MAX >> 4 {
            return Err(ProtocolError::Chunk("a chunk size is over 64 bits"));
        }
        self.left = self.left << 4 | u64::from(digit);
        self.count(MAX_SIZE_LINE_BYTES, "a chunk size line is over 1024 bytes")?;
        Ok(State::Size)
    }

    /// After the digits: white space, then ";" and anything to the end of the line.
    fn extension_byte(&mut self, byte: u8) -> Result<State, ProtocolError> {
        self.count(MAX_SIZE_LINE_BYTES, "a chunk size line is over 1024 bytes")?;
        match byte {
            b'\r' => Ok(State::SizeLf),
            b'\n' => Err(ProtocolError::Chunk("a chunk size line ends in a bare LF")),
            _ if self.state == State::Extension && (byte == b'\t' || !byte.is_ascii_control()) => {
                Ok(State::Extension)
            }
            b' ' | b'\t' => Ok(State::Padding),
            b';' => Ok(State::Extension),
            _ => Err(ProtocolError::Chunk(
                "a chunk size line has a byte that cannot be there",
            )),
        }
    }

    fn trailer_byte(&mut self, byte: u8) -> Result<State, ProtocolError> {
        self.count(MAX_TRAILER_BYTES, "the trailers are over 16384 bytes")?;
        match byte {
            b'\r' => Ok(State::TrailerLf),
            b'\n' => Err(ProtocolError::Chunk("a trailer line ends in a bare LF")),
            _ => Ok(State::Trailer),
        }
    }

    fn count(&mut self, limit: u32, words: &'static str) -> Result<(), ProtocolError> {
        self.line_bytes += 1;
        if self.line_bytes > limit {
            Err(ProtocolError::Chunk(words))
        } else {
            Ok(())
        }
    }
}
