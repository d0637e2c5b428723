//! Any split of an event stream gives the same facts, and flags are never taken back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::reply::{Dialect, ReplyScanner, Usage, scan_answer};

type Facts = (u8, Option<Usage>, Option<String>);

fn scan<'a>(pieces: impl Iterator<Item = &'a [u8]>, dialect: Dialect) -> Facts {
    let mut scanner = ReplyScanner::new(dialect);
    let mut flags = 0;
    for piece in pieces {
        let later = scanner.feed(piece);
        assert_eq!(later & flags, flags);
        flags = later;
    }
    let last = scanner.finish();
    assert_eq!(last & flags, flags);
    (
        last,
        scanner.usage(),
        scanner.finish_reason().map(str::to_owned),
    )
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (number, split, body) = input;
    let dialect = [Dialect::Chat, Dialect::Responses, Dialect::Messages][usize::from(number % 3)];
    let (head, tail) = body.split_at(usize::from(split).min(body.len()));
    let whole = scan([body].into_iter(), dialect);
    assert_eq!(scan([head, tail].into_iter(), dialect), whole);
    assert_eq!(scan(body.chunks(1), dialect), whole);
    assert_eq!(
        scan(body.chunks(usize::from(split % 64) + 2), dialect),
        whole
    );
    scan_answer(body, dialect);
});
