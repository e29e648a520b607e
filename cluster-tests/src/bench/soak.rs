//! `bench soak`: sessions that are opened, used and left alone without DELETE, over three nodes that start a child for
//! each. After the idle time-out nothing may be left of them: no child, no open file, no memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::task::JoinSet;

use super::report::Report;
use super::{Bench, Size, memory, process, progress, streams};
use crate::real::cluster::{Cluster, Plan};
use crate::real::marked;
use crate::real::mcp::Session;
use crate::real::route::Route;
use crate::real::{binaries, wait};

const NODES: usize = 3;
const ROUNDS: usize = 3;
const SESSIONS: usize = 1_000;

/// Longer than a session takes to be opened and used, shorter than anybody's patience.
const IDLE_TIMEOUT: &str = "10s";

/// The idle time-out, and the ends of a thousand processes on two cores.
const GONE_DEADLINE: Duration = Duration::from_secs(120);

/// Sessions being opened at once: starting a process is work for a core, and there are two.
const AT_ONCE: usize = 16;

/// What all nodes together hold.
#[derive(Debug, Clone)]
struct Holding {
    resident: Vec<u64>,
    files: Vec<usize>,
}

/// Runs both soaks and prints them as Markdown.
pub async fn run(streams: usize) -> anyhow::Result<()> {
    let bench = Bench::new(Size { streams, ..Size::FULL }).await?;
    children().await?;
    let mut report = Report::default();
    streams::of_ringway(&bench, &mut report).await?;
    print!("{}", report.to_markdown());
    Ok(())
}

async fn children() -> anyhow::Result<()> {
    let mark = marked::new("soak");
    let program = binaries::ringway().await?;
    let command = [program.to_string_lossy().into_owned(), "mcp-demo".to_owned()];
    let route = Route::command(&command)
        .text("idle_timeout", IDLE_TIMEOUT)
        .number("max_sessions", SESSIONS)
        .env(&[(marked::VARIABLE, &mark)]);
    let cluster = Plan::nodes(NODES).routes(&[route]).flags(&["--log", "warn"]).start().await?;
    println!(
        "## {SESSIONS} sessions with a child each, opened, used and left alone; idle time-out {IDLE_TIMEOUT}\n"
    );
    println!(
        "| round | children at most | left | last gone after | resident memory per node, MiB | open files per node |"
    );
    println!("|---|---|---|---|---|---|");
    print_row("before", 0, 0, Duration::ZERO, &hold(&cluster).await?);
    for round in 1..=ROUNDS {
        progress(&format!("round {round} of {ROUNDS}: opening {SESSIONS} sessions"));
        let opening = use_sessions(&cluster);
        let most = watch(&mark, opening).await?;
        let began = Instant::now();
        let left = async || {
            let left = marked::all(&mark).len();
            ensure!(left == 0, "{left} children are left");
            Ok(())
        };
        let gone = wait::try_wait_for("the idle time-out has ended every child", GONE_DEADLINE, left).await;
        let (took, holding) = (began.elapsed(), hold(&cluster).await?);
        print_row(&round.to_string(), most, marked::all(&mark).len(), took, &holding);
        gone?;
    }
    println!();
    Ok(())
}

/// Opens every session at one node and uses it at the two others.
async fn use_sessions(cluster: &Cluster) -> anyhow::Result<()> {
    let urls = cluster.urls();
    let mut opening = JoinSet::new();
    for number in 0..SESSIONS {
        if opening.len() >= AT_ONCE {
            opening.join_next().await.context("nothing to wait for")???;
        }
        let urls = urls.clone();
        opening.spawn(async move {
            let session = Session::open(&urls[number % NODES]).await?;
            for counted in 1..NODES {
                let url = &urls[(number + counted) % NODES];
                let said = session.count(url, counted as u64).await?;
                ensure!(said == counted as u64, "{counted} expected, got {said}");
            }
            anyhow::Ok(())
        });
    }
    while let Some(opened) = opening.join_next().await {
        opened??;
    }
    Ok(())
}

/// The most children that were seen while `work` went on.
async fn watch(mark: &str, work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<usize> {
    let mut work = std::pin::pin!(work);
    let (mut most, mut look) = (0, tokio::time::interval(Duration::from_secs(1)));
    loop {
        tokio::select! {
            done = &mut work => {
                done?;
                return Ok(most.max(marked::all(mark).len()));
            }
            _ = look.tick() => most = most.max(marked::all(mark).len()),
        }
    }
}

async fn hold(cluster: &Cluster) -> anyhow::Result<Holding> {
    let mut holding = Holding { resident: Vec::new(), files: Vec::new() };
    for name in cluster.names() {
        let pid = cluster.node(&name).process.pid();
        holding.resident.push(memory::still(pid).await?);
        holding.files.push(process::open_files(pid)?);
    }
    Ok(holding)
}

fn print_row(round: &str, most: usize, left: usize, took: Duration, holding: &Holding) {
    let mib: Vec<String> = holding.resident.iter().map(|&bytes| format!("{:.1}", mib(bytes))).collect();
    let files: Vec<String> = holding.files.iter().map(usize::to_string).collect();
    let took = took.as_secs_f64();
    println!("| {round} | {most} | {left} | {took:.1} s | {} | {} |", mib.join(", "), files.join(", "));
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
