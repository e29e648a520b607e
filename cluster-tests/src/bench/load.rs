//! Load: prepared requests over kept connections, each answer checked. Called by `stage`, `rounds` and the cases.
//!
//! It writes bytes and looks for bytes. An HTTP client would take CPU from what is measured on the same cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::backend;

/// Connections of every load, each with one request at a time.
pub(super) const CONNECTIONS: usize = 16;

/// A node holds a request for 10 s at most; whatever takes longer is a finding and not a measurement.
const ANSWER_DEADLINE: Duration = Duration::from_secs(12);

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"ringway-bench","version":"1"}}}"#;
const QUESTION: &str = "a question of usual length, neither short nor long";

/// A request that opens a session.
pub(super) fn initialize(at: SocketAddr) -> Arc<[u8]> {
    post(at, "", INITIALIZE)
}

/// A request in a session, answered with `ANSWER_LEN` bytes.
pub(super) fn call(at: SocketAddr, session: &str) -> Arc<[u8]> {
    post(at, &in_session(session), &asking(QUESTION))
}

/// The same with a body of so many bytes, answered with as many.
pub(super) fn call_of(at: SocketAddr, session: &str, len: usize) -> Arc<[u8]> {
    let text = "x".repeat(len.saturating_sub(asking("").len()));
    let headers = in_session(session) + &format!("{}: {len}\r\n", backend::ANSWER_LEN_ASKED);
    post(at, &headers, &asking(&text))
}

fn in_session(session: &str) -> String {
    format!("mcp-session-id: {session}\r\nmcp-protocol-version: 2025-11-25\r\n")
}

fn asking(text: &str) -> String {
    let params = format!(r#"{{"name":"echo","arguments":{{"text":"{text}"}}}}"#);
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

fn post(at: SocketAddr, headers: &str, body: &str) -> Arc<[u8]> {
    let len = body.len();
    let accept = "accept: application/json, text/event-stream\r\ncontent-type: application/json\r\n";
    let head = format!("POST /mcp HTTP/1.1\r\nhost: {at}\r\nuser-agent: bench\r\n{accept}{headers}");
    Arc::from(format!("{head}content-length: {len}\r\n\r\n{body}").into_bytes())
}

/// What every answer must be for its measurement to count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// To a call, of so many bytes, from a node this many hops away; other products say nothing of hops.
    Called { len: usize, hops: Option<&'static str> },
    /// To `call`, from whichever node.
    CalledAnywhere,
    /// To `initialize`: a session id.
    Opened,
}

impl Expect {
    pub(super) fn check(self, answer: &Answer<'_>) -> anyhow::Result<()> {
        let right = match self {
            Expect::Called { len, hops } => answer.body.len() == len && answer.header("ringway-hops") == hops,
            Expect::CalledAnywhere => answer.body.len() == backend::ANSWER_LEN,
            Expect::Opened => answer.header("mcp-session-id").is_some(),
        };
        let is_ok = answer.head.starts_with("HTTP/1.1 200");
        let shown = &answer.body[..answer.body.len().min(SHOWN)];
        ensure!(right && is_ok, "not {self:?}: {}{}", answer.head, String::from_utf8_lossy(shown));
        Ok(())
    }
}

/// Of a wrong answer's body, in bytes.
const SHOWN: usize = 1_000;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    head: &'a str,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(named, _)| named.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// A kept connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub(super) async fn connect(at: SocketAddr) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(at).await.with_context(|| format!("connecting to {at}"))?;
        stream.set_nodelay(true)?;
        Ok(Client { stream, read: Vec::with_capacity(4096) })
    }

    pub(super) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.read.clear();
        self.stream.write_all(request).await.context("writing a request")?;
        let head_len = loop {
            self.read_more().await?;
            if let Some(at) = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let head = str::from_utf8(&self.read[..head_len]).context("a head that is no text")?;
        let announced = Answer { head, body: &[] }.header("content-length");
        let body_len: usize = announced.with_context(|| format!("no length: {head}"))?.parse()?;
        self.read.reserve((head_len + body_len).saturating_sub(self.read.len()));
        while self.read.len() < head_len + body_len {
            self.read_more().await?;
        }
        let (head, body) = self.read.split_at(head_len);
        Ok(Answer { head: str::from_utf8(head)?, body })
    }

    async fn read_more(&mut self) -> anyhow::Result<()> {
        let read = tokio::time::timeout(ANSWER_DEADLINE, self.stream.read_buf(&mut self.read)).await;
        if read.context("no answer in time")?.context("reading an answer")? == 0 {
            bail!("the connection ended before its answer")
        }
        Ok(())
    }
}

