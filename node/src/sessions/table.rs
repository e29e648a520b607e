//! What this node knows of the sessions that it owns, and of those that it keeps copies of: the pure
//! custody of `proto` with what serves a session beside it.

mod leave;
mod list;

pub(crate) use leave::Left;

use super::http_sse::Outbox;
use super::readers::Readers;
use super::{AtUpstream, OfClient};
use crate::clock;
use crate::config::{Route, Upstream};
use crate::headers::Headers;
use crate::mcp;
use crate::upstream::Held;
use bytes::Bytes;
use hyper::header::HeaderValue;
use proto::core::{
    custody::{Custody, Holding, Parcel},
    succession::Succession,
    tenure::Rules,
};
use proto::id::{NodeRef, Nonce};
use proto::wire::{Came, GoneWhy, Item, Record, Refusal};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, OnceCell},
    task::JoinHandle,
};

/// A session is called idle when nothing of it has been in progress for this long: longer than an
/// agent thinks between two calls.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// Milliseconds in which the copies of a new session have arrived or have to be sent again.
const COPIES_AGAIN: u64 = 250;

#[derive(Debug)]
pub(super) struct Table {
    entries: Mutex<Entries>,
    /// Something is to be sent.
    changed: Notify,
    /// Calls have to wait, so that sessions which are never idle become so.
    parks: AtomicBool,
    started: Instant,
}

#[derive(Debug)]
struct Entries {
    custody: Custody,
    live: HashMap<Nonce, Arc<Live>>,
    /// Stands for the verdicts by which this node has inherited.
    digest: u64,
}

/// A session that is served here.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) nonce: Nonce,
    pub(super) route: Arc<Route>,
    /// Which of the route's upstreams, and the id which that knows it by. `None` where this node has
    /// no such upstream: it was another node's own.
    pub(super) place: Option<Place>,
    /// How often it was reinitialized.
    pub(super) renewals: u32,
    /// How it came to this node.
    came: Came,
    /// The revision of MCP that its client says it speaks.
    protocol: OnceLock<mcp::Revision>,
    /// `None` where its upstream can't be found to have forgotten it: that has answered here, and ends
    /// for itself.
    pub(super) renewal: Option<Box<Renewal>>,
    /// What is said to its client, if that speaks HTTP+SSE: made when it is first needed.
    pub(super) outbox: OnceLock<Arc<Outbox>>,
    /// Its place among those of its client. One that came from another node has none.
    admitted: OnceLock<Arc<OfClient>>,
    /// Since the table was made.
    last_used_ms: AtomicU64,
    calls: AtomicU32,
    streams: AtomicU32,
    /// Of the streams that its upstream session has; made when the first is asked for.
    readers: OnceLock<Arc<Readers>>,
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) at: AtUpstream,
    pub(super) session: HeaderValue,
    /// What ends with this node's last word of it. Few sessions have that.
    pub(super) _held: Option<Box<Held>>,
}

/// A session that begins anew.
type Beginning = JoinHandle<Result<Arc<Live>, Refusal>>;

/// What becomes of a session whose upstream has forgotten it: one that had an owner before, or one
/// that is bridged, whose upstream may end at any time.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    /// Its successor, once its upstream was found to have forgotten it.
    pub(super) renewed: OnceCell<Arc<Live>>,
    /// What is begun in its place, whether anybody waits for that or not.
    pub(super) beginning: tokio::sync::Mutex<Option<Beginning>>,
    /// Its upstream has answered here.
    pub(super) confirmed: AtomicBool,
    /// Said on the next stream of the server's own: what the client should ask for again.
    pub(super) news: Mutex<Option<Bytes>>,
}

