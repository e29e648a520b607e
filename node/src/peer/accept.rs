//! This node as the owner: what other nodes ask of it.

use super::{
    calls::{Begun, Call, Calls, Done, KEPT_LEN_MAX},
    endpoint::{Bound, CALLS_MAX, CONTROL_MAX, STREAMS_MAX, close, distrusted, shown_on},
    forward::headers,
    frames::{Frame, FrameError, Reader, Writer},
    gossip::{self, Heard},
    strangers::{At, Place},
};
use crate::answer::{Answer, BodyStream, Head};
use crate::ask::{self, Ask, Errand, Payload, Sent};
use crate::config::{CLUSTER, Protocol, Route};
use crate::everywhere;
use crate::headers::let_go;
use crate::journey::{Journey, NoAnswer};
use crate::mcp;
use crate::telemetry::{Kind as SpanKind, TRACEPARENT};
use crate::upgraded;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, StatusCode};
use proto::core::route::Hop;
use proto::id::Tag;
use proto::wire::{
    self, CloseCode, CodecError, Count, End, EndAnswer, Explain, Give, Hello, HelloAck, Keep, Kept, Kind,
    Lane, List, Message, Nature, News, NotHere, NotHereWhy, Reason, Recall, Recalled, Refusal, StreamCode,
    Taken, codec,
};
use quinn::{Connection, ConnectionError, Incoming, RecvStream, SendStream, StoppedError, VarInt};
use serde::Serialize;
use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A peer proves the secret at once and greets as soon as it is connected; one that does not is no peer.
pub(super) const GREETING_TIME: Duration = Duration::from_secs(2);

/// Serves the requests of peers.
#[derive(Debug)]
pub(crate) struct Acceptor {
    pub(crate) bound: Arc<Bound>,
    pub(crate) journey: Arc<Journey>,
    pub(crate) routes: Vec<Arc<Route>>,
    /// Where gossip's messages go, with the address of who sent them.
    pub(crate) gossip: mpsc::Sender<(SocketAddr, Bytes)>,
    /// The requests in progress, for a drain to wait for.
    pub(crate) requests: TaskTracker,
    /// When the node leaves: streams that would never end are ended.
    pub(crate) leaving: CancellationToken,
    calls: Arc<Calls>,
}

impl Acceptor {
    pub(crate) fn new(
        bound: Arc<Bound>,
        journey: Arc<Journey>,
        routes: Vec<Arc<Route>>,
        gossip: mpsc::Sender<(SocketAddr, Bytes)>,
        leaving: CancellationToken,
    ) -> Self {
        let (requests, calls) = (TaskTracker::new(), Arc::default());
        Self { bound, journey, routes, gossip, requests, leaving, calls }
    }

