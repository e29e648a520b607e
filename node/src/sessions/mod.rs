//! The sessions that this node owns: opened at an upstream and served from it.
//!
//! [`table`] remembers them and [`usage`] counts them; [`exchange`] serves their requests, and those that
//! have none, of which [`wraps`] makes those find their way back that an upstream keeps something of.
//! [`readers`] gives each stream of events one reader, and [`event_ids`] say which stream an event is of.
//! [`http_sse`] has old clients. When nodes come and go, [`copies`] carries what must outlive this one to
//! others, [`owners`] takes over and gives away, [`revive`] goes on with what was another node's, and
//! [`learn`] has noted what must be known then. New ones are begun one by one where many come at once
//! ([`turns`], at the [`pace`] that the node is told). [`listing`] shows all of it to operators.

mod copies;
pub(crate) mod event_ids;
mod exchange;
mod http_sse;
mod learn;
mod listing;
mod owners;
mod pace;
mod readers;
mod revive;
mod table;
mod turns;
mod usage;
mod wraps;

use crate::answer::{Answer, holding};
use crate::ask::{Ask, Payload};
use crate::cluster::{Cluster, seconds_since_epoch};
use crate::config::{NewSessions, Route, Upstream};
use crate::headers::{self, Changed, Headers};
use crate::mcp::SESSION_ID;
use crate::peer::Peers;
use crate::telemetry::{ErrorLabels, Kind, Metrics, RouteLabels, TRACEPARENT};
use crate::upstream::{Request, Upstreams};
use bytes::Bytes;
use event_ids::Stream;
use hyper::{Method, header::HeaderValue};
use proto::core::custody::Holding;
use proto::core::route::OnLoss;
use proto::id::{Birth, Nonce, Principal, RouteId, SessionId, UpstreamBirth};
use proto::wire::{GoneWhy, INITIALIZE_LEN_MAX, Limit, Reason, Refusal};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};
pub(crate) use table::Left;
use table::{Live, Place, Table};
use tokio::sync::Semaphore;
use turns::Turns;
use usage::{Admitted, AtUpstream, OfClient, Use};

/// An expired session's DELETE: how long it may take, and how many go on at once.
const END_UPSTREAM_TIME_MAX: Duration = Duration::from_secs(10);
const END_UPSTREAM_MAX: usize = 16;
/// Sessions of a lost upstream begun anew at once: the others are overrun by nobody.
const RENEWING_MAX: usize = 32;
/// Answers that are read here: results of `initialize` and lists of tools, a few KiB each.
const READ_LEN_MAX: usize = 1024 * 1024;

/// Backups hear of a record four times in this time.
const KEEP_S_MIN: u32 = 60;
const KEEP_S_MAX: u32 = 24 * 3_600;

#[derive(Debug)]
pub(crate) struct Sessions {
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
    metrics: Arc<Metrics>,
    upstreams: Upstreams,
    table: Arc<Table>,
    listed: Vec<Arc<Route>>,
    routes: HashMap<RouteId, Arc<Use>>,
    /// Sessions of all routes together.
    sessions_max: Option<usize>,
    /// Held while one is let in, so that two do not take the last place.
    letting_in: Mutex<()>,
    turns: Arc<Turns>,
    /// Room for requests that end sessions upstream, and for handshakes that begin lost ones anew.
    ending: Semaphore,
    renewing: Semaphore,
}

/// Why an inherited session can't be served as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// Its upstream does not know it, or this node has no such upstream.
    Forgotten,
    /// Its upstream is not there, at least at the moment.
    Unreachable,
}

