//! Who reads a session's streams by GET. A stream has one reader: SDK servers answer 409 to a second
//! one, or let it wait for ever, until they have noticed that the first is gone, and a client that has
//! lost its connection can't make them notice. So here the newest reader gets the stream, and the one
//! before is *displaced*: its connection to the upstream is closed before the upstream is asked again.
//!
//! What becomes of a displaced client is its entry node's affair (`front::reattach`).

use super::Sessions;
use super::event_ids::Stream;
use super::table::InUse;
use crate::answer::{Answer, BodyStream, Broke, whole};
use crate::ask::Ask;
use crate::config::Upstream;
use crate::headers::{Changed, EVENT_STREAM};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body, Frame},
    header::{self},
};
use proto::wire::{Reason, Refusal};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Until an upstream has noticed a closed connection: some round trips, and a busy event loop's turn.
/// rmcp 3.9 gives who comes earlier a stream on which nothing ever comes.
const NOTICED_AFTER: Duration = Duration::from_millis(25);

/// A displaced reader's request is given so long to be answered before it is given up, and the next one
/// sent: the Python SDK takes both for the first where neither has been answered, and serves none.
const ANSWERED_TIME_MAX: Duration = Duration::from_millis(250);
/// An upstream that takes longer has another reader, which is not this node's: an owner that does not
/// know yet that it is over closes its connections within a lease and some (1.2 s), one that has
/// vanished is noticed by the upstream's own means or never.
const CONFLICT_TIME_MAX: Duration = Duration::from_secs(4);
/// Between two attempts, doubled from one to the next: 12 of them.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Sessions {
    /// Asks for a stream as its only reader. A displaced one gets a stream of which it reads nothing.
    pub(super) async fn ask_alone(
        &self,
        ask: &Ask,
        upstream: &Upstream,
        headers: Changed<'_>,
        reading: &mut Reading,
    ) -> Result<Answer, Refusal> {
        if let Err(why) = reading.await_turn().await {
            return not_read(why);
        }
        let asking = self.ask_until_free(ask, upstream, headers);
        tokio::pin!(asking);
        tokio::select! {
            biased;
            answer = &mut asking => answer,
            why = reading.over() => {
                if let Ok(Ok(_unread)) = tokio::time::timeout(ANSWERED_TIME_MAX, asking).await {
                    reading.note_closed();
                }
                not_read(why)
            }
        }
    }

    async fn ask_until_free(
        &self,
        ask: &Ask,
        upstream: &Upstream,
        headers: Changed<'_>,
    ) -> Result<Answer, Refusal> {
        let (begun, mut pause) = (Instant::now(), PAUSE_MIN);
        loop {
            let answer = self.send_leased(ask, upstream, headers.clone()).await?;
            if answer.status() != StatusCode::CONFLICT || begun.elapsed() + pause > CONFLICT_TIME_MAX {
                return Ok(answer);
            }
            drop(answer);
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(pause * 2);
        }
    }
}

fn not_read(why: Broke) -> Result<Answer, Refusal> {
    if why != Broke::Displaced {
        return Err(Refusal::not_run(Reason::Moved));
    }
    let mut answer = Answer::new(whole(Bytes::new()));
    answer.headers_mut().insert(header::CONTENT_TYPE, EVENT_STREAM);
    Ok(answer)
}

/// The readers of one session.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    readers: Vec<Arc<Reader>>,
    /// When the last of those that are gone was closed.
    closed: Option<Instant>,
    /// The session is not this node's any more.
    is_gone: bool,
}

/// One reader, from before its request is sent to the upstream.
#[derive(Debug)]
struct Reader {
    /// `None` where nobody knows which: it displaces nobody.
    stream: Option<Stream>,
    /// One for all readers of the stream that follow each other: they ask one after the other.
    turn: Arc<Semaphore>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The upstream's answer, once it is there. Not kept by who passes it on, because that may wait for a
    /// client that reads no more.
    body: Option<BodyStream>,
    ended: Option<Broke>,
    /// Whoever passes the answer on, or waits for it.
    waker: Option<Waker>,
}

/// The right to read. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Reading {
    readers: Arc<Readers>,
    reader: Arc<Reader>,
    /// Until the answer is there.
    turn: Option<OwnedSemaphorePermit>,
}

impl Readers {
    /// A new reader, in place of the one that the stream had. `None` if the session is gone.
    pub(super) fn admit(self: &Arc<Self>, stream: Option<Stream>) -> Option<Reading> {
        let mut listed = self.listed();
        if listed.is_gone {
            return None;
        }
        let before = listed.readers.iter().position(|other| stream.is_some() && other.stream == stream);
        let before = before.map(|at| listed.readers.swap_remove(at));
        if before.as_ref().is_some_and(|before| before.end(Broke::Displaced)) {
            listed.closed = Some(Instant::now());
        }
        let turn = before.map_or_else(|| Arc::new(Semaphore::new(1)), |before| before.turn.clone());
        let reader = Arc::new(Reader { stream, turn, state: Mutex::default() });
        listed.readers.push(reader.clone());
        Some(Reading { readers: self.clone(), reader, turn: None })
    }

