//! Which bytes can carry a fact at all: substrings looked for before any JSON is read.
//!
//! A delta of a stream has none of them, so it costs a few SIMD searches and no parsing. A mark may be found where
//! there is no fact (in a text that quotes one); it is then read exactly and found empty. It is never missed:
//! inside a JSON string the quotes of `"usage"` are escaped, and keys spelt with `\u00xx` count as marks too.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::Dialect;

pub(super) struct Marks(Vec<Mark>);

struct Mark {
    finder: Finder<'static>,
    /// Whether a hit (haystack, start, end) can be a fact.
    counts: fn(&[u8], usize, usize) -> bool,
}

static MARKS: LazyLock<[Marks; 4]> = LazyLock::new(|| Dialect::ALL.map(Marks::new));

impl Marks {
    pub fn of(dialect: Dialect) -> &'static Marks {
        let [chat, responses, messages, ollama] = &*MARKS;
        match dialect {
            Dialect::Chat => chat,
            Dialect::Responses => responses,
            Dialect::Messages => messages,
            Dialect::Ollama => ollama,
        }
    }

    fn new(dialect: Dialect) -> Marks {
        let mut marks = vec![mark("error", tells_error), mark("\\u00", spells_a_key)];
        match dialect {
            Dialect::Chat => {
                marks.push(mark("\"finish_reason\"", has_value));
                marks.push(mark("\"usage\"", has_value));
                marks.push(mark("[DONE]", always));
            }
            Dialect::Responses => {
                marks.push(mark("response.completed", always));
                marks.push(mark("response.incomplete", always));
                marks.push(mark("response.failed", always));
            }
            Dialect::Messages => marks.push(mark("message_", always)),
            Dialect::Ollama => marks.push(mark("\"done\"", is_not_false)),
        }
        Marks(marks)
    }

    /// No fact can stand in `data`.
    pub fn absent_from(&self, data: &[u8]) -> bool {
        !self.0.iter().any(|mark| mark.found_in(data))
    }
}

fn mark(text: &'static str, counts: fn(&[u8], usize, usize) -> bool) -> Mark {
    Mark {
        finder: Finder::new(text),
        counts,
    }
}

impl Mark {
    fn found_in(&self, data: &[u8]) -> bool {
        let length = self.finder.needle().len();
        self.finder
            .find_iter(data)
            .any(|start| (self.counts)(data, start, start + length))
    }
}

fn always(_: &[u8], _: usize, _: usize) -> bool {
    true
}

/// Many servers write `"usage":null` and `"finish_reason":null` into every chunk.
fn has_value(data: &[u8], _: usize, end: usize) -> bool {
    value_after(data, end) != Some(b'n')
}

fn is_not_false(data: &[u8], _: usize, end: usize) -> bool {
    value_after(data, end) != Some(b'f')
}

/// A key "error" with a value, the value "error" (of "type"), or the value of an event's name.
fn tells_error(data: &[u8], start: usize, end: usize) -> bool {
    let before = start.checked_sub(1).and_then(|at| data.get(at));
    match (before, data.get(end)) {
        (Some(b'"'), Some(b'"')) => has_value(data, start, end + 1),
        (Some(b' ' | b':'), None | Some(b'\r' | b'\n')) => true,
        _ => false,
    }
}

/// Escapes of `.`, `_` and the small letters, which known keys and values are made of.
fn spells_a_key(data: &[u8], _: usize, end: usize) -> bool {
    matches!(data.get(end), Some(b'2' | b'5'..=b'7'))
}

/// The first byte of the value when a colon follows on the same line.
fn value_after(data: &[u8], end: usize) -> Option<u8> {
    let rest = data.get(end..)?.trim_ascii_start();
    rest.strip_prefix(b":")?.trim_ascii_start().first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(dialect: Dialect, text: &str) -> bool {
        Marks::of(dialect).absent_from(text.as_bytes())
    }

    #[test]
    fn deltas_are_plain() {
        let chat = r#"data: {"choices":[{"delta":{"content":"an error: \"usage\": 5"},"finish_reason": null}],"usage":null}"#;
        assert!(plain(Dialect::Chat, chat));
        assert!(plain(
            Dialect::Ollama,
            r#"{"message":{"content":"done: \"done\""},"done":false}"#
        ));
        assert!(plain(Dialect::Messages, r#"event: content_block_delta"#));
        assert!(plain(
            Dialect::Responses,
            r#"{"type":"response.output_text.delta","delta":"\u00e9"}"#
        ));
    }

    #[test]
    fn facts_are_not() {
        for chat in [
            r#"{"usage" : {"prompt_tokens":1}}"#,
            r#"{"finish_reason":"stop"}"#,
            "[DONE]",
            r#"{"error":{}}"#,
            "event: error\n",
            "event:error",
            r#"{"\u0075sage":{}}"#,
        ] {
            assert!(!plain(Dialect::Chat, chat), "{chat}");
        }
        assert!(!plain(Dialect::Ollama, r#"{"done": true}"#));
        assert!(!plain(Dialect::Responses, r#"{"type": "error"}"#));
    }
}
