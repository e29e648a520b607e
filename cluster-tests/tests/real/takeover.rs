//! The owner of a session is killed, stopped or restarted: another node goes on with it, and what was on its way is
//! answered, or an honest error says that it may have run.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::Answer;
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::lost_and_found::{announced, other_than};
use super::prepare::{Parts, counting_cluster};

/// A death is known in 50 ms and silence in 2 s; a request waits 10 s at most. The rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(15);
/// A node waits 5 s for its seeds, and as long again until what it sees counts.
const COMES_BACK: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_killed_nodes_sessions_go_on_at_the_others() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        let session = Session::open(&cluster.url("a")).await.unwrap();
        assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1);
        sessions.push(session);
    }
    let mut moved = Vec::new();
    for session in &sessions {
        if cluster.owner("b", &session.id).await.unwrap() == "a" {
            moved.push(session);
        }
    }
    cluster.kill_noticed("a").await.unwrap();
    let urls = cluster.urls();
    for (at, session) in sessions.iter().enumerate() {
        for counted in 2..=4 {
            let url = &urls[(at + counted as usize) % urls.len()];
            assert_eq!(count(session, url, counted).await, counted, "a call was lost, or ran twice");
        }
    }
    assert!(!moved.is_empty(), "nothing that was opened at a stayed there");
    let found = lookup(&cluster, "b", moved[0]).await;
    assert_eq!((&found["epoch"], &found["state"]), (&json!(2), &json!("live")), "{found}");
    assert_eq!(lookup(&cluster, "c", moved[0]).await, found, "nodes disagree");
    let served = cluster.metric_of_all("ringway_takeovers_total", &[("outcome", "served")]).await.unwrap();
    assert_eq!(served, moved.len() as f64);
}

#[tokio::test]
async fn the_nodes_that_are_left_take_over_one_after_the_other() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut counted = 0;
    while cluster.names().len() > 1 {
        let owner = owner(&cluster, &session).await;
        cluster.kill_noticed(&owner).await.unwrap();
        for url in cluster.urls() {
            counted += 1;
            assert_eq!(count(&session, &url, counted).await, counted);
        }
    }
    // A new session needs nobody else.
    let url = cluster.urls().remove(0);
    let new = Session::open(&url).await.unwrap();
    assert_eq!(new.count(&url, 1).await.unwrap(), 1);
}

#[tokio::test]
async fn two_of_five_nodes_are_killed_at_once() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(5, 2).await;
    let mut sessions = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        sessions.push(Session::open(&cluster.url(name)).await.unwrap());
    }
    // A few milliseconds apart: neither is known to be dead before the other is.
    cluster.kill("a").await.unwrap();
    cluster.kill("b").await.unwrap();
    for session in &sessions {
        let (mut id, mut counted) = (0, 0);
        for url in cluster.urls() {
            // Nor need either be when the first calls come: one may be lost to each of the two, and is told so.
            let mut sent = 0;
            let now = loop {
                (id, sent) = (id + 1, sent + 1);
                assert!(sent <= 3, "more calls are lost than nodes have died");
                if let Some(now) = count_or_lost(session, &url, id).await {
                    break now;
                }
            };
            assert!((counted + 1..=counted + sent).contains(&now), "{now} after {counted}, by {sent} calls");
            counted = now;
        }
    }
}

#[tokio::test]
async fn sessions_outlive_a_restart_of_the_whole_cluster() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    assert_eq!(session.count(&cluster.url("c"), 1).await.unwrap(), 1);
    for name in cluster.names() {
        cluster.kill(&name).await.unwrap();
    }
    for name in ["a", "b", "c"] {
        cluster.join(name).await.unwrap();
    }
    for (counted, url) in (2..).zip(cluster.urls()) {
        let counting = async || session.count(&url, counted).await;
        assert_eq!(wait_for("the session goes on from its id alone", IN_TIME, counting).await, counted);
    }
}

#[tokio::test]
async fn a_node_that_comes_back_alone_goes_on_where_nobody_is_at_its_seeds() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    assert_eq!(session.count(&cluster.url("a"), 1).await.unwrap(), 1);
    cluster.kill("a").await.unwrap();
    // The port of a seed that is not there: bound for a moment, so that it refuses connections.
    let seed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    cluster.add("a", &["--seed", &seed]).await.unwrap();
    let url = cluster.url("a");
    let counting = async || session.count(&url, 2).await;
    assert_eq!(wait_for("the session goes on from its id alone", COMES_BACK, counting).await, 2);
}

