use super::*;
use crate::answer::{Broke, whole};
use crate::headers::Headers;
use hyper::header::HeaderValue;
use hyper::{
    Request, Response,
    body::{Body, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(10);

/// A server that says what the test says, and answers each POST with the next of some statuses.
struct Server {
    url: UpstreamUrl,
    http: Arc<Http>,
    said: mpsc::Sender<Bytes>,
    asked: mpsc::Receiver<(String, Headers, Bytes)>,
}

struct Said(mpsc::Receiver<Bytes>);

impl Body for Said {
    type Data = Bytes;
    type Error = Broke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broke>>> {
        self.0.poll_recv(cx).map(|said| said.map(|said| Ok(Frame::data(said))))
    }
}

impl Server {
    async fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let (said, to_say) = mpsc::channel(8);
        let (ask, asked) = mpsc::channel(8);
        let script = Arc::new(Mutex::new((Some(to_say), statuses.to_vec())));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, ask) = (script.clone(), ask.clone());
                let service = service_fn(move |request| answer(request, script.clone(), ask.clone()));
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        let url = UpstreamUrl::parse(&format!("http://{address}/api/sse")).expect("a URL");
        let http = Arc::new(Http::new(std::iter::once(&url)));
        Self { url, http, said, asked }
    }

    async fn say(&self, text: &str) {
        self.said.send(Bytes::copy_from_slice(text.as_bytes())).await.expect("somebody listens");
    }

    async fn open(&self) -> Result<Pipe, Refusal> {
        let headers = Headers::from_iter([
            (header::AUTHORIZATION, HeaderValue::from_static("Bearer x")),
            (SESSION_ID, HeaderValue::from_static("another transport's")),
            (header::CONTENT_LENGTH, HeaderValue::from_static("7")),
        ]);
        open(&self.http, &self.url, headers).await
    }
}

type Script = Arc<Mutex<(Option<mpsc::Receiver<Bytes>>, Vec<u16>)>>;

async fn answer(
    request: Request<Incoming>,
    script: Script,
    ask: mpsc::Sender<(String, Headers, Bytes)>,
) -> Result<Response<BodyStream>, Broke> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("a request").to_bytes();
    let path = format!("{} {}", head.method, head.uri);
    ask.send((path, head.headers.into(), body)).await.expect("the test reads");
    let mut script = script.lock().expect("nobody panics");
    if head.method == Method::GET {
        let mut answer = Response::new(Said(script.0.take().expect("one GET")).boxed_unsync());
        answer.headers_mut().insert(header::CONTENT_TYPE, EVENT_STREAM);
        return Ok(answer);
    }
    let mut answer = Response::new(whole("Accepted"));
    *answer.status_mut() = StatusCode::from_u16(script.1.remove(0)).expect("a status");
    Ok(answer)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, future).await.expect("not in time")
}

#[tokio::test]
async fn messages_go_both_ways_in_their_order() {
    let mut server = Server::start(&[202, 200]).await;
    server.say(": hello\n\nevent: endpoint\ndata: /api/messages?sessionId=7\n\n").await;
    let mut pipe = soon(server.open()).await.expect("it speaks HTTP+SSE");
    let (path, headers, _) = soon(server.asked.recv()).await.expect("a GET");
    assert_eq!((path.as_str(), &headers[header::ACCEPT]), ("GET /api/sse", &EVENT_STREAM));
    for message in [r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, r#"{"jsonrpc":"2.0","method":"b"}"#] {
        pipe.to.send(message.into()).await.expect("it takes messages");
        let (path, headers, body) = soon(server.asked.recv()).await.expect("a POST");
        assert_eq!((path.as_str(), &*body), ("POST /api/messages?sessionId=7", message.as_bytes()));
        assert_eq!(headers[header::AUTHORIZATION], "Bearer x");
        assert!(!headers.contains_key(SESSION_ID) && headers[header::CONTENT_TYPE] == "application/json");
    }
    server.say("event: message\ndata: {\"a\":\ndata: 1}\n\n: ping\n\ndata: {}").await;
    server.say("\n\n").await;
    assert_eq!(soon(pipe.from.recv()).await.as_deref(), Some(b"{\"a\": 1}".as_slice()));
    assert_eq!(soon(pipe.from.recv()).await.as_deref(), Some(b"{}".as_slice()));
    drop(pipe.to);
    assert_eq!(soon(pipe.from.recv()).await, None);
    soon(server.said.closed()).await; // the server knows
}

