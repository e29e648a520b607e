//! HTTP+SSE (2024-11-05) spoken by hand: one stream to read from, messages POSTed beside it, each to any node.
//! Called by tests; SDK clients of this transport are driven by `clients`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::http::{self, Answer, Stream};
use super::mcp::call;

/// A reply is on the stream as soon as the server has given it; a call may wait 10 s for its session's new owner.
pub const IN_TIME: Duration = Duration::from_secs(20);

/// A client, with the stream that it reads.
#[derive(Debug)]
pub struct OldClient {
    pub stream: Stream,
    /// Path and query of where its messages go.
    pub endpoint: String,
    /// What came while something else was waited for.
    pub besides: Vec<Value>,
}

impl OldClient {
    /// Opens the stream at `base` (such as `http://127.0.0.1:8080`) and reads where messages go.
    pub async fn connect(base: &str) -> anyhow::Result<OldClient> {
        let accept = [("accept", "text/event-stream")];
        let mut stream = http::open_stream("GET", &format!("{base}/mcp/sse"), &accept, "").await?;
        ensure!(stream.status == 200, "the stream was answered {}", stream.status);
        let first = stream.event(IN_TIME).await?.context("the stream ended at once")?;
        ensure!(first.name.as_deref() == Some("endpoint"), "the first event is {first:?}");
        Ok(OldClient { stream, endpoint: first.data, besides: Vec::new() })
    }

    /// The same with the handshake, of a client that can sample.
    pub async fn open(base: &str) -> anyhow::Result<OldClient> {
        let mut client = OldClient::connect(base).await?;
        let params = json!({
            "protocolVersion": "2024-11-05",
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "ringway-tests", "version": "1"},
        });
        let initialize = json!({"jsonrpc": "2.0", "id": "first", "method": "initialize", "params": params});
        let reply = client.ask(base, &initialize).await?;
        ensure!(reply["result"]["serverInfo"].is_object(), "initialize gave {reply}");
        client.tell(base, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        Ok(client)
    }

    /// The id that the endpoint names.
    pub fn session(&self) -> &str {
        self.endpoint.split_once("sessionId=").map_or("", |(_, id)| id)
    }

    /// Sends a message, whatever is answered.
    pub async fn post(&self, base: &str, message: &Value) -> anyhow::Result<Answer> {
        let json = [("content-type", "application/json")];
        http::request("POST", &format!("{base}{}", self.endpoint), &json, message.to_string()).await
    }

    /// Sends a message that has to be taken.
    pub async fn tell(&self, base: &str, message: &Value) -> anyhow::Result<()> {
        let answer = self.post(base, message).await?;
        ensure!(answer.status == 202, "{message} was answered {}: {}", answer.status, answer.text());
        Ok(())
    }

    /// Sends a request and waits for its reply.
    pub async fn ask(&mut self, base: &str, request: &Value) -> anyhow::Result<Value> {
        self.tell(base, request).await?;
        let id = request["id"].clone();
        self.reads(|message| message.get("method").is_none() && message["id"] == id).await
    }

    /// The next message on the stream that is meant; others are put aside.
    pub async fn reads(&mut self, is_meant: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        loop {
            let message = self.stream.message(IN_TIME).await?.context("the stream ended")?;
            if is_meant(&message) {
                return Ok(message);
            }
            self.besides.push(message);
        }
    }

    /// Calls the counter of our own servers and gives its number.
    pub async fn count(&mut self, base: &str, id: u64) -> anyhow::Result<u64> {
        let reply = self.ask(base, &call(id, "count", json!({}))).await?;
        let text = reply["result"]["content"][0]["text"].as_str();
        text.and_then(|text| text.parse().ok()).with_context(|| format!("count gave {reply}"))
    }
}
