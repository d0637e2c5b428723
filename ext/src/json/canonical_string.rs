//! One spelling for every string: escapes only where JSON wants one, the short one where there is a short one.

use super::string::{code_unit, unicode_escape};

/// Appends the string with its quotes.
pub(super) fn push(out: &mut Vec<u8>, raw: &str) {
    out.push(b'"');
    let mut rest = raw;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.extend_from_slice(plain.as_bytes());
        rest = push_escape(out, escape);
    }
    out.extend_from_slice(rest.as_bytes());
    out.push(b'"');
}

/// Appends what an escape stands for, whose backslash is already read; what follows it.
fn push_escape<'a>(out: &mut Vec<u8>, escape: &'a str) -> &'a str {
    let (letter, rest) = escape.split_at_checked(1).unwrap_or((escape, ""));
    match letter {
        "u" => return push_unicode(out, rest),
        "/" => out.push(b'/'),
        short => {
            out.push(b'\\');
            out.extend_from_slice(short.as_bytes());
        }
    }
    rest
}

fn push_unicode<'a>(out: &mut Vec<u8>, digits: &'a str) -> &'a str {
    if let Some((character, rest)) = unicode_escape(digits) {
        push_character(out, character);
        return rest;
    }
    // Half of a surrogate pair is no character: it stays an escape.
    let (unit, rest) = code_unit(digits).unwrap_or((0, ""));
    out.extend_from_slice(format!("\\u{unit:04x}").as_bytes());
    rest
}

fn push_character(out: &mut Vec<u8>, character: char) {
    let short = match character {
        '"' | '\\' => character,
        '\u{8}' => 'b',
        '\u{c}' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\0'..' ' => {
            out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            return;
        }
        _ => {
            let mut buffer = [0; 4];
            out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            return;
        }
    };
    out.extend([b'\\', short as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelt(raw: &str) -> String {
        let mut out = Vec::new();
        push(&mut out, raw);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn one_spelling() {
        for (raw, one) in [
            (r"\/", "\"/\""),
            (r"\u0041\u00e9\ud83d\ude00", "\"Aé😀\""),
            (r"\u000a\u0022\u005C\u0008\u000C", r#""\n\"\\\b\f""#),
            (r"\u001F\u0000\u007f", "\"\\u001f\\u0000\u{7f}\""),
            (r"\uD83D", "\"\\ud83d\""),
            (r"\uDE00\uD83D\uDE00", "\"\\ude00😀\""),
            (r"\uD83D\u0041\n", "\"\\ud83dA\\n\""),
        ] {
            assert_eq!(spelt(raw), one, "{raw}");
            let inner = one.get(1..one.len() - 1).unwrap_or_default();
            assert_eq!(spelt(inner), one, "it is its own spelling");
        }
    }
}
