//! A request, read and classified: what the client's HTTP request asks Ringway for.

mod key;

use crate::answer::{BodyStream, whole};
use crate::config::{Endpoint, Route};
use crate::headers::Headers;
use crate::mcp::{self, LAST_EVENT_ID, Message, SESSION_ID, modern};
use crate::opened;
use bytes::Bytes;
use hyper::{Method, header::HeaderValue};
pub(crate) use key::client;
use key::{key, query};
use proto::core::ring::Position;
use proto::id::{NodeRef, Principal, SealKeys, SessionId, UpstreamTag, Wrapped};
use proto::wire::{self, Caller, GoneWhy, Nature};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) route: Arc<Route>,
    pub(crate) errand: Errand,
    pub(crate) nature: Nature,
    /// The same for every copy of this request that is sent to other nodes, and for no other.
    pub(crate) uid: u64,
    pub(crate) sent: Sent,
    pub(crate) caller: Caller,
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Headers,
    pub(crate) body: Payload,
}

impl Ask {
    /// Who comes with its key, where that ties the request to a node.
    pub(crate) fn comes_as(&self) -> Option<Principal> {
        match &self.errand {
            Errand::Key(_) | Errand::Pinned(_) => {
                key::who(&self.route, &self.target, &self.headers, self.caller)
            }
            Errand::Open | Errand::Session(_) | Errand::Anyone => None,
        }
    }

    /// Whether it does something that must not be done twice.
    pub(crate) fn is_call(&self) -> bool {
        self.nature == Nature::Unsafe
    }

    /// Which of an MCP route's endpoints it is for.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let path = self.target.split('?').next().unwrap_or_default();
        self.route.endpoint(path).unwrap_or(Endpoint::Mcp)
    }
}

/// Where copies of a request went, which matters once one of them is lost.
#[derive(Debug, Default)]
pub(crate) struct Sent(Mutex<Copies>);

#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    count: u8,
    last: Option<NodeRef>,
    /// One went to a node that is not the last any more.
    elsewhere: bool,
}

impl Sent {
    /// A request that was forwarded; one that may have run before.
    pub(crate) fn elsewhere(elsewhere: bool) -> Self {
        Self(Mutex::new(Copies { elsewhere, ..Copies::default() }))
    }

    /// For the copy that goes to `node` now: how many were sent before, and whether one may have run
    /// at another node.
    pub(crate) fn before(&self, node: NodeRef) -> (u8, bool) {
        let copies = self.copies();
        (copies.count, copies.elsewhere || copies.last.is_some_and(|last| last != node))
    }

    /// A copy went to `node`.
    pub(crate) fn note(&self, node: NodeRef) {
        let mut copies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        copies.elsewhere |= copies.last.is_some_and(|last| last != node);
        (copies.count, copies.last) = (copies.count.saturating_add(1), Some(node));
    }

    /// Whether a copy may have run at another node than this one.
    pub(crate) fn may_have_run(&self) -> bool {
        let copies = self.copies();
        copies.elsewhere || copies.count > 0
    }

