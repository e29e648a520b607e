//! The sessions that this node owns: opened at an upstream and served from it. [`table`] remembers
//! them, and for a while those that have ended.

mod table;

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
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use table::{Live, Table};
use tokio::sync::Semaphore;

/// An expired session's DELETE: how long it may take, and how many go on at once.
const END_UPSTREAM_TIME_MAX: Duration = Duration::from_secs(10);
const END_UPSTREAM_MAX: usize = 16;
/// A 400 is read to tell "no such session" from a bad request; SDK servers' texts are below 1 KiB.
const BAD_REQUEST_LEN_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Sessions {
    cluster: Arc<Cluster>,
    upstreams: Upstreams,
    table: Table,
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

impl Sessions {
    pub(crate) fn new(cluster: Arc<Cluster>, routes: &[Arc<Route>]) -> Self {
        Self {
            cluster,
            upstreams: Upstreams::new(routes.iter().flat_map(|route| &route.upstreams)),
            table: Table::new(),
            routes: routes.iter().map(|route| (route.id, Use::of(route))).collect(),
            ending: Semaphore::new(END_UPSTREAM_MAX),
        }
    }

    pub(crate) fn holding(&self, id: &SessionId) -> Holding {
        self.table.holding(id.nonce)
    }

    pub(crate) fn state(&self, id: &SessionId) -> SessionState {
        self.table.state(id.nonce)
    }

    /// How many sessions are live, and how many idle.
    pub(crate) fn census(&self) -> (usize, usize) {
        self.table.census()
    }

    /// Opens a session at an upstream of the route and seals its id.
    pub(crate) async fn open(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let used = self.used(&ask.route);
        if used.total() >= ask.route.sessions_max {
            return Err(Refusal::not_run(Reason::Overloaded));
        }
        let (upstream, answer) = self.first_to_answer(ask, used.by_load().into_iter()).await?;
        self.adopt(ask, upstream, answer)
    }

    /// One request of a session that lives here.
    pub(crate) async fn exchange(&self, ask: &Ask, id: &SessionId) -> Result<Answer, Refusal> {
        let in_use = self.table.take_up(id.nonce).ok_or(Refusal::Gone(GoneWhy::Unknown))?;
        let live = &in_use.live;
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
        let used = self.used(&ask.route);
        // A key stays with one replica, as long as that answers.
        let first = match &ask.errand {
            Errand::Key(position) => position.0 as usize,
            Errand::Open | Errand::Session(_) | Errand::Anyone => used.next_turn(),
        };
        let (_, mut answer) = self.first_to_answer(ask, used.beginning_with(first)).await?;
        if ask.route.affinity == Affinity::Session {
            answer.headers_mut().remove(SESSION_ID); // the upstream's own never shows
        }
        Ok(answer)
    }

    /// A request without a session to the first of the route's upstreams that can be reached.
    async fn first_to_answer(
        &self,
        ask: &Ask,
        order: impl Iterator<Item = usize>,
    ) -> Result<(usize, Answer), Refusal> {
        let mut headers = ask.headers.clone();
        if ask.route.affinity == Affinity::Session {
            headers.remove(SESSION_ID); // there is none, or it means nothing to this upstream
        }
        let mut last = Refusal::not_run(Reason::UpstreamUnreachable);
        for upstream in order {
            match self.send(ask, &ask.route.upstreams[upstream], headers.clone()).await {
                Ok(answer) => return Ok((upstream, answer)),
                Err(refusal) if refusal.may_be_tried_again() => last = refusal,
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
        let expired = self.table.expire();
        for live in expired {
            self.count_end(&live);
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
        let Some(shown) = answer.headers_mut().remove(SESSION_ID) else { return Ok(answer) };
        if !answer.status().is_success() {
            return Ok(answer); // no session was opened, whatever the header says
        }
        let invalid = |error: &dyn std::fmt::Display| {
            tracing::warn!(route = ask.route.path, %error, "the upstream's session id can't be used");
            Refusal::perhaps_run(Reason::UpstreamInvalid)
        };
        // A copy: what hyper gives is a piece of its read buffer, and would keep all 8 KiB of it.
        let upstream_session = HeaderValue::from_bytes(shown.as_bytes()).expect("it was a header's value");
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
        let in_use = self.table.insert(nonce, ask.route.clone(), upstream, upstream_session);
        self.publish_count();
        Ok(answer.map(|body| holding(body, in_use)))
    }

    /// Some servers answer 400 where they mean that they do not know the session.
    async fn read_bad_request(&self, answer: Answer) -> Result<Answer, Refusal> {
        let (mut head, body) = answer.into_parts();
        let body = Limited::new(body, BAD_REQUEST_LEN_MAX).collect().await;
        let body = body.map_err(|_| Refusal::perhaps_run(Reason::UpstreamBroke))?.to_bytes();
        let text = String::from_utf8_lossy(&body).to_ascii_lowercase();
        if text.contains("no valid session id") || text.contains("not initialized") {
            head.status = StatusCode::NOT_FOUND;
        }
        Ok(Answer::from_parts(head, whole(body)))
    }

    fn end(&self, nonce: Nonce, why: GoneWhy) {
        if let Some(live) = self.table.end(nonce, why) {
            self.count_end(&live);
        }
    }

    fn count_end(&self, live: &Live) {
        self.used(&live.route).sessions[live.upstream].fetch_sub(1, Ordering::Relaxed);
        self.publish_count();
    }

    fn publish_count(&self) {
        let count = u32::try_from(self.table.count()).unwrap_or(u32::MAX);
        self.cluster.sessions().store(count, Ordering::Relaxed);
    }

    fn used(&self, route: &Route) -> &Use {
        self.routes.get(&route.id).expect("built from the same routes")
    }
}
