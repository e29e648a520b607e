//! Which replies have passed on the streams of old clients (HTTP+SSE) that are read at this node. A message that an old
//! client POSTs is answered on that stream, on another way than the word that it was answered takes here: where the
//! owner dies between the two, only the stream says whether the client has its reply, must be told that it is lost, or
//! must not be told twice.

use crate::answer::{BodyStream, Broke};
use crate::mcp::{self, Calls, Gather};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use proto::id::Nonce;
use std::{
    collections::HashMap,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

/// The sessions whose streams are read here, or whose messages wait for a reply.
#[derive(Debug, Default)]
pub(crate) struct Replies(Mutex<HashMap<Nonce, Of>>);

#[derive(Debug, Default)]
struct Of {
    streams: usize,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    unanswered: Calls,
    has_passed: Arc<AtomicBool>,
}

/// A message that waits, as long as this is there.
#[derive(Debug)]
pub(super) struct Expected {
    replies: Arc<Replies>,
    session: Nonce,
    has_passed: Arc<AtomicBool>,
}

impl Replies {
    /// A message of that session has come, which makes these calls.
    pub(super) fn expect(self: &Arc<Self>, session: Nonce, calls: &Calls) -> Expected {
        let has_passed = Arc::new(AtomicBool::new(false));
        let waiting = Waiting { unanswered: calls.clone(), has_passed: has_passed.clone() };
        self.all().entry(session).or_default().waiting.push(waiting);
        Expected { replies: self.clone(), session, has_passed }
    }

    /// The stream of that session's client, overheard.
    pub(super) fn overhear(self: &Arc<Self>, session: Nonce, body: BodyStream) -> BodyStream {
        self.all().entry(session).or_default().streams += 1;
        Overheard { body, replies: self.clone(), session, gather: Some(Gather::default()) }.boxed_unsync()
    }

    fn pass(&self, session: Nonce, json: &[u8]) {
        let mut all = self.all();
        for waiting in all.get_mut(&session).into_iter().flat_map(|of| &mut of.waiting) {
            waiting.unanswered = mem::take(&mut waiting.unanswered).without(json);
            if matches!(waiting.unanswered, Calls::None) {
                waiting.has_passed.store(true, Ordering::Release);
            }
        }
    }

    fn change(&self, session: Nonce, change: impl FnOnce(&mut Of)) {
        let mut all = self.all();
        let Some(of) = all.get_mut(&session) else { return };
        change(of);
        if of.streams == 0 && of.waiting.is_empty() {
            all.remove(&session);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Nonce, Of>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Expected {
    /// Whether the client has all its replies.
    pub(super) fn has_passed(&self) -> bool {
        self.has_passed.load(Ordering::Acquire)
    }

    /// Whether the client's stream is read here, so that it will be known when they pass.
    pub(super) fn is_heard(&self) -> bool {
        self.replies.all().get(&self.session).is_some_and(|of| of.streams > 0)
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let is_this = |waiting: &Waiting| Arc::ptr_eq(&waiting.has_passed, &self.has_passed);
        self.replies.change(self.session, |of| of.waiting.retain(|waiting| !is_this(waiting)));
    }
}

/// A stream that passes as it is.
struct Overheard {
    body: BodyStream,
    replies: Arc<Replies>,
    session: Nonce,
    /// `None` once there was an event that is too long to be heard.
    gather: Option<Gather>,
}

impl Drop for Overheard {
    fn drop(&mut self) {
        self.replies.change(self.session, |of| of.streams -= 1);
    }
}

impl Body for Overheard {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let this = &mut *self;
        if let (Some(Ok(frame)), Some(gather)) = (&frame, &mut this.gather)
            && let Some(data) = frame.data_ref()
        {
            match gather.take(data) {
                Ok(whole) => {
                    mcp::events(&whole).for_each(|event| this.replies.pass(this.session, &event.data));
                    if gather.is_empty() {
                        *gather = Gather::default(); // the memory of the last event, too
                    }
                }
                Err(_) => this.gather = None,
            }
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::whole;

    fn calls(json: &str) -> Calls {
        mcp::peek(json.as_bytes(), true).expect("a message").calls
    }

    #[tokio::test]
    async fn a_reply_is_known_to_have_passed_once_its_event_is_whole() {
        let (replies, session) = (Arc::<Replies>::default(), Nonce([1; 12]));
        let one = replies.expect(session, &calls(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        let two = replies.expect(session, &calls(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#));
        let other = replies.expect(Nonce([2; 12]), &calls(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#));
        let event = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n";
        for cut in [event.len() - 1, 20] {
            let (head, tail) = event.split_at(cut);
            let stream = crate::answer::resumed(Bytes::from(head), whole(tail));
            let mut stream = replies.overhear(session, stream);
            assert!(one.is_heard() && !other.is_heard());
            let is_first = !one.has_passed();
            let frame = stream.frame().await.expect("the head").expect("it is open");
            assert_eq!(frame.into_data().expect("data"), head, "it passes as it is");
            assert_eq!(one.has_passed(), !is_first);
            assert_eq!(
                stream.frame().await.expect("the tail").expect("data").into_data().expect("data"),
                tail
            );
            assert!(one.has_passed() && !two.has_passed() && !other.has_passed());
        }
        assert!(!one.is_heard());
        drop((one, two, other));
        assert!(replies.all().is_empty());
    }
}
