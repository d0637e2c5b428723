//! The facts of a request body that routing and limits need, read in one pass without building objects.

use std::borrow::Cow;
use std::str;

use super::cursor::{Cursor, Fault};
use super::error::JsonError;
use super::string::Text;

/// The top-level fields of a request body. Of duplicate keys the last counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peek<'a> {
    /// None if absent or not a string of characters.
    pub model: Option<Cow<'a, str>>,
    /// There is a "model" that is no string, or one with half of a surrogate pair.
    pub model_mistyped: bool,
    /// Where the values of every "model" stand, quotes included, half open.
    pub model_spans: Vec<(usize, usize)>,
    pub stream: Option<bool>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    max_output_tokens: Option<u64>,
    pub user: Option<Cow<'a, str>>,
    /// stream_options.include_usage is true.
    pub include_usage: bool,
}

impl Peek<'_> {
    /// The least of the three names a cap on output goes by.
    pub fn max_output_tokens(&self) -> Option<u64> {
        [
            self.max_tokens,
            self.max_completion_tokens,
            self.max_output_tokens,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Read a JSON object's facts, checking the whole of it.
pub fn peek(body: &[u8]) -> Result<Peek<'_>, JsonError> {
    let text = str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    read(text).map_err(|fault| JsonError::new(body, fault))
}

/// The first thing wrong: the bytes that are no UTF-8, or a fault of the grammar before them.
#[cold]
fn not_utf8(body: &[u8], valid: usize) -> JsonError {
    let text = body
        .get(..valid)
        .and_then(|prefix| str::from_utf8(prefix).ok())
        .unwrap_or_default();
    let earlier = read(text).err().filter(|fault| fault.at < valid);
    JsonError::new(
        body,
        earlier.unwrap_or(Fault {
            expected: "UTF-8",
            at: valid,
        }),
    )
}

fn read(text: &str) -> Result<Peek<'_>, Fault> {
    let mut cursor = Cursor::new(text);
    let mut facts = Peek::default();
    cursor.open_body()?;
    while let Some(key) = cursor.next_key()? {
        read_member(&mut cursor, &key.name(), &mut facts)?;
    }
    cursor.end()?;
    Ok(facts)
}

fn read_member<'a>(cursor: &mut Cursor<'a>, key: &str, facts: &mut Peek<'a>) -> Result<(), Fault> {
    match key {
        "model" => return read_model(cursor, facts),
        "stream" => facts.stream = cursor.take_bool()?,
        "max_tokens" => facts.max_tokens = cursor.take_count()?,
        "max_completion_tokens" => facts.max_completion_tokens = cursor.take_count()?,
        "max_output_tokens" => facts.max_output_tokens = cursor.take_count()?,
        "user" => facts.user = cursor.take_string()?.as_ref().and_then(Text::decode),
        "stream_options" => facts.include_usage = include_usage(cursor)?,
        _ => return cursor.skip(),
    }
    Ok(())
}

fn read_model<'a>(cursor: &mut Cursor<'a>, facts: &mut Peek<'a>) -> Result<(), Fault> {
    let start = cursor.at();
    facts.model = cursor.take_string()?.as_ref().and_then(Text::decode);
    facts.model_mistyped = facts.model.is_none();
    facts.model_spans.push((start, cursor.at()));
    Ok(())
}

fn include_usage(cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
    let mut include = false;
    if cursor.open_object()? {
        while let Some(key) = cursor.next_key()? {
            match &*key.name() {
                "include_usage" => include = cursor.take_bool()? == Some(true),
                _ => cursor.skip()?,
            }
        }
    }
    Ok(include)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn is_object(body: &[u8]) -> bool {
        let valid =
            str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<Value>(text).is_ok());
        valid && body.trim_ascii_start().starts_with(b"{")
    }

    /// No number of these is out of the range serde_json reads.
    const TOKENS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\\u00e9",
        "\"model\"",
        "\"stream\":true",
        "\"a\":",
        "é",
        "0",
        "-1",
        "1.5",
        "2e-1",
        "true",
        "null",
        " ",
        "\n",
        "\u{1}",
    ];

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![3 => prop::sample::select(TOKENS).prop_map(str::to_owned), 1 => ".{0,3}"]
    }

    proptest! {
        #[test]
        fn the_verdict_is_that_of_serde_json(pieces in prop::collection::vec(piece(), 0..12)) {
            for body in [pieces.concat(), format!("{{\"model\":{}}}", pieces.concat())] {
                prop_assert_eq!(peek(body.as_bytes()).is_ok(), is_object(body.as_bytes()), "{}", body);
            }
        }
    }

    #[test]
    fn the_facts() -> Result<(), JsonError> {
        let body = br#"{"model":"a","stream":true,"max_tokens":1e2,"max_output_tokens":90,"mod\u0065l":"b\n"}"#;
        let found = peek(body)?;
        assert_eq!(found.model.as_deref(), Some("b\n"));
        assert_eq!(found.model_spans.len(), 2);
        assert_eq!(
            (found.stream, found.max_output_tokens()),
            (Some(true), Some(90))
        );
        Ok(())
    }

    #[test]
    fn no_depth_uses_up_the_stack() {
        for bracket in ["[", "{\"a\":"] {
            let body = format!("{{\"a\":{}", bracket.repeat(1_000_000));
            assert_eq!(
                peek(body.as_bytes()).err().map(|error| error.at),
                Some(5 + 999 * bracket.len())
            );
        }
    }
}
