//! A client's request head, read once: strictness, the facts routing needs, and the lines a backend gets.
//!
//! Lines that go to the backend are copied at reading, in their final form, so that an attempt only joins pieces,
//! and a repeated attempt does not read anything again.

use std::borrow::Cow;

use super::caller::Caller;
use super::field::{LengthError, elements, is_token, length, splits_lines};
use super::framing_line::FramingLine;
use super::host::is_valid_host;
use super::media::Media;

/// Which of the lines worth keeping by themselves a line is; each is said once, for the first of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Host,
    Origin,
    ContentType,
    RequestId,
    AdminKey,
    UserAgent,
}

#[derive(Debug, Default)]
pub struct RequestHead {
    problem: Option<&'static str>,
    media: Media,
    content_length: Option<u64>,
    lengths: u32,
    hosts: u32,
    transfer_codings: u32,
    has_origin: bool,
    has_request_id: bool,
    has_admin_key: bool,
    has_user_agent: bool,
    /// In a box: heads are moved about, and many have none of it.
    caller: Option<Box<Caller>>,
    /// What the backend gets: whole lines, each ended by CRLF.
    lines: Vec<u8>,
    /// Names that Connection lists, beyond those that are never passed on.
    listed: Vec<Box<[u8]>>,
}

enum Name {
    Host,
    Origin,
    ContentType,
    RequestId,
    ContentLength,
    TransferEncoding,
    Connection,
    Authorization,
    /// X-API-Key or api-key.
    ApiKey,
    AdminKey,
    ForwardedFor,
    UserAgent,
    /// Hop by hop, Expect, which the server under us has answered, or X-Penstock-Explain, which is asked of us.
    Dropped,
    Other,
}

impl Name {
    /// ASGI names are lower-case already; other callers' need not be.
    fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::Dropped,
            4 if is(b"host") => Self::Host,
            6 if is(b"origin") => Self::Origin,
            6 if is(b"expect") => Self::Dropped,
            7 if is(b"trailer") || is(b"upgrade") => Self::Dropped,
            7 if is(b"api-key") => Self::ApiKey,
            9 if is(b"x-api-key") => Self::ApiKey,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::Dropped,
            10 if is(b"user-agent") => Self::UserAgent,
            11 if is(b"x-admin-key") => Self::AdminKey,
            12 if is(b"content-type") => Self::ContentType,
            12 if is(b"x-request-id") => Self::RequestId,
            13 if is(b"authorization") => Self::Authorization,
            14 if is(b"content-length") => Self::ContentLength,
            15 if is(b"x-forwarded-for") => Self::ForwardedFor,
            16 if is(b"proxy-connection") => Self::Dropped,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            18 if is(b"proxy-authenticate") || is(b"x-penstock-explain") => Self::Dropped,
            19 if is(b"proxy-authorization") => Self::Dropped,
            _ => Self::Other,
        }
    }

    /// Whatever Connection says of it, the backend does not get it.
    fn is_kept_back(&self) -> bool {
        matches!(
            self,
            Self::Dropped | Self::Authorization | Self::ApiKey | Self::AdminKey
        )
    }
}

impl RequestHead {
    pub fn new() -> Self {
        // Browsers and SDKs send 300 to 500 bytes of header lines.
        Self {
            lines: Vec::with_capacity(512),
            ..Self::default()
        }
    }

    /// Read the next line; afterwards `finish`.
    pub fn line(&mut self, name: &[u8], value: &[u8]) -> Option<Kept> {
        if splits_lines(value) {
            self.broken("a header value has a CR, LF or NUL byte in it");
            return None;
        }
        match Name::of(name) {
            Name::Other => self.pass(name, value),
            Name::Dropped => {}
            Name::Host => return self.host(value),
            Name::Connection => self.connection(value),
            Name::ContentLength => self.length(value),
            Name::TransferEncoding => self.transfer_encoding(value),
            Name::ContentType => {
                self.pass(name, value);
                if self.media == Media::None {
                    self.media = Media::of(value);
                    return Some(Kept::ContentType);
                }
            }
            Name::Origin => {
                self.pass(name, value);
                if !std::mem::replace(&mut self.has_origin, true) {
                    return Some(Kept::Origin);
                }
                self.broken("more than one Origin header");
            }
            Name::RequestId => {
                self.pass(name, value);
                if !std::mem::replace(&mut self.has_request_id, true) {
                    return Some(Kept::RequestId);
                }
            }
            Name::UserAgent => {
                self.pass(name, value);
                if !std::mem::replace(&mut self.has_user_agent, true) {
                    return Some(Kept::UserAgent);
                }
            }
            Name::ForwardedFor => {
                self.pass(name, value);
                self.caller().forwarded(value);
            }
            Name::Authorization => self.caller().authorization(value),
            Name::ApiKey => self.caller().key(value),
            Name::AdminKey => {
                if !std::mem::replace(&mut self.has_admin_key, true) {
                    return Some(Kept::AdminKey);
                }
            }
        }
        None
    }

