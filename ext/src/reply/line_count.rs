//! How many lines have ended: in LF, CRLF or CR, however the bytes are cut.

use memchr::memchr_iter;

#[derive(Default)]
pub(super) struct LineCount {
    ended: u64,
    /// The last byte was a CR; an LF behind it ends no other line.
    after_cr: bool,
}

impl LineCount {
    pub fn ended(&self) -> u64 {
        self.ended
    }

    pub fn take(&mut self, data: &[u8]) {
        let Some(&last) = data.last() else { return };
        let rest_of_crlf = self.after_cr && data.starts_with(b"\n");
        let crs = memchr_iter(b'\r', data).filter(|&at| data.get(at + 1) != Some(&b'\n'));
        let ends = memchr_iter(b'\n', data).count() + crs.count() - usize::from(rest_of_crlf);
        self.ended += ends as u64;
        self.after_cr = last == b'\r';
    }
}
