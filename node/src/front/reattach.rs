//! A client's stream of events stays open when the node that its events come from dies or gives the
//! session away: this node asks for the rest, by the same journey, and passes it on where the client
//! stands. The client learns nothing of it, and what it waits for is not run twice.

use super::events::{Events, GoesOn};
use super::watch::{Alarm, Watch};
use crate::answer::{Answer, BodyStream, Broke, whole};
use crate::ask::{Ask, Errand, Payload, Sent};
use crate::headers::{EVENT_STREAM, let_go};
use crate::journey::{Journey, NoAnswer};
use crate::mcp::{self, LAST_EVENT_ID};
use crate::telemetry::{Metrics, OutcomeLabels};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, StatusCode,
    body::{Body, Frame},
    header::{self},
};
use proto::core::route::Hop;
use proto::wire::{Nature, Reason, Refusal};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// How long a stream of the server's own is kept open without events to come. Its client would only
/// come back to the same cluster, and some clients do that no more than once or twice.
const OWN_TIME_MAX: Duration = Duration::from_secs(60);
/// How long somebody who waits for an answer is kept waiting: the journey's own 10 s, in which the
/// new owner becomes known, and 5 s from the first word of it.
const WAITED_TIME_MAX: Duration = Duration::from_secs(15);
const WAITED_TIME_MAX_ONCE_HEARD: Duration = Duration::from_secs(5);
/// How long a client is kept that a newer one displaced. A dead connection, which it mostly is, has been
/// found out by then (30 s, `serve`). Two that live would displace each other without end, if each were
/// sent away at once and came back a second later; so they take turns, once in this time.
const DISPLACED_TIME: Duration = Duration::from_secs(60);
/// A message that comes again as a whole.
const MESSAGE_LEN_MAX: usize = 4 * 1024 * 1024;
/// Between two attempts: doubled from one to the next.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A stream that stood so long without a word was there, and breaks anew.
const STANDS_AFTER: Duration = Duration::from_secs(5);
/// A comment, which every reader of events passes over.
const COMMENT: Bytes = Bytes::from_static(b": \n\n");

/// How a stream is asked for again.
pub(super) trait Again: Sized + Send + Unpin + 'static {
    /// One attempt: the answer that the events go on in. Dropped, it is given up.
    fn attempt(self, from: GoesOn) -> impl Future<Output = (Self, Result<Answer, NoAnswer>)> + Send;
}

/// The body of an answer that is a stream of events.
pub(super) struct Attached<A> {
    events: Events,
    source: Source<A>,
    /// `None` for a stream that can't be asked for again, and while it is being asked for.
    again: Option<A>,
    outage: Option<Outage>,
    watch: Watch,
    metrics: Arc<Metrics>,
}

enum Source<A> {
    Open(BodyStream),
    Attempt(Pin<Box<dyn Future<Output = Attempted<A>> + Send>>),
    Ended,
}

/// `None` where there was no time left.
type Attempted<A> = Option<(A, Result<Answer, NoAnswer>)>;

/// The time from the loss of the owner until events come again.
struct Outage {
    deadline: Instant,
    pause: Duration,
    /// When the last attempt was answered by a stream, of which nothing has come yet.
    attached: Option<Instant>,
}

/// What an answered attempt leads to.
enum Verdict {
    Attached(BodyStream),
    /// The reason may pass.
    Later,
    Never,
}

impl<A: Again> Attached<A> {
    pub(super) fn new(
        body: BodyStream,
        events: Events,
        again: Option<A>,
        watch: Watch,
        metrics: &Arc<Metrics>,
    ) -> Self {
        Self { events, source: Source::Open(body), again, outage: None, watch, metrics: metrics.clone() }
    }

    /// Where the events came from, no more come.
    fn ended(&mut self, broke: Option<Broke>) -> Option<Result<Bytes, Broke>> {
        if broke == Some(Broke::Displaced) {
            return self.displaced();
        }
        // To the client it is the same whether its owner died or gave the session away.
        let broke = broke.map(|broke| if broke == Broke::Moved { Broke::Hop } else { broke });
        self.outage.take_if(|outage| outage.stood());
        // rmcp answers a resume in vain with a stream without events.
        let in_vain = self.outage.is_some() && !self.events.is_own();
        if broke == Some(Broke::Hop) || in_vain { self.take_up() } else { self.end(broke) }
    }

