//! Passing over a value of any depth, checking it, without recursion.

use super::cursor::{Checked, Cursor, MAX_DEPTH};

impl Cursor<'_> {
    /// Pass over the value, checking it.
    pub fn skip(&mut self) -> Checked<()> {
        match self.byte() {
            b'{' | b'[' => self.skip_container(),
            _ => self.scalar(),
        }
    }

    fn skip_container(&mut self) -> Checked<()> {
        let outside = self.depth;
        let mut kinds = Kinds::default();
        loop {
            match self.byte() {
                bracket @ (b'{' | b'[') => {
                    self.open()?;
                    kinds.set(self.depth, bracket == b'{');
                }
                _ => self.scalar()?,
            }
            if !self.reach_value(&kinds, outside)? {
                return Ok(());
            }
        }
    }

    /// Go on to the next value, closing what ends; false when all above `outside` has.
    fn reach_value(&mut self, kinds: &Kinds, outside: usize) -> Checked<bool> {
        while self.depth > outside {
            let another = if kinds.is_object(self.depth) {
                self.next_key()?.is_some()
            } else {
                self.next_item()?
            };
            if another {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Which levels are objects, a bit each.
#[derive(Default)]
struct Kinds([u64; MAX_DEPTH / 64 + 1]);

impl Kinds {
    fn set(&mut self, level: usize, object: bool) {
        if let Some(word) = self.0.get_mut(level / 64) {
            let bit = 1 << (level % 64);
            *word = if object { *word | bit } else { *word & !bit };
        }
    }

    fn is_object(&self, level: usize) -> bool {
        let word = self.0.get(level / 64).copied().unwrap_or(0);
        word >> (level % 64) & 1 == 1
    }
}
