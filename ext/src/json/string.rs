//! A JSON string as it stands in the body, and what it means.

use std::borrow::Cow;

/// A checked JSON string: its text between the quotes, and its place with them.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub raw: &'a str,
    /// Where the opening quote stands.
    pub start: usize,
    /// After the closing quote.
    pub end: usize,
    pub escaped: bool,
    /// One of its escapes could be spelt otherwise: any but the short ones, of which / needs none.
    pub(super) respelt: bool,
}

impl<'a> Text<'a> {
    /// Its characters; None if it holds half of a surrogate pair, which the grammar allows (RFC 8259 §8.2).
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        if self.escaped {
            unescape(self.raw).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(self.raw))
        }
    }

    /// Its characters for comparing with a known name: "" if it can be none.
    #[inline]
    pub fn name(&self) -> Cow<'a, str> {
        if self.escaped {
            self.decode().unwrap_or_default()
        } else {
            Cow::Borrowed(self.raw)
        }
    }
}

fn unescape(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        text.push_str(plain);
        let (character, after) = one_escape(escape)?;
        text.push(character);
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// The character of an escape, whose backslash is already read, and what follows it.
fn one_escape(escape: &str) -> Option<(char, &str)> {
    let mut characters = escape.chars();
    let character = match characters.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => return unicode_escape(characters.as_str()),
        same => same,
    };
    Some((character, characters.as_str()))
}

pub(super) fn unicode_escape(digits: &str) -> Option<(char, &str)> {
    let (unit, rest) = code_unit(digits)?;
    if !(0xd800..0xdc00).contains(&unit) {
        return Some((char::from_u32(unit)?, rest));
    }
    let (low, rest) = code_unit(rest.strip_prefix("\\u")?)?;
    if !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    Some((
        char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))?,
        rest,
    ))
}

pub(super) fn code_unit(digits: &str) -> Option<(u32, &str)> {
    let (digits, rest) = digits.split_at_checked(4)?;
    Some((u32::from_str_radix(digits, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(
            unescape(r#"a\"\\\/\b\f\n\r\tz"#).as_deref(),
            Some("a\"\\/\u{8}\u{c}\n\r\tz")
        );
        assert_eq!(
            unescape(r"\u006d\u00E9\ud83d\ude00!").as_deref(),
            Some("mé😀!")
        );
        for lone in [
            r"\ud83d",
            r"\ud83dx",
            r"\ude00",
            r"\ud83d\u0041",
            r"\ud83d\n",
        ] {
            assert_eq!(unescape(lone), None, "{lone}");
        }
    }
}
