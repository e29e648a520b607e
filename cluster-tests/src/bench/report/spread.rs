//! The same thing measured several times, round by round. Called by everything that measures.

use serde::{Serialize, Serializer};

/// Values in the order of their rounds, so that two can be compared round by round.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Spread(Vec<f64>);

impl Spread {
    /// # Panics
    /// Where nothing was measured.
    pub(in super::super) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "a spread of at least one value");
        Spread(values)
    }

    /// The middle value, or the mean of the two in the middle.
    pub(in super::super) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 }
    }

    pub(in super::super) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(in super::super) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The same in another unit.
    pub(in super::super) fn scaled(&self, by: f64) -> Spread {
        Spread(self.0.iter().map(|value| value * by).collect())
    }

    /// Beside another one, round by round.
    pub(in super::super) fn over(&self, other: &Spread) -> Spread {
        self.zip(other, |one, other| one / other)
    }

    /// How much more than another one, round by round.
    pub(in super::super) fn minus(&self, other: &Spread) -> Spread {
        self.zip(other, |one, other| one - other)
    }

    fn zip(&self, other: &Spread, with: fn(f64, f64) -> f64) -> Spread {
        Spread::of(self.0.iter().zip(&other.0).map(|(one, other)| with(*one, *other)))
    }
}

impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'a> {
            median: f64,
            min: f64,
            max: f64,
            rounds: &'a [f64],
        }
        let written = Written { median: self.median(), min: self.min(), max: self.max(), rounds: &self.0 };
        written.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    }

    #[test]
    fn what_is_compared_is_compared_round_by_round() {
        let (one, other) = (Spread::of([4.0, 9.0]), Spread::of([2.0, 3.0]));
        assert_eq!(one.over(&other), Spread::of([2.0, 3.0]));
        assert_eq!(one.minus(&other), Spread::of([2.0, 6.0]));
        assert_eq!((one.min(), one.max()), (4.0, 9.0));
    }
}