    /// Accepts connections until the endpoint is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Some(incoming) = self.bound.endpoint.accept().await {
            if let Some((incoming, unproved)) = self.bound.strangers.admit(incoming) {
                tokio::spawn(self.clone().connection(incoming, unproved));
            }
        }
    }

    async fn connection(self: Arc<Self>, incoming: Incoming, unproved: Place) {
        let from = incoming.remote_address();
        // A handshake that fails is somebody without the secret, or a network that lost it.
        let connection = match tokio::time::timeout(GREETING_TIME, incoming.into_future()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                if is_refusal(&error) {
                    self.bound.strangers.note(At::Connection, from);
                }
                return tracing::debug!(%from, %error, "no handshake");
            }
            Err(_) => return tracing::debug!(%from, "no handshake in time"),
        };
        let hello = match tokio::time::timeout(GREETING_TIME, self.greet(&connection)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "a peer that does not greet");
                return close(&connection, CloseCode::BadHello, "greeting expected");
            }
            Err(_) => return close(&connection, CloseCode::BadHello, "no greeting"),
        };
        drop(unproved);
        let streams = match hello.lane {
            Lane::Control => CONTROL_MAX,
            Lane::Calls => CALLS_MAX,
            Lane::Streams => STREAMS_MAX,
        };
        connection.set_max_concurrent_bi_streams(VarInt::try_from(streams).expect("a small number"));
        let (peer, credentials) = (shown_on(&connection), self.bound.credentials_until_changed());
        tokio::select! {
            _ = async { tokio::join!(self.requests(&connection), self.messages(&connection, &hello)) } => {}
            () = distrusted(credentials, &peer) => {
                tracing::info!(%from, name = %hello.name, "a connection is closed that was proved by a removed secret");
                close(&connection, CloseCode::OldSecret, "a removed secret");
            }
        }
    }

    async fn greet(&self, connection: &Connection) -> Result<Hello, FrameError> {
        let (send, recv) = connection.accept_bi().await.map_err(|_| FrameError::Short)?;
        let hello = Reader::new(recv).frame().await?.read::<Hello>()?;
        let world = self.journey.cluster.world();
        let known = world.view.by_tag(Tag::of(CLUSTER, &hello.name)).map_or(0, |member| member.node.inc.0);
        let me = self.bound.greeting();
        let mut writer = Writer::new(send, StreamCode::Malformed);
        writer.message(&HelloAck { name: me.name, node: me.node, known_inc: known }).await?;
        writer.finish();
        Ok(hello)
    }

    async fn requests(self: &Arc<Self>, connection: &Connection) {
        while let Ok((send, recv)) = connection.accept_bi().await {
            self.requests.spawn(self.clone().request(send, recv));
        }
    }

    async fn messages(&self, connection: &Connection, hello: &Hello) {
        while let Ok(stream) = connection.accept_uni().await {
            match gossip::receive(stream).await {
                // A full inbox drops it, as a network would.
                Ok(Heard::Gossip(message)) => drop(self.gossip.try_send((hello.advertise, message))),
                Ok(Heard::News(frame)) => match frame.read::<News<'_>>() {
                    Ok(news) if news.by == hello.name => self.journey.events.hear(&news),
                    Ok(_) | Err(_) => tracing::debug!(by = %hello.name, "news that can't be read"),
                },
                Err(_) => {}
            }
        }
    }

    async fn request(self: Arc<Self>, send: SendStream, recv: RecvStream) {
        let writer = Writer::new(send, StreamCode::UpstreamBroke);
        let mut reader = Reader::new(recv);
        let read = match reader.frame().await {
            Ok(frame) if frame.kind == Kind::Forward => match frame.read::<wire::Forward<'_>>() {
                Ok(forward) => self.read_ask(&forward, &frame, reader).await,
                Err(error) => Err(error),
            },
            Ok(frame) => match self.question(&frame, writer).await {
                Ok(()) => return,
                Err((error, writer)) => {
                    tracing::debug!(%error, "a question that can't be read");
                    return writer.give_up(StreamCode::Malformed);
                }
            },
            Err(error) => Err(error),
        };
        match read {
            Ok(Ok((mut ask, hop, copies))) => {
                let span = self.journey.metrics.traces.child(
                    ask.headers.get_all(TRACEPARENT),
                    SpanKind::Server,
                    "serve",
                );
                if let Some(span) = &span {
                    span.put_into(&mut ask.headers);
                }
                self.serve(&ask, hop, copies, writer).await;
                drop(span);
            }
            Ok(Err(no_answer)) => write_no_answer(writer, &no_answer).await,
            Err(error) => {
                tracing::debug!(%error, "a request that can't be read");
                writer.give_up(StreamCode::Malformed);
            }
        }
    }

    /// What is answered in one message.
    async fn question(&self, frame: &Frame, writer: Writer) -> Result<(), (FrameError, Writer)> {
        let sessions = &self.journey.sessions;
        match frame.kind {
            Kind::Keep => match frame.read::<Keep>() {
                Ok(keep) if sessions.keep(&keep) => answer_once(writer, &Kept {}).await,
                Ok(_) => writer.give_up(StreamCode::Malformed),
                Err(error) => return Err((error, writer)),
            },
            Kind::Give => match frame.read::<Give>() {
                Ok(give) if sessions.take(&give) => answer_once(writer, &Taken {}).await,
                Ok(_) => writer.give_up(StreamCode::Malformed),
                Err(error) => return Err((error, writer)),
            },
            Kind::Recall => match frame.read::<Recall>() {
                Ok(recall) => {
                    answer_once(writer, &Recalled { item: sessions.recall_copy(recall.nonce) }).await;
                }
                Err(error) => return Err((error, writer)),
            },
            Kind::List => match frame.read::<List>() {
                Ok(list) => answer_once(writer, &sessions.list(list)).await,
                Err(error) => return Err((error, writer)),
            },
            Kind::Explain => match frame.read::<Explain>() {
                Ok(explain) => answer_once(writer, &sessions.explain(explain.nonce)).await,
                Err(error) => return Err((error, writer)),
            },
            Kind::Count => match frame.read::<Count>() {
                Ok(Count {}) => answer_once(writer, &everywhere::count(&self.journey)).await,
                Err(error) => return Err((error, writer)),
            },
            Kind::End => match frame.read::<End>() {
                Ok(end) => {
                    let outcome = everywhere::end_here(&self.journey, end).await;
                    answer_once(writer, &EndAnswer { outcome }).await;
                }
                Err(error) => return Err((error, writer)),
            },
            Kind::Hello
            | Kind::HelloAck
            | Kind::Gossip
            | Kind::Forward
            | Kind::Answer
            | Kind::NotHere
            | Kind::Refused
            | Kind::Note
            | Kind::Kept
            | Kind::Taken
            | Kind::Recalled
            | Kind::Listed
            | Kind::Explained
            | Kind::EndAnswer
            | Kind::Counted
            | Kind::News => return Err((FrameError::Codec(CodecError::Unexpected(frame.kind)), writer)),
        }
        Ok(())
    }

    /// The ask, or why this node does not even try.
    async fn read_ask(
        &self,
        forward: &wire::Forward<'_>,
        frame: &Frame,
        mut reader: Reader,
    ) -> Result<Result<(Ask, Hop, u8), NoAnswer>, FrameError> {
        let Some(route) = self.routes.iter().find(|route| route.id == forward.route) else {
            return Ok(Err(NoAnswer::NotHere(NotHere { hint: None, why: NotHereWhy::NoRoute })));
        };
        let is_told = route.auth.is_none() || matches!(forward.caller, wire::Caller::Known(_));
        if !is_told && forward.errand != wire::Errand::Session {
            // At the entry node that route asks nobody who calls. Sessions say for themselves whose they are.
            return Ok(Err(NoAnswer::NotHere(NotHere { hint: None, why: NotHereWhy::NoRoute })));
        }
        let cluster = &self.journey.cluster;
        let mut headers = headers(&forward.headers, frame);
        if forward.method == Method::GET.as_str() || forward.nature == Nature::Listens {
            let_go(&mut headers); // it may stand for hours, and would keep whole packets
        }
        let is_upgrade = upgraded::is_wished(headers.iter());
        let body = match route.protocol {
            Protocol::Mcp => Payload::Whole(reader.rest(route.body_len_max).await?),
            // It begins once the upgrade is granted.
            Protocol::Http if is_upgrade => Payload::passing(reader.into_body(None)),
            Protocol::Http => reader.into_payload().await?,
        };
        let errand = match forward.errand {
            wire::Errand::Open => Errand::Open,
            wire::Errand::Session => match ask::session(route, &headers, &cluster.seal(), forward.caller) {
                Ok(id) => Errand::Session(Box::new(id)),
                Err(why) => return Ok(Err(NoAnswer::Refused(Refusal::Gone(why)))),
            },
            wire::Errand::Key => ask::keyed_errand(route, forward.target, &headers, forward.caller),
            wire::Errand::Pinned => {
                let Payload::Whole(body) = &body else { return Err(FrameError::Short) };
                let seal = cluster.seal();
                let keys = (&*seal, forward.caller);
                let pinned = ask::pinned_errand(route, forward.target, &headers, body, keys);
                let unknown = NotHere { hint: None, why: NotHereWhy::NotMine };
                let Some(errand) = pinned else { return Ok(Err(NoAnswer::NotHere(unknown))) };
                errand
            }
        };
        let ask = Ask {
            route: route.clone(),
            errand,
            nature: forward.nature,
            uid: forward.uid,
            sent: Sent::elsewhere(forward.may_have_run),
            caller: forward.caller,
            method: Method::from_bytes(forward.method.as_bytes()).map_err(|_| FrameError::Short)?,
            target: forward.target.to_owned(),
            headers,
            body,
        };
        let same_view = cluster.world().view.fingerprint() == forward.view;
        Ok(Ok((ask, Hop::Forwarded { same_view }, forward.copies)))
    }

    async fn serve(&self, ask: &Ask, hop: Hop, copies: u8, writer: Writer) {
        let may_be_lost = matches!(ask.errand, Errand::Session(_)) && ask.nature == Nature::Unsafe;
        if may_be_lost {
            return match self.calls.begin(ask.uid, copies) {
                Begun::New(call) => self.serve_once(ask, hop, call, writer).await,
                Begun::Before(outcome) => answer_again(outcome, writer).await,
                Begun::Late => writer.give_up(StreamCode::Malformed),
            };
        }
        let outcome = tokio::select! {
            // A request that was given up before it was read whole must not begin.
            biased;
            stopped = writer.stopped() => return given_up(stopped),
            outcome = self.journey.run(ask, hop) => outcome,
        };
        match outcome {
            Ok(answer) => self.write_answer(answer, ask, writer).await,
            Err(no_answer) => write_no_answer(writer, &no_answer).await,
        }
    }

    /// A call that must not run twice. It goes on when the hop breaks: the entry node will ask for it
    /// again. When its client goes away it ends.
    async fn serve_once(&self, ask: &Ask, hop: Hop, call: Call, mut writer: Writer) {
        let mut stopped = Box::pin(writer.stopped());
        let mut hop_broke = false;
        let running = self.journey.run(ask, hop);
        tokio::pin!(running);
        let outcome = loop {
            tokio::select! {
                biased;
                gone = &mut stopped, if !hop_broke => match gone {
                    Ok(Some(_)) => return given_up(gone),
                    Ok(None) | Err(_) => hop_broke = true,
                },
                outcome = &mut running => break outcome,
            }
        };
        let answer = match outcome {
            Ok(answer) => answer,
            Err(no_answer) => {
                match no_answer.may_have_run() {
                    true => call.undelivered(Done::Lost),
                    // Forgotten before that is said: whoever is told may ask again at once.
                    false => call.refused(),
                }
                return write_no_answer(writer, &no_answer).await;
            }
        };
        let is_resumable = mcp::is_event_stream(answer.headers());
        let (head, mut body) = answer.into_parts();
        let Ok(frame) = self.head_frame(&head) else {
            call.undelivered(Done::Lost);
            return writer.give_up(StreamCode::Malformed);
        };
        drop(head);
        hop_broke |= writer.chunk(frame.clone()).await.is_err();
        let (mut kept, mut kept_len) = (Vec::new(), 0);
        loop {
            if hop_broke && is_resumable && kept_len > 0 {
                // Its entry node asks for the rest by the last event's id, of which some upstreams make
                // one reader wait for the other.
                return call.undelivered(Done::Lost);
            }
            let next = tokio::select! {
                biased;
                gone = &mut stopped, if !hop_broke => match gone {
                    Ok(Some(_)) => return given_up(gone),
                    Ok(None) | Err(_) => {
                        hop_broke = true;
                        continue;
                    }
                },
                next = body.frame() => next,
            };
            match next {
                Some(Ok(piece)) => {
                    let Ok(bytes) = piece.into_data() else { continue };
                    kept_len += bytes.len();
                    if kept_len <= KEPT_LEN_MAX {
                        kept.push(bytes.clone());
                    }
                    hop_broke = hop_broke || writer.chunk(bytes).await.is_err();
                }
                Some(Err(_)) => return call.undelivered(Done::Lost), // and the writer says so, dropped
                None => break,
            }
        }
        if hop_broke || !writer.deliver().await {
            let whole = kept_len <= KEPT_LEN_MAX;
            call.undelivered(if whole { Done::Answer { frame, body: kept } } else { Done::Lost });
        }
    }

    fn head_frame(&self, head: &Head) -> Result<Bytes, CodecError> {
        let cluster = &self.journey.cluster;
        let head = wire::Answer {
            view: cluster.world().view.fingerprint(),
            sessions: cluster.sessions().load(Ordering::Relaxed),
            status: head.status.as_u16(),
            headers: head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        codec::frame(&head).map(Bytes::from)
    }

    async fn write_answer(&self, answer: Answer, ask: &Ask, mut writer: Writer) {
        // A stream of the server's own would never end by itself, nor would an upgraded connection.
        let is_own = (ask.method == Method::GET || ask.nature == Nature::Listens)
            && ask.route.speaks_mcp()
            && mcp::is_event_stream(answer.headers());
        let endless = is_own || answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let (head, body) = answer.into_parts();
        let Ok(frame) = self.head_frame(&head) else { return writer.give_up(StreamCode::Malformed) };
        drop(head); // its values are pieces of the buffer that they were read into, and a stream may stand for hours
        if writer.chunk(frame).await.is_err() {
            return;
        }
        match endless {
            false => write_body(body, writer, None).await,
            // In a task of its own, which is small: this one has room for all that a request may need,
            // and the stream may stand for hours.
            true => drop(self.requests.spawn(write_body(body, writer, Some(self.leaving.clone())))),
        }
    }
}

