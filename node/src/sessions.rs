//! The sessions that this node owns: opened at an upstream, served from it, and remembered for a
//! while after their end.

use crate::answer::{Answer, holding, whole};
use crate::ask::{Ask, Errand, Payload};
use crate::cluster::{Cluster, seconds_since_epoch};
use crate::config::{Affinity, Route, UpstreamUrl};
use crate::mcp::SESSION_ID;
use crate::upstream::Upstreams;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, StatusCode, header::HeaderValue};
use proto::core::route::Holding;
use proto::id::{Birth, Nonce, Principal, RouteId, SessionId, UpstreamBirth};
use proto::wire::{GoneWhy, Reason, Refusal, SessionState};
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// "Ended" is told from "never was" for the last 100,000 sessions: 32 bytes each, 3 MiB.
const TOMBSTONES_MAX: usize = 100_000;
/// An expired session's DELETE: how long it may take, and how many go on at once.
const END_UPSTREAM_TIME_MAX: Duration = Duration::from_secs(10);
const END_UPSTREAM_MAX: usize = 16;
/// A session is called idle when nothing of it has been in progress for this long: longer than an
/// agent thinks between two calls.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// A 400 is read to tell "no such session" from a bad request; SDK servers' texts are below 1 KiB.
const BAD_REQUEST_LEN_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Sessions {
    cluster: Arc<Cluster>,
    upstreams: Upstreams,
    table: Mutex<Table>,
    started: Instant,
    routes: HashMap<RouteId, Use>,
    /// Room for requests that end sessions upstream.
    ending: Semaphore,
}

/// How a route is used, on this node.
#[derive(Debug, Default)]
struct Use {
    /// Sessions at each of the route's upstreams.
    sessions: Vec<AtomicUsize>,
    /// Rotates through equally loaded upstreams.
    turn: AtomicUsize,
    /// Whether an upstream of it has been seen to open a session.
    speaks_sessions: AtomicBool,
}

impl Use {
    fn of(route: &Route) -> Self {
        Self { sessions: route.upstreams.iter().map(|_| AtomicUsize::new(0)).collect(), ..Self::default() }
    }

    fn total(&self) -> usize {
        self.sessions.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The upstreams, each once.
    fn beginning_with(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        let count = self.sessions.len();
        (0..count).map(move |at| (first % count + at) % count)
    }

    /// The upstreams, the one with the fewest sessions first.
    fn by_load(&self) -> Vec<usize> {
        let mut order: Vec<_> = self.beginning_with(self.next_turn()).collect();
        order.sort_by_key(|at| self.sessions[*at].load(Ordering::Relaxed));
        order
    }
}

#[derive(Debug, Default)]
struct Table {
    live: HashMap<Nonce, Arc<Live>>,
    ended: HashMap<Nonce, GoneWhy>,
    ended_order: VecDeque<Nonce>,
}

/// A session that is served here.
#[derive(Debug)]
struct Live {
    route: Arc<Route>,
    /// Which of the route's upstreams.
    upstream: usize,
    upstream_session: HeaderValue,
    /// Since this node started.
    last_used_ms: AtomicU64,
    /// Requests and streams in progress.
    open: AtomicU32,
}

impl Live {
    fn url(&self) -> &UpstreamUrl {
        &self.route.upstreams[self.upstream]
    }
}

impl Sessions {
    pub(crate) fn new(cluster: Arc<Cluster>, routes: &[Arc<Route>]) -> Self {
        Self {
            cluster,
            upstreams: Upstreams::new(routes.iter().flat_map(|route| &route.upstreams)),
            table: Mutex::default(),
            started: Instant::now(),
            routes: routes.iter().map(|route| (route.id, Use::of(route))).collect(),
            ending: Semaphore::new(END_UPSTREAM_MAX),
        }
    }

    pub(crate) fn holding(&self, id: &SessionId) -> Holding {
        let table = self.table();
        match table.ended.get(&id.nonce) {
            _ if table.live.contains_key(&id.nonce) => Holding::Live,
            Some(why) => Holding::Ended(*why),
            None => Holding::Unknown,
        }
    }

    pub(crate) fn state(&self, id: &SessionId) -> SessionState {
        let table = self.table();
        match table.live.get(&id.nonce) {
            Some(live) if self.is_idle(live) => {
                SessionState::Idle { idle_s: u32::try_from(self.idle(live).as_secs()).unwrap_or(u32::MAX) }
            }
            Some(_) => SessionState::Live,
            None => SessionState::Ended(table.ended.get(&id.nonce).copied().unwrap_or(GoneWhy::Unknown)),
        }
    }

    fn count(&self) -> usize {
        self.table().live.len()
    }

    /// How many sessions are live, and how many idle.
    pub(crate) fn census(&self) -> (usize, usize) {
        let table = self.table();
        let idle = table.live.values().filter(|live| self.is_idle(live)).count();
        (table.live.len() - idle, idle)
    }

