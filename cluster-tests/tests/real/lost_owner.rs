//! The owner of a session is killed: what was on its way is answered honestly, and nothing ever hangs.

use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::Answer;
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

/// A request waits 10 s at most while ownership is unsettled; the rest is for a busy machine.
const HONEST: Duration = Duration::from_secs(12);

/// A stream breaks when gossip is sure of the death, after about 6 s; its node then asks for the rest for 15 s at most.
const HONEST_IN_A_STREAM: Duration = Duration::from_secs(25);

/// Longer than anybody waits: a call that is on its way whenever its owner is killed.
const LONG_MS: u64 = 120_000;

#[tokio::test]
async fn a_call_on_its_way_when_its_owner_dies_is_answered_with_an_error_under_its_own_id() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = other_than(&cluster, &owner);
    // The answer's head comes from the upstream: once it is here, the call is there.
    let slow = call(7, "slow", json!({"ms": LONG_MS}));
    let mut answer = session.post_stream(&cluster.url(&entry), &slow).await.unwrap();
    assert_eq!(answer.status, 200);

    cluster.kill(&owner).await.unwrap();
    let reply = answer.message(HONEST_IN_A_STREAM).await.unwrap().expect("the stream ends without an answer");
    assert_lost(&reply, &json!(7));
    assert_eq!(reply["error"]["data"]["mayHaveRun"], true, "{reply}");
    assert!(answer.event(HONEST).await.unwrap().is_none(), "something follows the answer");
}

#[tokio::test]
async fn whatever_is_sent_after_the_owners_death_is_answered_in_time() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    session.count(&cluster.url("b"), 1).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    cluster.kill(&owner).await.unwrap();

    let notification =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}});
    for url in cluster.urls() {
        let request = call(8, "count", json!({}));
        let (request, notification) =
            tokio::join!(in_time(session.post(&url, &request)), in_time(session.post(&url, &notification)));
        assert_answered(&request, &json!(8));
        assert_put_off(&notification);
    }
}

#[tokio::test]
async fn whatever_is_sent_while_the_owner_stands_still_is_answered_in_time() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let entry = cluster.url(&other_than(&cluster, &owner));
    cluster.freeze(&owner).unwrap();

    let notification =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}});
    let request = call("eight", "count");
    let (request, notification) =
        tokio::join!(in_time(session.post(&entry, &request)), in_time(session.post(&entry, &notification)));
    assert_answered(&request, &json!("eight"));
    assert_put_off(&notification);
    cluster.thaw(&owner).unwrap();

    fn call(id: &str, tool: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
    }
}

#[tokio::test]
async fn a_route_that_expires_lost_sessions_answers_404_once_the_loss_is_known() {
    let server = Upstream::fixture().await.unwrap();
    let config =
        format!("[[route]]\npath = \"/mcp\"\nupstream = [\"{}\"]\non_loss = \"expire\"\n", server.url);
    let mut cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    cluster.kill(&owner).await.unwrap();
    let entry = &cluster.names()[0];
    let url = cluster.url(entry);
    wait_for("the loss is known", Duration::from_secs(30), async || {
        let answer = in_time(session.post(&url, &call(3, "count", json!({})))).await;
        anyhow::ensure!(answer.status == 404, "{}", answer.text());
        assert_eq!(answer.json()?["error"], json!({"code": -32001, "message": "Session not found"}));
        Ok(())
    })
    .await;
    let path = format!("/v1/ring/lookup?session={}", session.id);
    let found = cluster.admin_json(entry, &path).await.unwrap();
    assert_eq!((&found["state"], &found["owner"]), (&json!("lost"), &Value::Null), "{found}");
}

#[tokio::test]
async fn a_node_that_is_restarted_under_its_name_steals_nothing() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    cluster.kill(&owner).await.unwrap();
    cluster.join(&owner).await.unwrap();
    // The new incarnation is proof: nobody has to wait, and nobody serves the session as if it were its own.
    for url in cluster.urls() {
        let answer = in_time(session.post(&url, &call(3, "count", json!({})))).await;
        assert_answered(&answer, &json!(3));
        assert_eq!(answer.json().unwrap()["error"]["data"]["reason"], "owner_lost");
    }
    let new = Session::open(&cluster.url(&owner)).await.unwrap();
    for (call, url) in (1..).zip(cluster.urls()) {
        assert_eq!(new.count(&url, call).await.unwrap(), call);
    }
}

#[tokio::test]
async fn the_last_node_answers_in_time_too() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let last = other_than(&cluster, &owner);
    for name in cluster.names() {
        if name != last {
            cluster.kill(&name).await.unwrap();
        }
    }
    let url = cluster.url(&last);
    assert_answered(&in_time(session.post(&url, &call(3, "count", json!({})))).await, &json!(3));
    // A new session needs nobody else.
    let new = Session::open(&url).await.unwrap();
    assert_eq!(new.count(&url, 1).await.unwrap(), 1);
}

fn other_than(cluster: &Cluster, name: &str) -> String {
    cluster.names().into_iter().find(|other| other != name).unwrap()
}

async fn in_time(answer: impl Future<Output = anyhow::Result<Answer>>) -> Answer {
    tokio::time::timeout(HONEST, answer).await.expect("no answer in time").expect("an answer")
}

/// An honest error under the request's own id: nobody takes a session over yet.
fn assert_answered(answer: &Answer, id: &Value) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_lost(&answer.reply().unwrap(), id);
}

fn assert_lost(reply: &Value, id: &Value) {
    assert_eq!((&reply["id"], &reply["error"]["code"]), (id, &json!(-31001)), "{reply}");
    let data = &reply["error"]["data"];
    assert!(data["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{reply}");
    assert!(data["mayHaveRun"].is_boolean(), "{reply}");
}

fn assert_put_off(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    let after = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    assert!(after.is_some(), "503 without Retry-After: {:?}", answer.headers);
}
