//! The HTTP+SSE transport of 2024-11-05 spoken by hand: one stream that carries every answer, and a place to POST
//! messages to, which the stream's first event names. Called by tests.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::http::{self, Stream};
use super::mcp::initialize;

/// Some servers start a process first.
const SOON: Duration = Duration::from_secs(20);

/// The revision that brought the transport, and the last one to have it.
pub const PROTOCOL: &str = "2024-11-05";

/// One session, which lives as long as its stream.
#[derive(Debug)]
pub struct OldSession {
    pub stream: Stream,
    /// Path and query that messages are posted to.
    pub endpoint: String,
}

impl OldSession {
    /// Opens the stream and waits for its first event, without initializing a session.
    pub async fn connect(sse_url: &str) -> anyhow::Result<OldSession> {
        let mut stream = http::open_stream("GET", sse_url, &[("accept", "text/event-stream")], "").await?;
        ensure!(stream.status == 200, "GET {sse_url} answered {}", stream.status);
        let first = stream.event(SOON).await?.context("the stream ends")?;
        ensure!(first.name.as_deref() == Some("endpoint"), "the first event names no endpoint: {first:?}");
        // A path, or a whole URL.
        let endpoint = match first.data.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map(|(_, path)| format!("/{path}")),
            None => Some(first.data.clone()),
        };
        Ok(OldSession { stream, endpoint: endpoint.context("a URL without a path")? })
    }

    /// The same, with the handshake sent to `origin` (`http://HOST:PORT`).
    pub async fn open(sse_url: &str, origin: &str) -> anyhow::Result<OldSession> {
        let mut session = OldSession::connect(sse_url).await?;
        let mut hello = initialize(0);
        hello["params"]["protocolVersion"] = PROTOCOL.into();
        let answer = session.ask(origin, &hello).await?;
        ensure!(answer["result"]["serverInfo"].is_object(), "initialize gave {answer}");
        session.tell(origin, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(session)
    }

    /// Posts a message; anything but 202 is an error.
    pub async fn tell(&self, origin: &str, message: &Value) -> anyhow::Result<()> {
        let status = self.post(origin, message).await?;
        ensure!(status == 202, "the message was answered with {status}");
        Ok(())
    }

    /// Posts a message and gives the status.
    pub async fn post(&self, origin: &str, message: &Value) -> anyhow::Result<u16> {
        let url = format!("{origin}{}", self.endpoint);
        let headers = [("content-type", "application/json")];
        Ok(http::request("POST", &url, &headers, message.to_string()).await?.status)
    }

    /// Posts a request and waits for its answer on the stream; what comes before it is passed over.
    pub async fn ask(&mut self, origin: &str, request: &Value) -> anyhow::Result<Value> {
        self.tell(origin, request).await?;
        loop {
            let message = self.stream.message(SOON).await?.context("the stream ends without the answer")?;
            if message.get("method").is_none() && message["id"] == request["id"] {
                return Ok(message);
            }
        }
    }
}
