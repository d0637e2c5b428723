//! What one JSON object of an answer says: an event's data, a line, or a whole answer.

use std::borrow::Cow;
use std::str;

use super::Dialect;
use super::usage::{Tally, seconds};
use crate::json::{Cursor, Fault};

/// How an answer ended and what it used, where an object tells both.
#[derive(Debug, Default)]
pub(super) struct Part<'a> {
    pub finish: Option<Cow<'a, str>>,
    pub usage: Tally,
}

#[derive(Debug, Default)]
pub(super) struct Found<'a> {
    pub top: Part<'a>,
    /// Of "response" or "message".
    pub inner: Part<'a>,
    /// Of Anthropic's "delta".
    pub delta: Part<'a>,
    /// There are "choices": the answer is a completion.
    pub has_choices: bool,
    /// A choice has no finish_reason.
    pub open_choice: bool,
    /// "duration", in seconds: a transcription says how much it heard.
    pub duration: Option<f64>,
    /// There is an "error" other than null.
    pub error: bool,
    /// Ollama's "done".
    pub done: Option<bool>,
    /// "type".
    pub kind: Option<Cow<'a, str>>,
}

/// Read an object; None for bytes that are not one.
pub(super) fn read(bytes: &[u8], dialect: Dialect) -> Option<Found<'_>> {
    read_text(str::from_utf8(bytes).ok()?, dialect).ok()
}

fn read_text(text: &str, dialect: Dialect) -> Result<Found<'_>, Fault> {
    let member = match dialect {
        Dialect::Chat => chat_member,
        Dialect::Responses => responses_member,
        Dialect::Messages => messages_member,
        Dialect::Ollama => ollama_member,
    };
    let mut cursor = Cursor::new(text);
    let mut found = Found::default();
    cursor.open_body()?;
    while let Some(key) = cursor.next_key()? {
        member(&mut cursor, &key.name(), &mut found)?;
    }
    cursor.end()?;
    Ok(found)
}

fn chat_member<'a>(cursor: &mut Cursor<'a>, key: &str, found: &mut Found<'a>) -> Result<(), Fault> {
    match key {
        "choices" => choices(cursor, found)?,
        "duration" => found.duration = seconds(cursor)?,
        "usage" => found.top.usage = Tally::read(cursor, Dialect::Chat)?,
        "error" => found.error = cursor.take_presence()?,
        _ => cursor.skip()?,
    }
    Ok(())
}

fn responses_member<'a>(
    cursor: &mut Cursor<'a>,
    key: &str,
    found: &mut Found<'a>,
) -> Result<(), Fault> {
    match key {
        "type" => found.kind = string(cursor)?,
        "response" => found.inner = part(cursor, Dialect::Responses)?,
        _ => part_member(cursor, Dialect::Responses, key, &mut found.top)?,
    }
    Ok(())
}

fn messages_member<'a>(
    cursor: &mut Cursor<'a>,
    key: &str,
    found: &mut Found<'a>,
) -> Result<(), Fault> {
    match key {
        "type" => found.kind = string(cursor)?,
        "message" => found.inner = part(cursor, Dialect::Messages)?,
        "delta" => found.delta = part(cursor, Dialect::Messages)?,
        _ => part_member(cursor, Dialect::Messages, key, &mut found.top)?,
    }
    Ok(())
}

fn ollama_member<'a>(
    cursor: &mut Cursor<'a>,
    key: &str,
    found: &mut Found<'a>,
) -> Result<(), Fault> {
    match key {
        "done" => found.done = cursor.take_bool()?,
        "done_reason" => found.top.finish = string(cursor)?,
        "error" => found.error = cursor.take_presence()?,
        "prompt_eval_count" => found.top.usage.prompt = cursor.take_count()?,
        "eval_count" => found.top.usage.completion = cursor.take_count()?,
        _ => cursor.skip()?,
    }
    Ok(())
}

fn part<'a>(cursor: &mut Cursor<'a>, dialect: Dialect) -> Result<Part<'a>, Fault> {
    let mut part = Part::default();
    if cursor.open_object()? {
        while let Some(key) = cursor.next_key()? {
            part_member(cursor, dialect, &key.name(), &mut part)?;
        }
    }
    Ok(part)
}

fn part_member<'a>(
    cursor: &mut Cursor<'a>,
    dialect: Dialect,
    key: &str,
    part: &mut Part<'a>,
) -> Result<(), Fault> {
    match (dialect, key) {
        (_, "usage") => part.usage = Tally::read(cursor, dialect)?,
        (Dialect::Responses, "status") | (Dialect::Messages, "stop_reason") => {
            part.finish = string(cursor)?
        }
        _ => cursor.skip()?,
    }
    Ok(())
}

fn choices<'a>(cursor: &mut Cursor<'a>, found: &mut Found<'a>) -> Result<(), Fault> {
    found.has_choices = true;
    found.open_choice = false;
    found.top.finish = None;
    if cursor.open_array()? {
        while cursor.next_item()? {
            let finish = choice(cursor)?;
            found.open_choice |= finish.is_none();
            found.top.finish = finish.or(found.top.finish.take());
        }
    }
    Ok(())
}

fn choice<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Cow<'a, str>>, Fault> {
    let mut finish = None;
    if cursor.open_object()? {
        while let Some(key) = cursor.next_key()? {
            if key.name() == "finish_reason" {
                finish = string(cursor)?
            } else {
                cursor.skip()?
            }
        }
    }
    Ok(finish)
}

fn string<'a>(cursor: &mut Cursor<'a>) -> Result<Option<Cow<'a, str>>, Fault> {
    Ok(cursor.take_string()?.and_then(|text| text.decode()))
}
