//! Windows of time: which calendar window an instant lies in, in UTC, and when that ends.

const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;

/// How a limit forgets what was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Window {
    /// A token bucket (GCRA) on the monotonic clock.
    Bucket = 0,
    Hour = 1,
    Day = 2,
    Month = 3,
    /// In flight: given back, not forgotten.
    None = 4,
}

impl Window {
    pub const ALL: [Window; 5] = [
        Window::Bucket,
        Window::Hour,
        Window::Day,
        Window::Month,
        Window::None,
    ];

    pub fn of(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// An instant on both clocks, and the numbers of the calendar windows it lies in, counted from 1970.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Monotonic, ns.
    pub now: u64,
    /// Since 1970, ns.
    pub wall: u64,
    hour: u64,
    day: u64,
    month: u64,
}

impl Clock {
    pub fn new(now: u64, wall: u64) -> Self {
        let day = wall / DAY_NS;
        let (year, month, _) = civil(day);
        Self {
            now,
            wall,
            hour: wall / HOUR_NS,
            day,
            month: (year - 1970) * 12 + month - 1,
        }
    }

    /// The number of the window that the wall clock lies in; 0 where there are none.
    pub fn index(&self, window: Window) -> u64 {
        match window {
            Window::Hour => self.hour,
            Window::Day => self.day,
            Window::Month => self.month,
            Window::Bucket | Window::None => 0,
        }
    }

    /// The whole number of the window of which a cell kept the low 16 bits: the one nearest to ours.
    pub fn widen(&self, window: Window, low: u16) -> u64 {
        let ours = self.index(window);
        ours.saturating_add_signed(i64::from(newer(low, ours as u16)))
    }

    /// From the wall clock to the end of that window, ns.
    pub fn until_end(&self, window: Window, index: u64) -> u64 {
        start_ns(window, index.saturating_add(1)).saturating_sub(self.wall)
    }

    /// From the end of that window to the wall clock, ns.
    pub fn since_end(&self, window: Window, index: u64) -> u64 {
        self.wall
            .saturating_sub(start_ns(window, index.saturating_add(1)))
    }

    /// The length in s of the window that the wall clock lies in.
    pub fn length_s(&self, window: Window) -> u64 {
        let index = self.index(window);
        (start_ns(window, index + 1) - start_ns(window, index)) / 1_000_000_000
    }
}

/// How much newer `a` is than `b`, as serial numbers (RFC 1982): right if they are less than 32768 apart.
pub fn newer(a: u16, b: u16) -> i16 {
    a.wrapping_sub(b) as i16
}

fn start_ns(window: Window, index: u64) -> u64 {
    match window {
        Window::Hour => index.saturating_mul(HOUR_NS),
        Window::Day => index.saturating_mul(DAY_NS),
        Window::Month => days_before(1970 + index / 12, index % 12 + 1).saturating_mul(DAY_NS),
        Window::Bucket | Window::None => 0,
    }
}

/// (year, month, day) of a day counted from 1970, in the Gregorian calendar; years counted from March as leap days
/// then come last (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// Days from 1970 to the first of that month.
fn days_before(year: u64, month: u64) -> u64 {
    let year = year - u64::from(month <= 2);
    let era = year / 400;
    let of_era = year % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// "YYYY-MM-DD HH:MM:SS.mmm" in UTC.
pub fn text(wall_ns: u64) -> String {
    let (year, month, day) = civil(wall_ns / DAY_NS);
    let ms = wall_ns % DAY_NS / 1_000_000;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{:03}",
        ms % 1000
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_1200_years_has_its_month() {
        let mut expected = (1970, 1, 1);
        for day in 0..440_000 {
            let (year, month, of_month) = civil(day);
            assert_eq!((year, month, of_month), expected);
            if of_month == 1 {
                assert_eq!(days_before(year, month), day);
            }
            expected = next(expected);
        }
    }

    fn next((year, month, day): (u64, u64, u64)) -> (u64, u64, u64) {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = [
            31,
            if leap { 29 } else { 28 },
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ][month as usize - 1];
        match (month, day) {
            (12, 31) => (year + 1, 1, 1),
            _ if day == last => (year, month + 1, 1),
            _ => (year, month, day + 1),
        }
    }

    #[test]
    fn a_kept_index_widens_to_the_nearest_window() {
        let clock = Clock::new(0, 500_000 * HOUR_NS);
        for index in [
            500_000,
            499_999,
            500_001,
            500_000 - 30_000,
            500_000 + 30_000,
        ] {
            assert_eq!(clock.widen(Window::Hour, index as u16), index);
        }
    }
}
