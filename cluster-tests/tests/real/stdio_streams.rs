//! The event streams of a child's session: replayed, taken over and kept apart at any node.

use std::time::Duration;

use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::http::{self, Stream};
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::wait::wait_until;
use serde_json::{Value, json};

use super::prepare::{Children, counting_children};

const SOON: Duration = Duration::from_secs(15);

/// After this the call that asked for an announcement has its answer, also on a busy machine: the announcement is
/// then nobody's but the standalone stream's.
const AFTER_MS: u64 = 400;

/// Between two numbers, so that the child's clock can't confuse their order.
const STEP_MS: u64 = 60;

#[tokio::test]
async fn a_stream_that_was_cut_is_resumed_at_another_node_without_loss_or_repetition() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut stream = session.listen(&cluster.url("a")).await.unwrap();
    for n in 1..=3 {
        announce_later(&cluster, &session, n).await;
    }
    let (numbers, last) = announced(&mut stream, 3).await;
    assert_eq!(numbers, [1, 2, 3]);
    drop(stream);
    for n in 4..=5 {
        announce_later(&cluster, &session, n).await;
    }
    tokio::time::sleep(Duration::from_millis(2 * AFTER_MS)).await; // said while nobody listens
    let mut stream = session.resume(&cluster.url("b"), &last).await.unwrap();
    assert_eq!(stream.status, 200);
    announce_later(&cluster, &session, 6).await;
    let (numbers, last) = announced(&mut stream, 3).await;
    assert_eq!(numbers, [4, 5, 6], "lost, out of order or twice");
    drop(stream);
    // Nothing is left to replay, and the stream goes on.
    let mut stream = session.resume(&cluster.url("c"), &last).await.unwrap();
    announce_later(&cluster, &session, 7).await;
    assert_eq!(announced(&mut stream, 1).await.0, [7]);
}

#[tokio::test]
async fn what_a_child_says_before_anybody_listens_waits_for_the_stream() {
    let Children { cluster, .. } = counting_children(2).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for n in 1..=3 {
        announce_later(&cluster, &session, n).await;
    }
    tokio::time::sleep(Duration::from_millis(2 * AFTER_MS)).await; // said while nobody listens
    let mut stream = session.listen(&cluster.url("b")).await.unwrap();
    assert_eq!(announced(&mut stream, 3).await.0, [1, 2, 3]);
}

#[tokio::test]
async fn event_ids_are_unique_in_a_session_and_a_stream_replays_only_its_own() {
    let Children { cluster, .. } = counting_children(2).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut standing = session.listen(&cluster.url("a")).await.unwrap();
    let slow = call(2, "slow", json!({"ms": 1_500}));
    let mut stream = session.post_stream(&cluster.url("b"), &slow).await.unwrap();
    let primed = stream.event(SOON).await.unwrap().and_then(|event| event.id).expect("no priming event");
    drop(stream);
    announce_later(&cluster, &session, 1).await;
    let (_, said_on_standing) = announced(&mut standing, 1).await;
    assert_ne!(primed, said_on_standing);

    let mut resumed = session.resume(&cluster.url("a"), &primed).await.unwrap();
    let reply = resumed.message(SOON).await.unwrap().expect("the stream ends without the answer");
    assert_eq!((&reply["id"], said(&reply)), (&json!(2), Some("slept 1500 ms")), "another stream's: {reply}");
    // Whoever asked for a call's rest leaves the session's own stream where it was.
    announce_later(&cluster, &session, 2).await;
    assert_eq!(announced(&mut standing, 1).await.0, [2], "it was displaced");
}

#[tokio::test]
async fn the_newest_stream_takes_over_at_once_and_the_older_ones_hear_nothing_more() {
    let Children { cluster, .. } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut older = vec![session.listen(&cluster.url("a")).await.unwrap()];
    for (n, node) in (1..).zip(["b", "c", "c", "a"]) {
        let mut newer = session.listen(&cluster.url(node)).await.unwrap();
        assert_eq!(newer.status, 200);
        announce_later(&cluster, &session, n).await;
        assert_eq!(announced(&mut newer, 1).await.0, [n]);
        older.push(newer);
    }
    // Whether they are kept open or end is up to the nodes; what the newest one has got is on none of them.
    older.pop();
    for stream in &mut older {
        let rest = tokio::time::timeout(Duration::from_millis(AFTER_MS), stream.message(SOON)).await;
        let rest = rest.ok().map(Result::unwrap).unwrap_or_default();
        assert_eq!(rest, None, "said twice");
    }
}

#[tokio::test]
async fn a_quiet_stream_says_that_it_lives() {
    let Children { cluster, .. } = counting_children(1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let get = format!(
        "GET /mcp HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nmcp-session-id: {}\r\n\r\n",
        session.id
    );
    // A comment is due after 15 s: whoever takes 18 s of silence for the end is still reading after 20 s.
    let reading = http::raw(cluster.listen("a"), get.as_bytes(), Duration::from_secs(18));
    let ended = tokio::time::timeout(Duration::from_secs(20), reading).await;
    assert!(ended.is_err(), "it ended, or fell silent: {ended:?}");
}

#[tokio::test]
async fn the_streams_of_a_session_end_when_it_is_ended() {
    let Children { cluster, mark } = counting_children(3).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut standing = session.listen(&cluster.url("b")).await.unwrap();
    let slow = call(2, "slow", json!({"ms": 600_000}));
    let mut calling = session.post_stream(&cluster.url("c"), &slow).await.unwrap();
    assert!(session.delete(&cluster.url("a")).await.unwrap().status < 300);
    assert_eq!(standing.message(SOON).await.unwrap(), None);
    if let Some(reply) = calling.message(SOON).await.unwrap() {
        assert_eq!((&reply["id"], reply["error"].is_object()), (&json!(2), true), "{reply}");
    }
    let gone = async || cluster_tests::real::marked::all(&mark).is_empty();
    wait_until("the child is gone", SOON, gone).await;
}

/// Has the child say a number once no call is in progress any more, and after every smaller number.
async fn announce_later(cluster: &Cluster, session: &Session, n: u64) {
    let request = call(100 + n, "announce", json!({"n": n, "after_ms": AFTER_MS + n * STEP_MS}));
    let reply = session.post(&cluster.url("a"), &request).await.unwrap().reply().unwrap();
    assert_eq!(said(&reply), Some("To be announced"), "{reply}");
}

/// The next `count` numbers that were announced, and the id of the last one's event.
async fn announced(stream: &mut Stream, count: usize) -> (Vec<u64>, String) {
    let (mut numbers, mut last) = (Vec::new(), None);
    while numbers.len() < count {
        let event = stream.event(SOON).await.unwrap().expect("the stream ends");
        let message: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if let Some(number) = message["params"]["data"]["announced"].as_u64() {
            numbers.push(number);
            last = event.id;
        }
    }
    (numbers, last.expect("nothing to resume after"))
}
