//! The access log's line of a request, as JSON. The field names are those of docs; facts that are absent are left out.

use crate::json::write::{
    push_float, push_fraction, push_integer, push_latin1, push_rounded, push_string,
};
use crate::shared;

/// Times are in s of one clock; texts of a request that are bytes are Latin-1.
#[derive(Clone, Copy, Debug)]
pub struct AccessLine<'a> {
    pub timestamp: &'a str,
    pub level: &'a str,
    pub request_id: &'a [u8],
    pub method: &'a str,
    pub path: &'a [u8],
    pub route: &'a str,
    pub status: i64,
    pub started: f64,
    pub ended: f64,
    /// 0: there was none.
    pub first_byte: f64,
    pub ip: &'a str,
    pub user_agent: &'a [u8],
    pub key_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub tenant_id: Option<&'a str>,
    pub model: Option<&'a str>,
    pub backend: Option<&'a str>,
    pub attempts: i64,
    pub prompt_tokens: Option<i64>,
    pub completion_tokens: Option<i64>,
    /// 0: it cost nothing, or nobody knows.
    pub cost_nano: i64,
    pub fault: Option<&'a str>,
    pub error: Option<&'a str>,
    pub detail: Option<&'a str>,
}

impl AccessLine<'_> {
    /// The line, LF at its end.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(768);
        self.encode_into(&mut out);
        out
    }

    /// Appends the line, LF at its end.
    pub fn encode_into(&self, to: &mut Vec<u8>) {
        text(to, b"{\"timestamp\":", self.timestamp);
        text(to, b",\"level\":", self.level);
        to.extend_from_slice(b",\"message\":\"request\",\"service\":\"penstock\",\"requestId\":");
        push_latin1(to, self.request_id);
        text(to, b",\"method\":", self.method);
        to.extend_from_slice(b",\"url\":");
        push_latin1(to, self.path);
        text(to, b",\"route\":", self.route);
        to.extend_from_slice(b",\"status\":");
        push_integer(to, self.status);
        to.extend_from_slice(b",\"duration\":");
        push_rounded(to, (self.ended - self.started) * 1000.0);
        text(to, b",\"ip\":", self.ip);
        to.extend_from_slice(b",\"userAgent\":");
        push_latin1(to, self.user_agent);
        if self.first_byte != 0.0 {
            to.extend_from_slice(b",\"firstByte\":");
            push_rounded(to, (self.first_byte - self.started) * 1000.0);
        }
        for (name, value) in [
            (b",\"keyId\":".as_slice(), self.key_id),
            (b",\"userId\":", self.user_id),
            (b",\"tenantId\":", self.tenant_id),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                text(to, name, value);
            }
        }
        if let Some(model) = self.model {
            text(to, b",\"model\":", model);
        }
        if let Some(backend) = self.backend.filter(|backend| !backend.is_empty()) {
            text(to, b",\"backend\":", backend);
            integer(to, b",\"attempts\":", self.attempts);
        }
        if let Some(count) = self.prompt_tokens {
            integer(to, b",\"promptTokens\":", count);
        }
        if let Some(count) = self.completion_tokens {
            integer(to, b",\"completionTokens\":", count);
        }
        if self.cost_nano != 0 {
            self.cost(to);
        }
        for (name, value) in [
            (b",\"fault\":".as_slice(), self.fault),
            (b",\"error\":", self.error),
            (b",\"detail\":", self.detail),
        ] {
            if let Some(value) = value {
                text(to, name, value);
            }
        }
        to.extend_from_slice(b"}\n");
    }

    fn cost(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(b",\"costUsd\":");
        match u64::try_from(self.cost_nano) {
            // Up to here a float holds it, and the digits say just the float that the division gives.
            Ok(nano) if nano < 1 << 53 => push_fraction::<9>(to, nano),
            _ => push_float(to, self.cost_nano as f64 / 1e9),
        }
    }
}

/// A time of the wall clock as the log writes it; what did not change since the last one is kept.
#[derive(Debug, Default)]
pub struct Stamp {
    ms: u64,
    /// "YYYY-MM-DDTHH:MM:SS.mmmZ" in UTC.
    text: String,
}

impl Stamp {
    pub fn at(&mut self, wall_ns: u64) -> &str {
        let ms = wall_ns / 1_000_000;
        if ms != self.ms || self.text.is_empty() {
            if ms / 1000 != self.ms / 1000 || self.text.is_empty() {
                self.text = shared::text(wall_ns).replacen(' ', "T", 1);
                self.text.push('Z');
            } else {
                let digit = |power: u64| char::from(b'0' + (ms / power % 10) as u8);
                self.text.truncate(self.text.len() - 4);
                self.text.extend([digit(100), digit(10), digit(1), 'Z']);
            }
            self.ms = ms;
        }
        &self.text
    }
}

#[inline]
fn text(to: &mut Vec<u8>, name: &[u8], value: &str) {
    to.extend_from_slice(name);
    push_string(to, value);
}

#[inline]
fn integer(to: &mut Vec<u8>, name: &[u8], value: i64) {
    to.extend_from_slice(name);
    push_integer(to, value);
}