/// A load to be put on one address: a request per connection, sent again and again.
#[derive(Debug, Clone)]
pub(super) struct Load {
    pub(super) at: SocketAddr,
    pub(super) requests: Vec<Arc<[u8]>>,
    pub(super) expect: Expect,
}

/// When requests are sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// The next one follows the answer.
    Closed { time: Duration },
    /// The same, for a number of requests over all connections.
    Counted { requests: u64 },
    /// At times fixed beforehand, so many each second over all connections.
    Open { per_second: u32, time: Duration },
}

/// What came of a load.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) answered: u64,
    pub(super) took: Duration,
    /// From when a request was due to its whole answer, sorted. A request that is late because the answer before it
    /// is late counts from its due time; one that is late because the timer (1 ms) is, from when it was sent.
    pub(super) latencies: Vec<Duration>,
}

impl Outcome {
    pub(super) fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    pub(super) fn percentile(&self, percent: usize) -> Duration {
        let at = (self.latencies.len() * percent / 100).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

impl Load {
    /// New sessions.
    pub(super) fn opening(at: SocketAddr) -> Load {
        Load { at, requests: vec![initialize(at); CONNECTIONS], expect: Expect::Opened }
    }

    /// Puts the load on, over connections of its own.
    pub(super) async fn run(&self, pace: Pace) -> anyhow::Result<Outcome> {
        let mut clients = Vec::with_capacity(self.requests.len());
        for _ in &self.requests {
            clients.push(Client::connect(self.at).await?);
        }
        let (count, begin) = (clients.len() as u32, Instant::now());
        let mut running = JoinSet::new();
        for (turn, (client, request)) in (0..).zip(clients.into_iter().zip(&self.requests)) {
            let (request, expect) = (request.clone(), self.expect);
            match pace {
                Pace::Closed { time } => {
                    running.spawn(closed(client, request, expect, begin + time, u64::MAX))
                }
                Pace::Counted { requests } => {
                    let share = requests / u64::from(count)
                        + u64::from(u64::from(turn) < requests % u64::from(count));
                    running.spawn(closed(client, request, expect, begin + FAR, share))
                }
                Pace::Open { per_second, time } => {
                    let every = Duration::from_secs(1) * count / per_second;
                    let first = begin + every * turn / count;
                    running.spawn(open(client, request, expect, first, every, begin + time))
                }
            };
        }
        let mut all = Outcome::default();
        while let Some(one) = running.join_next().await {
            let one = one??;
            all.answered += one.answered;
            all.latencies.extend(one.latencies);
        }
        all.took = begin.elapsed();
        all.latencies.sort_unstable();
        Ok(all)
    }
}

/// A bound for a load that is bounded by its count.
const FAR: Duration = Duration::from_secs(300);

async fn closed(
    mut client: Client,
    request: Arc<[u8]>,
    expect: Expect,
    end: Instant,
    count: u64,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    while outcome.answered < count && Instant::now() < end {
        expect.check(&client.exchange(&request).await?)?;
        outcome.answered += 1;
    }
    Ok(outcome)
}

async fn open(
    mut client: Client,
    request: Arc<[u8]>,
    expect: Expect,
    first: Instant,
    every: Duration,
    end: Instant,
) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut due = first;
    while due < end {
        let is_late = Instant::now() > due;
        if !is_late {
            tokio::time::sleep_until(due).await;
        }
        let from = if is_late { due } else { Instant::now() };
        expect.check(&client.exchange(&request).await?)?;
        outcome.latencies.push(from.elapsed());
        outcome.answered += 1;
        due += every;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_the_length_that_is_asked_for() {
        let at = SocketAddr::from(([127, 0, 0, 1], 80));
        let request = call_of(at, "s", 1_024);
        let text = str::from_utf8(&request).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains("content-length: 1024") && head.contains("x-bench-answer-len: 1024"), "{head}");
        assert_eq!(body.len(), 1_024);
        let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(json["method"], "tools/call");
    }
}
