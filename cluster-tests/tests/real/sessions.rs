//! What a client sees of a session, by hand: its id, its owner, its streams.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::real::mcp::{Session, call};
use serde_json::json;

use super::prepare::{Parts, counting_cluster};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_session_has_one_id_and_one_owner_wherever_it_is_asked() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    assert!(session.id.starts_with("rw1."), "{}", session.id);
    let owner = cluster.owner("a", &session.id).await.unwrap();
    for name in cluster.names() {
        let answer = session.post(&cluster.url(&name), &call(7, "whoami", json!({}))).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("ringway-node"), Some(owner.as_str()));
        assert_eq!(answer.header("ringway-hops"), Some(if name == owner { "0" } else { "1" }));
        // The upstream's own id shows nowhere: either there is none in an answer, or it is Ringway's.
        assert!(answer.header("mcp-session-id").is_none_or(|id| id == session.id), "{:?}", answer.headers);
    }
}

#[tokio::test]
async fn the_request_id_comes_back_with_its_type() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for url in cluster.urls() {
        for id in [json!(0), json!("0"), json!("a b\u{e9}"), json!(9_007_199_254_740_991_u64)] {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
            let reply = session.post(&url, &request).await.unwrap().reply().unwrap();
            assert_eq!(reply["id"], id, "{reply}");
        }
    }
}

#[tokio::test]
async fn a_session_stays_with_the_replica_that_opened_it() {
    let Parts { cluster, upstreams } = counting_cluster(2, 3).await;
    let mut processes = BTreeSet::new();
    for number in 0..12 {
        let session = Session::open(&cluster.urls()[number % 2]).await.unwrap();
        let mut answers = BTreeSet::new();
        for (id, url) in (1..).zip(cluster.urls()) {
            answers.insert(session.call(&url, id, "whoami", json!({})).await.unwrap());
        }
        assert_eq!(answers.len(), 1, "one session, two upstream sessions: {answers:?}");
        // `whoami` says PROCESS:SESSION.
        processes.extend(answers.iter().filter_map(|answer| answer.split(':').next()).map(str::to_owned));
    }
    assert!(processes.len() >= 2, "twelve sessions on one of {} replicas", upstreams.len());
}

#[tokio::test]
async fn what_the_server_says_by_itself_reaches_a_stream_on_any_node() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    // The counter tells whoever watches this resource that it has changed.
    let uri = "test://watched-resource";
    let watch = json!({"jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": {"uri": uri}});
    for name in cluster.names() {
        let mut stream = session.listen(&cluster.url(&name)).await.unwrap();
        assert_eq!(stream.status, 200);
        let reply = session.post(&cluster.url("a"), &watch).await.unwrap().reply().unwrap();
        assert!(reply.get("result").is_some(), "{reply}");
        session.count(&cluster.url("b"), 2).await.unwrap();
        let message = stream.message(SOON).await.unwrap().expect("the stream ends");
        assert_eq!(
            (&message["method"], &message["params"]["uri"]),
            (&json!("notifications/resources/updated"), &json!(uri))
        );
        // The next one opens a stream at another node while this one is being closed: the newer one wins.
        drop(stream);
    }
}

#[tokio::test]
async fn a_session_that_was_ended_is_gone_on_every_node() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    session.count(&cluster.url("c"), 1).await.unwrap();
    let ended = session.delete(&cluster.url("b")).await.unwrap();
    assert!([200, 204].contains(&ended.status), "{}", ended.status);
    for url in cluster.urls() {
        let answer = session.post(&url, &call(2, "count", json!({}))).await.unwrap();
        assert_eq!(answer.status, 404, "{}", answer.text());
        assert_eq!(session.listen(&url).await.unwrap().status, 404);
        assert_eq!(session.delete(&url).await.unwrap().status, 404);
    }
}
