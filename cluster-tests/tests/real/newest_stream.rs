//! A client's newest GET stream takes over from its dead one at once, also where the server itself allows a session
//! one stream and refuses the second with 409.

use std::time::Duration;

use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::upstream::Upstream;
use serde_json::json;

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_second_stream_is_never_refused_in_front_of_the_typescript_sdk() {
    let test = "a_second_stream_is_never_refused_in_front_of_the_typescript_sdk";
    let Some(upstream) = or_left_out(test, Upstream::everything().await) else { return };
    take_over_again_and_again(&upstream).await;
}

#[tokio::test]
async fn a_second_stream_is_never_refused_in_front_of_the_python_sdk() {
    let test = "a_second_stream_is_never_refused_in_front_of_the_python_sdk";
    let Some(upstream) = or_left_out(test, Upstream::fastmcp().await) else { return };
    take_over_again_and_again(&upstream).await;
}

#[tokio::test]
async fn a_second_stream_is_never_refused_in_front_of_the_rust_sdk() {
    take_over_again_and_again(&Upstream::fixture().await.unwrap()).await;
}

/// Opens streams at one node after the other, as a client does whose network has gone without a word: the node it
/// had its stream at does not know that.
async fn take_over_again_and_again(upstream: &Upstream) {
    let cluster = Cluster::start(3, std::slice::from_ref(&upstream.url)).await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut older = session.listen(&cluster.url("a")).await.unwrap();
    assert_eq!(older.status, 200);
    for node in ["b", "b", "c", "a", "c"] {
        let newer = session.listen(&cluster.url(node)).await.unwrap();
        assert_eq!(newer.status, 200, "at {node}");
        assert_eq!(older.message(SOON).await.unwrap(), None, "the older one has not ended cleanly");
        older = newer;
    }
}

#[tokio::test]
async fn the_rest_of_a_call_can_be_asked_for_while_the_sessions_stream_stands() {
    let upstream = Upstream::fixture().await.unwrap();
    let cluster = Cluster::start(3, std::slice::from_ref(&upstream.url)).await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut standing = session.listen(&cluster.url("a")).await.unwrap();
    let slow = call(2, "slow", json!({"ms": 1_000}));
    let mut stream = session.post_stream(&cluster.url("b"), &slow).await.unwrap();
    let primed = stream.event(SOON).await.unwrap().and_then(|event| event.id).expect("no priming event");
    drop(stream);
    let mut resumed = session.resume(&cluster.url("c"), &primed).await.unwrap();
    assert_eq!(resumed.status, 200);
    let reply = resumed.message(SOON).await.unwrap().expect("the stream ends without the answer");
    assert_eq!((&reply["id"], said(&reply)), (&json!(2), Some("slept 1000 ms")), "{reply}");
    // The session's own stream is where it was.
    session.call(&cluster.url("b"), 3, "announce", json!({"n": 1})).await.unwrap();
    let announced = standing.message(SOON).await.unwrap().expect("it was displaced");
    assert_eq!(announced["params"]["data"]["announced"], 1, "{announced}");
}
