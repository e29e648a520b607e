//! What passes by and must be known when a session goes on elsewhere: its log level, what it is
//! subscribed to, which tools may be called twice.

use super::{READ_LEN_MAX, Sessions};
use crate::answer::{Answer, BodyStream, Broke};
use crate::ask::{Ask, Payload};
use crate::mcp;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use proto::id::Nonce;
use proto::wire::{Nature, ON_RECORD_LEN_MAX};
use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, ready},
};

/// A longer one is not subscribed to again.
const URI_LEN_MAX: usize = 4 * 1024;

impl Sessions {
    /// Notes what an answer means for the session's record.
    pub(super) fn learn(self: &Arc<Self>, ask: &Ask, nonce: Nonce, answer: Answer) -> Answer {
        let Payload::Whole(body) = &ask.body else { return answer };
        if !answer.status().is_success() {
            return answer;
        }
        match ask.nature {
            Nature::Unsafe | Nature::Safe | Nature::Resumes | Nature::Listens => answer,
            Nature::SetsLevel => {
                let level = mcp::level(body).map(Arc::from);
                self.table.change(nonce, |record| record.log_level = level);
                answer
            }
            Nature::Subscribes => {
                let uri = mcp::uri(body).map(Arc::from);
                self.table.change(nonce, |record| {
                    let len: usize = record.subscriptions.iter().map(|uri| uri.len()).sum();
                    if len < ON_RECORD_LEN_MAX / 2 {
                        record.subscriptions.extend(uri.filter(|uri: &Arc<str>| uri.len() < URI_LEN_MAX));
                    }
                });
                answer
            }
            Nature::Unsubscribes => {
                let uri = mcp::uri(body).unwrap_or_default();
                self.table.change(nonce, |record| record.subscriptions.retain(|known| **known != *uri));
                answer
            }
            Nature::ListsTools => {
                let is_event_stream = mcp::is_event_stream(answer.headers());
                let (sessions, route) = (self.clone(), ask.route.clone());
                let done = move |body: &[u8]| {
                    let listed = mcp::repeatable_tools(body, is_event_stream);
                    if !listed.is_empty() && route.trust_annotations {
                        sessions.note_tools(nonce, &listed);
                    }
                };
                answer.map(|body| Overheard { body, heard: BytesMut::new(), done: Some(done) }.boxed_unsync())
            }
        }
    }

    fn note_tools(&self, nonce: Nonce, listed: &std::collections::BTreeMap<String, bool>) {
        let Some(record) = self.table.record(nonce) else { return };
        let mut names: BTreeSet<String> = (*record.repeatable).clone();
        for (name, may) in listed {
            if *may {
                names.insert(name.clone())
            } else {
                names.remove(name)
            };
        }
        if names.iter().map(String::len).sum::<usize>() > ON_RECORD_LEN_MAX {
            return; // none of so many is worth its place
        }
        let Some(used) = self.routes.get(&record.birth.route) else { return };
        // Sessions of one route mostly list the same tools, and share one set of them.
        let mut shared = used.repeatable.lock().unwrap_or_else(PoisonError::into_inner);
        if **shared != names {
            *shared = Arc::new(names);
        }
        let names = shared.clone();
        drop(shared);
        self.table.change(nonce, |record| record.repeatable = names);
    }

    /// Whether a request of which a copy may have run may run again.
    pub(super) fn may_run_again(&self, ask: &Ask, nonce: Nonce) -> bool {
        let Payload::Whole(body) = &ask.body else { return false };
        if ask.nature != Nature::Unsafe {
            return true;
        }
        let (Some(record), Some(tool)) = (self.table.record(nonce), mcp::called_tool(body)) else {
            return false;
        };
        record.repeatable.contains(&tool)
    }
}

/// A body that is passed on as it comes, and read at its end.
struct Overheard<F> {
    body: BodyStream,
    heard: BytesMut,
    done: Option<F>,
}

impl<F: FnOnce(&[u8]) + Send + Unpin> Body for Overheard<F> {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref))
            && let Some(data) = data
            && self.heard.len() + data.len() <= READ_LEN_MAX
        {
            self.heard.extend_from_slice(data);
        }
        if (frame.is_none() || self.body.is_end_stream())
            && let Some(done) = self.done.take()
        {
            done(&self.heard);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