    fn is_idle(&self, live: &Live) -> bool {
        live.open.load(Ordering::Relaxed) == 0 && self.idle(live) >= IDLE_AFTER
    }

    /// Opens a session at an upstream of the route and seals its id.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let used = self.used(&ask.route);
        if used.total() >= ask.route.sessions_max {
            return Err(undelivered(Reason::Overloaded, false));
        }
        let mut headers = ask.headers.clone();
        headers.remove(SESSION_ID);
        let mut last = undelivered(Reason::UpstreamUnreachable, false);
        for upstream in used.by_load() {
            match self.send(ask, &ask.route.upstreams[upstream], headers.clone()).await {
                Ok(answer) => return self.adopt(ask, upstream, answer),
                // Nothing was sent: the next replica may do.
                Err(refusal @ Refusal::Undelivered { may_have_run: false, .. }) => last = refusal,
                Err(refusal) => return Err(refusal),
            }
        }
        Err(last)
    }

    /// One request of a session that lives here.
    pub(crate) async fn exchange(&self, ask: &Ask, id: &SessionId) -> Result<Answer, Refusal> {
        let live = self.table().live.get(&id.nonce).cloned().ok_or(Refusal::Gone(GoneWhy::Unknown))?;
        let in_use = InUse::new(live.clone(), self.started);
        let mut headers = ask.headers.clone();
        let mine = headers.insert(SESSION_ID, live.upstream_session.clone());
        let mut answer = self.send(ask, live.url(), headers).await?;
        if answer.status() == StatusCode::BAD_REQUEST && ask.method == Method::POST {
            answer = self.read_bad_request(answer).await?;
        }
        if answer.status() == StatusCode::NOT_FOUND {
            if ask.method == Method::GET {
                // A server without such a stream, as far as one can tell; all clients accept a 405.
                *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            } else {
                self.end(id.nonce, GoneWhy::LostUpstream);
                return Err(Refusal::Gone(GoneWhy::LostUpstream));
            }
        }
        if ask.method == Method::DELETE && answer.status().is_success() {
            self.end(id.nonce, GoneWhy::Deleted);
            // The Python SDK takes any other success for a failure.
            *answer.status_mut() = StatusCode::OK;
        }
        if let (Some(theirs), Some(mine)) = (answer.headers_mut().get_mut(SESSION_ID), mine) {
            *theirs = mine;
        }
        Ok(answer.map(|body| holding(body, in_use)))
    }

    /// A request that needs no session: not MCP, a modern one, or one to an upstream without sessions.
    pub(crate) async fn pass(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let mut last = undelivered(Reason::UpstreamUnreachable, false);
        let used = self.used(&ask.route);
        // A key stays with one replica, as long as that answers.
        let first = match &ask.errand {
            Errand::Key(position) => position.0 as usize,
            Errand::Open | Errand::Session(_) | Errand::Anyone => used.next_turn(),
        };
        let mut headers = ask.headers.clone();
        if ask.route.affinity == Affinity::Session {
            headers.remove(SESSION_ID); // there is none, or it means nothing to this upstream
        }
        for upstream in used.beginning_with(first) {
            match self.send(ask, &ask.route.upstreams[upstream], headers.clone()).await {
                Ok(mut answer) => {
                    if ask.route.affinity == Affinity::Session {
                        answer.headers_mut().remove(SESSION_ID); // the upstream's own never shows
                    }
                    return Ok(answer);
                }
                Err(refusal @ Refusal::Undelivered { may_have_run: false, .. }) => last = refusal,
                Err(refusal) => return Err(refusal),
            }
        }
        Err(last)
    }

    /// Whether the route's upstream opens sessions, as far as this node has seen.
    pub(crate) fn speaks_sessions(&self, route: &Route) -> bool {
        self.used(route).speaks_sessions.load(Ordering::Relaxed)
    }

    /// Ends the sessions that have idled for longer than their route allows, here at once and
    /// upstream in the background.
    pub(crate) fn expire_idle(self: &Arc<Self>) {
        let mut expired = Vec::new();
        {
            let mut table = self.table();
            let is_expired = |live: &Live| {
                live.open.load(Ordering::Relaxed) == 0 && self.idle(live) >= live.route.idle_timeout
            };
            let nonces: Vec<_> =
                table.live.iter().filter(|(_, live)| is_expired(live)).map(|(nonce, _)| *nonce).collect();
            for nonce in nonces {
                expired.extend(self.bury(&mut table, nonce, GoneWhy::Expired));
            }
        }
        self.publish_count();
        for live in expired {
            let sessions = self.clone();
            tokio::spawn(async move {
                let ending = sessions.end_upstream(&live);
                // Best effort: an upstream that does not answer has idle time-outs of its own.
                let _ = tokio::time::timeout(END_UPSTREAM_TIME_MAX, ending).await;
            });
        }
    }

