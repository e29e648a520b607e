//! What wakes a stream of the server's own, which would never end by itself and may say nothing for
//! hours: the node leaves, or the client has to hear that the stream is still there.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Proxies close what is silent for 60 s, Node's fetch for 300 s; rmcp's server speaks this often too.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Wakes a stream that no event wakes.
pub(super) struct Watch {
    leaving: CancellationToken,
    /// Whether the client hears of the stream when there is nothing to hear.
    speaks: bool,
    /// When the client last heard something.
    heard: Instant,
    alarm: Pin<Box<dyn Future<Output = Alarm> + Send>>,
}

pub(super) enum Alarm {
    /// The node leaves.
    Leaving,
    /// The client has heard nothing for long.
    Silence,
}

impl Watch {
    pub(super) fn new(leaving: &CancellationToken, speaks: bool) -> Self {
        let heard = Instant::now();
        let alarm = Box::pin(alarm(leaving.clone(), speaks.then_some(heard + SILENCE_MAX)));
        Self { leaving: leaving.clone(), speaks, heard, alarm }
    }

    pub(super) fn client_heard(&mut self) {
        self.heard = Instant::now();
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Alarm> {
        loop {
            if let Alarm::Leaving = ready!(self.alarm.as_mut().poll(cx)) {
                return Poll::Ready(Alarm::Leaving);
            }
            // Set once in a while, not with each event.
            let now = Instant::now();
            let is_silent = now >= self.heard + SILENCE_MAX;
            if is_silent {
                self.heard = now;
            }
            let at = self.speaks.then_some(self.heard + SILENCE_MAX);
            self.alarm = Box::pin(alarm(self.leaving.clone(), at));
            if is_silent {
                return Poll::Ready(Alarm::Silence);
            }
        }
    }
}

async fn alarm(leaving: CancellationToken, at: Option<Instant>) -> Alarm {
    match at {
        None => leaving.cancelled().await,
        Some(at) => {
            if tokio::time::timeout_at(at, leaving.cancelled()).await.is_err() {
                return Alarm::Silence;
            }
        }
    }
    Alarm::Leaving
}
