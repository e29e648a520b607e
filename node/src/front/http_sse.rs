//! Clients that speak HTTP+SSE (2024-11-05). All that is said to such a client comes on one stream, which
//! this node keeps open whoever owns the session; what the client says comes in POSTs, at any node.
//!
//! A POST is answered with 202 before it is known what becomes of its message. Whatever node took it
//! stays with it to the end: where no reply will come, the client's stream gets an error.

use super::events::{Events, Kind};
use super::honest::{LOSSES_MAX, reason};
use super::read::Reading;
use super::reattach::{Attached, JourneyAgain};
use super::replies::Expected;
use super::watch::{Of, Watch};
use super::{Front, respond};
use crate::answer::{Answer, BodyStream, Broke, holding, resumed};
use crate::ask::{self, Ask, Errand, Payload, Sent};
use crate::headers::{HOPS, Headers, JSON, NODE, copied};
use crate::journey::{Journey, NoAnswer};
use crate::leaving::Leaving;
use crate::mcp::{self, Calls, SESSION_ID};
use crate::telemetry::Metrics;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, StatusCode,
    header::{self, HeaderValue},
};
use proto::core::{route::Hop, view::Member};
use proto::id::NodeRef;
use proto::wire::{Nature, Reason, Refusal};
use std::{sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::oneshot, time::Instant};

/// How long a POST waits to be answered with what became of it. Some clients send one message at a time
/// and give each 5 s; a session that is known to be gone is mostly known at once.
const PATIENCE: Duration = Duration::from_secs(1);

impl Front {
    /// A client's stream, which is its session.
    pub(super) async fn listen(&self, ask: Ask) -> Result<Answer, NoAnswer> {
        let answer = self.journey.run(&ask, Hop::Entry).await?;
        Ok(self.endless(answer, ask))
    }

    /// Begins with where the client sends its messages, and goes on when the session's owner is lost.
    fn endless(&self, mut answer: Answer, mut ask: Ask) -> Answer {
        let sealed = answer.headers_mut().remove(SESSION_ID);
        let Some(sealed) = sealed.filter(|_| mcp::is_event_stream(answer.headers())) else { return answer };
        let sealed = copied(&sealed); // for as long as the stream lasts
        ask.headers.insert(SESSION_ID, sealed.clone());
        let Ok(id) = ask::session(&ask.route, &ask.headers, &self.journey.cluster.seal(), ask.caller) else {
            return answer; // of another cluster's node, which no peer is
        };
        let sealed = sealed.to_str().unwrap_or_default();
        let endpoint = format!("event: endpoint\ndata: {}?sessionId={sealed}\n\n", ask.route.messages_path());
        let session = id.nonce;
        ask.errand = Errand::Session(Box::new(id.clone()));
        let end =
            End::of(&self.journey, about(&ask, Method::DELETE, Errand::Session(Box::new(id)), Bytes::new()));
        let watch = Watch::new(&self.leaving, Of::Sole);
        let again = JourneyAgain::of(&self.journey, ask);
        answer.map(|body| {
            let rest = Attached::new(body, Events::new(Kind::Own, Calls::None), again, watch, &self.metrics);
            let body = resumed(endpoint.into(), self.replies.overhear(session, rest.boxed_unsync()));
            holding(body, end)
        })
    }

    /// A client's message. It is seen through to its end, however soon its POST is answered.
    pub(super) async fn post(&self, reading: Reading) -> (Answer, &'static str) {
        let (told, answer) = oneshot::channel();
        let expected = match &reading.ask.errand {
            _ if matches!(reading.calls, Calls::None) => None,
            Errand::Session(id) => Some(self.replies.expect(id.nonce, &reading.calls)),
            Errand::Open | Errand::Key(_) | Errand::Pinned(_) | Errand::Anyone => None,
        };
        let posted = Posted {
            journey: self.journey.clone(),
            metrics: self.metrics.clone(),
            leaving: self.leaving.clone(),
            ask: reading.ask,
            calls: reading.calls,
            expected,
            told: Some(told),
        };
        self.lasting.spawn(posted.see_through());
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) | Err(_) => (respond::accepted(), "answered"),
        }
    }
}

