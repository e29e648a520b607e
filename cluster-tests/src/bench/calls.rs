//! The case `calls`: small calls that are answered by the node where they land. Called by `bench`.

use std::time::Duration;

use super::peers::Product;
use super::report::{Goal, RINGWAY, Report};
use super::rounds::{self, Burden};
use super::stage::{self, Stage};
use super::{Bench, process};

pub(super) const CASE: &str = "calls";

const PRODUCTS: [Product; 5] =
    [Product::Direct, Product::BareHyper, Product::Nginx, Product::Haproxy, Product::Ringway];

/// Of the CPU of nginx and of HAProxy, at saturation: first the one, then the other.
const CPU_GOALS: [f64; 2] = [1.25, 1.1];

/// Later than without anything between.
const LATER_GOAL_US: f64 = 150.0;

/// Connections of a load are closed within a moment.
const LEFT_BEHIND: Duration = Duration::from_millis(300);

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::set(bench, &PRODUCTS).await?;
    rounds::calls(CASE, bench, &stage.peers.iter().collect::<Vec<_>>(), report).await?;
    for against in [Product::Nginx, Product::Haproxy].map(Product::name) {
        let ratio = report.ratio(&rounds::cpu(CASE, Burden::Saturated), RINGWAY, against);
        for goal in CPU_GOALS {
            let what = format!("CPU per request where it lands, saturated, Ringway / {against}");
            report.goal(what, Goal::AtMost(goal), "x", ratio.as_ref());
        }
        report.ratio(&rounds::cpu(CASE, Burden::Paced), RINGWAY, against);
    }
    for burden in Burden::ALL {
        report.ratio(&rounds::cpu(CASE, burden), RINGWAY, Product::BareHyper.name());
    }
    let later = report.difference(&rounds::p50(CASE), RINGWAY, Product::Direct.name());
    let what = "median latency where it lands at 2,000/s, Ringway - direct";
    report.goal(what, Goal::AtMost(LATER_GOAL_US), "us", later.as_ref());
    stage::note(bench, report);
    note_idle(&stage, bench, report).await?;
    report.chart("CPU per request where it lands, saturated", rounds::cpu(CASE, Burden::Saturated));
    report.chart("CPU per request where it lands, 2,000/s", rounds::cpu(CASE, Burden::Paced));
    report.chart("Median latency where it lands, 2,000/s", rounds::p50(CASE));
    Ok(())
}

/// What the nodes use without any request: it is part of what a request seems to cost at a low rate.
async fn note_idle(stage: &Stage, bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let cluster = &stage.ground.cluster;
    let pids: Vec<_> = cluster.names().iter().map(|name| cluster.node(name).process.pid()).collect();
    // What the last load left behind (connections that close) is not rest.
    tokio::time::sleep(LEFT_BEHIND).await;
    let before = process::cpu_time_of_all(&pids)?;
    tokio::time::sleep(bench.size.measure).await;
    let used = process::cpu_time_of_all(&pids)? - before;
    let each_ms = used.as_secs_f64() * 1e3 / bench.size.measure.as_secs_f64() / pids.len() as f64;
    let share_us = each_ms * 1e3 / f64::from(rounds::RATE);
    report.note(format!(
        "a node at rest in a cluster of two uses {each_ms:.2} ms of CPU each second: {share_us:.2} us of each request \
         at 2,000/s"
    ));
    Ok(())
}
