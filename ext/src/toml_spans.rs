//! Where the keys and values of a TOML text stand, so that an error in a setting can name its line and column.

use std::fmt;
use std::ops::Range;

use toml_edit::{Array, Document, InlineTable, Item, Key, Table, Value};

/// A step to a value: the name of a key, or an index in an array (of tables too).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// Line and column (in characters), both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A key, or an element of an array (whose two places are the same).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub path: Vec<Step>,
    pub key: Place,
    /// Of a table its header; of one that only dotted keys make, its name in the first of them.
    pub value: Place,
}

/// A text is not TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TomlError {
    pub message: String,
    pub place: Place,
}

impl fmt::Display for TomlError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} at line {} column {}",
            self.message, self.place.line, self.place.column
        )
    }
}

impl std::error::Error for TomlError {}

/// The places of every key and array element of a valid TOML text.
pub fn toml_spans(text: &str) -> Result<Vec<Span>, TomlError> {
    let lines = Lines::of(text);
    let document = Document::parse(text).map_err(|error| TomlError {
        message: error.message().replace('\n', ", "),
        place: lines.place(error.span().map_or(0, |span| span.start)),
    })?;
    let mut walk = Walk {
        lines,
        path: Vec::new(),
        spans: Vec::new(),
    };
    walk.table(document.as_table());
    Ok(walk.spans)
}

struct Walk<'a> {
    lines: Lines<'a>,
    path: Vec<Step>,
    spans: Vec<Span>,
}

/// Nesting is bounded by toml_edit, which reads no more than 80 levels, so this may recur.
impl Walk<'_> {
    fn table(&mut self, table: &Table) {
        for (name, item) in table.iter() {
            self.member(name, table.key(name), item.span(), |walk| walk.item(item));
        }
    }

    fn inline_table(&mut self, table: &InlineTable) {
        for (name, value) in table.iter() {
            self.member(name, table.key(name), value.span(), |walk| {
                walk.value(value)
            });
        }
    }

    fn member(
        &mut self,
        name: &str,
        key: Option<&Key>,
        value: Option<Range<usize>>,
        inside: impl FnOnce(&mut Self),
    ) {
        let key = key.and_then(Key::span).map(|span| span.start);
        self.add(
            Step::Key(name.to_owned()),
            key,
            value.map(|span| span.start),
            inside,
        );
    }

    fn item(&mut self, item: &Item) {
        match item {
            Item::None => (),
            Item::Value(value) => self.value(value),
            Item::Table(table) => self.table(table),
            Item::ArrayOfTables(tables) => {
                for (index, table) in tables.iter().enumerate() {
                    self.element(index, table.span(), |walk| walk.table(table));
                }
            }
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Array(array) => self.array(array),
            Value::InlineTable(table) => self.inline_table(table),
            _ => (),
        }
    }

    fn array(&mut self, array: &Array) {
        for (index, value) in array.iter().enumerate() {
            self.element(index, value.span(), |walk| walk.value(value));
        }
    }

    fn element(
        &mut self,
        index: usize,
        span: Option<Range<usize>>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.add(
            Step::Index(index),
            None,
            span.map(|span| span.start),
            inside,
        );
    }

    /// Note where the step leads, then go on inside of it.
    fn add(
        &mut self,
        step: Step,
        key: Option<usize>,
        value: Option<usize>,
        inside: impl FnOnce(&mut Self),
    ) {
        self.path.push(step);
        let either = key.or(value).unwrap_or(0);
        self.spans.push(Span {
            path: self.path.clone(),
            key: self.lines.place(either),
            value: self.lines.place(value.unwrap_or(either)),
        });
        inside(self);
        self.path.pop();
    }
}

struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let after_ends = memchr::memchr_iter(b'\n', text.as_bytes()).map(|end| end + 1);
        Lines {
            text,
            starts: std::iter::once(0).chain(after_ends).collect(),
        }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = line
            .checked_sub(1)
            .and_then(|index| self.starts.get(index))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        Place {
            line,
            column: 1 + before.chars().count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Named = (String, (usize, usize), (usize, usize));

    fn places(text: &str) -> Vec<Named> {
        let spans = toml_spans(text).unwrap_or_default();
        spans
            .into_iter()
            .map(|span| (name(&span.path), pair(span.key), pair(span.value)))
            .collect()
    }

    fn pair(place: Place) -> (usize, usize) {
        (place.line, place.column)
    }

    fn name(path: &[Step]) -> String {
        let steps = path.iter().map(|step| match step {
            Step::Key(key) => key.clone(),
            Step::Index(index) => index.to_string(),
        });
        steps.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn dotted_keys_and_tables() {
        let text = "a.b = 1\n[t]\n\"ä ö\" = { x = [1, {y = 2}] }\n";
        let expected = [
            ("a", (1, 1), (1, 1)),
            ("a/b", (1, 3), (1, 7)),
            ("t", (2, 2), (2, 1)),
            ("t/ä ö", (3, 1), (3, 9)),
            ("t/ä ö/x", (3, 11), (3, 15)),
            ("t/ä ö/x/0", (3, 16), (3, 16)),
            ("t/ä ö/x/1", (3, 19), (3, 19)),
            ("t/ä ö/x/1/y", (3, 20), (3, 24)),
        ];
        assert_eq!(
            places(text),
            expected.map(|(path, key, value)| (path.to_owned(), key, value))
        );
    }

    #[test]
    fn arrays_of_tables() {
        let found = places("[[m.t]]\nname = 'x'\n\n[[m.t]]\r\n  name = 'y'\n");
        for expected in [
            ("m/t/0", (1, 1), (1, 1)),
            ("m/t/1", (4, 1), (4, 1)),
            ("m/t/1/name", (5, 3), (5, 10)),
        ] {
            let expected = (expected.0.to_owned(), expected.1, expected.2);
            assert!(found.contains(&expected), "{expected:?} in {found:?}");
        }
    }

    #[test]
    fn errors_tell_the_place() {
        let error = toml_spans("a = 1\nb = = 2\n")
            .err()
            .map(|error| pair(error.place));
        assert_eq!(error, Some((2, 5)));
    }
}
