//! What a whole (not streamed) JSON answer says of itself.

use super::Dialect;
use super::found::{self, Found};
use super::usage::Usage;

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The model finished: see `is_complete`.
    pub complete: bool,
    pub usage: Option<Usage>,
    pub finish_reason: Option<String>,
}

/// Read a whole answer; None if it is not a JSON object.
pub fn scan_answer(body: &[u8], dialect: Dialect) -> Option<Answer> {
    let mut found = found::read(body, dialect)?;
    if !found.has_choices {
        found.top.usage.seconds = found.top.usage.seconds.or(found.duration);
    }
    Some(Answer {
        complete: is_complete(&found, dialect),
        usage: found.top.usage.usage(dialect),
        finish_reason: found.top.finish.map(|finish| finish.into_owned()),
    })
}

/// An answer without choices (embeddings) or without "done" (Ollama's embed) has nothing that could be cut.
fn is_complete(found: &Found<'_>, dialect: Dialect) -> bool {
    let finish = found.top.finish.as_deref();
    match dialect {
        Dialect::Chat => !found.open_choice,
        Dialect::Responses => matches!(finish, None | Some("completed" | "failed" | "incomplete")),
        Dialect::Messages => finish.is_some(),
        Dialect::Ollama => found.done != Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(body: &str, dialect: Dialect) -> Option<bool> {
        scan_answer(body.as_bytes(), dialect).map(|answer| answer.complete)
    }

    #[test]
    fn seconds_of_a_transcription() {
        for (body, seconds) in [
            (
                r#"{"text":"a","usage":{"type":"duration","seconds":3}}"#,
                Some(3.0),
            ),
            (
                r#"{"text":"a","duration":2.5,"usage":{"seconds":3}}"#,
                Some(3.0),
            ),
            (r#"{"text":"a","duration":2.5}"#, Some(2.5)),
            (r#"{"text":"a","duration":-1}"#, None),
            (r#"{"text":"a","duration":1e999}"#, None),
            (r#"{"choices":[],"duration":2.5}"#, None),
        ] {
            let answer = scan_answer(body.as_bytes(), Dialect::Chat);
            let found = answer
                .and_then(|answer| answer.usage)
                .map(|usage| usage.seconds);
            assert_eq!(found, seconds, "{body}");
        }
    }

    #[test]
    fn completeness() {
        for (body, dialect, expected) in [
            (
                r#"{"choices":[{"finish_reason":"stop"}]}"#,
                Dialect::Chat,
                true,
            ),
            (
                r#"{"choices":[{"finish_reason":"stop"},{"finish_reason":null}]}"#,
                Dialect::Chat,
                false,
            ),
            (
                r#"{"data":[],"usage":{"prompt_tokens":3}}"#,
                Dialect::Chat,
                true,
            ),
            (r#"{"status":"in_progress"}"#, Dialect::Responses, false),
            (r#"{"status":"failed"}"#, Dialect::Responses, true),
            (r#"{"stop_reason":null}"#, Dialect::Messages, false),
            (r#"{"stop_reason":"end_turn"}"#, Dialect::Messages, true),
            (r#"{"done":false}"#, Dialect::Ollama, false),
            (r#"{"embeddings":[[0.1]]}"#, Dialect::Ollama, true),
        ] {
            assert_eq!(complete(body, dialect), Some(expected), "{body}");
        }
        assert_eq!(complete("[]", Dialect::Chat), None);
        assert_eq!(complete("{", Dialect::Ollama), None);
    }
}
