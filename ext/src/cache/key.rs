//! The key of a request: a hash of what decides its answer.

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
            waiting: Vec::with_capacity((bytes + 64).min(2 * PART)),
            hasher: None,
        }
    }

    fn push(&mut self, part: &[u8]) {
        if part.len() >= PART {
            self.flush();
            self.hasher.get_or_insert_default().update(part);
            return;
        }
        self.waiting.extend_from_slice(part);
        if self.waiting.len() >= PART {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.hasher.get_or_insert_default().update(&self.waiting);
        self.waiting.clear();
    }

    fn hash(mut self) -> [u8; 32] {
        match &mut self.hasher {
            None => blake3::hash(&self.waiting),
            Some(hasher) => hasher.update(&self.waiting).finalize(),
        }
        .into()
    }
}
