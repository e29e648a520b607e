//! The owner of a session is killed: streams at the nodes that live on stay open, and miss and repeat nothing.

use std::time::Duration;

use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::http::{Event, Stream};
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

/// Gossip takes about 6 s to be sure of a death, the new owner up to 10 s; the rest is for a busy machine.
const TAKEN_OVER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_stream_stays_open_when_its_owner_dies_and_no_event_is_lost_or_comes_twice() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = other_than(&cluster, &owner);
    let mut stream = session.listen(&cluster.url(&entry)).await.unwrap();
    assert_eq!((stream.status, stream.header("ringway-hops")), (200, Some("1")));
    for n in 1..=3 {
        session.call(&cluster.url(&owner), n, "announce", json!({"n": n})).await.unwrap();
    }
    let mut announced = announced(&mut stream, 3).await;

    cluster.kill(&owner).await.unwrap();
    for n in 4..=6 {
        say_after_the_loss(&cluster, &entry, &session, n).await;
    }
    announced.extend(self::announced(&mut stream, 3).await);
    let numbers: Vec<_> = announced.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6], "lost, out of order or twice");
    assert!(announced.iter().all(|(_, id)| id.is_some()), "without an id: {announced:?}");
    let resumed = [("outcome", "resumed")];
    assert!(cluster.metric(&entry, "ringway_reattached_total", &resumed).await.unwrap() >= 1.0);

    // The stream is one to the client and to whoever counts: the one that it opened.
    drop(stream);
    wait_for("the node has noticed that its client is gone", TAKEN_OVER, async || {
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
    let primed = answer.event(TAKEN_OVER).await.unwrap().expect("the stream ends");
    assert!(primed.id.is_some(), "nothing to resume after: {primed:?}");

    cluster.kill(&owner).await.unwrap();
    let reply = answer.message(TAKEN_OVER * 2).await.unwrap().expect("the stream ends without an answer");
    assert_eq!((&reply["id"], said(&reply)), (&json!(7), Some("slept 25000 ms")), "{reply}");
    assert!(answer.event(TAKEN_OVER).await.unwrap().is_none(), "something follows the answer");
}

/// The next `count` numbers that were announced, and the ids of their events.
async fn announced(stream: &mut Stream, count: usize) -> Vec<(u64, Option<String>)> {
    let mut announced = Vec::new();
    while announced.len() < count {
        let event = stream.event(TAKEN_OVER).await.unwrap().expect("the stream ends");
        announced.extend(number(&event).map(|number| (number, event.id)));
    }
    announced
}

/// What an event announces; `None` for those that only prime a stream.
fn number(event: &Event) -> Option<u64> {
    if event.data.is_empty() {
        return None;
    }
    let message: Value = serde_json::from_str(&event.data).unwrap();
    message["params"]["data"]["announced"].as_u64()
}

/// Announces a number once the session has a new owner. A call that is refused has not run, unless it says so.
async fn say_after_the_loss(cluster: &Cluster, entry: &str, session: &Session, n: u64) {
    let url = cluster.url(entry);
    wait_for("somebody serves the session", TAKEN_OVER, async || {
        let reply = session.post(&url, &call(n, "announce", json!({"n": n}))).await?.reply()?;
        let may_have_run = &reply["error"]["data"]["mayHaveRun"];
        assert_ne!(may_have_run, &json!(true), "whether it was announced is not known: {reply}");
        anyhow::ensure!(said(&reply) == Some("Announced"), "{reply}");
        Ok(())
    })
    .await;
}

fn said(reply: &Value) -> Option<&str> {
    reply["result"]["content"][0]["text"].as_str()
}

fn other_than(cluster: &Cluster, name: &str) -> String {
    cluster.names().into_iter().find(|other| other != name).unwrap()
}
