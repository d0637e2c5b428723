//! How a key is stored: HMAC-SHA-256 (RFC 2104) under a secret of this installation, so that a stolen table opens nothing.
//!
//! Keys are 256 random bits: there is nothing to guess, so nothing slow like bcrypt is called for.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The inner and outer state of the secret are made once; a digest only copies them.
#[derive(Clone)]
pub struct KeyHasher(Hmac<Sha256>);

impl KeyHasher {
    /// None for an empty secret.
    pub fn new(secret: &[u8]) -> Option<Self> {
        let states = Hmac::new_from_slice(secret).ok()?;
        (!secret.is_empty()).then_some(Self(states))
    }

    /// The work depends on the key's length only.
    pub fn digest(&self, key: &[u8]) -> [u8; 32] {
        self.0
            .clone()
            .chain_update(key)
            .finalize()
            .into_bytes()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(secret: &[u8], key: &[u8]) -> Option<String> {
        let digest = KeyHasher::new(secret)?.digest(key);
        Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// RFC 4231, test cases 2 and 6 (a secret longer than a block).
    #[test]
    fn known_answers() {
        assert_eq!(
            hex(b"Jefe", b"what do ya want for nothing?").as_deref(),
            Some("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(&[0xaa; 131], text).as_deref(),
            Some("60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54")
        );
        assert_eq!(hex(b"", b"key"), None);
    }
}
