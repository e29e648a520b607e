//! The sessions that this node owns: opened at an upstream and served from it. [`table`] remembers
//! them, [`copies`] carries what must outlive this node to others, [`revive`] goes on with what was
//! another node's, [`learn`] notes what passes by and must be known then, [`http_sse`] has old clients,
//! [`readers`] gives each stream of events one reader, and [`event_ids`] say which stream an event is of.
//! What has no session passes too, and [`wraps`] makes it find its way back where an upstream keeps
//! something of it.

mod copies;
mod event_ids;
mod http_sse;
mod learn;
mod readers;
mod revive;
mod table;
mod wraps;

use crate::answer::{Answer, holding, whole};
use crate::ask::{Ask, Errand, Payload};
use crate::cluster::{Cluster, seconds_since_epoch};
use crate::config::{Route, Upstream};
use crate::mcp::{self, Calls, SESSION_ID};
use crate::peer::Peers;
use crate::telemetry::Metrics;
use crate::upstream::{Request, Upstreams};
use bytes::Bytes;
use event_ids::Stream;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, StatusCode, header::HeaderValue};
use proto::core::custody::Holding;
use proto::core::route::OnLoss;
use proto::core::succession::Succession;
use proto::id::{Birth, NodeRef, Nonce, Principal, RouteId, SessionId, UpstreamBirth};
use proto::wire::{Give, GoneWhy, INITIALIZE_LEN_MAX, Item, Keep, Nature, Reason, Refusal, SessionState};
use readers::Reading;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
pub(crate) use table::Left;
use table::{InUse, Live, Place, Table};
use tokio::sync::Semaphore;

/// An expired session's DELETE: how long it may take, and how many go on at once.
const END_UPSTREAM_TIME_MAX: Duration = Duration::from_secs(10);
const END_UPSTREAM_MAX: usize = 16;
/// Sessions of a lost upstream begun anew at once: the others are overrun by nobody.
const RENEWING_MAX: usize = 32;
/// A 400 is read to tell "no such session" from a bad request; SDK servers' texts are below 1 KiB.
const BAD_REQUEST_LEN_MAX: usize = 64 * 1024;
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

/// How a route is used, on this node.
#[derive(Debug, Default)]
struct Use {
    /// Sessions at each of the route's upstreams.
    sessions: Vec<AtomicUsize>,
    /// Sessions whose upstream has yet to answer: a child may take long to start.
    opening: AtomicUsize,
    /// Sessions of each client, where the route limits these.
    clients: Mutex<HashMap<Principal, usize>>,
    /// Rotates through equally loaded upstreams.
    turn: AtomicUsize,
    /// Whether an upstream of it has been seen to open a session.
    speaks_sessions: AtomicBool,
    /// The tools that may be called twice, as they were last listed.
    repeatable: Mutex<Arc<BTreeSet<String>>>,
}

/// Counts a session among those of its upstream, until it is dropped.
#[derive(Debug)]
struct AtUpstream {
    used: Arc<Use>,
    upstream: usize,
}

impl AtUpstream {
    fn new(used: &Arc<Use>, upstream: usize) -> Self {
        used.sessions[upstream].fetch_add(1, Ordering::Relaxed);
        Self { used: used.clone(), upstream }
    }
}