impl Live {
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        self.place.as_ref().map(|place| &self.route.upstreams[place.at.upstream()])
    }

    /// Its upstream is a process of this node's, or a connection, that may have ended.
    pub(super) fn is_bridged(&self) -> bool {
        self.upstream().is_some_and(Upstream::is_bridged)
    }

    /// Whether it may turn out that its upstream has forgotten it.
    pub(super) fn may_be_forgotten(&self) -> bool {
        let Some(renewal) = &self.renewal else { return false };
        self.is_bridged() || !renewal.confirmed.load(Ordering::Relaxed)
    }

    /// It had another owner before, and its upstream has not answered here yet.
    pub(super) fn is_unproven(&self) -> bool {
        self.renewal.as_ref().is_some_and(|renewal| !renewal.confirmed.load(Ordering::Relaxed))
    }

    /// Its upstream has answered; whether that is news.
    pub(super) fn confirm(&self) -> bool {
        let Some(Renewal { confirmed, .. }) = self.renewal.as_deref() else { return false };
        !confirmed.load(Ordering::Relaxed) && !confirmed.swap(true, Ordering::Relaxed)
    }

    pub(super) fn admit(&self, place: Option<OfClient>) {
        if let Some(place) = place {
            self.admitted.get_or_init(|| Arc::new(place));
        }
    }

    pub(super) fn take_news(&self) -> Option<Bytes> {
        let news = &self.renewal.as_ref()?.news;
        news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// From then on it is known which revision its client speaks: it says so with every request but the first.
    pub(super) fn note_protocol(&self, headers: &Headers) {
        if self.protocol.get().is_none()
            && let Some(version) = headers.get(mcp::PROTOCOL_VERSION).and_then(|value| value.to_str().ok())
            && let Some(revision) = mcp::Revision::named(version)
        {
            self.protocol.get_or_init(|| revision);
        }
    }

    /// Calls of it that are in progress.
    pub(super) fn calls(&self) -> u32 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn readers(&self) -> &Arc<Readers> {
        self.readers.get_or_init(Arc::default)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.readers.get().is_some_and(|readers| readers.are_gone())
    }

    /// Its place at its upstream is free, whoever still looks at it.
    fn leave(&self) {
        self.place.iter().for_each(|place| place.at.leave());
    }

    /// It is not this node's any more.
    fn go(&self) {
        self.leave();
        self.admitted.get().into_iter().for_each(|admitted| admitted.leave());
        self.readers().end(); // who asks later finds them ended
        if let Some(outbox) = self.outbox.get() {
            outbox.close();
        }
    }
}

/// While it exists, its session is not idle.
#[derive(Debug)]
pub(super) struct InUse {
    pub(super) live: Arc<Live>,
    is_stream: bool,
    started: Instant,
}

impl InUse {
    fn new(live: Arc<Live>, is_stream: bool, started: Instant) -> Self {
        let count = if is_stream { &live.streams } else { &live.calls };
        count.fetch_add(1, Ordering::Relaxed);
        Self { live, is_stream, started }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.live.last_used_ms.store(now_ms, Ordering::Relaxed);
        let count = if self.is_stream { &self.live.streams } else { &self.live.calls };
        // Whoever sees it unused sees when it was used.
        count.fetch_sub(1, Ordering::Release);
    }
}

impl Table {
    pub(super) fn new(me: NodeRef) -> Self {
        let custody = Custody::new(me, Rules::ALL);
        let entries = Mutex::new(Entries { custody, live: HashMap::new(), digest: 0 });
        Self { entries, changed: Notify::new(), parks: AtomicBool::new(false), started: Instant::now() }
    }

