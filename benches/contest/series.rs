//! One figure over the rounds of a run, and how figures are set against each other.
//!
//! An absolute figure from a shared machine proves nothing, a ratio does: so a ratio is taken within a round, where both
//! figures met the same machine, and only then the median over the rounds.

use std::collections::BTreeMap;

/// A figure of one contestant: its value in each round that has one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(BTreeMap<u32, f64>);

impl Series {
    /// Several values in one round become their mean.
    pub(crate) fn new(values: impl IntoIterator<Item = (u32, f64)>) -> Self {
        let mut rounds: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (round, value) in values {
            rounds.entry(round).or_default().push(value);
        }
        Self(rounds.into_iter().map(|(round, all)| (round, all.iter().sum::<f64>() / all.len() as f64)).collect())
    }

    /// The middle of the rounds; `None` without any.
    pub(crate) fn median(&self) -> Option<f64> {
        median(self.0.values().copied().collect())
    }

    /// The least and the most of the rounds; `None` without any.
    pub(crate) fn range(&self) -> Option<[f64; 2]> {
        let mut values: Vec<f64> = self.0.values().copied().collect();
        values.sort_by(f64::total_cmp);
        Some([*values.first()?, *values.last()?])
    }

    /// Both figures of the rounds that have both.
    pub(crate) fn with(&self, other: &Series, combine: impl Fn(f64, f64) -> f64) -> Series {
        let both = self.0.iter().filter_map(|(round, mine)| Some((*round, combine(*mine, *other.0.get(round)?))));
        Series(both.collect())
    }

    /// How many times `other`, round by round.
    pub(crate) fn over(&self, other: &Series) -> Series {
        self.with(other, |mine, theirs| mine / theirs)
    }

    /// The best of several in each round: whoever that is then.
    pub(crate) fn best(all: impl IntoIterator<Item = Series>, better: fn(f64, f64) -> f64) -> Series {
        let mut rounds: BTreeMap<u32, f64> = BTreeMap::new();
        for (round, value) in all.into_iter().flat_map(|series| series.0) {
            rounds.entry(round).and_modify(|best| *best = better(*best, value)).or_insert(value);
        }
        Series(rounds)
    }
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The value below which this share (0 to 1) of the values lies, by the nearest rank; `None` of nothing.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}