/// Whether a handshake failed for what one end has shown to the other.
fn is_refusal(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_) => true,
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => false,
    }
}

/// `leaving` cuts off what would never end.
async fn write_body(body: BodyStream, writer: Writer, leaving: Option<CancellationToken>) {
    let stopped = writer.stopped();
    tokio::select! {
        () = writer.body(body, leaving.as_ref()) => {}
        // Nobody reads any more: dropping the body tells the upstream.
        stopped = stopped => given_up(stopped),
    }
}

/// The answer to a call that this node has run already, or is running.
async fn answer_again(mut outcome: watch::Receiver<Option<Arc<Done>>>, mut writer: Writer) {
    let stopped = writer.stopped();
    let done = tokio::select! {
        biased;
        stopped = stopped => return given_up(stopped),
        done = outcome.wait_for(Option::is_some) => done.ok().and_then(|done| done.clone()),
    };
    match done.as_deref() {
        Some(Done::Answer { frame, body }) => {
            for bytes in std::iter::once(frame).chain(body) {
                if writer.chunk(bytes.clone()).await.is_err() {
                    return;
                }
            }
            writer.finish();
        }
        // It was answered after all, or can't be any more; the entry node has lost it either way.
        Some(Done::Lost) | None => {
            let lost = NoAnswer::Refused(Refusal::perhaps_run(Reason::AnswerLost));
            write_no_answer(writer, &lost).await;
        }
    }
}

/// Why nobody waits for an answer any more: the client went away, which the entry node says with a
/// code, or the hop broke, which nobody says.
fn given_up(stopped: Result<Option<VarInt>, StoppedError>) {
    match stopped {
        Ok(Some(code)) => tracing::debug!(%code, "the client is gone"),
        Ok(None) | Err(_) => tracing::debug!("the connection to the entry node broke"),
    }
}

async fn write_no_answer(writer: Writer, no_answer: &NoAnswer) {
    match no_answer {
        NoAnswer::Refused(refusal) => answer_once(writer, refusal).await,
        NoAnswer::NotHere(not_here) => answer_once(writer, not_here).await,
    }
}

/// An answer that is one message. Whether it arrives is the asking node's to notice.
async fn answer_once<M: Message + Serialize>(mut writer: Writer, message: &M) {
    if writer.message(message).await.is_ok() {
        writer.finish();
    }
}