    pub(super) fn holding(&self, nonce: Nonce) -> Holding {
        let entries = self.entries();
        match entries.custody.holding(nonce) {
            _ if entries.live.contains_key(&nonce) => Holding::Live,
            // It is this node's, but none of its routes is the session's.
            Holding::Live => Holding::Unknown,
            holding @ (Holding::Given(_) | Holding::Ended(_) | Holding::Unknown) => holding,
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

    pub(super) fn record(&self, nonce: Nonce) -> Option<Arc<Record>> {
        self.entries().custody.record(nonce).cloned()
    }

    // --- one session ---

    /// Takes in a session that was born here; it is in use from the start.
    pub(super) fn insert(&self, record: Record, route: Arc<Route>, place: Place) -> InUse {
        let mut entries = self.entries();
        let renewal = route.upstreams[place.at.upstream()].is_bridged().then(Box::default);
        let live = self.live((record.nonce, record.renewals, Came::Born), route, Some(place), renewal);
        live.confirm();
        // Whoever opens it sends the first copies; what these do not reach is sent again.
        entries.custody.own(record, clock::now() + COPIES_AGAIN);
        entries.live.insert(live.nonce, live.clone());
        InUse::new(live, false, self.started)
    }

    /// Takes in a session that was found again for that owner, unless that has been done meanwhile, or
    /// this node has become another.
    pub(super) fn find(&self, owner: NodeRef, record: Record, route: Arc<Route>, place: Option<Place>) {
        let mut entries = self.entries();
        let custody = &entries.custody;
        if custody.me() == owner && custody.holding(record.nonce) == Holding::Unknown {
            let came = if record.epoch == 1 { Came::Born } else { Came::Revived };
            let live = self.live((record.nonce, record.renewals, came), route, place, Some(Box::default()));
            entries.custody.own(record, clock::now());
            entries.live.insert(live.nonce, live);
        }
    }

    fn live(
        &self,
        (nonce, renewals, came): (Nonce, u32, Came),
        route: Arc<Route>,
        place: Option<Place>,
        renewal: Option<Box<Renewal>>,
    ) -> Arc<Live> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Arc::new(Live {
            nonce,
            route,
            place,
            renewals,
            came,
            protocol: OnceLock::new(),
            renewal,
            outbox: OnceLock::new(),
            admitted: OnceLock::new(),
            last_used_ms: AtomicU64::new(now_ms),
            calls: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            readers: OnceLock::new(),
        })
    }

    pub(super) fn take_up(&self, nonce: Nonce, is_stream: bool) -> Option<InUse> {
        // Counted under the lock: whoever gives sessions away looks there.
        let entries = self.entries();
        let live = entries.live.get(&nonce)?;
        Some(InUse::new(live.clone(), is_stream, self.started))
    }

    /// Puts a session to another upstream session; what is in progress at the old one ends there.
    pub(super) fn renew(
        &self,
        live: &Live,
        place: Place,
        news: Option<Bytes>,
        change: impl FnOnce(&mut Record),
    ) -> Option<Arc<Live>> {
        let renewal = Renewal { news: Mutex::new(news), ..Renewal::default() };
        let renewed = self.live(
            (live.nonce, live.renewals + 1, live.came),
            live.route.clone(),
            Some(place),
            Some(renewal.into()),
        );
        renewed.confirm();
        if let Some(protocol) = live.protocol.get() {
            renewed.protocol.get_or_init(|| *protocol);
        }
        if let Some(outbox) = live.outbox.get() {
            renewed.outbox.get_or_init(|| outbox.clone());
        }
        if let Some(admitted) = live.admitted.get() {
            renewed.admitted.get_or_init(|| admitted.clone());
        }
        let mut entries = self.entries();
        let old = entries.live.get_mut(&live.nonce).filter(|old| std::ptr::eq(&raw const ***old, live));
        *old? = renewed.clone(); // unless it was given away, ended or found again meanwhile
        live.leave();
        entries.custody.change(live.nonce, change, clock::now());
        self.changed.notify_one();
        Some(renewed)
    }

    pub(super) fn change(&self, nonce: Nonce, change: impl FnOnce(&mut Record)) {
        self.entries().custody.change(nonce, change, clock::now());
        self.changed.notify_one();
    }

    /// Resolves when there is something to be sent.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn end(&self, nonce: Nonce, why: GoneWhy) -> Option<Arc<Live>> {
        self.entries().end(nonce, why)
    }

    /// Ends the sessions that have idled for longer than their route allows.
    pub(super) fn expire(&self) -> Vec<Arc<Live>> {
        let mut entries = self.entries();
        let is_expired = |live: &Live| self.is_idle(live, live.route.idle_timeout);
        let expired = entries.live.iter().filter(|(_, live)| is_expired(live));
        let expired: Vec<_> = expired.map(|(nonce, _)| *nonce).collect();
        entries.custody.forget_old(clock::now());
        expired.into_iter().filter_map(|nonce| entries.end(nonce, GoneWhy::Expired)).collect()
    }

