//! The changes a body may need on its way to a backend, made in one pass: every other byte stays as it was.

use std::borrow::Cow;
use std::fmt;

use super::peek::{Place, Places, Span};
use super::splice::{Edit, SpliceError, splice};

/// Where a cap on output tokens is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    /// Ollama's num_predict, inside "options".
    NumPredict,
}

impl Cap {
    pub const ALL: [Cap; 4] = [
        Cap::MaxTokens,
        Cap::MaxCompletionTokens,
        Cap::MaxOutputTokens,
        Cap::NumPredict,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Cap::MaxTokens => "max_tokens",
            Cap::MaxCompletionTokens => "max_completion_tokens",
            Cap::MaxOutputTokens => "max_output_tokens",
            Cap::NumPredict => "options.num_predict",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// The new model, as JSON text.
    pub model: Option<&'a [u8]>,
    /// Make stream_options.include_usage true.
    pub ask_usage: bool,
    pub cap: Option<(Cap, u64)>,
}

/// The body is not the one its facts were read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteError;

impl fmt::Display for RewriteError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the facts are not those of this body")
    }
}

impl std::error::Error for RewriteError {}

impl From<SpliceError> for RewriteError {
    fn from(_: SpliceError) -> Self {
        RewriteError
    }
}

/// A part of the body and what takes its place.
pub type Change<'a> = (Span, Cow<'a, [u8]>);

/// The body with the changes. Afterwards `peek` finds include_usage true and the cap as it was asked for.
pub fn rewrite(
    body: &[u8],
    model_spans: &[Span],
    places: &Places,
    wanted: &Changes<'_>,
) -> Result<Vec<u8>, RewriteError> {
    let changes = changes(body, model_spans, places, wanted)?;
    let edits: Vec<Edit<'_>> = changes.iter().map(as_edit).collect();
    Ok(splice(body, &edits)?)
}

/// What `rewrite` changes, in rising order.
pub fn changes<'a>(
    body: &'a [u8],
    model_spans: &[Span],
    places: &Places,
    changes: &Changes<'a>,
) -> Result<Vec<Change<'a>>, RewriteError> {
    let mut edits = Edits::new(body);
    for &span in model_spans {
        if let Some(model) = changes.model {
            edits.replace(span, Cow::Borrowed(model));
        }
    }
    if changes.ask_usage {
        let (outer, inner) = (places.stream_options, places.include_usage);
        edits.set_nested(["stream_options", "include_usage"], outer, inner, "true")?;
    }
    if let Some((cap, tokens)) = changes.cap {
        edits.set_cap(cap, places, &tokens.to_string())?;
    }
    edits.done()
}

struct Edits<'a> {
    body: &'a [u8],
    edits: Vec<Change<'a>>,
    /// Members to add to the body, a comma before each.
    added: Vec<u8>,
}

impl<'a> Edits<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            edits: Vec::new(),
            added: Vec::new(),
        }
    }

    fn replace(&mut self, span: Span, text: Cow<'a, [u8]>) {
        self.edits.push((span, text));
    }

    fn add(&mut self, name: &str, value: &str) {
        for part in [",\"", name, "\":", value] {
            self.added.extend_from_slice(part.as_bytes());
        }
    }

    fn set_cap(&mut self, cap: Cap, places: &Places, tokens: &str) -> Result<(), RewriteError> {
        let place = match cap {
            Cap::MaxTokens => places.max_tokens,
            Cap::MaxCompletionTokens => places.max_completion_tokens,
            Cap::MaxOutputTokens => places.max_output_tokens,
            Cap::NumPredict => {
                let (outer, inner) = (places.options, places.num_predict);
                return self.set_nested(["options", "num_predict"], outer, inner, tokens);
            }
        };
        match place.span() {
            Some(span) => self.replace(span, owned(tokens.to_owned())),
            None => self.add(cap.name(), tokens),
        }
        Ok(())
    }

    /// Set a member of an object that is a member of the body; something else in its place gives way to an object.
    fn set_nested(
        &mut self,
        names: [&str; 2],
        outer: Place,
        inner: Place,
        value: &str,
    ) -> Result<(), RewriteError> {
        let member = member(names[1], value);
        match (outer.span(), inner.span()) {
            (_, Some(span)) => self.replace(span, owned(value.to_owned())),
            (Some(span), None) if self.is_object(span) => {
                let text = self.text(span).ok_or(RewriteError)?;
                let (at, comma) = end_of_members(text).ok_or(RewriteError)?;
                let at = span.0 + at;
                self.replace((at, at), owned(format!("{comma}{member}")));
            }
            (Some(span), None) => self.replace(span, owned(format!("{{{member}}}"))),
            (None, None) => self.add(names[0], &format!("{{{member}}}")),
        }
        Ok(())
    }

    fn is_object(&self, span: Span) -> bool {
        self.body.get(span.0) == Some(&b'{')
    }

    fn text(&self, span: Span) -> Option<&'a [u8]> {
        self.body.get(span.0..span.1)
    }

    fn done(mut self) -> Result<Vec<Change<'a>>, RewriteError> {
        if !self.added.is_empty() {
            let (at, comma) = end_of_members(self.body).ok_or(RewriteError)?;
            let mut added = std::mem::take(&mut self.added);
            if comma.is_empty() {
                added.remove(0);
            }
            self.replace((at, at), Cow::Owned(added));
        }
        // Stable: of two edits at one place the one made first stands first.
        self.edits.sort_by_key(|&(span, _)| span);
        Ok(self.edits)
    }
}

