//! What an open stream costs on which nothing is said: at the node where its client is, and at the node that owns its
//! session; and how much later an event comes for each hop. Called by `soak`.
//!
//! Every measured session is owned by the node `a`. Its stream is opened at `b`, so that `b` grows by what an entry node
//! holds and `a` by what an owner holds; or at `a` itself.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::backend;
use super::children::Child;
use super::report::Spread;
use super::soak::tally;
use super::{memory, process, progress};
use crate::real::cluster::{Cluster, Plan};
use crate::real::http;
use crate::real::mcp::{POST_HEADERS, initialize};
use crate::real::route::Route;

/// Opened and closed before anything is measured: code, buffers and connections between nodes are there then.
const WARM_UP: usize = 100;

/// Events whose way is timed.
const TICKS: usize = 300;
const TICK: Duration = Duration::from_millis(10);

/// A head and a first event come within milliseconds.
const FIRST_DEADLINE: Duration = Duration::from_secs(12);

/// What one node grew by, per stream, in KiB.
type PerStream = f64;

pub(super) async fn measure(streams: usize) -> anyhow::Result<()> {
    let backend = Child::backend().await?;
    println!("## {streams} idle streams\n");
    println!(
        "| streams at | entry node, KiB each | owning node, KiB each | all closed: MiB more than before, per node |"
    );
    println!("|---|---|---|---|");
    let case = Case::start(&backend, streams).await?;
    let Growth { a, b, left } = case.hold_open("b").await?;
    println!("| a node that forwards them | {b:.1} | {a:.1} | {left} |");
    let times = case.event_times(&backend).await?;
    // Another cluster, since what a node has freed it uses again.
    let case = Case::start(&backend, streams).await?;
    let Growth { a, left, .. } = case.hold_open("a").await?;
    println!("| the owning node | (the same node) | {a:.1} | {left} |\n");
    println!("## The way of an event, in ms ({TICKS} events of one stream)\n");
    println!("| from the server | median | 99 % |\n|---|---|---|\n{times}");
    Ok(())
}

/// Three nodes, and sessions that `a` owns.
struct Case {
    cluster: Cluster,
    sessions: Vec<String>,
}

/// What streams cost the nodes `a` and `b`, and what all nodes keep of that when they are closed.
struct Growth {
    a: PerStream,
    b: PerStream,
    left: String,
}

impl Case {
    async fn start(backend: &Child, streams: usize) -> anyhow::Result<Case> {
        progress(&format!("{streams} idle streams: three nodes and the sessions"));
        let route = Route::upstreams(std::slice::from_ref(&backend.url))
            .text("idle_timeout", "2h")
            .number("max_sessions", 1_000_000);
        let cluster = Plan::nodes(3).routes(&[route]).flags(&["--log", "warn"]).start().await?;
        let sessions = sessions_of_a(&cluster, streams).await?;
        Ok(Case { cluster, sessions })
    }

    /// Opens a stream of each session at the node `at`, looks, and closes them.
    async fn hold_open(&self, at: &str) -> anyhow::Result<Growth> {
        drop(self.open(at, WARM_UP).await?);
        let before = self.resident().await?;
        let open = self.open(at, self.sessions.len()).await?;
        let during = self.resident().await?;
        for name in ["a", "b"] {
            let files = process::open_files(self.cluster.node(name).process.pid())?;
            progress(&format!("{} streams: {name} has {files} open files", open.len()));
        }
        drop(open);
        let after = self.resident().await?;
        let grown = |now: u64, node: usize| now as f64 - before[node] as f64;
        let per_stream = |node: usize| grown(during[node], node) / 1024.0 / self.sessions.len() as f64;
        let left: Vec<String> = after
            .iter()
            .enumerate()
            .map(|(node, &now)| format!("{:.1}", grown(now, node) / (1024.0 * 1024.0)))
            .collect();
        Ok(Growth { a: per_stream(0), b: per_stream(1), left: left.join(", ") })
    }

