//! The server side: what is refused and with which status, and that no split of the bytes changes anything.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::splits::cut;
use crate::http1::{FedRequest, Refused, RequestParser};

/// What one request came to.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    method: String,
    path: Vec<u8>,
    query: Vec<u8>,
    lines: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    flags: (bool, bool, bool),
    whole: bool,
}

fn take(seen: &mut Vec<Seen>, fed: &FedRequest, body: &[u8]) {
    if let Some(request) = &fed.request {
        seen.push(Seen {
            method: request.method().to_owned(),
            path: request.path().to_vec(),
            query: request.query().to_vec(),
            lines: request
                .lines()
                .map(|(n, v, _)| (n.to_vec(), v.to_vec()))
                .collect(),
            flags: (request.http10, request.keep_alive, request.expects_continue),
            ..Seen::default()
        });
    }
    if let Some(last) = seen.last_mut() {
        last.body.extend_from_slice(body);
        last.whole |= fed.done;
    }
}

/// All requests in the pieces, each answered at once.
fn run(pieces: &[&[u8]]) -> (Vec<Seen>, Option<Refused>, bool) {
    let mut parser = RequestParser::new(256, 6);
    let mut seen = Vec::new();
    for piece in pieces {
        let mut fed = match parser.feed(piece) {
            Ok(fed) => fed,
            Err(refused) => return (seen, Some(refused), false),
        };
        let mut body = fed.body.parts(piece).collect::<Vec<_>>().concat();
        loop {
            take(&mut seen, &fed, &body);
            if !fed.done {
                break;
            }
            (fed, body) = match parser.next_request() {
                Ok(next) => next,
                Err(refused) => return (seen, Some(refused), false),
            };
        }
    }
    (seen, None, parser.pending())
}

fn status(input: &str) -> Option<u16> {
    run(&[input.as_bytes()]).1.map(|refused| refused.status)
}

#[test]
fn refused_with() {
    for (expected, input) in [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.0\r\n\r\n"),
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n\r\nHost: a\r\n\r\n"),
        (400, "GET /\r\n\r\n"),
        (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / X\r\n\r\n"),
        (501, "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (
            431,
            "GET / HTTP/1.1\r\nHost: a\r\na:\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n",
        ),
        (400, "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        assert_eq!(status(input), Some(expected), "{input}");
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(300));
    assert_eq!(status(&long), Some(431));
    assert_eq!(status(&"a".repeat(256)), Some(431));
    assert_eq!(status(&"a".repeat(255)), None);
    // The limits themselves are within.
    let line = "GET / HTTP/1.1\r\nHost: a\r\na: ";
    let most = format!("\r\n{line}{}\r\n\r\n", "a".repeat(256 - line.len() - 4));
    assert_eq!(status(&most), None);
    assert_eq!(
        status("GET / HTTP/1.1\r\nHost: a\r\na:\r\na:\r\na:\r\na:\r\na:\r\n\r\n"),
        None
    );
}

#[test]
fn what_is_kept_is_bounded() {
    let mut parser = RequestParser::new(1000, 10);
    let fed = parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(fed.is_ok_and(|fed| fed.done));
    assert!(!parser.pending());
    let piece = [b'a'; 1024];
    let taken = (0..1000)
        .take_while(|_| parser.feed(&piece).is_ok())
        .count();
    assert_eq!(taken, 65);
}

#[test]
fn next_inside_a_body_is_refused() {
    let mut parser = RequestParser::new(1000, 10);
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    assert!(parser.feed(head).is_ok_and(|fed| !fed.done));
    assert!(parser.next_request().is_err());
    assert!(parser.feed(b"abc").is_err());
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let start = select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.1",
        "\r\nPOST http://h/a HTTP/1.1",
        "OPTIONS * HTTP/1.0",
        "GET / HTTP/1.3",
        "CONNECT h:1 HTTP/1.1",
    ]);
    let lines = prop::collection::vec(
        select(vec![
            "X-A:\t1 ",
            "Connection: close",
            "Expect: 100-continue",
            "Origin: x",
            "Bad : x",
            "x: 1\r\n fold",
        ]),
        0..4,
    );
    let framing = select(vec![
        ("", ""),
        ("Content-Length: 3\r\n", "abc"),
        (
            "Transfer-Encoding: chunked\r\n",
            "3;x\r\nabc\r\n1\r\nd\r\n0\r\nt: u\r\n\r\n",
        ),
        ("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n"),
    ]);
    (start, lines, framing).prop_map(|(start, lines, (framing, body))| {
        let lines: String = lines.iter().flat_map(|line| [*line, "\r\n"]).collect();
        format!("{start}\r\nHost: h\r\n{lines}{framing}\r\n{body}").into_bytes()
    })
}

/// Body bytes before a broken chunk may come or not; all else is the same.
fn comparable(run: (Vec<Seen>, Option<Refused>, bool)) -> (Vec<Seen>, Option<Refused>, bool) {
    let (mut seen, refused, pending) = run;
    if refused.is_some() {
        seen.retain(|request| request.whole);
    }
    (seen, refused, pending)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_requests(
        requests in prop::collection::vec(request(), 1..4),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..3),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let mut input = requests.concat();
        for (place, byte) in flips {
            let place = place.index(input.len());
            input[place] = byte;
        }
        let whole = comparable(run(&[&input]));
        prop_assert_eq!(&comparable(run(&cut(&input, &cuts))), &whole);
        let single: Vec<_> = input.chunks(1).collect();
        prop_assert_eq!(&comparable(run(&single)), &whole);
    }

    #[test]
    fn soup_is_the_same_too(
        input in prop::collection::vec(select(b"\r\n GET/:a*HTP1.\x00".to_vec()), 0..400),
        cuts in prop::collection::vec(any::<Index>(), 0..8),
    ) {
        let whole = comparable(run(&[&input]));
        prop_assert_eq!(&comparable(run(&cut(&input, &cuts))), &whole);
        let single: Vec<_> = input.chunks(1).collect();
        prop_assert_eq!(&comparable(run(&single)), &whole);
    }
}
