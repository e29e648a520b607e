//! One bridged session: the conversation with its server, and the streams that its client reads. The
//! state is behind a lock that is never held across an await.

use super::stream::{Form, Next, Reader, StreamNo};
use super::streams::{Listening, NoCall, Streams};
use crate::mcp::{self, About, Calls, Rpc};
use crate::upstream::pipe::Pipe;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// A notification is not worth more waiting: nobody waits for an answer to it.
const TELL_TIME_MAX: Duration = Duration::from_secs(10);
/// JSON-RPC's "internal error": what the server gets for a request that can't reach the client.
const INTERNAL_ERROR: i64 = -32603;

#[derive(Debug)]
pub(super) struct Session {
    state: Mutex<State>,
    /// The revision that its server answered `initialize` with.
    version: OnceLock<Box<str>>,
    ended: CancellationToken,
    /// The server may be read from again, or something is due earlier than before.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// `None` once the session has ended.
    to: Option<mpsc::Sender<Bytes>>,
    streams: Streams,
    wakers: BTreeMap<Reader, Waker>,
}

/// Why the server did not get a message, or not all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Untold {
    /// The session has ended; whether some of the messages were sent before.
    Ended {
        may_have_run: bool,
    },
    /// The server does not read what is sent to it.
    Busy,
    NoCall(NoCall),
}

/// A client's place at a stream, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    session: Arc<Session>,
    pub(super) stream: StreamNo,
    reader: Reader,
}

/// Of a stream that calls are still added to.
struct Beginning<'a> {
    session: &'a Session,
    stream: StreamNo,
}

impl Session {
    fn new(tag: u32, to: mpsc::Sender<Bytes>) -> Self {
        let streams = Streams::new(tag, Instant::now().into_std());
        Self {
            state: Mutex::new(State { to: Some(to), streams, wakers: BTreeMap::new() }),
            version: OnceLock::new(),
            ended: CancellationToken::new(),
            changed: Notify::new(),
        }
    }

    /// The conversation begins; it ends with the server, or with the session. `tag` tells the ids of
    /// its events from those of other sessions.
    pub(super) fn begin(tag: u32, pipe: Pipe) -> (Arc<Self>, impl Future<Output = ()> + Send + 'static) {
        let session = Arc::new(Self::new(tag, pipe.to));
        (session.clone(), session.pass_on(pipe.from))
    }

    pub(super) fn version(&self) -> Option<&str> {
        self.version.get().map(|version| &**version)
    }

    pub(super) fn negotiated(&self, version: String) {
        self.lock().streams.negotiated(&version);
        self.version.get_or_init(|| version.into());
    }

    /// Ends the server, and every stream.
    pub(super) fn end(&self) {
        self.change(|state, _| {
            state.to = None;
            state.streams.break_off();
        });
        self.ended.cancel();
    }

    /// Requests, with whatever else is in a batch with them. Their answers come on one stream.
    pub(super) async fn call(
        self: &Arc<Self>,
        messages: &[Bytes],
        form: Form,
    ) -> Result<(Seat, Option<Bytes>), Untold> {
        let (seat, first) = self.change(|state, now| {
            let (stream, reader) = state.streams.begin(form, now.into_std());
            (Seat { session: self.clone(), stream, reader }, state.streams.prime(stream))
        });
        let _beginning = Beginning { session: self, stream: seat.stream };
        let mut sent = false;
        for message in messages {
            match self.send(message, Some(seat.stream)).await {
                Err(Untold::Ended { .. }) => return Err(Untold::Ended { may_have_run: sent }),
                told => told?,
            }
            sent = true;
        }
        Ok((seat, first.filter(|_| form == Form::Events)))
    }

    /// Notifications and answers to the server's requests.
    pub(super) async fn tell(&self, messages: &[Bytes]) -> Result<(), Untold> {
        let telling = async {
            for message in messages {
                self.send(message, None).await?;
            }
            Ok(())
        };
        tokio::time::timeout(TELL_TIME_MAX, telling).await.unwrap_or(Err(Untold::Busy))
    }

    /// One message to the server, in full or not at all.
    async fn send(&self, message: &Bytes, stream: Option<StreamNo>) -> Result<(), Untold> {
        // What is not JSON-RPC was refused before it came here.
        let Ok(rpc) = Rpc::read(message) else { return Ok(()) };
        let line = mcp::one_line(message.clone());
        let room = self.room().await.ok_or(Untold::Ended { may_have_run: false })?;
        self.change(|state, now| {
            if state.to.is_none() {
                return Err(Untold::Ended { may_have_run: false });
            }
            match (&rpc, stream) {
                (Rpc::Request { id, token, .. }, Some(stream)) => {
                    state.streams.call(stream, id, token.clone()).map_err(Untold::NoCall)?;
                }
                (Rpc::Response { id, .. }, _) if !state.streams.answers(id) => {
                    tracing::debug!(%id, "the client answers what its server did not ask");
                    return Ok(());
                }
                (Rpc::Notification { about: About::Cancelled(id), .. }, _) => {
                    state.streams.cancel(id.clone(), now.into_std());
                }
                (Rpc::Request { .. } | Rpc::Notification { .. } | Rpc::Response { .. }, _) => {}
            }
            room.send(line);
            Ok(())
        })
    }

