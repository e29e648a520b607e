//! From a client's HTTP request to an ask.

use super::{
    Front,
    coming::{Coming, Request},
    crowd::Arrival,
    guard::Unadmitted,
    origin,
    upgrade::{Client, Wish},
};
use crate::answer::{Answer, Broke};
use crate::ask::{self, Ask, Errand, NoErrand, Payload, Sent};
use crate::config::{Endpoint, Protocol, Route};
use crate::headers::{FORWARDED_HOST, FORWARDED_PROTO, Headers};
use crate::mcp::{self, Calls, Message, NotRpc};
use crate::upgraded;
use crate::upstream::strip_hop_by_hop;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    Method,
    body::Body,
    header::{self, HeaderValue},
};
use proto::wire::{Caller, GoneWhy, Nature, Reason};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// What is read of a body that is too long: 64 MiB, 16 times the default limit.
const DISCARDED_LEN_MAX: usize = 64 * 1024 * 1024;
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(5);

/// Of one request: target, names and values of headers. Credentials are the longest in practice, some KiB.
pub(super) const HEAD_LEN_MAX: usize = 64 * 1024;
/// What an MCP client asks for is short; others send what people can still paste.
const TARGET_LEN_MAX: usize = 16 * 1024;

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
    /// Its body has not come in the time that it has.
    SlowBody(Duration),
    LongTarget,
    LongHead,
    NotRpc(NotRpc),
    NoSession(Calls),
    /// The same, of a client that speaks HTTP+SSE.
    NoSessionId(Calls),
    Gone(GoneWhy, Calls),
    /// Nobody knows who calls: why, and the challenge to prove it.
    Denied(&'static str, Box<HeaderValue>),
    /// It was not served here, and nobody else was asked.
    Undelivered(Reason, Calls),
}

