//! Tables: which heads are refused, with which words, and what a backend gets of the others.

use proptest::prelude::*;

use crate::http1::{FramingLine, Kept, Media, RequestHead, pieces};

type Lines<'a> = &'a [(&'a str, &'a str)];

fn read(lines: Lines<'_>) -> RequestHead {
    let mut head = RequestHead::new();
    for (name, value) in lines {
        head.line(name.as_bytes(), value.as_bytes());
    }
    head.finish();
    head
}

fn encoded(lines: Lines<'_>, body_length: i64) -> String {
    let framing = FramingLine::new(body_length).unwrap();
    let head = read(lines);
    assert_eq!(head.problem(), None);
    String::from_utf8(
        pieces(
            b"POST / HTTP/1.1\r\n",
            &head.lines(false),
            &framing,
            b"body",
        )
        .concat(),
    )
    .unwrap()
}

#[test]
fn problems() {
    let host = ("host", "a");
    let length = ("content-length", "5");
    let chunked = ("transfer-encoding", "chunked");
    for (lines, problem) in [
        (vec![host], None),
        (vec![host, length], None),
        (vec![host, ("transfer-encoding", "Chunked")], None),
        (vec![], Some("missing Host header")),
        (vec![host, host], Some("more than one Host header")),
        (vec![("host", "")], Some("Host is not a valid host[:port]")),
        (
            vec![("host", "a b")],
            Some("Host is not a valid host[:port]"),
        ),
        (
            vec![host, length, length],
            Some("more than one Content-Length"),
        ),
        (
            vec![host, ("content-length", "5, 5")],
            Some("Content-Length is not a number"),
        ),
        (
            vec![host, ("content-length", "")],
            Some("Content-Length is not a number"),
        ),
        (
            vec![host, ("content-length", "-1")],
            Some("Content-Length is not a number"),
        ),
        (
            vec![host, ("content-length", "99999999999999999999")],
            Some("Content-Length is too large"),
        ),
        (
            vec![host, length, chunked],
            Some("both Content-Length and Transfer-Encoding"),
        ),
        (
            vec![host, chunked, chunked],
            Some("unsupported Transfer-Encoding"),
        ),
        (
            vec![host, ("transfer-encoding", "gzip, chunked")],
            Some("unsupported Transfer-Encoding"),
        ),
        (
            vec![host, ("transfer-encoding", "identity")],
            Some("unsupported Transfer-Encoding"),
        ),
        (
            vec![host, ("x", "a\r\nb: c")],
            Some("a header value has a CR, LF or NUL byte in it"),
        ),
        (
            vec![host, ("x", "a\n")],
            Some("a header value has a CR, LF or NUL byte in it"),
        ),
        (
            vec![host, ("x", "\0")],
            Some("a header value has a CR, LF or NUL byte in it"),
        ),
        (
            vec![host, ("x\r\ny", "a")],
            Some("a header name has a byte in it that names cannot have"),
        ),
        (
            vec![host, ("x:y", "a")],
            Some("a header name has a byte in it that names cannot have"),
        ),
        (
            vec![host, ("transfer-encoding ", "chunked")],
            Some("a header name has a byte in it that names cannot have"),
        ),
        (
            vec![host, ("", "a")],
            Some("a header name has a byte in it that names cannot have"),
        ),
    ] {
        assert_eq!(read(&lines).problem(), problem, "{lines:?}");
    }
}

#[test]
fn facts() {
    let head = read(&[
        ("host", "a"),
        ("content-type", "application/json"),
        ("content-type", "text/plain"),
        ("content-length", "7"),
    ]);
    assert_eq!(
        (head.media(), head.content_length(), head.has_body()),
        (Media::Json, Some(7), true)
    );
    let head = read(&[("host", "a"), ("content-length", "0")]);
    assert_eq!(
        (head.media(), head.content_length(), head.has_body()),
        (Media::None, Some(0), false)
    );
    let head = read(&[("host", "a"), ("transfer-encoding", "chunked")]);
    assert_eq!((head.content_length(), head.has_body()), (None, true));
}

#[test]
fn the_first_of_each_is_kept() {
    let mut head = RequestHead::new();
    for (name, kept) in [
        ("host", Some(Kept::Host)),
        ("origin", Some(Kept::Origin)),
        ("content-type", Some(Kept::ContentType)),
        ("x-request-id", Some(Kept::RequestId)),
        ("x-other", None),
    ] {
        assert_eq!(head.line(name.as_bytes(), b"1"), kept);
        assert_eq!(head.line(name.as_bytes(), b"2"), None);
    }
}

#[test]
fn lines_for_this_hop_stay_here() {
    let lines = [
        ("host", "a"),
        ("x-listed", "before"),
        ("te", "trailers"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("expect", "100-continue"),
        ("connection", "keep-alive, X-Listed"),
        ("connection", " ,x-other"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("proxy-authenticate", "x"),
        ("proxy-authorization", "x"),
        ("content-length", "9"),
        ("authorization", "x"),
        ("x-api-key", "x"),
        ("api-key", "x"),
        ("x-admin-key", "x"),
        ("X-Penstock-Explain", "1"),
        ("x-listed", "after"),
        ("x-other", "x"),
        ("accept", "*/*"),
        ("x-twice", "1"),
        ("cookie", "c"),
        ("x-twice", "\u{e4}"),
        ("x-empty", ""),
    ];
    assert_eq!(
        encoded(&lines, 4),
        "POST / HTTP/1.1\r\naccept: */*\r\nx-twice: 1\r\ncookie: c\r\nx-twice: \u{e4}\r\nx-empty: \r\ncontent-length: 4\r\n\r\nbody"
    );
}

#[test]
fn framing_lines() {
    let lines = [("host", "a")];
    for (length, line) in [
        (-2, "transfer-encoding: chunked\r\n"),
        (-1, ""),
        (0, "content-length: 0\r\n"),
        (1230, "content-length: 1230\r\n"),
        (i64::MAX, "content-length: 9223372036854775807\r\n"),
    ] {
        assert_eq!(
            encoded(&lines, length),
            format!("POST / HTTP/1.1\r\n{line}\r\nbody")
        );
    }
    assert!(FramingLine::new(-3).is_none());
    assert!(FramingLine::new(i64::MIN).is_none());
}

proptest! {
    /// Whatever a head without a problem holds, a backend sees as many lines as were passed on.
    #[test]
    fn no_line_is_smuggled(lines in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..6), prop::collection::vec(any::<u8>(), 0..6)), 0..6)) {
        let mut head = RequestHead::new();
        head.line(b"host", b"a");
        for (name, value) in &lines {
            head.line(name, value);
        }
        head.finish();
        let framing = FramingLine::new(-1).unwrap();
        let text = pieces(b"", &head.lines(false), &framing, b"").concat();
        let ends = text.windows(2).filter(|pair| pair == b"\r\n").count();
        prop_assert_eq!(ends, text.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count() / 2);
        prop_assert!(ends <= lines.len() + 1);
        if head.problem().is_none() {
            prop_assert_eq!(ends, lines.len() + 1);
        }
    }
}