    // --- copies, and whose they are ---

    /// Keeps what an owner has sent; gives back what was served here and has ended by its word.
    pub(super) fn keep(&self, to: NodeRef, item: &Item) -> Option<Arc<Live>> {
        let mut entries = self.entries();
        entries.custody.keep(to, item, clock::now());
        match item {
            Item::Ended { nonce, .. } => entries.let_go(*nonce),
            Item::Live(_) | Item::Elsewhere { .. } => None,
        }
    }

    /// Custody by itself, for what needs nothing of what serves a session.
    pub(super) fn custody<T>(&self, told: impl FnOnce(&mut Custody, u64) -> T) -> T {
        told(&mut self.entries().custody, clock::now())
    }

    pub(super) fn parcels(&self) -> Vec<Parcel> {
        self.entries().custody.parcels(clock::now())
    }

    pub(super) fn recall(&self, nonce: Nonce) -> Option<Item> {
        let entries = self.entries();
        let own = entries.custody.record(nonce).map(|record| Item::Live(record.clone()));
        own.or_else(|| entries.custody.recall(nonce))
    }

    /// Takes over what the verdicts give to this node.
    pub(super) fn inherit(
        &self,
        succession: &Succession,
        settle: impl Fn(&Record) -> Option<(Arc<Route>, Option<Place>)>,
    ) -> usize {
        let mut entries = self.entries();
        let inherited = entries.custody.inherit(succession, clock::now());
        entries.digest = succession.digest();
        self.changed.notify_one();
        inherited
            .into_iter()
            .filter(|record| self.take_in(&mut entries, record, Came::Inherited, &settle))
            .count()
    }

    /// This node is given a session by its owner.
    pub(super) fn take(
        &self,
        to: NodeRef,
        record: &Arc<Record>,
        settle: impl Fn(&Record) -> Option<(Arc<Route>, Option<Place>)>,
    ) -> bool {
        if settle(record).is_none() {
            return false; // its route is not one of this node's
        }
        let mut entries = self.entries();
        let taken = entries.custody.take(to, record, clock::now());
        taken.is_some_and(|record| self.take_in(&mut entries, &record, Came::Given, &settle))
    }

    fn take_in(
        &self,
        entries: &mut Entries,
        record: &Record,
        came: Came,
        settle: &impl Fn(&Record) -> Option<(Arc<Route>, Option<Place>)>,
    ) -> bool {
        let Some((route, place)) = settle(record) else { return false };
        let live = self.live((record.nonce, record.renewals, came), route, place, Some(Box::default()));
        let former = entries.live.insert(record.nonce, live);
        former.as_ref().into_iter().for_each(|former| former.go());
        former.is_none()
    }

    /// This node goes on under another incarnation, with what it owned if it is its own heir; says
    /// what it has lost.
    pub(super) fn be_reborn(&self, me: NodeRef, heir: bool, succession: &Succession) -> Vec<Arc<Live>> {
        let mut entries = self.entries();
        entries.custody.be_reborn(me, heir, succession, clock::now());
        entries.digest = succession.digest();
        let Entries { custody, live, .. } = &mut *entries;
        let mut lost = Vec::new();
        live.retain(|nonce, live| {
            let kept = custody.holding(*nonce) == Holding::Live;
            if !kept {
                live.go();
                lost.push(live.clone());
            }
            kept
        });
        lost
    }

    fn is_idle(&self, live: &Live, after: Duration) -> bool {
        let busy = live.calls.load(Ordering::Acquire) + live.streams.load(Ordering::Acquire) > 0;
        // Its client's stream may have begun before its upstream session did.
        let is_read = live.outbox.get().is_some_and(|outbox| outbox.is_read());
        !busy && !is_read && self.idle_for(live) >= after
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
        self.custody.end(nonce, why, clock::now());
        self.let_go(nonce)
    }

    fn let_go(&mut self, nonce: Nonce) -> Option<Arc<Live>> {
        let live = self.live.remove(&nonce)?;
        live.go();
        Some(live)
    }
}

#[cfg(test)]
mod tests;
