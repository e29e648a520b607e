//! What Ringway is compared with: a reverse proxy of hyper alone, a process of its own.
//!
//! hyper's HTTP/1.1 server, a vector of idle connections under a mutex (hyper-util's legacy client costs more, so
//! this is the stricter measure), hyper's HTTP/1.1 client. Bodies pass in both directions as they come; nothing is
//! read, checked, counted or logged. Allocator and runtime are those of `ringway node`.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use anyhow::Context as _;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::accept;

pub(super) const READY: &str = "bench-bare-proxy ready ";

type Sender = SendRequest<Incoming>;

/// Serves on a free port in front of `upstream` and says on stdout, in one line, where.
pub async fn run(upstream: &str) -> anyhow::Result<()> {
    let uri: Uri = upstream.parse().context("no URL")?;
    let authority = uri.authority().context("a URL without a host")?.to_string();
    let host = HeaderValue::from_str(&authority)?;
    let proxy = Arc::new(Proxy { authority, host, idle: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the bare proxy")?;
    println!("{READY}http://{}{}", listener.local_addr()?, uri.path());
    accept::forever(listener, move |request| {
        let proxy = proxy.clone();
        async move { proxy.answer(request).await }
    })
    .await
}

struct Proxy {
    authority: String,
    host: HeaderValue,
    idle: Mutex<Vec<Sender>>,
}

impl Proxy {
    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Passed> {
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().remove(CONNECTION);
        match self.clone().pass(request).await {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("bench-bare-proxy: {error:#}");
                let mut answer = Response::new(Passed { body: None, back: None });
                *answer.status_mut() = StatusCode::BAD_GATEWAY;
                answer
            }
        }
    }

    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Passed>> {
        let mut sender = match self.take() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let answer = sender.send_request(request).await?;
        Ok(answer.map(|body| Passed { body: Some(body), back: Some((sender, self)) }))
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle();
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().rposition(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Sender>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The upstream's body as it comes; at its end the connection is idle again. `None` is an empty body.
struct Passed {
    body: Option<Incoming>,
    back: Option<(Sender, Arc<Proxy>)>,
}

impl Passed {
    fn ended(&mut self) {
        if let Some((sender, proxy)) = self.back.take() {
            proxy.idle().push(sender);
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let polled = ready!(Pin::new(body).poll_frame(cx));
        if matches!(polled, None | Some(Ok(_))) && self.is_end_stream() {
            self.ended();
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
