//! The part of a line that came without its end, bounded.

/// Longer lines are passed over. The largest real ones (a whole response in one event) are some 100 KB.
pub const MAX_LINE_BYTES: usize = 4 << 20;

/// A buffer that grew above this is given back: thousands of streams may be open at once.
const KEPT_BYTES: usize = 16 << 10;

#[derive(Default)]
pub(super) struct Line {
    held: Vec<u8>,
    overlong: bool,
}

impl Line {
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && !self.overlong
    }

    /// Keep a piece whose line goes on.
    pub fn hold(&mut self, piece: &[u8]) {
        self.overlong |= self.held.len() + piece.len() > MAX_LINE_BYTES;
        if self.overlong {
            self.held = Vec::new();
        } else {
            self.held.extend_from_slice(piece);
        }
    }

    /// The line that ends with `piece`; None if it is too long. `clear` comes next.
    pub fn complete<'a>(&'a mut self, piece: &'a [u8]) -> Option<&'a [u8]> {
        if self.is_empty() && piece.len() <= MAX_LINE_BYTES {
            return Some(piece);
        }
        self.hold(piece);
        (!self.overlong).then_some(&self.held)
    }

    pub fn clear(&mut self) {
        self.overlong = false;
        empty(&mut self.held);
    }
}

/// Empty a buffer, keeping a small one for the next use.
pub(super) fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT_BYTES);
}