    async fn open(&self, at: &str, count: usize) -> anyhow::Result<Vec<TcpStream>> {
        let (at, mut open) = (self.cluster.listen(at), Vec::with_capacity(count));
        for session in self.sessions.iter().take(count) {
            open.push(stream(at, session, "").await?);
        }
        Ok(open)
    }

    /// Resident memory of each node, in the order of their names.
    async fn resident(&self) -> anyhow::Result<Vec<u64>> {
        let mut resident = Vec::new();
        for name in self.cluster.names() {
            resident.push(memory::still(self.cluster.node(&name).process.pid()).await?);
        }
        Ok(resident)
    }

    /// Lines of a table.
    async fn event_times(&self, backend: &Child) -> anyhow::Result<String> {
        let mut lines = String::new();
        let ways = [
            ("directly", backend.address()?),
            ("through the owner", self.cluster.listen("a")),
            ("and over a hop", self.cluster.listen("b")),
        ];
        for (what, at) in ways {
            let mut times = event_times(at, &self.sessions[0]).await?;
            times.sort_by(f64::total_cmp);
            let p99 = times[times.len() * 99 / 100];
            lines += &format!("| {what} | {:.3} | {p99:.3} |\n", Spread::of(times).median());
        }
        Ok(lines)
    }
}

/// So many sessions that `a` owns. Nodes share new sessions among them, so that more have to be opened.
async fn sessions_of_a(cluster: &Cluster, count: usize) -> anyhow::Result<Vec<String>> {
    let (mut of_a, mut owners) = (Vec::with_capacity(count), Vec::new());
    while of_a.len() < count {
        let body = initialize(1).to_string();
        let answer = http::request("POST", &cluster.url("a"), &POST_HEADERS, body).await?;
        let id = answer.header("mcp-session-id").with_context(|| format!("no session: {}", answer.text()))?;
        let owner = answer.header("ringway-node").context("no owner is named")?;
        if owner == "a" {
            of_a.push(id.to_owned());
        }
        owners.push(owner.to_owned());
        ensure!(owners.len() < 10 * count + 100, "{:?}", tally(owners.iter().map(String::as_str)));
    }
    Ok(of_a)
}

/// A stream whose head and first event have come. Bytes by hand: thousands of HTTP clients would take memory and time
/// from what is measured.
async fn stream(at: SocketAddr, session: &str, headers: &str) -> anyhow::Result<TcpStream> {
    let mut connection = TcpStream::connect(at).await.with_context(|| format!("connecting to {at}"))?;
    connection.set_nodelay(true)?;
    let head = format!(
        "GET /mcp HTTP/1.1\r\nhost: {at}\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\n{headers}\r\n"
    );
    connection.write_all(head.as_bytes()).await?;
    let mut said = Vec::new();
    while !contains(&said, b"data: ") {
        let reading = tokio::time::timeout(FIRST_DEADLINE, connection.read_buf(&mut said));
        let read = reading.await.context("no first event")??;
        ensure!(read > 0, "the stream ended: {}", String::from_utf8_lossy(&said));
    }
    ensure!(said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
    Ok(connection)
}

/// How long each event was on its way, in ms: the server writes down when it said it.
async fn event_times(at: SocketAddr, session: &str) -> anyhow::Result<Vec<f64>> {
    let tick = format!("{}: {}\r\n", backend::TICK_MS, TICK.as_millis());
    let mut connection = stream(at, session, &tick).await?;
    let (mut times, mut said) = (Vec::with_capacity(TICKS), Vec::new());
    while times.len() < TICKS {
        said.clear();
        let reading = tokio::time::timeout(FIRST_DEADLINE, connection.read_buf(&mut said));
        if reading.await.context("no event")?? == 0 {
            bail!("the stream ended after {} events", times.len());
        }
        let now = backend::clock_ns();
        let text = String::from_utf8_lossy(&said);
        let sent = text.lines().find_map(|line| line.strip_prefix("data: ")?.trim().parse::<u128>().ok());
        // A keep-alive is no event.
        times.extend(sent.map(|sent| now.saturating_sub(sent) as f64 / 1e6));
    }
    Ok(times)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
