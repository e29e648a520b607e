//! A request, read and classified: what the client's HTTP request asks Ringway for.

use crate::answer::{BodyStream, whole};
use crate::config::{Affinity, Endpoint, Route};
use crate::mcp::{self, LAST_EVENT_ID, Message, SESSION_ID};
use bytes::Bytes;
use hyper::{HeaderMap, Method, header::HeaderValue};
use proto::core::ring::Position;
use proto::id::{NodeRef, SealKeys, SessionId};
use proto::wire::{self, GoneWhy, Nature};
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
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Payload,
}

impl Ask {
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
    Anyone,
}

impl Errand {
    /// As other nodes are told; `Anyone` never leaves the entry node.
    pub(crate) fn on_the_wire(&self) -> Option<wire::Errand> {
        match self {
            Self::Open => Some(wire::Errand::Open),
            Self::Session(_) => Some(wire::Errand::Session),
            Self::Key(_) => Some(wire::Errand::Key),
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

/// What a request to an MCP route asks for; `message` is its body, of a POST.
pub(crate) fn mcp_errand(
    route: &Route,
    headers: &HeaderMap,
    message: Option<&Message>,
    seal: &SealKeys,
) -> Result<Errand, NoErrand> {
    match message.map(|message| message.method) {
        Some(mcp::Method::Initialize) => return Ok(Errand::Open),
        Some(mcp::Method::Discover) => return Ok(Errand::Anyone),
        Some(mcp::Method::Other) | None => {}
    }
    if mcp::is_modern(headers) {
        return Ok(Errand::Anyone);
    }
    match headers.get(SESSION_ID) {
        Some(_) => {
            session(route, headers, seal).map(|id| Errand::Session(Box::new(id))).map_err(NoErrand::Gone)
        }
        None => Err(NoErrand::NoSession),
    }
}

/// What the GET of a client that speaks HTTP+SSE asks for: its stream is a session of its own.
pub(crate) fn http_sse_errand(headers: &mut HeaderMap) -> Errand {
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
    headers: &mut HeaderMap,
    seal: &SealKeys,
) -> Result<Errand, NoErrand> {
    headers.remove(SESSION_ID);
    let named = query(target, "sessionId").ok_or(NoErrand::NoSession)?;
    let named = HeaderValue::from_maybe_shared(Bytes::from(named));
    headers.insert(SESSION_ID, named.map_err(|_| NoErrand::Gone(GoneWhy::Forged))?);
    let id = session(route, headers, seal).map_err(NoErrand::Gone)?;
    // Such a session is born before its upstream is known; another one has other clients.
    let is_one = id.birth.upstream.is_none();
    if is_one { Ok(Errand::Session(Box::new(id))) } else { Err(NoErrand::Gone(GoneWhy::OtherRoute)) }
}

/// The session that a request names.
pub(crate) fn session(route: &Route, headers: &HeaderMap, seal: &SealKeys) -> Result<SessionId, GoneWhy> {
    let text = headers.get(SESSION_ID).and_then(|value| value.to_str().ok()).ok_or(GoneWhy::Forged)?;
    let id = seal.open(text).map_err(|_| GoneWhy::Forged)?;
    if id.birth.route == route.id { Ok(id) } else { Err(GoneWhy::OtherRoute) }
}

/// What a request to a route that is not MCP asks for.
pub(crate) fn keyed_errand(affinity: &Affinity, target: &str, headers: &HeaderMap) -> Errand {
    let key = match affinity {
        Affinity::Session | Affinity::None => None,
        Affinity::Header(name) => headers.get(name).map(|value| value.as_bytes().to_vec()),
        Affinity::Cookie(name) => cookie(headers, name),
        Affinity::Query(name) => query(target, name),
    };
    key.map_or(Errand::Anyone, |key| Errand::Key(Position::of_key(&key)))
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    let lines = headers.get_all(hyper::header::COOKIE);
    let mut pairs = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(';'));
    pairs.find_map(|pair| {
        pair.trim().strip_prefix(name)?.strip_prefix('=').map(|value| value.as_bytes().to_vec())
    })
}

fn query(target: &str, name: &str) -> Option<Vec<u8>> {
    let (_, query) = target.split_once('?')?;
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=').map(|value| value.as_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{COOKIE, HeaderValue};

    fn key(affinity: &Affinity, target: &str, headers: &HeaderMap) -> Option<Position> {
        match keyed_errand(affinity, target, headers) {
            Errand::Key(position) => Some(position),
            Errand::Open | Errand::Session(_) | Errand::Anyone => None,
        }
    }

    #[test]
    fn a_key_is_found_where_the_route_says() {
        let mut headers = HeaderMap::new();
        headers.insert("x-job-id", HeaderValue::from_static("7"));
        headers.insert(COOKIE, HeaderValue::from_static("other=1; sid=7"));
        let expected = Some(Position::of_key(b"7"));
        assert_eq!(key(&Affinity::Header("x-job-id".into()), "/jobs", &headers), expected);
        assert_eq!(key(&Affinity::Cookie("sid".into()), "/jobs", &headers), expected);
        assert_eq!(key(&Affinity::Query("sid".into()), "/jobs?a=1&sid=7", &headers), expected);
        for absent in [
            Affinity::None,
            Affinity::Header("x-other".into()),
            Affinity::Cookie("si".into()),
            Affinity::Query("si".into()),
        ] {
            assert_eq!(key(&absent, "/jobs?sid=7", &headers), None, "{absent:?}");
        }
    }
}
