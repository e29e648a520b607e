//! Large requests, larger answers, and clients that don't read: memory stays bounded, and who stalls stalls alone.

use std::time::{Duration, Instant};

use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::http;
use cluster_tests::real::mcp::{POST_HEADERS, Session, call, said};
use serde_json::json;

use super::lost_and_found::other_than;
use super::prepare::{Children, Parts, counting_children, counting_cluster};

const MIB: usize = 1024 * 1024;

/// What a node may grow by while a large body passes. Its buffers are 256 KiB each way on the hop and under 1 MiB on
/// a connection; the rest is the allocator's, which takes memory by the tens of MiB. Seen: 14 to 22 MiB, the same for
/// answers of 16 and of 76 MiB.
const GROWTH_MAX: u64 = 32 * MIB as u64;

/// A call beside a stalled one. Alone it takes milliseconds, and stalled for ever; the rest is for a busy machine.
const NOT_STALLED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn an_answer_of_64_mib_passes_with_memory_bounded() {
    const LEN: usize = 64 * MIB;
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    for entry in [owner.clone(), other_than(&cluster, &owner)] {
        let before = forget_peaks(&cluster);
        let answer = session.post(&cluster.url(&entry), &call(2, "long", json!({"len": LEN}))).await.unwrap();
        assert_eq!(answer.status, 200);
        let letters = answer.body.iter().filter(|&&byte| byte == b'x').count();
        assert!((LEN..LEN + 100).contains(&letters), "{letters} of {LEN} letters");
        assert_bounded(&cluster, &before, GROWTH_MAX);
    }
}

#[tokio::test]
async fn a_request_of_4_mib_passes_with_memory_bounded() {
    for stdio in [false, true] {
        let (cluster, _upstreams) = if stdio {
            (counting_children(2).await.cluster, Vec::new())
        } else {
            let Parts { cluster, upstreams } = counting_cluster(2, 1).await;
            (cluster, upstreams)
        };
        let session = Session::open(&cluster.url("a")).await.unwrap();
        let before = forget_peaks(&cluster);
        let wrap = |text: &str| call(3, "json_schema_2020_12_tool", json!({"name": text, "email": "e"}));
        // To the byte what is allowed.
        let text = "y".repeat(4 * MIB - wrap("").to_string().len());
        for url in cluster.urls() {
            let reply = session.post(&url, &wrap(&text)).await.unwrap().reply().unwrap();
            assert!(said(&reply).is_some_and(|said| said.contains(&text)), "it comes back otherwise");
        }
        // And the body, at the entry node so that it can be sent again and at the owner until it has been passed on,
        // and a child's answer as one line: 4 MiB each, 8 in a buffer that doubles.
        assert_bounded(&cluster, &before, GROWTH_MAX + 24 * MIB as u64);
        let headers: Vec<_> =
            POST_HEADERS.into_iter().chain([("mcp-session-id", session.id.as_str())]).collect();
        for url in cluster.urls() {
            let long = wrap(&format!("{text}y")).to_string();
            assert_eq!(http::request("POST", &url, &headers, long).await.unwrap().status, 413);
        }
    }
}

#[tokio::test]
async fn a_reader_that_stalls_stalls_only_itself() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let before = forget_peaks(&cluster);
    stall_and_count(&cluster, 64 * MIB).await;
    assert_bounded(&cluster, &before, GROWTH_MAX);
}

#[tokio::test]
async fn a_reader_of_a_child_that_stalls_stalls_only_itself() {
    let Children { cluster, .. } = counting_children(2).await;
    // More than the buffers of three connections hold.
    stall_and_count(&cluster, 12 * MIB).await;
}

/// Asks for a long answer at every node and leaves it unread; then counts on in the same session and in another.
async fn stall_and_count(cluster: &Cluster, len: usize) {
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let other = Session::open(&cluster.url("b")).await.unwrap();
    let mut unread = Vec::new();
    for (id, url) in (100u64..).zip(cluster.urls()) {
        let stream = session.post_stream(&url, &call(id, "long", json!({"len": len}))).await.unwrap();
        assert_eq!(stream.status, 200);
        unread.push((id, stream));
    }
    for (number, url) in (1..=20).zip(cluster.urls().iter().cycle()) {
        for session in [&session, &other] {
            let asked = Instant::now();
            assert_eq!(session.count(url, number).await.unwrap(), number);
            assert!(asked.elapsed() < NOT_STALLED, "{:?}", asked.elapsed());
        }
    }
    // And whoever reads on gets it all.
    for (id, mut stream) in unread {
        let reply = stream.message(http::ANSWER_DEADLINE).await.unwrap().expect("the stream ends");
        assert_eq!((&reply["id"], said(&reply).map(str::len)), (&json!(id), Some(len)));
    }
}

/// What each node holds now, in the order of their names.
fn forget_peaks(cluster: &Cluster) -> Vec<u64> {
    cluster.names().iter().map(|name| cluster.node(name).process.forget_peak().unwrap()).collect()
}

fn assert_bounded(cluster: &Cluster, before: &[u64], growth_max: u64) {
    for (name, before) in cluster.names().iter().zip(before) {
        let peak = cluster.node(name).process.peak_memory().unwrap();
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        println!("{name}: {:.1} MiB before, {:.1} MiB at most", mib(*before), mib(peak));
        assert!(peak < before + growth_max, "{name} grew from {:.1} to {:.1} MiB", mib(*before), mib(peak));
    }
}
