//! A client and a server, in memory, with a bridge between them.

use super::super::Bridges;
use crate::answer::{Answer, BodyStream, Broke};
use crate::ask::Payload;
use crate::config::{Protocol, Route};
use crate::headers::Headers;
use crate::mcp::{self, LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use crate::upstream::{Request, pipe::Pipe};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue},
};
use proto::core::route::OnLoss;
use proto::id::RouteId;
use proto::wire::Refusal;
use serde_json::{Value, json};
use std::{future::ready, sync::Arc, time::Duration};
use tokio::sync::mpsc;

pub(super) const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than anything here takes that does not wait for ever.
const TIME_MAX: Duration = Duration::from_secs(600);

/// The server's end of a pipe.
pub(super) struct Server {
    pub(super) reads: mpsc::Receiver<Bytes>,
    pub(super) writes: mpsc::Sender<Bytes>,
}

pub(super) fn pipe(capacity: usize) -> (Pipe, Server) {
    let (to, reads) = mpsc::channel(capacity);
    let (writes, from) = mpsc::channel(capacity);
    (Pipe { to, from }, Server { reads, writes })
}

impl Server {
    pub(super) async fn reads(&mut self) -> String {
        let message = tokio::time::timeout(TIME_MAX, self.reads.recv()).await.expect("a message in time");
        String::from_utf8(message.expect("a message").to_vec()).expect("text")
    }

    pub(super) async fn has_ended(&mut self) {
        let message = tokio::time::timeout(TIME_MAX, self.reads.recv()).await.expect("an end in time");
        assert_eq!(message, None);
    }

    pub(super) async fn says(&self, message: impl Into<Bytes>) {
        self.writes.send(message.into()).await.expect("the bridge reads");
    }

    pub(super) async fn answers(&self, id: Value) {
        self.says(json!({"jsonrpc": "2.0", "id": id, "result": {}}).to_string()).await;
    }
}

/// A client of one session, or of none yet.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) bridges: Arc<Bridges>,
    pub(super) headers: Headers,
}

impl Client {
    pub(super) fn new() -> Self {
        let mut headers = Headers::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { bridges: Arc::new(Bridges::default()), headers }
    }

    /// In a session with a server that waits for what comes.
    pub(super) async fn initialized(version: &str, capacity: usize) -> (Self, Server) {
        let mut client = Self::new();
        let (pipe, mut server) = pipe(capacity);
        let opening = client.opens(pipe);
        let serving = async {
            assert!(server.reads().await.contains("initialize"));
            let result = json!({"protocolVersion": version, "capabilities": {}});
            server.says(json!({"jsonrpc": "2.0", "id": 0, "result": result}).to_string()).await;
        };
        let (answer, ()) = tokio::join!(opening, serving);
        let answer = answer.expect("an answer");
        client.headers.insert(SESSION_ID, answer.headers()[SESSION_ID].clone());
        client.headers.insert(PROTOCOL_VERSION, HeaderValue::from_str(version).expect("a date"));
        (client, server)
    }

    /// The id of an event at this place.
    pub(super) fn id(&self, place: &str) -> String {
        let session = self.headers[SESSION_ID].to_str().expect("text");
        format!("{}-{place}", session[..8].trim_start_matches('0'))
    }

    pub(super) fn with(&self, name: HeaderName, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.insert(name, HeaderValue::from_str(value).expect("a header's value"));
        client
    }

    pub(super) async fn opens(&self, pipe: Pipe) -> Result<Answer, Refusal> {
        let body = Bytes::from(initialize());
        self.sends(Method::POST, body, ready(Ok(pipe))).await
    }

    pub(super) async fn posts(&self, message: impl Into<Bytes>) -> Result<Answer, Refusal> {
        self.sends(Method::POST, message.into(), async { panic!("opens nothing") }).await
    }

    pub(super) async fn calls(&self, id: Value) -> Reading {
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": {"_meta": {"progressToken": id}}});
        Reading::of(self.posts(call.to_string()).await.expect("an answer"))
    }

    pub(super) async fn gets(&self) -> Answer {
        self.sends(Method::GET, Bytes::new(), async { panic!("opens nothing") }).await.expect("an answer")
    }

    pub(super) async fn listens(&self) -> Reading {
        Reading::of(self.gets().await)
    }

    pub(super) async fn resumes(&self, after: &str) -> Reading {
        self.with(LAST_EVENT_ID, after).listens().await
    }

    pub(super) async fn deletes(&self) -> Answer {
        self.sends(Method::DELETE, Bytes::new(), async { panic!("opens nothing") }).await.expect("an answer")
    }

    pub(super) async fn sends(
        &self,
        method: Method,
        body: Bytes,
        open: impl Future<Output = Result<Pipe, Refusal>>,
    ) -> Result<Answer, Refusal> {
        let route = route();
        let request = Request {
            route: &route,
            method,
            target: "/mcp",
            headers: self.headers.clone(),
            body: &Payload::Whole(body),
            caller: None,
        };
        let exchanged = self.bridges.exchange(open, START_TIMEOUT, request);
        tokio::time::timeout(TIME_MAX, exchanged).await.expect("an answer in time")
    }
}

/// A body as far as it has been read.
pub(super) struct Reading {
    body: BodyStream,
    text: String,
}

impl Reading {
    pub(super) fn of(answer: Answer) -> Self {
        assert!(mcp::is_event_stream(answer.headers()), "{answer:?}");
        Self { body: answer.into_body(), text: String::new() }
    }

    /// The next event: its id and data, or its text where it has neither. `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<(String, String), Broke>> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field =
                    |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                let (id, data) = (field("id: ").to_owned(), field("data: ").to_owned());
                let data = if id.is_empty() && data.is_empty() { event.to_owned() } else { data };
                self.text = rest.to_owned();
                return Some(Ok((id, data)));
            }
            let frame = tokio::time::timeout(TIME_MAX, self.body.frame()).await.expect("an event in time");
            match frame {
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().expect("data");
                    self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
                }
                Some(Err(broke)) => return Some(Err(broke)),
                None => return None,
            }
        }
    }

    pub(super) async fn event(&mut self) -> (String, Value) {
        let (id, data) = self.next().await.expect("an event").expect("whole");
        (id, serde_json::from_str(&data).unwrap_or(Value::String(data)))
    }

    pub(super) async fn data(&mut self) -> Value {
        self.event().await.1
    }

    pub(super) async fn is_primed(&mut self) -> String {
        let (id, data) = self.event().await;
        assert_eq!(data, "");
        id
    }

    pub(super) async fn ends(&mut self) {
        assert_eq!(self.next().await, None);
    }
}

pub(super) fn initialize() -> String {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {}}).to_string()
}

pub(super) async fn text(answer: Answer) -> String {
    let body = answer.into_body().collect().await.expect("whole").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

pub(super) fn route() -> Route {
    Route {
        id: RouteId::of("/mcp"),
        path: "/mcp".into(),
        protocol: Protocol::Mcp,
        key: None,
        upstreams: Vec::new(),
        on_loss: OnLoss::Expire,
        idle_timeout: Duration::from_secs(60),
        sessions_max: 1,
        sessions_per_client_max: 1,
        body_len_max: 1,
        trust_annotations: true,
        auth: None,
    }
}
