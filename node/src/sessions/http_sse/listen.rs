//! What the upstream says by itself, on the stream that a Streamable HTTP client would read.

use super::{Outbox, get, get_headers, hear::Hearing};
use crate::config::Route;
use crate::headers::Headers;
use crate::mcp::{self, Calls, LAST_EVENT_ID, PROTOCOL_VERSION};
use crate::sessions::{AtUpstream, Sessions};
use hyper::{StatusCode, header::HeaderValue};
use proto::id::SessionId;
use proto::wire::{Nature, Refusal};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Before a stream that has ended is opened again, as servers ask of their clients; doubled with each
/// attempt in vain.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// 1 + 2 + 4 + 8 + 16 + 4 x 30 s: an upstream that restarts is back within 2.5 minutes. After that the
/// client's next message begins it anew.
const ATTEMPTS_MAX: u32 = 9;

/// What a session of an old client needs besides its outbox.
#[derive(Debug, Default)]
pub(in crate::sessions) struct Listener {
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    is_listening: bool,
    /// What the client last showed of itself, for requests that it did not make itself.
    headers: Headers,
    /// The revision that the upstream has agreed to, if it did so here.
    version: Option<HeaderValue>,
    /// Counts a session that has no upstream yet among those of the one that it may well get.
    seat: Option<AtUpstream>,
}

impl Listener {
    /// From now on the upstream may speak by itself; nothing new if it does.
    pub(super) fn want(&self, headers: &Headers) {
        let mut state = self.state();
        if !state.is_listening {
            state.is_listening = true;
            state.headers = get_headers(headers);
            drop(state);
            self.wanted.notify_one();
        }
    }

    pub(super) fn version(&self) -> Option<HeaderValue> {
        self.state().version.clone()
    }

    pub(super) fn agree_on(&self, version: HeaderValue) {
        self.state().version = Some(version);
    }

    pub(super) fn keep_seat(&self, seat: AtUpstream) {
        self.state().seat = Some(seat);
    }

    pub(super) fn leave_seat(&self) {
        self.state().seat = None;
    }

    fn headers(&self) -> Headers {
        let state = self.state();
        let mut headers = state.headers.clone();
        if let Some(version) = &state.version {
            headers.add_missing(PROTOCOL_VERSION, version.clone());
        }
        headers
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Puts what the upstream says by itself into the outbox, for ever.
    pub(super) async fn listen(self: &Arc<Self>, id: &SessionId, route: &Arc<Route>, outbox: &Arc<Outbox>) {
        loop {
            outbox.listener.wanted.notified().await;
            self.listen_while_it_lasts(id, route, outbox).await;
            outbox.listener.state().is_listening = false;
        }
    }

    async fn listen_while_it_lasts(
        self: &Arc<Self>,
        id: &SessionId,
        route: &Arc<Route>,
        outbox: &Arc<Outbox>,
    ) {
        let mut hearing = Hearing::new(outbox.clone(), Calls::None, false);
        let (mut attempts, mut pause) = (0, PAUSE_MIN);
        while attempts < ATTEMPTS_MAX {
            let mut headers = outbox.listener.headers();
            if let Some(last) = hearing.last_id() {
                headers.insert(LAST_EVENT_ID, last.clone());
            }
            match self.exchange(&get(route, id, Nature::Safe, headers), id).await {
                Ok(answer) if answer.status().is_success() && mcp::is_event_stream(answer.headers()) => {
                    let began = Instant::now();
                    // However it ends, it is opened again; what belongs to another session now is refused.
                    let _ = hearing.events(answer.into_body()).await;
                    if began.elapsed() > PAUSE_MAX {
                        (attempts, pause) = (0, PAUSE_MIN);
                    }
                }
                // 409: the upstream has not noticed yet that nobody reads the old stream.
                Ok(answer)
                    if answer.status().is_server_error() || answer.status() == StatusCode::CONFLICT => {}
                Ok(_) | Err(Refusal::Gone(_)) => return, // it has no such stream
                Err(Refusal::Undelivered { .. }) => {}
            }
            tokio::time::sleep(pause).await;
            attempts += 1;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}
