//! A backend's response head: parsed by httparse, reduced to what a proxy passes on and acts on.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::error::ProtocolError;
use super::field::{LengthError, elements, length};
use super::media::Media;

/// Servers send 5 to 15; the array of this size is on the stack and not initialised.
const MAX_LINES: usize = 256;

#[derive(Debug)]
pub struct ResponseHead {
    pub status: u16,
    pub media: Media,
    /// The declared length, also where no body follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// A Content-Encoding other than identity.
    pub encoded: bool,
    pub(super) chunked: bool,
    /// Connection: close, or HTTP/1.0, whose keep-alive nobody agreed on.
    pub(super) closes: bool,
    bytes: Vec<u8>,
    lines: Vec<Line>,
    retry_after: Option<Range<usize>>,
    pub marks: Marks,
}

/// Lines that a proxy may have its own of: whether they are among those passed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Marks {
    pub date: bool,
    pub request_id: bool,
    /// Any Access-Control-*.
    pub cors: bool,
    /// X-RateLimit-Limit, -Remaining or -Reset, RateLimit or RateLimit-Policy.
    pub rate_limits: bool,
}

impl Marks {
    fn see(&mut self, name: &Name) {
        match name {
            Name::Date => self.date = true,
            Name::RequestId => self.request_id = true,
            Name::Cors => self.cors = true,
            Name::RateLimit => self.rate_limits = true,
            _ => {}
        }
    }
}

#[derive(Debug)]
struct Line {
    name: Range<usize>,
    value: Range<usize>,
}

/// What the first bytes of a response are.
pub(super) enum Parsed {
    Partial,
    /// A 1xx head of this length.
    Interim(usize),
    /// A final head of this length.
    Final(ResponseHead, usize),
}

#[derive(PartialEq)]
enum Name {
    ContentLength,
    TransferEncoding,
    Connection,
    HopByHop,
    ContentType,
    ContentEncoding,
    RetryAfter,
    Date,
    RequestId,
    Cors,
    RateLimit,
    Other,
}

impl Name {
    fn of(lower: &[u8]) -> Self {
        match lower.len() {
            2 if lower == b"te" => Self::HopByHop,
            4 if lower == b"date" => Self::Date,
            7 if lower == b"trailer" || lower == b"upgrade" => Self::HopByHop,
            9 if lower == b"ratelimit" => Self::RateLimit,
            10 if lower == b"connection" => Self::Connection,
            10 if lower == b"keep-alive" => Self::HopByHop,
            11 if lower == b"retry-after" => Self::RetryAfter,
            12 if lower == b"content-type" => Self::ContentType,
            12 if lower == b"x-request-id" => Self::RequestId,
            14 if lower == b"content-length" => Self::ContentLength,
            16 if lower == b"content-encoding" => Self::ContentEncoding,
            16 if lower == b"proxy-connection" => Self::HopByHop,
            16 if lower == b"ratelimit-policy" => Self::RateLimit,
            17 if lower == b"x-ratelimit-limit" || lower == b"x-ratelimit-reset" => Self::RateLimit,
            17 if lower == b"transfer-encoding" => Self::TransferEncoding,
            18 if lower == b"proxy-authenticate" => Self::HopByHop,
            19 if lower == b"proxy-authorization" => Self::HopByHop,
            21 if lower == b"x-ratelimit-remaining" => Self::RateLimit,
            _ if lower.starts_with(b"access-control-") => Self::Cors,
            _ => Self::Other,
        }
    }
}

/// Read the head that `input` begins with; what follows it in `input` is not looked at.
pub(super) fn parse(input: &[u8]) -> Result<Parsed, ProtocolError> {
    if matches!(input.first(), Some(b'\r' | b'\n')) {
        // httparse would skip empty lines, which only servers should (RFC 9112 §2.2).
        return Err(ProtocolError::NotHttp("an empty line before it"));
    }
    let mut place = [const { MaybeUninit::uninit() }; MAX_LINES];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        &mut place,
    );
    let end = match parsed {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(Parsed::Partial),
        Err(error) => return Err(ProtocolError::NotHttp(words(error))),
    };
    match response.code.unwrap_or_default() {
        101 => Err(ProtocolError::SwitchingProtocols),
        100..=199 => Ok(Parsed::Interim(end)),
        200.. => {
            let head = ResponseHead::read(input.get(..end).unwrap_or_default(), &response)?;
            Ok(Parsed::Final(head, end))
        }
        _ => Err(ProtocolError::NotHttp("a status below 100")),
    }
}

