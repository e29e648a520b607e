//! What a child may bring into the log, and have read for nothing: so much a second. Pure.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// Lines for the log. The rest is counted.
#[derive(Debug)]
pub(super) struct Allowance {
    per_second: u32,
    since: Instant,
    used: u32,
    dropped: u64,
}

impl Allowance {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, since: now, used: 0, dropped: 0 }
    }

    /// Whether one more line may be written now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= SECOND {
            self.since = now;
            self.used = 0;
        }
        let is_free = self.used < self.per_second;
        if is_free {
            self.used += 1;
        } else {
            self.dropped += 1;
        }
        is_free
    }

    /// When to say how many lines were dropped, if any were.
    pub(super) fn account_due(&self) -> Option<Instant> {
        (self.dropped > 0).then(|| self.since + SECOND)
    }

    /// How many lines were dropped since this was asked last, if any were.
    pub(super) fn account(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.dropped)).filter(|dropped| *dropped > 0)
    }
}

/// Bytes that are read. The rest waits.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: usize,
    since: Instant,
    used: usize,
}

impl Pace {
    pub(super) fn new(per_second: usize, now: Instant) -> Self {
        Self { per_second, since: now, used: 0 }
    }

    /// So much was read now. Until when to read no more, if it was too much.
    pub(super) fn spend(&mut self, len: usize, now: Instant) -> Option<Instant> {
        if now.duration_since(self.since) >= SECOND {
            self.since = now;
            self.used = 0;
        }
        self.used += len;
        (self.used > self.per_second).then(|| self.since + SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_the_allowance_is_counted_until_the_next_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(2, start);
        assert_eq!(allowance.account_due(), None);
        let taken: Vec<bool> = (0..5).map(|_| allowance.take(start)).collect();
        assert_eq!(taken, [true, true, false, false, false]);
        assert_eq!(allowance.account_due(), Some(start + SECOND));
        assert!(allowance.take(start + SECOND), "a new second");
        assert_eq!((allowance.account(), allowance.account()), (Some(3), None));
    }

    #[test]
    fn who_has_said_too_much_waits_for_the_next_second() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert_eq!(pace.spend(10, start), None);
        assert_eq!(pace.spend(1, start), Some(start + SECOND));
        assert_eq!(pace.spend(10, start + SECOND), None);
    }
}
