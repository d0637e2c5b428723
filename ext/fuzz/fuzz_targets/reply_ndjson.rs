//! Any split of an NDJSON stream gives the same facts; a line with a fact in it is found like a whole answer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::reply::{Dialect, REPLY_COMPLETE, ReplyScanner, Usage, scan_answer};

type Facts = (u8, Option<Usage>, Option<String>);

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Facts {
    let mut scanner = ReplyScanner::new(Dialect::Ollama);
    for piece in pieces {
        scanner.feed(piece);
    }
    let flags = scanner.finish();
    (
        flags,
        scanner.usage(),
        scanner.finish_reason().map(str::to_owned),
    )
}

fuzz_target!(|input: (u16, &[u8])| {
    let (split, body) = input;
    let (head, tail) = body.split_at(usize::from(split).min(body.len()));
    let whole = scan([body].into_iter());
    assert_eq!(scan([head, tail].into_iter()), whole);
    assert_eq!(scan(body.chunks(1)), whole);
    assert_eq!(scan(body.chunks(usize::from(split % 64) + 2)), whole);
    if whole.0 & REPLY_COMPLETE != 0 {
        let answers = body
            .split(|&byte| byte == b'\n')
            .filter_map(|line| scan_answer(line, Dialect::Ollama));
        let mut same =
            answers.filter(|answer| (answer.usage, &answer.finish_reason) == (whole.1, &whole.2));
        assert!(same.any(|answer| answer.complete));
    }
});
