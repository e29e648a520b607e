//! Session ids that nobody gave out, sent to nodes.

use cluster_tests::forge::{Forger, Kind};
use cluster_tests::real::http;
use cluster_tests::real::mcp::{Session, call};
use serde_json::json;

use super::prepare::{Parts, counting_cluster};

/// To each node. Each is a request of its own, of a millisecond or two.
const FORGED: usize = 1_000;

/// Sends forged ids of every kind to a node, one after the other.
async fn refused(mut forger: Forger, url: String, message: String, gone: String) {
    for kind in Kind::ALL.into_iter().cycle().take(FORGED) {
        let Some(id) = forger.forged(kind) else { continue };
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", &id),
        ];
        let answer = http::request("POST", &url, &headers, message.clone()).await.unwrap();
        assert_eq!((answer.status, answer.text()), (404, gone.clone()), "{kind:?}: {id}");
    }
}

#[tokio::test]
async fn a_forged_id_is_the_same_404_at_every_node_and_no_peer_is_asked() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let mut sessions = Vec::new();
    for at in 0..9 {
        sessions.push(Session::open(&cluster.urls()[at % 3]).await.unwrap());
    }
    let owners = ["a", "b", "c"].map(|name| cluster.owner(name, &sessions[0].id));
    for owner in owners {
        assert!(cluster.names().contains(&owner.await.unwrap()), "the ids that they are made of are true");
    }
    let message = call(7, "count", json!({})).to_string();
    let ended = sessions.pop().unwrap();
    ended.delete(&cluster.url("a")).await.unwrap();
    let gone = ended.post(&cluster.url("a"), &call(7, "count", json!({}))).await.unwrap();
    assert_eq!(gone.status, 404);

    let counted = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
    assert!(counted > 0.0, "a true id is asked for, so that the counter counts");
    let genuine: Vec<_> = sessions.iter().map(|session| session.id.clone()).collect();
    let mut nodes = tokio::task::JoinSet::new();
    for (seed, url) in (5..).zip(cluster.urls()) {
        nodes.spawn(refused(Forger::new(seed, genuine.clone()), url, message.clone(), gone.text()));
    }
    nodes.join_all().await;
    let now = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
    assert_eq!(now, counted, "a peer was asked for a forged id");
    let forged =
        cluster.metric_of_all("ringway_session_not_found_total", &[("why", "forged")]).await.unwrap();
    assert!(forged > 2_000.0, "{forged} were found to be forged");
    for session in sessions {
        assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1, "what is true goes on");
    }
}
