//! Upstreams over HTTP/1.1: the connections to them, and one exchange on such a connection. What is there whole is
//! sent by [`whole`], what passes on as it comes by [`passing`].

pub(crate) mod framing;
mod passing;
mod pool;
mod upgrade;
mod whole;

use super::{Request, strip_hop_by_hop};
use crate::answer::{self, Answer, Broke};
use crate::ask::Payload;
use crate::config::UpstreamUrl;
use crate::headers::Changed;
use crate::upgraded;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, StatusCode,
    body::Body,
    header::{self, HeaderValue},
};
use passing::{Pooled, Sender};
use pool::{Failure, Pool};
use proto::wire::{Reason, Refusal};
use std::{collections::BTreeMap, sync::Arc};
use tokio::net::TcpStream;
use whole::Whole;

/// The connections to every HTTP upstream of the configuration.
#[derive(Debug)]
pub(super) struct Http {
    hosts: BTreeMap<Arc<str>, Host>,
}

/// One address.
#[derive(Debug)]
struct Host {
    whole: Arc<Pool<TcpStream>>,
    passing: Arc<Pool<Sender>>,
}

impl Http {
    pub(super) fn new<'a>(urls: impl Iterator<Item = &'a UpstreamUrl>) -> Self {
        let host = |url: &UpstreamUrl| {
            let address = url.address();
            let (whole, passing) = (Pool::new(address.clone()), Pool::new(address.clone()));
            (address.clone(), Host { whole: Arc::new(whole), passing: Arc::new(passing) })
        };
        Self { hosts: urls.map(host).collect() }
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
        mut headers: Changed<'_>,
        payload: &Payload,
    ) -> Result<Answer, Refusal> {
        headers.insert(header::HOST, url.host().clone());
        let host = self.hosts.get(url.address()).ok_or(Refusal::not_run(Reason::UpstreamUnreachable))?;
        let mut answer = match payload {
            Payload::Whole(body)
                if body.len() <= whole::BODY_LEN_MAX && !upgraded::is_wished(headers.iter()) =>
            {
                headers.remove(header::CONTENT_LENGTH);
                let request = Whole { method: &method, target, headers: &headers, body: body.clone() };
                if !whole::is_target(target) {
                    return Err(Refusal::not_run(Reason::UpstreamInvalid));
                }
                let answered = whole::send(&host.whole, request).await;
                answered.map_err(|failure| failed(url, failure).0)?
            }
            Payload::Whole(_) | Payload::Passing(_) => {
                let request = (method, target, &headers, payload);
                // In a box, as all that is not the common case: its room would be part of every request's.
                match Box::pin(pass(&host.passing, url, request)).await? {
                    answer if answer.status() == StatusCode::SWITCHING_PROTOCOLS => return Ok(answer),
                    answer => answer,
                }
            }
        };
        strip_hop_by_hop(answer.headers_mut());
        Ok(answer)
    }
}

/// A request that hyper sends.
async fn pass(
    pool: &Arc<Pool<Sender>>,
    url: &UpstreamUrl,
    (method, target, headers, payload): (Method, &str, &Changed<'_>, &Payload),
) -> Result<Answer, Refusal> {
    let uri = target.parse().map_err(|_| Refusal::not_run(Reason::UpstreamInvalid))?;
    let mut headers = headers.whole();
    let wishes = upgraded::is_wished(headers.iter());
    // What follows an upgrade is not the body of this request.
    let body = if wishes { Some(answer::whole(Bytes::new())) } else { payload.take() };
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
    *request.headers_mut() = headers.into();
    let answered = passing::send(pool, request).await;
    let answer = answered.map_err(|failure| {
        let (refusal, unsent) = failed(url, failure);
        if let Some(unsent) = unsent.filter(|_| !wishes) {
            payload.give_back(unsent.into_body());
        }
        refusal
    })?;
    let answer = answer.map(|body: Pooled| body.map_err(|_| Broke::Upstream).boxed_unsync());
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        // To nobody's wish, or to one that was granted before, it is no answer.
        let said = if wishes { payload.take() } else { None };
        let said = said.ok_or(Refusal::perhaps_run(Reason::UpstreamBroke))?;
        return Ok(upgrade::switched(answer, said));
    }
    Ok(answer.into())
}

/// What is told of a failure, and the request where nothing of it was sent.
fn failed<R>(url: &UpstreamUrl, failure: Failure<R>) -> (Refusal, Option<R>) {
    match failure {
        Failure::Unreachable(error, unsent) => {
            tracing::warn!(upstream = %url, %error, "upstream unreachable");
            (Refusal::not_run(Reason::UpstreamUnreachable), Some(unsent))
        }
        Failure::Broke(error) => {
            tracing::warn!(upstream = %url, %error, "upstream broke off before it answered");
            (Refusal::perhaps_run(Reason::UpstreamBroke), None)
        }
    }
}
