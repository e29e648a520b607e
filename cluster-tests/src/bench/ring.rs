//! The case `ring`: the two goals about a ring of 1,000 nodes, in this process. Everything else that is pure is
//! criterion's (`cargo bench -p proto`); these are here so that a report leaves no goal open. Called by `bench`.

use std::hint::black_box;
use std::time::Instant;

use proto::core::ring::{Position, Ring};
use proto::id::{Incarnation, NodeRef, Tag};

use super::Bench;
use super::report::{Figure, Goal, RINGWAY, Report, Spread};
use crate::dice::Dice;

pub(super) const CASE: &str = "ring";

const NODES: usize = 1_000;

/// Looked up one after the other: too many for a branch predictor to learn by heart.
const KEYS: usize = 1 << 16;

const LOOKUP_GOAL_NS: f64 = 250.0;
const REBUILD_GOAL_MS: f64 = 60.0;

pub(super) fn measure(bench: &Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut dice = Dice::new(1);
    let inc = Incarnation(1_790_000_000_123);
    let nodes: Vec<NodeRef> = (0..NODES).map(|_| NodeRef { tag: Tag(dice.roll() as u32), inc }).collect();
    let keys: Vec<Position> = (0..KEYS).map(|_| Position(dice.roll())).collect();
    let ring = Ring::over(nodes.clone());
    let figure = |name, unit| Figure::new(CASE, "", name, unit);

    let looked_up = rounds(bench.size.rounds, || {
        for key in &keys {
            black_box(ring.owner(black_box(*key)));
        }
    });
    let each_ns = looked_up.scaled(1e9 / KEYS as f64);
    report.goal("ring of 1,000 nodes, lookup", Goal::AtMost(LOOKUP_GOAL_NS), "ns", Some(&each_ns));
    report.row(figure("owner of a key among 1,000 nodes", "ns"), RINGWAY, each_ns);

    let rebuilt = rounds(bench.size.rounds, || drop(black_box(Ring::over(black_box(nodes.clone())))));
    let rebuilt_ms = rebuilt.scaled(1e3);
    report.goal("ring of 1,000 nodes, rebuild", Goal::AtMost(REBUILD_GOAL_MS), "ms", Some(&rebuilt_ms));
    report.row(figure("rebuilding the ring of 1,000 nodes", "ms"), RINGWAY, rebuilt_ms);
    Ok(())
}

/// How many seconds it takes, again and again; the first time, which is not counted, warms up.
fn rounds(count: usize, mut what: impl FnMut()) -> Spread {
    what();
    let mut once = || {
        let began = Instant::now();
        what();
        began.elapsed().as_secs_f64()
    };
    Spread::of((0..count).map(|_| once()))
}
