//! What a client reads of the answer to its request: events, until the one that answers it.

use super::super::silence::{COMMENT, Silence};
use super::conversation::{Said, Seat};
use crate::answer::{BodyStream, Broke};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

const BEGIN: Bytes = Bytes::from_static(b"event: message\ndata: ");
const END: Bytes = Bytes::from_static(b"\n\n");

struct Events {
    /// `None` once the answer has come.
    seat: Option<Seat>,
    /// What goes out before the next message is asked for, and whose it is: unread until then.
    ready: VecDeque<Bytes>,
    said: Option<Said>,
    silence: Silence,
}

pub(super) fn events(seat: Seat, first: Option<Said>) -> BodyStream {
    let mut events =
        Events { seat: Some(seat), ready: VecDeque::new(), said: None, silence: Silence::begins() };
    match first {
        Some(first) => events.push(first),
        None => events.ready.push_back(COMMENT),
    }
    events.boxed_unsync()
}

impl Events {
    fn push(&mut self, mut said: Said) {
        self.ready.push_back(BEGIN);
        self.ready.extend(std::mem::take(&mut said.pieces));
        self.ready.push_back(END);
        if said.is_answer {
            self.seat = None;
        }
        self.said = Some(said);
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let this = &mut *self;
        if this.ready.is_empty() {
            this.said = None;
            let Some(seat) = &mut this.seat else { return Poll::Ready(None) };
            match seat.poll_next(cx) {
                Poll::Ready(Some(said)) => this.push(said),
                Poll::Ready(None) => {
                    this.seat = None;
                    return Poll::Ready(Some(Err(Broke::Upstream)));
                }
                Poll::Pending => {
                    let comment = ready!(this.silence.poll(cx));
                    this.ready.push_back(comment);
                }
            }
        }
        this.silence.is_broken();
        Poll::Ready(this.ready.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}
