//! Strings, numbers and words of JSON (RFC 8259 §3, §6, §7), checked byte for byte.

use super::cursor::{Checked, Cursor};
use super::scan::special;
use super::string::Text;

impl<'a> Cursor<'a> {
    /// Pass over a value that holds no others.
    pub(super) fn scalar(&mut self) -> Checked<()> {
        match self.byte() {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.fault("a value"),
        }
    }

    fn word(&mut self, word: &'static str) -> Checked<()> {
        for &letter in word.as_bytes() {
            if self.byte() != letter {
                return self.fault(word);
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Checked<()> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        if self.byte() == b'0' {
            self.at += 1
        } else {
            self.digits()?
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if self.byte() | 0x20 == b'e' {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Checked<()> {
        if !self.byte().is_ascii_digit() {
            return self.fault("a digit");
        }
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }

    /// A string, the cursor on its opening quote.
    #[inline]
    pub(super) fn string(&mut self) -> Checked<Text<'a>> {
        let start = self.at;
        let (mut escaped, mut respelt) = (false, false);
        self.at += 1;
        loop {
            self.at = special(self.bytes, self.at);
            match self.byte() {
                b'"' => break,
                b'\\' => respelt |= self.escape()?,
                _ if self.at >= self.bytes.len() => return self.fault("a closing quote"),
                _ => return self.fault("control characters in strings to be escaped"),
            }
            escaped = true;
        }
        let raw = self.text.get(start + 1..self.at).unwrap_or_default();
        self.at += 1;
        Ok(Text {
            raw,
            start,
            end: self.at,
            escaped,
            respelt,
        })
    }

    /// Whether it has another spelling.
    fn escape(&mut self) -> Checked<bool> {
        self.at += 1;
        match self.byte() {
            letter @ (b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(letter == b'/')
            }
            b'u' => self.hex_digits().map(|()| true),
            _ => self.fault("an escape (one of \"\\/bfnrtu)"),
        }
    }

    fn hex_digits(&mut self) -> Checked<()> {
        self.at += 1;
        for _ in 0..4 {
            if !self.byte().is_ascii_hexdigit() {
                return self.fault("four hexadecimal digits");
            }
            self.at += 1;
        }
        Ok(())
    }
}
