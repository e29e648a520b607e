//! How long it takes until sessions of a node that is over go on here: from the first sign of its end.

use super::metrics::Metrics;
use proto::id::NodeRef;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A session that nobody asked for until then says nothing of how fast it could have gone on.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// Ends that are remembered at once; each is forgotten within [`ASKED_WITHIN`].
const REMEMBERED_MAX: usize = 64;

/// Nodes whose end this node has noticed, until the first session of each has been served here.
#[derive(Debug, Default)]
pub(super) struct Deaths(Mutex<Vec<(NodeRef, Instant)>>);

impl Metrics {
    /// Something says that this node is over, or may be.
    pub(crate) fn death_noticed(&self, node: NodeRef) {
        let mut noticed = self.deaths.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.retain(|(_, at)| at.elapsed() < ASKED_WITHIN);
        if noticed.len() < REMEMBERED_MAX && !noticed.iter().any(|(other, _)| *other == node) {
            noticed.push((node, Instant::now()));
        }
    }

    /// It lives after all.
    pub(crate) fn death_denied(&self, node: NodeRef) {
        self.deaths.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != node);
    }

    /// A session was served here whose home is that node: the first one after its end counts. One that has
    /// been taken over before was another node's in between, the last that ended as far as one can tell.
    pub(crate) fn taken_over(&self, home: NodeRef) {
        let mut noticed = self.deaths.0.lock().unwrap_or_else(PoisonError::into_inner);
        noticed.retain(|(_, at)| at.elapsed() < ASKED_WITHIN);
        let at = noticed.iter().position(|(node, _)| *node == home);
        let Some(at) = at.or(noticed.len().checked_sub(1)) else { return };
        let (_, since) = noticed.remove(at);
        self.takeover_seconds.observe(since.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::id::{Incarnation, Tag};

    #[test]
    fn only_the_first_session_of_each_end_counts() {
        let (metrics, node) = (Metrics::new(), |tag| NodeRef { tag: Tag(tag), inc: Incarnation(1) });
        let counted = |count: u32| {
            let line = format!("ringway_takeover_seconds_count {count}\n");
            metrics.render(crate::telemetry::Format::Plain).contains(&line)
        };
        metrics.taken_over(node(1));
        assert!(counted(0), "nothing has ended");
        metrics.death_noticed(node(1));
        metrics.death_noticed(node(1));
        metrics.death_noticed(node(2));
        metrics.death_denied(node(2));
        for _ in 0..3 {
            metrics.taken_over(node(1));
        }
        assert!(counted(1));
        metrics.death_noticed(node(3));
        metrics.taken_over(node(1));
        assert!(counted(2), "it was node 3's in between");
    }
}
