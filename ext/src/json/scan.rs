//! The inner loop over string contents: where the next byte stands that a JSON string treats specially.
//!
//! No `unsafe` and no intrinsics: words by arithmetic, blocks in a shape the compiler turns into SSE2 or NEON.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;
const BLOCK: usize = 32;

/// The first `"`, `\` or control byte (below 0x20) at or after `at`; the length if there is none.
#[inline]
pub fn special(bytes: &[u8], mut at: usize) -> usize {
    // Keys and short values end within two words; long text is worth the block loop.
    for _ in 0..2 {
        match word(bytes, at) {
            Some(0) => at += 8,
            Some(marks) => return at + first(marks),
            None => return special_in_tail(bytes, at),
        }
    }
    long_special(bytes, at)
}

fn long_special(bytes: &[u8], mut at: usize) -> usize {
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        if has_special(block) {
            break;
        }
        at += BLOCK;
    }
    while let Some(marks) = word(bytes, at) {
        if marks != 0 {
            return at + first(marks);
        }
        at += 8;
    }
    special_in_tail(bytes, at)
}

fn has_special(block: &[u8; BLOCK]) -> bool {
    block
        .iter()
        .fold(false, |found, &byte| found | is_special(byte))
}

#[inline]
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// The high bit of each special byte of the 8 at `at`. Only the lowest set bit is exact: a borrow runs upwards.
#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
    let quote = (word ^ (LOW * 0x22)).wrapping_sub(LOW) & !(word ^ (LOW * 0x22));
    let slash = (word ^ (LOW * 0x5c)).wrapping_sub(LOW) & !(word ^ (LOW * 0x5c));
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    Some((quote | slash | control) & HIGH)
}

#[inline]
fn first(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

fn special_in_tail(bytes: &[u8], at: usize) -> usize {
    let tail = bytes.get(at..).unwrap_or_default();
    tail.iter()
        .position(|&byte| is_special(byte))
        .map_or(bytes.len(), |found| at + found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place() {
        for length in 0..100 {
            for place in 0..length {
                for byte in 0..=255u8 {
                    let mut bytes = vec![b'a'; place];
                    bytes.push(byte);
                    bytes.resize(length, b'a');
                    let expected = if is_special(byte) { place } else { length };
                    assert_eq!(
                        special(&bytes, 0),
                        expected,
                        "{byte} at {place} of {length}"
                    );
                }
            }
        }
    }
}
