//! Any names and values: no panic, and a backend sees exactly the lines that were passed on.
//!
//! The input is names and values in turn, each ended by a 0xff byte, which neither can gain anything from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::http1::{FramingLine, RequestHead};

fuzz_target!(|input: &[u8]| {
    let mut head = RequestHead::new();
    let mut count = 0;
    let mut texts = input.split(|&byte| byte == 0xff);
    while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
        head.line(name, value);
        count += 1;
    }
    head.finish();
    let Some(framing) = FramingLine::new(-1) else {
        return;
    };
    let text = head.pieces(b"", &framing, b"").concat();
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    assert!(lines.len() <= count + 2);
    for line in lines.iter().take(lines.len() - 2) {
        assert_eq!(line.last(), Some(&b'\r'));
        assert!(line.contains(&b':'));
        assert_eq!(
            line.iter().filter(|byte| matches!(byte, b'\r' | 0)).count(),
            1
        );
    }
});
