//! What an upstream answers, message by message, as it comes.

use super::{Outbox, get, get_headers};
use crate::answer::{Answer, BodyStream, Broke};
use crate::ask::Ask;
use crate::mcp::{self, Calls, Gather, LAST_EVENT_ID};
use crate::sessions::{Sessions, table::InUse};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::{Body, Frame},
    header::HeaderValue,
};
use proto::id::SessionId;
use proto::wire::Nature;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::task::JoinHandle;

/// An answer that is one JSON document: as long as one event may be (`mcp::Gather`).
const JSON_LEN_MAX: usize = 16 * 1024 * 1024;
/// A server may end the stream of an answer at any time and have its client come back for the rest
/// (SEP-1699). One that does so every second is followed for 10 minutes.
const RESUMES_MAX: u32 = 600;
const RESUME_AFTER: Duration = Duration::from_secs(1);
/// What was said to a client is on its way for a while, and is lost there if its stream is cut off: a session that is
/// given away keeps its stream for so long after each answer.
const ON_ITS_WAY: Duration = Duration::from_millis(250);

/// Where answers go, and how far they have come.
#[derive(Debug)]
pub(super) struct Hearing {
    outbox: Arc<Outbox>,
    /// Who still waits for an answer.
    unanswered: Calls,
    /// What a stream that has ended goes on after.
    last: Option<HeaderValue>,
    /// The answer says which revision the session is of.
    initializes: bool,
}

impl Hearing {
    pub(super) fn new(outbox: Arc<Outbox>, calls: Calls, initializes: bool) -> Self {
        Self { outbox, unanswered: calls, last: None, initializes }
    }

    pub(super) fn last_id(&self) -> Option<&HeaderValue> {
        self.last.as_ref()
    }

    /// Passes the whole answer to a call on, until nobody waits any more.
    pub(super) async fn settle(
        mut self,
        sessions: Arc<Sessions>,
        inner: Ask,
        id: SessionId,
        answer: Answer,
        in_use: InUse,
    ) -> Result<(), Broke> {
        let outbox = self.outbox.clone();
        let settled = tokio::select! {
            biased;
            settled = self.until_answered(&sessions, &inner, &id, answer) => settled,
            () = outbox.closed() => Err(Broke::Moved),
        };
        if settled.is_ok() {
            // Not waited for here: that it was answered is to be known at once.
            tokio::spawn(async move {
                tokio::time::sleep(ON_ITS_WAY).await;
                drop(in_use);
            });
        }
        settled
    }

    async fn until_answered(
        &mut self,
        sessions: &Arc<Sessions>,
        inner: &Ask,
        id: &SessionId,
        mut answer: Answer,
    ) -> Result<(), Broke> {
        for _ in 0..RESUMES_MAX {
            let ended = if mcp::is_event_stream(answer.headers()) {
                self.events(answer.into_body()).await
            } else {
                self.json(answer.into_body()).await
            };
            if matches!(self.unanswered, Calls::None) {
                return Ok(());
            }
            let Some(last) = self.last.clone() else {
                return Err(ended.err().unwrap_or(Broke::Upstream));
            };
            tokio::time::sleep(RESUME_AFTER).await;
            let mut headers = get_headers(&inner.headers);
            headers.insert(LAST_EVENT_ID, last);
            let resumed = sessions.exchange(&get(&inner.route, id, Nature::Resumes, headers), id).await;
            answer = resumed.map_err(|_| Broke::Upstream)?;
            if !answer.status().is_success() || !mcp::is_event_stream(answer.headers()) {
                return Err(Broke::Upstream);
            }
        }
        Err(Broke::Upstream)
    }

    /// Passes a stream of events on to its end.
    pub(super) async fn events(&mut self, mut body: BodyStream) -> Result<(), Broke> {
        let mut gather = Gather::default();
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame?.into_data() else { continue };
            let whole = gather.take(&chunk).map_err(|_| {
                tracing::warn!("an upstream's event is too long");
                Broke::Upstream
            })?;
            for event in mcp::events(&whole) {
                if let Some(id) = event.id {
                    self.last = HeaderValue::from_bytes(id).ok().filter(|id| !id.is_empty());
                }
                self.messages(&event.data.into_owned().into()).await?;
            }
        }
        Ok(())
    }

    async fn json(&mut self, body: BodyStream) -> Result<(), Broke> {
        let body = Limited::new(body, JSON_LEN_MAX).collect().await.map_err(|_| Broke::Upstream)?;
        self.messages(&body.to_bytes()).await
    }

    async fn messages(&mut self, json: &Bytes) -> Result<(), Broke> {
        if self.initializes
            && let Some(version) = mcp::negotiated(json).and_then(|version| version.try_into().ok())
        {
            self.outbox.listener.agree_on(version);
        }
        for message in messages(json) {
            if !self.outbox.put(&message).await {
                return Err(Broke::Moved);
            }
            self.unanswered = std::mem::take(&mut self.unanswered).without(&message);
        }
        Ok(())
    }
}

/// The messages of a JSON document: clients of HTTP+SSE know no batches. An event may have none.
pub(super) fn messages(json: &Bytes) -> Vec<Bytes> {
    if json.trim_ascii().is_empty() { Vec::new() } else { mcp::messages(json).unwrap_or_default() }
}

/// A body without content that ends when its message has been dealt with, and breaks if that went wrong.
pub(super) fn until_settled(settling: JoinHandle<Result<(), Broke>>) -> BodyStream {
    Settling(settling).boxed_unsync()
}

struct Settling(JoinHandle<Result<(), Broke>>);

impl Body for Settling {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let settled = ready!(Pin::new(&mut self.0).poll(cx));
        Poll::Ready(settled.unwrap_or(Err(Broke::Upstream)).err().map(Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::whole;

    #[test]
    fn a_batch_is_as_many_messages() {
        for (json, expected) in [
            (r#" {"a":1} "#, vec![r#" {"a":1} "#]),
            (r#"[{"a":1}, {"b":[2]}]"#, vec![r#"{"a":1}"#, r#"{"b":[2]}"#]),
            ("[]", vec![]),
            (" ", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(messages(&Bytes::from(json)), expected, "{json}");
        }
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_the_session_goes_while_its_reply_waits_for_room() {
        let outbox = Arc::new(Outbox::new(1));
        while outbox.try_put(&"{}".into()) {} // its client reads slowly
        let message = mcp::peek(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, false).expect("a call");
        let mut hearing = Hearing::new(outbox.clone(), message.calls, false);
        let reply = whole(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        let mut telling = Box::pin(hearing.json(reply));
        assert!(std::future::poll_fn(|cx| Poll::Ready(telling.as_mut().poll(cx).is_pending())).await);
        outbox.close();
        assert!(matches!(telling.await, Err(Broke::Moved)));
        assert!(!matches!(hearing.unanswered, Calls::None));
    }
}
