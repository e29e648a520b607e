//! A dumb load balancer: every request goes to the next target, whatever session it belongs to. What a cluster
//! has to work behind. Called by tests that put one address in front of several nodes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, COOKIE, HOST, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::http;

/// Headers that belong to one connection and not to the message (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// On one machine a connection stands within a millisecond or is refused; a frozen target accepts too.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Between two health checks.
const CHECK_EVERY: Duration = Duration::from_millis(300);

/// The running balancer; gone with all its connections when dropped.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    targets: Arc<Targets>,
    _accepting: AbortOnDrop,
}

impl Balancer {
    /// Listens on a free port and sends requests to `targets` in turn.
    pub async fn start(targets: Vec<SocketAddr>) -> anyhow::Result<Balancer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the balancer")?;
        let address = listener.local_addr()?;
        let targets = Arc::new(Targets { turn: Mutex::new((targets, 0)) });
        let accepting = AbortOnDrop(tokio::spawn(accept(listener, targets.clone())));
        Ok(Balancer { address, targets, _accepting: accepting })
    }

    /// Replaces the targets for all later requests; those under way go on.
    pub fn set_targets(&self, targets: Vec<SocketAddr>) {
        self.targets.lock().0 = targets;
    }

    /// Sends requests only to those of `nodes` whose `/readyz` (the URL beside each) answers 200, by asking all of
    /// them again and again until the result is dropped.
    pub fn follow(&self, nodes: Vec<(SocketAddr, String)>) -> Following {
        let targets = self.targets.clone();
        let checking = tokio::spawn(async move {
            loop {
                let mut ready = Vec::new();
                for (target, url) in &nodes {
                    let answer = tokio::time::timeout(CONNECT_DEADLINE, http::get(url)).await;
                    if answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status == 200)) {
                        ready.push(*target);
                    }
                }
                targets.lock().0 = ready;
                tokio::time::sleep(CHECK_EVERY).await;
            }
        });
        Following(AbortOnDrop(checking))
    }

    /// The URL of `path` at the balancer.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A balancer's health checks; they end when it is dropped, and the targets stay as they are then.
#[derive(Debug)]
pub struct Following(#[expect(dead_code, reason = "held for its drop")] AbortOnDrop);

/// Where requests go, and whose turn it is.
#[derive(Debug)]
struct Targets {
    turn: Mutex<(Vec<SocketAddr>, usize)>,
}

impl Targets {
    fn lock(&self) -> MutexGuard<'_, (Vec<SocketAddr>, usize)> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<SocketAddr> {
        let (targets, turn) = &mut *self.lock();
        let target = targets.get(*turn % targets.len().max(1)).copied();
        *turn = turn.wrapping_add(1);
        target
    }
}

async fn accept(listener: TcpListener, targets: Arc<Targets>) {
    // Owns the connections: when this task is aborted, they all end.
    let mut connections = JoinSet::new();
    loop {
        // An accept that fails (no more descriptors) concerns that connection alone.
        let Ok((connection, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let _ = connection.set_nodelay(true);
        let targets = targets.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let targets = targets.clone();
                async move { Ok::<_, Infallible>(carry(request, &targets).await) }
            });
            // A client that goes away drops the service's future or the answer's body, and with it the upstream.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(connection), service)
                .await;
        });
    }
}

type AnswerBody = BoxBody<Bytes, hyper::Error>;

/// One request to the next target; 502 where that can't be reached.
async fn carry(request: Request<Incoming>, targets: &Targets) -> Response<AnswerBody> {
    let Some(target) = targets.next() else { return bad_gateway("no targets") };
    match forward(request, target).await {
        Ok(response) => response,
        Err(error) => bad_gateway(&format!("{target}: {error:#}")),
    }
}

