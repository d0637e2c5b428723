//! Any bytes in any pieces, each request answered at once: no panic, and the same requests and bodies as in one piece.
//!
//! The input's first byte says how long the pieces are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use penstock_ext::http1::{FedRequest, RequestParser};

type Seen = Vec<(String, Vec<u8>, Vec<u8>)>;

fn take(seen: &mut Seen, fed: &FedRequest, body: &[u8]) {
    if let Some(request) = &fed.request {
        let path = request.path().to_vec();
        seen.push((request.method().to_owned(), path, Vec::new()));
    }
    if let Some((_, _, last)) = seen.last_mut() {
        last.extend_from_slice(body);
    }
}

/// The whole requests before the first that is refused or not whole.
fn run(pieces: &[&[u8]]) -> Seen {
    let mut parser = RequestParser::new(1024, 16);
    let (mut seen, mut whole) = (Seen::new(), 0);
    'pieces: for piece in pieces {
        let Ok(mut fed) = parser.feed(piece) else {
            break;
        };
        let mut body = fed.body.parts(piece).collect::<Vec<_>>().concat();
        loop {
            take(&mut seen, &fed, &body);
            if !fed.done {
                break;
            }
            whole = seen.len();
            match parser.next_request() {
                Ok(next) => (fed, body) = next,
                Err(_) => break 'pieces,
            }
        }
    }
    seen.truncate(whole);
    seen
}

fuzz_target!(|input: &[u8]| {
    let [size, data @ ..] = input else {
        return;
    };
    let pieces: Vec<&[u8]> = data.chunks(usize::from(*size).max(1)).collect();
    assert_eq!(run(&pieces), run(&[data]));
});