/// A request whose head is longer than anybody needs.
fn too_long(request: &Request) -> Option<Refused> {
    let target = request.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > TARGET_LEN_MAX {
        return Some(Refused::LongTarget);
    }
    let lines = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    (target + lines.sum::<usize>() > HEAD_LEN_MAX).then_some(Refused::LongHead)
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
        mut request: Request,
        arrival: &Arrival,
    ) -> Result<Reading, Refused> {
        if let Some(refused) = too_long(&request) {
            return Err(refused);
        }
        let is_mcp = route.speaks_mcp();
        let endpoint = route.endpoint(request.uri.path());
        let methods = endpoint.map_or("", methods);
        if is_mcp && !methods.split(", ").any(|method| request.method.as_str() == method) {
            let asks = request.method == Method::OPTIONS;
            let preflight = origin::preflight(&request.headers, methods).filter(|_| asks);
            return Err(match preflight {
                Some(answer) => Refused::Preflight(Box::new(answer)),
                None => Refused::Method(methods),
            });
        }
        let admitted = self.admit(route, (from, arrival), &request).await;
        if let Err(Unadmitted::Denied(why, challenge)) = admitted {
            if !request.headers.contains_key(header::EXPECT) {
                discard(request.body).await;
            }
            return Err(Refused::Denied(why, challenge));
        }
        let wish = if is_mcp { None } else { Wish::of(&mut request) };
        let Request { method, uri, mut headers, body, .. } = request;
        let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let expects_continue = headers.remove(header::EXPECT).is_some();
        strip_hop_by_hop(&mut headers);
        // The upstream gets a Host of its own; what the client called is kept beside it.
        let authority = uri.authority().and_then(|authority| authority.as_str().parse().ok()); // HTTP/2
        headers.remove(FORWARDED_HOST); // nobody but this node knows it
        if let Some(host) = headers.remove(header::HOST).or(authority) {
            headers.append(FORWARDED_HOST, host);
        }
        let scheme = if arrival.is_tls() { "https" } else { "http" };
        // Without TLS here there may be some in front, whose word is all that is known of it.
        if arrival.is_tls() || !headers.contains_key(FORWARDED_PROTO) {
            headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        }
        if !is_mcp {
            arrival.is_whole(); // its body is passed on as it comes
            let errand = ask::keyed_errand(route, &target, &headers, Caller::Anyone);
            let (body, client) = match wish {
                Some((Wish { protocol, client }, coming)) => {
                    upgraded::put(&mut headers, protocol);
                    (Payload::passing(coming), Some(client))
                }
                None if body.is_end_stream() => (Payload::Whole(Bytes::new()), None),
                None => (Payload::passing(body.map_err(|_| Broke::Client).boxed_unsync()), None),
            };
            let (uid, nature) = (self.journey.cluster.next_uid(), Nature::Unsafe);
            let route = route.clone();
            let sent = Sent::default();
            let caller = Caller::Anyone;
            let ask = Ask { route, errand, nature, uid, sent, caller, method, target, headers, body };
            let (calls, without_session) = (Calls::None, WithoutSession::Fine);
            return Ok(Reading { ask, calls, without_session, client });
        }
        let body =
            read_body(&headers, body, route.body_len_max, arrival.limits().body_time_max, expects_continue)
                .await?;
        arrival.is_whole();
        let message = if method == Method::POST { Some(peek(&headers, &body)?) } else { None };
        let Ok(caller) = admitted else {
            let calls = message.map(|message| message.calls).filter(|_| endpoint == Some(Endpoint::Mcp));
            return Err(Refused::Undelivered(Reason::KeysUnknown, calls.unwrap_or_default()));
        };
        let (errand, without_session) = match endpoint {
            Some(Endpoint::Sse) => (ask::http_sse_errand(&mut headers), WithoutSession::Fine),
            Some(Endpoint::Messages) => (
                self.posted_to(route, &target, &mut headers, (message.as_ref(), caller))?,
                WithoutSession::Fine,
            ),
            Some(Endpoint::Mcp) | None => {
                self.errand(route, &target, &headers, &body, (message.as_ref(), caller))?
            }
        };
        // A GET listens and a DELETE ends what may have ended already.
        let nature = message.as_ref().map_or(Nature::Safe, |message| message.nature);
        let calls = message.map(|message| message.calls).unwrap_or_default();
        let body = Payload::Whole(body);
        let (uid, route) = (self.journey.cluster.next_uid(), route.clone());
        let caller = match caller {
            Caller::Anyone if matches!(errand, Errand::Open) => Caller::Counted(ask::client(&headers, from)),
            Caller::Anyone | Caller::Counted(_) | Caller::Known(_) => caller,
        };
        let sent = Sent::default();
        let ask = Ask { route, errand, nature, uid, sent, caller, method, target, headers, body };
        Ok(Reading { ask, calls, without_session, client: None })
    }

    fn errand(
        &self,
        route: &Arc<Route>,
        target: &str,
        headers: &Headers,
        body: &[u8],
        (message, caller): (Option<&Message>, Caller),
    ) -> Result<(Errand, WithoutSession), Refused> {
        let calls = || message.map(|message| message.calls.clone()).unwrap_or_default();
        let seal = self.journey.cluster.seal();
        match ask::mcp_errand(route, target, headers, body, message, (&seal, caller)) {
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
        headers: &mut Headers,
        (message, caller): (Option<&Message>, Caller),
    ) -> Result<Errand, Refused> {
        let calls = message.map(|message| message.calls.clone()).unwrap_or_default();
        let seal = self.journey.cluster.seal();
        match ask::messages_errand(route, target, headers, (&seal, caller)) {
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

fn peek(headers: &Headers, body: &[u8]) -> Result<Message, Refused> {
    mcp::peek(body, mcp::has_batches(headers)).map_err(Refused::NotRpc)
}

/// Reads a body whole. One that is too long is read to its end all the same, within reason, and
/// thrown away: a connection closed on a client that is still sending shows it a reset, not the 413.
async fn read_body(
    headers: &Headers,
    mut body: Coming,
    len_max: usize,
    time_max: Duration,
    expects_continue: bool,
) -> Result<Bytes, Refused> {
    if let Coming::Whole(whole) = &mut body {
        let whole = std::mem::take(whole);
        return if whole.len() <= len_max { Ok(whole) } else { Err(Refused::TooLarge { len_max }) };
    }
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|len| len > len_max) {
        if !expects_continue {
            discard(body).await;
        }
        return Err(Refused::TooLarge { len_max });
    }
    let reading = tokio::time::timeout(time_max, Limited::new(&mut body, len_max).collect());
    let Ok(read) = reading.await else { return Err(Refused::SlowBody(time_max)) };
    match read {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(body).await;
            Err(Refused::TooLarge { len_max })
        }
        Err(_) => Err(Refused::Unread),
    }
}

async fn discard(mut body: Coming) {
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