#[tokio::test]
async fn a_node_that_is_restarted_under_its_name_steals_nothing() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    let first = owner(&cluster, &session).await;
    cluster.kill(&first).await.unwrap();
    cluster.join(&first).await.unwrap();
    for (counted, url) in (1..).zip(cluster.urls()) {
        assert_eq!(count(&session, &url, counted).await, counted);
    }
    assert_ne!(owner(&cluster, &session).await, first);
    let new = Session::open(&cluster.url(&first)).await.unwrap();
    for (call, url) in (1..).zip(cluster.urls()) {
        assert_eq!(new.count(&url, call).await.unwrap(), call);
    }
}

#[tokio::test]
async fn what_was_deleted_stays_deleted_when_its_owner_dies() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = owner(&cluster, &session).await;
    assert_eq!(session.delete(&cluster.url("b")).await.unwrap().status, 200);
    cluster.kill_noticed(&owner).await.unwrap();
    for url in cluster.urls() {
        let answer = in_time(session.post(&url, &call(3, "count", json!({})))).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
    }
}

#[tokio::test]
async fn a_stopped_nodes_sessions_are_taken_over_and_it_serves_again_as_another() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    assert_eq!(session.count(&cluster.url("a"), 1).await.unwrap(), 1);
    let stopped = owner(&cluster, &session).await;
    let entry = other_than(&cluster, &stopped);
    cluster.freeze(&stopped).unwrap();
    // It may be that this one is sent before its owner is missed; it only reads.
    let (url, question) = (cluster.url(&entry), list_tools(2));
    assert!(in_time(session.post(&url, &question)).await.text().contains("whoami"));
    assert_eq!(count(&session, &cluster.url(&entry), 2).await, 2);
    let taker = lookup(&cluster, &entry, &session).await;
    assert_eq!(taker["epoch"], 2, "{taker}");

    cluster.thaw(&stopped).unwrap();
    let url = cluster.url(&stopped);
    let again = async || session.count(&url, 3).await;
    let counted = wait_for("it carries requests again", IN_TIME, again).await;
    assert!(counted >= 3, "{counted}");
    wait_for("all agree on who owns the session", IN_TIME, async || {
        for name in cluster.names() {
            let found = cluster.admin_json(&name, &format!("/v1/ring/lookup?session={}", session.id)).await?;
            anyhow::ensure!(found["owner"] == taker["owner"], "{name}: {found}");
        }
        Ok(())
    })
    .await;
    assert!(cluster.node(&stopped).process.log().contains("reborn"), "it was never told");
    wait_for("it takes new sessions", IN_TIME, async || Session::open(&url).await).await;
}

#[tokio::test]
async fn a_call_that_was_under_way_is_answered_honestly_and_one_that_only_reads_is_sent_again() {
    let Parts { mut cluster, upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let listed = session.post(&cluster.url("b"), &list_tools(1)).await.unwrap();
    assert!(listed.text().contains("whoami"), "{}", listed.text());
    let owner = owner(&cluster, &session).await;
    let entry = cluster.url(&other_than(&cluster, &owner));
    let before = session.call(&entry, 2, "whoami", json!({})).await.unwrap();

    // Stopped, the server keeps what it is asked: the calls are under way when their owner dies.
    upstreams[0].process.freeze().unwrap();
    let post = |id: u64, tool: &'static str| {
        let (session, entry) = (session.clone(), entry.clone());
        tokio::spawn(async move { session.post(&entry, &call(id, tool, json!({}))).await })
    };
    let (counts, reads) = (post(7, "count"), post(8, "whoami"));
    wait_for("both are under way", IN_TIME, async || {
        let forwarded = cluster.metric_of_all("ringway_sessions", &[("state", "live")]).await?;
        let connections = established_to(upstreams[0].address()?)?;
        anyhow::ensure!(forwarded >= 1.0 && connections >= 2, "{connections} connections");
        Ok(())
    })
    .await;
    cluster.kill(&owner).await.unwrap();
    upstreams[0].process.thaw().unwrap();
    let (counts, reads) = (in_time(joined(counts)).await, in_time(joined(reads)).await);
    let reply = counts.reply().unwrap();
    assert_eq!((counts.status, &reply["id"], &reply["error"]["code"]), (200, &json!(7), &json!(-31001)));
    assert_eq!(reply["error"]["data"], json!({"reason": "owner_lost", "mayHaveRun": true}), "{reply}");
    assert_eq!(reads.reply().unwrap()["result"]["content"][0]["text"], before, "{}", reads.text());
    // Whether it did run is what nobody knows; but not twice.
    let counted = count(&session, &entry, 9).await;
    assert!((1..=2).contains(&counted), "{counted}");
}

