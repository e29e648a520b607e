//! What happened when: phases of nodes, faults, and answers in intervals of 250 ms. Pure. Fed by `load` and `mod`,
//! drawn by `svg`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::At;
use super::quantiles::Quantiles;

/// Short enough to show a takeover of one second, long enough for some answers in each.
pub(super) const INTERVAL: Duration = Duration::from_millis(250);

/// What a node is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Up,
    Frozen,
    CutOff,
    Draining,
    Down,
}

impl Phase {
    pub(super) const ALL: [Phase; 5] =
        [Phase::Up, Phase::Frozen, Phase::CutOff, Phase::Draining, Phase::Down];

    pub(super) fn name(self) -> &'static str {
        match self {
            Phase::Up => "up",
            Phase::Frozen => "frozen",
            Phase::CutOff => "cut off",
            Phase::Draining => "draining",
            Phase::Down => "down",
        }
    }
}

/// A stretch of a node's lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) from: At,
    pub(super) until: At,
    pub(super) phase: Phase,
}

/// A fault from its beginning to its healing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) from: At,
    pub(super) until: Option<At>,
    pub(super) label: String,
}

/// One interval's answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Bucket {
    pub(super) ok: u32,
    pub(super) failed: u32,
    /// Of the good ones.
    latencies: Vec<Duration>,
}

impl Bucket {
    pub(super) fn latency(&self) -> Option<Quantiles> {
        Quantiles::of(self.latencies.iter().copied())
    }
}

/// The whole run.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    lanes: BTreeMap<String, Vec<(At, Phase)>>,
    marks: Vec<Mark>,
    buckets: Vec<Bucket>,
    end: At,
}

impl Timeline {
    /// A node is in another phase from now on.
    pub(super) fn phase(&mut self, node: &str, at: At, phase: Phase) {
        self.lanes.entry(node.to_owned()).or_default().push((at, phase));
        self.end = self.end.max(at);
    }

    /// A fault begins.
    pub(super) fn begun(&mut self, label: String, at: At) {
        self.marks.push(Mark { from: at, until: None, label });
        self.end = self.end.max(at);
    }

    /// It is undone.
    pub(super) fn healed(&mut self, at: At) {
        if let Some(mark) = self.marks.last_mut() {
            mark.until = Some(at);
        }
        self.end = self.end.max(at);
    }

    /// A call has ended.
    pub(super) fn answered(&mut self, sent: At, done: At, is_good: bool) {
        let at = (done.as_millis() / INTERVAL.as_millis()) as usize;
        if self.buckets.len() <= at {
            self.buckets.resize_with(at + 1, Bucket::default);
        }
        let bucket = &mut self.buckets[at];
        if is_good {
            bucket.ok += 1;
            bucket.latencies.push(done.saturating_sub(sent));
        } else {
            bucket.failed += 1;
        }
        self.end = self.end.max(done);
    }

    pub(super) fn end(&self) -> At {
        self.end
    }

    pub(super) fn marks(&self) -> &[Mark] {
        &self.marks
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Each node and the phases that it went through, without gaps.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (&str, Vec<Stretch>)> {
        self.lanes.iter().map(|(node, changes)| {
            let ends = changes.iter().skip(1).map(|(at, _)| *at).chain([self.end]);
            let stretches = changes.iter().zip(ends);
            let stretches =
                stretches.map(|((from, phase), until)| Stretch { from: *from, until, phase: *phase });
            (node.as_str(), stretches.collect())
        })
    }

    /// Of all good answers of the last while, for a line of progress.
    pub(super) fn recent(&self, at: At, length: Duration) -> (u32, u32, Option<Quantiles>) {
        let first = (at.saturating_sub(length).as_millis() / INTERVAL.as_millis()) as usize;
        let buckets = self.buckets.get(first..).unwrap_or_default();
        let (ok, failed) = buckets.iter().fold((0, 0), |(ok, failed), b| (ok + b.ok, failed + b.failed));
        (ok, failed, Quantiles::of(buckets.iter().flat_map(|bucket| bucket.latencies.iter().copied())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> At {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_lane_has_no_gaps_and_lasts_until_the_end() {
        let mut timeline = Timeline::default();
        timeline.phase("a", ms(0), Phase::Up);
        timeline.phase("a", ms(500), Phase::Down);
        timeline.answered(ms(890), ms(900), true);
        let lanes: Vec<_> = timeline.lanes().collect();
        let up = Stretch { from: ms(0), until: ms(500), phase: Phase::Up };
        let down = Stretch { from: ms(500), until: ms(900), phase: Phase::Down };
        assert_eq!(lanes, [("a", vec![up, down])]);
    }

    #[test]
    fn answers_are_counted_where_they_ended() {
        let mut timeline = Timeline::default();
        timeline.answered(ms(100), ms(249), true);
        timeline.answered(ms(100), ms(600), true);
        timeline.answered(ms(100), ms(600), false);
        let counts: Vec<_> = timeline.buckets().iter().map(|bucket| (bucket.ok, bucket.failed)).collect();
        assert_eq!(counts, [(1, 0), (0, 0), (1, 1)]);
        assert_eq!(timeline.buckets()[2].latency().map(|quantiles| quantiles.max), Some(ms(500)));
        assert_eq!(timeline.buckets()[1].latency(), None);
        let (ok, failed, latency) = timeline.recent(ms(700), ms(300));
        assert_eq!((ok, failed, latency.map(|quantiles| quantiles.p50)), (1, 1, Some(ms(500))));
    }
}
