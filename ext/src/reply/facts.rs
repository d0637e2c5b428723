//! What the events of a stream have told so far.

use super::found::{self, Found};
use super::marks::Marks;
use super::usage::{Tally, Usage};
use super::{Dialect, REPLY_COMPLETE, REPLY_ERROR};

/// The names of events that say something here; OpenAI and Anthropic also write them as "type".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Other,
    Error,
    ResponseEnded,
    ResponseFailed,
    MessageStart,
    MessageDelta,
    MessageStop,
}

impl Kind {
    pub fn of(name: &[u8]) -> Kind {
        match name {
            b"error" => Kind::Error,
            b"response.completed" | b"response.incomplete" => Kind::ResponseEnded,
            b"response.failed" => Kind::ResponseFailed,
            b"message_start" => Kind::MessageStart,
            b"message_delta" => Kind::MessageDelta,
            b"message_stop" => Kind::MessageStop,
            _ => Kind::Other,
        }
    }
}

pub(super) struct Facts {
    dialect: Dialect,
    marks: &'static Marks,
    pub flags: u8,
    tally: Tally,
    pub finish_reason: Option<String>,
}

impl Facts {
    pub fn new(dialect: Dialect) -> Self {
        Facts {
            dialect,
            marks: Marks::of(dialect),
            flags: 0,
            tally: Tally::default(),
            finish_reason: None,
        }
    }

    pub fn usage(&self) -> Option<Usage> {
        self.tally.usage(self.dialect)
    }

    pub fn is_complete(&self) -> bool {
        self.flags & REPLY_COMPLETE != 0
    }

    /// No fact can stand in `data`, whole events or lines.
    pub fn is_plain(&self, data: &[u8]) -> bool {
        self.marks.absent_from(data)
    }

    /// Take an event: its name (`Other` where there is none) and its data, or a line of NDJSON.
    pub fn event(&mut self, name: Kind, data: &[u8]) {
        if name == Kind::Error {
            self.flags |= REPLY_ERROR;
        }
        if self.dialect == Dialect::Chat && data == b"[DONE]" {
            self.flags |= REPLY_COMPLETE;
        } else if name != Kind::Other || !self.is_plain(data) {
            // Only a whole object counts: a stream cut inside its last event must not look complete.
            if let Some(found) = found::read(data, self.dialect) {
                self.take(name, found);
            }
        }
    }

    /// Take an event that came whole but was too long to be read: its name may still be an end mark.
    pub fn unread_event(&mut self, name: Kind) {
        if name == Kind::Error {
            self.flags |= REPLY_ERROR;
        }
        self.take(name, Found::default());
    }

    fn take(&mut self, name: Kind, found: Found<'_>) {
        let kind = found
            .kind
            .as_deref()
            .map_or(Kind::Other, |kind| Kind::of(kind.as_bytes()));
        match self.dialect {
            Dialect::Chat => self.take_chat(found),
            Dialect::Responses => self.take_response([name, kind], found),
            Dialect::Messages => self.take_message([name, kind], found),
            Dialect::Ollama => self.take_ollama(found),
        }
    }

    fn take_chat(&mut self, found: Found<'_>) {
        if found.error {
            self.flags |= REPLY_ERROR;
        }
        self.count(found.top.usage);
        self.finish(found.top.finish);
    }

    fn take_response(&mut self, kinds: [Kind; 2], found: Found<'_>) {
        if kinds.contains(&Kind::Error) || kinds.contains(&Kind::ResponseFailed) {
            self.flags |= REPLY_ERROR;
        }
        if kinds.contains(&Kind::ResponseEnded) || kinds.contains(&Kind::ResponseFailed) {
            self.flags |= REPLY_COMPLETE;
            self.count(found.inner.usage);
            self.finish(found.inner.finish);
        }
    }

    fn take_message(&mut self, kinds: [Kind; 2], found: Found<'_>) {
        if kinds.contains(&Kind::Error) {
            self.flags |= REPLY_ERROR;
        }
        if kinds.contains(&Kind::MessageStart) {
            self.tally.merge(&found.inner.usage);
        }
        if kinds.contains(&Kind::MessageDelta) {
            self.tally.merge(&found.top.usage);
            self.finish(found.delta.finish);
        }
        if kinds.contains(&Kind::MessageStop) {
            self.flags |= REPLY_COMPLETE;
        }
    }

    fn take_ollama(&mut self, found: Found<'_>) {
        if found.error {
            self.flags |= REPLY_ERROR;
        }
        if found.done == Some(true) {
            self.flags |= REPLY_COMPLETE;
            self.count(found.top.usage);
            self.finish(found.top.finish);
        }
    }

    fn count(&mut self, usage: Tally) {
        if usage.usage(self.dialect).is_some() {
            self.tally = usage;
        }
    }

    fn finish(&mut self, reason: Option<std::borrow::Cow<'_, str>>) {
        if let Some(reason) = reason {
            self.finish_reason = Some(reason.into_owned());
        }
    }
}