#[tokio::test]
async fn a_session_whose_server_died_with_its_node_begins_anew_under_its_id() {
    let mut servers = BTreeMap::new();
    let mut cluster = Plan::nodes(0).start().await.unwrap();
    for name in ["a", "b", "c"] {
        let server = Upstream::fixture().await.unwrap();
        cluster.add(name, &["--upstream", &server.url]).await.unwrap();
        servers.insert(name.to_owned(), server);
    }
    cluster.settled().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = owner(&cluster, &session).await;
    let entry = cluster.url(&other_than(&cluster, &owner));
    let mut stream = session.listen(&entry).await.unwrap();
    assert_eq!(session.count(&entry, 1).await.unwrap(), 1);
    assert_eq!(session.count(&entry, 2).await.unwrap(), 2);

    cluster.kill_noticed(&owner).await.unwrap();
    servers.get_mut(&owner).unwrap().process.kill().await.unwrap();
    assert_eq!(count(&session, &entry, 3).await, 1, "a new server counts from 1");
    for (counted, url) in (2..).zip(cluster.urls()) {
        assert_eq!(count(&session, &url, counted).await, counted);
    }
    assert_eq!(lookup(&cluster, "b", &session).await["epoch"], 2);
    let changed = stream.message(IN_TIME).await.unwrap().expect("the stream ended");
    assert!(changed["method"].as_str().is_some_and(|it| it.ends_with("/list_changed")), "{changed}");
    super::lost_and_found::announce(&entry, &session, 4).await;
    assert_eq!(announced(&mut stream, 1).await, [4]);
    let how = [("how", "reinitialize"), ("outcome", "served")];
    assert_eq!(cluster.metric_of_all("ringway_takeovers_total", &how).await.unwrap(), 1.0);
}

#[tokio::test]
async fn a_route_that_expires_lost_sessions_answers_404_once_the_loss_is_known() {
    let server = Upstream::fixture().await.unwrap();
    let config =
        format!("[[route]]\npath = \"/mcp\"\nupstream = [\"{}\"]\non_loss = \"expire\"\n", server.url);
    let mut cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = owner(&cluster, &session).await;
    cluster.kill_noticed(&owner).await.unwrap();
    for (name, url) in cluster.names().iter().zip(cluster.urls()) {
        let answer = in_time(session.post(&url, &call(3, "count", json!({})))).await;
        assert_eq!(answer.status, 404, "{}", answer.text());
        let error = json!({"code": -32001, "message": "Session not found"});
        assert_eq!(answer.json().unwrap()["error"], error);
        let found = lookup(&cluster, name, &session).await;
        assert_eq!((&found["state"], &found["owner"]), (&json!("lost"), &Value::Null), "{found}");
    }
}

#[tokio::test]
async fn a_notification_goes_where_its_session_went() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = owner(&cluster, &session).await;
    cluster.kill(&owner).await.unwrap();
    let notification =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 99}});
    for url in cluster.urls() {
        let answer = in_time(session.post(&url, &notification)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
}

async fn owner(cluster: &Cluster, session: &Session) -> String {
    let anybody = cluster.names().remove(0);
    cluster.owner(&anybody, &session.id).await.unwrap()
}

async fn lookup(cluster: &Cluster, name: &str, session: &Session) -> Value {
    cluster.admin_json(name, &format!("/v1/ring/lookup?session={}", session.id)).await.unwrap()
}

async fn count(session: &Session, url: &str, id: u64) -> u64 {
    tokio::time::timeout(IN_TIME, session.count(url, id)).await.expect("no answer in time").unwrap()
}

/// The same, but nothing for a call that was on its way when its owner died, and is told so.
async fn count_or_lost(session: &Session, url: &str, id: u64) -> Option<u64> {
    let answer = in_time(session.post(url, &call(id, "count", json!({})))).await;
    let reply = answer.reply().unwrap();
    assert_eq!((answer.status, &reply["id"]), (200, &json!(id)), "{reply}");
    if let Some(text) = said(&reply) {
        return Some(text.parse().unwrap());
    }
    assert_eq!(reply["error"]["data"], json!({"reason": "owner_lost", "mayHaveRun": true}), "{reply}");
    None
}

async fn in_time(answer: impl Future<Output = anyhow::Result<Answer>>) -> Answer {
    tokio::time::timeout(IN_TIME, answer).await.expect("no answer in time").expect("an answer")
}

async fn joined(task: tokio::task::JoinHandle<anyhow::Result<Answer>>) -> anyhow::Result<Answer> {
    task.await?
}

fn list_tools(id: u64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"})
}

/// TCP connections of this machine's that are established with this port at the other end.
fn established_to(server: std::net::SocketAddr) -> anyhow::Result<usize> {
    let port = format!(":{:04X}", server.port());
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some("01")
    };
    Ok(table.lines().filter(is_one).count())
}
