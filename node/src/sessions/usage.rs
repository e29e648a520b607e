//! How a route is used on this node: its sessions, by upstream and by client, and who is let in.

use crate::ask::Ask;
use crate::config::Route;
use proto::id::Principal;
use proto::wire::{Limit, Reason, Refusal};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// How a route is used, on this node.
#[derive(Debug, Default)]
pub(super) struct Use {
    /// Sessions at each of the route's upstreams.
    pub(super) sessions: Vec<AtomicUsize>,
    /// Sessions whose upstream has yet to answer: a child may take long to start.
    pub(super) opening: AtomicUsize,
    /// Sessions of each client, where the route limits these.
    pub(super) clients: Mutex<HashMap<Principal, usize>>,
    /// Rotates through equally loaded upstreams.
    pub(super) turn: AtomicUsize,
    /// Whether an upstream of it has been seen to open a session.
    pub(super) speaks_sessions: AtomicBool,
    /// The tools that may be called twice, as they were last listed.
    pub(super) repeatable: Mutex<Arc<BTreeSet<String>>>,
}

/// Counts a session among those of its upstream, until it is left or dropped: who was still looking at a session
/// when it ended must not keep its place taken.
#[derive(Debug)]
pub(super) struct AtUpstream {
    used: Arc<Use>,
    upstream: u32,
    is_left: AtomicBool,
}

impl AtUpstream {
    pub(super) fn new(used: &Arc<Use>, upstream: usize) -> Self {
        used.sessions[upstream].fetch_add(1, Ordering::Relaxed);
        let upstream = u32::try_from(upstream).expect("no route has so many");
        Self { used: used.clone(), upstream, is_left: AtomicBool::new(false) }
    }

    /// Which of its route's.
    pub(super) fn upstream(&self) -> usize {
        self.upstream as usize
    }

    pub(super) fn leave(&self) {
        if !self.is_left.swap(true, Ordering::Relaxed) {
            self.used.sessions[self.upstream()].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AtUpstream {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A place among the route's sessions.
#[derive(Debug)]
pub(super) struct Admitted {
    /// To be dropped when the session is counted at its upstream.
    pub(super) opening: Opening,
    pub(super) of_client: Option<OfClient>,
}

/// Counts a session that is being opened, until it is dropped.
#[derive(Debug)]
pub(super) struct Opening(Arc<Use>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a session among those of its client, until it is left or dropped.
#[derive(Debug)]
pub(super) struct OfClient {
    used: Arc<Use>,
    client: Principal,
    is_left: AtomicBool,
}

impl OfClient {
    pub(super) fn leave(&self) {
        if self.is_left.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut clients = self.used.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

impl Drop for OfClient {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Use {
    /// A place among the route's sessions for one that this client opens.
    pub(super) fn admit(self: &Arc<Self>, ask: &Ask) -> Result<Admitted, Refusal> {
        let full = |limit| Err(Refusal::not_run(Reason::Limited(limit)));
        let Route { sessions_max, sessions_per_client_max, .. } = *ask.route;
        // Held until both are counted, so that two do not take the last place.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if self.with_opening() >= sessions_max {
            return full(Limit::RouteSessions);
        }
        let client = ask.caller.counted().filter(|_| sessions_per_client_max < sessions_max);
        if let Some(client) = client {
            let count = clients.entry(client).or_default();
            if *count >= sessions_per_client_max {
                return full(Limit::ClientSessions);
            }
            *count += 1;
        }
        self.opening.fetch_add(1, Ordering::Relaxed);
        let of_client =
            client.map(|client| OfClient { used: self.clone(), client, is_left: AtomicBool::new(false) });
        Ok(Admitted { opening: Opening(self.clone()), of_client })
    }

    pub(super) fn of(route: &Route) -> Self {
        Self {
            sessions: route.upstreams.iter().map(|_| AtomicUsize::new(0)).collect(),
            // The bridge gives sessions to whatever is behind it.
            speaks_sessions: AtomicBool::new(route.upstreams.iter().all(|upstream| upstream.is_bridged())),
            ..Self::default()
        }
    }

    pub(super) fn total(&self) -> usize {
        self.sessions.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// With those whose upstream has yet to answer.
    pub(super) fn with_opening(&self) -> usize {
        self.total() + self.opening.load(Ordering::Relaxed)
    }

    pub(super) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The upstreams, each once.
    pub(super) fn beginning_with(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.sessions.len();
        (0..count).map(move |at| (first % count + at) % count)
    }

    /// The upstreams, the one with the fewest sessions first.
    pub(super) fn by_load(&self) -> Vec<usize> {
        let mut order: Vec<_> = self.beginning_with(self.next_turn()).collect();
        order.sort_by_key(|at| self.sessions[*at].load(Ordering::Relaxed));
        order
    }
}