    /// Waits until the server takes one message more.
    async fn room(&self) -> Option<mpsc::OwnedPermit<Bytes>> {
        let to = self.lock().to.clone()?;
        tokio::select! {
            room = to.reserve_owned() => room.ok(),
            () = self.ended.cancelled() => None,
        }
    }

    /// A client listens. With a stream comes the event that it begins with, if there is one.
    pub(super) fn listen(self: &Arc<Self>, last_event: Option<&[u8]>) -> Heard {
        self.change(|state, now| match state.streams.listen(last_event, now.into_std()) {
            Listening::Stream(stream, reader) => {
                let first = state.streams.prime(stream).filter(|_| last_event.is_none());
                Heard::Stream(Seat { session: self.clone(), stream, reader }, first)
            }
            Listening::Over => Heard::Over,
            Listening::Lost(events) => Heard::Lost(events),
        })
    }

    /// Passes on what the server says, until it or the session ends.
    async fn pass_on(self: Arc<Self>, mut from: mpsc::Receiver<Bytes>) {
        loop {
            let (is_full, due) = self.change(|state, now| {
                state.streams.pass_time(now.into_std());
                (state.streams.is_full(), state.streams.deadline())
            });
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                message = from.recv(), if !is_full => match message {
                    Some(message) => self.hear(&message),
                    None => break,
                },
                () = due => {}
                () = self.changed.notified() => {}
                () = self.ended.cancelled() => return,
            }
        }
        self.end();
    }

    fn hear(&self, message: &Bytes) {
        // A server of 2025-03-26 may answer in batches.
        let parts = mcp::messages(message).unwrap_or_default();
        let read: Vec<_> = parts.iter().map(|part| Rpc::read(part)).collect();
        if read.is_empty() || read.iter().any(Result::is_err) {
            let begin = String::from_utf8_lossy(&message[..message.len().min(100)]);
            tracing::debug!(%begin, "the server says what is not JSON-RPC");
        }
        let lines: Vec<_> = parts.iter().cloned().map(mcp::one_line).collect();
        self.change(|state, now| {
            for (rpc, line) in read.iter().zip(lines) {
                if let Ok(rpc) = rpc {
                    state.streams.hear(rpc, line, now.into_std());
                }
            }
        });
    }

    /// Changes the state, and does what follows from that.
    fn change<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.lock();
        let was_full = state.streams.is_full();
        let due_before = state.streams.deadline();
        let changed = change(&mut state, Instant::now());
        let effects = state.streams.take_effects();
        let woken: Vec<_> = effects.wake.iter().filter_map(|reader| state.wakers.remove(reader)).collect();
        for id in effects.refuse {
            state.refuse(id);
        }
        let is_due_earlier =
            state.streams.deadline().is_some_and(|due| due_before.is_none_or(|before| due < before));
        let reads_on = was_full && !state.streams.is_full();
        drop(state);
        if is_due_earlier || reads_on {
            self.changed.notify_one();
        }
        woken.into_iter().for_each(Waker::wake);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client that listens gets.
#[derive(Debug)]
pub(super) enum Heard {
    Stream(Seat, Option<Bytes>),
    Over,
    Lost(Bytes),
}

impl State {
    /// A request of the server's that no client will get.
    fn refuse(&self, id: Box<RawValue>) {
        let error = mcp::error_body(&Calls::One(id), INTERNAL_ERROR, "The client can't be reached", None);
        let sent = self.to.as_ref().map(|to| to.try_send(error));
        if !matches!(sent, Some(Ok(()))) {
            tracing::debug!("a server that does not read was not told that its request failed");
        }
    }
}

impl Seat {
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let next = self.session.change(|state, now| {
            let next = state.streams.take(self.stream, self.reader, now.into_std());
            if next == Next::Nothing {
                state.wakers.insert(self.reader, cx.waker().clone());
            }
            next
        });
        if next == Next::Nothing { Poll::Pending } else { Poll::Ready(next) }
    }

    /// What is left to be said on a stream that has broken off.
    pub(super) fn broken(&self) -> Bytes {
        self.session.lock().streams.broken(self.stream)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let waker = self.session.change(|state, _| {
            state.streams.detach(self.stream, self.reader);
            state.wakers.remove(&self.reader)
        });
        drop(waker);
    }
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        self.session.change(|state, now| state.streams.begun(self.stream, now.into_std()));
    }
}
