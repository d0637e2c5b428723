//! The line of a request to a backend that says where its body ends (RFC 9112 §6).

#[derive(Debug)]
pub struct FramingLine {
    bytes: [u8; 48],
    from: usize,
}

impl FramingLine {
    /// As `encode` of the Python face takes it: a length, -1 for no line, -2 for chunked; None for anything else.
    pub fn new(body_length: i64) -> Option<Self> {
        let mut line = Self {
            bytes: [0; 48],
            from: 48,
        };
        match body_length {
            -1 => {}
            -2 => line.prepend(b"transfer-encoding: chunked\r\n"),
            0.. => {
                line.prepend(b"\r\n");
                let mut left = body_length.unsigned_abs();
                loop {
                    line.prepend(&[b'0' + (left % 10) as u8]);
                    left /= 10;
                    if left == 0 {
                        break;
                    }
                }
                line.prepend(b"content-length: ");
            }
            _ => return None,
        }
        Some(line)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }

    /// 48 bytes hold the longest: 16 of name, 19 digits of an i64 and CRLF, or the 28 of chunked.
    fn prepend(&mut self, text: &[u8]) {
        let from = self.from.saturating_sub(text.len());
        if let Some(place) = self.bytes.get_mut(from..self.from) {
            place.copy_from_slice(text);
            self.from = from;
        }
    }
}
