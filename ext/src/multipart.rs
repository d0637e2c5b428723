//! Where a field's value stands in a multipart/form-data body (RFC 7578, RFC 2046 §5.1), from its first bytes.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;

/// RFC 2046 §5.1.1.
const MAX_BOUNDARY_BYTES: usize = 70;

/// The value of the first part named `name` that is no file. None if it is not there or does not end within
/// `prefix`, or the content type tells no boundary.
pub fn multipart_field(prefix: &[u8], content_type: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let boundary = boundary(content_type)?;
    let delimiter = [b"\r\n--", &*boundary].concat();
    let mut at = first_part(prefix, &delimiter)?;
    loop {
        // The CRLF before a delimiter belongs to it, also where it ends the part's header.
        let end = find_delimiter(prefix, at.checked_sub(2)?, &delimiter)?;
        let part = prefix.get(at..end + 2)?;
        let header = content_start(part).and_then(|length| part.get(..length));
        if let Some(header) = header.filter(|header| is_field(header, name)) {
            let start = at + header.len();
            return Some(start..end.max(start));
        }
        at = after_delimiter(prefix, end, &delimiter)?;
    }
}

fn boundary(content_type: &[u8]) -> Option<Cow<'_, [u8]>> {
    let media = content_type
        .split(|&byte| byte == b';')
        .next()?
        .trim_ascii();
    if !media.eq_ignore_ascii_case(b"multipart/form-data") {
        return None;
    }
    parameter(content_type, b"boundary")
        .filter(|value| (1..=MAX_BOUNDARY_BYTES).contains(&value.len()))
}

/// Where the first part's header begins: the body may start with a delimiter or with a preamble before one.
fn first_part(prefix: &[u8], delimiter: &[u8]) -> Option<usize> {
    let after_line = prefix.strip_prefix(delimiter.get(2..)?);
    if after_line.is_some_and(|rest| rest.starts_with(b"--")) {
        return None;
    }
    match after_line.and_then(|rest| Some(prefix.len() - rest.len() + delimiter_line(rest)?)) {
        Some(start) => Some(start),
        None => after_delimiter(prefix, find_delimiter(prefix, 0, delimiter)?, delimiter),
    }
}

/// The first whole delimiter at or after `from`: its line also ends within the prefix.
fn find_delimiter(prefix: &[u8], from: usize, delimiter: &[u8]) -> Option<usize> {
    let mut hits = memmem::find_iter(prefix.get(from..)?, delimiter).map(|hit| from + hit);
    hits.find(|hit| {
        let rest = prefix.get(hit + delimiter.len()..).unwrap_or_default();
        rest.starts_with(b"--") || delimiter_line(rest).is_some()
    })
}

/// Where the part after the delimiter at `at` begins; None after the last.
fn after_delimiter(prefix: &[u8], at: usize, delimiter: &[u8]) -> Option<usize> {
    let start = at + delimiter.len();
    Some(start + delimiter_line(prefix.get(start..)?)?)
}

/// The length of what ends a delimiter's line: padding, CRLF.
fn delimiter_line(rest: &[u8]) -> Option<usize> {
    let padding = rest
        .iter()
        .take_while(|&&byte| byte == b' ' || byte == b'\t')
        .count();
    rest.get(padding..)?
        .starts_with(b"\r\n")
        .then_some(padding + 2)
}

/// The length of a part's header with its empty line.
fn content_start(part: &[u8]) -> Option<usize> {
    if part.starts_with(b"\r\n") {
        return Some(2);
    }
    memmem::find(part, b"\r\n\r\n").map(|end| end + 4)
}

fn is_field(header: &[u8], name: &[u8]) -> bool {
    let Some(disposition) = header_value(header, b"content-disposition") else {
        return false;
    };
    let is_file = parameter(&disposition, b"filename")
        .or(parameter(&disposition, b"filename*"))
        .is_some();
    !is_file && parameter(&disposition, b"name").is_some_and(|value| *value == *name)
}

/// The value of a header field, continuation lines joined (RFC 5322 §2.2.3).
fn header_value(header: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut lines = header
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut value = lines.find_map(|line| field_value(line, name))?.to_vec();
    for line in lines.take_while(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
        value.extend_from_slice(line);
    }
    Some(value)
}

