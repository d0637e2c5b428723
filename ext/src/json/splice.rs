//! A body with some of its bytes replaced: what a rename writes, every other byte as it was.

use std::fmt;

/// Replace `[start, end)` of the body by `text`.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    pub start: usize,
    pub end: usize,
    pub text: &'a [u8],
}

/// An edit ends before it starts, before the one in front of it ends, or after the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpliceError;

impl fmt::Display for SpliceError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("edits must be in rising order, not overlap, and lie within the body")
    }
}

impl std::error::Error for SpliceError {}

/// The length of the body after the edits, which are checked here.
pub fn spliced_length(body: &[u8], edits: &[Edit<'_>]) -> Result<usize, SpliceError> {
    let (mut length, mut reached) = (body.len(), 0);
    for edit in edits {
        if edit.start < reached || edit.end < edit.start || edit.end > body.len() {
            return Err(SpliceError);
        }
        length = (length - (edit.end - edit.start))
            .checked_add(edit.text.len())
            .ok_or(SpliceError)?;
        reached = edit.end;
    }
    Ok(length)
}

/// Fill `out`, of `spliced_length` bytes, with the edited body.
pub fn splice_into(body: &[u8], edits: &[Edit<'_>], out: &mut [u8]) {
    let (mut rest, mut reached) = (out, 0);
    for edit in edits {
        rest = put(rest, body.get(reached..edit.start).unwrap_or_default());
        rest = put(rest, edit.text);
        reached = edit.end;
    }
    put(rest, body.get(reached..).unwrap_or_default());
}

/// Copy `piece` to the front of `out` and give back what follows it.
fn put<'a>(out: &'a mut [u8], piece: &[u8]) -> &'a mut [u8] {
    let fits = piece.len().min(out.len());
    let (front, rest) = out.split_at_mut(fits);
    front.copy_from_slice(piece.get(..fits).unwrap_or_default());
    rest
}

/// The edited body in a buffer of its own.
pub fn splice(body: &[u8], edits: &[Edit<'_>]) -> Result<Vec<u8>, SpliceError> {
    let mut out = vec![0; spliced_length(body, edits)?];
    splice_into(body, edits, &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(start: usize, end: usize, text: &[u8]) -> Edit<'_> {
        Edit { start, end, text }
    }

    #[test]
    fn replaces_inserts_and_removes() {
        let edits = [
            edit(0, 1, b"AA"),
            edit(1, 1, b"-"),
            edit(2, 4, b""),
            edit(5, 5, b"!"),
        ];
        assert_eq!(splice(b"abcde", &edits), Ok(b"AA-be!".to_vec()));
        assert_eq!(splice(b"abc", &[]), Ok(b"abc".to_vec()));
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for edits in [
            [edit(2, 1, b""), edit(2, 2, b"")],
            [edit(0, 2, b""), edit(1, 2, b"")],
            [edit(0, 1, b""), edit(2, 4, b"")],
        ] {
            assert_eq!(splice(b"abc", &edits), Err(SpliceError));
        }
    }
}
