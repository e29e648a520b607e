//! This node as the owner: what other nodes ask of it.

use super::{
    endpoint::{Bound, CALLS_MAX, CONTROL_MAX, STREAMS_MAX},
    forward::headers,
    frames::{FrameError, Reader, Writer},
    gossip,
};
use crate::answer::Answer;
use crate::ask::{self, Ask, Errand, Payload};
use crate::config::{Affinity, CLUSTER, Route};
use crate::journey::{Journey, NoAnswer};
use crate::mcp;
use bytes::Bytes;
use hyper::Method;
use proto::core::route::Hop;
use proto::id::Tag;
use proto::wire::{
    self, CloseCode, GoneWhy, Hello, HelloAck, Kind, Lane, Locate, Located, Message, NotHere, NotHereWhy,
    Refusal, SessionState, StreamCode,
};
use quinn::{Connection, Incoming, RecvStream, SendStream, StoppedError, VarInt};
use serde::Serialize;
use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A peer greets as soon as it is connected; one that does not is no peer.
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
}

impl Acceptor {
    /// Accepts connections until the endpoint is closed.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Some(incoming) = self.bound.endpoint.accept().await {
            tokio::spawn(self.clone().connection(incoming));
        }
    }

    async fn connection(self: Arc<Self>, incoming: Incoming) {
        let from = incoming.remote_address();
        // A handshake that fails is somebody without the secret, or a network that lost it.
        let connection = match incoming.await {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%from, %error, "no handshake"),
        };
        let hello = match tokio::time::timeout(GREETING_TIME, self.greet(&connection)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) => {
                tracing::warn!(%from, %error, "a peer that does not greet");
                return connection.close(VarInt::from_u32(CloseCode::BadHello as u32), b"greeting expected");
            }
            Err(_) => return connection.close(VarInt::from_u32(CloseCode::BadHello as u32), b"no greeting"),
        };
        let streams = match hello.lane {
            Lane::Control => CONTROL_MAX,
            Lane::Calls => CALLS_MAX,
            Lane::Streams => STREAMS_MAX,
        };
        connection.set_max_concurrent_bi_streams(VarInt::try_from(streams).expect("a small number"));
        tokio::join!(self.requests(&connection), self.messages(&connection, hello.advertise));
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

    async fn messages(&self, connection: &Connection, from: SocketAddr) {
        while let Ok(stream) = connection.accept_uni().await {
            if let Ok(message) = gossip::receive(stream).await {
                // A full inbox drops it, as a network would.
                let _ = self.gossip.try_send((from, message));
            }
        }
    }

    async fn request(self: Arc<Self>, send: SendStream, recv: RecvStream) {
        let writer = Writer::new(send, StreamCode::UpstreamBroke);
        let mut reader = Reader::new(recv);
        let read = match reader.frame().await {
            Ok(frame) if frame.kind == Kind::Locate => match frame.read::<Locate<'_>>() {
                Ok(locate) => {
                    return answer_once(writer, &Located { state: self.locate(locate.session) }).await;
                }
                Err(error) => Err(error),
            },
            Ok(frame) => match frame.read::<wire::Forward<'_>>() {
                Ok(forward) => self.read_ask(&forward, reader).await,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match read {
            Ok(Ok((ask, hop))) => self.serve(&ask, hop, writer).await,
            Ok(Err(no_answer)) => write_no_answer(writer, &no_answer).await,
            Err(error) => {
                tracing::debug!(%error, "a request that can't be read");
                writer.give_up(StreamCode::Malformed);
            }
        }
    }

    /// The ask, or why this node does not even try.
    async fn read_ask(
        &self,
        forward: &wire::Forward<'_>,
        mut reader: Reader,
    ) -> Result<Result<(Ask, Hop), NoAnswer>, FrameError> {
        let Some(route) = self.routes.iter().find(|route| route.id == forward.route) else {
            return Ok(Err(NoAnswer::NotHere(NotHere { hint: None, why: NotHereWhy::NoRoute })));
        };
        let cluster = &self.journey.cluster;
        let headers = headers(&forward.headers);
        let errand = match forward.errand {
            wire::Errand::Open => Errand::Open,
            wire::Errand::Session => match ask::session(route, &headers, cluster.seal()) {
                Ok(id) => Errand::Session(Box::new(id)),
                Err(why) => return Ok(Err(NoAnswer::Refused(Refusal::Gone(why)))),
            },
            wire::Errand::Key => ask::keyed_errand(&route.affinity, forward.target, &headers),
        };
        let ask = Ask {
            route: route.clone(),
            errand,
            method: Method::from_bytes(forward.method.as_bytes()).map_err(|_| FrameError::Short)?,
            target: forward.target.to_owned(),
            headers,
            body: match route.affinity {
                Affinity::Session => Payload::Whole(reader.rest(route.body_len_max).await?),
                Affinity::None | Affinity::Header(_) | Affinity::Cookie(_) | Affinity::Query(_) => {
                    reader.into_payload().await?
                }
            },
        };
        let same_view = cluster.world().view.fingerprint() == forward.view;
        Ok(Ok((ask, Hop::Forwarded { same_view })))
    }

    async fn serve(&self, ask: &Ask, hop: Hop, writer: Writer) {
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

    async fn write_answer(&self, answer: Answer, ask: &Ask, mut writer: Writer) {
        let cluster = &self.journey.cluster;
        // A stream of the server's own would never end by itself.
        let endless = ask.method == Method::GET
            && ask.route.affinity == Affinity::Session
            && mcp::is_event_stream(answer.headers());
        let (head, body) = answer.into_parts();
        let head = wire::Answer {
            view: cluster.world().view.fingerprint(),
            sessions: cluster.sessions().load(Ordering::Relaxed),
            status: head.status.as_u16(),
            headers: head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        if writer.message(&head).await.is_err() {
            return;
        }
        let stopped = writer.stopped();
        tokio::select! {
            () = writer.body(body, endless.then_some(&self.leaving)) => {}
            // Nobody reads any more: dropping the body tells the upstream.
            stopped = stopped => given_up(stopped),
        }
    }

    fn locate(&self, session: &str) -> SessionState {
        match self.journey.cluster.seal().open(session) {
            Ok(id) if id.birth.home == self.journey.cluster.me() => self.journey.sessions.state(&id),
            Ok(_) => SessionState::Ended(GoneWhy::Unknown),
            Err(_) => SessionState::Ended(GoneWhy::Forged),
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
