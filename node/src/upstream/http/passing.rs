//! Requests whose body passes on as it comes, long ones, and wishes for another protocol: hyper reads and
//! writes at the same time, which these need.

use super::pool::{Failure, Pool, Reusable, connect};
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
    sync::Arc,
    task::{Context, Poll, ready},
};

pub(super) type Sender = SendRequest<BodyStream>;
type Unsent = Box<Request<BodyStream>>;

impl Reusable for Sender {
    fn is_open(&self) -> bool {
        !self.is_closed()
    }

    fn is_ready(&self) -> bool {
        SendRequest::is_ready(self)
    }
}

pub(super) async fn send(
    pool: &Arc<Pool<Sender>>,
    mut request: Request<BodyStream>,
) -> Result<Response<Pooled>, Failure<Unsent>> {
    while let Some(sender) = pool.take() {
        match exchange(pool, sender, request).await {
            Ok(answer) => return Ok(answer),
            // An idle connection that the server has closed gives the request back unsent.
            Err((_, Some(unsent))) => request = *unsent,
            Err((error, None)) => return Err(Failure::Broke(io::Error::other(error))),
        }
    }
    let sender = match begin(&pool.address).await {
        Ok(sender) => sender,
        Err(error) => return Err(Failure::Unreachable(error, Box::new(request))),
    };
    exchange(pool, sender, request).await.map_err(|(error, unsent)| match unsent {
        Some(unsent) => Failure::Unreachable(io::Error::other(error), unsent),
        None => Failure::Broke(io::Error::other(error)),
    })
}

async fn exchange(
    pool: &Arc<Pool<Sender>>,
    mut sender: Sender,
    request: Request<BodyStream>,
) -> Result<Response<Pooled>, (hyper::Error, Option<Unsent>)> {
    match sender.try_send_request(request).await {
        Ok(answer) => {
            let stays_http = answer.status() != StatusCode::SWITCHING_PROTOCOLS;
            let back = stays_http.then(|| (sender, pool.clone()));
            Ok(answer.map(|body| Pooled { body, back }))
        }
        Err(mut error) => {
            let unsent = error.take_message().map(Box::new);
            Err((error.into_error(), unsent))
        }
    }
}

async fn begin(address: &str) -> io::Result<Sender> {
    let stream = connect(address).await?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its errors reach whoever waits on the connection; there is nobody else to tell.
    tokio::spawn(async move { connection.with_upgrades().await.unwrap_or_default() });
    Ok(sender)
}

/// An answer's body. Read to its end it gives the connection back; dropped earlier it closes it,
/// which is how an HTTP/1.1 server learns that nobody reads any more.
#[derive(Debug)]
pub(super) struct Pooled {
    body: Incoming,
    back: Option<(Sender, Arc<Pool<Sender>>)>,
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
