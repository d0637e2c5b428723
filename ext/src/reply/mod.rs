//! Reading along a model's answer: is it whole, did it fail inside, what did it use.
//!
//! A stream goes through `sse` or `ndjson`, which pass over all that carries no mark (`marks`) and hand whole
//! events to `facts`. A whole answer goes through `answer`. Both read JSON by `found`.
//! `usage_remover` is the one that changes a stream: it takes out the chunk of usage that the client did not ask for.

mod answer;
mod event_end;
mod facts;
mod found;
mod line_count;
mod lines;
mod marks;
mod ndjson;
mod scanner;
mod sse;
mod usage;
mod usage_chunk;
mod usage_remover;

pub use answer::{Answer, scan_answer};
pub use lines::MAX_LINE_BYTES;
pub use scanner::ReplyScanner;
pub use usage::Usage;
pub use usage_remover::UsageRemover;

/// The end mark of the dialect was seen.
pub const REPLY_COMPLETE: u8 = 1;
/// The backend reported an error inside the stream.
pub const REPLY_ERROR: u8 = 2;

/// How a service writes its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI chat and completions.
    Chat,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// Ollama's own NDJSON.
    Ollama,
}

impl Dialect {
    pub const ALL: [Dialect; 4] = [
        Dialect::Chat,
        Dialect::Responses,
        Dialect::Messages,
        Dialect::Ollama,
    ];
}
