//! Header names that are worth keeping ready: half of the lines of a model server's answer have one.

/// A caller may keep these in its own form, by index.
pub const COMMON_NAMES: [&[u8]; 10] = [
    b"date",
    b"server",
    b"content-type",
    b"content-length",
    b"cache-control",
    b"x-request-id",
    b"vary",
    b"content-encoding",
    b"access-control-allow-origin",
    b"openai-processing-ms",
];

/// Where a lower-case name stands in `COMMON_NAMES`.
pub fn common_name(name: &[u8]) -> Option<usize> {
    let index = match name.len() {
        4 if name == b"date" => 0,
        4 if name == b"vary" => 6,
        6 if name == b"server" => 1,
        12 if name == b"content-type" => 2,
        12 if name == b"x-request-id" => 5,
        13 if name == b"cache-control" => 4,
        14 if name == b"content-length" => 3,
        16 if name == b"content-encoding" => 7,
        20 if name == b"openai-processing-ms" => 9,
        27 if name == b"access-control-allow-origin" => 8,
        _ => return None,
    };
    Some(index)
}

/// The same for what clients of a model server send.
pub const COMMON_REQUEST_NAMES: [&[u8]; 22] = [
    b"host",
    b"accept",
    b"cookie",
    b"origin",
    b"referer",
    b"x-api-key",
    b"connection",
    b"user-agent",
    b"traceparent",
    b"content-type",
    b"x-request-id",
    b"authorization",
    b"content-length",
    b"accept-encoding",
    b"accept-language",
    b"x-forwarded-for",
    b"x-stainless-lang",
    b"transfer-encoding",
    b"anthropic-version",
    b"x-stainless-async",
    b"x-stainless-retry-count",
    b"x-stainless-runtime",
];

/// Where a lower-case name stands in `COMMON_REQUEST_NAMES`.
pub fn common_request_name(name: &[u8]) -> Option<usize> {
    let index = match name.len() {
        4 if name == b"host" => 0,
        6 if name == b"accept" => 1,
        6 if name == b"cookie" => 2,
        6 if name == b"origin" => 3,
        7 if name == b"referer" => 4,
        9 if name == b"x-api-key" => 5,
        10 if name == b"connection" => 6,
        10 if name == b"user-agent" => 7,
        11 if name == b"traceparent" => 8,
        12 if name == b"content-type" => 9,
        12 if name == b"x-request-id" => 10,
        13 if name == b"authorization" => 11,
        14 if name == b"content-length" => 12,
        15 if name == b"accept-encoding" => 13,
        15 if name == b"accept-language" => 14,
        15 if name == b"x-forwarded-for" => 15,
        16 if name == b"x-stainless-lang" => 16,
        17 if name == b"transfer-encoding" => 17,
        17 if name == b"anthropic-version" => 18,
        17 if name == b"x-stainless-async" => 19,
        19 if name == b"x-stainless-runtime" => 21,
        23 if name == b"x-stainless-retry-count" => 20,
        _ => return None,
    };
    Some(index)
}

#[cfg(test)]
mod tests {
    use super::{COMMON_NAMES, COMMON_REQUEST_NAMES, common_name, common_request_name};

    #[test]
    fn each_is_found_where_it_stands() {
        for (index, name) in COMMON_NAMES.iter().enumerate() {
            assert_eq!(common_name(name), Some(index));
        }
        for (index, name) in COMMON_REQUEST_NAMES.iter().enumerate() {
            assert_eq!(common_request_name(name), Some(index));
        }
        assert_eq!(common_request_name(b"hast"), None);
        assert_eq!(common_name(b"dart"), None);
        assert_eq!(common_name(b""), None);
    }
}
