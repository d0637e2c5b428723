//! Which of some members a balance picks: pure, by what is known of each and a random number.

use super::balance::Balance;

/// What a balance looks at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    pub in_flight: u64,
    pub weight: u64,
    /// 0 = not measured.
    pub latency: u64,
}

/// One of the members in the mask; None if it is empty.
pub fn pick(
    balance: Balance,
    members: u64,
    random: u64,
    of: impl Fn(usize) -> Choice,
) -> Option<usize> {
    match balance {
        _ if members.count_ones() < 2 => nth(members, 0),
        Balance::LeastInFlight => least(members, random, of),
        Balance::Weighted => weighted(members, random, of),
        Balance::Latency => faster(members, random, of),
    }
}

/// Least (in flight + 1) / weight; of several one by chance.
fn least(members: u64, random: u64, of: impl Fn(usize) -> Choice) -> Option<usize> {
    let (mut ties, mut best) = (0_u64, Choice::default());
    for index in bits(members) {
        let choice = of(index);
        let (load, least) = (busy(choice) * weight(best), busy(best) * weight(choice));
        if ties == 0 || load < least {
            (ties, best) = (1 << index, choice);
        } else if load == least {
            ties |= 1 << index;
        }
    }
    nth(ties, random % u64::from(ties.count_ones().max(1)))
}

/// One by chance, as often as its weight says.
fn weighted(members: u64, random: u64, of: impl Fn(usize) -> Choice) -> Option<usize> {
    let total: u64 = bits(members).map(|index| of(index).weight).sum();
    let mut left = random % total.max(1);
    bits(members).find(|&index| {
        let weight = of(index).weight;
        let is_it = left < weight;
        left = left.saturating_sub(weight);
        is_it
    })
}

/// The one of two by chance that should answer first; one that was not measured and is idle, before all.
fn faster(members: u64, random: u64, of: impl Fn(usize) -> Choice) -> Option<usize> {
    let count = u64::from(members.count_ones());
    let first = random % count;
    let second = (first + 1 + (random >> 32) % (count - 1).max(1)) % count;
    let (one, two) = (nth(members, first)?, nth(members, second)?);
    let is_slower = of(two).is_before(of(one));
    Some(if is_slower { two } else { one })
}

impl Choice {
    fn is_before(self, other: Self) -> bool {
        let is_new = |choice: Self| choice.latency == 0 && choice.in_flight == 0;
        if is_new(self) || is_new(other) {
            return is_new(self) && !is_new(other);
        }
        // Two can be compared only if both were measured.
        let (mine, others) = match (self.latency, other.latency) {
            (0, _) | (_, 0) => (1, 1),
            (mine, others) => (u128::from(mine), u128::from(others)),
        };
        let score = |latency: u128, of: Self, weight_of: Self| {
            latency
                .saturating_mul(busy(of))
                .saturating_mul(weight(weight_of))
        };
        score(mine, self, other) < score(others, other, self)
    }
}

fn busy(choice: Choice) -> u128 {
    u128::from(choice.in_flight) + 1
}

fn weight(choice: Choice) -> u128 {
    u128::from(choice.weight)
}

/// The numbers of a mask's bits.
fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let index = (mask != 0).then(|| mask.trailing_zeros() as usize);
        mask &= mask.wrapping_sub(1);
        index
    })
}

/// The number of the nth bit, from 0.
fn nth(mask: u64, n: u64) -> Option<usize> {
    bits(mask).nth(usize::try_from(n).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Balance; 3] = [Balance::LeastInFlight, Balance::Weighted, Balance::Latency];

    proptest! {
        /// Whatever is known of the members, one of them is picked; none only of none.
        #[test]
        fn one_of_them(members: u64, random: u64, in_flight in 0..u64::MAX / 2, latency: u64, weight in 1..1_000_000_u64) {
            let of = |index: usize| Choice {
                in_flight: in_flight >> index,
                weight,
                latency: latency << index,
            };
            for balance in ALL {
                match pick(balance, members, random, of) {
                    Some(index) => prop_assert!(members >> index & 1 == 1),
                    None => prop_assert_eq!(members, 0),
                }
            }
        }

        /// Of two that differ the faster one, whichever chance names first.
        #[test]
        fn the_faster_of_two(one in 1..1_u64 << 40, other in 1..1_u64 << 40, busy in 0..1_000_u64, random: u64) {
            let latency = |index: usize| if index == 3 { one } else { other };
            let of = |index: usize| Choice { in_flight: busy, weight: 2, latency: latency(index) };
            let picked = pick(Balance::Latency, 0b1010, random, of).map(latency);
            prop_assert_eq!(picked, Some(one.min(other)));
        }
    }

    #[test]
    fn each_pair_comes_up() {
        let of = |index: usize| Choice {
            latency: 10 - index as u64,
            weight: 1,
            ..Choice::default()
        };
        let picked = (0..3).flat_map(|first| (0..2).map(move |second| second << 32 | first));
        let picked: Vec<_> = picked
            .filter_map(|random| pick(Balance::Latency, 0b111, random, of))
            .collect();
        // (0, 1), (1, 0), (1, 2), (2, 1), (2, 0), (0, 2)
        assert_eq!(picked, [1, 1, 2, 2, 2, 2]);
    }
}
