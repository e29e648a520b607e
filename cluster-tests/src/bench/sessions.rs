//! The case `sessions`: what a session at rest holds in its node, and how fast sessions are opened. Called by `bench`.
//!
//! One node with an HTTP route, and three, where two others keep a copy of each session. Sessions are opened in batches;
//! after each, with all connections closed, the resident memory is read once it stands still. A session's size is the
//! growth of all nodes divided by the batch.

use super::children::Child;
use super::load::{CONNECTIONS, Load, Pace};
use super::memory::{LOOK_EVERY, STILL_LOOKS, still};
use super::report::{Figure, Goal, RINGWAY, Report, Spread};
use super::{Bench, owned, progress};
use crate::real::cluster::{Cluster, Plan};

pub(super) const CASE: &str = "sessions";

/// Opened before the first look: code, buffers and pools are there then and are not counted as sessions.
const WARM_UP: u64 = 2_000;

const MEMORY_GOAL_BYTES: f64 = 1024.0;
const RATE_GOAL: f64 = 2_000.0;

/// The goals are those of one node.
pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    for nodes in [1, 3] {
        of(nodes, bench, report).await?;
    }
    Ok(())
}

async fn of(nodes: usize, bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let setting = if nodes == 1 { "one node" } else { "three nodes" };
    progress(&format!("starting a backend and {setting} for sessions at rest"));
    let (size, backend) = (bench.size, Child::backend().await?);
    let cluster = Plan::nodes(nodes).config(owned::config(&owned::route(&backend.url))).start().await?;
    let load = Load::opening(cluster.listen("a"));

    load.run(Pace::Counted { requests: WARM_UP }).await?;
    let first = resident(&cluster).await?;
    let (mut before, mut sizes, mut rates) = (first, Vec::new(), Vec::new());
    for round in 1..=size.rounds {
        let opened = load.run(Pace::Counted { requests: size.sessions }).await?;
        let after = resident(&cluster).await?;
        let each = (after as f64 - before as f64) / opened.answered as f64;
        let rate = opened.per_second();
        progress(&format!(
            "{CASE}, {setting}, round {round} of {}: {rate:.0}/s, {each:.0} bytes each",
            size.rounds
        ));
        sizes.push(each);
        rates.push(rate);
        before = after;
    }
    let count = size.sessions * size.rounds as u64;
    // The table doubles now and then: the mean over all batches is the honest figure, the spread shows the steps.
    let mean = Spread::of([(before as f64 - first as f64) / count as f64]);
    let rates = Spread::of(rates);
    if nodes == 1 {
        report.goal("memory of a session at rest", Goal::AtMost(MEMORY_GOAL_BYTES), "bytes", Some(&mean));
        report.goal("sessions opened", Goal::AtLeast(RATE_GOAL), "1/s", Some(&rates));
    }
    let figure = |name: String, unit| Figure::new(CASE, setting, name, unit);
    report.row(figure(format!("memory of a session at rest, mean of {count}"), "bytes"), RINGWAY, mean);
    report.row(
        figure(format!("the same, in batches of {}", size.sessions), "bytes"),
        RINGWAY,
        Spread::of(sizes),
    );
    report.row(figure(format!("sessions opened over {CONNECTIONS} connections"), "1/s"), RINGWAY, rates);
    let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
    report.note(format!(
        "memory of sessions, {setting}: VmRSS, read when still for {} ms with no client connected: {:.1} MiB with \
         {WARM_UP} sessions, {:.1} MiB with {}",
        (LOOK_EVERY * STILL_LOOKS).as_millis(),
        mib(first),
        mib(before),
        WARM_UP + count
    ));
    Ok(())
}

/// Of all nodes.
async fn resident(cluster: &Cluster) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for name in cluster.names() {
        bytes += still(cluster.node(&name).process.pid()).await?;
    }
    Ok(bytes)
}
