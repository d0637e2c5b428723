//! Random responses, split anywhere, give the same as in one piece; random bytes give an answer, never a panic.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::run;
use crate::http1::ResponseParser;

fn chunked_body() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..40),
        select(vec!["", ";a=b", " ", ";q=\"x y\""]),
    );
    let trailers = select(vec!["", "x: y\r\n", "a: 1\r\nb: 2\r\n"]);
    (prop::collection::vec(chunk, 0..6), trailers).prop_map(|(chunks, trailers)| {
        let mut body = Vec::new();
        for (payload, extension) in chunks {
            body.extend_from_slice(format!("{:x}{extension}\r\n", payload.len()).as_bytes());
            body.extend_from_slice(&payload);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        body
    })
}

fn framed_body() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::collection::vec(any::<u8>(), 0..100);
    prop_oneof![
        plain.clone().prop_map(|body| [
            format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(),
            &body
        ]
        .concat()),
        plain.prop_map(|body| [b"\r\n", body.as_slice()].concat()),
        chunked_body()
            .prop_map(|body| [b"Transfer-Encoding: chunked\r\n\r\n", body.as_slice()].concat()),
    ]
}

fn response() -> impl Strategy<Value = Vec<u8>> {
    let interim = select(vec![
        "",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 x\r\na: b\r\n\r\nHTTP/1.1 100\n\n",
    ]);
    let start = select(vec![
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK",
        "HTTP/1.1 204",
        "HTTP/1.1 500 ",
    ]);
    let lines = prop::collection::vec(
        select(vec![
            "Server: x",
            "X-A:\t1 ",
            "Connection: close",
            "Connection: x-a",
            "x-a: 2",
        ]),
        0..4,
    );
    let line_end = select(vec!["\r\n", "\n"]);
    (
        interim,
        start,
        lines,
        line_end,
        framed_body(),
        select(vec!["", "", "junk"]),
    )
        .prop_map(|(interim, start, lines, line_end, body, after)| {
            let head: String = [start]
                .iter()
                .chain(&lines)
                .flat_map(|line| [*line, line_end])
                .collect();
            [interim.as_bytes(), head.as_bytes(), &body, after.as_bytes()].concat()
        })
}

pub(super) fn cut<'a>(input: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
    places.extend([0, input.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &input[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #[test]
    fn any_split_gives_the_same(
        input in response(),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
        head_request in prop::bool::weighted(0.1),
    ) {
        let mut input = input;
        for (place, byte) in flips {
            let place = place.index(input.len());
            input[place] = byte;
        }
        let whole = run(&[&input], head_request).ok();
        prop_assert_eq!(&run(&cut(&input, &cuts), head_request).ok(), &whole);
        let single: Vec<_> = input.chunks(1).collect();
        prop_assert_eq!(&run(&single, head_request).ok(), &whole);
    }

    #[test]
    fn unharmed_responses_are_taken(input in response()) {
        prop_assert!(run(&[&input], false).is_ok());
    }

    #[test]
    fn soup_never_panics(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..10)) {
        let mut parser = ResponseParser::new(64);
        parser.expect(false);
        let _ = parser.feed(b"HTTP/1.1 200 \r\ntransfer-encoding:chunked\r\n\r\n");
        for piece in &pieces {
            let _ = parser.feed(piece);
        }
        let _ = parser.feed_eof();
    }
}
