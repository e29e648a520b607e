//! What serves the routes: MCP servers and other services. [`http`] speaks to those that are reached by
//! HTTP. To the callers of this folder every MCP server speaks Streamable HTTP.

mod http;
#[cfg_attr(not(test), expect(dead_code, reason = "until the bridge from a pipe to Streamable HTTP opens it"))]
mod http_sse;
mod pipe;

use crate::answer::Answer;
use crate::ask::Payload;
use crate::config::{Route, Upstream};
use http::Http;
use hyper::{HeaderMap, Method, header};
use proto::wire::{Reason, Refusal};

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

/// Removes what belongs to the connection that the message came on, `Connection`'s own list included.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<_> =
            headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok()).collect();
        let listed: Vec<_> =
            listed.iter().flat_map(|list| list.split(',')).map(|name| name.trim().to_owned()).collect();
        for name in listed {
            headers.remove(name.as_str());
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// One request to an upstream.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) route: &'a Route,
    pub(crate) method: Method,
    /// Path and query, as a client would ask the route.
    pub(crate) target: &'a str,
    pub(crate) headers: HeaderMap,
    pub(crate) body: &'a Payload,
}

/// Every upstream of the configuration.
#[derive(Debug)]
pub(crate) struct Upstreams {
    http: Http,
}

impl Upstreams {
    pub(crate) fn new<'a>(upstreams: impl Iterator<Item = &'a Upstream>) -> Self {
        let urls = upstreams.filter_map(|upstream| match upstream {
            Upstream::Http(url) | Upstream::HttpSse(url) => Some(url),
            Upstream::Stdio(_) => None,
        });
        Self { http: Http::new(urls) }
    }

    /// One request to `upstream`, which must be of the configuration.
    pub(crate) async fn send(&self, upstream: &Upstream, request: Request<'_>) -> Result<Answer, Refusal> {
        match upstream {
            Upstream::Http(url) => self.http.send(url, request).await,
            Upstream::HttpSse(_) | Upstream::Stdio(_) => Err(Refusal::not_run(Reason::UpstreamUnreachable)),
        }
    }
}
