//! One stream of a bridged session: the messages that belong to it, as far as they are still kept,
//! and how far its reader has come. Pure.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;
use std::{collections::VecDeque, time::Instant};

/// A message up to this size is copied together with what frames it: one small piece on the way to the
/// client instead of three. It also lets go of the larger buffer that it may be a piece of.
const COPIED_LEN_MAX: usize = 16 * 1024;
/// What an event takes beside its text: its entry here (72 bytes), the text's allocation (32), and the
/// stream around it, which often has one event only.
const EVENT_COST: usize = 256;

/// The number of a stream in its session. Numbers are never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamNo(pub(super) u64);

/// The stream that belongs to no call: the server's own.
pub(super) const OWN: StreamNo = StreamNo(0);

/// Who reads a stream. A later reader has a greater number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reader(pub(super) u64);

/// How a client takes its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Events,
    /// Nothing but the responses themselves, and no second time.
    Json,
}

/// The id of an event: it names the session, the stream, and the event's place in it. A client whose
/// session was begun anew comes with ids of the one before, and would be given the wrong events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventId {
    pub(super) session: u32,
    pub(super) stream: StreamNo,
    pub(super) seq: u64,
}

impl EventId {
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let (session, place) = std::str::from_utf8(text).ok()?.split_once('-')?;
        let (stream, seq) = place.split_once('-')?;
        Some(Self {
            session: u32::from_str_radix(session, 16).ok()?,
            stream: StreamNo(stream.parse().ok()?),
            seq: seq.parse().ok()?,
        })
    }
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}-{}", self.session, self.stream.0, self.seq)
    }
}

/// A message as it is written to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Whole(Bytes),
    /// A long message with what begins its event; [`EVENT_END`] follows.
    Parts {
        begin: Bytes,
        message: Bytes,
    },
}

pub(super) const EVENT_END: Bytes = Bytes::from_static(b"\n\n");

impl Text {
    fn new(form: Form, id: EventId, message: Bytes) -> Self {
        let begin = match form {
            Form::Events => format!("event: message\nid: {id}\ndata: "),
            Form::Json if message.len() > COPIED_LEN_MAX => return Self::Whole(message),
            Form::Json => return Self::Whole(Bytes::copy_from_slice(&message)),
        };
        if message.len() > COPIED_LEN_MAX {
            return Self::Parts { begin: begin.into(), message };
        }
        let mut event = BytesMut::with_capacity(begin.len() + message.len() + EVENT_END.len());
        event.put_slice(begin.as_bytes());
        event.put_slice(&message);
        event.put_slice(&EVENT_END);
        Self::Whole(event.freeze())
    }

    fn len(&self) -> usize {
        match self {
            Self::Whole(text) => text.len(),
            Self::Parts { begin, message } => begin.len() + message.len() + EVENT_END.len(),
        }
    }
}

#[derive(Debug)]
struct Event {
    seq: u64,
    text: Text,
    /// The request of the server's that it carries.
    asks: Option<Box<RawValue>>,
}

impl Event {
    fn cost(&self) -> usize {
        self.text.len() + EVENT_COST
    }
}

/// What a stream holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// For a reader that is there and has yet to take it.
    pub(super) awaited: usize,
    /// For one that may come, first or again.
    pub(super) kept: usize,
}

/// What has become of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// All that will ever be on it is here.
    Ended,
    /// The server is gone and owes answers.
    Broken,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Event(Text),
    /// Nothing as yet.
    Nothing,
    End,
    Broken,
}

#[derive(Debug)]
pub(super) struct Stream {
    session: u32,
    no: StreamNo,
    pub(super) form: Form,
    /// Of the requests that it answers.
    pub(super) calls: Vec<Box<RawValue>>,
    /// How many of them have no answer yet; one more while there may come more of them.
    pub(super) owes: usize,
    /// In their order; some may be missing.
    events: VecDeque<Event>,
    /// Of the event that was added last, and of the one that was read last.
    last: u64,
    read: u64,
    cost: usize,
    unread_cost: usize,
    phase: Phase,
    reader: Option<Reader>,
    /// When something was read, or could be read first.
    touched: Instant,
}