#[tokio::test]
async fn a_request_that_is_not_taken_is_answered_and_a_lost_session_ends() {
    let mut server = Server::start(&[500, 400, 404]).await;
    server.say("event: endpoint\ndata: messages\n\n").await;
    let mut pipe = soon(server.open()).await.expect("it speaks HTTP+SSE");
    for message in [r#"{"jsonrpc":"2.0","id":"a","method":"x"}"#, r#"{"jsonrpc":"2.0","method":"x"}"#] {
        pipe.to.send(message.into()).await.expect("it takes messages");
    }
    let error = soon(pipe.from.recv()).await.expect("an answer");
    let error: serde_json::Value = serde_json::from_slice(&error).expect("JSON");
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!("a"), &json!(mcp::NOT_SERVED)));
    assert_eq!(
        error["error"]["data"],
        json!({"reason": "upstream_status", "status": 500, "mayHaveRun": true})
    );
    pipe.to.send(r#"{"jsonrpc":"2.0","id":2,"method":"x"}"#.into()).await.expect("it takes messages");
    assert_eq!(soon(pipe.from.recv()).await, None, "nothing answers a notification, and 404 is the end");
    server.asked.close();
}

#[tokio::test]
async fn the_end_of_the_stream_is_the_end_of_the_session() {
    let mut server = Server::start(&[]).await;
    server.say("event: endpoint\ndata: ?to\n\ndata: {}\n\n").await;
    let mut pipe = soon(server.open()).await.expect("it speaks HTTP+SSE");
    server.asked.close();
    let (ended, _) = mpsc::channel(1);
    drop(std::mem::replace(&mut server.said, ended));
    assert_eq!(soon(pipe.from.recv()).await.as_deref(), Some(b"{}".as_slice()));
    assert_eq!(soon(pipe.from.recv()).await, None);
    assert!(soon(pipe.to.send(Bytes::new())).await.is_err() || pipe.to.is_closed());
}

#[tokio::test]
async fn a_server_that_points_elsewhere_or_nowhere_is_refused() {
    for first in ["event: endpoint\ndata: http://elsewhere.example/messages\n\n", ": nothing\n\n"] {
        let mut server = Server::start(&[]).await;
        server.say(first).await;
        if first.starts_with(':') {
            let (ended, _) = mpsc::channel(1);
            drop(std::mem::replace(&mut server.said, ended));
        }
        let refusal = soon(server.open()).await.expect_err(first);
        assert_eq!(refusal, Refusal::not_run(Reason::UpstreamInvalid));
    }
}

#[test]
fn an_endpoint_is_resolved_against_the_url_of_its_stream() {
    let url = UpstreamUrl::parse("http://Localhost:3001/api/sse").expect("a URL");
    for (endpoint, target) in [
        ("/messages?sessionId=1", Some("/messages?sessionId=1")),
        ("messages/?session_id=1#x", Some("/api/messages/?session_id=1")),
        ("?id=1", Some("/api/sse?id=1")),
        ("http://localhost:3001/m?x", Some("/m?x")),
        ("//localhost:3001/m", Some("/m")),
        ("http://localhost:3002/m", None),
        ("http://localhost/m", None),
        ("//elsewhere.example/m", None),
        ("https://localhost:3001/m", None),
        ("mailto:a@b", None),
        ("", None),
        ("/a b", None),
    ] {
        assert_eq!(resolve(&url, endpoint).as_deref(), target, "{endpoint}");
    }
    let bare = UpstreamUrl::parse("http://localhost").expect("a URL");
    assert_eq!((own_target(&bare).as_str(), resolve(&bare, "m").as_deref()), ("/", Some("/m")));
}
