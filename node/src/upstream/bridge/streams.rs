//! All streams of a bridged session: which of them a message of the server's goes to, what is kept of
//! each, and who reads it. One message goes to exactly one stream. Pure: times come as arguments, and
//! what follows for others is told in [`Effects`].

mod kept;

use super::stream::{EventId, Form, Next, OWN, Reader, Stream, StreamNo, Weight};
use crate::mcp::{About, Id, Rpc};
use bytes::Bytes;
use kept::{Forgotten, KEPT_TIME};
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Of the server's own stream while nobody reads it: at 256 bytes and more for each event, no more
/// than 4,096 of them.
const QUEUE_LEN_MAX: usize = 1024 * 1024;
/// A server that has been told that nobody waits may still answer in this time.
const CANCELLED_TIME_MAX: Duration = Duration::from_secs(5);
/// Calls in progress, and unanswered requests of the server's: far more than a client runs at once,
/// and 300 bytes each.
const IN_FLIGHT_MAX: usize = 1_024;
/// Events without data make some older clients fail (2025-11-25, transports; both SDKs' servers look).
const PRIMED_FROM: &str = "2025-11-25";
/// How long a client waits before it comes back: soon enough for the one or two attempts that the SDKs
/// make.
const RETRY_MS: u32 = 1_000;

/// What follows from a change for others than the streams.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Something has come for them, or their stream has ended.
    pub(super) wake: Vec<Reader>,
    /// Requests of the server's that no client will get.
    pub(super) refuse: Vec<Box<RawValue>>,
}

/// Why a call can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoCall {
    /// One with the same id is in progress.
    InProgress,
    TooMany,
}

/// What a client that wants to listen gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Listening {
    Stream(StreamNo, Reader),
    /// Nothing comes after the event that it names.
    Over,
    /// The answer that it waits for is not kept any more: these events say so.
    Lost(Bytes),
}

#[derive(Debug)]
struct Call {
    stream: StreamNo,
    id: Box<RawValue>,
    token: Option<Id>,
}

#[derive(Debug)]
pub(super) struct Streams {
    /// What the ids of its events begin with.
    session: u32,
    streams: BTreeMap<StreamNo, Stream>,
    /// Calls' streams that can carry more than the answer.
    carriers: BTreeSet<StreamNo>,
    in_flight: HashMap<Id, Call>,
    tokens: HashMap<Id, StreamNo>,
    /// The server's requests that the client has not answered, and which stream carried them.
    asked: HashMap<Id, StreamNo>,
    /// The calls nobody waits for any more, and until when the server may answer them.
    cancelled: VecDeque<(Instant, (Id, StreamNo))>,
    /// Streams that have ended, and when they are forgotten.
    ended: VecDeque<(Instant, StreamNo)>,
    forgotten: VecDeque<Forgotten>,
    own_was_read: bool,
    primes: bool,
    weight: Weight,
    last_stream: u64,
    last_reader: u64,
    effects: Effects,
}

impl Streams {
    pub(super) fn new(session: u32, now: Instant) -> Self {
        Self {
            session,
            streams: BTreeMap::from([(OWN, Stream::new(session, OWN, Form::Events, None, now))]),
            carriers: BTreeSet::new(),
            in_flight: HashMap::new(),
            tokens: HashMap::new(),
            asked: HashMap::new(),
            cancelled: VecDeque::new(),
            ended: VecDeque::new(),
            forgotten: VecDeque::new(),
            own_was_read: false,
            primes: false,
            weight: Weight::default(),
            last_stream: OWN.0,
            last_reader: 0,
            effects: Effects::default(),
        }
    }

    /// Which revision client and server speak from now on.
    pub(super) fn negotiated(&mut self, version: &str) {
        self.primes = version >= PRIMED_FROM;
    }

