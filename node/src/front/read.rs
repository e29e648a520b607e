//! From a client's HTTP request to an ask.

use super::{
    Front, origin,
    upgrade::{Client, Wish},
};
use crate::answer::{Answer, Broke};
use crate::ask::{self, Ask, Errand, NoErrand, Payload, Sent};
use crate::config::{Endpoint, Protocol, Route};
use crate::mcp::{self, Calls, Message, NotRpc};
use crate::upgraded;
use crate::upstream::strip_hop_by_hop;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request,
    body::{Body, Incoming},
    header::{self, HeaderName},
};
use proto::wire::{GoneWhy, Nature};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What is read of a body that is too long: 64 MiB, 16 times the default limit.
const DISCARDED_LEN_MAX: usize = 64 * 1024 * 1024;
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(5);

/// A body that takes longer is not read on.
const BODY_TIME_MAX: Duration = Duration::from_secs(60);
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// A request that was understood.
pub(super) struct Reading {
    pub(super) ask: Ask,
    /// Who waits for an answer.
    pub(super) calls: Calls,
    pub(super) without_session: WithoutSession,
    /// Whoever wants another protocol than HTTP.
    pub(super) client: Option<Client>,
}

/// How to understand an upstream's refusal of a request that names no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WithoutSession {
    /// It is the upstream's own affair.
    Fine,
    /// `server/discover`: an upstream that does not know it speaks sessions only.
    Discover,
    /// An old client without a session, and this node has yet to learn whether the upstream wants one.
    Unknown,
}

/// A request that goes no further.
pub(super) enum Refused {
    NoRoute,
    ForeignOrigin,
    /// The methods that the route has.
    Method(&'static str),
    /// Nothing is asked for yet: a browser wants to know whether it may.
    Preflight(Box<Answer>),
    TooLarge {
        len_max: usize,
    },
    /// The client broke off in the middle of its request.
    Unread,
    NotRpc(NotRpc),
    NoSession(Calls),
    /// The same, of a client that speaks HTTP+SSE.
    NoSessionId(Calls),
    Gone(GoneWhy, Calls),
}

/// Whether a path belongs to a route: MCP endpoints are single paths, another service is a tree.
pub(super) fn is_for(route: &Route, path: &str) -> bool {
    match route.protocol {
        Protocol::Mcp => route.endpoint(path).is_some(),
        Protocol::Http => {
            let rest = path.strip_prefix(route.path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || route.path.ends_with('/'))
        }
    }
}

impl Front {
    pub(super) async fn read(
        &self,
        route: &Arc<Route>,
        from: IpAddr,
        mut request: Request<Incoming>,
    ) -> Result<Reading, Refused> {
        let is_mcp = route.speaks_mcp();
        let endpoint = route.endpoint(request.uri().path());
        let methods = endpoint.map_or("", methods);
        if is_mcp && !methods.split(", ").any(|method| request.method().as_str() == method) {
            let asks = request.method() == Method::OPTIONS;
            let preflight = origin::preflight(request.headers(), methods).filter(|_| asks);
            return Err(match preflight {
                Some(answer) => Refused::Preflight(Box::new(answer)),
                None => Refused::Method(methods),
            });
        }
        let wish = if is_mcp { None } else { Wish::of(&mut request) };
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let mut headers = head.headers;
        let expects_continue = headers.remove(header::EXPECT).is_some();
        strip_hop_by_hop(&mut headers);
        // The upstream gets a Host of its own; what the client called is kept beside it.
        let authority = head.uri.authority().and_then(|authority| authority.as_str().parse().ok()); // HTTP/2
        headers.remove(FORWARDED_HOST); // nobody but this node knows it
        if let Some(host) = headers.remove(header::HOST).or(authority) {
            headers.insert(FORWARDED_HOST, host);
        }
        if !is_mcp {
            let errand = ask::keyed_errand(route, &target, &headers);
            let (body, client) = match wish {
                Some((Wish { protocol, client }, coming)) => {
                    upgraded::put(&mut headers, protocol);
                    (Payload::passing(coming), Some(client))
                }
                None if body.is_end_stream() => (Payload::Whole(Bytes::new()), None),
                None => (Payload::passing(body.map_err(|_| Broke::Client).boxed_unsync()), None),
            };
            let (uid, nature) = (self.journey.cluster.next_uid(), Nature::Unsafe);
            let (method, route) = (head.method, route.clone());
            let sent = Sent::default();
            let ask = Ask { route, errand, nature, uid, sent, client: None, method, target, headers, body };
            let (calls, without_session) = (Calls::None, WithoutSession::Fine);
            return Ok(Reading { ask, calls, without_session, client });
        }
        let body = read_body(&headers, body, route.body_len_max, expects_continue).await?;
        let message = if head.method == Method::POST { Some(peek(&headers, &body)?) } else { None };
        let (errand, without_session) = match endpoint {
            Some(Endpoint::Sse) => (ask::http_sse_errand(&mut headers), WithoutSession::Fine),
            Some(Endpoint::Messages) => {
                (self.posted_to(route, &target, &mut headers, message.as_ref())?, WithoutSession::Fine)
            }
            Some(Endpoint::Mcp) | None => self.errand(route, &target, &headers, &body, message.as_ref())?,
        };
        // A GET listens and a DELETE ends what may have ended already.
        let nature = message.as_ref().map_or(Nature::Safe, |message| message.nature);
        let calls = message.map(|message| message.calls).unwrap_or_default();
        let (method, body) = (head.method, Payload::Whole(body));
        let (uid, route) = (self.journey.cluster.next_uid(), route.clone());
        let client = matches!(errand, Errand::Open).then(|| ask::client(&headers, from));
        let sent = Sent::default();
        let ask = Ask { route, errand, nature, uid, sent, client, method, target, headers, body };
        Ok(Reading { ask, calls, without_session, client: None })
    }