/// A reply that was given is looked for on its stream so often, and for so long: a client may read slowly.
const REPLY_AGAIN: Duration = Duration::from_millis(10);
const REPLY_TIME: Duration = Duration::from_secs(5);

/// A request about the same session as another one.
fn about(ask: &Ask, method: Method, errand: Errand, body: Bytes) -> Ask {
    let session = ask.headers.get(SESSION_ID).cloned();
    let mut headers: Headers = session.into_iter().map(|id| (SESSION_ID, id)).collect();
    headers.insert(header::CONTENT_TYPE, JSON);
    Ask {
        route: ask.route.clone(),
        errand,
        nature: Nature::Safe,
        uid: 0, // copies of it hurt nobody
        sent: Sent::default(),
        caller: ask.caller,
        method,
        target: ask.route.messages_path(),
        headers,
        body: Payload::Whole(body),
    }
}

/// Ends a session together with its client's stream, whatever ended that.
struct End {
    journey: Arc<Journey>,
    ask: Option<Ask>,
}

impl End {
    fn of(journey: &Arc<Journey>, ask: Ask) -> Self {
        Self { journey: journey.clone(), ask: Some(ask) }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let (Some(ask), Ok(runtime)) = (self.ask.take(), Handle::try_current()) else { return };
        let journey = self.journey.clone();
        // Where it does not arrive, the owner notices by itself that nobody reads any more.
        runtime.spawn(async move { journey.run(&ask, Hop::Entry).await.is_ok() });
    }
}

/// A client's message on its way.
struct Posted {
    journey: Arc<Journey>,
    metrics: Arc<Metrics>,
    leaving: Arc<Leaving>,
    ask: Ask,
    calls: Calls,
    /// Its replies, where anybody waits for some.
    expected: Option<Expected>,
    /// Where the answer to its POST goes, until there is one.
    told: Option<oneshot::Sender<(Answer, &'static str)>>,
}

impl Posted {
    async fn see_through(mut self) {
        let leaving = self.leaving.clone();
        let settled = tokio::select! {
            biased;
            settled = self.settle() => settled,
            // Whoever waits is told, while there is somebody to tell it.
            () = leaving.cuts() => Err(NoAnswer::Refused(Refusal::perhaps_run(Reason::OwnerBroke))),
        };
        if let Err(no_answer) = settled {
            self.confess(&no_answer).await;
        }
    }

    /// Until its reply is on the client's stream.
    async fn settle(&mut self) -> Result<(), NoAnswer> {
        for _ in 0..LOSSES_MAX {
            let answer = self.journey.run(&self.ask, Hop::Entry).await?;
            if answer.status() != StatusCode::ACCEPTED {
                return self.pass(answer);
            }
            let (head, body) = answer.into_parts();
            let owner = head.headers.get(NODE).and_then(|name| self.node_of(name));
            let mut accepted = respond::accepted();
            for name in [NODE, HOPS] {
                if let Some(value) = head.headers.get(&name) {
                    accepted.headers_mut().append(name, value.clone());
                }
            }
            self.tell(accepted, "answered");
            match drain(body).await {
                Ok(()) if self.is_not_lost(owner).await => return Ok(()),
                Ok(()) => {}
                Err(_) if self.has_its_reply() => return Ok(()),
                // Asked again, its owner says what became of it, or the next one does.
                Err(Broke::Hop | Broke::Moved) => {}
                Err(broke @ (Broke::Displaced | Broke::Upstream | Broke::Client | Broke::Answer)) => {
                    return Err(NoAnswer::Refused(Refusal::perhaps_run(reason(broke))));
                }
            }
        }
        Err(NoAnswer::Refused(Refusal::perhaps_run(Reason::OwnerBroke)))
    }

