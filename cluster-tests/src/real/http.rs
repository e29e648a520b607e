//! A plain HTTP client for tests: one connection per request, nothing pooled, retried or followed, so that what
//! a test sees is what the node did. Called by the tests and by everything in `real` that asks a node something.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// No answer of a node may take longer: it holds a request for 10 s at most, and a silent peer is noticed by then.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The header's value, where there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text, for messages and comparisons.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("status {} with a body that is no JSON: {}", self.status, self.text()))
    }

    /// The JSON-RPC messages of the body, be it one JSON document or a stream of events.
    pub fn messages(&self) -> anyhow::Result<Vec<Value>> {
        if !self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            let body = self.json()?;
            return Ok(body.as_array().cloned().unwrap_or_else(|| vec![body]));
        }
        let mut parser = EventParser::default();
        let events = parser.feed(&self.body);
        events
            .iter()
            .filter(|event| !event.data.is_empty())
            .map(|event| serde_json::from_str(&event.data).with_context(|| format!("event {event:?}")))
            .collect()
    }

    /// The message that answers a request: the one with a result or an error.
    pub fn reply(&self) -> anyhow::Result<Value> {
        let messages = self.messages()?;
        let reply = messages.iter().find(|message| message.get("result").or(message.get("error")).is_some());
        reply.cloned().with_context(|| format!("status {} without a reply: {}", self.status, self.text()))
    }
}

/// Sends a request and reads the whole answer.
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Answer> {
    let whole = async {
        let response = send(method, url, headers, body.into()).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.context("reading the answer's body")?.to_bytes();
        anyhow::Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    };
    match tokio::time::timeout(ANSWER_DEADLINE, whole).await {
        Ok(answer) => answer.with_context(|| format!("{method} {url}")),
        Err(_) => bail!("{method} {url}: no complete answer within {ANSWER_DEADLINE:?}"),
    }
}

/// `GET` without further headers.
pub async fn get(url: &str) -> anyhow::Result<Answer> {
    request("GET", url, &[], Bytes::new()).await
}

/// Sends a request and gives the answer as soon as its head is there; the body is read event by event.
pub async fn open_stream(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> anyhow::Result<Stream> {
    let response = tokio::time::timeout(ANSWER_DEADLINE, send(method, url, headers, body.into()))
        .await
        .map_err(|_| anyhow::anyhow!("{method} {url}: no head within {ANSWER_DEADLINE:?}"))?
        .with_context(|| format!("{method} {url}"))?;
    let (head, body) = response.into_parts();
    Ok(Stream {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        parser: EventParser::default(),
        ready: std::collections::VecDeque::new(),
    })
}

/// Writes `bytes` as they are and reads until the other side closes or says nothing more for `quiet`.
/// For what no HTTP library would send.
pub async fn raw(to: SocketAddr, bytes: &[u8], quiet: Duration) -> anyhow::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(to).await.with_context(|| format!("connecting to {to}"))?;
    connection.write_all(bytes).await.context("writing")?;
    let mut said = Vec::new();
    loop {
        match tokio::time::timeout(quiet, connection.read_buf(&mut said)).await {
            Ok(Ok(0)) | Err(_) => return Ok(said),
            Ok(Ok(_)) => {}
            // A reset after an answer is the end of it, a reset instead of one is a finding.
            Ok(Err(_)) if !said.is_empty() => return Ok(said),
            Ok(Err(error)) => return Err(error).context("reading"),
        }
    }
}

async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Bytes,
) -> anyhow::Result<Response<Incoming>> {
    let uri: Uri = url.parse().context("no URL")?;
    let authority = uri.authority().context("a URL without a host")?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let connection = TcpStream::connect(authority).await.context("connecting")?;
    connection.set_nodelay(true)?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    // Ends by itself once the answer has been read or dropped.
    tokio::spawn(driver);
    let mut request = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header(HOST, authority);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Ok(sender.send_request(request.body(Full::new(body))?).await?)
}

