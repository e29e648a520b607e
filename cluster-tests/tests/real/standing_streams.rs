//! The owner of a session is killed: streams at the nodes that live on stay open, and miss and repeat nothing.

use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::wait::wait_for;
use serde_json::json;

use super::lost_and_found::{SERVED_AGAIN, announce, announced, other_than};
use super::prepare::{Parts, counting_cluster};

#[tokio::test]
async fn a_stream_stays_open_when_its_owner_dies_and_no_event_is_lost_or_comes_twice() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = other_than(&cluster, &owner);
    let mut stream = session.listen(&cluster.url(&entry)).await.unwrap();
    assert_eq!((stream.status, stream.header("ringway-hops")), (200, Some("1")));
    for n in 1..=3 {
        announce(&cluster.url(&owner), &session, n).await;
    }
    assert_eq!(announced(&mut stream, 3).await, [1, 2, 3]);

    cluster.kill_noticed(&owner).await.unwrap();
    for n in 4..=6 {
        announce(&cluster.url(&entry), &session, n).await;
    }
    assert_eq!(announced(&mut stream, 3).await, [4, 5, 6], "lost, out of order or twice");
    let resumed = [("outcome", "resumed")];
    assert!(cluster.metric(&entry, "ringway_reattached_total", &resumed).await.unwrap() >= 1.0);

    // The stream is one to the client and to whoever counts: the one that it opened.
    drop(stream);
    wait_for("the node has noticed that its client is gone", SERVED_AGAIN, async || {
        let left = cluster.metric(&entry, "ringway_streams", &[]).await?;
        anyhow::ensure!(left < 1.0, "{left} streams are open");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_call_on_its_way_when_its_owner_dies_gets_its_answer_from_the_next_one() {
    const SLEEP_MS: u64 = 25_000; // longer than the takeover takes
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = other_than(&cluster, &owner);
    let slow = call(7, "slow", json!({"ms": SLEEP_MS}));
    let mut answer = session.post_stream(&cluster.url(&entry), &slow).await.unwrap();
    let primed = answer.event(SERVED_AGAIN).await.unwrap().expect("the stream ends");
    assert!(primed.id.is_some(), "nothing to resume after: {primed:?}");

    cluster.kill(&owner).await.unwrap();
    let reply = answer.message(SERVED_AGAIN * 2).await.unwrap().expect("the stream ends without an answer");
    assert_eq!((&reply["id"], said(&reply)), (&json!(7), Some("slept 25000 ms")), "{reply}");
    assert!(answer.event(SERVED_AGAIN).await.unwrap().is_none(), "something follows the answer");
}
