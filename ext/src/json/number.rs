//! The integer a JSON number stands for, exactly: 10, 10.0 and 1e1 are the same number (RFC 8259 §6).

/// The value of a number text that is an integer from 0 to `i64::MAX`; None for any other.
pub fn integer(number: &str) -> Option<u64> {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let value = scaled(whole, fraction.trim_end_matches('0'), power(exponent))?;
    (!negative || value == 0).then_some(value)
}

/// An exponent too large to count stays too large: ±10^15 shifts any number that fits a body out of range.
fn power(exponent: &str) -> i64 {
    const FAR: i64 = 1_000_000_000_000_000;
    let far = if exponent.starts_with('-') { -FAR } else { FAR };
    exponent.parse().unwrap_or(far).clamp(-FAR, FAR)
}

/// `whole.fraction` times ten to the `power`, where `fraction` has no zeros at its end.
fn scaled(whole: &str, fraction: &str, power: i64) -> Option<u64> {
    let digits = || whole.bytes().chain(fraction.bytes());
    if digits().all(|digit| digit == b'0') {
        return Some(0);
    }
    let trailing = if fraction.is_empty() {
        whole
            .bytes()
            .rev()
            .take_while(|&digit| digit == b'0')
            .count()
    } else {
        0
    };
    let kept = (whole.len() + fraction.len()).checked_sub(trailing)?;
    let zeros = power
        .checked_add(i64::try_from(trailing).ok()?)?
        .checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let value = digits().take(kept).try_fold(0, push_digit)?;
    // 10^19 is above i64::MAX, so more zeros cannot fit and none below zero leave an integer.
    (0..19).contains(&zeros).then_some(())?;
    (0..zeros).try_fold(value, |value, _| push_digit(value, b'0'))
}

fn push_digit(value: u64, digit: u8) -> Option<u64> {
    let next = value
        .checked_mul(10)?
        .checked_add(u64::from(digit.wrapping_sub(b'0')))?;
    i64::try_from(next).is_ok().then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers() {
        for (text, value) in [
            ("0", 0),
            ("-0", 0),
            ("-0.0", 0),
            ("10", 10),
            ("1e1", 10),
            ("1E+1", 10),
            ("10.0", 10),
            ("100e-1", 10),
            ("1.5e1", 15),
            ("0.1e2", 10),
            ("0e99999999999999999999", 0),
            ("1000000000000000000000e-20", 10),
            ("9223372036854775807", 9_223_372_036_854_775_807),
            ("1.20e2", 120),
        ] {
            assert_eq!(integer(text), Some(value), "{text}");
        }
    }

    #[test]
    fn others() {
        for text in [
            "-1",
            "0.5",
            "1.5",
            "1e-1",
            "15e-1",
            "1e19",
            "9223372036854775808",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "10.000000000000000000000000000000001",
        ] {
            assert_eq!(integer(text), None, "{text}");
        }
    }
}
