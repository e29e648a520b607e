//! What is told of many durations. Pure. Called by `svg` and `report`.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Quantiles {
    pub(super) count: usize,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) max: Duration,
}

impl Quantiles {
    /// `None` of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = Duration>) -> Option<Quantiles> {
        let mut values: Vec<Duration> = values.into_iter().collect();
        values.sort_unstable();
        let max = *values.last()?;
        // The smallest value that this share of the values does not exceed.
        let at = |percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        Some(Quantiles { count: values.len(), p50: at(50), p99: at(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_are_those_of_the_sorted_values() {
        let quantiles = Quantiles::of((1..=200).rev().map(Duration::from_millis));
        let ms = Duration::from_millis;
        assert_eq!(quantiles, Some(Quantiles { count: 200, p50: ms(100), p99: ms(198), max: ms(200) }));
        let one = Quantiles { count: 1, p50: ms(7), p99: ms(7), max: ms(7) };
        assert_eq!(Quantiles::of([ms(7)]), Some(one));
        assert_eq!(Quantiles::of([]), None);
    }
}
