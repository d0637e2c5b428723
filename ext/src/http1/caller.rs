//! What a request head tells of its caller: an API key, under any of the three names in use, and addresses.

use std::fmt;

use super::field::trim;

#[derive(Default)]
pub(super) struct Caller {
    api_key: Option<Box<[u8]>>,
    disagree: bool,
    forwarded_for: Option<Vec<u8>>,
}

impl Caller {
    /// The first of all keys.
    pub fn api_key(&self) -> Option<&[u8]> {
        self.api_key.as_deref()
    }

    /// Two lines give different keys; which one is meant is not ours to guess.
    pub fn api_keys_disagree(&self) -> bool {
        self.disagree
    }

    pub fn forwarded_for(&self) -> Option<&[u8]> {
        self.forwarded_for.as_deref()
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
        match &self.api_key {
            _ if key.is_empty() => {}
            Some(first) => self.disagree |= **first != *key,
            None => self.api_key = Some(key.into()),
        }
    }

    /// The value of an X-Forwarded-For line: lines of one name are one list (RFC 9110 §5.3).
    pub fn forwarded(&mut self, value: &[u8]) {
        match &mut self.forwarded_for {
            Some(list) => {
                list.extend_from_slice(b", ");
                list.extend_from_slice(value);
            }
            None => self.forwarded_for = Some(value.to_vec()),
        }
    }
}

impl fmt::Debug for Caller {
    /// Without the key, which belongs in no log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Caller")
    }
}

/// What follows the scheme, which is read in any case (RFC 9110 §11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = trim(value).split_at_checked(6)?;
    let is_scheme = scheme.eq_ignore_ascii_case(b"bearer") && matches!(rest, [b' ' | b'\t', ..]);
    is_scheme.then_some(rest)
}
