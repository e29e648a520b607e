//! A client's end of an event stream, in bytes by hand: thousands of HTTP clients would take memory and time from what
//! is measured. Called by `streams`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::backend;

/// A head and a first event come within milliseconds; later ones when they are due.
const EVENT_DEADLINE: Duration = Duration::from_secs(12);

/// An open stream.
#[derive(Debug)]
pub(super) struct Stream {
    connection: TcpStream,
    lines: Lines,
}

impl Stream {
    /// Asks for a stream, on which the server says the time once or each `tick`; gives it when the first event has come,
    /// and how long that took.
    pub(super) async fn open(
        at: SocketAddr,
        session: &str,
        tick: Option<Duration>,
    ) -> anyhow::Result<(Stream, Duration)> {
        let connection = TcpStream::connect(at).await.with_context(|| format!("connecting to {at}"))?;
        connection.set_nodelay(true)?;
        let tick =
            tick.map_or_else(String::new, |tick| format!("{}: {}\r\n", backend::TICK_MS, tick.as_millis()));
        let head = format!(
            "GET /mcp HTTP/1.1\r\nhost: {at}\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\n{tick}\r\n"
        );
        let (mut stream, asked) = (Stream { connection, lines: Lines::default() }, Instant::now());
        stream.connection.write_all(head.as_bytes()).await?;
        stream.said().await.with_context(|| format!("the first event of a stream at {at}"))?;
        let took = asked.elapsed();
        let status = stream.lines.first.take().unwrap_or_default();
        ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
        Ok((stream, took))
    }

    /// How long the events that come next were on their way: the server writes down when it said each.
    pub(super) async fn delays(&mut self) -> anyhow::Result<Vec<Duration>> {
        let said = self.said().await?;
        let now = backend::clock_ns();
        let delay =
            |said: u128| Duration::from_nanos(u64::try_from(now.saturating_sub(said)).unwrap_or(u64::MAX));
        Ok(said.into_iter().map(delay).collect())
    }

    /// When the events that come next were said: at least one.
    async fn said(&mut self) -> anyhow::Result<Vec<u128>> {
        let mut read = [0; 4096];
        loop {
            let reading = tokio::time::timeout(EVENT_DEADLINE, self.connection.read(&mut read));
            let len = reading.await.context("no event in time")?.context("reading an event")?;
            ensure!(len > 0, "the stream ended: {}", self.lines.first.as_deref().unwrap_or_default());
            let said = self.lines.feed(&read[..len]);
            if !said.is_empty() {
                return Ok(said);
            }
        }
    }
}

/// Cuts what comes into lines. Heads, comments, ids and the sizes of chunks are lines that say no time.
#[derive(Debug, Default)]
struct Lines {
    /// The status line, until it has been looked at.
    first: Option<String>,
    has_begun: bool,
    begun: Vec<u8>,
}

impl Lines {
    fn feed(&mut self, bytes: &[u8]) -> Vec<u128> {
        let mut said = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                break;
            }
            let line = String::from_utf8_lossy(&self.begun);
            let line = line.trim_end();
            said.extend(line.strip_prefix("data: ").and_then(|time| time.parse::<u128>().ok()));
            if !std::mem::replace(&mut self.has_begun, true) {
                self.first = Some(line.to_owned());
            }
            self.begun.clear();
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_wherever_the_network_cuts_them() {
        let text =
            b"HTTP/1.1 200 OK\r\n\r\n14\r\nid: 0\ndata: 123\n\n\r\n14\r\n: ping\n\nid: 1\ndata: 456\n\n\r\n";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let said = [lines.feed(&text[..cut]), lines.feed(&text[cut..])].concat();
            assert_eq!(said, [123, 456], "cut at {cut}");
            assert_eq!(lines.first.as_deref(), Some("HTTP/1.1 200 OK"));
        }
    }
}
