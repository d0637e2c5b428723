//! Any split of a stream gives the same, and what goes on is the stream or a part of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::reply::UsageRemover;

fn run<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut remover = UsageRemover::new();
    let mut passed = Vec::new();
    for piece in pieces {
        passed.extend_from_slice(&remover.feed(piece));
    }
    passed.extend(remover.finish());
    passed
}

fn is_part(part: &[u8], whole: &[u8]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|byte| rest.any(|other| other == byte))
}

fuzz_target!(|input: (u16, &[u8])| {
    let (split, body) = input;
    let (head, tail) = body.split_at(usize::from(split).min(body.len()));
    let whole = run([body].into_iter());
    assert_eq!(run([head, tail].into_iter()), whole);
    assert_eq!(run(body.chunks(1)), whole);
    assert_eq!(run(body.chunks(usize::from(split % 64) + 2)), whole);
    assert!(is_part(&whole, body));
    assert!(whole == body || body.windows(5).any(|word| word == b"usage") || body.contains(&b'\\'));
});
