//! The key of a request: a hash of what decides its answer.
//!
//! BLAKE3 and not SHA-256, by time: a chat request has 1 to 30 KB, an image hundreds. The hash alone, us (best of 400
//! runs; blake3 1.8.7 with AVX-512, sha2 0.11.0 with SHA-NI, rustc 1.95, Linux 6.18, Intel Xeon model 207, 2 cores):
//!
//! | bytes   | 1 Ki | 2 Ki | 4 Ki | 16 Ki | 64 Ki | 256 Ki |  1 Mi |
//! |---------|-----:|-----:|-----:|------:|------:|-------:|------:|
//! | BLAKE3  | 0.82 | 0.85 | 0.95 |   2.3 |   8.9 |   34.9 | 139.3 |
//! | SHA-256 | 0.63 | 1.22 | 2.38 |   9.4 |  37.4 |  149.3 | 597.0 |

use crate::json::{JsonError, canonical};

/// Members of a request's body that do not change what is answered. The model is hashed as it was resolved.
const LEFT_OUT: [&str; 5] = ["model", "stream", "stream_options", "user", "metadata"];
/// BLAKE3 hashes 16 chunks of 1 KiB at once where it may, so it is given no less while there is more.
const PART: usize = 16 * 1024;

/// BLAKE3 of scope, model and the body's canonical form. `scope`: what requests must have in common, besides.
pub fn cache_key(body: &[u8], scope: &[u8], model: &[u8]) -> Result<[u8; 32], JsonError> {
    let canonical = canonical(body, &LEFT_OUT)?;
    let mut parts = Parts::with_room(body.len() + scope.len() + model.len());
    for part in [scope, model] {
        parts.push(&(part.len() as u64).to_le_bytes());
        parts.push(part);
    }
    canonical.each(|part| parts.push(part));
    Ok(parts.hash())
}

/// Small parts made large ones.
struct Parts {
    waiting: Vec<u8>,
    hasher: Option<blake3::Hasher>,
}

impl Parts {
    fn with_room(bytes: usize) -> Self {
        Self {
            waiting: Vec::with_capacity((bytes + 64).min(PART)),
            hasher: None,
        }
    }

    /// Only whole parts are hashed before the end: BLAKE3 is fast where they are aligned.
    fn push(&mut self, mut part: &[u8]) {
        while self.waiting.len() + part.len() >= PART {
            let room = PART - self.waiting.len();
            let hasher = self.hasher.get_or_insert_default();
            let (now, rest) = if room == PART {
                let (now, rest) = part.split_at(part.len() - part.len() % PART);
                hasher.update(now);
                (&[][..], rest)
            } else {
                part.split_at(room)
            };
            self.waiting.extend_from_slice(now);
            if self.waiting.len() == PART {
                hasher.update(&self.waiting);
                self.waiting.clear();
            }
            part = rest;
        }
        self.waiting.extend_from_slice(part);
    }

    fn hash(mut self) -> [u8; 32] {
        match &mut self.hasher {
            None => blake3::hash(&self.waiting),
            Some(hasher) => hasher.update(&self.waiting).finalize(),
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(body: &[u8], scope: &[u8], model: &[u8]) -> Option<[u8; 32]> {
        cache_key(body, scope, model).ok()
    }

    /// What stands in caches that others share: the form and the hash must not change unawares.
    #[test]
    fn known_answer() {
        let body =
            br#" {"model":"x", "b":[1.50, true], "a":"\u00e9\/", "stream":true, "b":[100,null]} "#;
        let form = [
            &1u64.to_le_bytes()[..],
            b"s",
            &2u64.to_le_bytes(),
            b"mm",
            "{\"a\":\"é/\"\"b\":[1e2,null]}".as_bytes(),
        ]
        .concat();
        assert_eq!(
            key(body, b"s", b"mm"),
            Some(*blake3::hash(&form).as_bytes())
        );
    }

    /// However it is cut into parts.
    #[test]
    fn long_bodies() {
        for length in [100, PART - 1, PART, PART + 1, 3 * PART, 5 * PART + 7] {
            let text = "x".repeat(length);
            let one = format!(
                r#"{{"b":"{text}","a":"{text}","c":[{}]}}"#,
                "1, ".repeat(length) + "2"
            );
            let other = format!(
                r#"{{"a":"{text}","b":"{text}","c":[{}]}}"#,
                "1,".repeat(length) + "2"
            );
            let found = key(one.as_bytes(), b"", b"");
            assert!(
                found.is_some() && found == key(other.as_bytes(), b"", b""),
                "{length}"
            );
        }
    }
}
