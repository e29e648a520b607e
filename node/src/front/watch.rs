//! What wakes a client's stream that nothing else wakes: the node leaves, or the client of a stream
//! that may say nothing for hours has to hear that it is still there.

use crate::leaving::{Leaving, Turn};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Instant;

/// Proxies close what is silent for 60 s, Node's fetch for 300 s; rmcp's server speaks this often too.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// What kind of stream is watched.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    /// The answer to a call: it ends by itself, or is cut off last of all.
    Call,
    /// All that a client of HTTP+SSE hears, which can't come back for its session: cut off last of all,
    /// too, and never silent.
    Sole,
    /// The server's own, which would never end by itself.
    Own {
        turn: Turn,
        /// Whether the client hears of the stream when there is nothing to hear.
        speaks: bool,
    },
}

/// Wakes a stream that no event wakes.
pub(super) struct Watch {
    leaving: Arc<Leaving>,
    of: Of,
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
    pub(super) fn new(leaving: &Arc<Leaving>, of: Of) -> Self {
        let heard = Instant::now();
        Self { leaving: leaving.clone(), of, heard, alarm: Box::pin(alarm(leaving.clone(), of, heard)) }
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
            self.alarm = Box::pin(alarm(self.leaving.clone(), self.of, self.heard));
            if is_silent {
                return Poll::Ready(Alarm::Silence);
            }
        }
    }
}

async fn alarm(leaving: Arc<Leaving>, of: Of, heard: Instant) -> Alarm {
    match of {
        Of::Call => leaving.cuts().await,
        Of::Own { turn, speaks: false } => leaving.comes_to(turn).await,
        Of::Sole => {
            if tokio::time::timeout_at(heard + SILENCE_MAX, leaving.cuts()).await.is_err() {
                return Alarm::Silence;
            }
        }
        Of::Own { turn, speaks: true } => {
            if tokio::time::timeout_at(heard + SILENCE_MAX, leaving.comes_to(turn)).await.is_err() {
                return Alarm::Silence;
            }
        }
    }
    Alarm::Leaving
}