    /// The session is not this node's any more: nor are its streams.
    pub(super) fn end(&self) {
        let mut listed = self.listed();
        listed.is_gone = true;
        for reader in std::mem::take(&mut listed.readers) {
            reader.end(Broke::Moved);
        }
    }

    /// Whether the session is not this node's any more.
    pub(super) fn are_gone(&self) -> bool {
        self.listed().is_gone
    }

    fn listed(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Closes the connection to the upstream; whether there was one.
    fn end(&self, why: Broke) -> bool {
        let mut state = self.state();
        state.ended.get_or_insert(why);
        let (body, waker) = (state.body.take(), state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        body.is_some()
    }

    /// The upstream's answer; given back where it is over already.
    fn give(&self, body: BodyStream) -> Option<BodyStream> {
        let mut state = self.state();
        match state.ended {
            Some(_) => Some(body),
            None => state.body.replace(body),
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Result<MutexGuard<'_, State>, Broke> {
        let mut state = self.state();
        if let Some(why) = state.ended {
            return Err(why);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Ok(state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reading {
    /// Resolves once the upstream can be asked with some hope.
    async fn await_turn(&mut self) -> Result<(), Broke> {
        let turn = self.reader.turn.clone().acquire_owned();
        self.turn = tokio::select! {
            biased;
            why = self.over() => return Err(why),
            turn = turn => turn.ok(), // it is never closed
        };
        if let Some(noticed) = self.noticed() {
            tokio::time::sleep_until(noticed).await;
        }
        Ok(())
    }

    /// When the upstream has noticed that those before are gone.
    fn noticed(&self) -> Option<Instant> {
        self.readers.listed().closed.map(|closed| closed + NOTICED_AFTER)
    }

    fn note_closed(&self) {
        self.readers.listed().closed = Some(Instant::now());
    }

    /// Resolves when it is over before the upstream has answered.
    async fn over(&self) -> Broke {
        poll_fn(|cx| self.reader.poll(cx).map_or_else(Poll::Ready, |_| Poll::Pending)).await
    }

    /// Whether what there is to read is not the upstream's answer.
    pub(super) fn is_over(&self) -> bool {
        self.reader.state().ended.is_some()
    }

    /// The upstream's answer as far as this is its reader.
    pub(super) fn read(mut self, body: BodyStream, in_use: InUse) -> BodyStream {
        if let Some(unread) = self.reader.give(body) {
            drop(unread);
            self.note_closed();
        }
        self.turn = None;
        // Notifications are read where the server's own are.
        let news_due = !matches!(self.reader.stream, Some(Stream::Call(_)));
        Read { reading: self, in_use, news_due }.boxed_unsync()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut listed = self.readers.listed();
        listed.readers.retain(|reader| !Arc::ptr_eq(reader, &self.reader));
        if self.reader.end(Broke::Client) {
            listed.closed = Some(Instant::now());
        }
    }
}

struct Read {
    reading: Reading,
    in_use: InUse,
    /// Ringway's own word to the client may have to come first. Looked for when somebody reads.
    news_due: bool,
}

impl Body for Read {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        let news_due = std::mem::take(&mut self.news_due);
        let mut state = match self.reading.reader.poll(cx) {
            Ok(state) => state,
            Err(why) => return Poll::Ready(Some(Err(why))),
        };
        if let Some(news) = news_due.then(|| self.in_use.live.take_news()).flatten() {
            return Poll::Ready(Some(Ok(Frame::data(news))));
        }
        match &mut state.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("ended", &self.ended).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::holding;
    use crate::ask::{Errand, Payload, Sent, tests::route};
    use crate::cluster::Cluster;
    use crate::config::{NewSessions, Protocol};
    use crate::headers::Headers;
    use crate::peer::{Bound, Peers};
    use crate::telemetry::Metrics;
    use hyper::Method;
    use hyper::header::HeaderValue;
    use proto::core::view::{Member, Phase};
    use proto::id::{
        Birth, ClusterSecret, Incarnation, NodeName, NodeRef, Nonce, Principal, SealKeys, SessionId, Tag,
    };
    use proto::wire::Nature;
    use std::net::SocketAddr;

    const CALL: Stream = Stream::Call(7);

    fn admit(readers: &Arc<Readers>, stream: Option<Stream>) -> Reading {
        readers.admit(stream).expect("the session is here")
    }

    /// Gives the reader an answer that holds something, for one to see when it is let go.
    fn answer(reading: &Reading) -> Arc<()> {
        let held = Arc::new(());
        assert!(reading.reader.give(holding(whole("x"), held.clone())).is_none(), "it is over");
        held
    }

    fn why(reading: &Reading) -> Option<Broke> {
        reading.reader.state().ended
    }

    #[tokio::test]
    async fn the_newest_reader_of_a_stream_displaces_the_one_before() {
        let readers = Arc::<Readers>::default();
        let (own, call, unknown) =
            (admit(&readers, Some(Stream::Own)), admit(&readers, Some(CALL)), admit(&readers, None));
        let held = answer(&own);
        let newer = admit(&readers, Some(Stream::Own));
        // Let go though nobody polls it: its client may have stopped reading.
        assert_eq!(Arc::strong_count(&held), 1);
        assert_eq!(own.over().await, Broke::Displaced);
        assert_eq!([&call, &unknown, &newer].map(why), [None; 3]);
        let _another_call = admit(&readers, Some(Stream::Call(8)));
        let _another = admit(&readers, None);
        assert_eq!([&call, &unknown, &newer].map(why), [None; 3]);
        let _resumed = admit(&readers, Some(CALL));
        assert_eq!(call.over().await, Broke::Displaced);
    }

    #[tokio::test]
    async fn the_upstream_is_given_time_to_notice_and_none_where_nobody_was() {
        let readers = Arc::<Readers>::default();
        let asks = admit(&readers, Some(Stream::Own));
        let newer = admit(&readers, Some(Stream::Own));
        assert!(asks.noticed().is_none() && newer.noticed().is_none(), "no connection was closed");
        let _held = answer(&newer);
        assert!(admit(&readers, Some(Stream::Own)).noticed().is_some());
        let left = admit(&readers, Some(CALL));
        let held = answer(&left);
        drop(left);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(admit(&readers, Some(CALL)).noticed().is_some());
    }

    #[tokio::test]
    async fn who_is_displaced_before_the_answer_comes_reads_nothing_of_it() {
        let readers = Arc::<Readers>::default();
        let mut first = admit(&readers, Some(Stream::Own));
        first.await_turn().await.expect("nobody is before it");
        let over = tokio::spawn(async move { (first.over().await, first) });
        tokio::task::yield_now().await;
        let mut newer = admit(&readers, Some(Stream::Own));
        let (why, first) = over.await.expect("it does not panic");
        assert_eq!(why, Broke::Displaced);
        assert!(first.reader.give(whole("x")).is_some());

        // The newer one asks when the first has been answered, unless it is displaced itself.
        let (mut waits, mut newest) = (Box::pin(newer.await_turn()), admit(&readers, Some(Stream::Own)));
        assert_eq!((&mut waits).await, Err(Broke::Displaced));
        let mut waits = Box::pin(newest.await_turn());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert_eq!(waits.await, Ok(()));
    }

    #[tokio::test]
    async fn a_session_that_goes_takes_its_streams_along() {
        let readers = Arc::<Readers>::default();
        let (own, call) = (admit(&readers, Some(Stream::Own)), admit(&readers, Some(CALL)));
        readers.end();
        assert_eq!((own.over().await, call.over().await), (Broke::Moved, Broke::Moved));
        assert!(readers.admit(None).is_none());
    }

    #[tokio::test]
    async fn who_is_displaced_before_it_could_ask_confirms_nothing() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let name: NodeName = "me".parse().expect("a plain name");
        let secrets = [ClusterSecret::from_entropy([1; 32])];
        let (bound, _inbox) = Bound::bind(any, &secrets, &name).expect("a free port");
        let (node, version) = (NodeRef { tag: Tag(1), inc: Incarnation(1) }, String::new());
        let me = Member { name, node, phase: Phase::Active, listen: any, peer: any, admin: any, version };
        let cluster = Arc::new(Cluster::new(&me, SealKeys::new(&secrets, "ringway")));
        let route = Arc::new(route(Protocol::Mcp, None));
        let metrics = Arc::new(Metrics::new());
        let sessions = Sessions::new(
            cluster,
            Peers::new(Arc::new(bound)),
            metrics,
            std::slice::from_ref(&route),
            &NewSessions::default(),
        );
        let sessions = Arc::new(sessions);

        let (minted_s, principal) = (0, Principal::ANYONE);
        let birth = Birth { minted_s, home: node, route: route.id, principal, upstream: None };
        let id = SessionId { nonce: Nonce([1; 12]), birth };
        let ask = Ask {
            route: route.clone(),
            errand: Errand::Session(Box::new(id.clone())),
            nature: Nature::Safe,
            uid: 1,
            sent: Sent::default(),
            caller: proto::wire::Caller::Anyone,
            method: Method::GET,
            target: "/x".to_owned(),
            headers: Headers::new(),
            body: Payload::Whole(Bytes::new()),
        };
        let record = sessions.record(&ask.route, &id, 2, b"{}");
        let place = sessions.place_at(&route, 0, HeaderValue::from_static("theirs"));
        sessions.table.find(node, record, route.clone(), Some(place));
        let live = sessions.table.take_up(id.nonce, false).expect("it is there").live.clone();

        let mut asks = admit(live.readers(), Some(Stream::Own));
        asks.await_turn().await.expect("nobody is before it");
        let mut waits = Box::pin(sessions.exchange(&ask, &id));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut cx).is_pending());
        let _newest = admit(live.readers(), Some(Stream::Own));
        let mut body = waits.await.expect("a stream").into_body();
        assert!(matches!(body.frame().await, Some(Err(Broke::Displaced))));
        assert!(live.may_be_forgotten(), "its upstream has said nothing");
    }
}
