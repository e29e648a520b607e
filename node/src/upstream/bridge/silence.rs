//! Silence on a stream that somebody waits at, and the comment that ends it.

use bytes::Bytes;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// Proxies close what is silent for 60 s, Node's fetch for 300 s; rmcp's server speaks this often too.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Which every reader of events passes over.
pub(super) const COMMENT: Bytes = Bytes::from_static(b": \n\n");

#[derive(Debug)]
pub(super) struct Silence(Pin<Box<Sleep>>);

impl Silence {
    pub(super) fn begins() -> Self {
        Self(Box::pin(sleep(SILENCE_MAX)))
    }

    /// Something has been said.
    pub(super) fn is_broken(&mut self) {
        self.0.as_mut().reset(Instant::now() + SILENCE_MAX);
    }

    /// Resolves once it has lasted for too long, with what is to be said.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        ready!(self.0.as_mut().poll(cx));
        Poll::Ready(COMMENT)
    }
}
