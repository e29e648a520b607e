//! Session ids: opened for every request, sealed for every new session.

use crate::world::{INPUTS, birth, nonce};
use criterion::Criterion;
use proto::id::{ClusterSecret, Incarnation, NodeRef, SealKeys, Tag};
use std::hint::black_box;

pub(crate) fn benches(criterion: &mut Criterion) {
    let secrets = [7, 8].map(|byte| ClusterSecret::from_entropy([byte; 32]));
    let keys = SealKeys::new(&secrets[..1], "ringway");
    // While a secret is rotated ids of the old one are about: the second key is tried after the first.
    let rotating = SealKeys::new(&[secrets[1].clone(), secrets[0].clone()], "ringway");
    let birth = birth(NodeRef { tag: Tag(7), inc: Incarnation(1_790_000_000_123) });
    let seal = |number| keys.seal(nonce(number), &birth).expect("a short URL and session id");
    let texts: Vec<String> = (0..INPUTS).map(seal).collect();

    let mut group = criterion.benchmark_group("seal");
    for (what, keys) in [("open", &keys), ("open, sealed with the older of two secrets", &rotating)] {
        let mut inputs = texts.iter().cycle();
        group.bench_function(what, |bencher| {
            bencher.iter(|| keys.open(black_box(inputs.next().expect("a cycle"))).expect("of this cluster"));
        });
    }
    let mut number = 0;
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            number += 1;
            seal(number)
        });
    });
    group.finish();
}
