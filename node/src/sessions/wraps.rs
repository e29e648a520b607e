//! What has no session, and still has a place: the tasks and request states that upstreams hand out
//! in the era without sessions mean something to one replica only. What they hand out leaves here
//! under a seal that names this node and the upstream, and what comes back is opened again.

use super::Sessions;
use crate::answer::{Answer, BodyStream, Broke, resumed, whole};
use crate::ask::{Ask, Errand, Payload, Pin as PinnedTo, Sent};
use crate::cluster::Cluster;
use crate::headers::Headers;
use crate::mcp::{
    self,
    modern::{self, About, Request, Rewriter, Spot},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame},
    header,
};
use proto::id::{NodeRef, Principal, RouteId, UpstreamTag, WrapKind, Wrapped};
use proto::wire::{Reason, Refusal};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// A longer id is left as it is: wrapped it would be too much for a header (1,024 * 4/3 + 71 bytes are
/// a third of the 4 KiB that the strictest servers in use allow). SDKs' are UUIDs.
const TASK_LEN_MAX: usize = 1_024;

impl Sessions {
    /// A request that belongs to state at one upstream, to that upstream and in its own words.
    pub(super) async fn pass_pinned(&self, ask: &Ask, pin: &PinnedTo) -> Result<(usize, Answer), Refusal> {
        let upstream = pin.upstream_of(&ask.route).ok_or(Refusal::not_run(Reason::NoUpstream))?;
        let unwrapped = self.unwrapped(ask, pin);
        self.first_to_answer(&unwrapped, std::iter::once(upstream)).await
    }

    fn unwrapped(&self, ask: &Ask, pin: &PinnedTo) -> Ask {
        let mut headers = ask.headers.clone();
        self.unwrap_name(&mut headers, ask, pin.upstream);
        let body = match &ask.body {
            Payload::Whole(body) => {
                let own = pin.names.iter().map(|(spot, own)| (spot.range.clone(), own.value.clone()));
                Payload::Whole(modern::splice(body, own).map_or_else(|| body.clone(), Bytes::from))
            }
            Payload::Passing(_) => Payload::Whole(Bytes::new()), // MCP messages are read whole
        };
        Ask {
            route: ask.route.clone(),
            // Where it is a child process that answers, the key says which.
            errand: pin.key.map_or(Errand::Anyone, Errand::Key),
            nature: ask.nature,
            uid: ask.uid,
            sent: Sent::default(),
            caller: ask.caller,
            method: ask.method.clone(),
            target: ask.target.clone(),
            headers,
            body,
        }
    }

    /// The header by itself, whatever the body says: if they disagree, the upstream must notice.
    fn unwrap_name(&self, headers: &mut Headers, ask: &Ask, upstream: UpstreamTag) {
        let Some(name) = headers.get(modern::NAME).map(modern::decoded) else { return };
        let Ok(name) = std::str::from_utf8(&name) else { return };
        let principal = ask.caller.principal();
        let wrapped = self.cluster.seal().open_wrapped(WrapKind::Task, ask.route.id, principal, name);
        if let Some(wrapped) = wrapped.filter(|wrapped| wrapped.upstream == upstream) {
            headers.insert(modern::NAME, modern::encoded(&wrapped.value));
        }
    }

    /// What an upstream answers to a modern request, with its tasks and states as clients get them.
    pub(super) async fn wrapped(
        &self,
        ask: &Ask,
        upstream: usize,
        answer: Answer,
    ) -> Result<Answer, Refusal> {
        let Payload::Whole(body) = &ask.body else { return Ok(answer) };
        let is_read =
            mcp::is_modern(&ask.headers) && !answer.headers().contains_key(header::CONTENT_ENCODING);
        let request = if is_read { Request::read(body) } else { Request::default() };
        if request.about == About::Nothing {
            return Ok(answer);
        }
        let names = Names::new(&self.cluster, ask, upstream, request);
        if mcp::is_event_stream(answer.headers()) {
            let (mut head, body) = answer.into_parts();
            head.headers.remove(header::CONTENT_LENGTH);
            let renamed = Renamed { body, events: Rewriter::default(), names }.boxed_unsync();
            return Ok(Answer::from_parts(head, renamed));
        }
        rename_message(answer, &names, ask.route.body_len_max).await
    }
}

