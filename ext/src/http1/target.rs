//! The request target (RFC 9112 §3.2), split into what an application wants.

use std::ops::Range;

/// Where in the target its parts stand.
#[derive(Debug, PartialEq, Eq)]
pub struct Target {
    /// Of an absolute-form target; it must agree with Host.
    pub authority: Option<Range<usize>>,
    /// Empty where an absolute-form target has none: then it is "/".
    pub path: Range<usize>,
    pub query: Range<usize>,
}

impl Target {
    pub fn read(target: &[u8], options: bool) -> Result<Self, &'static str> {
        // A loop without early exit has no branch to guess.
        let is_clean = target.iter().fold(true, |so_far, &byte| {
            so_far & matches!(byte, 0x21..=0x7e) & (byte != b'#')
        });
        if !is_clean {
            return Err("the request target has a byte that cannot be there");
        }
        match target {
            [b'/', ..] => Ok(Self::from_path(target, 0, None)),
            b"*" if options => Ok(Self::from_path(target, 0, None)),
            b"*" => Err("the target * is for OPTIONS only"),
            _ => {
                let start = authority_start(target)
                    .ok_or("the request target is neither a path nor an http URL")?;
                let rest = target.get(start..).unwrap_or_default();
                let end = start + memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
                Ok(Self::from_path(target, end, Some(start..end)))
            }
        }
    }

    fn from_path(target: &[u8], start: usize, authority: Option<Range<usize>>) -> Self {
        let rest = target.get(start..).unwrap_or_default();
        let (path, query) = match memchr::memchr(b'?', rest) {
            Some(mark) => (start..start + mark, start + mark + 1..target.len()),
            None => (start..target.len(), 0..0),
        };
        Self {
            authority,
            path,
            query,
        }
    }
}

fn authority_start(target: &[u8]) -> Option<usize> {
    [b"http://".as_slice(), b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .map(<[u8]>::len)
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn table() {
        for (target, authority, path, query) in [
            ("/", None, "/", ""),
            ("/a%2fb?x=1?y", None, "/a%2fb", "x=1?y"),
            ("/a?", None, "/a", ""),
            ("//a/b", None, "//a/b", ""),
            ("*", None, "*", ""),
            ("http://h:1/a?b", Some("h:1"), "/a", "b"),
            ("HTTPS://h", Some("h"), "", ""),
            ("http://h?q/r", Some("h"), "", "q/r"),
            ("http:///a", Some(""), "/a", ""),
        ] {
            let read = Target::read(target.as_bytes(), true);
            let text = |range: std::ops::Range<usize>| target.get(range).unwrap_or("bad range");
            assert_eq!(
                read.map(|read| (read.authority.map(text), text(read.path), text(read.query))),
                Ok((authority, path, query)),
                "{target}"
            );
        }
        for bad in [
            "", "a", "a:1", "ftp://a/", "/a#b", "/ä", "/a b", "/\x7f", "**", "?a",
        ] {
            assert!(Target::read(bad.as_bytes(), true).is_err(), "{bad}");
        }
        assert!(Target::read(b"*", false).is_err());
    }
}
