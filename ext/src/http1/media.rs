//! What kind of body a Content-Type announces, as far as the proxy treats kinds differently.

use super::field::trim;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Media {
    #[default]
    None = 0,
    Other = 1,
    Json = 2,
    EventStream = 3,
    Ndjson = 4,
    Multipart = 5,
}

impl Media {
    /// Type and subtype decide, in any case (RFC 9110 §8.3.1); parameters are not looked at.
    pub fn of(content_type: &[u8]) -> Self {
        let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
        let essence = trim(content_type.get(..end).unwrap_or_default());
        let is = |name: &[u8]| essence.eq_ignore_ascii_case(name);
        match essence.len() {
            16 if is(b"application/json") => Self::Json,
            17 if is(b"text/event-stream") => Self::EventStream,
            19 if is(b"multipart/form-data") => Self::Multipart,
            20 if is(b"application/x-ndjson") => Self::Ndjson,
            _ if has_json_suffix(essence) => Self::Json,
            _ => Self::Other,
        }
    }
}

/// RFC 6839 §3.1: type "/" something "+json".
fn has_json_suffix(essence: &[u8]) -> bool {
    essence
        .split_last_chunk::<5>()
        .is_some_and(|(_, suffix)| suffix.eq_ignore_ascii_case(b"+json"))
        && essence.contains(&b'/')
}

#[cfg(test)]
mod tests {
    use super::Media;

    #[test]
    fn by_type_in_any_case_without_parameters() {
        for (text, media) in [
            ("application/json", Media::Json),
            ("Application/JSON; charset=utf-8", Media::Json),
            ("application/json ;x", Media::Json),
            ("application/problem+json", Media::Json),
            ("text/event-stream", Media::EventStream),
            ("text/event-stream;charset=UTF-8", Media::EventStream),
            ("application/x-ndjson", Media::Ndjson),
            ("multipart/form-data; boundary=+json", Media::Multipart),
            ("text/plain", Media::Other),
            ("application/jsonp", Media::Other),
            ("+json", Media::Other),
            ("", Media::Other),
        ] {
            assert_eq!(Media::of(text.as_bytes()), media, "{text}");
        }
    }
}
