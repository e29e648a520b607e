//! Sockets and connections: HTTP/1.1 and HTTP/2 on one address, in TLS (by ALPN) or not (with prior knowledge).
//! [`crowd`](super::crowd) says who may come in and who has to go.

use super::coming::Request;
use super::crowd::{Arrival, Crowd, Door, Full, Place};
use super::farewell::Farewell;
use super::socket::{Paced, Socket};
use super::standing::{self, Lent};
use super::whole::{self, Ends, Left};
use crate::answer::{Answer, holding};
use crate::config::Limits;
use crate::tls::{self, Tls};
use hyper::{StatusCode, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use prometheus_client::metrics::counter::Counter;
use socket2::{SockRef, TcpKeepalive};
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Beyond this hyper itself answers 431, without a body. Heads of half of it are served, so that the others of a
/// size that anybody would send by mistake get an answer with a reason in it ([`super::read`]).
const HEADERS_LEN_MAX: usize = 2 * super::read::HEAD_LEN_MAX;
/// A connection on which nothing was asked for since is closed. Balancers keep theirs for 60 s and must be the ones
/// to close them: whoever sends a request into a closing connection sees it reset.
const KEPT_TIME_MAX: Duration = Duration::from_secs(75);
/// A client that is gone without a word is noticed by HTTP/2 pings.
const PING_EVERY: Duration = Duration::from_secs(20);
const PONG_TIME_MAX: Duration = Duration::from_secs(20);
/// And by TCP's own probes: gone after 30 s, so that a sleeping laptop does not keep its session.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A client that connected just before no more connections were taken has sent its request by then.
const LAST_COME: Duration = Duration::from_millis(100);
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1_024;
/// Requests that an HTTP/2 client has given up before they were begun, beyond which it is sent away ("rapid
/// reset", CVE-2023-44487). A person who leaves a page gives up some dozens.
const RESETS_MAX: usize = 64;
/// Requests of an HTTP/2 client that break the protocol's rules, beyond which it is sent away (CVE-2025-8671).
const ERRORS_MAX: usize = 64;
/// What one answer over HTTP/2 keeps that its client does not read.
const UNREAD_LEN_MAX: usize = 64 * 1024;
/// Connections that the system keeps until they are accepted: a storm of a few thousand comes at once.
const BACKLOG: u32 = 4_096;

/// A bound address, not yet accepting.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    limits: Limits,
    tls: Option<Tls>,
    pub(crate) addr: SocketAddr,
    /// Connections, counted as they are accepted.
    pub(crate) accepted: Counter,
}

pub(crate) async fn bind(at: SocketAddr, limits: Limits, tls: Option<Tls>) -> io::Result<Listener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?; // a node that starts again finds its port in use by what has been closed
    socket.bind(at)?;
    let listener = socket.listen(BACKLOG)?;
    let addr = listener.local_addr()?;
    Ok(Listener { listener, limits, tls, addr, accepted: Counter::default() })
}

impl Listener {
    /// Accepts until `stop`, then finishes what is in progress, however long that takes.
    pub(crate) async fn run<F, Answering>(self, answer: F, stop: CancellationToken)
    where
        F: Fn(IpAddr, Arrival, Request) -> Answering + Send + Sync + 'static,
        Answering: Future<Output = Answer> + Send + 'static,
    {
        let (connections, tasks, closing) =
            (GracefulShutdown::new(), TaskTracker::new(), CancellationToken::new());
        let crowd = Crowd::new(self.limits);
        let host = Arc::new(Host {
            server: server(),
            answer,
            limits: self.limits,
            tls: self.tls,
            stop: stop.clone(),
            closing: closing.clone(),
            tasks: tasks.clone(),
        });
        let keepalive = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(3);
        loop {
            let (stream, from) = tokio::select! {
                // Who is in the queue already is let in: closing it would reset their connections.
                biased;
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, from)) => (stream, from.ip()),
                    Err(error) => {
                        // Out of descriptors, most likely: what is open may close in a moment.
                        tracing::warn!(%error, "can't accept a connection");
                        crowd.shrink();
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = stop.cancelled() => break,
            };
            self.accepted.inc();
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            match crowd.admit(from) {
                Ok(place) => {
                    tasks.spawn(host.clone().receive(stream, from, place, connections.watcher()));
                }
                // Who speaks TLS would not understand it.
                Err(_) if host.tls.is_some() => {}
                Err(full) => {
                    let farewell = match full {
                        Full::Node => Farewell::NodeFull,
                        Full::Client => Farewell::ClientFull,
                    };
                    tokio::spawn(farewell.say(stream));
                }
            }
        }
        drop(self.listener); // whoever connects now is refused at once, and finds another node
        tokio::time::sleep(LAST_COME).await;
        closing.cancel();
        connections.shutdown().await;
        tasks.close();
        tasks.wait().await;
    }
}