/// An answer whose body is still coming. Dropping it closes the connection, as a client does that goes away.
#[derive(Debug)]
pub struct Stream {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    parser: EventParser,
    ready: std::collections::VecDeque<Event>,
}

impl Stream {
    /// The header's value, where there is one and it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next event, or `None` where the stream ended cleanly. Comments (keep-alives) are passed over.
    pub async fn event(&mut self, deadline: Duration) -> anyhow::Result<Option<Event>> {
        let next = async {
            loop {
                if let Some(event) = self.ready.pop_front() {
                    return Ok(Some(event));
                }
                match self.body.frame().await {
                    Some(frame) => {
                        let frame = frame.context("the stream broke")?;
                        self.ready
                            .extend(frame.data_ref().map(|data| self.parser.feed(data)).unwrap_or_default());
                    }
                    None => return Ok(None),
                }
            }
        };
        tokio::time::timeout(deadline, next)
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no event within {deadline:?}")))
    }

    /// The next event that carries a JSON-RPC message.
    pub async fn message(&mut self, deadline: Duration) -> anyhow::Result<Option<Value>> {
        while let Some(event) = self.event(deadline).await? {
            if !event.data.is_empty() {
                let message = serde_json::from_str(&event.data);
                return message.with_context(|| format!("event {event:?}")).map(Some);
            }
        }
        Ok(None)
    }
}

/// A server-sent event, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub id: Option<String>,
    pub name: Option<String>,
    pub retry: Option<u64>,
    pub data: String,
}

/// Cuts a stream of bytes into events. Unlike a browser it gives events without data too: tests look at those.
#[derive(Debug, Default)]
struct EventParser {
    line: Vec<u8>,
    event: Event,
}

impl EventParser {
    fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line =
                String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim_end_matches('\r').to_owned();
            if !line.is_empty() {
                self.field(&line);
            } else if self.event != Event::default() {
                let mut event = std::mem::take(&mut self.event);
                // Each data line ended with a line break; the last one does not count.
                event.data.pop();
                events.push(event);
            }
        }
        events
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => self.event.id = Some(value.to_owned()),
            "event" => self.event.name = Some(value.to_owned()),
            "retry" => self.event.retry = value.parse().ok(),
            "data" => {
                self.event.data += value;
                self.event.data.push('\n');
            }
            // A comment starts with the colon; other names are to be ignored by the format's own rule.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::*;

    #[test]
    fn events_are_cut_wherever_the_network_cuts_them() {
        let stream =
            b": ping\n\nid: 7\r\nretry: 300\r\ndata:\r\n\r\nevent: message\ndata: {\"a\":\ndata: 1}\n\n";
        let priming = Event { id: Some("7".into()), retry: Some(300), ..Event::default() };
        let message = Event { name: Some("message".into()), data: "{\"a\":\n1}".into(), ..Event::default() };
        for cut in 0..stream.len() {
            let mut parser = EventParser::default();
            let mut events = parser.feed(&stream[..cut]);
            events.extend(parser.feed(&stream[cut..]));
            assert_eq!(events, [priming.clone(), message.clone()], "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn a_body_goes_in_chunks_where_the_test_says_so() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x", listener.local_addr().unwrap());
        let headers = [("transfer-encoding", "chunked")];
        let client = tokio::spawn(async move { request("POST", &url, &headers, "body").await });
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"4\r\nbody\r\n0\r\n\r\n") {
            assert_ne!(
                connection.read_buf(&mut said).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&said)
            );
        }
        assert!(!String::from_utf8(said).unwrap().contains("content-length"));
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(client.await.unwrap().unwrap().status, 200);
    }

    #[test]
    fn the_reply_is_found_among_the_notifications_of_a_stream() {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "text/event-stream".parse().unwrap());
        let body = "id: 1\ndata:\n\ndata: {\"method\":\"x\"}\n\ndata: {\"id\":3,\"result\":{}}\n\n";
        let answer = Answer { status: 200, headers, body: body.into() };
        assert_eq!(answer.reply().unwrap()["id"], 3);
        assert_eq!(answer.messages().unwrap().len(), 2);
    }
}
