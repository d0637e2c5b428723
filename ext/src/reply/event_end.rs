//! Where the events of a stream end: behind an empty line, in LF, CRLF or CR (WHATWG HTML §9.2).

use memchr::memchr2;

#[derive(Default)]
pub(super) struct EventEnd {
    /// The line under way has bytes.
    begun: bool,
    /// The last byte was a CR, which an LF may yet complete.
    after_cr: bool,
}

impl EventEnd {
    /// Where in `data` the event under way ends. An LF that completes its last line end is not waited for:
    /// `takes_lf` tells of it.
    pub fn find(&mut self, data: &[u8]) -> Option<usize> {
        let mut at = usize::from(self.takes_lf(data));
        loop {
            let rest = data.get(at..).filter(|rest| !rest.is_empty())?;
            self.after_cr = false;
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                self.begun = true;
                return None;
            };
            let is_empty_line = found == 0 && !self.begun;
            at += found + 1;
            self.begun = false;
            self.after_cr = rest.get(found) == Some(&b'\r');
            if is_empty_line {
                return Some(at);
            }
            at += usize::from(self.takes_lf(data.get(at..).unwrap_or_default()));
        }
    }

    /// The LF that `data` begins with belongs to the CR before it.
    pub fn takes_lf(&mut self, data: &[u8]) -> bool {
        let taken = self.after_cr && data.starts_with(b"\n");
        self.after_cr &= !taken;
        taken
    }
}