/// HTTP as all clients of a listener get it.
fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(KEPT_TIME_MAX).max_buf_size(HEADERS_LEN_MAX);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADERS_LEN_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(ERRORS_MAX)
        .max_send_buf_size(UNREAD_LEN_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_TIME_MAX);
    server
}

/// Whoever receives connections.
struct Host<F> {
    server: auto::Builder<TokioExecutor>,
    answer: F,
    limits: Limits,
    tls: Option<Tls>,
    stop: CancellationToken,
    /// Connections end with what is in progress on them.
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl<F, Answering> Host<F>
where
    F: Fn(IpAddr, Arrival, Request) -> Answering + Send + Sync + 'static,
    Answering: Future<Output = Answer> + Send + 'static,
{
    /// One connection, until it ends, is sent away, or stands.
    async fn receive(self: Arc<Self>, stream: TcpStream, from: IpAddr, place: Place, watcher: Watcher) {
        let (door, sent_away) = (place.door(self.tls.is_some()), place.sent_away());
        let too_long = tokio::time::sleep(self.limits.header_time_max);
        tokio::pin!(sent_away, too_long);
        let paced = Paced::new(stream, self.limits.send_time_max);
        let mut socket = match &self.tls {
            None => Socket::plain(paced, place),
            Some(tls) => {
                let shaken = tokio::select! {
                    shaken = shake_hands(tls, paced) => shaken,
                    () = &mut sent_away => return,
                    () = &mut too_long => return,
                    () = self.has_stopped() => return,
                };
                match shaken {
                    Ok(tls) => Socket::tls(tls, place),
                    Err(error) => return tracing::debug!(%from, %error, "no handshake with a client"),
                }
            }
        };
        let silence = async {
            too_long.await;
            if door.has_been_used() {
                std::future::pending().await
            }
        };
        tokio::pin!(silence);
        let left = tokio::select! {
            // What has come in time is read first, however late this node is.
            biased;
            left = self.serve_whole(&mut socket, from, &door) => Some(left),
            () = &mut sent_away => return,
            () = &mut silence => None,
        };
        let read = match left {
            Some(Left::Hyper(read)) => read,
            Some(Left::Ended) => return,
            // A task of its own is small.
            Some(Left::Standing(answer)) => return drop(self.tasks.spawn(standing::serve(socket, answer))),
            None if socket.speaks_http_1() => return Farewell::SlowHead.say(socket).await,
            None => return,
        };
        socket.unread(read);
        let lent = Lent::new(socket);
        let is_late = {
            let mut serving = Box::pin(self.clone().serve(lent.clone(), from, door.clone(), watcher));
            tokio::select! {
                biased;
                () = &mut serving => return,
                () = &mut sent_away => return,
                // hyper's own time-out begins when it has told which version of HTTP is spoken.
                () = &mut silence => true,
                () = lent.stands() => false,
            }
        };
        let Some((socket, answer)) = lent.reclaim() else { return };
        match answer {
            Some(answer) => drop(self.tasks.spawn(standing::serve(socket, answer))),
            None if is_late && socket.speaks_http_1() => Farewell::SlowHead.say(socket).await,
            None => {}
        }
    }

    /// Requests that are short and whole, until there comes another one.
    async fn serve_whole(&self, socket: &mut Socket, from: IpAddr, door: &Door) -> Left {
        let ends = Ends { idle_max: KEPT_TIME_MAX, closing: &self.closing };
        let answer = |request| {
            let arrival = door.enter();
            async move { lasting((self.answer)(from, arrival.clone(), request).await, arrival) }
        };
        whole::serve(socket, answer, ends).await
    }

    /// Resolves when whoever has connected in time has shaken hands.
    async fn has_stopped(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(10 * LAST_COME).await;
    }

    /// HTTP on one connection.
    async fn serve(self: Arc<Self>, lent: Arc<Lent>, from: IpAddr, door: Door, watcher: Watcher) {
        let (io, host) = (lent.io(), self.clone());
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (version, lender) = (request.version(), lent.clone());
            let arrival = door.enter();
            // In a box, as hyper keeps its room for the next request.
            let answering = Box::pin((host.answer)(from, arrival.clone(), request.into()));
            async move {
                let answer = lasting(answering.await, arrival);
                Ok::<hyper::Response<_>, Infallible>(lender.pass(version, answer).await.into())
            }
        });
        let connection = self.server.serve_connection_with_upgrades(io, service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a client's connection ended in an error");
        }
    }
}

/// A connection is in use for as long as an answer is under way, or what it has been upgraded to.
fn lasting(answer: Answer, arrival: Arrival) -> Answer {
    arrival.is_whole();
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        arrival.stays();
    }
    answer.map(|body| holding(body, arrival))
}

/// TLS, or a word to whoever does not speak it.
async fn shake_hands(tls: &Tls, mut paced: Paced) -> io::Result<tls::TlsStream<Paced>> {
    if paced.first_byte().await? != tls::FIRST_BYTE {
        Farewell::NotTls.say(&mut paced).await;
        return Err(io::Error::other("it does not speak TLS"));
    }
    tls.accept(paced).await
}
