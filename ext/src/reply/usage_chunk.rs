//! The last chunk of a chat or completions stream, which stream_options.include_usage asks for.

use std::str;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::sse::field;
use crate::json::{Cursor, Fault};

/// The data of the event is an object whose "choices" is an empty array and whose "usage" is an object.
pub(super) fn is_usage_chunk(event: &[u8]) -> bool {
    if !may_be(event) {
        return false;
    }
    let data = data(event);
    str::from_utf8(&data).is_ok_and(|text| read(text).unwrap_or(false))
}

/// No other event pays for more than two searches. A key may be spelt with escapes.
fn may_be(event: &[u8]) -> bool {
    static MARKS: LazyLock<[Finder<'static>; 2]> =
        LazyLock::new(|| ["\"usage\"", "\\u00"].map(Finder::new));
    MARKS.iter().any(|mark| mark.find(event).is_some())
}

/// Its data lines, joined as the standard says.
fn data(event: &[u8]) -> Vec<u8> {
    // The empty line inside a CRLF is no field.
    let lines = event.split(|&byte| byte == b'\n' || byte == b'\r');
    let values = lines.map(field).filter(|(name, _)| name == b"data");
    let values: Vec<&[u8]> = values.map(|(_, value)| value).collect();
    values.join(&b'\n')
}

fn read(text: &str) -> Result<bool, Fault> {
    let mut cursor = Cursor::new(text);
    let (mut no_choices, mut has_usage) = (false, false);
    cursor.open_body()?;
    while let Some(key) = cursor.next_key()? {
        match &*key.name() {
            "choices" => no_choices = is_empty_array(&mut cursor)?,
            "usage" => has_usage = is_object(&mut cursor)?,
            _ => cursor.skip()?,
        }
    }
    cursor.end()?;
    Ok(no_choices && has_usage)
}

fn is_empty_array(cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
    let is_array = cursor.open_array()?;
    let mut is_empty = is_array;
    while is_array && cursor.next_item()? {
        is_empty = false;
        cursor.skip()?;
    }
    Ok(is_empty)
}

fn is_object(cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
    let is_object = cursor.open_object()?;
    while is_object && cursor.next_key()?.is_some() {
        cursor.skip()?;
    }
    Ok(is_object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks() {
        for (event, expected) in [
            (
                "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\n",
                true,
            ),
            (
                "id: 7\r\ndata:{\"choices\" : [ ],\r\ndata:\"\\u0075sage\":{}}\r\n\r\n",
                true,
            ),
            (
                "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
                false,
            ),
            ("data: {\"choices\":[],\"usage\":null}\n\n", false),
            ("data: {\"choices\":[{}],\"usage\":{}}\n\n", false),
            ("data: {\"choices\":null,\"usage\":{}}\n\n", false),
            ("data: {\"usage\":{}}\n\n", false),
            (
                "data: {\"choices\":[{}],\"usage\":{},\"choices\":[]}\n\n",
                true,
            ),
            ("data: {\"choices\":[],\"usage\":{}\n\n", false),
            (": {\"choices\":[],\"usage\":{}}\n\n", false),
        ] {
            assert_eq!(is_usage_chunk(event.as_bytes()), expected, "{event}");
        }
    }
}