impl Sessions {
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        peers: Arc<Peers>,
        metrics: Arc<Metrics>,
        routes: &[Arc<Route>],
        new: &NewSessions,
    ) -> Self {
        let table = Arc::new(Table::new(cluster.me()));
        Self {
            cluster,
            peers,
            metrics,
            upstreams: Upstreams::new(routes.iter().flat_map(|route| &route.upstreams)),
            table,
            listed: routes.to_vec(),
            routes: routes.iter().map(|route| (route.id, Arc::new(Use::of(route)))).collect(),
            sessions_max: new.sessions_max,
            letting_in: Mutex::new(()),
            turns: Turns::new(new.per_second),
            ending: Semaphore::new(END_UPSTREAM_MAX),
            renewing: Semaphore::new(RENEWING_MAX),
        }
    }

    pub(crate) fn holding(&self, id: &SessionId) -> Holding {
        self.table.holding(id.nonce)
    }

    pub(crate) fn route(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.listed.iter().find(|route| route.id == id)
    }

    pub(crate) fn children(&self) -> usize {
        self.upstreams.children()
    }

    /// Ends what only this process serves.
    pub(crate) async fn end_bridged(&self) {
        self.upstreams.end_bridged().await;
    }

    /// How many sessions are live, and how many idle.
    pub(crate) fn census(&self) -> (usize, usize) {
        self.table.census()
    }

    /// Opens a session at an upstream of the route and seals its id.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let began = Instant::now();
        let used = self.used(&ask.route);
        let admitted = self.let_in(ask).await?;
        let (upstream, answer) = self.first_to_answer(ask, used.by_load().into_iter()).await?;
        let answer = self.adopt(ask, upstream, answer, admitted).await?;
        if answer.headers().contains_key(SESSION_ID) {
            self.metrics.open_seconds.observe(began.elapsed().as_secs_f64());
            self.note_opened(&ask.route);
        }
        Ok(answer)
    }

    /// A place among the sessions for one more, and its turn to begin.
    async fn let_in(&self, ask: &Ask) -> Result<Admitted, Refusal> {
        let admitted = self.admit(ask)?;
        // Nobody sends one without a client, and if so these wait for each other.
        self.turns.wait(ask.caller.counted().unwrap_or(Principal::ANYONE)).await?;
        Ok(admitted)
    }

    fn admit(&self, ask: &Ask) -> Result<Admitted, Refusal> {
        let used = self.used(&ask.route);
        let Some(max) = self.sessions_max else { return used.admit(ask) };
        let _one = self.letting_in.lock().unwrap_or_else(PoisonError::into_inner);
        if self.routes.values().map(|used| used.with_opening()).sum::<usize>() >= max {
            return Err(Refusal::not_run(Reason::Limited(Limit::NodeSessions)));
        }
        used.admit(ask)
    }

    /// Whether the route's upstream opens sessions, as far as this node has seen.
    pub(crate) fn speaks_sessions(&self, route: &Route) -> bool {
        self.used(route).speaks_sessions.load(Ordering::Relaxed)
    }

    /// Ends the sessions that have idled for longer than their route allows, here at once and
    /// upstream in the background.
    pub(crate) fn expire_idle(self: &Arc<Self>) {
        if !self.cluster.is_leased() {
            return; // they may be another node's, and in use there
        }
        let expired = self.table.expire();
        expired.iter().for_each(|_| self.metrics.session_ended(GoneWhy::Expired.word()));
        self.publish_count();
        self.end_upstream_soon(expired);
    }

    /// In the background: nobody waits for it.
    fn end_upstream_soon(self: &Arc<Self>, ended: Vec<Arc<Live>>) {
        for live in ended {
            let sessions = self.clone();
            tokio::spawn(async move {
                let Ok(_permit) = sessions.ending.acquire().await else { return };
                let ending = sessions.end_upstream(&live);
                // Best effort: an upstream that does not answer has idle time-outs of its own.
                let _ = tokio::time::timeout(END_UPSTREAM_TIME_MAX, ending).await;
            });
        }
    }

    async fn end_upstream(&self, live: &Live) {
        let (Some(place), Some(upstream)) = (&live.place, live.upstream()) else { return };
        let headers = Headers::from_iter([(SESSION_ID, place.session.clone())]);
        let request = Request {
            route: &live.route,
            method: Method::DELETE,
            target: &live.route.path,
            headers: Changed::of(&headers),
            body: &Payload::Whole(Bytes::new()),
            caller: None,
        };
        let _ = self.ask_upstream(upstream, request).await;
    }

    /// One request to an upstream, as a span of its own where it belongs to a trace.
    async fn ask_upstream(&self, upstream: &Upstream, mut request: Request<'_>) -> Result<Answer, Refusal> {
        let route = request.route;
        let mut span =
            self.metrics.traces.child(request.headers.get_all(TRACEPARENT), Kind::Client, "upstream");
        if let Some(span) = &mut span {
            if let Some(parent) = span.to_header() {
                request.headers.insert(TRACEPARENT, parent);
            }
            span.note("ringway.upstream", upstream.to_string());
        }
        // In a box: each of the many futures around it would be moved with its room.
        let answered = Box::pin(self.upstreams.send(upstream, request)).await;
        match (&answered, &mut span) {
            (Ok(answer), Some(span)) => span.note_status(answer.status()),
            (Ok(_), None) => {}
            (Err(refusal), span) => {
                let reason = match refusal {
                    Refusal::Gone(why) => why.word(),
                    Refusal::Undelivered { reason, .. } => reason.word(),
                };
                let labels = ErrorLabels { route: route.path.clone(), reason };
                self.metrics.upstream_errors.get_or_create(&labels).inc();
                if let Some(span) = span {
                    span.fail(reason);
                }
            }
        }
        answered
    }

    fn note_opened(&self, route: &Route) {
        self.metrics.opened.get_or_create(&RouteLabels { route: route.path.clone() }).inc();
    }

    /// The answer to `initialize`: with an upstream session id a session is born.
    async fn adopt(
        &self,
        ask: &Ask,
        upstream: usize,
        mut answer: Answer,
        Admitted { opening, of_client }: Admitted,
    ) -> Result<Answer, Refusal> {
        let Some(shown) = answer.headers_mut().remove(SESSION_ID) else { return Ok(answer) };
        if !answer.status().is_success() {
            return Ok(answer); // no session was opened, whatever the header says
        }
        let invalid = |error: &dyn std::fmt::Display| {
            tracing::warn!(route = ask.route.path, %error, "the upstream's session id can't be used");
            Refusal::perhaps_run(Reason::UpstreamInvalid)
        };
        let upstream_session = headers::copied(&shown);
        let home = self.cluster.me();
        let birth = Birth {
            minted_s: seconds_since_epoch(),
            home,
            route: ask.route.id,
            principal: ask.caller.principal(),
            upstream: Some(UpstreamBirth {
                url: ask.route.upstreams[upstream].name(),
                session: upstream_session.to_str().map_err(|error| invalid(&error))?.into(),
            }),
        };
        let nonce = self.cluster.draw();
        let sealed = self.cluster.seal().seal(nonce, &birth).map_err(|error| invalid(&error))?;
        let mine = HeaderValue::from_str(&sealed).expect("a sealed id is visible ASCII");
        answer.headers_mut().insert(SESSION_ID, mine);
        let used = self.used(&ask.route);
        used.speaks_sessions.store(true, Ordering::Relaxed);
        let initialize = match &ask.body {
            Payload::Whole(bytes) if bytes.len() <= INITIALIZE_LEN_MAX => bytes.clone(),
            Payload::Whole(_) | Payload::Passing(_) => Bytes::new(),
        };
        let record = self.record(&ask.route, &SessionId { nonce, birth }, 1, &initialize);
        let place = self.place_at(&ask.route, upstream, upstream_session);
        drop(opening);
        let in_use = self.table.insert(record, ask.route.clone(), place);
        in_use.live.admit(of_client);
        self.publish_count();
        self.copied(&self.peers, nonce).await;
        let is_home = self.cluster.me() == home && self.cluster.is_leased();
        if !is_home || self.table.holding(nonce) != Holding::Live {
            // It lost its right while it waited. Nobody was told of the session.
            if let Some(live) = self.table.end(nonce, GoneWhy::LostOwner) {
                let _ = tokio::time::timeout(END_UPSTREAM_TIME_MAX, self.end_upstream(&live)).await;
            }
            return Err(Refusal::not_run(Reason::Moved));
        }
        let answer = event_ids::marked(&in_use.live, Some(Stream::Call(ask.uid)), answer);
        Ok(answer.map(|body| holding(body, in_use)))
    }

    fn place_at(&self, route: &Route, upstream: usize, session: HeaderValue) -> Place {
        let _held = self.upstreams.hold(&route.upstreams[upstream], &session).map(Box::new);
        Place { at: AtUpstream::new(self.used(route), upstream), session, _held }
    }

    fn end(&self, nonce: Nonce, why: GoneWhy) {
        if self.table.end(nonce, why).is_some() {
            self.metrics.session_ended(why.word());
        }
        self.publish_count();
    }

    /// Ends a session, and waits a moment for those that keep copies to know.
    async fn end_everywhere(&self, nonce: Nonce, why: GoneWhy) {
        self.end(nonce, why);
        self.end_copied(&self.peers, nonce, why).await;
    }

    fn publish_count(&self) {
        let count = u32::try_from(self.table.count()).unwrap_or(u32::MAX);
        self.cluster.sessions().store(count, Ordering::Relaxed);
    }

    fn used(&self, route: &Route) -> &Arc<Use> {
        self.routes.get(&route.id).expect("built from the same routes")
    }
}

/// For how long backups keep a record that nobody tells them of again; not at all where the route lets
/// sessions die with their owner.
fn keep_s(route: &Route) -> u32 {
    match route.on_loss {
        OnLoss::Expire => 0,
        OnLoss::Reinitialize => {
            let idle_s = u32::try_from(route.idle_timeout.as_secs()).unwrap_or(u32::MAX);
            idle_s.clamp(KEEP_S_MIN, KEEP_S_MAX)
        }
    }
}
