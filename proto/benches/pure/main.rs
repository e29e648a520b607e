//! The pure functions that every request passes through, timed one by one: `cargo bench -p proto`. Criterion keeps each
//! run under `target/criterion` and says what has changed since the last one.

mod codec;
mod ring;
mod route;
mod seal;
mod world;

use criterion::{Criterion, criterion_main};
use std::time::Duration;

/// Functions of nanoseconds: two seconds are a hundred samples of thousands of calls each, and all of them a minute.
fn all() {
    let criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let mut criterion = criterion.configure_from_args();
    for benches in [ring::benches, seal::benches, codec::benches, route::benches] {
        benches(&mut criterion);
    }
    criterion.final_summary();
}

criterion_main!(all);