    fn copies(&self) -> Copies {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's body.
pub(crate) enum Payload {
    /// Read whole, so that it can be sent again where nothing of it was: an MCP message.
    Whole(Bytes),
    /// Passed on as it comes, once: what Ringway has no need to understand.
    Passing(Mutex<Option<BodyStream>>),
}

impl Payload {
    pub(crate) fn passing(body: BodyStream) -> Self {
        Self::Passing(Mutex::new(Some(body)))
    }

    /// Gives a body back that was taken, and of which nothing was sent.
    pub(crate) fn give_back(&self, unsent: BodyStream) {
        match self {
            Self::Whole(_) => {}
            Self::Passing(body) => *body.lock().unwrap_or_else(PoisonError::into_inner) = Some(unsent),
        }
    }

    /// The body to send; `None` once a passing one is on its way.
    pub(crate) fn take(&self) -> Option<BodyStream> {
        match self {
            Self::Whole(bytes) => Some(whole(bytes.clone())),
            Self::Passing(body) => body.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Passing(_) => f.write_str("Passing(..)"),
        }
    }
}

/// What is asked for.
#[derive(Debug)]
pub(crate) enum Errand {
    Open,
    Session(Box<SessionId>),
    Key(Position),
    Pinned(Box<Pin>),
    Anyone,
}

/// State at an upstream that a modern request belongs to.
#[derive(Debug)]
pub(crate) struct Pin {
    /// Where the state is known.
    pub(crate) home: NodeRef,
    pub(crate) upstream: UpstreamTag,
    /// What ties its caller's other requests to a node, where the route has such a key.
    pub(crate) key: Option<Position>,
    /// The names of it in the request's body, and what they are to the upstream.
    pub(crate) names: Vec<(modern::Spot, Wrapped)>,
}

impl Pin {
    /// Where the ring is walked from when the home is gone.
    pub(crate) fn position(&self) -> Position {
        self.key.unwrap_or_else(|| Position::of_key(&self.upstream.0.to_be_bytes()))
    }

    /// The upstream, where this node has it too.
    pub(crate) fn upstream_of(&self, route: &Route) -> Option<usize> {
        route.upstreams.iter().position(|upstream| upstream.tag() == self.upstream)
    }
}

impl Errand {
    /// As other nodes are told; `Anyone` never leaves the entry node.
    pub(crate) fn on_the_wire(&self) -> Option<wire::Errand> {
        match self {
            Self::Open => Some(wire::Errand::Open),
            Self::Session(_) => Some(wire::Errand::Session),
            Self::Key(_) => Some(wire::Errand::Key),
            Self::Pinned(_) => Some(wire::Errand::Pinned),
            Self::Anyone => None,
        }
    }
}

/// Why an MCP request has no errand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoErrand {
    /// It names a session that can't be.
    Gone(GoneWhy),
    /// It names no session, and is not of a kind that needs none.
    NoSession,
}

/// What a request to an MCP route asks for; `message` is what its body says, of a POST.
pub(crate) fn mcp_errand(
    route: &Route,
    target: &str,
    headers: &Headers,
    body: &[u8],
    message: Option<&Message>,
    (seal, caller): (&Arc<SealKeys>, Caller),
) -> Result<Errand, NoErrand> {
    if mcp::is_modern(headers) {
        let pinned = pinned_errand(route, target, headers, body, (seal, caller));
        return Ok(pinned.unwrap_or_else(|| keyed_errand(route, target, headers, caller)));
    }
    match message.map(|message| message.method) {
        Some(mcp::Method::Initialize) => return Ok(Errand::Open),
        Some(mcp::Method::Discover) => return Ok(Errand::Anyone),
        Some(mcp::Method::Other) | None => {}
    }
    match headers.get(SESSION_ID) {
        Some(_) => {
            let id = session(route, headers, seal, caller).map_err(NoErrand::Gone)?;
            Ok(Errand::Session(Box::new(id)))
        }
        None => Err(NoErrand::NoSession),
    }
}

/// What a modern request asks for that names a task or a state; `None` where none of its names was
/// given out by this cluster, to this caller. Such a name passes on as it is: it is the upstream's to say that it
/// does not know it, and to another Ringway behind this one it may mean something.
pub(crate) fn pinned_errand(
    route: &Route,
    target: &str,
    headers: &Headers,
    body: &[u8],
    (seal, caller): (&SealKeys, Caller),
) -> Option<Errand> {
    let opened = modern::Request::read(body).spots.into_iter().filter_map(|spot| {
        let wrapped = seal.open_wrapped(spot.kind, route.id, caller.principal(), &spot.text)?;
        Some((spot, wrapped))
    });
    let mut names: Vec<_> = opened.collect();
    // One request goes to one upstream: tasks of others are unknown there, and it says so.
    let (_, Wrapped { home, upstream, .. }) = names.first()?;
    let (home, upstream) = (*home, *upstream);
    names.retain(|(_, wrapped)| wrapped.upstream == upstream);
    let key = key(route, target, headers, caller);
    Some(Errand::Pinned(Box::new(Pin { home, upstream, key, names })))
}

/// What the GET of a client that speaks HTTP+SSE asks for: its stream is a session of its own.
pub(crate) fn http_sse_errand(headers: &mut Headers) -> Errand {
    // An `EventSource` that has lost its stream asks for the rest of it, but its session is gone by then.
    headers.remove(LAST_EVENT_ID);
    headers.remove(SESSION_ID);
    Errand::Open
}

/// What a message of such a client asks for. It names its session in the query; from here on it is named
/// where all requests name theirs.
pub(crate) fn messages_errand(
    route: &Route,
    target: &str,
    headers: &mut Headers,
    (seal, caller): (&Arc<SealKeys>, Caller),
) -> Result<Errand, NoErrand> {
    headers.remove(SESSION_ID);
    let named = query(target, "sessionId").ok_or(NoErrand::NoSession)?;
    let named = HeaderValue::from_maybe_shared(Bytes::from(named));
    headers.insert(SESSION_ID, named.map_err(|_| NoErrand::Gone(GoneWhy::Forged))?);
    let id = session(route, headers, seal, caller).map_err(NoErrand::Gone)?;
    // Such a session is born before its upstream is known; another one has other clients.
    let is_one = id.birth.upstream.is_none();
    if is_one { Ok(Errand::Session(Box::new(id))) } else { Err(NoErrand::Gone(GoneWhy::OtherRoute)) }
}

/// The session that a request names, if it is its caller's: looked at wherever a request comes in, from a
/// client or from another node.
pub(crate) fn session(
    route: &Route,
    headers: &Headers,
    seal: &Arc<SealKeys>,
    caller: Caller,
) -> Result<SessionId, GoneWhy> {
    let text = headers.get(SESSION_ID).and_then(|value| value.to_str().ok()).ok_or(GoneWhy::Forged)?;
    let id = opened::open(seal, text).map_err(|_| GoneWhy::Forged)?;
    if id.birth.route != route.id {
        return Err(GoneWhy::OtherRoute);
    }
    // What was opened before its route asked who calls is nobody's.
    let is_told = route.auth.is_none() || matches!(caller, Caller::Known(_));
    let owner = id.birth.principal;
    if is_told && owner == caller.principal() {
        return Ok(id);
    }
    tracing::info!(route = route.path, caller = %caller.principal(), %owner, "another caller's session");
    Err(GoneWhy::Foreign)
}

/// What a request without a session or any other state asks for.
pub(crate) fn keyed_errand(route: &Route, target: &str, headers: &Headers, caller: Caller) -> Errand {
    key(route, target, headers, caller).map_or(Errand::Anyone, Errand::Key)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config::{BODY_LEN_MAX_DEFAULT, Key, Protocol, Upstream, UpstreamUrl};
    use hyper::header::{HeaderName, HeaderValue};
    use proto::core::route::OnLoss;
    use proto::id::{DEVELOPMENT_SECRET, Incarnation, RouteId, Tag, WrapKind};
    use std::time::Duration;

    pub(crate) fn route(protocol: Protocol, key: Option<Key>) -> Route {
        let url = |port: u16| format!("http://127.0.0.1:{port}/mcp");
        let upstreams = [1, 2].map(|port| Upstream::Http(UpstreamUrl::parse(&url(port)).expect("a URL")));
        Route {
            id: RouteId::of("/x"),
            path: "/x".into(),
            protocol,
            key,
            upstreams: upstreams.into(),
            on_loss: OnLoss::Reinitialize,
            idle_timeout: Duration::from_secs(1),
            sessions_max: 1,
            sessions_per_client_max: 1,
            body_len_max: BODY_LEN_MAX_DEFAULT,
            trust_annotations: true,
            auth: None,
        }
    }

    pub(super) fn headers<const N: usize>(listed: [(&'static str, &'static str); N]) -> Headers {
        let header = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        listed.map(header).into_iter().collect()
    }

    const MODERN: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

    fn errand(route: &Route, headers: &Headers, body: &str) -> String {
        let seal = Arc::new(SealKeys::new(&[DEVELOPMENT_SECRET], "ringway"));
        let message = mcp::peek(body.as_bytes(), false).expect("a message");
        match mcp_errand(route, "/x", headers, body.as_bytes(), Some(&message), (&seal, Caller::Anyone)) {
            Ok(Errand::Pinned(pin)) => format!("{} {:?}", pin.names[0].1.value, pin.upstream_of(route)),
            Ok(Errand::Key(_)) => "key".into(),
            Ok(errand) => format!("{errand:?}"),
            Err(none) => format!("{none:?}"),
        }
    }

    #[test]
    fn a_key_ties_the_modern_requests_of_an_mcp_route_and_no_others() {
        let route = route(Protocol::Mcp, Some(Key::Principal));
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
        let discover = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover"}"#;
        let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#;
        assert_eq!(errand(&route, &headers([MODERN]), call), "key");
        assert_eq!(errand(&route, &headers([MODERN]), discover), "key");
        assert_eq!(errand(&route, &headers([MODERN]), initialize), "key", "that revision has no sessions");
        assert_eq!(errand(&route, &headers([]), initialize), "Open");
        let legacy = headers([("mcp-protocol-version", "2025-11-25")]);
        assert_eq!(errand(&route, &legacy, call), "NoSession");
        assert_eq!(errand(&route, &legacy, discover), "Anyone");
    }

    #[test]
    fn a_modern_request_is_pinned_to_where_its_task_or_state_is() {
        let route = route(Protocol::Mcp, Some(Key::Principal));
        let seal = SealKeys::new(&[DEVELOPMENT_SECRET], "ringway");
        let home = NodeRef { tag: Tag(1), inc: Incarnation(1) };
        let wrap = |kind, at: usize, value: &str| {
            let upstream = route.upstreams[at].tag();
            seal.wrap(kind, route.id, Principal::ANYONE, &Wrapped { home, upstream, value: value.into() })
        };
        let (task, state) = (wrap(WrapKind::Task, 1, "t"), wrap(WrapKind::State, 0, "s"));
        let get = |id: &str| {
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{{"taskId":"{id}"}}}}"#)
        };
        assert_eq!(errand(&route, &headers([MODERN]), &get(&task)), "t Some(1)");
        assert_eq!(errand(&route, &headers([MODERN]), &get(&state)), "key", "a state is no task");
        assert_eq!(errand(&route, &headers([MODERN]), &get("t")), "key", "the upstream's own name");
        let retry = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","requestState":"{state}"}}}}"#
        );
        assert_eq!(errand(&route, &headers([MODERN]), &retry), "s Some(0)");
        let legacy = headers([("mcp-protocol-version", "2025-11-25")]);
        assert_eq!(errand(&route, &legacy, &get(&task)), "NoSession", "legacy traffic is not looked at");
    }

    #[test]
    fn who_listens_to_tasks_of_several_upstreams_is_pinned_to_the_first() {
        let route = route(Protocol::Mcp, None);
        let seal = SealKeys::new(&[DEVELOPMENT_SECRET], "ringway");
        let home = NodeRef { tag: Tag(1), inc: Incarnation(1) };
        let ids = [(1, "a"), (0, "b"), (1, "c")].map(|(at, value)| {
            let wrapped = Wrapped { home, upstream: route.upstreams[at].tag(), value: value.into() };
            seal.wrap(WrapKind::Task, route.id, Principal::ANYONE, &wrapped)
        });
        let body = serde_json::json!({"method": "subscriptions/listen", "params": {"notifications": {"taskIds": ids}}});
        let body = body.to_string();
        let errand = pinned_errand(&route, "/x", &Headers::new(), body.as_bytes(), (&seal, Caller::Anyone));
        let Some(Errand::Pinned(pin)) = errand else { panic!("{errand:?}") };
        let names: Vec<_> = pin.names.iter().map(|(_, wrapped)| wrapped.value.as_str()).collect();
        assert_eq!((names, pin.upstream_of(&route)), (vec!["a", "c"], Some(1)));
    }
}
