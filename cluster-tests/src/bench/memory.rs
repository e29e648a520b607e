//! What a session at rest holds in its node, and how fast sessions are opened.
//!
//! One node with an HTTP route. Sessions are opened in batches; after each, with all connections closed, the
//! resident memory is read once it stands still. A session's size is the growth divided by the batch.

use std::time::Duration;

use super::children::Child;
use super::load::{self, CONNECTIONS, Expect, Load, Pace};
use super::report::{Report, Spread};
use super::{Size, process, progress};
use crate::real::cluster::Plan;
use crate::real::wait;

/// Opened before the first look: code, buffers and pools are there then and are not counted as sessions.
const WARM_UP: u64 = 2_000;

/// Resident memory stands still when it is the same in this many looks, 100 ms apart: mimalloc returns free pages
/// after 10 ms, the pool of upstream connections closes only on use.
const STILL_LOOKS: usize = 5;
const LOOK_EVERY: Duration = Duration::from_millis(100);
const STILL_DEADLINE: Duration = Duration::from_secs(15);

pub(super) async fn measure(size: Size, report: &mut Report) -> anyhow::Result<()> {
    progress("starting a backend and one node for sessions at rest");
    let backend = Child::backend().await?;
    // Room for all batches, and idle times that outlast the benchmark.
    let route = format!(
        "[[route]]\npath = \"/mcp\"\nupstream = [\"{}\"]\nmax_sessions = 1000000\nidle_timeout = \"2h\"\n",
        backend.url
    );
    let cluster = Plan::nodes(1).config(route).start().await?;
    let (at, pid) = (cluster.listen("a"), cluster.node("a").process.pid());
    let load = Load { at, requests: vec![load::initialize(at); CONNECTIONS], expect: Expect::Opened };

    load.run(Pace::Counted { requests: WARM_UP }).await?;
    let first = still(pid).await?;
    let (mut before, mut sizes, mut rates) = (first, Vec::new(), Vec::new());
    for round in 1..=size.rounds {
        let opened = load.run(Pace::Counted { requests: size.sessions }).await?;
        let after = still(pid).await?;
        let each = (after as f64 - before as f64) / opened.answered as f64;
        let rate = opened.per_second();
        progress(&format!("round {round} of {}, sessions: {rate:.0}/s, {each:.0} bytes each", size.rounds));
        sizes.push(each);
        rates.push(rate);
        before = after;
    }
    let count = size.sessions * size.rounds as u64;
    // The table doubles now and then: the mean over all batches is the honest figure, the spread shows the steps.
    let mean = Spread::of([(before as f64 - first as f64) / count as f64]);
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    report.goal(format!("memory of a session at rest, mean of {count}"), "bytes", 2048.0, &mean);
    report.row(format!("memory of a session at rest, mean of {count}"), "bytes", mean);
    report.row(format!("the same, in batches of {}", size.sessions), "bytes", Spread::of(sizes));
    report.row("sessions opened per second (1 node, 16 connections)", "1/s", Spread::of(rates));
    report.note(format!(
        "memory: VmRSS of the node, read when still for {} ms with no client connected: {:.1} MiB with {WARM_UP} \
         sessions, {:.1} MiB with {}",
        LOOK_EVERY.as_millis() * STILL_LOOKS as u128,
        mib(first),
        mib(before),
        WARM_UP + count
    ));
    Ok(())
}

/// Resident memory once it no longer changes.
pub(super) async fn still(pid: libc::pid_t) -> anyhow::Result<u64> {
    let (mut last, mut looks) = (0, 0);
    wait::try_wait_for("resident memory stands still", STILL_DEADLINE, async || {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = process::resident(pid)?;
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        anyhow::ensure!(looks >= STILL_LOOKS, "it was {now} bytes a moment ago");
        Ok(now)
    })
    .await
}
