//! Upstreams over HTTP/1.1: the connections to them, and one exchange on such a connection.

mod pool;
mod standing;
mod upgrade;

use super::{Request, strip_hop_by_hop};
use crate::answer::{Answer, Broke, whole};
use crate::ask::Payload;
use crate::config::UpstreamUrl;
use crate::upgraded;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, StatusCode,
    body::Body,
    header::{self, HeaderValue},
};
use pool::{Pool, Pooled};
use proto::wire::{Reason, Refusal};
use std::{collections::BTreeMap, sync::Arc};

/// The connections to every HTTP upstream of the configuration.
#[derive(Debug)]
pub(super) struct Http {
    pools: BTreeMap<Arc<str>, Arc<Pool>>,
}

impl Http {
    pub(super) fn new<'a>(urls: impl Iterator<Item = &'a UpstreamUrl>) -> Self {
        let pools = urls.map(|url| (url.address().clone(), Arc::new(Pool::new(url.address().clone()))));
        Self { pools: pools.collect() }
    }

    /// One request to `url`, which must be of the configuration.
    pub(super) async fn send(&self, url: &UpstreamUrl, request: Request<'_>) -> Result<Answer, Refusal> {
        let Request { route, method, target, headers, body, .. } = request;
        self.send_to(url, &url.target(&route.path, target), method, headers, body).await
    }

    /// One request to the host of `url`, for that target of its own.
    pub(super) async fn send_to(
        &self,
        url: &UpstreamUrl,
        target: &str,
        method: Method,
        mut headers: HeaderMap,
        payload: &Payload,
    ) -> Result<Answer, Refusal> {
        headers.insert(header::HOST, url.host().clone());
        let pool = self.pools.get(url.address()).ok_or(Refusal::not_run(Reason::UpstreamUnreachable))?;
        let uri = target.parse().map_err(|_| Refusal::not_run(Reason::UpstreamInvalid))?;
        let wishes = upgraded::is_wished(&headers);
        // What follows an upgrade is not the body of this request.
        let body = if wishes { Some(whole(Bytes::new())) } else { payload.take() };
        // A body that was sent elsewhere already can't be sent again; that it may have run was said then.
        let body = body.ok_or(Refusal::perhaps_run(Reason::UpstreamUnreachable))?;
        match body.size_hint().exact() {
            // hyper writes no length for an empty body, and some servers insist on one (411).
            Some(0) if !matches!(method, Method::GET | Method::HEAD | Method::DELETE) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Some(_) => drop(headers.remove(header::CONTENT_LENGTH)), // hyper writes its own
            None => {}
        }
        let mut request = hyper::Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let answered = match !wishes && standing::is_asked_for(&request) {
            true => standing::get(url.address(), request).await,
            false => pool
                .send(request)
                .await
                .map(|answer| answer.map(|body: Pooled| body.map_err(|_| Broke::Upstream).boxed_unsync())),
        };
        let mut answer = answered.map_err(|failure| match failure {
            pool::Failure::Unreachable(error, unsent) => {
                if !wishes {
                    payload.give_back(unsent.into_body());
                }
                tracing::warn!(upstream = %url, %error, "upstream unreachable");
                Refusal::not_run(Reason::UpstreamUnreachable)
            }
            pool::Failure::Broke(error) => {
                tracing::warn!(upstream = %url, %error, "upstream broke off before it answered");
                Refusal::perhaps_run(Reason::UpstreamBroke)
            }
        })?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            // To nobody's wish, or to one that was granted before, it is no answer.
            let said = if wishes { payload.take() } else { None };
            let said = said.ok_or(Refusal::perhaps_run(Reason::UpstreamBroke))?;
            return Ok(upgrade::switched(answer, said));
        }
        strip_hop_by_hop(answer.headers_mut());
        Ok(answer)
    }
}
