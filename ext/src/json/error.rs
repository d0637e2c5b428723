//! Why a body is not JSON, in words that tell the place and never the text.

use std::fmt;
use std::str;

use super::cursor::Fault;

/// What was expected and what stands there instead, with line and column counted from 1 (in characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    pub expected: &'static str,
    /// The offset of the byte that could not be read.
    pub at: usize,
    found: Found,
    line: usize,
    column: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    End,
    Character(char),
    Byte(u8),
}

impl JsonError {
    pub(super) fn new(body: &[u8], fault: Fault) -> Self {
        let before = body.get(..fault.at).unwrap_or(body);
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
        JsonError {
            expected: fault.expected,
            at: fault.at,
            found: found(body.get(fault.at..).unwrap_or_default()),
            line: 1 + memchr::memchr_iter(b'\n', before).count(),
            column: 1 + characters(before.get(line_start..).unwrap_or_default()),
        }
    }
}

fn found(rest: &[u8]) -> Found {
    let longest = rest.len().min(4);
    let decoded =
        (1..=longest).find_map(|length| str::from_utf8(rest.get(..length)?).ok()?.chars().next());
    match (decoded, rest.first()) {
        (_, None) => Found::End,
        (Some(character), _) if !character.is_control() => Found::Character(character),
        (_, Some(&byte)) => Found::Byte(byte),
    }
}

/// Bytes that do not continue a UTF-8 character.
fn characters(line: &[u8]) -> usize {
    line.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}

impl fmt::Display for JsonError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "expected {}, found ", self.expected)?;
        match self.found {
            Found::End => write!(out, "the end of the body")?,
            Found::Character(character) => write!(out, "{character:?}")?,
            Found::Byte(byte) => write!(out, "byte 0x{byte:02x}")?,
        }
        write!(out, " at line {} column {}", self.line, self.column)
    }
}

impl std::error::Error for JsonError {}
