//! What a client reads of a stream: the body of an answer.

use super::session::Seat;
use super::silence::Silence;
use super::stream::{EVENT_END, Next, Text};
use crate::answer::Broke;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// Events as they are written to a client.
#[derive(Debug)]
pub(super) struct Events {
    /// `None` once it has ended.
    seat: Option<Seat>,
    /// What goes out before the next event is asked for.
    ready: VecDeque<Bytes>,
    /// Of an answer to a call; what a client listens to is watched at its entry (`front::watch`).
    silence: Option<Silence>,
}

impl Events {
    /// Of the answer to a call.
    pub(super) fn of_call(seat: Seat, first: Option<Bytes>) -> Self {
        Self { silence: Some(Silence::begins()), ..Self::of_listener(seat, first) }
    }

    /// Of a stream that a client listens to.
    pub(super) fn of_listener(seat: Seat, first: Option<Bytes>) -> Self {
        Self { seat: Some(seat), ready: first.into_iter().collect(), silence: None }
    }

    /// Gets the next pieces ready. Says whether there are any.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(seat) = &self.seat else { return Poll::Ready(false) };
        match ready!(seat.poll_next(cx)) {
            Next::Event(Text::Whole(event)) => self.ready.push_back(event),
            Next::Event(Text::Parts { begin, message }) => self.ready.extend([begin, message, EVENT_END]),
            // Said here: a body that breaks off takes along what was written just before on its way
            // over a hop, and a client that knows an id would only ask on.
            Next::Broken => {
                self.ready.push_back(seat.broken());
                self.seat = None;
            }
            Next::End | Next::Nothing => self.seat = None,
        }
        Poll::Ready(!self.ready.is_empty())
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        self.silence.as_mut().map_or(Poll::Pending, |silence| silence.poll(cx))
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
        let has_more = !this.ready.is_empty()
            || match this.poll_ready(cx) {
                Poll::Ready(has_more) => has_more,
                Poll::Pending => {
                    let comment = ready!(this.poll_silence(cx));
                    this.ready.push_back(comment);
                    true
                }
            };
        if !has_more {
            return Poll::Ready(None);
        }
        if let Some(silence) = &mut this.silence {
            silence.is_broken();
        }
        Poll::Ready(this.ready.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

/// The responses on a stream that has nothing else on it.
pub(super) async fn responses(seat: Seat) -> Result<Vec<Bytes>, Broke> {
    let mut responses = Vec::new();
    loop {
        match poll_fn(|cx| seat.poll_next(cx)).await {
            Next::Event(Text::Whole(response) | Text::Parts { message: response, .. }) => {
                responses.push(response);
            }
            Next::End | Next::Nothing => return Ok(responses),
            Next::Broken => return Err(Broke::Upstream),
        }
    }
}
