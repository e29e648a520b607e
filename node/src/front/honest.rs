//! Keeps an answer honest. Real clients die of a reset and of a 5xx on a POST that waits for an
//! answer, and wait for ever on a stream that ends without one; so whatever breaks on the way, who
//! waits gets a JSON-RPC error that says so.

use super::read::{Reading, WithoutSession};
use super::respond;
use crate::answer::{Answer, BodyStream, Broke, whole};
use crate::journey::NoAnswer;
use crate::mcp::{self, Boundary, Calls};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, StatusCode,
    body::{Body, Frame},
    header,
};
use proto::wire::{Reason, Refusal};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// An answer up to this size is held until it is whole, so that one that breaks in the middle can
/// be replaced; and an event up to this size, for the same reason. Most answers are below 1 KiB.
const HELD_LEN_MAX: usize = 64 * 1024;
/// Error codes by which a 2026-07-28 server shows that it is one (that revision's section on errors).
const MODERN_ERRORS: [i64; 3] = [-32020, -32021, -32022];

/// The end of a stream of the server's own: the client reconnects after a second.
const COME_BACK: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// What the client gets of the answer to its request.
pub(super) async fn keep(
    answer: Answer,
    reading: &Reading,
    leaving: &CancellationToken,
) -> Result<Answer, NoAnswer> {
    let status = answer.status();
    let calls = &reading.calls;
    match reading.without_session {
        WithoutSession::Discover if status.is_client_error() || status.is_server_error() => {
            return Ok(discovered(answer, calls).await);
        }
        WithoutSession::Unknown if matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND) => {
            return Ok(respond::no_session(calls));
        }
        WithoutSession::Fine | WithoutSession::Discover | WithoutSession::Unknown => {}
    }
    let waited_for = !matches!(calls, Calls::None);
    if waited_for && (status.is_server_error() || status == StatusCode::CONFLICT) {
        let reason = Reason::UpstreamStatus(status.as_u16());
        return Err(NoAnswer::Refused(Refusal::Undelivered { reason, may_have_run: true }));
    }
    if mcp::is_event_stream(answer.headers()) && (waited_for || reading.ask.method == Method::GET) {
        let (mut head, body) = answer.into_parts();
        // The length may change by an error event.
        head.headers.remove(header::CONTENT_LENGTH);
        return Ok(Answer::from_parts(head, Events::new(body, calls.clone(), leaving).boxed_unsync()));
    }
    if waited_for { hold(answer).await } else { Ok(answer) }
}

/// An upstream that refuses `server/discover` speaks sessions only, unless it says otherwise.
async fn discovered(answer: Answer, calls: &Calls) -> Answer {
    let (head, body) = answer.into_parts();
    let Ok(body) = Limited::new(body, HELD_LEN_MAX).collect().await else {
        return respond::method_not_found(calls);
    };
    let body = body.to_bytes();
    let error = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let code = error.and_then(|error| error["error"]["code"].as_i64());
    if code.is_some_and(|code| MODERN_ERRORS.contains(&code)) {
        Answer::from_parts(head, whole(body))
    } else {
        respond::method_not_found(calls)
    }
}

/// Waits for the whole answer, or for as much as is held, before its head is sent.
async fn hold(answer: Answer) -> Result<Answer, NoAnswer> {
    let (head, mut body) = answer.into_parts();
    let mut held = BytesMut::new();
    while held.len() <= HELD_LEN_MAX {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    held.extend_from_slice(&bytes);
                }
            }
            Some(Err(broke)) => {
                return Err(NoAnswer::Refused(Refusal::Undelivered {
                    reason: reason(broke),
                    may_have_run: true,
                }));
            }
            None => return Ok(Answer::from_parts(head, whole(held.freeze()))),
        }
    }
    let first = Some(held.freeze());
    Ok(Answer::from_parts(head, Resumed { first, rest: body }.boxed_unsync()))
}

fn reason(broke: Broke) -> Reason {
    match broke {
        Broke::Upstream | Broke::Client | Broke::Answer => Reason::UpstreamBroke,
        Broke::Hop => Reason::OwnerBroke,
    }
}

/// A body of which the first part has been read already.
struct Resumed {
    first: Option<Bytes>,
    rest: BodyStream,
}

impl Body for Resumed {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }
}