async fn forward(mut request: Request<Incoming>, target: SocketAddr) -> anyhow::Result<Response<AnswerBody>> {
    // A connection for each request: one from a pool could be dead, and its failure would say nothing about a node.
    let connection = tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(target))
        .await
        .context("connecting takes too long")?
        .context("connecting")?;
    connection.set_nodelay(true)?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    let upstream = AbortOnDrop(tokio::spawn(async move {
        let _ = driver.await;
    }));

    strip(request.headers_mut());
    request.headers_mut().remove(COOKIE);
    request.headers_mut().insert(HOST, HeaderValue::from_str(&target.to_string())?);
    let mut response = sender.send_request(request).await.context("no answer")?;
    strip(response.headers_mut());
    response.headers_mut().remove(SET_COOKIE);
    Ok(response.map(|body| AnswerStream { body, _upstream: upstream }.boxed()))
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn bad_gateway(why: &str) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from(why.to_owned())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

/// The upstream's body as it comes; when it is dropped, the connection to the upstream is closed.
struct AnswerStream {
    body: Incoming,
    _upstream: AbortOnDrop,
}

impl Body for AnswerStream {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::http;
    use super::*;

    /// Reads a request's head and gives the connection to go on with.
    async fn serve_one(listener: &TcpListener) -> (TcpStream, String) {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert_ne!(connection.read_buf(&mut head).await.unwrap(), 0, "the request ended early");
        }
        (connection, String::from_utf8(head).unwrap().to_ascii_lowercase())
    }

    #[tokio::test]
    async fn each_request_goes_to_the_next_target_without_cookies() {
        let listeners = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let balancer = Balancer::start(addresses).await.unwrap();
        for listener in [&listeners[0], &listeners[1], &listeners[0]] {
            let url = balancer.url("/mcp?x=1");
            let headers = [("cookie", "node=a"), ("connection", "x-hop"), ("x-hop", "1"), ("x-end", "2")];
            let client = tokio::spawn(async move { http::request("GET", &url, &headers, "").await });
            let (mut connection, head) = serve_one(listener).await;
            assert!(head.starts_with("get /mcp?x=1 http/1.1"), "{head}");
            assert!(
                !head.contains("cookie") && !head.contains("x-hop") && head.contains("x-end: 2"),
                "{head}"
            );
            let answer = b"HTTP/1.1 200 OK\r\nset-cookie: node=a\r\nx-seen: 1\r\ncontent-length: 2\r\n\r\nok";
            connection.write_all(answer).await.unwrap();
            let answer = client.await.unwrap().unwrap();
            assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
            assert_eq!((answer.header("x-seen"), answer.header("set-cookie")), (Some("1"), None));
        }
    }

    #[tokio::test]
    async fn events_pass_one_by_one_and_a_client_that_leaves_is_noticed_upstream() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let balancer = Balancer::start(vec![listener.local_addr().unwrap()]).await.unwrap();
        let url = balancer.url("/mcp");
        let client = tokio::spawn(async move { http::open_stream("GET", &url, &[], "").await.unwrap() });
        let (mut connection, _) = serve_one(&listener).await;
        let head =
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        connection.write_all(head).await.unwrap();
        let mut stream = client.await.unwrap();
        for number in ["1", "2"] {
            connection.write_all(format!("9\r\ndata: {number}\n\n\r\n").as_bytes()).await.unwrap();
            let event = stream.event(http::ANSWER_DEADLINE).await.unwrap().unwrap();
            assert_eq!(event.data, number);
        }
        drop(stream);
        let mut rest = Vec::new();
        let end = tokio::time::timeout(http::ANSWER_DEADLINE, connection.read_to_end(&mut rest)).await;
        assert!(end.is_ok(), "the upstream connection stays open after the client left");
    }

    #[tokio::test]
    async fn a_target_that_is_gone_is_a_bad_gateway_until_the_targets_change() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let balancer = Balancer::start(vec![gone]).await.unwrap();
        assert_eq!(http::get(&balancer.url("/")).await.unwrap().status, 502);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        balancer.set_targets(vec![listener.local_addr().unwrap()]);
        let url = balancer.url("/");
        let client = tokio::spawn(async move { http::get(&url).await });
        let (mut connection, _) = serve_one(&listener).await;
        connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        assert_eq!(client.await.unwrap().unwrap().status, 204);
    }
}
