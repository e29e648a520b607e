//! What serves the routes: MCP servers and other services. [`http`] speaks to those that are reached by
//! HTTP, [`http_sse`] and [`stdio`] in single messages to MCP servers that have no Streamable HTTP, which
//! [`bridge`] gives them: to the callers of this folder every MCP server speaks it.

mod bridge;
mod http;
mod http_sse;
mod pipe;
mod stdio;

pub(crate) use http::framing;
pub(crate) use stdio::{guardian::run as run_guardian, lines};

use crate::answer::Answer;
use crate::ask::Payload;
use crate::config::{ChildCommand, Route, Upstream, UpstreamUrl};
use crate::headers::{Changed, Headers};
use crate::mcp;
use bridge::{Bridges, Callers};
use http::Http;
use hyper::{
    Method,
    header::{self, HeaderValue},
};
use pipe::Pipe;
use proto::id::Principal;
use proto::wire::{Reason, Refusal};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use stdio::Children;

/// What a server that is reached by HTTP may take to answer its first message.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Headers that belong to one connection and are never passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [header::HeaderName; 9] = [
    header::CONNECTION,
    header::HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

fn is_hop_by_hop(name: &header::HeaderName) -> bool {
    matches!(name.as_str().len(), 2 | 7 | 10 | 16 | 17 | 18 | 19) && HOP_BY_HOP.contains(name)
}

/// Removes what belongs to the connection that the message came on, `Connection`'s own list included.
pub(crate) fn strip_hop_by_hop(headers: &mut Headers) {
    // Most messages have none.
    if !headers.names().any(is_hop_by_hop) {
        return;
    }
    let lists = headers.get_all(header::CONNECTION).filter_map(|value| value.to_str().ok());
    let names = lists.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase());
    let mut listed: Vec<_> = names.collect();
    listed.sort_unstable(); // there may be thousands
    headers.retain(|name| {
        !is_hop_by_hop(name) && listed.binary_search_by(|one| one.as_str().cmp(name.as_str())).is_err()
    });
}

/// One request to an upstream. Its headers are those of the client's with changes, or a list of their own.
#[derive(Debug)]
pub(crate) struct Request<'a, H = Changed<'a>> {
    pub(crate) route: &'a Route,
    pub(crate) method: Method,
    /// Path and query, as a client would ask the route.
    pub(crate) target: &'a str,
    pub(crate) headers: H,
    pub(crate) body: &'a Payload,
    /// Who asks, where that decides which server does it.
    pub(crate) caller: Option<Principal>,
}

impl<'a> Request<'a> {
    fn whole(self) -> Request<'a, Headers> {
        let Request { route, method, target, headers, body, caller } = self;
        Request { route, method, target, headers: headers.whole(), body, caller }
    }
}

/// Every upstream of the configuration.
#[derive(Debug)]
pub(crate) struct Upstreams {
    http: Arc<Http>,
    bridges: Arc<Bridges>,
    callers: Callers,
    children: Children,
    /// Children are numbered, so that the log can tell them apart.
    numbers: AtomicU64,
}

/// A bridged session, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    bridges: Arc<Bridges>,
    session: HeaderValue,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bridges.end(self.session.to_str().unwrap_or_default());
    }
}

impl Upstreams {
    pub(crate) fn new<'a>(upstreams: impl Iterator<Item = &'a Upstream>) -> Self {
        let urls = upstreams.filter_map(|upstream| match upstream {
            Upstream::Http(url) | Upstream::HttpSse(url) => Some(url),
            Upstream::Stdio(_) => None,
        });
        Self {
            http: Arc::new(Http::new(urls)),
            bridges: Arc::default(),
            callers: Callers::default(),
            children: Children::new(),
            numbers: AtomicU64::new(1),
        }
    }

    /// Keeps a session of that upstream, which has it by that id; `None` where it keeps itself.
    pub(crate) fn hold(&self, upstream: &Upstream, session: &HeaderValue) -> Option<Held> {
        upstream.is_bridged().then(|| Held { bridges: self.bridges.clone(), session: session.clone() })
    }

    /// One request to `upstream`, which must be of the configuration.
    pub(crate) async fn send(&self, upstream: &Upstream, request: Request<'_>) -> Result<Answer, Refusal> {
        match upstream {
            Upstream::Http(url) => self.http.send(url, request).await,
            Upstream::HttpSse(url) => Box::pin(self.send_by_sse(url, request.whole())).await,
            Upstream::Stdio(command) => Box::pin(self.send_to_child(command, request.whole())).await,
        }
    }

    async fn send_by_sse(&self, url: &UpstreamUrl, request: Request<'_, Headers>) -> Result<Answer, Refusal> {
        if mcp::is_modern(&request.headers) {
            return Ok(bridge::has_sessions_only(request.body));
        }
        let open = http_sse::open(&self.http, url, request.headers.clone());
        self.bridges.exchange(open, START_TIME_MAX, request).await
    }

    async fn send_to_child(
        &self,
        command: &ChildCommand,
        request: Request<'_, Headers>,
    ) -> Result<Answer, Refusal> {
        let open = self.start(request.route, command);
        match mcp::is_modern(&request.headers) {
            true if request.caller.is_some() => self.callers.exchange(open, request).await,
            // What a revision without sessions needs has not been asked for by the route.
            true => Ok(bridge::has_sessions_only(request.body)),
            false => self.bridges.exchange(open, command.start_timeout, request).await,
        }
    }

    /// Child processes that serve something, or are ending.
    pub(crate) fn children(&self) -> usize {
        self.children.count()
    }

    /// Ends what serves callers, who have no session to end it with; resolves when no child is left.
    pub(crate) async fn end_bridged(&self) {
        self.callers.end_all();
        self.children.ended().await;
    }

    async fn start(&self, route: &Route, command: &ChildCommand) -> Result<Pipe, Refusal> {
        let name = format!("child-{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        self.children.start(route, command, &name).await.map_err(|error| {
            tracing::warn!(route = route.path, %error, "no child");
            Refusal::not_run(Reason::UpstreamUnreachable)
        })
    }
}
