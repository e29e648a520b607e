//! What is said to a client of HTTP+SSE: messages in their order, for the one stream that it reads. They
//! wait while the stream is being attached again, and those that may have been lost on their way to the
//! client's node are there to be read again.

use super::Listener;
use crate::answer::Broke;
use crate::mcp;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Messages that wait, and their length together: as much as one request may have. Whoever has more to
/// say waits, so that a client that reads slowly is spoken to slowly; one message alone may be longer.
const WAITING_MAX: u64 = 1_024;
const WAITING_LEN_MAX: usize = 4 * 1024 * 1024;
/// What has been read is kept in case it was lost: a connection between nodes that has broken is noticed
/// after 10 s of silence.
const KEPT_FOR: Duration = Duration::from_secs(15);
/// And no more than that of it: 10,000 clients that are all told something at once take 640 MiB.
const KEPT_LEN_MAX: usize = 64 * 1024;

#[derive(Debug)]
pub(in crate::sessions) struct Outbox {
    pub(super) listener: Listener,
    /// Which of the session's owners this is: the numbers of messages begin anew with each.
    epoch: u32,
    state: Mutex<State>,
    /// A message has come, or has been read.
    moved: Notify,
    /// The reader has come, or has gone.
    attended: Notify,
}

#[derive(Debug)]
struct State {
    /// Those that were read, as far as they are kept, and then those that wait.
    messages: VecDeque<Bytes>,
    /// The number of the first of them, and of the first that waits.
    first: u64,
    unread: u64,
    kept_len: usize,
    waiting_len: usize,
    /// How many readers there were; the last one is the one that counts.
    readers: u64,
    is_read: bool,
    /// When that changed.
    since: Instant,
    is_closed: bool,
}

/// What there is for a reader.
enum Look {
    /// With its number.
    Event(u64, Bytes),
    Nothing,
    /// There is a newer reader.
    Replaced,
    /// There is nothing more, and nothing more will come.
    Closed,
}

impl Outbox {
    pub(in crate::sessions) fn new(epoch: u32) -> Self {
        let state = State {
            messages: VecDeque::new(),
            first: 0,
            unread: 0,
            kept_len: 0,
            waiting_len: 0,
            readers: 0,
            is_read: false,
            since: Instant::now(),
            is_closed: false,
        };
        Self {
            listener: Listener::default(),
            epoch,
            state: Mutex::new(state),
            moved: Notify::new(),
            attended: Notify::new(),
        }
    }

    /// Says something, once there is room; whether it was said. It is not when the session ends meanwhile.
    pub(super) async fn put(&self, json: &Bytes) -> bool {
        loop {
            let mut moved = pin!(self.moved.notified());
            // From here on a notification counts, so none is missed between the look and the wait.
            moved.as_mut().enable();
            if self.try_put(json) {
                return true;
            }
            if self.is_closed() {
                return false;
            }
            moved.await;
        }
    }

    /// Says something if there is room.
    pub(super) fn try_put(&self, json: &Bytes) -> bool {
        let mut state = self.state();
        let waiting = state.end() - state.unread;
        let is_full = waiting >= WAITING_MAX || state.waiting_len + json.len() > WAITING_LEN_MAX;
        if state.is_closed || (is_full && waiting > 0) {
            return false;
        }
        let id = format!("id: {}.{}\n", self.epoch, state.end());
        let event = Bytes::from([id.as_bytes(), &mcp::event(&mcp::one_line(json.clone()))].concat());
        state.waiting_len += event.len();
        state.messages.push_back(event);
        drop(state);
        self.moved.notify_waiters();
        true
    }

    /// Everything that is said from now on, what waits, and what was said since the event with that id.
    pub(in crate::sessions) fn read(self: &Arc<Self>, after: Option<&str>) -> Reader {
        let mut state = self.state();
        state.readers += 1;
        state.attend(true);
        let known = after.and_then(|id| {
            let (epoch, number) = id.split_once('.')?;
            number.parse::<u64>().ok().filter(|_| epoch.parse() == Ok(self.epoch))
        });
        // A reader that has come before and had nothing knows no id, and gets all that is kept.
        let at = known.map_or(state.first, |number| number.saturating_add(1));
        let (at, serial) = (at.clamp(state.first, state.end()), state.readers);
        drop(state);
        self.attended.notify_waiters();
        self.moved.notify_waiters(); // the reader before this one is told
        Reader { outbox: self.clone(), serial, next: next(self.clone(), serial, at), has_ended: false }
    }

