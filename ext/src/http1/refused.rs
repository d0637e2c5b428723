//! Why a client's request is not served, and the status that says so.

/// The request is not read further, and neither is the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The HTTP status to answer.
    pub status: u16,
    /// Words for the caller.
    pub text: String,
}

impl Refused {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// What httparse said of `input`.
    pub(super) fn by_parser(error: httparse::Error, input: &[u8], max_lines: usize) -> Self {
        let text = match error {
            httparse::Error::TooManyHeaders => {
                return Self::new(431, format!("more than {max_lines} header lines"));
            }
            httparse::Error::Version => return bad_version(input),
            httparse::Error::HeaderName => "invalid header name",
            httparse::Error::HeaderValue => "invalid header value",
            httparse::Error::NewLine => "invalid line end",
            httparse::Error::Token | httparse::Error::Status => "invalid request line",
        };
        Self::new(400, text)
    }
}

fn bad_version(input: &[u8]) -> Refused {
    if input.starts_with(b"PRI * HTTP/2.0\r\n") {
        return Refused::new(505, "HTTP/2 is served over TLS only");
    }
    let line = input.split(|&byte| byte == b'\n').next();
    let line = line.unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.split(|&byte| byte == b' ').skip(2);
    match (parts.next(), parts.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Refused::new(505, "only HTTP/1.1 and HTTP/1.0 are served here")
        }
        _ => Refused::new(400, "invalid request line"),
    }
}