    async fn end_upstream(&self, live: &Live) {
        let Ok(_permit) = self.ending.acquire().await else { return };
        let headers = HeaderMap::from_iter([(SESSION_ID, live.upstream_session.clone())]);
        let url = live.url();
        let target = url.target(&live.route.path, &live.route.path);
        let nothing = Payload::Whole(Bytes::new());
        let _ = self.upstreams.send(url, Method::DELETE, &target, headers, &nothing).await;
    }

    async fn send(&self, ask: &Ask, url: &UpstreamUrl, mut headers: HeaderMap) -> Result<Answer, Refusal> {
        if ask.route.affinity == Affinity::Session {
            // Answers are read on their way (events, errors), so they come as they are.
            headers.remove(hyper::header::ACCEPT_ENCODING);
        }
        let target = url.target(&ask.route.path, &ask.target);
        self.upstreams.send(url, ask.method.clone(), &target, headers, &ask.body).await
    }

    /// The answer to `initialize`: with an upstream session id a session is born.
    fn adopt(&self, ask: &Ask, upstream: usize, mut answer: Answer) -> Result<Answer, Refusal> {
        let Some(upstream_session) = answer.headers_mut().remove(SESSION_ID) else { return Ok(answer) };
        if !answer.status().is_success() {
            return Ok(answer); // no session was opened, whatever the header says
        }
        let invalid = |error: &dyn std::fmt::Display| {
            tracing::warn!(route = ask.route.path, %error, "the upstream's session id can't be used");
            undelivered(Reason::UpstreamInvalid, true)
        };
        let birth = Birth {
            minted_s: seconds_since_epoch(),
            home: self.cluster.me(),
            route: ask.route.id,
            principal: Principal::ANYONE,
            upstream: Some(UpstreamBirth {
                url: ask.route.upstreams[upstream].text().clone(),
                session: upstream_session.to_str().map_err(|error| invalid(&error))?.into(),
            }),
        };
        let nonce = self.cluster.draw();
        let sealed = self.cluster.seal().seal(nonce, &birth).map_err(|error| invalid(&error))?;
        let mine = HeaderValue::from_str(&sealed).expect("a sealed id is visible ASCII");
        answer.headers_mut().insert(SESSION_ID, mine);
        let used = self.used(&ask.route);
        used.speaks_sessions.store(true, Ordering::Relaxed);
        used.sessions[upstream].fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(Live {
            route: ask.route.clone(),
            upstream,
            upstream_session,
            last_used_ms: AtomicU64::new(0),
            open: AtomicU32::new(0),
        });
        let in_use = InUse::new(live.clone(), self.started);
        self.table().live.insert(nonce, live);
        self.publish_count();
        Ok(answer.map(|body| holding(body, in_use)))
    }

    /// Some servers answer 400 where they mean that they do not know the session.
    async fn read_bad_request(&self, answer: Answer) -> Result<Answer, Refusal> {
        let (mut head, body) = answer.into_parts();
        let body = Limited::new(body, BAD_REQUEST_LEN_MAX).collect().await;
        let body = body.map_err(|_| undelivered(Reason::UpstreamBroke, true))?.to_bytes();
        let text = String::from_utf8_lossy(&body).to_ascii_lowercase();
        if text.contains("no valid session id") || text.contains("not initialized") {
            head.status = StatusCode::NOT_FOUND;
        }
        Ok(Answer::from_parts(head, whole(body)))
    }

    fn end(&self, nonce: Nonce, why: GoneWhy) {
        let _ = self.bury(&mut self.table(), nonce, why);
        self.publish_count();
    }

    /// Takes a session out and leaves a tombstone.
    fn bury(&self, table: &mut Table, nonce: Nonce, why: GoneWhy) -> Option<Arc<Live>> {
        let live = table.live.remove(&nonce)?;
        self.used(&live.route).sessions[live.upstream].fetch_sub(1, Ordering::Relaxed);
        table.ended.insert(nonce, why);
        table.ended_order.push_back(nonce);
        if table.ended_order.len() > TOMBSTONES_MAX
            && let Some(oldest) = table.ended_order.pop_front()
        {
            table.ended.remove(&oldest);
        }
        Some(live)
    }

    fn publish_count(&self) {
        let count = u32::try_from(self.count()).unwrap_or(u32::MAX);
        self.cluster.sessions().store(count, Ordering::Relaxed);
    }

    fn used(&self, route: &Route) -> &Use {
        self.routes.get(&route.id).expect("built from the same routes")
    }

    fn idle(&self, live: &Live) -> Duration {
        self.started
            .elapsed()
            .saturating_sub(Duration::from_millis(live.last_used_ms.load(Ordering::Relaxed)))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn undelivered(reason: Reason, may_have_run: bool) -> Refusal {
    Refusal::Undelivered { reason, may_have_run }
}

/// While it exists, its session is not idle.
#[derive(Debug)]
struct InUse {
    live: Arc<Live>,
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
        self.live.open.fetch_sub(1, Ordering::Relaxed);
    }
}
