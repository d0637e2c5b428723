//! The API key that a request head brings, under any of the three names in use.

use super::field::trim;

#[derive(Default)]
pub(super) struct ApiKey {
    first: Option<Box<[u8]>>,
    disagree: bool,
}

impl ApiKey {
    pub fn first(&self) -> Option<&[u8]> {
        self.first.as_deref()
    }

    /// Which key of two a request means is not ours to guess.
    pub fn disagree(&self) -> bool {
        self.disagree
    }

    /// The value of an Authorization line; schemes other than Bearer (RFC 6750 §2.1) bring no key.
    pub fn authorization(&mut self, value: &[u8]) {
        if let Some(key) = bearer(value) {
            self.key(key);
        }
    }

    /// The value of an X-API-Key or api-key line; an empty one is no key.
    pub fn key(&mut self, value: &[u8]) {
        let key = trim(value);
        match &self.first {
            _ if key.is_empty() => {}
            Some(first) => self.disagree |= **first != *key,
            None => self.first = Some(key.into()),
        }
    }
}

impl std::fmt::Debug for ApiKey {
    /// Without the key, which belongs in no log.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(if self.first.is_some() {
            "a key"
        } else {
            "none"
        })
    }
}

/// What follows the scheme, which is read in any case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = trim(value).split_at_checked(6)?;
    let is_scheme = scheme.eq_ignore_ascii_case(b"bearer") && matches!(rest, [b' ' | b'\t', ..]);
    is_scheme.then_some(rest)
}
