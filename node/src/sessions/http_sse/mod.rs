//! Sessions of clients that speak HTTP+SSE (2024-11-05): one stream to read from, and messages POSTed
//! beside it. To its upstream such a session is like any other; what that answers goes into the session's
//! [`outbox`], which the client reads. It lives as long as somebody reads, wherever that is: the node at
//! which the client's stream comes in attaches it to the next owner when this one is lost.
//!
//! A POST is answered with 202 as soon as the upstream has taken the message. That answer's body is empty
//! and ends when the reply is in the outbox, or breaks: so the node that passes the message on knows
//! whether somebody still waits for a reply that will not come.

mod hear;
mod listen;
mod outbox;

pub(super) use outbox::Outbox;

use super::table::{InUse, Live};
use super::{Admitted, AtUpstream, END_UPSTREAM_TIME_MAX, READ_LEN_MAX, Sessions};
use crate::answer::{Answer, holding, whole};
use crate::ask::{Ask, Errand, Payload, Sent};
use crate::cluster::seconds_since_epoch;
use crate::config::Endpoint;
use crate::headers::{self, EVENT_STREAM, Headers, JSON, JSON_OR_EVENTS};
use crate::mcp::{self, Calls, LAST_EVENT_ID, Message, PROTOCOL_VERSION, SESSION_ID};
use bytes::Bytes;
use hear::Hearing;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use listen::Listener;
use proto::core::custody::Holding;
use proto::id::{Birth, Nonce, SessionId, UpstreamBirth};
use proto::wire::{Caller, GoneWhy, INITIALIZE_LEN_MAX, Nature, Reason, Refusal};
use std::{sync::Arc, time::Duration};

/// A client's stream that nobody reads is attached again within 60 s (`front::reattach`), or its client
/// is gone; the rest is for the attempt that was the last one.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(75);
/// A node that may not serve at the moment does not end sessions either.
const LEASE_AGAIN: Duration = Duration::from_secs(1);
/// Messages of one client that are in progress: a POST is answered before its message is done with, so
/// nothing else bounds them. Each holds at most a request's 4 MiB.
const CALLS_MAX: u32 = 128;
/// Longer ids fit no session id of a Streamable HTTP client either.
const UPSTREAM_SESSION_LEN_MAX: usize = 1_024;

