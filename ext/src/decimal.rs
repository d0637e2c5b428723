//! Whole numbers as decimal digits, without the machinery of `format!`.

/// The digits of a number, without leading zeros.
pub struct Decimal {
    bytes: [u8; 20],
    from: usize,
}

impl Decimal {
    #[inline]
    pub fn new(mut number: u64) -> Self {
        let mut this = Self {
            bytes: [0; 20],
            from: 20,
        };
        while number >= 100 {
            let two = (number % 100) as u8;
            number /= 100;
            this.prepend([b'0' + two / 10, b'0' + two % 10]);
        }
        let rest = number as u8;
        if rest >= 10 {
            this.prepend([b'0' + rest / 10, b'0' + rest % 10]);
        } else {
            this.prepend([b'0' + rest]);
        }
        this
    }

    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }

    /// 20 bytes hold the longest, 2**64 - 1.
    #[inline]
    fn prepend<const COUNT: usize>(&mut self, digits: [u8; COUNT]) {
        let from = self.from.saturating_sub(COUNT);
        if let Some(place) = self.bytes.get_mut(from..from + COUNT) {
            place.copy_from_slice(&digits);
        }
        self.from = from;
    }
}

/// Appends the digits of a number.
#[inline]
pub fn push(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(Decimal::new(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::push;

    fn text(number: u64) -> String {
        let mut out = Vec::new();
        push(&mut out, number);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn around_every_power_of_ten() {
        for power in 0..20 {
            let near = 10u64.pow(power);
            for number in [near - 1, near, near + 1] {
                assert_eq!(text(number), number.to_string());
            }
        }
        assert_eq!(text(u64::MAX), u64::MAX.to_string());
    }

    proptest! {
        #[test]
        fn as_the_standard_library_writes_them(number in any::<u64>(), shift in 0..64u32) {
            prop_assert_eq!(text(number >> shift), (number >> shift).to_string());
        }
    }
}
