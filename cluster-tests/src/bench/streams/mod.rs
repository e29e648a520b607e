//! The case `streams`: what an open event stream costs every product, with and without a hop: its memory while nothing
//! is said on it, what is left of that when all have closed, how soon its first event comes, and what events cost that
//! are said on many at once. Called by `bench` and `soak`.

mod client;
mod events;
mod rest;

use anyhow::Context as _;

use super::peers::{Peer, Product};
use super::report::{Figure, Goal, RINGWAY, Report};
use super::stage::{self, Stage};
use super::{Bench, owned, progress};

pub(super) const CASE: &str = "streams";

/// Of each node that a stream crosses; the first is to be reached first.
const MEMORY_GOALS_KIB: [f64; 2] = [12.0, 6.0];

/// When all streams have closed memory has fallen back if this much at most is left of what they took.
const KEPT_GOAL_PERCENT: f64 = 25.0;

/// For each node that a stream crosses.
const FIRST_GOAL_US: f64 = 1_000.0;

/// Where a stream's client is in relation to its owner.
struct Way {
    setting: &'static str,
    products: &'static [Product],
    /// Which of them is Ringway, how many of its nodes a stream crosses, and which of them owns the sessions.
    ringway: Product,
    nodes: usize,
    owner: &'static str,
}

const WAYS: [Way; 2] = [
    Way {
        setting: "where it landed",
        products: &[Product::Direct, Product::BareHyper, Product::Nginx, Product::Haproxy, Product::Ringway],
        ringway: Product::Ringway,
        nodes: 1,
        owner: "a",
    },
    Way {
        setting: "over a hop",
        products: &[
            Product::Direct,
            Product::NginxHop,
            Product::HaproxyHop,
            Product::HaproxyHopH2,
            Product::RingwayHop,
        ],
        ringway: Product::RingwayHop,
        nodes: 2,
        owner: "b",
    },
];

pub(super) async fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    of(bench, |_| true, report).await
}

/// Without what Ringway is compared with, which is configured for some thousand streams.
pub(super) async fn of_ringway(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let is_ours = |product| matches!(product, Product::Direct | Product::Ringway | Product::RingwayHop);
    of(bench, is_ours, report).await
}

/// Each way with processes of its own: what these have freed they use again.
async fn of(bench: &Bench, is_wanted: fn(Product) -> bool, report: &mut Report) -> anyhow::Result<()> {
    for way in &WAYS {
        let products: Vec<Product> =
            way.products.iter().copied().filter(|product| is_wanted(*product)).collect();
        let stage = Stage::set(bench, &products).await?;
        let count = bench.size.streams.max(events::STREAMS);
        progress(&format!("{CASE}, {}: {count} sessions", way.setting));
        let sessions = owned::sessions(&stage.ground.cluster, &[way.owner], count).await?.remove(0);
        for peer in stage.peers.iter().filter(|peer| !peer.pids.is_empty()) {
            let name = peer.product.name();
            let rest = rest::measure(peer, &sessions[..bench.size.streams]).await.context(name)?;
            progress(&format!(
                "{CASE}, {}, {name}: {:.1} KiB per stream, {:.1} MiB left",
                way.setting, rest.all_kib, rest.left_mib
            ));
            rest::write(way.setting, peer, &rest, report);
            if peer.product == way.ringway {
                memory_goals(way, &rest, report);
            }
        }
        let peers: Vec<&Peer> = stage.peers.iter().collect();
        events::measure(way.setting, bench, &peers, &sessions, report).await?;
        first_goal(way, report);
        report.chart(format!("Memory per idle stream, {}", way.setting), rest::memory(way.setting));
        report.chart(format!("CPU per 1,000 events, {}", way.setting), events::cpu(way.setting));
    }
    report.note(format!(
        "streams: {} at rest; memory is VmRSS of all processes of a product when it stands still; events: {} streams, \
         each with one event each {} ms",
        bench.size.streams,
        events::STREAMS,
        events::TICK.as_millis()
    ));
    stage::note(bench, report);
    Ok(())
}

/// Events on Ringway's streams, for their own sake.
pub(super) async fn exercise(bench: &Bench, stage: &Stage) -> anyhow::Result<()> {
    for way in &WAYS {
        let peer = stage.peer(way.ringway).context("it is not on this stage")?;
        let sessions = owned::sessions(&stage.ground.cluster, &[way.owner], events::STREAMS).await?.remove(0);
        events::of_one(bench, peer, &sessions).await?;
    }
    Ok(())
}

fn memory_goals(way: &Way, rest: &rest::Rest, report: &mut Report) {
    let most = rest.most_of_a_node();
    for goal in MEMORY_GOALS_KIB {
        let what = format!("memory per idle stream and node, {}, {RINGWAY}", way.setting);
        report.goal(what, Goal::AtMost(goal), "KiB", Some(&most));
    }
    let what = format!("kept of the memory of streams when all have closed, {}, {RINGWAY}", way.setting);
    report.goal(what, Goal::AtMost(KEPT_GOAL_PERCENT), "%", Some(&rest.kept_percent()));
}

fn first_goal(way: &Way, report: &mut Report) {
    let figure: Figure = events::first(way.setting);
    let later = report.difference(&figure, way.ringway.name(), Product::Direct.name());
    let each = later.map(|later| later.scaled(1.0 / way.nodes as f64));
    let what =
        format!("first event of a stream, later than direct, for each node, {}, {RINGWAY}", way.setting);
    report.goal(what, Goal::AtMost(FIRST_GOAL_US), "us", each.as_ref());
}
