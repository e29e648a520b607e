//! A stream of events on its way to the client: passed on event by event, so that it never ends in
//! the middle of one, and never without an answer for whoever waits for one.

use super::honest::{HELD_LEN_MAX, reason};
use super::respond;
use crate::answer::{BodyStream, Broke};
use crate::mcp::{self, Boundary, Calls};
use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The end of a stream of the server's own: the client reconnects after a second.
const COME_BACK: Bytes = Bytes::from_static(b"retry: 1000\n\n");

pub(super) struct Events {
    body: BodyStream,
    /// Who still waits for an answer.
    unanswered: Calls,
    /// An event had an id, so the client can resume the stream by itself.
    resumable: bool,
    boundary: Boundary,
    /// The beginning of an event whose end has not come yet.
    held: BytesMut,
    /// The beginning of an event too long to be held has been passed on: it can't be taken back.
    committed: bool,
    /// Such an event has passed unread: it may have been the answer.
    unsure: bool,
    ended: bool,
    /// Set for a stream of the server's own, which would never end by itself: it ends when the node
    /// leaves.
    leaving: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Events {
    /// Of the answer to `calls`, or of the server's own where there are none.
    pub(super) fn new(body: BodyStream, calls: Calls, leaving: &CancellationToken) -> Self {
        let endless = matches!(calls, Calls::None);
        Self {
            body,
            unanswered: calls,
            resumable: false,
            boundary: Boundary::default(),
            held: BytesMut::new(),
            committed: false,
            unsure: false,
            ended: false,
            leaving: endless.then(|| Box::pin(leaving.clone().cancelled_owned())),
        }
    }

    /// What can be passed on now that `chunk` has come.
    fn take(&mut self, chunk: Bytes) -> Option<Bytes> {
        let was_committed = self.committed;
        let complete = self.boundary.advance(&chunk);
        let pass = if self.held.is_empty() && complete == chunk.len() {
            self.committed = false;
            chunk
        } else {
            let before = self.held.len();
            self.held.extend_from_slice(&chunk);
            let ready = if complete > 0 { before + complete } else { 0 };
            let goes_on = was_committed && complete == 0;
            self.committed = goes_on || self.held.len() - ready > HELD_LEN_MAX;
            let whole = self.held.split_to(ready).freeze();
            if self.committed {
                if !was_committed {
                    self.note(&whole);
                }
                self.unsure = true;
                let rest = self.held.split();
                let mut pass = BytesMut::from(whole);
                pass.unsplit(rest);
                return Some(pass.freeze());
            }
            whole
        };
        if !was_committed {
            self.note(&pass);
        }
        (!pass.is_empty()).then_some(pass)
    }

    /// Reads what whole events say, as long as somebody waits for an answer.
    fn note(&mut self, events: &[u8]) {
        if matches!(self.unanswered, Calls::None) {
            return;
        }
        for event in mcp::events(events) {
            self.resumable |= event.has_id;
            if !event.data.is_empty() {
                self.unanswered = std::mem::take(&mut self.unanswered).without(&event.data);
            }
        }
    }

    /// The last thing the client gets of a stream that ended, cleanly or not.
    fn last(&mut self, broke: Option<Broke>) -> Option<Result<Bytes, Broke>> {
        let is_own = self.leaving.is_some();
        let answered = matches!(self.unanswered, Calls::None);
        // The owner lives where the upstream is what broke, so the client can resume at it.
        let resumes = self.resumable && broke.is_none_or(|broke| broke == Broke::Upstream);
        match broke {
            Some(_) if self.committed => Some(Err(Broke::Answer)),
            Some(_) if is_own => Some(Ok(COME_BACK)),
            Some(_) if self.unsure && !answered => Some(Err(Broke::Answer)),
            _ if is_own || answered || resumes || self.unsure => {
                let rest = self.held.split().freeze();
                (broke.is_none() && !rest.is_empty()).then_some(Ok(rest))
            }
            None | Some(_) => {
                let why = reason(broke.unwrap_or(Broke::Upstream));
                Some(Ok(mcp::event(&respond::undelivered_body(&self.unanswered, why, true))))
            }
        }
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
                return Poll::Ready((!self.committed).then(|| Ok(Frame::data(COME_BACK))));
            }
            let broke = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data()
                        && let Some(pass) = self.take(chunk)
                    {
                        return Poll::Ready(Some(Ok(Frame::data(pass))));
                    }
                    continue;
                }
                Some(Err(broke)) => Some(broke),
                None => None,
            };
            self.ended = true;
            return Poll::Ready(self.last(broke).map(|last| last.map(Frame::data)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::whole;
    use http_body_util::{BodyExt, StreamBody};

    const PRIMING: &str = "id: 1\ndata: \n\n";
    const ANSWER: &str = "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n";

    fn calls() -> Calls {
        mcp::peek(br#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#, false).expect("a request").calls
    }

    /// The client's view of a stream of `chunks` that ends so, and whether it was reset.
    async fn seen(chunks: &[&str], calls: Calls, end: Option<Broke>) -> (String, bool) {
        let chunks: Vec<_> =
            chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk.to_string())))).collect();
        let mut left = chunks.into_iter().chain(end.map(Err));
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
        let (text, reset) = seen(&[PRIMING, "data: {\"jsonrpc\":"], calls(), Some(Broke::Hop)).await;
        assert!(!reset);
        let error = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"error\"";
        assert!(text.starts_with(&format!("{PRIMING}{error}")), "{text}");
        assert!(text.contains("\"mayHaveRun\":true") && text.contains("owner_broke"), "{text}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_cleanly_without_the_answer_ends_in_an_error_too() {
        let (text, reset) = seen(&["data: {}\n\n"], calls(), None).await;
        assert!(!reset && text.contains("upstream_broke"), "{text}");
    }

    #[tokio::test]
    async fn a_client_that_can_resume_at_its_owner_is_left_to_it() {
        for end in [None, Some(Broke::Upstream)] {
            assert_eq!(seen(&[PRIMING], calls(), end).await, (PRIMING.to_owned(), false), "{end:?}");
        }
    }

    #[tokio::test]
    async fn a_call_that_has_its_answer_gets_no_second_one() {
        let (head, tail) = ANSWER.split_at(20);
        for chunks in [[ANSWER, ""], [head, tail], [ANSWER, ": ping\n\n"]] {
            for end in [None, Some(Broke::Hop), Some(Broke::Upstream)] {
                assert_eq!(seen(&chunks, calls(), end).await, (chunks.concat(), false), "{end:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_servers_own_stream_ends_cleanly_with_a_time_to_come_back() {
        let (text, reset) = seen(&["data: 1\n\n"], Calls::None, Some(Broke::Hop)).await;
        assert_eq!((text.as_str(), reset), ("data: 1\n\nretry: 1000\n\n", false));
    }

    #[tokio::test]
    async fn an_event_too_long_to_be_held_flows_and_can_only_be_reset() {
        let long = format!("data: {}", "x".repeat(HELD_LEN_MAX + 1));
        let (text, reset) = seen(&[&long, "yy"], calls(), Some(Broke::Hop)).await;
        assert_eq!((text.len(), reset), (long.len() + 2, true));
    }

    #[tokio::test]
    async fn an_answer_too_long_to_be_held_is_not_followed_by_an_error() {
        let answer = format!("data: {{\"id\":7,\"result\":\"{}\"}}", "x".repeat(HELD_LEN_MAX + 1));
        for chunks in
            [[PRIMING, &answer, "\n\n"], ["", &answer, "\n\n: ping\n\n"], ["", "", &format!("{answer}\n\n")]]
        {
            assert_eq!(seen(&chunks, calls(), None).await, (chunks.concat(), false));
        }
        // Whether it was the answer is not known, so an error might be a second one: the reset says enough.
        let (text, reset) = seen(&[&answer, "\n\n"], calls(), Some(Broke::Hop)).await;
        assert_eq!((text, reset), (format!("{answer}\n\n"), true));
        let (_, reset) = seen(&[ANSWER, &answer, "\n\n"], calls(), Some(Broke::Hop)).await;
        assert!(!reset, "the answer had come before");
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
