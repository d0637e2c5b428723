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
    num_predict: Option<u64>,
    n: Option<u64>,
    best_of: Option<u64>,
    places: Places,
}

/// Where a value stands, half open.
pub type Span = (usize, usize);

/// Where the values stand that a limit may have to change; of duplicate keys the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    pub max_tokens: Place,
    pub max_completion_tokens: Place,
    pub max_output_tokens: Place,
    pub stream_options: Place,
    /// In the last "stream_options".
    pub include_usage: Place,
    pub options: Place,
    /// In the last "options".
    pub num_predict: Place,
}

/// Where a value stands, if it is there: small, for a peek is moved about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    start: u32,
    /// 0 where there is none.
    end: u32,
}

impl Place {
    /// What stands beyond 4 GiB counts as absent: a member added behind it wins.
    fn new(start: usize, end: usize) -> Self {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Self { start, end },
            _ => Self::default(),
        }
    }

    pub fn span(self) -> Option<Span> {
        (self.end > 0).then_some((self.start as usize, self.end as usize))
    }
}

impl Peek<'_> {
    /// The least of the four names a cap on output goes by.
    pub fn max_output_tokens(&self) -> Option<u64> {
        [
            self.max_tokens,
            self.max_completion_tokens,
            self.max_output_tokens,
            self.num_predict,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// How many answers are asked for: the greater of n and best_of, at least 1.
    pub fn choices(&self) -> u64 {
        self.n.max(self.best_of).unwrap_or(1).max(1)
    }

    pub fn places(&self) -> Places {
        self.places
    }
}

/// Read a JSON object's facts, checking the whole of it.
pub fn peek(body: &[u8]) -> Result<Peek<'_>, JsonError> {
    let text = str::from_utf8(body).map_err(|error| not_utf8(body, error.valid_up_to()))?;
    read(text).map_err(|fault| JsonError::new(body, fault))
}

/// The first thing wrong: the bytes that are no UTF-8, or a fault of the grammar before them.
#[cold]
pub(super) fn not_utf8(body: &[u8], valid: usize) -> JsonError {
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
    let start = cursor.at();
    match key {
        "model" => return read_model(cursor, facts),
        "stream" => facts.stream = cursor.take_bool()?,
        "max_tokens" => {
            facts.max_tokens = cursor.take_count()?;
            facts.places.max_tokens = Place::new(start, cursor.at());
        }
        "max_completion_tokens" => {
            facts.max_completion_tokens = cursor.take_count()?;
            facts.places.max_completion_tokens = Place::new(start, cursor.at());
        }
        "max_output_tokens" => {
            facts.max_output_tokens = cursor.take_count()?;
            facts.places.max_output_tokens = Place::new(start, cursor.at());
        }
        "n" => facts.n = cursor.take_count()?,
        "best_of" => facts.best_of = cursor.take_count()?,
        "user" => facts.user = cursor.take_string()?.as_ref().and_then(Text::decode),
        "stream_options" => {
            read_stream_options(cursor, facts)?;
            facts.places.stream_options = Place::new(start, cursor.at());
        }
        "options" => {
            read_options(cursor, facts)?;
            facts.places.options = Place::new(start, cursor.at());
        }
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

fn read_stream_options(cursor: &mut Cursor<'_>, facts: &mut Peek<'_>) -> Result<(), Fault> {
    facts.places.include_usage = last_member(cursor, "include_usage", |cursor| {
        facts.include_usage = cursor.take_bool()? == Some(true);
        Ok(())
    })?;
    facts.include_usage &= facts.places.include_usage.span().is_some();
    Ok(())
}

/// Ollama takes a num_predict of 0, like a negative one, for no cap.
fn read_options(cursor: &mut Cursor<'_>, facts: &mut Peek<'_>) -> Result<(), Fault> {
    let mut cap = None;
    facts.places.num_predict = last_member(cursor, "num_predict", |cursor| {
        cap = cursor.take_count()?;
        Ok(())
    })?;
    facts.num_predict = cap.filter(|&cap| cap > 0);
    Ok(())
}

/// Pass over a value, reading the members of that name if it is an object; where the last of them stands.
fn last_member<'a>(
    cursor: &mut Cursor<'a>,
    name: &str,
    mut take: impl FnMut(&mut Cursor<'a>) -> Result<(), Fault>,
) -> Result<Place, Fault> {
    let mut place = Place::default();
    if cursor.open_object()? {
        while let Some(key) = cursor.next_key()? {
            if key.name() != name {
                cursor.skip()?;
                continue;
            }
            let start = cursor.at();
            take(cursor)?;
            place = Place::new(start, cursor.at());
        }
    }
    Ok(place)
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
    fn answers_and_ollamas_cap() -> Result<(), JsonError> {
        for (body, choices, cap) in [
            (r#"{"n":3,"best_of":2}"#, 3, None),
            (r#"{"n":0,"options":{"num_predict":7}}"#, 1, Some(7)),
            (r#"{"n":null,"options":{"num_predict":-1}}"#, 1, None),
            (r#"{"best_of":4,"options":{"num_predict":0}}"#, 4, None),
            (
                r#"{"n":2.0,"options":{"num_predict":7},"options":{}}"#,
                2,
                None,
            ),
        ] {
            let found = peek(body.as_bytes())?;
            assert_eq!((found.choices(), found.max_output_tokens()), (choices, cap));
        }
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
