//! Idle HTTP/1.1 connections to one upstream, kept for the next request. [`whole`](super::whole) keeps sockets
//! here, [`passing`](super::passing) hyper's handles of them.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::net::TcpStream;

/// Node's and uvicorn's servers close after 5 s, the shortest default in use; a second less, and the
/// server's close does not cross our request.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// A burst's worth; what is over is closed rather than kept.
const IDLE_COUNT_MAX: usize = 256;
/// A listening server accepts within a round trip; a host that is gone does not answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that may serve another request.
pub(super) trait Reusable {
    /// Its server has not closed it, nor said anything that nobody asked for.
    fn is_open(&self) -> bool;
    /// The last exchange on it is over.
    fn is_ready(&self) -> bool;
}

#[derive(Debug)]
pub(super) struct Pool<C> {
    pub(super) address: Arc<str>,
    /// The most recently used last, so that the others grow old and are closed.
    idle: Mutex<Vec<Idle<C>>>,
}

#[derive(Debug)]
struct Idle<C> {
    connection: C,
    since: Instant,
}

/// Why there is no answer to a request `R`.
pub(super) enum Failure<R = ()> {
    /// Nothing was sent: the request is still whole.
    Unreachable(io::Error, R),
    /// Some of it may have arrived.
    Broke(io::Error),
}

impl<C: Reusable> Pool<C> {
    pub(super) fn new(address: Arc<str>) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// An idle connection.
    pub(super) fn take(&self) -> Option<C> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // In the order of their age, so that the old ones are the first.
        let now = Instant::now();
        let old = idle.iter().take_while(|idle| now.duration_since(idle.since) >= IDLE_MAX).count();
        idle.drain(..old);
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if !idle[at].connection.is_open() {
                idle.remove(at);
            } else if idle[at].connection.is_ready() {
                return Some(idle.remove(at).connection);
            }
        }
        None
    }

    pub(super) fn put_back(&self, connection: C) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_COUNT_MAX && connection.is_open() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }
}

/// Another connection to an upstream.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    let connect = TcpStream::connect(address);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
