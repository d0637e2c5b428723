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

#[cfg(test)]
mod tests {
    use super::{COMMON_NAMES, common_name};

    #[test]
    fn each_is_found_where_it_stands() {
        for (index, name) in COMMON_NAMES.iter().enumerate() {
            assert_eq!(common_name(name), Some(index));
        }
        assert_eq!(common_name(b"dart"), None);
        assert_eq!(common_name(b""), None);
    }
}
