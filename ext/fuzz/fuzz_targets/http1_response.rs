//! Any bytes in any pieces: no panic, and the same answer as in one piece.
//!
//! The input's first byte says whether it answers a HEAD, the second how long the pieces are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::http1::{End, ProtocolError, ResponseParser};

type Outcome = (u16, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>, End);

/// Feed the pieces, then close.
fn run(pieces: &[&[u8]], head_request: bool) -> Result<Outcome, ProtocolError> {
    let mut parser = ResponseParser::new(1024);
    parser.expect(head_request);
    let (mut status, mut lines, mut body, mut end) = (0, Vec::new(), Vec::new(), End::Open);
    let mut pieces = pieces.iter();
    for piece in pieces.by_ref() {
        let fed = parser.feed(piece)?;
        if let Some(head) = fed.head {
            assert_eq!(status, 0, "a second head");
            status = head.status;
            lines = head
                .lines()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect();
        }
        fed.body
            .parts(piece)
            .for_each(|part| body.extend_from_slice(part));
        end = fed.end;
        if end != End::Open {
            break;
        }
    }
    if matches!(end, End::Open | End::Broken) {
        end = parser.feed_eof()?;
    } else if pieces.next().is_some() {
        // In one piece these would have been bytes after the end.
        end = End::DoneClose;
    }
    Ok((status, lines, body, end))
}

fuzz_target!(|input: &[u8]| {
    let [flags, size, data @ ..] = input else {
        return;
    };
    let head_request = flags & 1 == 1;
    let pieces: Vec<&[u8]> = data.chunks(usize::from(*size).max(1)).collect();
    assert_eq!(
        run(&pieces, head_request).ok(),
        run(&[data], head_request).ok()
    );
});
