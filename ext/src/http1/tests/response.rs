//! Tables: what each framing gives, and what each broken response is told.

use super::{End, error, run};
use crate::http1::{Media, ProtocolError, ResponseParser};

const OK: &str = "HTTP/1.1 200 OK\r\n";

fn body_and_end(text: &str, head_request: bool) -> (String, End) {
    let outcome = run(&[text.as_bytes()], head_request).unwrap();
    (String::from_utf8(outcome.body).unwrap(), outcome.end)
}

#[test]
fn framings() {
    for (text, body, end) in [
        ("content-length: 5\r\n\r\nhello", "hello", End::Done),
        (
            "content-length: 5, 5\r\nContent-Length: 05\r\n\r\nhello",
            "hello",
            End::Done,
        ),
        ("content-length: 0\r\n\r\n", "", End::Done),
        (
            "content-length: 5\r\n\r\nhelloHTTP",
            "hello",
            End::DoneClose,
        ),
        (
            "connection: close\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            End::DoneClose,
        ),
        (
            "Connection: Keep-Alive, CLOSE\r\ncontent-length: 2\r\n\r\nok",
            "ok",
            End::DoneClose,
        ),
        ("\r\nuntil the end", "until the end", End::DoneClose),
        ("\r\n", "", End::DoneClose),
        ("transfer-encoding: Chunked\r\n\r\n0\r\n\r\n", "", End::Done),
        (
            "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n001\r\n!\r\n00\r\n\r\n",
            "hello!",
            End::Done,
        ),
        (
            "transfer-encoding: chunked\r\n\r\nA;x=\"y\";z\r\n0123456789\r\n0 ;l\r\n\r\n",
            "0123456789",
            End::Done,
        ),
        (
            "transfer-encoding: chunked\r\n\r\n1 \t\r\na\r\n0\r\nx: y\r\nz: 1\r\n\r\n",
            "a",
            End::Done,
        ),
        (
            "transfer-encoding: chunked\r\n\r\n0\r\n\r\nmore",
            "",
            End::DoneClose,
        ),
    ] {
        assert_eq!(
            body_and_end(&format!("{OK}{text}"), false),
            (body.to_owned(), end),
            "{text:?}"
        );
    }
}

#[test]
fn no_body() {
    for (text, head_request, end) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
            true,
            End::Done,
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            true,
            End::Done,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", true, End::Done),
        ("HTTP/1.1 204 No Content\r\n\r\n", false, End::Done),
        (
            "HTTP/1.1 204\r\ncontent-length: 3\r\n\r\nabc",
            false,
            End::DoneClose,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n",
            false,
            End::Done,
        ),
        ("HTTP/1.0 204 No Content\r\n\r\n", false, End::DoneClose),
        (
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\n",
            true,
            End::DoneClose,
        ),
    ] {
        assert_eq!(
            body_and_end(text, head_request),
            (String::new(), end),
            "{text:?}"
        );
    }
}

#[test]
fn interim_responses_are_skipped() {
    let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\ncontent-length: 2\n\nok";
    assert_eq!(body_and_end(text, false), ("ok".to_owned(), End::Done));
}

#[test]
fn heads() {
    let text = "HTTP/1.1 503 Sorry\r\nServer: x\r\nX-A:  1 \r\nX-a: 2\r\nConnection: X-Gone\r\nx-gone: 1\r\nKeep-Alive: timeout=5\r\n\
        Connection: content-length\r\nUpgrade: h2c\r\nTrailer: a\r\nProxy-Authenticate: b\r\nContent-Type: Text/Event-Stream; x\r\n\
        Content-Encoding: gzip\r\nRetry-After: 7\r\nRetry-After: 8\r\nContent-Length: 0\r\nX-Empty:\r\nX-Obs: \u{e4}\r\n\r\n";
    let mut parser = ResponseParser::new(4096);
    parser.expect(false);
    let head = parser.feed(text.as_bytes()).unwrap().head.unwrap();
    assert_eq!(
        (head.status, head.media, head.encoded),
        (503, Media::EventStream, true)
    );
    assert_eq!(
        (head.content_length, head.retry_after()),
        (Some(0), Some(b"7".as_slice()))
    );
    let names: Vec<_> = head
        .lines()
        .map(|(name, value)| format!("{}={}", name.escape_ascii(), value.escape_ascii()))
        .collect();
    assert_eq!(
        names.join(" "),
        "server=x x-a=1 x-a=2 content-type=Text/Event-Stream; x content-encoding=gzip retry-after=7 retry-after=8 \
         content-length=0 x-empty= x-obs=\\xc3\\xa4"
    );
}

