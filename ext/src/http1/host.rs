//! Whether a Host value is one (RFC 9110 §7.2: uri-host [ ":" port ], RFC 3986 §3.2.2).

use std::net::Ipv6Addr;

/// A reg-name or IPv4 address (not empty) or a bracketed IPv6 address, and a port up to 65535 if there is a colon.
/// No IPvFuture and no zone: nobody sends them, and backends disagree about them.
pub fn is_valid_host(value: &[u8]) -> bool {
    if let Some(rest) = value.strip_prefix(b"[") {
        let Some((address, after)) = split_at_byte(rest, b']') else {
            return false;
        };
        return is_ipv6(address)
            && (after.is_empty() || after.strip_prefix(b":").is_some_and(is_port));
    }
    match split_at_byte(value, b':') {
        Some((name, port)) => is_reg_name(name) && is_port(port),
        None => is_reg_name(value),
    }
}

fn split_at_byte(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let (before, rest) = text.split_at_checked(memchr::memchr(byte, text)?)?;
    Some((before, rest.get(1..)?))
}

fn is_ipv6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// The grammar allows an empty port.
fn is_port(text: &[u8]) -> bool {
    let number = text.iter().try_fold(0u32, |number, &byte| match byte {
        b'0'..=b'9' => Some(number * 10 + u32::from(byte - b'0')).filter(|&number| number <= 65535),
        _ => None,
    });
    number.is_some()
}

fn is_reg_name(mut text: &[u8]) -> bool {
    if text.is_empty() {
        return false;
    }
    loop {
        text = match text {
            [] => return true,
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                rest
            }
            [byte, rest @ ..] if is_name_byte(*byte) => rest,
            _ => return false,
        };
    }
}

/// RFC 3986 unreserved and sub-delims.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::is_valid_host;

    #[test]
    fn table() {
        for good in [
            "a",
            "localhost:8080",
            "127.0.0.1",
            "example.com:",
            "[::1]",
            "[::1]:80",
            "a%20b",
            "a_b",
            "x:65535",
            "[::ffff:1.2.3.4]",
        ] {
            assert!(is_valid_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:b",
            "a:1:2",
            "a b",
            "a/b",
            "user@a",
            "a%2",
            "a%zz",
            "[::1",
            "::1",
            "[::1]x",
            "[::1]:x",
            "[]",
            "[1.2.3.4]",
            "[fe80::1%25eth0]",
            "x:65536",
            "x:99999999999999999999",
            "ä",
            "a\t",
            "[a]b",
            "a?b",
            "a#b",
            "x:+1",
        ] {
            assert!(!is_valid_host(bad.as_bytes()), "{bad}");
        }
    }
}