    /// All lines are read: the rules that need the whole head.
    pub fn finish(&mut self) {
        if self.hosts == 0 {
            self.broken("missing Host header");
        }
        if self.lengths > 0 && self.transfer_codings > 0 {
            self.broken("both Content-Length and Transfer-Encoding");
        }
        if !self.listed.is_empty() {
            self.drop_listed();
        }
    }

    /// The first broken rule, in words for the caller of the API.
    pub fn problem(&self) -> Option<&'static str> {
        self.problem
    }

    pub fn media(&self) -> Media {
        self.media
    }

    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    pub fn has_body(&self) -> bool {
        self.transfer_codings > 0 || self.content_length.is_some_and(|length| length > 0)
    }

    /// The first API key of Authorization (Bearer), X-API-Key and api-key.
    pub fn api_key(&self) -> Option<&[u8]> {
        self.caller.as_ref()?.api_key()
    }

    /// Two of those lines give different keys.
    pub fn api_keys_disagree(&self) -> bool {
        self.caller
            .as_ref()
            .is_some_and(|caller| caller.api_keys_disagree())
    }

    /// All X-Forwarded-For lines as one list.
    pub fn forwarded_for(&self) -> Option<&[u8]> {
        self.caller.as_ref()?.forwarded_for()
    }

    pub(super) fn is_chunked(&self) -> bool {
        self.transfer_codings > 0
    }

    /// The lines that a backend gets, each ended by CRLF. identity: one that asks for no coding of the answer stands
    /// for what the client accepts.
    pub fn lines(&self, identity: bool) -> Cow<'_, [u8]> {
        if !identity {
            return Cow::Borrowed(&self.lines);
        }
        let mut lines = without(&self.lines, |name| {
            name.eq_ignore_ascii_case(b"accept-encoding")
        });
        lines.extend_from_slice(b"accept-encoding: identity\r\n");
        Cow::Owned(lines)
    }

    fn broken(&mut self, rule: &'static str) {
        self.problem.get_or_insert(rule);
    }

    fn pass(&mut self, name: &[u8], value: &[u8]) {
        if !is_token(name) {
            return self.broken("a header name has a byte in it that names cannot have");
        }
        self.lines.reserve(name.len() + value.len() + 4);
        self.lines.extend_from_slice(name);
        self.lines.extend_from_slice(b": ");
        self.lines.extend_from_slice(value);
        self.lines.extend_from_slice(b"\r\n");
    }

    fn caller(&mut self) -> &mut Caller {
        self.caller.get_or_insert_default()
    }

    fn host(&mut self, value: &[u8]) -> Option<Kept> {
        self.hosts += 1;
        if self.hosts > 1 {
            self.broken("more than one Host header");
            return None;
        }
        if !is_valid_host(value) {
            self.broken("Host is not a valid host[:port]");
        }
        Some(Kept::Host)
    }

    fn length(&mut self, value: &[u8]) {
        self.lengths += 1;
        if self.lengths > 1 {
            return self.broken("more than one Content-Length");
        }
        match length(value) {
            Ok(length) => self.content_length = Some(length),
            Err(LengthError::NotANumber) => self.broken("Content-Length is not a number"),
            Err(LengthError::TooLarge) => self.broken("Content-Length is too large"),
        }
    }

    fn transfer_encoding(&mut self, value: &[u8]) {
        self.transfer_codings += 1;
        if self.transfer_codings > 1 || !value.eq_ignore_ascii_case(b"chunked") {
            self.broken("unsupported Transfer-Encoding");
        }
    }

    fn connection(&mut self, value: &[u8]) {
        // Nearly every head with a Connection line has one of these two, and neither names a header of its own.
        if value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close") {
            return;
        }
        let names =
            elements(value).filter(|name| !name.is_empty() && !Name::of(name).is_kept_back());
        self.listed.extend(names.map(Box::from));
    }

    /// A Connection line may stand after the lines it lists, so they are taken out again. Rare.
    fn drop_listed(&mut self) {
        self.lines = without(&self.lines, |name| {
            let mut listed = self.listed.iter();
            listed.any(|listed| listed.eq_ignore_ascii_case(name))
        });
    }
}

/// The request for a backend, in pieces to be written one after the other.
pub fn pieces<'a>(
    start: &'a [u8],
    lines: &'a [u8],
    framing: &'a FramingLine,
    body: &'a [u8],
) -> [&'a [u8]; 5] {
    [start, lines, framing.as_bytes(), b"\r\n", body]
}

/// The lines whose names are not left out.
fn without(lines: &[u8], left_out: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    // Room for a line more.
    let mut kept = Vec::with_capacity(lines.len() + 32);
    let mut rest = lines;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, behind) = rest.split_at_checked(end + 1).unwrap_or((rest, b""));
        let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon));
        if !left_out(name.unwrap_or_default()) {
            kept.extend_from_slice(line);
        }
        rest = behind;
    }
    kept
}
