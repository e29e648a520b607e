//! Who answers a request: this node, because it owns the session, or another one.

use crate::world::{World, birth, roll};
use criterion::Criterion;
use proto::core::custody::Holding;
use proto::core::route::{self, Ask, Hop, OnLoss, Situation};
use proto::core::succession::Succession;
use proto::core::view::Phase;
use proto::id::{Birth, Nonce};
use std::hint::black_box;

pub(crate) fn benches(criterion: &mut Criterion) {
    let (world, succession) = (World::of(1_000), Succession::default());
    let nodes = world.ring.nodes();
    let me = nodes[0];
    let situation = |holding| Situation {
        me,
        my_phase: Phase::Active,
        view: &world.view,
        ring: &world.ring,
        succession: &succession,
        leased: true,
        hop: Hop::Entry,
        tried: &[],
        hint: None,
        holding,
        on_loss: OnLoss::Reinitialize,
    };
    let (mine, nonce) = ([birth(me)], Nonce([7; 12]));
    let others = nodes.len() as u64 - 1;
    let others: Vec<Birth> =
        (0..1_024).map(|number| birth(nodes[1 + (roll(number) % others) as usize])).collect();

    let mut group = criterion.benchmark_group("route");
    for (what, births, holding) in
        [("here", &mine[..], Holding::Live), ("there, 1,000 nodes", &others[..], Holding::Unknown)]
    {
        let (situation, mut births) = (situation(holding), births.iter().cycle());
        group.bench_function(what, |bencher| {
            bencher.iter(|| {
                let birth = births.next().expect("a cycle");
                route::route(Ask::Session { birth, nonce }, black_box(&situation))
            });
        });
    }
    group.finish();
}
