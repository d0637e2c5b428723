//! cache_key: the verdict of peek, and the same key for a body with white space around and between its tokens.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::cache::cache_key;
use penstock_ext::json::peek;

fuzz_target!(|body: &[u8]| {
    let key = cache_key(body, b"scope", b"model");
    match peek(body) {
        Ok(_) => assert_eq!(key.ok(), cache_key(&spaced(body), b"scope", b"model").ok()),
        Err(error) => assert_eq!(key.err(), Some(error)),
    }
});

/// White space at both sides of all that stands outside strings and is no part of a word or number.
fn spaced(body: &[u8]) -> Vec<u8> {
    let (mut out, mut inside, mut escaped) = (Vec::new(), false, false);
    for &byte in body {
        let alone = !inside && b"{}[]:,".contains(&byte);
        if alone {
            out.extend([b' ', byte, b'\n']);
        } else {
            out.push(byte);
        }
        match byte {
            b'"' if !escaped => inside = !inside,
            b'\\' if inside => {
                escaped = !escaped;
                continue;
            }
            _ => {}
        }
        escaped = false;
    }
    out
}
