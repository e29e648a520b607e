//! MCP servers over HTTP: the connections to them, and one exchange on such a connection.

mod pool;

use crate::answer::{Answer, Broke};
use crate::ask::Payload;
use crate::config::UpstreamUrl;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request,
    body::Body,
    header::{self, HeaderValue},
};
use pool::{Pool, Pooled};
use proto::wire::{Reason, Refusal};
use std::{collections::BTreeMap, sync::Arc};

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

/// The connections to every upstream of the configuration.
#[derive(Debug)]
pub(crate) struct Upstreams {
    pools: BTreeMap<Arc<str>, Arc<Pool>>,
}

impl Upstreams {
    pub(crate) fn new<'a>(urls: impl Iterator<Item = &'a UpstreamUrl>) -> Self {
        let pools = urls.map(|url| (url.address().clone(), Arc::new(Pool::new(url.address().clone()))));
        Self { pools: pools.collect() }
    }

    /// One request to `url`, which must be of the configuration.
    pub(crate) async fn send(
        &self,
        url: &UpstreamUrl,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        payload: &Payload,
    ) -> Result<Answer, Refusal> {
        headers.insert(header::HOST, url.host().clone());
        let pool = self.pools.get(url.address()).ok_or(Refusal::not_run(Reason::UpstreamUnreachable))?;
        let uri = target.parse().map_err(|_| Refusal::not_run(Reason::UpstreamInvalid))?;
        // A body that was sent elsewhere already can't be sent again; that it may have run was said then.
        let body = payload.take().ok_or(Refusal::perhaps_run(Reason::UpstreamUnreachable))?;
        match body.size_hint().exact() {
            // hyper writes no length for an empty body, and some servers insist on one (411).
            Some(0) if !matches!(method, Method::GET | Method::HEAD | Method::DELETE) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Some(_) => drop(headers.remove(header::CONTENT_LENGTH)), // hyper writes its own
            None => {}
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let mut answer = pool.send(request).await.map_err(|failure| match failure {
            pool::Failure::Unreachable(error, unsent) => {
                payload.give_back(unsent.into_body());
                tracing::warn!(upstream = %url, %error, "upstream unreachable");
                Refusal::not_run(Reason::UpstreamUnreachable)
            }
            pool::Failure::Broke(error) => {
                tracing::warn!(upstream = %url, %error, "upstream broke off before it answered");
                Refusal::perhaps_run(Reason::UpstreamBroke)
            }
        })?;
        strip_hop_by_hop(answer.headers_mut());
        Ok(answer.map(|body: Pooled| body.map_err(|_| Broke::Upstream).boxed_unsync()))
    }
}
