//! What everything that runs at the same time shares: the clock, the nodes to call, and the two records.
//! No lock of it is held across an await.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ledger::{At, Ledger};
use super::targets::Targets;
use super::timeline::Timeline;

#[derive(Debug)]
pub(super) struct Scene {
    began: Instant,
    pub(super) targets: Targets,
    /// How long a client waits for an answer.
    pub(super) deadline: Duration,
    ledger: Mutex<Ledger>,
    timeline: Mutex<Timeline>,
}

impl Scene {
    pub(super) fn new(targets: Targets, ledger: Ledger, deadline: Duration) -> Scene {
        let (ledger, timeline) = (Mutex::new(ledger), Mutex::default());
        Scene { began: Instant::now(), targets, deadline, ledger, timeline }
    }

    /// The time since the run began.
    pub(super) fn now(&self) -> At {
        self.began.elapsed()
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn timeline(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
