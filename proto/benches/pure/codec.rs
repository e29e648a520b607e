//! Heads of requests and answers between nodes. They borrow from their frame; what it would cost to copy each name and
//! value out of it stands beside that.

use criterion::Criterion;
use proto::id::{Fingerprint, RouteId};
use proto::wire::{Answer, Caller, Errand, Forward, Headers, Nature, codec};
use std::hint::black_box;

pub(crate) fn benches(criterion: &mut Criterion) {
    let session = format!("rw1.{}", "x".repeat(160));
    let (forward, answer) = (forward(&session), answer());
    let mut group = criterion.benchmark_group("codec");
    let (forward_frame, answer_frame) = (written(codec::frame(&forward)), written(codec::frame(&answer)));

    group.bench_function("encode Forward", |bencher| bencher.iter(|| codec::frame(black_box(&forward))));
    group.bench_function("decode Forward", |bencher| {
        bencher.iter(|| codec::read::<Forward<'_>>(black_box(&forward_frame)).map(|read| read.headers.len()));
    });
    group.bench_function("decode Forward, and copy it out", |bencher| {
        bencher.iter(|| {
            let read = codec::read::<Forward<'_>>(black_box(&forward_frame)).expect("a Forward");
            (read.method.to_owned(), read.target.to_owned(), owned(&read.headers))
        });
    });
    group.bench_function("encode Answer", |bencher| bencher.iter(|| codec::frame(black_box(&answer))));
    group.bench_function("decode Answer", |bencher| {
        bencher.iter(|| codec::read::<Answer<'_>>(black_box(&answer_frame)).map(|read| read.headers.len()));
    });
    group.bench_function("decode Answer, and copy it out", |bencher| {
        bencher.iter(|| {
            let read = codec::read::<Answer<'_>>(black_box(&answer_frame)).expect("an Answer");
            owned(&read.headers)
        });
    });
    group.finish();
}

fn written(frame: Result<Vec<u8>, codec::CodecError>) -> Vec<u8> {
    frame.expect("a short message")
}

fn owned(headers: &Headers<'_>) -> Vec<(String, Vec<u8>)> {
    headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What an SDK client sends with a call.
fn forward(session: &str) -> Forward<'_> {
    let headers: [(&str, &[u8]); 8] = [
        ("host", b"gateway.example:8080"),
        ("user-agent", b"node"),
        ("accept", b"application/json, text/event-stream"),
        ("accept-encoding", b"gzip, deflate"),
        ("content-type", b"application/json"),
        ("content-length", b"137"),
        ("mcp-session-id", session.as_bytes()),
        ("mcp-protocol-version", b"2025-11-25"),
    ];
    Forward {
        view: Fingerprint(0x0123_4567_89ab_cdef),
        route: RouteId::of("/mcp"),
        errand: Errand::Session,
        nature: Nature::Unsafe,
        uid: 0xfedc_ba98_7654_3210,
        copies: 0,
        may_have_run: false,
        caller: Caller::Anyone,
        method: "POST",
        target: "/mcp",
        headers: headers.to_vec(),
    }
}

fn answer() -> Answer<'static> {
    let headers: [(&str, &[u8]); 3] = [
        ("content-type", b"application/json"),
        ("content-length", b"190"),
        ("date", b"Sat, 28 Nov 2026 13:38:25 GMT"),
    ];
    Answer {
        view: Fingerprint(0x0123_4567_89ab_cdef),
        sessions: 10_000,
        status: 200,
        headers: headers.to_vec(),
    }
}
