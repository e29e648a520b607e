//! This node as the owner: what other nodes ask of it.

use super::{
    endpoint::{Bound, CALLS_MAX, CONTROL_MAX, STREAMS_MAX},
    forward::headers,
    frames::{self, FrameError, Reader},
    gossip,
};
use crate::answer::{Answer, Broke};
use crate::ask::{self, Ask, Errand, Payload};
use crate::config::{Affinity, CLUSTER, Route};
use crate::journey::{Journey, NoAnswer};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::Method;
use proto::core::route::Hop;
use proto::id::Tag;
use proto::wire::{
    self, CloseCode, GoneWhy, Hello, HelloAck, Kind, Lane, Locate, Located, NotHere, NotHereWhy, Refusal,
    SessionState, StreamCode,
};
use quinn::{Connection, Incoming, RecvStream, SendStream, StoppedError, VarInt};
use std::{net::SocketAddr, sync::Arc, sync::atomic::Ordering, time::Duration};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A peer greets as soon as it is connected; one that does not is no peer.
const GREETING_TIME: Duration = Duration::from_secs(2);

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
        let (mut send, recv) = connection.accept_bi().await.map_err(|_| FrameError::Short)?;
        let hello = Reader::new(recv).frame().await?.read::<Hello>()?;
        let world = self.journey.cluster.world();
        let known = world.view.by_tag(Tag::of(CLUSTER, &hello.name)).map_or(0, |member| member.node.inc.0);
        let me = self.bound.greeting();
        let ack =
            HelloAck { name: me.name.clone(), node: me.node, advertise: me.advertise, known_inc: known };
        frames::write(&mut send, &ack).await?;
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

    async fn request(self: Arc<Self>, mut send: SendStream, recv: RecvStream) {
        let mut reader = Reader::new(recv);
        let answered = match reader.frame().await {
            Ok(frame) if frame.kind == Kind::Locate => match frame.read::<Locate<'_>>() {
                Ok(locate) => frames::write(&mut send, &Located { state: self.locate(locate.session) }).await,
                Err(error) => Err(error),
            },
            Ok(frame) => match frame.read::<wire::Forward<'_>>() {
                Ok(forward) => match self.read_ask(&forward, reader).await {
                    Ok(Ok((ask, hop))) => return self.serve(&ask, hop, send).await,
                    Ok(Err(no_answer)) => write_no_answer(&mut send, &no_answer).await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "a request that can't be read");
            let _ = send.reset(VarInt::from_u32(StreamCode::Malformed as u32));
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
                    Payload::passing(reader.into_body(None))
                }
            },
        };
        let same_view = cluster.world().view.fingerprint() == forward.view;
        Ok(Ok((ask, Hop::Forwarded { same_view })))
    }

    async fn serve(&self, ask: &Ask, hop: Hop, mut send: SendStream) {
        let outcome = tokio::select! {
            outcome = self.journey.run(ask, hop) => outcome,
            stopped = send.stopped() => return given_up(stopped),
        };
        match outcome {
            Ok(answer) => self.write_answer(answer, ask.method == Method::GET, send).await,
            Err(no_answer) => {
                let _ = write_no_answer(&mut send, &no_answer).await;
            }
        }
    }

    async fn write_answer(&self, answer: Answer, endless: bool, mut send: SendStream) {
        let cluster = &self.journey.cluster;
        let (head, mut body) = answer.into_parts();
        let head = wire::Answer {
            view: cluster.world().view.fingerprint(),
            sessions: cluster.sessions().load(Ordering::Relaxed),
            status: head.status.as_u16(),
            headers: head.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect(),
        };
        if frames::write(&mut send, &head).await.is_err() {
            return;
        }
        loop {
            let frame = tokio::select! {
                frame = body.frame() => frame,
                // Nobody reads any more: dropping the body tells the upstream.
                stopped = send.stopped() => return given_up(stopped),
                () = self.leaving.cancelled(), if endless => None,
            };
            match frame {
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    if send.write_chunk(bytes).await.is_err() {
                        return;
                    }
                }
                Some(Err(Broke::Upstream | Broke::Client | Broke::Hop | Broke::Answer)) => {
                    let _ = send.reset(VarInt::from_u32(StreamCode::UpstreamBroke as u32));
                    return;
                }
                None => {
                    let _ = send.finish();
                    return;
                }
            }
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

async fn write_no_answer(send: &mut SendStream, no_answer: &NoAnswer) -> Result<(), FrameError> {
    match no_answer {
        NoAnswer::Refused(refusal) => frames::write(send, refusal).await,
        NoAnswer::NotHere(not_here) => frames::write(send, not_here).await,
    }
}
