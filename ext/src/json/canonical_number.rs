//! One spelling for every number, by its exact decimal value: digits without zeros at either end, and an exponent.
//!
//! 1, 1.0, 1e0 and 10e-1 are "1"; 100 is "1e2", 0.25 is "25e-2", -0.0 is "0". Nothing is rounded. Only a number whose
//! exponent has more than 18 digits keeps its spelling, behind a "~": nobody counts with it.

use crate::decimal;

const LONGEST_EXPONENT: usize = 18;

/// Whether a checked scalar is spelt so already. Words are.
pub(super) fn is_canonical(text: &str) -> bool {
    let bytes = text.as_bytes();
    match bytes {
        [b't' | b'f' | b'n', ..] | b"0" => true,
        [.., b'0'] => false,
        _ => bytes.iter().all(|byte| matches!(byte, b'-' | b'0'..=b'9')),
    }
}

/// Appends a checked number.
pub(super) fn push(out: &mut Vec<u8>, number: &str) {
    let (sign, magnitude) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (mantissa, exponent) = magnitude.split_once(['e', 'E']).unwrap_or((magnitude, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let leading = digits().take_while(|&digit| digit == b'0').count();
    let trailing = digits().rev().take_while(|&digit| digit == b'0').count();
    let count = whole.len() + fraction.len();
    if leading == count {
        out.push(b'0');
        return;
    }
    let Some(exponent) = power(exponent) else {
        out.push(b'~');
        out.extend_from_slice(number.as_bytes());
        return;
    };
    out.extend_from_slice(sign.as_bytes());
    out.extend(digits().skip(leading).take(count - leading - trailing));
    let exponent = exponent - fraction.len() as i64 + trailing as i64;
    if exponent != 0 {
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e" });
        decimal::push(out, exponent.unsigned_abs());
    }
}

fn power(exponent: &str) -> Option<i64> {
    let digits = exponent.trim_start_matches(['+', '-']);
    let digits = digits.trim_start_matches('0');
    if digits.len() > LONGEST_EXPONENT {
        return None;
    }
    let value: i64 = digits.parse().unwrap_or(0);
    Some(if exponent.starts_with('-') {
        -value
    } else {
        value
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for (one, spellings) in [
            (
                "0",
                &["0", "-0", "0.0", "-0.000e5", "0e99999999999999999999999"][..],
            ),
            ("1", &["1", "1.0", "1e0", "10e-1", "0.1e1", "1.000E+00"]),
            ("-12", &["-12", "-12.0", "-1.2e1", "-0.12e2"]),
            (
                "1e2",
                &[
                    "100",
                    "1e2",
                    "0.1E3",
                    "100.00",
                    "1e+000000000000000000000002",
                ],
            ),
            ("25e-2", &["0.25", "0.250", "25e-2", "2.5E-1"]),
            (
                "9007199254740993",
                &["9007199254740993", "9007199254740993.0"],
            ),
            ("1e400", &["1e400", "10e399"]),
            ("~1e1000000000000000000", &["1e1000000000000000000"]),
        ] {
            for spelling in spellings {
                let mut out = Vec::new();
                push(&mut out, spelling);
                assert_eq!(String::from_utf8_lossy(&out), one, "{spelling}");
                assert!(!is_canonical(spelling) || *spelling == one, "{spelling}");
            }
        }
    }
}
