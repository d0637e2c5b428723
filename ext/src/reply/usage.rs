//! Token counts as each dialect writes them.

use super::Dialect;
use crate::json::{Cursor, Fault};

/// Tokens as the backend counted them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// With the cached ones.
    pub prompt_tokens: u64,
    /// With the reasoning ones.
    pub completion_tokens: u64,
    pub cached_tokens: u64,
    pub reasoning_tokens: u64,
    /// Of audio; 0.0 where the backend does not tell.
    pub seconds: f64,
}

/// Counts as far as they are known: Anthropic tells them in two events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub prompt: Option<u64>,
    pub completion: Option<u64>,
    cached: Option<u64>,
    /// Anthropic's cache_creation_input_tokens.
    cache_written: Option<u64>,
    reasoning: Option<u64>,
    pub seconds: Option<f64>,
}

impl Tally {
    /// None when nothing was counted.
    pub fn usage(&self, dialect: Dialect) -> Option<Usage> {
        if self.prompt.or(self.completion).is_none() && self.seconds.is_none() {
            return None;
        }
        let mut prompt = self.prompt.unwrap_or(0);
        if dialect == Dialect::Messages {
            // Anthropic's input_tokens are only those behind the last cache breakpoint.
            let cache = self
                .cached
                .unwrap_or(0)
                .saturating_add(self.cache_written.unwrap_or(0));
            prompt = prompt.saturating_add(cache);
        }
        Some(Usage {
            prompt_tokens: prompt,
            completion_tokens: self.completion.unwrap_or(0),
            cached_tokens: self.cached.unwrap_or(0),
            reasoning_tokens: self.reasoning.unwrap_or(0),
            seconds: self.seconds.unwrap_or(0.0),
        })
    }

    /// Take over what `later` knows.
    pub fn merge(&mut self, later: &Tally) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
        self.cached = later.cached.or(self.cached);
        self.cache_written = later.cache_written.or(self.cache_written);
        self.reasoning = later.reasoning.or(self.reasoning);
        self.seconds = later.seconds.or(self.seconds);
    }

    /// Read a "usage" value; one that is no object counts nothing.
    pub fn read(cursor: &mut Cursor<'_>, dialect: Dialect) -> Result<Tally, Fault> {
        let mut tally = Tally::default();
        if cursor.open_object()? {
            while let Some(key) = cursor.next_key()? {
                tally.read_member(cursor, dialect, &key.name())?;
            }
        }
        Ok(tally)
    }

    fn read_member(
        &mut self,
        cursor: &mut Cursor<'_>,
        dialect: Dialect,
        key: &str,
    ) -> Result<(), Fault> {
        use Dialect::{Chat, Messages, Responses};
        match (dialect, key) {
            (Chat, "prompt_tokens") | (Responses | Messages, "input_tokens") => {
                self.prompt = cursor.take_count()?
            }
            (Chat, "completion_tokens") | (Responses | Messages, "output_tokens") => {
                self.completion = cursor.take_count()?;
            }
            (Chat, "prompt_tokens_details") | (Responses, "input_tokens_details") => {
                self.cached = detail(cursor, "cached_tokens")?;
            }
            (Chat, "completion_tokens_details") | (Responses, "output_tokens_details") => {
                self.reasoning = detail(cursor, "reasoning_tokens")?;
            }
            (Chat, "seconds") => self.seconds = seconds(cursor)?,
            (Messages, "cache_read_input_tokens") => self.cached = cursor.take_count()?,
            (Messages, "cache_creation_input_tokens") => {
                self.cache_written = cursor.take_count()?
            }
            _ => cursor.skip()?,
        }
        Ok(())
    }
}

/// A length of time; one that cannot be is not told.
pub(super) fn seconds(cursor: &mut Cursor<'_>) -> Result<Option<f64>, Fault> {
    let told = cursor.take_number()?;
    Ok(told.filter(|seconds| seconds.is_finite() && *seconds >= 0.0))
}

fn detail(cursor: &mut Cursor<'_>, name: &str) -> Result<Option<u64>, Fault> {
    let mut count = None;
    if cursor.open_object()? {
        while let Some(key) = cursor.next_key()? {
            if key.name() == name {
                count = cursor.take_count()?
            } else {
                cursor.skip()?
            }
        }
    }
    Ok(count)
}
