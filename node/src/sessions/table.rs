//! What this node knows of the sessions that it owns, and for a while of those that it owned.

use crate::config::{Route, UpstreamUrl};
use hyper::header::HeaderValue;
use proto::core::route::Holding;
use proto::id::Nonce;
use proto::wire::{GoneWhy, SessionState};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// "Ended" is told from "never was" for the last 100,000 sessions: 32 bytes each, 3 MiB.
const TOMBSTONES_MAX: usize = 100_000;
/// A session is called idle when nothing of it has been in progress for this long: longer than an
/// agent thinks between two calls.
const IDLE_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Table {
    entries: Mutex<Entries>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Entries {
    live: HashMap<Nonce, Arc<Live>>,
    ended: HashMap<Nonce, GoneWhy>,
    ended_order: VecDeque<Nonce>,
}

/// A session that is served here.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) route: Arc<Route>,
    /// Which of the route's upstreams.
    pub(super) upstream: usize,
    pub(super) upstream_session: HeaderValue,
    /// Since the table was made.
    last_used_ms: AtomicU64,
    /// Requests and streams in progress.
    open: AtomicU32,
}

impl Live {
    pub(super) fn url(&self) -> &UpstreamUrl {
        &self.route.upstreams[self.upstream]
    }
}

/// While it exists, its session is not idle.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) live: Arc<Live>,
    started: Instant,
}

impl InUse {
    fn new(live: Arc<Live>, started: Instant) -> Self {
        live.open.fetch_add(1, Ordering::Relaxed);
        Self { live, started }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.live.last_used_ms.store(now_ms, Ordering::Relaxed);
        // Whoever sees it unused sees when it was used.
        self.live.open.fetch_sub(1, Ordering::Release);
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), started: Instant::now() }
    }

    pub(super) fn holding(&self, nonce: Nonce) -> Holding {
        let entries = self.entries();
        match entries.ended.get(&nonce) {
            _ if entries.live.contains_key(&nonce) => Holding::Live,
            Some(why) => Holding::Ended(*why),
            None => Holding::Unknown,
        }
    }

    pub(super) fn state(&self, nonce: Nonce) -> SessionState {
        let entries = self.entries();
        match entries.live.get(&nonce) {
            Some(live) if self.is_idle(live, IDLE_AFTER) => {
                let idle_s = self.idle_for(live).as_secs();
                SessionState::Idle { idle_s: u32::try_from(idle_s).unwrap_or(u32::MAX) }
            }
            Some(_) => SessionState::Live,
            None => SessionState::Ended(entries.ended.get(&nonce).copied().unwrap_or(GoneWhy::Unknown)),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.entries().live.len()
    }

    /// How many sessions are live, and how many idle.
    pub(super) fn census(&self) -> (usize, usize) {
        let entries = self.entries();
        let idle = entries.live.values().filter(|live| self.is_idle(live, IDLE_AFTER)).count();
        (entries.live.len() - idle, idle)
    }

    /// A new session, in use from the start.
    pub(super) fn insert(
        &self,
        nonce: Nonce,
        route: Arc<Route>,
        upstream: usize,
        upstream_session: HeaderValue,
    ) -> InUse {
        let (last_used_ms, open) = (AtomicU64::new(0), AtomicU32::new(0));
        let live = Arc::new(Live { route, upstream, upstream_session, last_used_ms, open });
        let in_use = InUse::new(live.clone(), self.started);
        self.entries().live.insert(nonce, live);
        in_use
    }

    /// Takes a session into use, so that it does not expire meanwhile.
    pub(super) fn take_up(&self, nonce: Nonce) -> Option<InUse> {
        let entries = self.entries();
        entries.live.get(&nonce).map(|live| InUse::new(live.clone(), self.started))
    }

    /// Takes a session out and leaves a tombstone.
    pub(super) fn end(&self, nonce: Nonce, why: GoneWhy) -> Option<Arc<Live>> {
        self.entries().end(nonce, why)
    }

    /// Takes out every session that has idled for longer than its route allows.
    pub(super) fn expire(&self) -> Vec<Arc<Live>> {
        let mut entries = self.entries();
        let is_expired = |live: &Live| self.is_idle(live, live.route.idle_timeout);
        let expired = entries.live.iter().filter(|(_, live)| is_expired(live));
        let expired: Vec<_> = expired.map(|(nonce, _)| *nonce).collect();
        expired.into_iter().filter_map(|nonce| entries.end(nonce, GoneWhy::Expired)).collect()
    }

    fn is_idle(&self, live: &Live, after: Duration) -> bool {
        live.open.load(Ordering::Acquire) == 0 && self.idle_for(live) >= after
    }

    fn idle_for(&self, live: &Live) -> Duration {
        let last_used = Duration::from_millis(live.last_used_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last_used)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn end(&mut self, nonce: Nonce, why: GoneWhy) -> Option<Arc<Live>> {
        let live = self.live.remove(&nonce)?;
        self.ended.insert(nonce, why);
        self.ended_order.push_back(nonce);
        if self.ended_order.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.ended_order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        Some(live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Affinity, BODY_LEN_MAX_DEFAULT};
    use proto::core::route::OnLoss;
    use proto::id::RouteId;

    fn route(idle_timeout: Duration) -> Arc<Route> {
        Arc::new(Route {
            id: RouteId::of("/mcp"),
            path: "/mcp".into(),
            affinity: Affinity::Session,
            upstreams: vec![UpstreamUrl::parse("http://127.0.0.1:1/mcp").expect("a URL")],
            on_loss: OnLoss::Expire,
            idle_timeout,
            sessions_max: 1,
            body_len_max: BODY_LEN_MAX_DEFAULT,
        })
    }

    fn nonce(number: u32) -> Nonce {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Nonce(bytes)
    }

    #[test]
    fn a_session_in_use_does_not_expire_and_one_at_rest_does() {
        let table = Table::new();
        let in_use = table.insert(nonce(1), route(Duration::ZERO), 0, HeaderValue::from_static("x"));
        assert!(table.expire().is_empty());
        assert_eq!(table.holding(nonce(1)), Holding::Live);
        drop(in_use);
        assert_eq!(table.expire().len(), 1);
        assert_eq!(table.holding(nonce(1)), Holding::Ended(GoneWhy::Expired));
        assert!(table.take_up(nonce(1)).is_none());
    }

    #[test]
    fn an_end_is_remembered_but_not_for_ever() {
        let table = Table::new();
        let route = route(Duration::MAX);
        for number in 0..=u32::try_from(TOMBSTONES_MAX).expect("a small number") {
            table.insert(nonce(number), route.clone(), 0, HeaderValue::from_static("x"));
            assert!(table.end(nonce(number), GoneWhy::Deleted).is_some());
        }
        assert!(table.end(nonce(1), GoneWhy::Expired).is_none(), "nothing ends twice");
        assert_eq!(table.holding(nonce(0)), Holding::Unknown);
        assert_eq!(table.holding(nonce(1)), Holding::Ended(GoneWhy::Deleted));
        assert_eq!((table.count(), table.census()), (0, (0, 0)));
    }
}