    /// Resolves when nobody has read for so long, or nobody ever will.
    pub(super) async fn unread(&self, time: Duration) {
        loop {
            let mut attended = pin!(self.attended.notified());
            attended.as_mut().enable();
            let (is_read, end) = {
                let state = self.state();
                if state.is_closed {
                    return;
                }
                (state.is_read, state.since + time)
            };
            if is_read {
                attended.await;
            } else if Instant::now() >= end {
                return;
            } else {
                let _ = tokio::time::timeout_at(end, attended).await;
            }
        }
    }

    /// Nothing more will be said from here. What waits may still be read.
    pub(in crate::sessions) fn close(&self) {
        self.state().is_closed = true;
        self.listener.leave_seat();
        self.moved.notify_waiters();
        self.attended.notify_waiters();
    }

    /// Resolves when nothing more will be said from here.
    pub(super) async fn closed(&self) {
        loop {
            let mut attended = pin!(self.attended.notified());
            attended.as_mut().enable();
            if self.is_closed() {
                return;
            }
            attended.await;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Whether somebody listens, who may have nothing to say for hours.
    pub(in crate::sessions) fn is_read(&self) -> bool {
        self.state().is_read
    }

    fn look(&self, serial: u64, at: u64) -> Look {
        let mut state = self.state();
        if state.readers != serial {
            return Look::Replaced;
        }
        // What was kept has been given up meanwhile, which happens to what was read only.
        let at = at.max(state.first);
        let Some(event) = state.messages.get((at - state.first) as usize).cloned() else {
            return if state.is_closed { Look::Closed } else { Look::Nothing };
        };
        if at == state.unread {
            state.unread += 1;
            state.waiting_len -= event.len();
            state.kept_len += event.len();
            state.keep_at_most(KEPT_LEN_MAX);
        }
        drop(state);
        self.moved.notify_waiters(); // there may be room
        Look::Event(at, event)
    }

    /// Whether there is anything that was read already.
    fn keeps(&self) -> bool {
        self.state().kept_len > 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number of the next message.
    fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    fn keep_at_most(&mut self, len_max: usize) {
        while self.kept_len > len_max && self.first < self.unread {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.kept_len -= oldest.len();
            self.first += 1;
        }
        if self.messages.is_empty() {
            self.messages.shrink_to_fit();
        }
    }

    fn attend(&mut self, is_read: bool) {
        (self.is_read, self.since) = (is_read, Instant::now());
    }
}

type Next = Pin<Box<dyn Future<Output = Look> + Send>>;

/// Waits for what comes after the messages before that number.
fn next(outbox: Arc<Outbox>, serial: u64, at: u64) -> Next {
    Box::pin(async move {
        loop {
            let mut moved = pin!(outbox.moved.notified());
            moved.as_mut().enable();
            match outbox.look(serial, at) {
                Look::Nothing => {}
                look @ (Look::Event(..) | Look::Replaced | Look::Closed) => return look,
            }
            if !outbox.keeps() {
                moved.await;
            } else if tokio::time::timeout(KEPT_FOR, moved).await.is_err() {
                outbox.state().keep_at_most(0);
            }
        }
    })
}

/// The stream of events that the client reads.
pub(in crate::sessions) struct Reader {
    outbox: Arc<Outbox>,
    serial: u64,
    next: Next,
    has_ended: bool,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let look = ready!(self.next.as_mut().poll(cx));
        Poll::Ready(match look {
            Look::Event(number, event) => {
                self.next = next(self.outbox.clone(), self.serial, number + 1);
                Some(Ok(Frame::data(event)))
            }
            Look::Closed => {
                self.has_ended = true;
                Some(Err(Broke::Moved))
            }
            Look::Nothing | Look::Replaced => {
                self.has_ended = true;
                None
            }
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.outbox.state();
        if state.readers == self.serial {
            state.attend(false);
            drop(state);
            self.outbox.attended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn read(reader: &mut Reader) -> Option<String> {
        let frame = tokio::time::timeout(Duration::from_secs(1), reader.frame()).await.ok()??;
        let event = frame.expect("it is open").into_data().expect("data");
        Some(String::from_utf8(event.to_vec()).expect("text"))
    }

    fn event(number: u64, json: &str) -> Option<String> {
        Some(format!("id: 2.{number}\nevent: message\ndata: {json}\n\n"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_lost_is_read_again_and_nothing_else() {
        let outbox = Arc::new(Outbox::new(2));
        assert!(outbox.put(&"1".into()).await); // before anybody reads
        let mut reader = outbox.read(None);
        assert_eq!(read(&mut reader).await, event(0, "1"));
        assert!(outbox.put(&"{\n}".into()).await);
        assert!(outbox.put(&"3".into()).await);
        assert_eq!(read(&mut reader).await, event(1, "{ }"));
        for (after, first) in [
            (Some("2.0"), event(1, "{ }")),
            (Some("2.1"), event(2, "3")),
            (Some("2.2"), None),
            (None, event(0, "1")),
            (Some("1.2"), event(0, "1")), // another owner's
            (Some("nonsense"), event(0, "1")),
            (Some("2.99"), None),
        ] {
            assert_eq!(read(&mut outbox.read(after)).await, first, "after {after:?}");
        }
        let mut reader = outbox.read(Some("2.2"));
        assert_eq!(read(&mut reader).await, None);
        tokio::time::advance(KEPT_FOR).await;
        assert_eq!(read(&mut reader).await, None);
        assert_eq!(read(&mut outbox.read(None)).await, None, "it was kept for too long");
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_reader_is_the_only_one() {
        let outbox = Arc::new(Outbox::new(2));
        let mut old = outbox.read(None);
        let mut new = outbox.read(None);
        assert!(outbox.put(&"1".into()).await);
        assert!(old.frame().await.is_none());
        drop(old);
        assert_eq!(read(&mut new).await, event(0, "1"));
        let unread = tokio::time::timeout(KEPT_FOR, outbox.unread(Duration::ZERO));
        assert!(unread.await.is_err(), "the old reader's end is not the new one's");
        drop(new);
        outbox.unread(KEPT_FOR).await;
        outbox.close();
        outbox.unread(Duration::MAX / 4).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_too_much_to_say_waits() {
        let outbox = Arc::new(Outbox::new(2));
        let long = Bytes::from(vec![b'1'; WAITING_LEN_MAX + 1]);
        assert!(outbox.try_put(&long), "one message alone may be longer");
        assert!(!outbox.try_put(&"2".into()));
        let saying = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.put(&"2".into()).await }
        });
        let mut reader = outbox.read(None);
        assert_eq!(read(&mut reader).await.map(|event| event.len() > WAITING_LEN_MAX), Some(true));
        assert_eq!(read(&mut reader).await, event(1, "2"));
        assert!(saying.await.expect("it does not panic"), "it has been said");
        assert!(!outbox.keeps() || outbox.state().kept_len <= KEPT_LEN_MAX);
        for _ in 0..WAITING_MAX {
            assert!(outbox.try_put(&"3".into()));
        }
        assert!(!outbox.try_put(&"3".into()));
        outbox.close();
        assert!(!outbox.put(&"4".into()).await, "nobody will hear it, and nobody waits");
        assert_eq!(read(&mut reader).await, event(2, "3"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_read_before_the_session_goes_elsewhere() {
        let outbox = Arc::new(Outbox::new(2));
        let mut reader = outbox.read(None);
        assert!(outbox.put(&"1".into()).await);
        outbox.close();
        assert_eq!(read(&mut reader).await, event(0, "1"));
        let end = reader.frame().await.expect("it says why");
        assert!(matches!(end, Err(Broke::Moved)));
        assert!(reader.frame().await.is_none());
    }
}
