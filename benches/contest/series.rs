//! A value over the rounds of a run, and comparisons of such values.
//!
//! An absolute value from a shared machine proves nothing, but a ratio does. So a ratio is taken within a round, where
//! both values come from the same conditions, and only then the median over the rounds.

use std::collections::BTreeMap;

/// A contestant's value in each round that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(BTreeMap<u32, f64>);

impl Series {
    /// Creates a series. Several values in one round are replaced by their mean.
    pub(crate) fn new(values: impl IntoIterator<Item = (u32, f64)>) -> Self {
        let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (round, value) in values {
            rounds.entry(round).or_default().push(value);
        }
        Self(rounds.into_iter().map(|(round, all)| (round, all.iter().sum::<f64>() / all.len() as f64)).collect())
    }

    /// The median over the rounds. `None` if there are no rounds.
    pub(crate) fn median(&self) -> Option<f64> {
        median(self.0.values().copied().collect())
    }

    /// The minimum and maximum over the rounds. `None` if there are no rounds.
    pub(crate) fn range(&self) -> Option<[f64; 2]> {
        let mut values: Vec<f64> = self.0.values().copied().collect();
        values.sort_by(f64::total_cmp);
        Some([*values.first()?, *values.last()?])
    }

    /// Combines the values of the rounds that both series have.
    pub(crate) fn with(&self, other: &Series, combine: impl Fn(f64, f64) -> f64) -> Series {
        let both = self.0.iter().filter_map(|(round, mine)| Some((*round, combine(*mine, *other.0.get(round)?))));
        Series(both.collect())
    }

    /// The ratio of this series to `other`, round by round.
    pub(crate) fn over(&self, other: &Series) -> Series {
        self.with(other, |mine, theirs| mine / theirs)
    }

    /// The best of several series in each round, which may be a different one each time.
    pub(crate) fn best(all: impl IntoIterator<Item = Series>, better: fn(f64, f64) -> f64) -> Series {
        let mut rounds: BTreeMap<u32, f64> = BTreeMap::new();
        for (round, value) in all.into_iter().flat_map(|series| series.0) {
            rounds.entry(round).and_modify(|best| *best = better(*best, value)).or_insert(value);
        }
        Series(rounds)
    }
}

/// The middle value, or the mean of the two middle values. `None` if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The percentile for this share (0 to 1) by nearest rank. `None` if there are no values.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}
