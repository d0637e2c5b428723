//! A field found lies within the body, ends at a whole delimiter, and does not move when more bytes come.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::multipart::multipart_field;

const FORM: &[u8] = b"multipart/form-data; boundary=XX";

/// Two dashes, or padding and a line end.
fn ends_a_delimiter(rest: &[u8]) -> bool {
    let padding = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
    rest.starts_with(b"--") || rest[padding..].starts_with(b"\r\n")
}

fn check_place(body: &[u8], start: usize, end: usize) {
    assert!(body[..start].ends_with(b"\r\n"));
    let after = body[end..].strip_prefix(b"\r\n").unwrap_or(&body[end..]);
    assert!(after.strip_prefix(b"--XX").is_some_and(ends_a_delimiter));
}

fuzz_target!(|input: (u16, &[u8], &[u8])| {
    let (cut, content_type, body) = input;
    multipart_field(body, content_type, b"model");
    let whole = multipart_field(body, FORM, b"m");
    if let Some(value) = &whole {
        check_place(body, value.start, value.end);
    }
    let prefix = &body[..usize::from(cut) % (body.len() + 1)];
    if let Some(early) = multipart_field(prefix, FORM, b"m") {
        assert_eq!(Some(early), whole);
    }
});