/// What the tasks and states of one answer are called.
struct Names {
    cluster: Arc<Cluster>,
    home: NodeRef,
    upstream: UpstreamTag,
    route: RouteId,
    /// Whose they are.
    principal: Principal,
    about: About,
    /// What the client called them in its request, after what the upstream was told.
    asked: Vec<(String, String)>,
}

impl Names {
    fn new(cluster: &Arc<Cluster>, ask: &Ask, upstream: usize, request: Request) -> Self {
        let tag = ask.route.upstreams[upstream].tag();
        let principal = ask.caller.principal();
        let asked = |Spot { kind, text, .. }: Spot| {
            let wrapped = cluster.seal().open_wrapped(kind, ask.route.id, principal, &text);
            let told = wrapped.filter(|wrapped| wrapped.upstream == tag).map(|wrapped| wrapped.value);
            (kind == WrapKind::Task).then(|| (told.unwrap_or_else(|| text.clone()), text))
        };
        Self {
            cluster: cluster.clone(),
            home: cluster.me(),
            upstream: tag,
            route: ask.route.id,
            principal,
            about: request.about,
            asked: request.spots.into_iter().filter_map(asked).collect(),
        }
    }

    /// A message with the names that the client gets; `None` where it stays as it is.
    fn rewrite(&self, message: &[u8]) -> Option<Vec<u8>> {
        modern::rewritten(message, self.about, |kind, own| self.name(kind, own))
    }

    fn name(&self, kind: WrapKind, own: &str) -> Option<String> {
        if kind == WrapKind::Task {
            // A client knows its task by the name it has used, whoever gave it that.
            if let Some((_, asked)) = self.asked.iter().find(|(told, _)| told == own) {
                return (asked != own).then(|| asked.clone());
            }
            if own.len() > TASK_LEN_MAX {
                return None;
            }
        }
        let wrapped = Wrapped { home: self.home, upstream: self.upstream, value: own.to_owned() };
        Some(self.cluster.seal().wrap(kind, self.route, self.principal, &wrapped))
    }
}

/// An answer that is one message; one that is longer than any request could be passes as it is.
async fn rename_message(answer: Answer, names: &Names, len_max: usize) -> Result<Answer, Refusal> {
    let (mut head, mut body) = answer.into_parts();
    let mut held = BytesMut::new();
    while held.len() <= len_max {
        match body.frame().await {
            Some(Ok(frame)) => held.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => return Err(Refusal::perhaps_run(Reason::UpstreamBroke)),
            None => {
                let Some(renamed) = names.rewrite(&held) else {
                    return Ok(Answer::from_parts(head, whole(held.freeze())));
                };
                if let Some(len) = head.headers.get_mut(header::CONTENT_LENGTH) {
                    *len = renamed.len().into();
                }
                return Ok(Answer::from_parts(head, whole(renamed)));
            }
        }
    }
    Ok(Answer::from_parts(head, resumed(held.freeze(), body)))
}

/// A stream of events with the names that the client gets.
struct Renamed {
    body: BodyStream,
    events: Rewriter,
    names: Names,
}

impl Body for Renamed {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let Self { body, events, names } = &mut *self;
        loop {
            let passed = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(chunk) => events.advance(&chunk, |message| names.rewrite(message)),
                    Err(_) => continue, // trailers, which nobody gets
                },
                Some(Err(broke)) => return Poll::Ready(Some(Err(broke))),
                None => {
                    let rest = events.rest();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }
}
