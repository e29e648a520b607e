//! The owner of a session stands still until it is taken for dead, and comes back: the streams at the other nodes
//! stay open meanwhile, and miss and repeat nothing.

use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, names_in_phase};
use cluster_tests::real::http::Stream;
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

/// Gossip takes about 6 s to be sure of a death, a request waits up to 10 s; the rest is for a busy machine.
pub(crate) const SERVED_AGAIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_stream_stays_open_while_its_owner_is_lost_and_no_event_is_lost_or_comes_twice() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = other_than(&cluster, &owner);
    let mut stream = session.listen(&cluster.url(&entry)).await.unwrap();
    assert_eq!((stream.status, stream.header("ringway-hops")), (200, Some("1")));
    for n in 1..=2 {
        announce(&cluster.url(&owner), &session, n).await;
    }
    assert_eq!(announced(&mut stream, 2).await, [1, 2]);

    lose_and_find(&cluster, &owner, &entry).await;
    for n in 3..=4 {
        announce(&cluster.url(&entry), &session, n).await;
    }
    assert_eq!(announced(&mut stream, 2).await, [3, 4], "lost, out of order or twice");
    let resumed = [("outcome", "resumed")];
    assert_eq!(cluster.metric(&entry, "ringway_reattached_total", &resumed).await.unwrap(), 1.0);
    // And nothing is on its way that was said before.
    announce(&cluster.url(&owner), &session, 5).await;
    assert_eq!(announced(&mut stream, 1).await, [5]);
}

#[tokio::test]
async fn a_call_whose_owner_is_lost_and_found_is_answered_all_the_same() {
    const SLEEP_MS: u64 = 15_000; // longer than it takes to lose the owner
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = other_than(&cluster, &owner);
    let slow = call(7, "slow", json!({"ms": SLEEP_MS}));
    let mut answer = session.post_stream(&cluster.url(&entry), &slow).await.unwrap();
    assert!(answer.event(SERVED_AGAIN).await.unwrap().is_some_and(|primed| primed.id.is_some()));

    lose_and_find(&cluster, &owner, &entry).await;
    let reply = answer.message(SERVED_AGAIN).await.unwrap().expect("the stream ends without an answer");
    assert_eq!((&reply["id"], said(&reply)), (&json!(7), Some("slept 15000 ms")), "{reply}");
    assert!(answer.event(SERVED_AGAIN).await.unwrap().is_none(), "something follows the answer");
    let resumed = [("outcome", "resumed")];
    assert_eq!(cluster.metric(&entry, "ringway_reattached_total", &resumed).await.unwrap(), 1.0);
}

/// Stops `lost` until `entry` takes it for dead, which closes all connections to it.
async fn lose_and_find(cluster: &Cluster, lost: &str, entry: &str) {
    cluster.freeze(lost).unwrap();
    wait_for("the owner is taken for dead", SERVED_AGAIN, async || {
        let members = cluster.admin_json(entry, "/v1/members").await?;
        anyhow::ensure!(names_in_phase(&members, "dead") == [lost], "{members}");
        Ok(())
    })
    .await;
    cluster.thaw(lost).unwrap();
}

/// Has the server announce a number, once somebody serves the session. A call that is refused has not run,
/// unless the refusal says so.
pub(crate) async fn announce(url: &str, session: &Session, n: u64) {
    wait_for("somebody serves the session", SERVED_AGAIN, async || {
        let reply = session.post(url, &call(n, "announce", json!({"n": n}))).await?.reply()?;
        let may_have_run = &reply["error"]["data"]["mayHaveRun"];
        assert_ne!(may_have_run, &json!(true), "whether it was announced is not known: {reply}");
        anyhow::ensure!(said(&reply) == Some("Announced"), "{reply}");
        Ok(())
    })
    .await;
}

/// The next `count` numbers that were announced, each in an event with an id.
pub(crate) async fn announced(stream: &mut Stream, count: usize) -> Vec<u64> {
    let mut announced = Vec::new();
    while announced.len() < count {
        let event = stream.event(SERVED_AGAIN).await.unwrap().expect("the stream ends");
        if event.data.is_empty() {
            continue; // it primes the stream
        }
        let message: Value = serde_json::from_str(&event.data).unwrap();
        if let Some(number) = message["params"]["data"]["announced"].as_u64() {
            assert!(event.id.is_some(), "nothing to resume after: {event:?}");
            announced.push(number);
        }
    }
    announced
}

pub(crate) fn other_than(cluster: &Cluster, name: &str) -> String {
    cluster.names().into_iter().find(|other| other != name).unwrap()
}