impl Drop for AtUpstream {
    fn drop(&mut self) {
        self.used.sessions[self.upstream].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among the route's sessions.
#[derive(Debug)]
struct Admitted {
    /// To be dropped when the session is counted at its upstream.
    opening: Opening,
    of_client: Option<OfClient>,
}

/// Counts a session that is being opened, until it is dropped.
#[derive(Debug)]
struct Opening(Arc<Use>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a session among those of its client, until it is dropped.
#[derive(Debug)]
struct OfClient {
    used: Arc<Use>,
    client: Principal,
}

impl Drop for OfClient {
    fn drop(&mut self) {
        let mut clients = self.used.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

impl Use {
    /// A place among the route's sessions for one that this client opens.
    fn admit(self: &Arc<Self>, ask: &Ask) -> Result<Admitted, Refusal> {
        let overloaded = Refusal::not_run(Reason::Overloaded);
        let Route { sessions_max, sessions_per_client_max, .. } = *ask.route;
        // Held until both are counted, so that two do not take the last place.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if self.total() + self.opening.load(Ordering::Relaxed) >= sessions_max {
            return Err(overloaded);
        }
        let client = ask.client.filter(|_| sessions_per_client_max < sessions_max);
        if let Some(client) = client {
            let count = clients.entry(client).or_default();
            if *count >= sessions_per_client_max {
                return Err(overloaded);
            }
            *count += 1;
        }
        self.opening.fetch_add(1, Ordering::Relaxed);
        let of_client = client.map(|client| OfClient { used: self.clone(), client });
        Ok(Admitted { opening: Opening(self.clone()), of_client })
    }

    fn of(route: &Route) -> Self {
        Self {
            sessions: route.upstreams.iter().map(|_| AtomicUsize::new(0)).collect(),
            // The bridge gives sessions to whatever is behind it.
            speaks_sessions: AtomicBool::new(route.upstreams.iter().all(|upstream| upstream.is_bridged())),
            ..Self::default()
        }
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
    pub(crate) fn new(
        cluster: Arc<Cluster>,
        peers: Arc<Peers>,
        metrics: Arc<Metrics>,
        routes: &[Arc<Route>],
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
            ending: Semaphore::new(END_UPSTREAM_MAX),
            renewing: Semaphore::new(RENEWING_MAX),
        }
    }

    pub(crate) fn holding(&self, id: &SessionId) -> Holding {
        self.table.holding(id.nonce)
    }

    pub(crate) fn state(&self, id: &SessionId) -> SessionState {
        self.table.state(id.nonce)
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
        let used = self.used(&ask.route);
        let admitted = used.admit(ask)?;
        let (upstream, answer) = self.first_to_answer(ask, used.by_load().into_iter()).await?;
        self.adopt(ask, upstream, answer, admitted).await
    }

    /// One request of a session that lives here.
    pub(crate) async fn exchange(self: &Arc<Self>, ask: &Ask, id: &SessionId) -> Result<Answer, Refusal> {
        if self.table.parks() && is_call(ask) {
            return Err(Refusal::not_run(Reason::Moved)); // in a moment
        }
        let mut is_renewed = false;
        loop {
            let in_use = self.table.take_up(id.nonce, ask.method == Method::GET);
            let in_use = in_use.ok_or(Refusal::not_run(Reason::Moved))?;
            if ask.sent.may_have_run() && !self.may_run_again(ask, id.nonce) {
                return Err(Refusal::perhaps_run(Reason::OwnerLost));
            }
            let live = in_use.live.clone();
            match self.try_exchange(ask, id, in_use).await? {
                Ok(answer) => return Ok(answer),
                // What is asked for was in the upstream session that is gone.
                Err(_) if ask.nature == Nature::Resumes => {
                    return Err(Refusal::perhaps_run(Reason::OwnerLost));
                }
                // An upstream that loses what it has just begun would do so for ever.
                Err(_) if is_renewed => return Err(Refusal::not_run(Reason::UpstreamBroke)),
                // Nothing has run.
                Err(missing) => {
                    self.renew(&live, ask, missing).await?;
                    is_renewed = true;
                }
            }
        }
    }

    /// Says what is missing where the session was inherited and has no upstream session any more.
    async fn try_exchange(
        self: &Arc<Self>,
        ask: &Ask,
        id: &SessionId,
        in_use: InUse,
    ) -> Result<Result<Answer, Missing>, Refusal> {
        let live = in_use.live.clone();
        let may_be_forgotten = live.may_be_forgotten();
        let (Some(place), Some(upstream)) = (&live.place, live.upstream()) else {
            return Ok(Err(Missing::Forgotten));
        };
        let mut headers = ask.headers.clone();
        let mine = headers.insert(SESSION_ID, place.session.clone());
        let stream = event_ids::stream(&live, ask, &mut headers)?;
        let mut reading = match ask.method {
            Method::GET => Some(live.readers.admit(stream).ok_or(Refusal::not_run(Reason::Moved))?),
            _ => None,
        };
        let sent = match &mut reading {
            Some(reading) => self.ask_alone(ask, upstream, headers, reading).await,
            None => self.send_leased(ask, upstream, headers).await,
        };
        let mut answer = match sent {
            Err(Refusal::Undelivered { reason: Reason::UpstreamUnreachable, may_have_run: false })
                if may_be_forgotten =>
            {
                return Ok(Err(Missing::Unreachable));
            }
            answer => answer?,
        };
        if answer.status() == StatusCode::BAD_REQUEST && ask.method == Method::POST {
            answer = self.read_bad_request(answer).await?;
        }
        if answer.status() == StatusCode::NOT_FOUND {
            match ask.method {
                // A bridge says what it knows.
                Method::GET if live.is_bridged() => return Ok(Err(Missing::Forgotten)),
                Method::GET if may_be_forgotten && !self.is_known(&live, ask).await? => {
                    return Ok(Err(Missing::Forgotten));
                }
                // A server without such a stream, as far as one can tell; all clients accept a 405.
                Method::GET => *answer.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
                _ if may_be_forgotten && ask.method == Method::POST => return Ok(Err(Missing::Forgotten)),
                _ => {
                    self.end(id.nonce, GoneWhy::LostUpstream);
                    return Err(Refusal::Gone(GoneWhy::LostUpstream));
                }
            }
        } else if answer.status().is_success()
            && !reading.as_ref().is_some_and(Reading::is_over)
            && live.confirm()
        {
            self.count_takeover("reattach", "served");
        }
        if ask.method == Method::DELETE && answer.status().is_success() {
            self.end_everywhere(id.nonce, GoneWhy::Deleted).await;
            // The Python SDK takes any other success for a failure.
            *answer.status_mut() = StatusCode::OK;
        }
        if let (Some(theirs), Some(mine)) = (answer.headers_mut().get_mut(SESSION_ID), mine) {
            *theirs = mine;
        }
        let answer = event_ids::marked(&live, stream, self.learn(ask, id.nonce, answer));
        Ok(Ok(match reading {
            Some(reading) if mcp::is_event_stream(answer.headers()) => {
                answer.map(|body| reading.read(body, in_use))
            }
            Some(_) | None => answer.map(|body| holding(body, in_use)),
        }))
    }

    /// A request that needs no session: not MCP, a modern one, or one to an upstream without sessions.
    pub(crate) async fn pass(&self, ask: &Ask) -> Result<Answer, Refusal> {
        let used = self.used(&ask.route);
        let (upstream, mut answer) = match &ask.errand {
            Errand::Pinned(pin) => self.pass_pinned(ask, pin).await?,
            // A key stays with one replica, as long as that answers.
            Errand::Key(position) => {
                self.first_to_answer(ask, used.beginning_with(position.0 as usize)).await?
            }
            Errand::Open | Errand::Session(_) | Errand::Anyone => {
                self.first_to_answer(ask, used.beginning_with(used.next_turn())).await?
            }
        };
        if !ask.route.speaks_mcp() {
            return Ok(answer);
        }
        answer.headers_mut().remove(SESSION_ID); // the upstream's own never shows
        self.wrapped(ask, upstream, answer).await
    }

    /// A request without a session to the first of the route's upstreams that can be reached.
    async fn first_to_answer(
        &self,
        ask: &Ask,
        order: impl Iterator<Item = usize>,
    ) -> Result<(usize, Answer), Refusal> {
        let mut headers = ask.headers.clone();
        if ask.route.speaks_mcp() {
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
        if !self.cluster.is_leased() {
            return; // they may be another node's, and in use there
        }
        let expired = self.table.expire();
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
        let request = Request {
            route: &live.route,
            method: Method::DELETE,
            target: &live.route.path,
            headers: HeaderMap::from_iter([(SESSION_ID, place.session.clone())]),
            body: &Payload::Whole(Bytes::new()),
            caller: None,
        };
        let _ = self.upstreams.send(upstream, request).await;
    }

    /// Of a session: just before it is sent this node looks at its lease, since it may have stood still
    /// for a while.
    async fn send_leased(
        &self,
        ask: &Ask,
        upstream: &Upstream,
        headers: HeaderMap,
    ) -> Result<Answer, Refusal> {
        if !self.cluster.is_leased() {
            return Err(Refusal::not_run(Reason::Moved));
        }
        self.send(ask, upstream, headers).await
    }

    async fn send(&self, ask: &Ask, upstream: &Upstream, mut headers: HeaderMap) -> Result<Answer, Refusal> {
        if ask.route.speaks_mcp() {
            // Answers are read on their way (events, errors), so they come as they are.
            headers.remove(hyper::header::ACCEPT_ENCODING);
        }
        let request = Request {
            route: &ask.route,
            method: ask.method.clone(),
            target: &ask.target,
            headers,
            body: &ask.body,
            caller: ask.caller(),
        };
        self.upstreams.send(upstream, request).await
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
        // A copy: what hyper gives is a piece of its read buffer, and would keep all 8 KiB of it.
        let upstream_session = HeaderValue::from_bytes(shown.as_bytes()).expect("it was a header's value");
        let home = self.cluster.me();
        let birth = Birth {
            minted_s: seconds_since_epoch(),
            home,
            route: ask.route.id,
            principal: Principal::ANYONE,
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
        let record = self.record(ask, &SessionId { nonce, birth }, 1, &initialize);
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
        let _held = self.upstreams.hold(&route.upstreams[upstream], &session);
        Place { at: AtUpstream::new(self.used(route), upstream), session, _held }
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
        self.table.end(nonce, why);
        self.publish_count();
    }

    /// Ends a session, and waits a moment for those that keep copies to know.
    async fn end_everywhere(&self, nonce: Nonce, why: GoneWhy) {
        self.end(nonce, why);
        self.end_copied(&self.peers, nonce, why).await;
    }

    // --- when owners change ---

    /// What this node keeps copies of and now owns by the verdicts.
    pub(crate) fn inherit(&self, succession: &Succession) -> usize {
        let count = self.table.inherit(succession, |record| self.settle(record));
        self.publish_count();
        count
    }

    /// The backups of this node, and who it gives its sessions to when it leaves.
    pub(crate) fn entrust(&self, heirs: Vec<NodeRef>) {
        self.table.custody(|custody, now| custody.entrust(heirs, now));
    }

    /// Whether it was meant for who this node is now; only then is anything promised.
    pub(crate) fn keep(self: &Arc<Self>, keep: &Keep) -> bool {
        self.keep_items(keep.to, &keep.items);
        keep.to == self.cluster.me()
    }

    /// What an owner before this node has ended may have been taken up here meanwhile.
    fn keep_items(self: &Arc<Self>, to: NodeRef, items: &[Item]) {
        let ended: Vec<_> = items.iter().filter_map(|item| self.table.keep(to, item)).collect();
        if !ended.is_empty() {
            self.publish_count();
            self.end_upstream_soon(ended);
        }
    }

    pub(crate) fn take(&self, give: &Give) -> bool {
        let has_route = self.route(give.record.birth.route).is_some();
        self.table.take(give.to, &give.record, |record| self.settle(record));
        self.publish_count();
        has_route && give.to == self.cluster.me()
    }

    pub(crate) fn recall_copy(&self, nonce: Nonce) -> Option<Item> {
        self.table.recall(nonce)
    }

    /// Gives away what nothing calls at the moment; says what is left to be given or taken.
    pub(crate) fn give_idle(&self, succession: &Succession) -> Left {
        let left = self.table.give_idle(succession);
        self.publish_count();
        left
    }

    pub(crate) fn left(&self) -> Left {
        self.table.left()
    }

    /// Whether new calls have to wait until their session has been given away. What belongs to a call
    /// in progress (its cancellation, answers to what the server asks) does not wait.
    pub(crate) fn park(&self, parks: bool) {
        self.table.park(parks);
    }

    /// This node goes on as another incarnation.
    pub(crate) fn be_reborn(&self, heir: bool, succession: &Succession) -> usize {
        let lost = self.table.be_reborn(self.cluster.me(), heir, succession);
        self.publish_count();
        lost.len()
    }

    fn publish_count(&self) {
        let count = u32::try_from(self.table.count()).unwrap_or(u32::MAX);
        self.cluster.sessions().store(count, Ordering::Relaxed);
    }

    fn used(&self, route: &Route) -> &Arc<Use> {
        self.routes.get(&route.id).expect("built from the same routes")
    }
}

/// Whether somebody waits for the answer.
fn is_call(ask: &Ask) -> bool {
    let Payload::Whole(body) = &ask.body else { return false };
    let message = mcp::peek(body, true);
    ask.method == Method::POST && message.is_ok_and(|message| !matches!(message.calls, Calls::None))
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
