//! Small readings of header fields (RFC 9110 §5) that requests and responses share.

/// The elements of a comma-separated list without outer white space, empty ones too.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

/// Without outer white space, which is spaces and tabs here (RFC 9110 §5.6.3).
pub fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthError {
    NotANumber,
    TooLarge,
}

/// 1*DIGIT (RFC 9110 §8.6): no sign, no white space, no separator, at most 64 bits.
pub fn length(text: &[u8]) -> Result<u64, LengthError> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(LengthError::NotANumber);
    }
    text.iter()
        .try_fold(0u64, |number, &byte| {
            number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
        })
        .ok_or(LengthError::TooLarge)
}

/// A token (RFC 9110 §5.6.2), the only thing that may stand before the colon of a header line.
pub fn is_token(text: &[u8]) -> bool {
    // Without the early exit of `all` the loop has no branch to guess.
    !text.is_empty()
        && text
            .iter()
            .fold(true, |so_far, &byte| so_far & is_token_byte(byte))
}

/// RFC 9110 §5.5: these three in a value would end the line, or end it for somebody.
pub fn splits_lines(value: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, value).is_some()
}

fn is_token_byte(byte: u8) -> bool {
    TOKEN.get(usize::from(byte)).copied().unwrap_or(false)
}

static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        #[allow(clippy::indexing_slicing, reason = "computed by the compiler")]
        {
            table[byte as usize] = byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::{LengthError, is_token, length};

    #[test]
    fn lengths() {
        assert_eq!(length(b"0"), Ok(0));
        assert_eq!(length(b"007"), Ok(7));
        assert_eq!(length(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(length(b"18446744073709551616"), Err(LengthError::TooLarge));
        for bad in ["", "+1", "-1", "1 ", "0x1", "1_0", "1,1", "\u{663}"] {
            assert_eq!(
                length(bad.as_bytes()),
                Err(LengthError::NotANumber),
                "{bad}"
            );
        }
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"x-~!#$%&'*+.^_`|09aZ"));
        for bad in [
            "", "a b", "a:", "a\r", "\u{e4}", "a(", "a\0", "a/b", "a,b", "a\x7f",
        ] {
            assert!(!is_token(bad.as_bytes()), "{bad}");
        }
    }
}