impl Stream {
    pub(super) fn new(session: u32, no: StreamNo, form: Form, reader: Option<Reader>, now: Instant) -> Self {
        Self {
            session,
            no,
            form,
            calls: Vec::new(),
            owes: 1,
            events: VecDeque::new(),
            last: 0,
            read: 0,
            cost: 0,
            unread_cost: 0,
            phase: Phase::Open,
            reader,
            touched: now,
        }
    }

    pub(super) fn no(&self) -> StreamNo {
        self.no
    }

    pub(super) fn reader(&self) -> Option<Reader> {
        self.reader
    }

    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn weight(&self) -> Weight {
        match self.reader {
            Some(_) => Weight { awaited: self.unread_cost, kept: self.cost - self.unread_cost },
            None => Weight { awaited: 0, kept: self.cost },
        }
    }

    /// What has been read and can still be replayed.
    pub(super) fn read_cost(&self) -> usize {
        self.cost - self.unread_cost
    }

    pub(super) fn unread_cost(&self) -> usize {
        self.unread_cost
    }

    pub(super) fn last_id(&self) -> EventId {
        EventId { session: self.session, stream: self.no, seq: self.last }
    }

    /// Where a reader stands that has read what was read.
    pub(super) fn read_id(&self) -> EventId {
        EventId { session: self.session, stream: self.no, seq: self.read }
    }

