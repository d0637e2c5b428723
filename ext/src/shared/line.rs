//! The line before busy backends, fair between keys: start-time fair queueing over all processes.
//!
//! A request's tag is the line's time, which is the tag of the last one served, or one more than its key's last tag.
//! So a key that asks for much waits behind its own requests, and who just came does not. The requests wait in their
//! processes; shared are the tags, and of each process how many wait and the lowest tag at each backend.

use std::sync::atomic::Ordering::*;

use super::targets::{AT_BACKENDS_USED, AT_HIGHEST, AT_SERVED, Backend, Targets, total};

impl Targets {
    /// The tag of a request of that key, which waits from now on. At least 1.
    pub fn join_line(&self, key: u64) -> u64 {
        let time = self.header(AT_SERVED).load(SeqCst).max(1);
        let tag = self.next_tag(key).map_or(time, |next| {
            next.fetch_max(time, SeqCst);
            next.fetch_add(1, SeqCst)
        });
        self.header(AT_HIGHEST).fetch_max(tag, SeqCst);
        if let Some(count) = self.in_line().get(self.slot()) {
            count.fetch_add(1, SeqCst);
        }
        tag
    }

    /// One that joined waits no more.
    pub fn leave_line(&self) {
        if let Some(count) = self.in_line().get(self.slot()) {
            let _ = count.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1));
        }
    }

    /// The line's time is that of a request with this tag.
    pub fn served(&self, tag: u64) {
        self.header(AT_SERVED).fetch_max(tag, SeqCst);
    }

    /// How many requests wait, in all processes.
    pub fn waiting(&self) -> u64 {
        total(self.in_line())
    }

    /// About how many wait with a lower tag in other processes.
    ///
    /// Of each is known how many wait and the lowest tag: the others are taken to lie evenly up to the highest one.
    pub fn ahead(&self, tag: u64) -> u64 {
        let highest = self.header(AT_HIGHEST).load(SeqCst);
        let others = (0..self.slots_used()).filter(|&slot| slot != self.slot());
        let ahead = others.map(|slot| {
            let count = self
                .in_line()
                .get(slot)
                .map_or(0, |count| count.load(SeqCst));
            match self.lowest_of(slot) {
                Some(lowest) if lowest < tag => part_below(tag, lowest, highest, count),
                _ => 0,
            }
        });
        ahead.fold(0, u64::saturating_add)
    }

    /// The lowest tag that waits in a slot's process, at any backend.
    fn lowest_of(&self, slot: usize) -> Option<u64> {
        let backends = 0..self.used(AT_BACKENDS_USED, self.backends);
        let tags = backends.filter_map(|index| {
            let lowest = self.backend(index)?.lowest.get(slot)?.load(SeqCst);
            (lowest != 0).then_some(lowest)
        });
        tags.min()
    }
}

impl Backend<'_> {
    /// Says what waits here in that slot's process: how many, and the lowest tag.
    pub fn wait(&self, slot: usize, lowest: u64, count: u64) {
        if let (Some(tag), Some(waiting)) = (self.lowest.get(slot), self.waiting.get(slot)) {
            tag.store(if count == 0 { 0 } else { lowest }, SeqCst);
            waiting.store(count, SeqCst);
        }
    }

    /// How many wait here, in all processes.
    pub fn waiting(&self) -> u64 {
        total(self.waiting)
    }

    /// Whether others go first: for a tag those of other processes with lower ones, for a newcomer (0) all who wait.
    #[inline]
    pub fn is_before_me(&self, tag: u64, slot: usize) -> bool {
        let first = |(index, lowest): (usize, u64)| {
            lowest != 0 && (tag == 0 || lowest < tag && index != slot)
        };
        let lowest = self.lowest.iter().map(|lowest| lowest.load(SeqCst));
        lowest.enumerate().any(first)
    }
}

/// How many of `count` tags that lie evenly from `lowest` to `highest` are below `tag`; the lowest is.
fn part_below(tag: u64, lowest: u64, highest: u64, count: u64) -> u64 {
    let all = u128::from(highest.saturating_sub(lowest)) + 1;
    let below = all.min(u128::from(tag.saturating_sub(lowest)));
    let part = u128::from(count) * below / all;
    u64::try_from(part).unwrap_or(count).max(count.min(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The share grows with the tag, from one to all.
        #[test]
        fn a_share(lowest in 1..u64::MAX / 2, span in 0..1_000_u64, count in 0..10_000_u64, tag: u64) {
            let highest = lowest + span;
            prop_assert_eq!(part_below(lowest, lowest, highest, count), count.min(1));
            prop_assert_eq!(part_below(highest + 1, lowest, highest, count), count);
            let part = part_below(tag, lowest, highest, count);
            prop_assert!(part <= count && part <= part_below(tag.saturating_add(1), lowest, highest, count));
        }
    }
}
