//! Whether a request refers to input that stands elsewhere, so that the length of its body bounds nothing.

use std::str;

use super::cursor::{Cursor, Fault};
use super::string::Text;

/// The body names a URL to fetch, a stored file, or an earlier conversation. It may err to true, never to false.
///
/// A `data:` URL carries its input with it. What cannot be read counts as true.
pub fn remote_input(body: &[u8]) -> bool {
    str::from_utf8(body).map_or(true, |text| read(text).unwrap_or(true))
}

/// What a member's name says of its value: when it refers to something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    /// If it is a string other than a `data:` URL.
    Url,
    /// If it is a string, or an object with an "id".
    Reference,
    /// If it is an object with an "id".
    Holder,
    /// If it is a string; the "id" of the two above.
    Id,
    /// If it is "item_reference"; the "type" or "role" that says what its object is.
    Kind,
    /// Of OpenAI responses: an object in it with an "id" and no kind refers to an earlier item.
    Input,
}

impl Meaning {
    fn of_string(self, text: &Text<'_>) -> bool {
        match self {
            Meaning::Url => !text.raw.starts_with("data:"),
            Meaning::Reference | Meaning::Id => true,
            Meaning::Kind => text.name() == "item_reference",
            Meaning::Nothing | Meaning::Holder | Meaning::Input => false,
        }
    }
}

/// An object or array the cursor is in.
struct Level {
    is_object: bool,
    meaning: Meaning,
    has_id: bool,
    has_kind: bool,
}

impl Level {
    fn new(is_object: bool, meaning: Meaning) -> Self {
        Level {
            is_object,
            meaning,
            has_id: false,
            has_kind: false,
        }
    }

    /// Go to the next value in it; None leaves it.
    fn next(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Meaning>, Fault> {
        if !self.is_object {
            return Ok(cursor.next_item()?.then_some(self.meaning));
        }
        let is_body = cursor.depth == 1;
        let key = cursor.next_key()?;
        Ok(key.map(|key| self.member(&key.name(), is_body)))
    }

    fn member(&mut self, name: &str, is_body: bool) -> Meaning {
        match name {
            "id" => self.id(),
            "type" | "role" => Meaning::Kind,
            "file_id" => Meaning::Reference,
            "audio" => Meaning::Holder,
            "previous_response_id" | "conversation" if is_body => Meaning::Reference,
            "prompt" if is_body => Meaning::Holder,
            "input" if is_body => Meaning::Input,
            _ if name.ends_with("url") => Meaning::Url,
            _ => Meaning::Nothing,
        }
    }

    fn id(&mut self) -> Meaning {
        self.has_id = true;
        match self.meaning {
            Meaning::Reference | Meaning::Holder => Meaning::Id,
            _ => Meaning::Nothing,
        }
    }

    /// It has been read to its end.
    fn refers(&self) -> bool {
        self.is_object && self.meaning == Meaning::Input && self.has_id && !self.has_kind
    }
}

fn read(text: &str) -> Result<bool, Fault> {
    let mut cursor = Cursor::new(text);
    cursor.open_body()?;
    let mut levels = vec![Level::new(true, Meaning::Nothing)];
    while let Some(level) = levels.last_mut() {
        let Some(meaning) = level.next(&mut cursor)? else {
            if level.refers() {
                return Ok(true);
            }
            levels.pop();
            continue;
        };
        match cursor.byte() {
            bracket @ (b'{' | b'[') => {
                cursor.open()?;
                levels.push(Level::new(bracket == b'{', meaning));
            }
            b'"' => {
                level.has_kind |= meaning == Meaning::Kind;
                if meaning.of_string(&cursor.string()?) {
                    return Ok(true);
                }
            }
            _ => cursor.skip()?,
        }
    }
    cursor.end().map(|()| false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        for body in [
            r#"{"messages":[{"content":[{"image_url":{"url":"https://a/b.png"}}]}]}"#,
            r#"{"input":[{"role":"user","content":[{"type":"input_image","image_url":"http://a"}]}]}"#,
            r#"{"a":{"file\u005furl":"ftp://x"}}"#,
            r#"{"image_url":["https://a"]}"#,
            r#"{"source":{"type":"file","file_id":"f"}}"#,
            r#"{"previous_response_id":"r"}"#,
            r#"{"conversation":{"id":"c"}}"#,
            r#"{"prompt":{"variables":{},"id":"p"}}"#,
            r#"{"messages":[{"role":"assistant","audio":{"id":"a"}}]}"#,
            r#"{"input":[{"type":"item_reference","id":"m"}]}"#,
            r#"{"input":[{"type":null,"id":"m"}]}"#,
            "{",
            "[]",
        ] {
            assert!(remote_input(body.as_bytes()), "{body}");
        }
        assert!(remote_input(b"\xff"));
    }

    #[test]
    fn all_is_in_the_body() {
        for body in [
            r#"{"messages":[{"role":"user","content":"see https://a, \"url\":\"https://b\""}]}"#,
            r#"{"messages":[{"content":[{"image_url":{"url":"data:image/png;base64,AA"}}]}]}"#,
            r#"{"prompt":"url","input":"file_id"}"#,
            r#"{"prompt":["id"],"input":["a",["b"]],"audio":{"voice":"v"}}"#,
            r#"{"previous_response_id":null,"conversation":null,"prompt":{"id":null},"file_id":null}"#,
            r#"{"tools":[{"properties":{"url":{"type":"string"},"conversation":{"type":"string"}},"required":["url"]}]}"#,
            r#"{"input":[{"type":"message","id":"m","content":"x"},{"role":"user","content":"y"}]}"#,
        ] {
            assert!(!remote_input(body.as_bytes()), "{body}");
        }
    }
}