    /// Since when its reader has taken nothing, though there is something.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        (self.reader.is_some() && self.unread_cost > 0).then_some(self.touched)
    }

    /// Since when nothing has been read on, where something that was read is kept.
    pub(super) fn rests_since(&self) -> Option<Instant> {
        (self.read_cost() > 0).then_some(self.touched)
    }

    pub(super) fn push(&mut self, message: Bytes, asks: Option<Box<RawValue>>, now: Instant) {
        if self.unread_cost == 0 {
            self.touched = now;
        }
        self.last += 1;
        let event = Event { seq: self.last, text: Text::new(self.form, self.last_id(), message), asks };
        self.cost += event.cost();
        self.unread_cost += event.cost();
        self.events.push_back(event);
    }

    /// What an event with this message would weigh.
    pub(super) fn cost_of(message: &Bytes) -> usize {
        message.len() + EVENT_COST
    }

    pub(super) fn take(&mut self, now: Instant) -> Next {
        let at = self.events.partition_point(|event| event.seq <= self.read);
        let Some(event) = self.events.get(at) else {
            return match self.phase {
                Phase::Open => Next::Nothing,
                Phase::Ended => Next::End,
                Phase::Broken => Next::Broken,
            };
        };
        self.read = event.seq;
        self.unread_cost -= event.cost();
        self.touched = now;
        let text = event.text.clone();
        if self.form == Form::Json {
            self.forget_read();
        }
        Next::Event(text)
    }

    pub(super) fn end(&mut self) {
        self.phase = Phase::Ended;
    }

    pub(super) fn break_off(&mut self) {
        self.phase = Phase::Broken;
    }

    /// Whether there is, or will be, something after this event.
    pub(super) fn goes_on_after(&self, seq: u64) -> bool {
        self.phase != Phase::Ended || self.events.back().is_some_and(|event| event.seq > seq)
    }

    /// `reader` reads from now on; after `seq`, or else where the last one stood.
    pub(super) fn attach(&mut self, reader: Reader, after: Option<u64>, now: Instant) -> Option<Reader> {
        if let Some(seq) = after {
            self.read = seq.min(self.last);
            self.unread_cost =
                self.events.iter().filter(|event| event.seq > self.read).map(Event::cost).sum();
        }
        self.touched = now;
        self.reader.replace(reader)
    }

    /// Its reader has gone, unless another has taken its place.
    pub(super) fn detach(&mut self, reader: Reader) {
        self.reader.take_if(|current| *current == reader);
    }

    /// Drops what was read.
    pub(super) fn forget_read(&mut self) {
        let read = self.events.partition_point(|event| event.seq <= self.read);
        self.cost -= self.events.drain(..read).map(|event| event.cost()).sum::<usize>();
    }

    /// Drops what was not read. Gives the requests of the server's in it.
    pub(super) fn forget_unread(&mut self) -> impl Iterator<Item = Box<RawValue>> {
        let read = self.events.partition_point(|event| event.seq <= self.read);
        self.cost -= self.unread_cost;
        self.unread_cost = 0;
        self.events.split_off(read).into_iter().filter_map(|event| event.asks)
    }

    /// Drops the oldest unread notification. Says whether there was one.
    pub(super) fn forget_notification(&mut self) -> bool {
        let found = self.events.iter().position(|event| event.seq > self.read && event.asks.is_none());
        let Some(event) = found.and_then(|at| self.events.remove(at)) else { return false };
        self.cost -= event.cost();
        self.unread_cost -= event.cost();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Stream {
        Stream::new(0xab, StreamNo(3), Form::Events, Some(Reader(1)), Instant::now())
    }

    fn push(stream: &mut Stream, message: &'static str) {
        stream.push(Bytes::from_static(message.as_bytes()), None, Instant::now());
    }

    fn read(stream: &mut Stream) -> String {
        match stream.take(Instant::now()) {
            Next::Event(Text::Whole(text)) => String::from_utf8(text.to_vec()).expect("text"),
            Next::Event(Text::Parts { message, .. }) => format!("{} bytes", message.len()),
            next @ (Next::Nothing | Next::End | Next::Broken) => format!("{next:?}"),
        }
    }

    #[test]
    fn an_event_names_its_stream_and_its_place() {
        let mut stream = stream();
        push(&mut stream, "{}");
        assert_eq!(read(&mut stream), "event: message\nid: ab-3-1\ndata: {}\n\n");
        for (text, id) in [
            ("ab-3-1", Some((3, 1))),
            ("ab-0-0", Some((0, 0))),
            ("rw1.ab-3-1", None),
            ("3-1", None),
            ("ab-3-x", None),
            ("", None),
        ] {
            let expected = id.map(|(stream, seq)| EventId { session: 0xab, stream: StreamNo(stream), seq });
            assert_eq!(EventId::read(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn a_reader_goes_on_where_the_last_one_stood_or_where_it_asks() {
        let mut stream = stream();
        for message in ["1", "2", "3"] {
            push(&mut stream, message);
        }
        read(&mut stream);
        stream.detach(Reader(1));
        assert_eq!(stream.attach(Reader(2), None, Instant::now()), None);
        assert!(read(&mut stream).contains("data: 2"));
        assert_eq!(stream.attach(Reader(3), Some(0), Instant::now()), Some(Reader(2)));
        stream.detach(Reader(2)); // late
        assert_eq!(stream.reader(), Some(Reader(3)));
        for message in ["1", "2", "3"] {
            assert!(read(&mut stream).contains(&format!("data: {message}")));
        }
        assert_eq!(read(&mut stream), "Nothing");
        stream.end();
        assert_eq!(read(&mut stream), "End");
        assert!(stream.goes_on_after(2) && !stream.goes_on_after(3));
    }

    #[test]
    fn weights_follow_what_is_read_kept_and_dropped() {
        let mut stream = stream();
        push(&mut stream, "1");
        push(&mut stream, "2");
        let each = stream.weight().awaited / 2;
        read(&mut stream);
        assert_eq!(stream.weight(), Weight { awaited: each, kept: each });
        stream.detach(Reader(1));
        assert_eq!(stream.weight(), Weight { awaited: 0, kept: 2 * each });
        stream.forget_read();
        assert_eq!(stream.weight().kept, each);
        assert!(stream.forget_notification() && !stream.forget_notification());
        push(&mut stream, "3");
        assert_eq!(stream.forget_unread().count(), 0);
        assert_eq!(stream.weight(), Weight::default());
    }

    #[test]
    fn a_long_message_is_not_copied() {
        let mut stream = stream();
        let message = Bytes::from(vec![b' '; 1024 * 1024]);
        stream.push(message.clone(), None, Instant::now());
        let Next::Event(Text::Parts { message: passed, begin }) = stream.take(Instant::now()) else {
            panic!("in parts")
        };
        assert_eq!(
            (passed.as_ptr(), &begin[..]),
            (message.as_ptr(), &b"event: message\nid: ab-3-1\ndata: "[..])
        );
    }
}