    /// Its owner gives the events to a newer request of the client's: this one is not asked for again.
    fn displaced(&mut self) -> Option<Result<Bytes, Broke>> {
        (self.outage, self.again) = (None, None);
        if !self.events.is_own() {
            return self.end(None); // whoever waits for an answer comes back, with the last event's id
        }
        if !self.events.is_between() {
            return self.end(Some(Broke::Displaced));
        }
        self.events.rewind();
        self.source = Source::Attempt(Box::pin(async {
            tokio::time::sleep(DISPLACED_TIME).await;
            None
        }));
        None
    }

    /// Begins an attempt, or gives up.
    fn take_up(&mut self) -> Option<Result<Bytes, Broke>> {
        let Some((from, again)) = self.events.goes_on().zip(self.again.take()) else {
            return self.end(Some(Broke::Hop));
        };
        let outage = self.outage.get_or_insert_with(|| Outage::new(self.events.is_own()));
        let Some((start, deadline)) = outage.next_attempt() else { return self.end(Some(Broke::Hop)) };
        self.events.rewind();
        self.source = Source::Attempt(Box::pin(async move {
            tokio::time::sleep_until(start).await;
            tokio::time::timeout_at(deadline, again.attempt(from)).await.ok()
        }));
        None
    }

    fn attempted(&mut self, attempted: Attempted<A>) -> Option<Result<Bytes, Broke>> {
        let Some(((again, answered), outage)) = attempted.zip(self.outage.as_mut()) else {
            return self.end(Some(Broke::Hop));
        };
        self.again = Some(again);
        let is_own = self.events.is_own();
        if !is_own {
            outage.deadline = outage.deadline.min(Instant::now() + WAITED_TIME_MAX_ONCE_HEARD);
        }
        match judge(answered, is_own) {
            Verdict::Attached(body) => {
                let was_attached = outage.attached.replace(Instant::now()).is_some();
                if is_own && !was_attached {
                    self.count("resumed"); // it may be long until something comes
                }
                self.source = Source::Open(body);
                None
            }
            Verdict::Later => self.take_up(),
            Verdict::Never => self.end(Some(Broke::Hop)),
        }
    }

    /// Ends the client's stream.
    fn end(&mut self, broke: Option<Broke>) -> Option<Result<Bytes, Broke>> {
        self.source = Source::Ended;
        let gives_up = self.outage.take().is_some();
        if gives_up {
            self.count("given_up");
        }
        self.events.last(if gives_up { Some(Broke::Hop) } else { broke })
    }

    /// Something has come that the client can have.
    fn passes(&mut self) {
        if self.outage.take().is_some() && !self.events.is_own() {
            self.count("resumed"); // not before: a resume in vain begins like any other
        }
        self.watch.client_heard();
    }

    fn count(&self, outcome: &'static str) {
        tracing::debug!(outcome, "a client's stream lost its owner");
        self.metrics.reattached.get_or_create(&OutcomeLabels { outcome }).inc();
    }
}

impl<A: Again> Body for Attached<A> {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let this = &mut *self;
        loop {
            if matches!(this.source, Source::Ended) {
                return Poll::Ready(None);
            }
            match this.watch.poll(cx) {
                Poll::Ready(Alarm::Leaving) => {
                    this.source = Source::Ended;
                    return Poll::Ready(this.events.leave().map(|last| last.map(Frame::data)));
                }
                Poll::Ready(Alarm::Silence) if this.events.is_between() => {
                    return Poll::Ready(Some(Ok(Frame::data(COMMENT))));
                }
                Poll::Ready(Alarm::Silence) => continue, // in the middle of an event
                Poll::Pending => {}
            }
            let pass = match &mut this.source {
                Source::Open(body) => match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let pass = frame.into_data().ok().and_then(|chunk| this.events.take(chunk));
                        if pass.is_some() {
                            this.passes();
                        }
                        pass.map(Ok)
                    }
                    Some(Err(broke)) => this.ended(Some(broke)),
                    None => this.ended(None),
                },
                Source::Attempt(attempt) => {
                    let attempted = ready!(attempt.as_mut().poll(cx));
                    this.attempted(attempted)
                }
                Source::Ended => None,
            };
            if let Some(pass) = pass {
                return Poll::Ready(Some(pass.map(Frame::data)));
            }
        }
    }
}

impl Outage {
    fn new(is_own: bool) -> Self {
        let time_max = if is_own { OWN_TIME_MAX } else { WAITED_TIME_MAX };
        Self { deadline: Instant::now() + time_max, pause: Duration::ZERO, attached: None }
    }