    fn errand(
        &self,
        route: &Arc<Route>,
        target: &str,
        headers: &HeaderMap,
        body: &[u8],
        message: Option<&Message>,
    ) -> Result<(Errand, WithoutSession), Refused> {
        let calls = || message.map(|message| message.calls.clone()).unwrap_or_default();
        match ask::mcp_errand(route, target, headers, body, message, self.journey.cluster.seal()) {
            Ok(errand) => {
                let discover = message.is_some_and(|message| message.method == mcp::Method::Discover);
                Ok((errand, if discover { WithoutSession::Discover } else { WithoutSession::Fine }))
            }
            Err(NoErrand::Gone(why)) => Err(Refused::Gone(why, calls())),
            Err(NoErrand::NoSession) if self.journey.sessions.speaks_sessions(route) => {
                Err(Refused::NoSession(calls()))
            }
            Err(NoErrand::NoSession) => Ok((Errand::Anyone, WithoutSession::Unknown)),
        }
    }

    /// The errand of a message of a client that speaks HTTP+SSE.
    fn posted_to(
        &self,
        route: &Route,
        target: &str,
        headers: &mut HeaderMap,
        message: Option<&Message>,
    ) -> Result<Errand, Refused> {
        let calls = message.map(|message| message.calls.clone()).unwrap_or_default();
        match ask::messages_errand(route, target, headers, self.journey.cluster.seal()) {
            Ok(errand) => Ok(errand),
            Err(NoErrand::NoSession) => Err(Refused::NoSessionId(calls)),
            Err(NoErrand::Gone(why)) => Err(Refused::Gone(why, calls)),
        }
    }
}

fn methods(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Mcp => "GET, POST, DELETE",
        Endpoint::Sse => "GET",
        Endpoint::Messages => "POST",
    }
}

fn peek(headers: &HeaderMap, body: &[u8]) -> Result<Message, Refused> {
    mcp::peek(body, mcp::has_batches(headers)).map_err(Refused::NotRpc)
}

/// Reads a body whole. One that is too long is read to its end all the same, within reason, and
/// thrown away: a connection closed on a client that is still sending shows it a reset, not the 413.
async fn read_body(
    headers: &HeaderMap,
    mut body: Incoming,
    len_max: usize,
    expects_continue: bool,
) -> Result<Bytes, Refused> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > len_max) {
        if !expects_continue {
            discard(body).await;
        }
        return Err(Refused::TooLarge { len_max });
    }
    let reading = tokio::time::timeout(BODY_TIME_MAX, Limited::new(&mut body, len_max).collect());
    let Ok(read) = reading.await else { return Err(Refused::Unread) };
    match read {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(body).await;
            Err(Refused::TooLarge { len_max })
        }
        Err(_) => Err(Refused::Unread),
    }
}

async fn discard(mut body: Incoming) {
    let discarding = async {
        let mut left = DISCARDED_LEN_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARDING_TIME_MAX, discarding).await;
}
