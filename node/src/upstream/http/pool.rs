//! Idle HTTP/1.1 connections to one upstream, kept for the next request.

use crate::answer::BodyStream;
use bytes::Bytes;
use hyper::{
    Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
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

type Sender = SendRequest<BodyStream>;

#[derive(Debug)]
pub(super) struct Pool {
    address: Arc<str>,
    /// The most recently used last, so that the others grow old and are closed.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    since: Instant,
}

/// Why there is no answer.
pub(super) enum Failure {
    /// Nothing was sent: the request is still whole.
    Unreachable(io::Error, Box<Request<BodyStream>>),
    /// Some of it may have arrived.
    Broke(io::Error),
}

impl Pool {
    pub(super) fn new(address: Arc<str>) -> Self {
        Self { address, idle: Mutex::default() }
    }

    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<BodyStream>,
    ) -> Result<Response<Pooled>, Failure> {
        while let Some(sender) = self.take() {
            match self.exchange(sender, request).await {
                Ok(answer) => return Ok(answer),
                // An idle connection that the server has closed gives the request back unsent.
                Err((_, Some(unsent))) => request = *unsent,
                Err((error, None)) => return Err(Failure::Broke(io::Error::other(error))),
            }
        }
        let sender = match self.connect().await {
            Ok(sender) => sender,
            Err(error) => return Err(Failure::Unreachable(error, Box::new(request))),
        };
        self.exchange(sender, request).await.map_err(|(error, unsent)| match unsent {
            Some(unsent) => Failure::Unreachable(io::Error::other(error), unsent),
            None => Failure::Broke(io::Error::other(error)),
        })
    }

    async fn exchange(
        self: &Arc<Self>,
        mut sender: Sender,
        request: Request<BodyStream>,
    ) -> Result<Response<Pooled>, (hyper::Error, Option<Box<Request<BodyStream>>>)> {
        match sender.try_send_request(request).await {
            Ok(answer) => {
                let stays_http = answer.status() != StatusCode::SWITCHING_PROTOCOLS;
                let back = stays_http.then(|| (sender, self.clone()));
                Ok(answer.map(|body| Pooled { body, back }))
            }
            Err(mut error) => {
                let unsent = error.take_message().map(Box::new);
                Err((error.into_error(), unsent))
            }
        }
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // In the order of their age, so that the old ones are the first.
        let now = Instant::now();
        let old = idle.iter().take_while(|idle| now.duration_since(idle.since) >= IDLE_MAX).count();
        idle.drain(..old);
        idle.retain(|idle| !idle.sender.is_closed());
        let ready = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(idle.remove(ready).sender)
    }

    fn put_back(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_COUNT_MAX && !sender.is_closed() {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    async fn connect(&self) -> io::Result<Sender> {
        let stream = connect(&self.address).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        // Its errors reach whoever waits on the connection; there is nobody else to tell.
        tokio::spawn(async move { connection.with_upgrades().await.unwrap_or_default() });
        Ok(sender)
    }
}

/// Another connection to an upstream.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    let connect = TcpStream::connect(address);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect).await.map_err(io::Error::from)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An answer's body. Read to its end it gives the connection back; dropped earlier it closes it,
/// which is how an HTTP/1.1 server learns that nobody reads any more.
#[derive(Debug)]
pub(super) struct Pooled {
    body: Incoming,
    back: Option<(Sender, Arc<Pool>)>,
}

impl Pooled {
    fn ended(&mut self) {
        if let Some((sender, pool)) = self.back.take() {
            pool.put_back(sender);
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // An empty body is at its end without ever being polled.
        if self.body.is_end_stream() {
            self.ended();
        }
    }
}

impl Body for Pooled {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &polled {
            None => self.ended(),
            Some(Ok(_)) if self.body.is_end_stream() => self.ended(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.back = None,
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
