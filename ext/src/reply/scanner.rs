//! The reader of a streamed reply: any split of the bytes gives the same facts.

use super::Dialect;
use super::facts::Facts;
use super::line_count::LineCount;
use super::ndjson::Ndjson;
use super::sse::Sse;
use super::usage::Usage;

/// Reads along a stream. Nothing after the end mark changes what it found.
pub struct ReplyScanner {
    framing: Framing,
    facts: Facts,
    lines: LineCount,
}

enum Framing {
    Sse(Sse),
    Ndjson(Ndjson),
}

impl ReplyScanner {
    pub fn new(dialect: Dialect) -> Self {
        let framing = match dialect {
            Dialect::Ollama => Framing::Ndjson(Ndjson::default()),
            _ => Framing::Sse(Sse::default()),
        };
        ReplyScanner {
            framing,
            facts: Facts::new(dialect),
            lines: LineCount::default(),
        }
    }

    /// Take the next bytes of the body; the `REPLY_` flags so far.
    pub fn feed(&mut self, data: &[u8]) -> u8 {
        self.lines.take(data);
        match &mut self.framing {
            Framing::Sse(sse) => sse.feed(data, &mut self.facts),
            Framing::Ndjson(ndjson) => ndjson.feed(data, &mut self.facts),
        }
        self.facts.flags
    }

    /// The body has ended: a last line without line end counts as one.
    pub fn finish(&mut self) -> u8 {
        match &mut self.framing {
            Framing::Sse(sse) => sse.finish(&mut self.facts),
            Framing::Ndjson(ndjson) => ndjson.finish(&mut self.facts),
        }
        self.facts.flags
    }

    /// The `REPLY_` flags so far.
    pub fn flags(&self) -> u8 {
        self.facts.flags
    }

    /// How many lines have ended so far, in LF, CRLF or CR.
    pub fn lines(&self) -> u64 {
        self.lines.ended()
    }

    pub fn usage(&self) -> Option<Usage> {
        self.facts.usage()
    }

    pub fn finish_reason(&self) -> Option<&str> {
        self.facts.finish_reason.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::{REPLY_COMPLETE, REPLY_ERROR};

    const STREAMS: [(Dialect, &[u8], u8); 4] = [
        (
            Dialect::Chat,
            b"data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":null}\r\n\r\n\
              data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n",
            REPLY_COMPLETE,
        ),
        (
            Dialect::Responses,
            b"event: response.failed\ndata: {\"response\":{\"status\":\"failed\",\
              \"usage\":{\"input_tokens\":5,\"output_tokens\":2}}}\n\n",
            REPLY_COMPLETE | REPLY_ERROR,
        ),
        (
            Dialect::Messages,
            b"data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5}}}\n\n\
              data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {}\n\n",
            REPLY_COMPLETE,
        ),
        (
            Dialect::Ollama,
            b"{\"done\":false}\n{\"done\":true,\"prompt_eval_count\":5,\"eval_count\":2}",
            REPLY_COMPLETE,
        ),
    ];

    #[test]
    fn any_split_gives_the_same() {
        for (dialect, body, flags) in STREAMS {
            for at in 0..=body.len() {
                let (head, tail) = body.split_at(at);
                let mut scanner = ReplyScanner::new(dialect);
                scanner.feed(head);
                scanner.feed(tail);
                assert_eq!(scanner.finish(), flags, "{dialect:?} cut at {at}");
                let ends = body.iter().filter(|&&byte| byte == b'\n').count();
                assert_eq!(scanner.lines(), ends as u64, "{dialect:?} cut at {at}");
                let usage = scanner
                    .usage()
                    .map(|usage| (usage.prompt_tokens, usage.completion_tokens));
                assert_eq!(usage, Some((5, 2)), "{dialect:?} cut at {at}");
            }
        }
    }
}
