//! What a node reads of the bytes that pass through it, timed: the peek into a JSON-RPC body, and streams of events.
//! `cargo bench -p ringway`. Criterion keeps each run under `target/criterion` and says what has changed since.

use criterion::{BatchSize, Criterion, Throughput, criterion_main};
use ringway::benching;
use std::hint::black_box;
use std::time::Duration;

/// A call of usual length.
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"a question of usual length, neither short nor long"}}}"#;

fn all() {
    let criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    let mut criterion = criterion.configure_from_args();
    peek(&mut criterion);
    streams(&mut criterion);
    criterion.final_summary();
}

fn peek(criterion: &mut Criterion) {
    let long = CALL.replace("neither", &"x".repeat(64 * 1024));
    let mut group = criterion.benchmark_group("peek");
    for (what, body) in [("a call", CALL), ("a call of 64 KiB", &long)] {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(what, |bencher| {
            bencher.iter(|| assert!(benching::is_one_call(black_box(body.as_bytes()))));
        });
    }
    group.finish();
}

/// A hundred events, as the front passes them on to a client: of a stream that nobody waits at, and of one that somebody
/// waits at for an answer. Events come whole, or cut where the network cuts them.
fn streams(criterion: &mut Criterion) {
    let events: String = (0..100).map(|id| format!("id: {id}\nevent: message\ndata: {CALL}\n\n")).collect();
    let whole = events.len() / 100;
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(100));
    for (what, piece) in [("whole", whole), ("in pieces of 100 bytes", 100)] {
        let pieces = || benching::pieces(&events, piece);
        for (whose, asked) in [("the server's own", None), ("an answer's", Some(CALL))] {
            group.bench_function(format!("passed on, {whose}, {what}"), |bencher| {
                bencher.iter_batched(
                    pieces,
                    |pieces| assert_eq!(benching::pass_on(asked, pieces), events.len()),
                    BatchSize::SmallInput,
                );
            });
        }
        group.bench_function(format!("their ids marked, {what}"), |bencher| {
            bencher.iter_batched(
                pieces,
                |pieces| assert!(benching::mark_ids("rw1c1f.", pieces) > events.len()),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_main!(all);
