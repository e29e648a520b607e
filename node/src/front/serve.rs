//! Sockets and connections: HTTP/1.1 and HTTP/2 (with prior knowledge) on one address.

use super::standing::{self, Lent};
use crate::answer::Answer;
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use socket2::{SockRef, TcpKeepalive};
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Headers of one request, together (hyper answers 431 beyond it).
const HEADERS_LEN_MAX: usize = 64 * 1024;
/// A client that does not finish its headers in this time is cut off.
const HEADERS_TIME_MAX: Duration = Duration::from_secs(30);
/// A client that is gone without a word is noticed by HTTP/2 pings.
const PING_EVERY: Duration = Duration::from_secs(20);
/// And by TCP's own probes: gone after 30 s, so that a sleeping laptop does not keep its session.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// A client that connected just before no more connections were taken has sent its request by then.
const LAST_COME: Duration = Duration::from_millis(100);
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1_024;

/// A bound address, not yet accepting.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    pub(crate) addr: SocketAddr,
}

pub(crate) async fn bind(at: SocketAddr) -> io::Result<Listener> {
    let listener = TcpListener::bind(at).await?;
    let addr = listener.local_addr()?;
    Ok(Listener { listener, addr })
}

impl Listener {
    /// Accepts until `stop`, then finishes what is in progress, however long that takes.
    pub(crate) async fn run<F, Answering>(self, answer: F, stop: CancellationToken)
    where
        F: Fn(IpAddr, Request<Incoming>) -> Answering + Send + Sync + 'static,
        Answering: Future<Output = Answer> + Send + 'static,
    {
        let mut server = auto::Builder::new(TokioExecutor::new());
        server
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_TIME_MAX)
            .max_buf_size(HEADERS_LEN_MAX);
        server
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS_LEN_MAX as u32)
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(PING_EVERY);
        let answer = Arc::new(answer);
        let (connections, tasks) = (GracefulShutdown::new(), TaskTracker::new());
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
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
                () = stop.cancelled() => break,
            };
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
            let answer = answer.clone();
            let asked = Arc::new(AtomicBool::new(false));
            let first = asked.clone();
            let lent = Lent::new(stream);
            let lender = lent.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                first.store(true, Ordering::Relaxed);
                let (version, lender) = (request.version(), lender.clone());
                // In a box, as hyper keeps its room for the next request.
                let answering = Box::pin(answer(from, request));
                async move { Ok::<_, Infallible>(lender.pass(version, answering.await).await) }
            });
            let connection = server.serve_connection_with_upgrades(lent.io(), service).into_owned();
            let mut watched = Box::pin(connections.watch(connection));
            let standing = tasks.clone();
            tasks.spawn(async move {
                tokio::select! {
                    ended = &mut watched => {
                        if let Err(error) = ended {
                            tracing::debug!(%error, "a client's connection ended in an error");
                        }
                    }
                    // hyper's own time-out begins when it has told which version of HTTP is spoken.
                    () = silence(&asked) => {}
                    () = lent.stands() => {
                        drop(watched);
                        if let Some((stream, answer)) = lent.reclaim() {
                            standing.spawn(standing::serve(stream, answer)); // a task of its own is small
                        }
                    }
                }
            });
        }
        drop(self.listener); // whoever connects now is refused at once, and finds another node
        tokio::time::sleep(LAST_COME).await;
        connections.shutdown().await;
        tasks.close();
        tasks.wait().await;
    }
}

/// Resolves when a connection has been there for a while and asked for nothing.
async fn silence(asked: &AtomicBool) {
    tokio::time::sleep(HEADERS_TIME_MAX).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}
