//! Writing JSON: strings and decimal fractions, at the end of a buffer.

use super::scan::special;
use crate::decimal::{self, Decimal};

/// A string in quotes.
#[inline]
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text.as_bytes());
    out.push(b'"');
}

/// The same of bytes that are Latin-1.
#[inline]
pub fn push_latin1(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_ascii() {
        out.push(b'"');
        escape(out, text);
        out.push(b'"');
    } else {
        let text: String = text.iter().map(|&byte| char::from(byte)).collect();
        push_string(out, &text);
    }
}

#[inline]
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let end = special(text, 0);
    out.extend_from_slice(text.get(..end).unwrap_or_default());
    if end < text.len() {
        escape_rest(out, text.get(end..).unwrap_or_default());
    }
}

#[cold]
fn escape_rest(out: &mut Vec<u8>, mut rest: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while let [byte, behind @ ..] = rest {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let low = HEX.get(usize::from(byte & 15)).copied().unwrap_or(b'0');
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[b'0' + (byte >> 4), low]);
            }
        }
        let end = special(behind, 0);
        out.extend_from_slice(behind.get(..end).unwrap_or_default());
        rest = behind.get(end..).unwrap_or_default();
    }
}

/// A whole number.
#[inline]
pub fn push_integer(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    decimal::push(out, number.unsigned_abs());
}

/// A float rounded to 3 digits behind the point, ties of the exact value to even; null if it is not finite.
pub fn push_rounded(out: &mut Vec<u8>, number: f64) {
    let scaled = number * 1000.0;
    let whole = scaled as u64;
    let part = scaled - whole as f64;
    // The product is off by less than this; close to a tie, only the exact value tells.
    let near_tie = (part - 0.5).abs() < 1e-4;
    if (0.0..1e12).contains(&scaled) && !near_tie {
        let thousandths = whole + u64::from(part > 0.5);
        return push_fraction::<3>(out, thousandths);
    }
    let rounded = format!("{number:.3}").parse().unwrap_or(f64::NAN);
    push_float(out, rounded);
}

/// Any float; null if it is not finite.
pub fn push_float(out: &mut Vec<u8>, number: f64) {
    if number.is_finite() {
        out.extend_from_slice(format!("{number:?}").as_bytes());
    } else {
        out.extend_from_slice(b"null");
    }
}

/// `number` / 10**DIGITS, at least one digit behind the point.
pub fn push_fraction<const DIGITS: u32>(out: &mut Vec<u8>, number: u64) {
    let unit = 10u64.pow(DIGITS);
    decimal::push(out, number / unit);
    // A 1 before the digits keeps their leading zeros; the point takes its place.
    let digits = Decimal::new(unit + number % unit);
    let [_, digits @ ..] = digits.as_bytes() else {
        return;
    };
    let zeros = digits.iter().rev().take_while(|&&digit| digit == b'0');
    let length = (digits.len() - zeros.count()).max(1);
    out.push(b'.');
    out.extend_from_slice(digits.get(..length).unwrap_or_default());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers() {
        for (number, text) in [
            (0.0, "0.0"),
            (12.0, "12.0"),
            (12.5, "12.5"),
            (0.0005, "0.001"),
            (0.0625, "0.062"),
            (0.1875, "0.188"),
            (1234.56789, "1234.568"),
            (0.9999, "1.0"),
            (-1.5, "-1.5"),
            (1e20, "1e20"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
        ] {
            assert_eq!(written(|out| push_rounded(out, number)), text, "{number}");
        }
        assert_eq!(written(|out| push_fraction::<9>(out, 10_210)), "0.00001021");
        assert_eq!(
            written(|out| push_integer(out, i64::MIN)),
            i64::MIN.to_string()
        );
    }

    proptest! {
        #[test]
        fn strings_come_back(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            let back: String = serde_json::from_str(&written(|out| push_string(out, &text))).unwrap();
            prop_assert_eq!(back, text);
            let back: String = serde_json::from_str(&written(|out| push_latin1(out, &bytes))).unwrap();
            prop_assert_eq!(back.chars().map(|c| c as u32 as u8).collect::<Vec<_>>(), bytes);
        }

        #[test]
        fn rounding_is_exact(number in 0.0..1e9f64, ties in 0..1u64 << 40) {
            for number in [number, number / 1e6, ties as f64 / 2000.0, ties as f64 / 2048.0] {
                let wanted: f64 = format!("{number:.3}").parse().unwrap();
                let got: f64 = written(|out| push_rounded(out, number)).parse().unwrap();
                prop_assert_eq!(got, wanted);
            }
        }

        #[test]
        fn a_fraction_is_the_quotient(number in 0..1u64 << 53) {
            let got: f64 = written(|out| push_fraction::<9>(out, number)).parse().unwrap();
            prop_assert_eq!(got, number as f64 / 1e9);
        }
    }
}
