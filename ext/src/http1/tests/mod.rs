//! Tests of the leaf as a whole. The Python twin in `tests/oracle/http1.py` says the same once more.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod request;
mod response;
mod server;
mod splits;

use super::{End, ProtocolError, ResponseParser};

/// All that one response came to.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    status: u16,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    end: End,
}

/// Feed the pieces, then close.
fn run(pieces: &[&[u8]], head_request: bool) -> Result<Outcome, ProtocolError> {
    let mut parser = ResponseParser::new(4096);
    parser.expect(head_request);
    let mut outcome = Outcome {
        status: 0,
        lines: Vec::new(),
        body: Vec::new(),
        end: End::Open,
    };
    let mut pieces = pieces.iter();
    for piece in pieces.by_ref() {
        let fed = parser.feed(piece)?;
        if let Some(head) = fed.head {
            assert_eq!(outcome.status, 0, "a second head");
            outcome.status = head.status;
            outcome.lines = head
                .lines()
                .map(|(n, v)| (n.to_vec(), v.to_vec()))
                .collect();
        }
        fed.body
            .parts(piece)
            .for_each(|part| outcome.body.extend_from_slice(part));
        outcome.end = fed.end;
        if fed.end != End::Open {
            break;
        }
    }
    if matches!(outcome.end, End::Open | End::Broken) {
        outcome.end = parser.feed_eof()?;
    } else if pieces.any(|piece| !piece.is_empty()) {
        // In one piece these would have been bytes after the end.
        outcome.end = End::DoneClose;
    }
    Ok(outcome)
}

fn error(input: &[u8]) -> String {
    match run(&[input], false) {
        Ok(outcome) => {
            let begin = &input[..input.len().min(200)];
            panic!("{} was taken: {outcome:?}", begin.escape_ascii())
        }
        Err(error) => error.to_string(),
    }
}