    /// When the next attempt begins, and when it must have been answered.
    fn next_attempt(&mut self) -> Option<(Instant, Instant)> {
        let start = Instant::now() + self.pause;
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        (start < self.deadline).then_some((start, self.deadline))
    }

    fn stood(&self) -> bool {
        self.attached.is_some_and(|attached| attached.elapsed() >= STANDS_AFTER)
    }
}

fn judge(answered: Result<Answer, NoAnswer>, is_own: bool) -> Verdict {
    match answered {
        Ok(answer) if answer.status().is_success() && mcp::is_event_stream(answer.headers()) => {
            Verdict::Attached(answer.into_body())
        }
        // 409: the upstream has not noticed yet that nobody reads the old stream.
        Ok(answer) if answer.status().is_server_error() || answer.status() == StatusCode::CONFLICT => {
            Verdict::Later
        }
        Ok(answer) if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) => {
            Verdict::Never
        }
        Ok(_) if is_own => Verdict::Never,
        // Who waits for an answer is not told of its loss by one strange refusal.
        Ok(_) => Verdict::Later,
        Err(NoAnswer::Refused(Refusal::Gone(_) | Refusal::Undelivered { reason: Reason::OwnerLost, .. })) => {
            Verdict::Never
        }
        Err(NoAnswer::Refused(Refusal::Undelivered { .. }) | NoAnswer::NotHere(_)) => Verdict::Later,
    }
}

/// The journey of a session's request, once more.
pub(super) struct JourneyAgain {
    journey: Arc<Journey>,
    ask: Ask,
}

impl JourneyAgain {
    /// Only a session has an owner that it outlives.
    pub(super) fn of(journey: &Arc<Journey>, mut ask: Ask) -> Option<Self> {
        match ask.errand {
            Errand::Session(_) => {
                if ask.method == Method::GET {
                    let_go(&mut ask.headers); // others are answered soon
                }
                Some(Self { journey: journey.clone(), ask })
            }
            Errand::Open | Errand::Key(_) | Errand::Pinned(_) | Errand::Anyone => None,
        }
    }
}

impl Again for JourneyAgain {
    async fn attempt(mut self, from: GoesOn) -> (Self, Result<Answer, NoAnswer>) {
        ask_for_the_rest(&mut self.ask, from, self.journey.cluster.next_uid());
        let answered = match self.journey.run(&self.ask, Hop::Entry).await {
            Ok(answer) => as_events(answer).await,
            no_answer => no_answer,
        };
        (self, answered)
    }
}

/// An answer that came as one message this time, as the event that the client waits for.
async fn as_events(answer: Answer) -> Result<Answer, NoAnswer> {
    let is_message = answer.headers().get(header::CONTENT_TYPE).is_some_and(|media_type| {
        media_type.to_str().is_ok_and(|media_type| media_type.starts_with("application/json"))
    });
    if !is_message || !answer.status().is_success() {
        return Ok(answer);
    }
    let (mut head, body) = answer.into_parts();
    let lost = |_| NoAnswer::Refused(Refusal::perhaps_run(Reason::OwnerBroke));
    let message = Limited::new(body, MESSAGE_LEN_MAX).collect().await.map_err(lost)?.to_bytes();
    head.headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
    Ok(Answer::from_parts(head, whole(mcp::event(&mcp::one_line(message)))))
}

/// Makes of a request the one that goes on with the events of its answer. Every stream goes on in
/// that of a GET, the answer to a POST too (2025-11-25, transports, "Resumability"). One of which
/// nothing has come begins with the same request, under the number that it had.
fn ask_for_the_rest(ask: &mut Ask, from: GoesOn, uid: u64) {
    if matches!(from, GoesOn::AtTheStart) {
        return;
    }
    if ask.method != Method::GET {
        (ask.method, ask.body) = (Method::GET, Payload::Whole(Bytes::new()));
        ask.nature = Nature::Resumes;
        ask.headers.remove(header::CONTENT_TYPE);
        ask.headers.remove(header::CONTENT_LENGTH);
        ask.headers.insert(header::ACCEPT, EVENT_STREAM);
    }
    (ask.uid, ask.sent) = (uid, Sent::default());
    match from {
        GoesOn::After(id) => drop(ask.headers.insert(LAST_EVENT_ID, id)),
        GoesOn::AtTheStart | GoesOn::Anew => {} // after the event that the client itself named, if it did
    }
}

#[cfg(test)]
mod tests;
