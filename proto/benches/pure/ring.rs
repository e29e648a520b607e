//! Whose key it is, and what a change of membership costs. The goals: 250 ns and 60 ms with 1,000 nodes.

use crate::world::{INPUTS, World, nonce, roll};
use criterion::Criterion;
use proto::core::placement;
use proto::core::ring::{Position, Ring};
use std::hint::black_box;

pub(crate) fn benches(criterion: &mut Criterion) {
    let (small, large) = (World::of(3), World::of(1_000));
    let positions: Vec<Position> = (0..INPUTS).map(|number| Position(roll(number))).collect();
    let mut group = criterion.benchmark_group("ring");
    for (count, world) in [(3, &small), (1_000, &large)] {
        let mut inputs = positions.iter().cycle();
        group.bench_function(format!("owner of a key, {count} nodes"), |bencher| {
            bencher.iter(|| world.ring.owner(black_box(*inputs.next().expect("a cycle"))));
        });
        // As many draws as there are nodes, on average; the dice here cost next to nothing.
        let (home, mut drawn) = (world.ring.nodes()[0], 0);
        group.bench_function(format!("drawing an id that is its home's, {count} nodes"), |bencher| {
            bencher.iter(|| {
                placement::draw(&world.ring, home, || {
                    drawn += 1;
                    nonce(drawn)
                })
            });
        });
    }
    let mut inputs = positions.iter().cycle();
    let me = large.ring.nodes()[0];
    group.bench_function("choosing a home, 1,000 nodes", |bencher| {
        bencher.iter(|| {
            let [first, second] = [(); 2].map(|()| inputs.next().expect("a cycle").0);
            placement::choose(me, &large.ring, |at| at as u32 % 7, |_| true, [first, second])
        });
    });
    // 20 of them take longer than the time that the others have.
    group.sample_size(20);
    group.bench_function("rebuilding, 1,000 nodes", |bencher| {
        bencher.iter(|| Ring::new(black_box(&large.view)));
    });
    group.finish();
}
