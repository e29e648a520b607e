//! One server and all that one caller asks of it. Requests get numbers of their own on the way there,
//! since the caller's connections know nothing of each other.

use super::Pieces;
use crate::headers::Headers;
use crate::mcp::{
    self, About, Calls, METHOD_NOT_FOUND, Rpc,
    modern::{self, MirroredParams, Names, Of},
};
use crate::upstream::pipe::Pipe;
use bytes::Bytes;
use proto::wire::{Reason, Refusal};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

/// Requests of one caller at once: as many as a client of HTTP+SSE has in progress, twice.
const CALLS_MAX: usize = 256;
/// What a client has not read yet of what comes before one answer, in messages and in bytes: 256 MiB
/// for all, and their answers. One that reads no more is cut off, since the others must not wait for it.
const UNREAD_MAX: usize = 256;
const UNREAD_LEN_MAX: usize = 1024 * 1024;
/// A notification is not worth more waiting: nobody waits for an answer to it.
const TELL_TIME_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Conversation {
    state: Mutex<State>,
    ended: CancellationToken,
}

#[derive(Debug)]
struct State {
    /// `None` once it has ended: to drop it is to end the server.
    to: Option<mpsc::Sender<Bytes>>,
    next: u64,
    waiting: HashMap<u64, Waiting>,
    mirrored: MirroredParams,
    used: Instant,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Waiting {
    names: Names,
    lists_tools: bool,
    to: mpsc::Sender<Said>,
    /// Bytes that its client has not read.
    unread: Arc<AtomicUsize>,
}

/// Bytes of a message that are unread for as long as this exists.
#[derive(Debug)]
struct Unread {
    all: Arc<AtomicUsize>,
    len: usize,
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.all.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// A message about a request, under the names that its client knows.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) pieces: Pieces,
    /// It is the last one.
    pub(super) is_answer: bool,
    pub(super) is_error: bool,
    _unread: Unread,
}

/// A request in progress. Dropped before its answer has come it is cancelled: that is what a client
/// means by going away (2026-07-28, Streamable HTTP, "Cancellation").
#[derive(Debug)]
pub(super) struct Seat {
    conversation: Arc<Conversation>,
    number: u64,
    from: mpsc::Receiver<Said>,
}

impl Conversation {
    /// It ends with the server, or when nothing has been asked for `idle_timeout`.
    pub(super) fn begin(pipe: Pipe, idle_timeout: Duration) -> Arc<Self> {
        let state = State {
            to: Some(pipe.to),
            next: 1,
            waiting: HashMap::new(),
            mirrored: MirroredParams::default(),
            used: Instant::now(),
        };
        let conversation = Arc::new(Self { state: Mutex::new(state), ended: CancellationToken::new() });
        tokio::spawn(conversation.clone().pass_on(pipe.from, idle_timeout));
        conversation
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Ends the server, and breaks off whatever it has not answered.
    pub(super) fn end(&self) {
        let mut state = self.state();
        (state.to, state.waiting) = (None, HashMap::new());
        self.ended.cancel();
    }

    pub(super) fn mismatch(&self, headers: &Headers, body: &[u8]) -> Option<String> {
        modern::mismatch(headers, body, &self.state().mirrored)
    }

    pub(super) async fn call(self: &Arc<Self>, body: &Bytes, lists_tools: bool) -> Result<Seat, Refusal> {
        let room = self.room().await?;
        let mut state = self.state();
        if state.to.is_none() {
            // It ended while this waited, and nobody would answer.
            return Err(Refusal::not_run(Reason::UpstreamUnreachable));
        }
        if state.waiting.len() >= CALLS_MAX {
            return Err(Refusal::not_run(Reason::Overloaded));
        }
        let number = state.next;
        let (pieces, names) =
            modern::numbered(body, number).ok_or(Refusal::not_run(Reason::UpstreamInvalid))?;
        let (to, from) = mpsc::channel(UNREAD_MAX);
        state.waiting.insert(number, Waiting { names, lists_tools, to, unread: Arc::default() });
        (state.next, state.used) = (number + 1, Instant::now());
        drop(state);
        room.send(mcp::one_line(pieces.concat().into()));
        Ok(Seat { conversation: self.clone(), number, from })
    }

    /// A notification of the client's. One that cancels is not for this way: the number that it names
    /// is another one here, and the client only has to go away.
    pub(super) async fn tell(&self, body: &Bytes) -> Result<(), Refusal> {
        if let Ok(Rpc::Notification { about: About::Cancelled(_), .. }) = Rpc::read(body) {
            return Ok(());
        }
        let room = tokio::time::timeout(TELL_TIME_MAX, self.room()).await;
        let room = room.map_err(|_| Refusal::not_run(Reason::Overloaded))??;
        room.send(mcp::one_line(body.clone()));
        Ok(())
    }

    /// Waits until the server takes one message more.
    async fn room(&self) -> Result<mpsc::OwnedPermit<Bytes>, Refusal> {
        let gone = Refusal::not_run(Reason::UpstreamUnreachable);
        let to = self.state().to.clone().ok_or(gone)?;
        tokio::select! {
            room = to.reserve_owned() => room.map_err(|_| gone),
            () = self.ended.cancelled() => Err(gone),
        }
    }

    async fn pass_on(self: Arc<Self>, mut from: mpsc::Receiver<Bytes>, idle_timeout: Duration) {
        loop {
            let idle_at = self.state().idle_at(idle_timeout);
            tokio::select! {
                message = from.recv() => match message {
                    Some(message) => self.hear(&message),
                    None => break,
                },
                () = tokio::time::sleep_until(idle_at) => {
                    if self.state().idle_at(idle_timeout) <= Instant::now() {
                        break;
                    }
                }
                () = self.ended.cancelled() => break,
            }
        }
        self.end();
    }

    fn hear(&self, message: &Bytes) {
        let mut state = self.state();
        let (number, is_answer, is_error) = match modern::of(message) {
            Of::Answer { to, is_error } => (Some(to), true, is_error),
            Of::Request(number) => (Some(number), false, false),
            Of::Log => (state.logs_to(), false, false),
            Of::Asks(id) => {
                // There are no such requests in this revision.
                let error = mcp::error_body(&Calls::One(id), METHOD_NOT_FOUND, "Method not found", None);
                let _ = state.to.as_ref().map(|to| to.try_send(error));
                return;
            }
            Of::Nothing => (None, false, false),
        };
        let Some((number, waiting)) = number.and_then(|number| Some((number, state.waiting.get(&number)?)))
        else {
            return tracing::debug!("a server says what belongs to no request in progress");
        };
        let lists_tools = waiting.lists_tools;
        let _unread = Unread { all: waiting.unread.clone(), len: message.len() };
        let before = waiting.unread.fetch_add(message.len(), Ordering::Relaxed);
        let pieces = modern::restored(message, &waiting.names);
        let said = Said { pieces, is_answer, is_error, _unread };
        let is_too_much = !is_answer && before + message.len() > UNREAD_LEN_MAX;
        let is_cut = is_too_much || waiting.to.try_send(said).is_err();
        if is_answer || is_cut {
            state.waiting.remove(&number);
            state.used = Instant::now();
        }
        if is_answer && lists_tools {
            state.mirrored.learn(message);
        }
        if is_cut && !is_answer {
            state.cancel(number);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn idle_at(&self, idle_timeout: Duration) -> Instant {
        let since = if self.waiting.is_empty() { self.used } else { Instant::now() };
        // No timer of tokio's reaches further than two years.
        since + idle_timeout.min(Duration::from_secs(24 * 3_600))
    }

    /// The only request that wants log messages; with several, whose it is is not known, and nobody
    /// else must see it.
    fn logs_to(&self) -> Option<u64> {
        let mut wanting = self.waiting.iter().filter(|(_, waiting)| waiting.names.wants_logs);
        wanting.next().map(|(number, _)| *number).filter(|_| wanting.next().is_none())
    }

    fn cancel(&self, number: u64) {
        let notification = json!({
            "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": number },
        });
        let sent = self.to.as_ref().map(|to| to.try_send(notification.to_string().into()));
        if matches!(sent, Some(Err(_))) {
            tracing::debug!("a server that does not read was not told that its caller has gone");
        }
    }
}

impl Seat {
    /// `None` once the answer has come, or will not come.
    pub(super) async fn next(&mut self) -> Option<Said> {
        self.from.recv().await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Said>> {
        self.from.poll_recv(cx)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.conversation.state();
        if state.waiting.remove(&self.number).is_some() {
            state.used = Instant::now();
            state.cancel(self.number);
        }
    }
}