    pub(super) fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.effects)
    }

    // --- the client ---

    /// A stream for the answers to calls that are about to be made, and its first reader.
    pub(super) fn begin(&mut self, form: Form, now: Instant) -> (StreamNo, Reader) {
        self.last_stream += 1;
        let (no, reader) = (StreamNo(self.last_stream), self.next_reader());
        self.streams.insert(no, Stream::new(self.session, no, form, Some(reader), now));
        (no, reader)
    }

    /// A call that is answered on this stream.
    pub(super) fn call(&mut self, no: StreamNo, id: &RawValue, token: Option<Id>) -> Result<(), NoCall> {
        let key = Id::of(id);
        if self.in_flight.contains_key(&key) {
            return Err(NoCall::InProgress);
        }
        if self.in_flight.len() >= IN_FLIGHT_MAX {
            return Err(NoCall::TooMany);
        }
        if let Some(stream) = self.streams.get_mut(&no) {
            stream.calls.push(id.to_owned());
            stream.owes += 1;
            // Not before: what the server says meanwhile is about nothing that it has not got, and would
            // be lost with a call that is given up while it waits to be sent.
            if stream.form == Form::Events {
                self.carriers.insert(no);
            }
        }
        if let Some(token) = &token {
            self.tokens.insert(token.clone(), no);
        }
        self.in_flight.insert(key, Call { stream: no, id: id.to_owned(), token });
        Ok(())
    }

    /// No more calls come that are answered on this stream.
    pub(super) fn begun(&mut self, no: StreamNo, now: Instant) {
        self.settle(no, now);
    }

    /// The client does not wait for this call any more.
    pub(super) fn cancel(&mut self, id: Id, now: Instant) {
        let Some(call) = self.in_flight.get(&id) else { return };
        let cancelled = (id, call.stream);
        // Said again and again it would fill memory.
        if self.cancelled.iter().all(|(_, known)| *known != cancelled) {
            self.cancelled.push_back((now + CANCELLED_TIME_MAX, cancelled));
        }
    }

    /// The client answers a request of the server's. Says whether the server waits for that.
    pub(super) fn answers(&mut self, id: &RawValue) -> bool {
        self.asked.remove(&Id::of(id)).is_some()
    }

    /// The client listens: to the server's own stream, or to the one that the event it got last is of.
    pub(super) fn listen(&mut self, last_event: Option<&[u8]>, now: Instant) -> Listening {
        match last_event.and_then(EventId::read) {
            Some(id) if id.stream == OWN => {
                self.listen_to_own(Some(id.seq).filter(|_| id.session == self.session), now)
            }
            Some(id) if id.session == self.session => self.resume(id.stream, id.seq, now),
            // A call of the session that this one is in place of. It was answered with an error then.
            Some(_) => Listening::Over,
            // Of somebody else's making: its client has listened before, that is all it says.
            None => self.listen_to_own(None, now),
        }
    }

    fn listen_to_own(&mut self, after: Option<u64>, now: Instant) -> Listening {
        self.own_was_read = true;
        Listening::Stream(OWN, self.attach(OWN, after, now))
    }

    fn resume(&mut self, no: StreamNo, seq: u64, now: Instant) -> Listening {
        match self.streams.get(&no) {
            Some(stream) if stream.form == Form::Events => match stream.goes_on_after(seq) {
                true => Listening::Stream(no, self.attach(no, Some(seq), now)),
                false => Listening::Over,
            },
            Some(_) => Listening::Over,
            None => {
                let forgotten = self.forgotten.iter().find(|forgotten| forgotten.last.stream == no);
                match forgotten.filter(|forgotten| seq < forgotten.last.seq) {
                    Some(forgotten) => Listening::Lost(forgotten.events()),
                    None => Listening::Over,
                }
            }
        }
    }

    fn attach(&mut self, no: StreamNo, after: Option<u64>, now: Instant) -> Reader {
        let reader = self.next_reader();
        let before = self.change(no, |stream| stream.attach(reader, after, now));
        self.effects.wake.extend(before.flatten());
        reader
    }

    /// The event that a client resumes after which has got nothing else, where its revision has such.
    pub(super) fn prime(&self, no: StreamNo) -> Option<Bytes> {
        let stream = self.streams.get(&no).filter(|_| self.primes)?;
        Some(format!("id: {}\nretry: {RETRY_MS}\ndata: \n\n", stream.read_id()).into())
    }

    /// What `reader` finds.
    pub(super) fn take(&mut self, no: StreamNo, reader: Reader, now: Instant) -> Next {
        let mine = |stream: &mut Stream| (stream.reader() == Some(reader)).then(|| stream.take(now));
        let next = self.change(no, mine).flatten().unwrap_or(Next::End);
        self.trim();
        next
    }

    /// `reader` reads no more.
    pub(super) fn detach(&mut self, no: StreamNo, reader: Reader) {
        self.change(no, |stream| stream.detach(reader));
        // What is answered as JSON can't be asked for again.
        if self.streams.get(&no).is_some_and(|stream| stream.form == Form::Json && stream.reader().is_none())
        {
            self.remove(no);
        }
        self.trim();
    }

    // --- the server ---

    /// A message has come from the server.
    pub(super) fn hear(&mut self, rpc: &Rpc<'_>, message: Bytes, now: Instant) {
        match rpc {
            Rpc::Response { id, .. } => self.answered(&Id::of(id), message, now),
            Rpc::Request { id, .. } => {
                let no = self.related();
                if self.asked.len() < IN_FLIGHT_MAX {
                    self.asked.insert(Id::of(id), no);
                    self.place(no, message, Some(id), now);
                } else {
                    self.refuse((*id).to_owned());
                }
            }
            Rpc::Notification { method, about } => {
                let no = match about {
                    // After the answer, the progress of a task goes on (2025-11-25, tasks).
                    About::Progress(token) => {
                        let stream = self.tokens.get(token).copied();
                        stream.filter(|no| self.carriers.contains(no)).unwrap_or(OWN)
                    }
                    About::Cancelled(id) => self.asked.remove(id).unwrap_or(OWN),
                    About::Nothing if is_own(method) => OWN,
                    About::Nothing => self.related(),
                };
                self.place(no, message, None, now);
            }
        }
        self.trim();
    }

    fn answered(&mut self, id: &Id, message: Bytes, now: Instant) {
        let Some(call) = self.in_flight.remove(id) else {
            tracing::debug!(?id, "an answer that nobody waits for");
            return;
        };
        // A client may use a token twice.
        if let Some(token) = call.token.filter(|token| self.tokens.get(token) == Some(&call.stream)) {
            self.tokens.remove(&token);
        }
        self.push(call.stream, message, None, now);
        self.settle(call.stream, now);
    }

    /// The stream for what belongs to some call, but does not say to which.
    fn related(&self) -> StreamNo {
        let is_read = |no: &&StreamNo| self.streams.get(no).is_some_and(|stream| stream.reader().is_some());
        let mut read = self.carriers.iter().rev().filter(is_read);
        match (read.next(), read.next()) {
            (Some(only), None) => *only,
            _ if self.own_was_read => OWN,
            // Better than never.
            (Some(latest), Some(_)) => *latest,
            (None, _) => self.carriers.last().copied().unwrap_or(OWN),
        }
    }

    /// Puts a message on a stream. On the server's own there is only so much room while nobody reads it.
    fn place(&mut self, no: StreamNo, message: Bytes, asks: Option<&RawValue>, now: Instant) {
        let cost = Stream::cost_of(&message);
        let has_room = no != OWN
            || self.change(OWN, |own| {
                let fits = |own: &Stream| own.reader().is_some() || own.unread_cost() + cost <= QUEUE_LEN_MAX;
                while cost <= QUEUE_LEN_MAX && !fits(own) && own.forget_notification() {}
                fits(own)
            }) == Some(true);
        match asks {
            _ if has_room => self.push(no, message, asks, now),
            Some(id) => self.refuse(id.to_owned()),
            None => tracing::debug!("a notification was dropped: nobody reads the server's own stream"),
        }
    }

    fn push(&mut self, no: StreamNo, message: Bytes, asks: Option<&RawValue>, now: Instant) {
        self.change(no, |stream| stream.push(message, asks.map(ToOwned::to_owned), now));
        self.wake(no);
    }

    fn refuse(&mut self, id: Box<RawValue>) {
        self.asked.remove(&Id::of(&id));
        self.effects.refuse.push(id);
    }

    /// One call fewer is open on a stream; after the last it ends.
    fn settle(&mut self, no: StreamNo, now: Instant) {
        let has_ended = self.change(no, |stream| {
            stream.owes -= 1;
            if stream.owes == 0 {
                stream.end();
            }
            stream.owes == 0
        });
        if has_ended == Some(true) {
            self.carriers.remove(&no);
            self.ended.push_back((now + KEPT_TIME, no));
            self.wake(no);
        }
    }

    /// The server is gone. Calls in progress break off, everything else ends.
    pub(super) fn break_off(&mut self) {
        let in_flight = std::mem::take(&mut self.in_flight);
        for stream in self.streams.values_mut() {
            match stream.no() {
                OWN => stream.end(),
                _ if stream.is_open() => {
                    stream.calls.retain(|id| in_flight.contains_key(&Id::of(id)));
                    stream.break_off();
                }
                _ => {}
            }
            self.effects.wake.extend(stream.reader());
        }
        self.tokens.clear();
        self.asked.clear();
        self.cancelled.clear();
        self.carriers.clear();
    }

    // --- bookkeeping ---

    /// Changes a stream, and the sum of all weights with it.
    fn change<T>(&mut self, no: StreamNo, change: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let stream = self.streams.get_mut(&no)?;
        let before = stream.weight();
        let changed = change(stream);
        let after = stream.weight();
        self.weight.awaited = self.weight.awaited - before.awaited + after.awaited;
        self.weight.kept = self.weight.kept - before.kept + after.kept;
        Some(changed)
    }

    fn remove(&mut self, no: StreamNo) -> Option<Stream> {
        let stream = self.streams.remove(&no)?;
        self.weight.awaited -= stream.weight().awaited;
        self.weight.kept -= stream.weight().kept;
        self.carriers.remove(&no);
        self.effects.wake.extend(stream.reader());
        Some(stream)
    }

    fn wake(&mut self, no: StreamNo) {
        self.effects.wake.extend(self.streams.get(&no).and_then(Stream::reader));
    }

    fn own(&self) -> &Stream {
        self.streams.get(&OWN).expect("it is there from the beginning and never removed")
    }

    fn next_reader(&mut self) -> Reader {
        self.last_reader += 1;
        Reader(self.last_reader)
    }
}

/// What a server says of itself, whatever calls are in progress.
fn is_own(method: &str) -> bool {
    method.ends_with("/list_changed")
        || matches!(
            method,
            "notifications/resources/updated"
                | "notifications/tasks/status"
                | "notifications/elicitation/complete"
        )
}

#[cfg(test)]
mod tests;