fn field_value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, value) = line.split_at_checked(line.iter().position(|&byte| byte == b':')?)?;
    field
        .trim_ascii_end()
        .eq_ignore_ascii_case(name)
        .then(|| value.get(1..).unwrap_or_default())
}

/// A parameter of a header value (RFC 9110 §5.6.6): the text of the token or of the quoted string.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let mut rest = after(value, b';')?;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        let (found, tail) = rest.split_at_checked(end)?;
        if tail.starts_with(b"=") {
            let (text, length) = parameter_value(tail.get(1..)?);
            if found.trim_ascii().eq_ignore_ascii_case(name) {
                return Some(text);
            }
            rest = after(tail.get(1 + length..)?, b';')?;
        } else {
            rest = tail.get(1..)?;
        }
    }
}

/// The text of a parameter's value and the length of it.
fn parameter_value(value: &[u8]) -> (Cow<'_, [u8]>, usize) {
    let space = value.len() - value.trim_ascii_start().len();
    if let Some(quoted) = value.trim_ascii_start().strip_prefix(b"\"") {
        let (text, length) = quoted_text(quoted);
        return (Cow::Owned(text), space + 1 + length);
    }
    let length = value
        .iter()
        .position(|&byte| byte == b';')
        .unwrap_or(value.len());
    (
        Cow::Borrowed(value.get(..length).unwrap_or_default().trim_ascii()),
        length,
    )
}

/// The text up to the closing quote, `\"` and `\\` undone, and the length with that quote.
fn quoted_text(quoted: &[u8]) -> (Vec<u8>, usize) {
    let mut text = Vec::new();
    let mut bytes = quoted.iter().enumerate().peekable();
    while let Some((at, &byte)) = bytes.next() {
        match byte {
            b'"' => return (text, at + 1),
            b'\\' => match bytes.next_if(|(_, next)| matches!(next, b'"' | b'\\')) {
                Some((_, &escaped)) => text.push(escaped),
                None => text.push(byte),
            },
            _ => text.push(byte),
        }
    }
    (text, quoted.len())
}

fn after(bytes: &[u8], mark: u8) -> Option<&[u8]> {
    bytes.get(bytes.iter().position(|&byte| byte == mark)? + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field<'a>(body: &'a str, content_type: &str, name: &str) -> Option<&'a str> {
        body.get(multipart_field(
            body.as_bytes(),
            content_type.as_bytes(),
            name.as_bytes(),
        )?)
    }

    const BODY: &str = "preamble\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\r\nRIFF\r\n\
        --b \r\ncontent-disposition:form-data; name=model\r\nX-Other: 1\r\n\r\nwhisper-1\r\n--b--\r\n";

    #[test]
    fn finds_the_field() {
        for content_type in [
            "multipart/form-data; boundary=b",
            "Multipart/Form-Data;charset=x; Boundary=\"b\"",
        ] {
            assert_eq!(field(BODY, content_type, "model"), Some("whisper-1"));
            assert_eq!(field(BODY, content_type, "file"), None);
        }
        assert_eq!(field(BODY, "multipart/form-data", "model"), None);
        assert_eq!(field(BODY, "text/plain; boundary=b", "model"), None);
    }

    #[test]
    fn needs_the_whole_delimiter() {
        let end = BODY.len() - 2;
        let cut =
            |length: usize| field(&BODY[..length], "multipart/form-data; boundary=b", "model");
        assert_eq!(cut(end), Some("whisper-1"));
        assert!((0..end).all(|length| cut(length).is_none()));
    }

    #[test]
    fn a_longer_boundary_is_content() {
        let body =
            "--b\r\nContent-Disposition: form-data; name=\"m\"\r\n\r\nx\r\n--bc\r\ny\r\n--b--";
        assert_eq!(
            field(body, "multipart/form-data; boundary=b", "m"),
            Some("x\r\n--bc\r\ny")
        );
        let empty = "--b\r\nContent-Disposition: form-data; name=\"m\"\r\n\r\n\r\n--b--";
        assert_eq!(
            field(empty, "multipart/form-data; boundary=b", "m"),
            Some("")
        );
    }
}