#[test]
fn broken_framing() {
    for (text, told) in [
        (
            "content-length: 5\r\ncontent-length: 6\r\n\r\n",
            "differing Content-Length",
        ),
        ("content-length: 5, 6\r\n\r\n", "differing Content-Length"),
        ("content-length: 5,\r\n\r\n", "not a number"),
        ("content-length: +5\r\n\r\n", "not a number"),
        ("content-length: -5\r\n\r\n", "not a number"),
        ("content-length: 0x5\r\n\r\n", "not a number"),
        ("content-length:\r\n\r\n", "not a number"),
        ("content-length: 5 5\r\n\r\n", "not a number"),
        ("content-length: 18446744073709551616\r\n\r\n", "too large"),
        (
            "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "both Content-Length and",
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
            "both Content-Length and",
        ),
        (
            "transfer-encoding: gzip, chunked\r\n\r\n",
            "not just chunked",
        ),
        ("transfer-encoding: identity\r\n\r\n", "not just chunked"),
        (
            "transfer-encoding: chunked, chunked\r\n\r\n",
            "not just chunked",
        ),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "not just chunked",
        ),
        ("transfer-encoding: xchunked\r\n\r\n", "not just chunked"),
        ("transfer-encoding:\r\n\r\n", "not just chunked"),
        ("bad name: x\r\n\r\n", "invalid header name"),
        ("name : x\r\n\r\n", "invalid header name"),
        (" folded: x\r\n\r\n", "invalid header name"),
        ("a: b\r\n folded\r\n\r\n", "invalid header name"),
        ("a: b\0\r\n\r\n", "invalid header value"),
        ("a: b\rc: d\r\n\r\n", "invalid header value"),
    ] {
        let told_really = error(format!("{OK}{text}").as_bytes());
        assert!(told_really.contains(told), "{text:?}: {told_really}");
    }
}

#[test]
fn broken_chunks() {
    let long = format!("1;{}\r\n", "x".repeat(1024));
    let zeros = format!("{}1\r\n", "0".repeat(1024));
    let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(3000));
    for (text, told) in [
        ("\r\n", "a chunk size is not a number"),
        ("x\r\n", "a chunk size is not a number"),
        ("-1\r\n", "a chunk size is not a number"),
        ("+1\r\n", "a chunk size is not a number"),
        (" 1\r\n", "a chunk size is not a number"),
        (";x\r\n", "a chunk size is not a number"),
        ("0x1\r\n", "byte that cannot be there"),
        ("1 1\r\n", "byte that cannot be there"),
        ("1;\0\r\n", "byte that cannot be there"),
        ("1\na\r\n", "bare LF"),
        ("1;x\na\r\n", "bare LF"),
        ("1\rx", "CR without LF"),
        ("1\r\nab\r\n", "longer than its size"),
        ("1\r\na\n", "longer than its size"),
        ("1\r\na\rx", "longer than its size"),
        ("10000000000000000\r\n", "over 64 bits"),
        ("fffffffffffffffff\r\n", "over 64 bits"),
        (&long, "over 1024 bytes"),
        (&zeros, "over 1024 bytes"),
        (&trailers, "over 16384 bytes"),
        ("0\r\nx: y\n\r\n", "bare LF"),
        ("0\r\n\n", "bare LF"),
        ("0\r\n\rx", "CR without LF"),
    ] {
        let told_really = error(format!("{OK}transfer-encoding: chunked\r\n\r\n{text}").as_bytes());
        assert!(told_really.contains(told), "{text:?}: {told_really}");
    }
}

#[test]
fn closed_too_early() {
    for (text, told) in [
        ("", "closed before an answer"),
        ("HTTP/1.1 100 Continue\r\n\r\n", "closed before an answer"),
        ("HTTP/1.1 200 OK\r\nconte", "closed inside the head"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhello",
            "closed after 5 of 500 body bytes",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "closed before the last chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5",
            "closed inside a chunk size line",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
            "closed inside a chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "closed before the last chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            "closed inside the trailers",
        ),
    ] {
        assert_eq!(error(text.as_bytes()), told);
    }
}

#[test]
fn not_http() {
    for (text, told) in [
        ("SSH-2.0-OpenSSH\r\n", "invalid version"),
        ("HTTP/2 200\r\n\r\n", "invalid version"),
        ("HTTP/1.1 20 OK\r\n\r\n", "invalid status line"),
        ("HTTP/1.1 099 OK\r\n\r\n", "a status below 100"),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "an empty line before it"),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "101 Switching Protocols",
        ),
    ] {
        let told_really = error(text.as_bytes());
        assert!(told_really.contains(told), "{text:?}: {told_really}");
    }
    let many = format!("{OK}{}\r\n", "a: b\r\n".repeat(257));
    assert!(error(many.as_bytes()).contains("over 256 header lines"));
}

#[test]
fn head_limit_is_exact_however_it_is_split() {
    let head = format!("{OK}x: {}\r\n\r\n", "y".repeat(100));
    for (limit, fine) in [(head.len(), true), (head.len() - 1, false)] {
        for size in [1, 7, head.len()] {
            let mut parser = ResponseParser::new(limit);
            parser.expect(true);
            let fed = head
                .as_bytes()
                .chunks(size)
                .map(|piece| parser.feed(piece))
                .find(|fed| fed.is_err());
            let expected = (!fine).then_some(ProtocolError::HeadTooLong(limit));
            assert_eq!(fed.map(|fed| fed.unwrap_err()), expected);
        }
    }
}

#[test]
fn nothing_is_read_that_was_not_asked_for() {
    let mut parser = ResponseParser::new(4096);
    assert_eq!(parser.feed(b"x").unwrap_err(), ProtocolError::Unasked);
    assert_eq!(parser.feed(b"x").unwrap_err(), ProtocolError::Failed);
    for _ in 0..2 {
        parser.expect(false);
        assert_eq!(
            parser.feed(b"HTTP/1.1 204 x\r\n\r\n").unwrap().end,
            End::Done
        );
        assert_eq!(parser.feed(b"").unwrap().end, End::Done);
    }
    assert_eq!(parser.feed(b"\r\n").unwrap_err(), ProtocolError::Unasked);
    assert_eq!(parser.feed_eof().unwrap_err(), ProtocolError::Failed);
}
