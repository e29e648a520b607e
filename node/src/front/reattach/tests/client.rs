//! A client of a stream, and a made-up cluster behind it.

use super::super::*;
use crate::answer::whole;
use crate::front::events::Kind;
use crate::front::watch::Of;
use crate::leaving::{Leaving, Schedule};
use crate::mcp::Calls;
use http_body_util::BodyExt;
use hyper::header::HeaderValue;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// How a stream ends that says no more.
#[derive(Clone, Copy)]
pub(super) enum End {
    Clean,
    Broke(Broke),
    /// Not at all.
    Open,
}

/// A stream that says this and ends so.
pub(super) struct Said(VecDeque<String>, End);

impl Body for Said {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match (self.0.pop_front(), self.1) {
            (Some(chunk), _) => Poll::Ready(Some(Ok(Frame::data(chunk.into())))),
            (None, End::Clean) => Poll::Ready(None),
            (None, End::Broke(broke)) => Poll::Ready(Some(Err(broke))),
            (None, End::Open) => Poll::Pending,
        }
    }
}

pub(super) fn said(chunks: &[&str], end: End) -> BodyStream {
    Said(chunks.iter().map(|chunk| (*chunk).to_owned()).collect(), end).boxed_unsync()
}

/// What attempts meet, one after the other, and the last of it for ever.
pub(super) struct Script {
    met: VecDeque<Met>,
    /// After which event each attempt asked to go on, and when.
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

#[derive(Clone)]
pub(super) enum Met {
    Stream(&'static [&'static str], End),
    Status(u16),
    Refused(Refusal),
    Nothing,
}

impl Again for Script {
    async fn attempt(mut self, from: GoesOn) -> (Self, Result<Answer, NoAnswer>) {
        let after = match from {
            GoesOn::After(id) => id.to_str().expect("text").to_owned(),
            GoesOn::AtTheStart | GoesOn::Anew => String::new(),
        };
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push((after, Instant::now()));
        let met = if self.met.len() > 1 { self.met.pop_front() } else { self.met.front().cloned() };
        let answered = match met.expect("an attempt is expected") {
            Met::Stream(chunks, end) => {
                let mut answer = Answer::new(said(chunks, end));
                let kind = HeaderValue::from_static("text/event-stream");
                answer.headers_mut().insert(header::CONTENT_TYPE, kind);
                Ok(answer)
            }
            Met::Status(status) => {
                let mut answer = Answer::new(whole("no"));
                *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
                Ok(answer)
            }
            Met::Refused(refusal) => Err(NoAnswer::Refused(refusal)),
            Met::Nothing => std::future::pending().await,
        };
        (self, answered)
    }
}

/// A client's stream, its node's leaving, and what is asked for again.
pub(super) struct Client {
    pub(super) stream: Attached<Script>,
    pub(super) leaving: Arc<Leaving>,
    pub(super) asked: Arc<Mutex<Vec<(String, Instant)>>>,
    metrics: Arc<Metrics>,
}

impl Client {
    /// Of a stream of the server's own, or of one that answers `calls`.
    pub(super) fn of(calls: Calls, first: BodyStream, met: &[Met]) -> Self {
        let (leaving, asked) = (Arc::new(Leaving::default()), Arc::default());
        let metrics = Arc::new(Metrics::new());
        let (of, kind) = match &calls {
            Calls::None => (Of::Own { turn: leaving.turn(), speaks: true }, Kind::Own),
            Calls::One(_) | Calls::Many(_) => (Of::Call, Kind::Answer),
        };
        let watch = Watch::new(&leaving, of);
        let again = Script { met: met.iter().cloned().collect(), asked: Arc::clone(&asked) };
        let again = (!met.is_empty()).then_some(again);
        let stream = Attached::new(first, Events::new(kind, calls), again, watch, &metrics);
        Self { stream, leaving, asked, metrics }
    }

    /// Its node leaves; whatever is to end before the last moment ends soon.
    pub(super) fn leaves(&self) {
        self.leaving.begin(&Schedule::new(Instant::now(), Duration::ZERO), 1);
    }

    /// All that comes until the stream ends, or is silent for so long, and whether it was reset.
    pub(super) async fn sees(&mut self, patience: Duration) -> (String, bool) {
        let mut text = String::new();
        let end = Instant::now() + patience;
        while let Ok(Some(frame)) = tokio::time::timeout_at(end, self.stream.frame()).await {
            match frame {
                Ok(frame) => text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data"))),
                Err(_) => return (text, true),
            }
        }
        (text, false)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.stream.source, Source::Ended)
    }

    /// After which events it was asked to go on.
    pub(super) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().map(|(after, _)| after.clone()).collect()
    }

    pub(super) fn counted(&self, outcome: &'static str) -> u64 {
        self.metrics.reattached.get_or_create(&OutcomeLabels { outcome }).get()
    }
}
