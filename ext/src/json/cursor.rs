//! The one JSON walker: a cursor that checks all it passes by RFC 8259 and opens only what its caller asks for.
//!
//! The caller loops over the keys of the few objects it knows (`open_object`, `next_key`), takes the values it
//! wants and skips the rest. Skipping is iterative: what a stranger nests cannot use up the stack.

use super::string::Text;

/// Objects and arrays inside each other. Real bodies (JSON schemas in tools) stay below 50.
pub const MAX_DEPTH: usize = 1000;

/// What was expected at which offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub expected: &'static str,
    pub at: usize,
}

pub(super) type Checked<T> = Result<T, Fault>;

pub struct Cursor<'a> {
    pub(super) text: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// Containers opened and not yet closed.
    pub(super) depth: usize,
    /// The innermost of them has had no member yet.
    fresh: bool,
}

impl<'a> Cursor<'a> {
    /// A cursor on the first value of `text`.
    pub fn new(text: &'a str) -> Self {
        let mut cursor = Cursor {
            text,
            bytes: text.as_bytes(),
            at: 0,
            depth: 0,
            fresh: false,
        };
        cursor.skip_space();
        cursor
    }

    /// The offset of the next byte: where a value begins after `next_key` and `next_item`.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Enter the outermost value, which must be an object.
    pub fn open_body(&mut self) -> Checked<()> {
        if self.byte() != b'{' {
            return self.fault("a JSON object");
        }
        self.open()
    }

    /// Check that nothing but white space follows.
    pub fn end(&mut self) -> Checked<()> {
        self.skip_space();
        if self.at < self.bytes.len() {
            self.fault("the end of the body")
        } else {
            Ok(())
        }
    }

    /// Enter the value if it is an object, pass over it otherwise.
    pub fn open_object(&mut self) -> Checked<bool> {
        self.open_if(b'{')
    }

    /// Enter the value if it is an array, pass over it otherwise.
    pub fn open_array(&mut self) -> Checked<bool> {
        self.open_if(b'[')
    }

    fn open_if(&mut self, bracket: u8) -> Checked<bool> {
        if self.byte() == bracket {
            self.open().map(|()| true)
        } else {
            self.skip().map(|()| false)
        }
    }

    pub(super) fn open(&mut self) -> Checked<()> {
        self.depth += 1;
        self.check_depth(self.depth)?;
        self.at += 1;
        self.fresh = true;
        Ok(())
    }

    /// The next key of the object entered last, the cursor on its value; None leaves the object.
    #[inline]
    pub fn next_key(&mut self) -> Checked<Option<Text<'a>>> {
        if !self.next_member(b'}', "',' or '}'")? {
            return Ok(None);
        }
        self.key().map(Some)
    }

    /// Whether the array entered last has another item, the cursor on it; false leaves the array.
    pub fn next_item(&mut self) -> Checked<bool> {
        self.next_member(b']', "',' or ']'")
    }

    fn next_member(&mut self, closing: u8, expected: &'static str) -> Checked<bool> {
        self.skip_space();
        let fresh = std::mem::replace(&mut self.fresh, false);
        let byte = self.byte();
        if byte == closing {
            self.at += 1;
            self.depth = self.depth.saturating_sub(1);
            return Ok(false);
        }
        if !fresh {
            if byte != b',' {
                return self.fault(expected);
            }
            self.at += 1;
            self.skip_space();
        }
        Ok(true)
    }

    /// The value if it is a string; any other is passed over.
    pub fn take_string(&mut self) -> Checked<Option<Text<'a>>> {
        if self.byte() == b'"' {
            self.string().map(Some)
        } else {
            self.skip().map(|()| None)
        }
    }

    /// The value if it is a boolean; any other is passed over.
    pub fn take_bool(&mut self) -> Checked<Option<bool>> {
        let byte = self.byte();
        self.skip()?;
        Ok(match byte {
            b't' => Some(true),
            b'f' => Some(false),
            _ => None,
        })
    }

    /// The value if it is an integer from 0 to `i64::MAX`; any other is passed over.
    pub fn take_count(&mut self) -> Checked<Option<u64>> {
        let start = self.at;
        self.skip()?;
        let value = self.text.get(start..self.at).unwrap_or_default();
        let is_number = value.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        Ok(if is_number {
            super::number::integer(value)
        } else {
            None
        })
    }

    /// The value if it is a number; any other is passed over.
    pub fn take_number(&mut self) -> Checked<Option<f64>> {
        let start = self.at;
        self.skip()?;
        let value = self.text.get(start..self.at).unwrap_or_default();
        // Rust reads every JSON number, and no other JSON value.
        Ok(value.parse().ok())
    }

    /// Pass over the value; whether it was something else than null.
    pub fn take_presence(&mut self) -> Checked<bool> {
        let present = self.byte() != b'n';
        self.skip().map(|()| present)
    }

    #[inline]
    fn key(&mut self) -> Checked<Text<'a>> {
        if self.byte() != b'"' {
            return self.fault("a key in quotes");
        }
        let key = self.string()?;
        self.skip_space();
        if self.byte() != b':' {
            return self.fault("':'");
        }
        self.at += 1;
        self.skip_space();
        Ok(key)
    }

    #[inline]
    pub(super) fn skip_space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// The next byte; 0 at the end, which no rule of the grammar takes.
    #[inline]
    pub(super) fn byte(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn check_depth(&self, depth: usize) -> Checked<()> {
        if depth > MAX_DEPTH {
            self.fault("at most 1,000 levels of nesting")
        } else {
            Ok(())
        }
    }

    #[cold]
    pub(super) fn fault<T>(&self, expected: &'static str) -> Checked<T> {
        Err(Fault {
            expected,
            at: self.at,
        })
    }
}
