//! The case `hops`: small calls that land at one node and are answered by another. What stands against Ringway is two
//! nginx and two HAProxy with mutual TLS between them; CPU is that of both processes. Called by `bench`.

use super::load::Pace;
use super::peers::{Peer, Product};
use super::report::{Figure, Goal, Report, Spread};
use super::rounds::{self, Burden};
use super::stage::{self, Stage};
use super::{Bench, progress, wire};

pub(super) const CASE: &str = "hops";

const FORWARDED: [Product; 4] =
    [Product::NginxHop, Product::HaproxyHop, Product::HaproxyHopH2, Product::RingwayHop];

/// Each with what it is without the hop.
const WITHOUT_HOP: [(Product, Product); 4] = [
    (Product::NginxHop, Product::Nginx),
    (Product::HaproxyHop, Product::Haproxy),
    (Product::HaproxyHopH2, Product::Haproxy),
    (Product::RingwayHop, Product::Ringway),
];

/// Of the CPU of the other, saturated and at 2,000/s.
const CPU_GOALS: [(Product, [f64; 2]); 2] =
    [(Product::NginxHop, [1.0, 1.0]), (Product::HaproxyHopH2, [1.1, 1.0])];

/// Later than without anything between.
const LATER_GOAL_US: f64 = 240.0;

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let single = [Product::Direct, Product::Nginx, Product::Haproxy, Product::Ringway];
    let stage = Stage::set(bench, &[&single[..], &FORWARDED].concat()).await?;
    let timed: Vec<&Peer> = std::iter::once(&Product::Direct)
        .chain(&FORWARDED)
        .filter_map(|product| stage.peer(*product))
        .collect();
    rounds::calls(CASE, bench, &timed, report).await?;
    compare(report);
    bytes_on_the_wire(bench, &stage, report).await?;
    stage::note(bench, report);
    report.chart("CPU per forwarded request, saturated", rounds::cpu(CASE, Burden::Saturated));
    report.chart("CPU per forwarded request, 2,000/s", rounds::cpu(CASE, Burden::Paced));
    report.chart("Median latency of a forwarded request, 2,000/s", rounds::p50(CASE));
    report.chart("Bytes on the wire per forwarded request", wire_figure());
    Ok(())
}

fn compare(report: &mut Report) {
    let ringway = Product::RingwayHop.name();
    for (against, goals) in CPU_GOALS {
        for (burden, goal) in Burden::ALL.into_iter().zip(goals) {
            let ratio = report.ratio(&rounds::cpu(CASE, burden), ringway, against.name());
            let what = format!(
                "CPU per forwarded request, both nodes, {}, Ringway / {}",
                burden.setting(),
                against.name()
            );
            report.goal(what, Goal::AtMost(goal), "x", ratio.as_ref());
        }
    }
    for burden in Burden::ALL {
        report.ratio(&rounds::cpu(CASE, burden), ringway, Product::HaproxyHop.name());
    }
    let later = report.difference(&rounds::p50(CASE), ringway, Product::Direct.name());
    let what = "median latency of a forwarded request at 2,000/s, Ringway - direct";
    report.goal(what, Goal::AtMost(LATER_GOAL_US), "us", later.as_ref());
}

fn wire_figure() -> Figure {
    Figure::new(CASE, "counted, saturated", "bytes on the wire", "B")
}

/// What the hop itself puts on the wire: what a request takes with it, without what the same product's takes without.
async fn bytes_on_the_wire(bench: &Bench, stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let mut rows: Vec<(Product, Vec<f64>)> = FORWARDED.map(|product| (product, Vec::new())).into();
    for _ in 0..bench.size.few_rounds {
        for ((hop, without), (_, rounds)) in WITHOUT_HOP.into_iter().zip(&mut rows) {
            let (Some(hop), Some(without)) = (stage.peer(hop), stage.peer(without)) else { continue };
            let more = bytes_per_request(bench, hop).await? - bytes_per_request(bench, without).await?;
            progress(&format!(
                "{CASE}, {}: {more:.0} bytes on the wire per forwarded request",
                hop.product.name()
            ));
            rounds.push(more);
        }
    }
    for (product, rounds) in rows.into_iter().filter(|(_, rounds)| !rounds.is_empty()) {
        report.row(wire_figure(), product.name(), Spread::of(rounds));
    }
    report.note(format!(
        "bytes on the wire per forwarded request: bytes that the loopback device counted (IP headers and \
         acknowledgements included; a batch that the kernel carries as one packet counts one header) over {} requests \
         at saturation, divided by their number, less the same of that product without the hop; whatever else uses \
         loopback meanwhile is in it",
        bench.size.counted
    ));
    Ok(())
}

async fn bytes_per_request(bench: &Bench, peer: &Peer) -> anyhow::Result<f64> {
    let load = peer.calls();
    // Connections and handshakes of the hop are there after it.
    load.run(Pace::Closed { time: bench.size.warm_up }).await?;
    let before = wire::loopback_bytes()?;
    let outcome = load.run(Pace::Counted { requests: bench.size.counted }).await?;
    let bytes = wire::loopback_bytes()?.saturating_sub(before);
    Ok(bytes as f64 / outcome.answered as f64)
}
