//! MCP spoken by hand, for tests that must see each answer as it is: no SDK, no retries, one request at a time.
//! Called by tests; SDK clients are driven by `clients`.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::http::{self, Answer, Stream};

/// The revision that `open` asks for: the last one with sessions.
pub const PROTOCOL: &str = "2025-11-25";

/// The headers of every POST; the session id and others are added.
pub const POST_HEADERS: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

/// A session opened at one URL and usable at any other of the cluster.
#[derive(Debug, Clone)]
pub struct Session {
    pub id: String,
    pub protocol: String,
}

impl Session {
    /// Initializes a session at `url`, with the notification that completes it.
    pub async fn open(url: &str) -> anyhow::Result<Session> {
        Session::open_as(url, json!({})).await
    }

    /// The same as a client with these capabilities.
    pub async fn open_as(url: &str, capabilities: Value) -> anyhow::Result<Session> {
        let mut hello = initialize(1);
        hello["params"]["capabilities"] = capabilities;
        Session::open_with(url, &hello).await
    }

    /// The same as a client of that name, whatever it is.
    pub async fn open_named(url: &str, client: &str) -> anyhow::Result<Session> {
        let mut hello = initialize(1);
        hello["params"]["clientInfo"]["name"] = client.into();
        Session::open_with(url, &hello).await
    }

    async fn open_with(url: &str, hello: &Value) -> anyhow::Result<Session> {
        let answer = http::request("POST", url, &POST_HEADERS, hello.to_string()).await?;
        anyhow::ensure!(answer.status == 200, "initialize answered {}: {}", answer.status, answer.text());
        let id = answer.header("mcp-session-id").context("no session id")?.to_owned();
        let result = answer.reply()?;
        let protocol =
            result["result"]["protocolVersion"].as_str().context("no protocol version")?.to_owned();
        let session = Session { id, protocol };
        let answer =
            session.post(url, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await?;
        anyhow::ensure!(answer.status == 202, "initialized answered {}: {}", answer.status, answer.text());
        Ok(session)
    }

    /// Sends one message of the session to `url`.
    pub async fn post(&self, url: &str, message: &Value) -> anyhow::Result<Answer> {
        http::request("POST", url, &self.headers(), message.to_string()).await
    }

    /// Sends one message of the session to `url` and reads the answer as it comes.
    pub async fn post_stream(&self, url: &str, message: &Value) -> anyhow::Result<Stream> {
        http::open_stream("POST", url, &self.headers(), message.to_string()).await
    }

    /// Calls a tool and gives its text. An error of any kind is an error here.
    pub async fn call(&self, url: &str, id: u64, tool: &str, arguments: Value) -> anyhow::Result<String> {
        let answer = self.post(url, &call(id, tool, arguments)).await?;
        anyhow::ensure!(answer.status == 200, "{tool} answered {}: {}", answer.status, answer.text());
        let reply = answer.reply()?;
        anyhow::ensure!(reply["id"] == id, "the reply is for another request: {reply}");
        let text = reply["result"]["content"][0]["text"].as_str();
        Ok(text.with_context(|| format!("{tool} gave {reply}"))?.to_owned())
    }

    /// Calls the counter of our own servers and gives its number.
    pub async fn count(&self, url: &str, id: u64) -> anyhow::Result<u64> {
        let said = self.call(url, id, "count", json!({})).await?;
        let digits: String = said.chars().filter(char::is_ascii_digit).collect();
        digits.parse().with_context(|| format!("count gave {said}"))
    }

    /// Opens the stream on which the server speaks by itself.
    pub async fn listen(&self, url: &str) -> anyhow::Result<Stream> {
        self.get(url, &[("accept", "text/event-stream")]).await
    }

    /// Asks for what came on a stream after the event `last`, and for the rest of that stream.
    pub async fn resume(&self, url: &str, last: &str) -> anyhow::Result<Stream> {
        self.get(url, &[("accept", "text/event-stream"), ("last-event-id", last)]).await
    }

    async fn get(&self, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Stream> {
        let session = self.headers().into_iter().filter(|(name, _)| name.starts_with("mcp-"));
        let headers: Vec<_> = session.chain(headers.iter().copied()).collect();
        http::open_stream("GET", url, &headers, "").await
    }

    /// Ends the session.
    pub async fn delete(&self, url: &str) -> anyhow::Result<Answer> {
        http::request("DELETE", url, &self.headers(), "").await
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        let session =
            [("mcp-session-id", self.id.as_str()), ("mcp-protocol-version", self.protocol.as_str())];
        POST_HEADERS.into_iter().chain(session).collect()
    }
}

/// The request that opens a session.
pub fn initialize(id: u64) -> Value {
    let client = json!({"name": "ringway-tests", "version": "1"});
    let params = json!({"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": params})
}

/// A request that calls a tool.
pub fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": params})
}

/// The answer to a request of the server's.
pub fn result(id: &Value, result: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// The text of a tool's answer, where there is one.
pub fn said(reply: &Value) -> Option<&str> {
    reply["result"]["content"][0]["text"].as_str()
}