    /// The upstream's own refusal, which is about the caller or of something that nobody waits for.
    fn pass(&mut self, answer: Answer) -> Result<(), NoAnswer> {
        let status = answer.status();
        if self.tell(answer, "answered") || matches!(self.calls, Calls::None) {
            return Ok(());
        }
        Err(NoAnswer::Refused(Refusal::perhaps_run(Reason::UpstreamStatus(status.as_u16()))))
    }

    fn node_of(&self, name: &HeaderValue) -> Option<NodeRef> {
        let world = self.journey.cluster.world();
        let named = |member: &&Member| member.name.as_str().as_bytes() == name.as_bytes();
        world.view.members().iter().find(named).map(|member| member.node)
    }

    /// A reply was given. Where the client's stream is read here it is seen whether it passes, unless its owner dies
    /// before it does.
    async fn is_not_lost(&self, owner: Option<NodeRef>) -> bool {
        let (Some(expected), Some(owner)) = (&self.expected, owner) else { return true };
        let end = Instant::now() + REPLY_TIME;
        while !expected.has_passed() && expected.is_heard() && Instant::now() < end {
            let cluster = &self.journey.cluster;
            if cluster.is_gone(owner) || cluster.world().succession.is_over(owner) {
                return false;
            }
            tokio::time::sleep(REPLY_AGAIN).await;
        }
        true
    }

    /// Whether the client has its reply, as far as that is known here.
    fn has_its_reply(&self) -> bool {
        self.expected.as_ref().is_some_and(Expected::has_passed)
    }

    /// No reply will come: says so where the client waits for it.
    async fn confess(&mut self, no_answer: &NoAnswer) {
        if self.has_its_reply() {
            return; // it came all the same
        }
        let undelivered = match no_answer {
            NoAnswer::Refused(Refusal::Undelivered { reason, may_have_run }) => (*reason, *may_have_run),
            NoAnswer::NotHere(_) => (Reason::OwnerUnreachable, false),
            NoAnswer::Refused(Refusal::Gone(_)) => return self.refuse(no_answer),
        };
        if matches!(self.calls, Calls::None) {
            return self.refuse(no_answer);
        }
        let error = respond::undelivered_body(&self.calls, undelivered.0, undelivered.1);
        let Errand::Session(id) = &self.ask.errand else { return self.refuse(no_answer) };
        let errand = Errand::Session(id.clone());
        let confession = about(&self.ask, Method::PUT, errand, error);
        match self.journey.run(&confession, Hop::Entry).await {
            Ok(_) => {
                tracing::info!(?no_answer, "a request of an old client was not served");
                self.tell(respond::accepted(), "undelivered");
            }
            Err(_) => self.refuse(no_answer),
        }
    }

    fn refuse(&mut self, no_answer: &NoAnswer) {
        // Not 200, as where the answer to a POST is the reply: this client would wait for another.
        let (answer, outcome) = match no_answer {
            NoAnswer::Refused(Refusal::Gone(_)) => respond::no_answer(no_answer, &self.calls, &self.metrics),
            NoAnswer::Refused(Refusal::Undelivered { .. }) | NoAnswer::NotHere(_) => {
                respond::no_answer(no_answer, &Calls::None, &self.metrics)
            }
        };
        if !self.tell(answer, outcome) {
            tracing::warn!(?no_answer, "an old client waits for a reply that will not come");
        }
    }

    /// Answers the POST; whether that was still to be done.
    fn tell(&mut self, answer: Answer, outcome: &'static str) -> bool {
        self.told.take().is_some_and(|told| told.send((answer, outcome)).is_ok())
    }
}

async fn drain(mut body: BodyStream) -> Result<(), Broke> {
    while let Some(frame) = body.frame().await {
        frame?;
    }
    Ok(())
}