pub fn as_edit<'e>((span, text): &'e Change<'_>) -> Edit<'e> {
    Edit {
        start: span.0,
        end: span.1,
        text,
    }
}

fn owned(text: String) -> Cow<'static, [u8]> {
    Cow::Owned(text.into_bytes())
}

fn member(name: &str, value: &str) -> String {
    format!("\"{name}\":{value}")
}

/// Where another member of an object can be added, and what must stand before it.
fn end_of_members(object: &[u8]) -> Option<(usize, &'static str)> {
    let members = object.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    let is_empty = members.trim_ascii_start() == b"{";
    Some((members.len(), if is_empty { "" } else { "," }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::peek;
    use proptest::prelude::*;

    fn run(body: &str, changes: &Changes<'_>) -> Option<String> {
        let facts = peek(body.as_bytes()).ok()?;
        let changed = rewrite(
            body.as_bytes(),
            &facts.model_spans,
            &facts.places(),
            changes,
        );
        String::from_utf8(changed.ok()?).ok()
    }

    #[test]
    fn usage_is_asked_for() {
        let changes = Changes {
            ask_usage: true,
            ..Changes::default()
        };
        for (body, expected) in [
            ("{}", r#"{"stream_options":{"include_usage":true}}"#),
            (
                " { \n} ",
                " {\"stream_options\":{\"include_usage\":true} \n} ",
            ),
            (
                r#"{"a":"}" }"#,
                r#"{"a":"}","stream_options":{"include_usage":true} }"#,
            ),
            (
                r#"{"stream_options":null}"#,
                r#"{"stream_options":{"include_usage":true}}"#,
            ),
            (
                r#"{"stream_options":{ }}"#,
                r#"{"stream_options":{"include_usage":true }}"#,
            ),
            (
                r#"{"stream_options":{"x":[1]},"b":2}"#,
                r#"{"stream_options":{"x":[1],"include_usage":true},"b":2}"#,
            ),
            (
                r#"{"stream_options":{"include_usage": false},"b":2}"#,
                r#"{"stream_options":{"include_usage": true},"b":2}"#,
            ),
        ] {
            assert_eq!(run(body, &changes).as_deref(), Some(expected));
        }
    }

    #[test]
    fn all_changes_at_once() {
        let changes = Changes {
            model: Some(b"\"new\""),
            ask_usage: true,
            cap: Some((Cap::NumPredict, 9)),
        };
        assert_eq!(
            run(r#"{"options":{},"model":"m"}"#, &changes).as_deref(),
            Some(
                r#"{"options":{"num_predict":9},"model":"new","stream_options":{"include_usage":true}}"#
            )
        );
        assert_eq!(
            run(r#"{"model":"m"}"#, &changes).as_deref(),
            Some(
                r#"{"model":"new","stream_options":{"include_usage":true},"options":{"num_predict":9}}"#
            )
        );
    }

    #[test]
    fn facts_of_another_body_are_refused() -> Result<(), crate::json::JsonError> {
        let facts = peek(br#"{"model":"m","max_tokens":null}"#)?;
        let changes = Changes {
            model: Some(b"\"n\""),
            ..Changes::default()
        };
        let places = facts.places();
        assert_eq!(
            rewrite(b"{}", &facts.model_spans, &places, &changes),
            Err(RewriteError)
        );
        let changes = Changes {
            cap: Some((Cap::MaxOutputTokens, 1)),
            ..Changes::default()
        };
        assert_eq!(rewrite(b"[]", &[], &places, &changes), Err(RewriteError));
        Ok(())
    }

    fn value() -> impl Strategy<Value = String> {
        let scalar =
            prop::sample::select(vec!["null", "false", "true", "-1", "7", "\"}\"", "[{}]"]);
        let names = vec!["include_usage", "num_predict", "x", "m\\u0061x"];
        let members = prop::collection::vec((prop::sample::select(names), scalar.clone()), 0..3);
        let object = members.prop_map(|members| {
            let members: Vec<_> = members
                .iter()
                .map(|(k, v)| format!("\"{k}\": {v}"))
                .collect();
            format!("{{ {} }}", members.join(" ,"))
        });
        prop_oneof![scalar.prop_map(str::to_owned), object]
    }

    proptest! {
        #[test]
        fn peek_finds_what_was_asked_for(
            members in prop::collection::vec((prop::sample::select(vec![
                "model", "stream_options", "options", "max_tokens", "m\\u0061x_tokens", "max_output_tokens", "x",
            ]), value()), 0..5),
            index in 0usize..4,
            ask_usage: bool,
        ) {
            let texts: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
            let body = format!("{{{}\n}}", texts.join(", "));
            let cap = Cap::ALL.get(index).copied();
            let changes = Changes { model: Some(b"\"new\""), ask_usage, cap: cap.map(|cap| (cap, 3)) };
            let changed = run(&body, &changes).unwrap_or_default();
            prop_assert!(serde_json::from_str::<serde_json::Value>(&changed).is_ok(), "{}", changed);
            let found = peek(changed.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert!(found.include_usage || !ask_usage);
            prop_assert!(found.max_output_tokens().is_some_and(|cap| cap <= 3));
        }
    }
}