fn words(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "invalid header name",
        httparse::Error::HeaderValue => "invalid header value",
        httparse::Error::NewLine => "invalid line end",
        httparse::Error::Status => "invalid status line",
        httparse::Error::Token => "invalid token",
        httparse::Error::TooManyHeaders => "over 256 header lines",
        httparse::Error::Version => "invalid version",
    }
}

impl ResponseHead {
    /// Lower-case names and values, in order, without the lines that are for this connection only.
    pub fn lines(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.lines
            .iter()
            .map(|line| (self.text(&line.name), self.text(&line.value)))
    }

    pub fn retry_after(&self) -> Option<&[u8]> {
        self.retry_after.as_ref().map(|range| self.text(range))
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    fn read(input: &[u8], response: &httparse::Response<'_, '_>) -> Result<Self, ProtocolError> {
        let mut head = Self {
            status: response.code.unwrap_or_default(),
            media: Media::None,
            content_length: None,
            encoded: false,
            chunked: false,
            closes: response.version == Some(0),
            bytes: input.to_vec(),
            lines: Vec::with_capacity(response.headers.len()),
            retry_after: None,
            marks: Marks::default(),
        };
        let mut listed = Vec::new();
        for header in response.headers.iter() {
            head.line(
                position(input, header.name.as_bytes()),
                position(input, header.value),
                header.value,
                &mut listed,
            )?;
        }
        if !listed.is_empty() {
            head.drop_listed(&listed);
        }
        if head.chunked && head.content_length.is_some() {
            return Err(ProtocolError::Framing(
                "both Content-Length and Transfer-Encoding",
            ));
        }
        Ok(head)
    }

    fn line<'a>(
        &mut self,
        name: Range<usize>,
        place: Range<usize>,
        value: &'a [u8],
        listed: &mut Vec<&'a [u8]>,
    ) -> Result<(), ProtocolError> {
        let lower = self.bytes.get_mut(name.clone()).unwrap_or_default();
        lower.make_ascii_lowercase();
        let known = Name::of(lower);
        match known {
            Name::HopByHop => return Ok(()),
            Name::TransferEncoding => return self.transfer_encoding(value),
            Name::Connection => {
                self.connection(value, listed);
                return Ok(());
            }
            Name::ContentLength => self.length(value)?,
            Name::ContentType if self.media == Media::None => self.media = Media::of(value),
            Name::ContentEncoding => {
                self.encoded |= elements(value)
                    .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"));
            }
            Name::RetryAfter if self.retry_after.is_none() => {
                self.retry_after = Some(place.clone())
            }
            _ => self.marks.see(&known),
        }
        self.lines.push(Line { name, value: place });
        Ok(())
    }

    /// RFC 9110 §8.6: a list of equal lengths, in one line or several, is what some intermediary made of one.
    fn length(&mut self, value: &[u8]) -> Result<(), ProtocolError> {
        for element in elements(value) {
            let declared = length(element).map_err(|error| {
                ProtocolError::Framing(match error {
                    LengthError::NotANumber => "Content-Length is not a number",
                    LengthError::TooLarge => "Content-Length is too large",
                })
            })?;
            if self
                .content_length
                .replace(declared)
                .is_some_and(|before| before != declared)
            {
                return Err(ProtocolError::Framing("differing Content-Length values"));
            }
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), ProtocolError> {
        if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(ProtocolError::Framing(
                "Transfer-Encoding is not just chunked",
            ));
        }
        Ok(())
    }

    fn connection<'a>(&mut self, value: &'a [u8], listed: &mut Vec<&'a [u8]>) {
        for option in elements(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if !option.is_empty() && !option.eq_ignore_ascii_case(b"keep-alive") {
                listed.push(option);
            }
        }
    }

    /// Content-Length stays even when listed: it says where the body ends, which no hop may unsay.
    fn drop_listed(&mut self, listed: &[&[u8]]) {
        let bytes = &self.bytes;
        let mut marks = Marks::default();
        self.lines.retain(|line| {
            let name = bytes.get(line.name.clone()).unwrap_or_default();
            let stays = name == b"content-length"
                || !listed
                    .iter()
                    .any(|option| option.eq_ignore_ascii_case(name));
            if stays {
                marks.see(&Name::of(name));
            }
            stays
        });
        self.marks = marks;
    }
}

/// Where `part`, a slice of `whole`, stands in it.
fn position(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
    start..start + part.len()
}