impl Sessions {
    /// Opens a session, by whatever transport its client speaks.
    pub(crate) async fn welcome(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Refusal> {
        match ask.endpoint() {
            Endpoint::Mcp => self.open(ask).await,
            Endpoint::Sse | Endpoint::Messages => self.open_http_sse(ask).await,
        }
    }

    /// One request of a session that lives here, by whatever transport its client speaks.
    pub(crate) async fn serve(self: &Arc<Self>, ask: &Ask, id: &SessionId) -> Result<Answer, Refusal> {
        if ask.endpoint() == Endpoint::Mcp {
            return self.exchange(ask, id).await;
        }
        let in_use = self.table.take_up(id.nonce, ask.method == Method::GET);
        let in_use = in_use.filter(|_| self.cluster.is_leased()).ok_or(Refusal::not_run(Reason::Moved))?;
        let outbox = self.outbox(&in_use.live, id, &ask.headers);
        match ask.method {
            Method::GET => Ok(read(ask, &outbox, in_use)),
            Method::POST => Box::pin(self.tell(ask, id, in_use, &outbox)).await,
            // From the node at which the client's message came in: what became of that.
            Method::PUT => match &ask.body {
                Payload::Whole(json)
                    if hear::messages(json).iter().all(|message| outbox.try_put(message)) =>
                {
                    Ok(accepted())
                }
                Payload::Whole(_) | Payload::Passing(_) => Err(Refusal::not_run(Reason::Overloaded)),
            },
            // From the node at which the client's stream has ended.
            Method::DELETE => {
                drop(in_use);
                Box::pin(self.end_with_its_client(id.nonce, GoneWhy::Deleted)).await;
                Ok(accepted())
            }
            _ => Err(Refusal::not_run(Reason::UpstreamInvalid)), // no node says so
        }
    }

    /// Nothing is known of an upstream before the client says `initialize`, so the id names none.
    async fn open_http_sse(self: &Arc<Self>, ask: &Ask) -> Result<Answer, Refusal> {
        let used = self.used(&ask.route);
        let upstream = used.by_load().first().copied();
        let Admitted { opening, of_client } = self.let_in(ask).await?;
        let seat = AtUpstream::new(used, upstream.ok_or(Refusal::not_run(Reason::Overloaded))?);
        drop(opening);
        let home = self.cluster.me();
        let birth = Birth {
            minted_s: seconds_since_epoch(),
            home,
            route: ask.route.id,
            principal: ask.caller.principal(),
            upstream: None,
        };
        let id = SessionId { nonce: self.cluster.draw(), birth };
        let sealed = self.cluster.seal().seal(id.nonce, &id.birth).expect("it names no upstream");
        self.table.find(home, self.record(&ask.route, &id, 1, &[]), ask.route.clone(), None);
        self.publish_count();
        let in_use = self.table.take_up(id.nonce, true).ok_or(Refusal::not_run(Reason::Moved))?;
        in_use.live.admit(of_client);
        // From here on it is looked after: its client may go away while it is being opened.
        let outbox = self.outbox(&in_use.live, &id, &ask.headers);
        outbox.listener.keep_seat(seat);
        self.copied(&self.peers, id.nonce).await;
        let is_home = self.cluster.me() == home && self.cluster.is_leased();
        if !is_home || self.table.holding(id.nonce) != Holding::Live {
            // It lost its right while it waited. Nobody was told of the session.
            self.end(id.nonce, GoneWhy::LostOwner);
            return Err(Refusal::not_run(Reason::Moved));
        }
        self.note_opened(&ask.route);
        let mut answer = read(ask, &outbox, in_use);
        let sealed = HeaderValue::from_str(&sealed).expect("a sealed id is visible ASCII");
        answer.headers_mut().insert(SESSION_ID, sealed);
        Ok(answer)
    }

    /// The session's outbox, with somebody who looks after it.
    fn outbox(self: &Arc<Self>, live: &Arc<Live>, id: &SessionId, headers: &Headers) -> Arc<Outbox> {
        let mut is_new = false;
        let outbox = live.outbox.get_or_init(|| {
            is_new = true;
            let record = self.table.record(live.nonce);
            Arc::new(Outbox::new(record.map_or(1, |record| record.epoch)))
        });
        if live.is_gone() {
            outbox.close();
        }
        if is_new {
            tokio::spawn(self.clone().attend(id.clone(), live.route.clone(), outbox.clone()));
            if live.place.is_some() || self.has_begun(live.nonce) {
                outbox.listener.want(headers); // another node's client, which has long begun
            }
        }
        outbox.clone()
    }

    /// Ends the session when its client is gone; until then, says what the upstream says by itself.
    async fn attend(self: Arc<Self>, id: SessionId, route: Arc<crate::config::Route>, outbox: Arc<Outbox>) {
        tokio::select! {
            () = outbox.unread(UNREAD_TIME_MAX) => {}
            () = self.listen(&id, &route, &outbox) => {}
        }
        while !outbox.is_closed() {
            if self.cluster.is_leased() {
                return self.end_with_its_client(id.nonce, GoneWhy::Expired).await;
            }
            tokio::time::sleep(LEASE_AGAIN).await; // it may be another node's, and in use there
            outbox.unread(UNREAD_TIME_MAX).await;
        }
    }

    async fn end_with_its_client(&self, nonce: Nonce, why: GoneWhy) {
        let Some(live) = self.table.end(nonce, why) else { return };
        self.metrics.session_ended(why.word());
        self.publish_count();
        self.end_copied(&self.peers, nonce, why).await;
        self.end_at_upstream(&live).await;
    }

    async fn end_at_upstream(&self, live: &Live) {
        let Ok(_permit) = self.ending.acquire().await else { return };
        let _ = tokio::time::timeout(END_UPSTREAM_TIME_MAX, self.end_upstream(live)).await;
    }

    /// One message of the client to the upstream.
    async fn tell(
        self: &Arc<Self>,
        ask: &Ask,
        id: &SessionId,
        in_use: InUse,
        outbox: &Arc<Outbox>,
    ) -> Result<Answer, Refusal> {
        let Payload::Whole(body) = &ask.body else {
            return Err(Refusal::not_run(Reason::UpstreamInvalid)); // not of an MCP route
        };
        let message = mcp::peek(body, true).map_err(|_| Refusal::not_run(Reason::UpstreamInvalid))?;
        if in_use.live.calls() > CALLS_MAX {
            return Err(Refusal::not_run(Reason::Overloaded));
        }
        let initializes = message.method == mcp::Method::Initialize;
        // A second session at the upstream hurts nobody.
        if ask.sent.may_have_run() && !initializes && !self.may_run_again(ask, id.nonce) {
            return Err(Refusal::perhaps_run(Reason::OwnerLost));
        }
        let inner = Ask {
            route: ask.route.clone(),
            errand: Errand::Session(Box::new(id.clone())),
            nature: ask.nature,
            uid: ask.uid,
            sent: Sent::default(),
            caller: ask.caller,
            method: Method::POST,
            target: ask.route.path.clone(),
            headers: post_headers(&ask.headers, outbox.listener.version()),
            body: Payload::Whole(body.clone()),
        };
        let answer = if initializes {
            self.initialize(&inner, &in_use.live, body, outbox).await?
        } else if in_use.live.place.is_none() && !self.has_begun(id.nonce) {
            // The upstream says what that is worth: it may have no sessions at all.
            self.pass(&inner).await?
        } else {
            self.exchange(&inner, id).await?
        };
        self.hear(inner, id, message, answer, (in_use, outbox.clone())).await
    }

    fn has_begun(&self, nonce: Nonce) -> bool {
        self.table.record(nonce).is_some_and(|record| !record.initialize.is_empty())
    }

    /// The client's `initialize`: opens a session at an upstream of the route, in the place of what the
    /// client's session had there, if anything.
    async fn initialize(
        self: &Arc<Self>,
        inner: &Ask,
        live: &Arc<Live>,
        body: &Bytes,
        outbox: &Outbox,
    ) -> Result<Answer, Refusal> {
        let used = self.used(&inner.route);
        let (upstream, mut answer) = self.first_to_answer(inner, used.by_load().into_iter()).await?;
        let shown = answer.headers_mut().remove(SESSION_ID).filter(|_| answer.status().is_success());
        let Some(shown) = shown else { return Ok(answer) };
        let session = headers::copied(&shown);
        let text = session.to_str().ok().filter(|text| text.len() <= UPSTREAM_SESSION_LEN_MAX);
        let Some(text) = text else {
            tracing::warn!(route = inner.route.path, "the upstream's session id can't be used");
            return Err(Refusal::perhaps_run(Reason::UpstreamInvalid));
        };
        let lives = UpstreamBirth { url: inner.route.upstreams[upstream].name(), session: text.into() };
        let place = self.place_at(&inner.route, upstream, session.clone());
        used.speaks_sessions.store(true, std::sync::atomic::Ordering::Relaxed);
        outbox.listener.leave_seat();
        let renewed = self.table.renew(live, place, None, |record| {
            record.lives = Some(lives);
            record.renewals += 1;
            record.initialize = if body.len() <= INITIALIZE_LEN_MAX { (**body).into() } else { [].into() };
        });
        renewed.ok_or(Refusal::not_run(Reason::Moved))?;
        if live.place.is_some() {
            let (sessions, live) = (self.clone(), live.clone());
            tokio::spawn(async move { sessions.end_at_upstream(&live).await });
        }
        self.copied(&self.peers, live.nonce).await;
        Ok(answer)
    }

    /// What the upstream answered goes to the client by its stream; the POST's own answer says that the
    /// message was taken.
    async fn hear(
        self: &Arc<Self>,
        inner: Ask,
        id: &SessionId,
        message: Message,
        answer: Answer,
        (in_use, outbox): (InUse, Arc<Outbox>),
    ) -> Result<Answer, Refusal> {
        let status = answer.status();
        let is_waited_for = !matches!(message.calls, Calls::None);
        if !status.is_success() {
            let is_about_the_caller = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
            if !is_waited_for || is_about_the_caller {
                return Ok(answer);
            }
            let unclear = Refusal::perhaps_run(Reason::UpstreamStatus(status.as_u16()));
            let body = Limited::new(answer.into_body(), READ_LEN_MAX).collect().await;
            let error = body.ok().and_then(|body| mcp::readdressed(&body.to_bytes(), &message.calls));
            let error = error.ok_or(unclear)?;
            for error in hear::messages(&error) {
                if !outbox.put(&error).await {
                    return Err(unclear);
                }
            }
            return Ok(accepted());
        }
        if !is_waited_for {
            // The first that is taken is `notifications/initialized`; from then on servers speak by themselves.
            outbox.listener.want(&inner.headers);
            return Ok(accepted());
        }
        let hearing = Hearing::new(outbox, message.calls, message.method == mcp::Method::Initialize);
        let settling = tokio::spawn(hearing.settle(self.clone(), inner, id.clone(), answer, in_use));
        Ok(accepted().map(|_| hear::until_settled(settling)))
    }
}

/// The stream that the client reads.
fn read(ask: &Ask, outbox: &Arc<Outbox>, in_use: InUse) -> Answer {
    let after = ask.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    let mut answer = Answer::new(holding(outbox.read(after).boxed_unsync(), in_use));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(
        header::HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"), // nginx would keep events back
    );
    answer
}

fn accepted() -> Answer {
    let mut answer = Answer::new(whole(""));
    *answer.status_mut() = StatusCode::ACCEPTED;
    answer
}

/// The headers of a POST as a Streamable HTTP client sends them. What else the client sent goes along.
fn post_headers(sent: &Headers, version: Option<HeaderValue>) -> Headers {
    let mut headers = sent.clone();
    for of_another_request in [LAST_EVENT_ID, header::CONTENT_LENGTH, header::ACCEPT_ENCODING] {
        headers.remove(of_another_request);
    }
    headers.insert(header::ACCEPT, JSON_OR_EVENTS);
    headers.insert(header::CONTENT_TYPE, JSON);
    if let Some(version) = version {
        headers.add_missing(PROTOCOL_VERSION, version);
    }
    headers
}

/// Those of a GET, for as long as it listens.
fn get_headers(sent: &Headers) -> Headers {
    let mut headers = sent.clone();
    for of_a_post in [LAST_EVENT_ID, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::ACCEPT_ENCODING] {
        headers.remove(of_a_post);
    }
    headers::let_go(&mut headers);
    headers.insert(header::ACCEPT, EVENT_STREAM);
    headers
}

/// A GET of the client's session at its upstream.
fn get(route: &Arc<crate::config::Route>, id: &SessionId, nature: Nature, headers: Headers) -> Ask {
    Ask {
        route: route.clone(),
        errand: Errand::Session(Box::new(id.clone())),
        nature,
        uid: 0, // it goes to no other node
        sent: Sent::default(),
        caller: Caller::Known(id.birth.principal),
        method: Method::GET,
        target: route.path.clone(),
        headers,
        body: Payload::Whole(Bytes::new()),
    }
}