/// A stream of events that is passed on event by event, and does not end in the middle of one.
struct Events {
    body: BodyStream,
    calls: Calls,
    boundary: Boundary,
    /// The beginning of an event whose end has not come yet.
    held: BytesMut,
    /// The part of an event too long to be held has been passed on: it can't be taken back.
    committed: bool,
    /// What was passed on last: it ends with an event, the answer if there was one.
    last: Bytes,
    ended: bool,
    /// A stream of the server's own would never end by itself: it ends when the node leaves.
    leaving: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Events {
    fn new(body: BodyStream, calls: Calls, leaving: &CancellationToken) -> Self {
        let (boundary, held) = (Boundary::default(), BytesMut::new());
        let endless = matches!(calls, Calls::None);
        let leaving = endless.then(|| Box::pin(leaving.clone().cancelled_owned()));
        Self { body, calls, boundary, held, committed: false, last: Bytes::new(), ended: false, leaving }
    }

    /// What can be passed on now that `chunk` has come.
    fn take(&mut self, chunk: Bytes) -> Option<Bytes> {
        let complete = self.boundary.advance(&chunk);
        if self.held.is_empty() && complete == chunk.len() {
            self.committed = false;
            self.last = chunk.clone();
            return Some(chunk);
        }
        let before = self.held.len();
        self.held.extend_from_slice(&chunk);
        let ready = if complete > 0 { before + complete } else { 0 };
        if ready > 0 {
            self.committed = false;
        }
        let overlong = self.held.len() - ready > HELD_LEN_MAX || self.committed;
        self.committed |= overlong && self.held.len() > ready;
        let pass = self.held.split_to(if overlong { self.held.len() } else { ready }).freeze();
        self.last = pass.clone();
        (!pass.is_empty()).then_some(pass)
    }

    /// What the client is told when the stream breaks.
    fn apology(&self, broke: Broke) -> Option<Bytes> {
        if matches!(self.calls, Calls::None) {
            return Some(COME_BACK);
        }
        let answered = mcp::answers(&mcp::last_data(&self.last), &self.calls);
        (!answered).then(|| mcp::event(&respond::undelivered_body(&self.calls, reason(broke), true)))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            if let Some(leaving) = &mut self.leaving
                && leaving.as_mut().poll(cx).is_ready()
            {
                self.ended = true;
                let goodbye = (!self.committed).then(|| Ok(Frame::data(COME_BACK)));
                return Poll::Ready(goodbye);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data()
                        && let Some(pass) = self.take(chunk)
                    {
                        return Poll::Ready(Some(Ok(Frame::data(pass))));
                    }
                }
                Some(Err(broke)) => {
                    self.ended = true;
                    if self.committed {
                        return Poll::Ready(Some(Err(Broke::Answer)));
                    }
                    return Poll::Ready(self.apology(broke).map(|event| Ok(Frame::data(event))));
                }
                None => {
                    self.ended = true;
                    let rest = self.held.split().freeze();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;

    fn calls() -> Calls {
        mcp::peek(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, false).expect("a request").calls
    }

    /// The client's view of a stream of `chunks` that then breaks.
    async fn broken(chunks: &[&str], calls: Calls) -> (String, bool) {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk.to_string())))).collect();
        let mut left = chunks.into_iter().chain([Err(Broke::Hop)]);
        let stream = PollFn(Box::new(move || left.next()));
        let mut events =
            Events::new(StreamBody::new(stream).boxed_unsync(), calls, &CancellationToken::new());
        let mut text = String::new();
        while let Some(frame) = events.frame().await {
            match frame {
                Ok(frame) => text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data"))),
                Err(_) => return (text, true),
            }
        }
        (text, false)
    }

    type Item = Result<Frame<Bytes>, Broke>;
    struct PollFn(Box<dyn FnMut() -> Option<Item> + Send>);

    impl futures_core::Stream for PollFn {
        type Item = Item;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Item>> {
            Poll::Ready((self.0)())
        }
    }

    #[tokio::test]
    async fn a_call_that_breaks_before_its_answer_ends_in_an_error() {
        let (text, reset) = broken(&["id: 1\ndata: \n\n", "data: {\"jsonrpc\":"], calls()).await;
        assert!(!reset);
        assert!(
            text.starts_with(
                "id: 1\ndata: \n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"error\""
            ),
            "{text}"
        );
        assert!(text.contains("\"mayHaveRun\":true") && text.contains("owner_broke"), "{text}");
    }

    #[tokio::test]
    async fn a_call_that_has_its_answer_gets_no_second_one() {
        let answer = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";
        assert_eq!(broken(&[answer], calls()).await, (answer.to_owned(), false));
        let (head, tail) = answer.split_at(20);
        assert_eq!(broken(&[head, tail], calls()).await, (answer.to_owned(), false));
    }

    #[tokio::test]
    async fn a_servers_own_stream_ends_cleanly_with_a_time_to_come_back() {
        let (text, reset) = broken(&["data: 1\n\n"], Calls::None).await;
        assert_eq!((text.as_str(), reset), ("data: 1\n\nretry: 1000\n\n", false));
    }

    #[tokio::test]
    async fn an_event_too_long_to_be_held_flows_and_can_only_be_reset() {
        let long = format!("data: {}", "x".repeat(HELD_LEN_MAX + 1));
        let (text, reset) = broken(&[&long, "yy"], calls()).await;
        assert_eq!((text.len(), reset), (long.len() + 2, true));
        let (text, reset) = broken(&[&long, "yy\n\n"], calls()).await;
        assert!(!reset && text.contains("owner_broke"), "after its end an error event fits again");
    }

    #[test]
    fn events_pass_whole_and_at_once() {
        let mut events = Events::new(whole(""), calls(), &CancellationToken::new());
        let mut take = |chunk: &'static str| events.take(Bytes::from(chunk)).map(|pass| pass.to_vec());
        assert_eq!(take("data: 1\n\n"), Some(b"data: 1\n\n".to_vec()));
        assert_eq!(take("data: 2\n\ndata:"), Some(b"data: 2\n\n".to_vec()));
        assert_eq!(take(" 3\n"), None);
        assert_eq!(take("\n"), Some(b"data: 3\n\n".to_vec()));
    }
}
