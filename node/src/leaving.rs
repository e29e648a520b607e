//! A node's leaving: when each part of a drain is due, and word of it for whatever would not end by
//! itself in time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Three rounds of gossip: the news is with the others.
const NEWS_TIME: Duration = Duration::from_millis(600);
/// A node is no balancer's target any more when no new request has come for so long: balancers look at
/// /readyz every second or so.
const QUIET: Duration = Duration::from_secs(2);
/// Between the ends of two streams, on average, as long as all of them end in the first half of the
/// drain: their clients connect anew, and their sessions' owners ask the upstreams anew.
const STREAM_EVERY: Duration = Duration::from_millis(250);
/// 2^32 divided by the golden ratio: multiples of it, modulo 2^32, fill that range evenly however many
/// there are (Weyl, 1916).
const GOLDEN: u32 = 2_654_435_769;

/// When each part of a drain is due at the latest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    began: Instant,
    /// The others know that this node drains.
    pub(crate) told: Instant,
    /// No new connections are taken from here on, whoever still sends requests.
    closes: Instant,
    /// New calls of sessions that are never idle have to wait from here on.
    pub(crate) parks: Instant,
    /// What is still in progress is cut off.
    pub(crate) cut: Instant,
    /// For each of the last steps: the cut, this node's own end, what was on its way then, the news of
    /// it, closed connections.
    pub(crate) step: Duration,
}

impl Schedule {
    pub(crate) fn new(began: Instant, time: Duration) -> Self {
        // Five steps in the last third, or less.
        let step = NEWS_TIME.min(time / 15);
        Self {
            began,
            told: began + NEWS_TIME.min(time / 8),
            closes: began + time / 3,
            parks: began + time / 2,
            cut: began + time - 5 * step,
            step,
        }
    }

    /// The first stream of the server's own ends here: balancers have been told by then.
    fn streams_end_from(&self) -> Instant {
        self.closes.min(self.began + QUIET)
    }
}

/// Told by whoever runs the drain, heard by the mouths.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    begun: AtomicBool,
    /// When the latest request came, of those that came since it began.
    asked: Mutex<Option<Instant>>,
    streams_end: watch::Sender<Option<Spread>>,
    turns: AtomicU32,
    cut: CancellationToken,
}

/// Streams end one after the other in this time.
#[derive(Clone, Copy, Debug)]
struct Spread {
    from: Instant,
    over: Duration,
}

/// A stream's place among all that have to end, the same for as long as it lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn(u32);

impl Leaving {
    /// The node drains, with so many streams open.
    pub(crate) fn begin(&self, schedule: &Schedule, streams: u32) {
        self.begun.store(true, Ordering::Release);
        let from = schedule.streams_end_from();
        let over = (STREAM_EVERY * streams).min(schedule.parks.saturating_duration_since(from));
        self.streams_end.send_replace(Some(Spread { from, over }));
    }

    /// What is still in progress ends now.
    pub(crate) fn cut_off(&self) {
        self.cut.cancel();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire)
    }

    /// A client has asked for something.
    pub(crate) fn note_request(&self) {
        if self.has_begun() {
            *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Resolves when clients have stopped coming, or must be stopped.
    pub(crate) async fn quiet(&self, schedule: &Schedule) {
        loop {
            let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            let until = schedule.closes.min(asked.unwrap_or(schedule.began) + QUIET);
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// For a new stream of the server's own.
    pub(crate) fn turn(&self) -> Turn {
        Turn(self.turns.fetch_add(1, Ordering::Relaxed).wrapping_mul(GOLDEN))
    }

    /// Resolves when the stream with that turn has to end.
    pub(crate) async fn comes_to(&self, turn: Turn) {
        let mut streams_end = self.streams_end.subscribe();
        let spread = streams_end.wait_for(Option::is_some).await.ok().and_then(|spread| *spread);
        let Some(Spread { from, over }) = spread else { return };
        let part = over.mul_f64(f64::from(turn.0) / f64::from(u32::MAX));
        tokio::time::sleep_until(from + part).await;
    }

    /// Resolves when what is still in progress has to end.
    pub(crate) async fn cuts(&self) {
        self.cut.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_time_a_drain_has_its_parts_fit_into_it() {
        let began = Instant::now();
        for ms in [0, 1, 10, 500, 1_000, 2_000, 10_000, 30_000, 60_000, 86_400_000] {
            let time = Duration::from_millis(ms);
            let schedule = Schedule::new(began, time);
            let Schedule { told, closes, parks, cut, step, .. } = schedule;
            assert!(began <= told && told <= closes && closes <= parks && parks <= cut, "{schedule:?}");
            assert!(cut + 5 * step <= began + time, "{schedule:?}");
            assert!(schedule.streams_end_from() <= closes, "{schedule:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_one_by_one_in_the_first_half() {
        let leaving = Leaving::default();
        let began = Instant::now();
        let schedule = Schedule::new(began, Duration::from_secs(60));
        let turns: Vec<_> = (0..40).map(|_| leaving.turn()).collect();
        leaving.begin(&schedule, 40);
        let mut ends = Vec::new();
        for turn in turns {
            let at = tokio::time::timeout(Duration::from_secs(60), leaving.comes_to(turn));
            let asked = Instant::now();
            at.await.expect("in time");
            assert!(Instant::now() <= schedule.parks.max(asked));
            ends.push(turn.0);
        }
        // In any tenth of the time some end, and not half of them.
        for tenth in 0..10u32 {
            let range = u32::MAX / 10 * tenth..=u32::MAX / 10 * (tenth + 1);
            let some = ends.iter().filter(|end| range.contains(end)).count();
            assert!((2..=8).contains(&some), "{some} in the tenth {tenth}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_may_come_until_they_stop_coming_but_not_for_ever() {
        let leaving = Leaving::default();
        let began = Instant::now();
        let schedule = Schedule::new(began, Duration::from_secs(30));
        leaving.begin(&schedule, 0);
        leaving.note_request();
        let coming = async {
            loop {
                leaving.note_request();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            () = coming => {}
            () = leaving.quiet(&schedule) => {}
        }
        assert_eq!(began.elapsed(), Duration::from_secs(10));
        let began = Instant::now();
        let schedule = Schedule::new(began, Duration::from_secs(30));
        Leaving::default().quiet(&schedule).await;
        assert_eq!(began.elapsed(), QUIET);
    }
}
