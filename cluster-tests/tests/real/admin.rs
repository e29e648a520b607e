//! What operators see: the admin endpoint and the commands that ask it say the same on every node.

use std::time::Duration;

use cluster_tests::real::binaries::{Said, run_ringway};
use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::cluster::names_in_phase;
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::metrics;
use cluster_tests::real::wait::wait_for;
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

/// The keys of a member that do not change while nothing happens.
const LASTING: [&str; 7] = ["name", "incarnation", "phase", "listen", "peer", "admin", "version"];

/// What a node has said is read at once, but for a busy machine; gossip takes 4.5 s at least to be sure of a death.
const HEARD: Duration = Duration::from_secs(3);

/// Runs a command against one node's admin endpoint.
async fn ask(cluster: &Cluster, name: &str, command: &[&str]) -> Said {
    let admin = format!("http://{}", cluster.node(name).admin);
    let args: Vec<&str> = command.iter().copied().chain(["--admin", &admin]).collect();
    let said = run_ringway(&args).await.unwrap();
    assert_eq!(said.code, Some(0), "{command:?}: {}", said.stderr);
    said
}

async fn ask_json(cluster: &Cluster, name: &str, command: &[&str]) -> Value {
    let command: Vec<&str> = command.iter().copied().chain(["--json"]).collect();
    let said = ask(cluster, name, &command).await;
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{command:?}: {error}: {}", said.stdout))
}

/// The members with their lasting keys only, and the view they belong to.
fn lasting(members: &Value) -> (String, Vec<Vec<Value>>) {
    let rows = members["members"].as_array().unwrap();
    let rows = rows.iter().map(|member| LASTING.iter().map(|key| member[key].clone()).collect()).collect();
    (members["view"].as_str().unwrap().to_owned(), rows)
}

#[tokio::test]
async fn every_node_lists_the_same_members() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let expected = lasting(&cluster.admin_json("a", "/v1/members").await.unwrap());
    assert_eq!(expected.1.len(), 3);
    for name in cluster.names() {
        let members = cluster.admin_json(&name, "/v1/members").await.unwrap();
        assert_eq!(lasting(&members), expected, "{name}");
        for member in members["members"].as_array().unwrap() {
            assert_eq!(member["self"], member["name"] == name.as_str(), "{name}: {member}");
            let node = cluster.node(member["name"].as_str().unwrap());
            let addresses = [("listen", node.listen), ("peer", node.peer), ("admin", node.admin)];
            for (key, address) in addresses {
                assert_eq!(member[key], address.to_string(), "{name}: {member}");
            }
            assert!(member["sessions"].is_u64() && member["incarnation"].is_u64(), "{member}");
        }
        assert_eq!(lasting(&ask_json(&cluster, &name, &["members"]).await), expected, "{name}");
        let table = ask(&cluster, &name, &["members"]).await.stdout;
        for node in cluster.names() {
            let peer = cluster.node(&node).peer.to_string();
            let row = table.lines().find(|line| line.split_whitespace().any(|word| word == node));
            assert!(row.is_some_and(|row| row.contains("active")), "no row for {node} ({peer}):\n{table}");
        }
    }
}

#[tokio::test]
async fn every_node_draws_the_same_ring() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let expected = cluster.admin_json("a", "/v1/ring").await.unwrap();
    assert_eq!(expected["points_per_node"], 128);
    let shares: Vec<f64> =
        expected["nodes"].as_array().unwrap().iter().map(|node| node["share"].as_f64().unwrap()).collect();
    let sum: f64 = shares.iter().sum();
    // Shares may be rounded to four places: three of them are then off by 0.00015 at most.
    assert!((sum - 1.0).abs() < 0.000_2, "{shares:?}");
    // With 128 points a share's standard deviation is 1/sqrt(128) = 9 % of it; four of those are 36 %.
    assert!(shares.iter().all(|share| (share * 3.0 - 1.0).abs() < 0.36), "{shares:?}");
    for name in cluster.names() {
        assert_eq!(cluster.admin_json(&name, "/v1/ring").await.unwrap(), expected, "{name}");
        assert_eq!(ask_json(&cluster, &name, &["ring"]).await, expected, "{name}");
        let table = ask(&cluster, &name, &["ring"]).await.stdout;
        assert!(cluster.names().iter().all(|node| table.contains(node.as_str())), "{table}");
    }
}

#[tokio::test]
async fn every_node_finds_a_session_at_the_same_owner() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    for url in cluster.urls() {
        let session = Session::open(&url).await.unwrap();
        let answer = session.post(&url, &call(1, "count", json!({}))).await.unwrap();
        let owner = answer.header("ringway-node").unwrap().to_owned();
        let path = format!("/v1/ring/lookup?session={}", session.id);
        let expected = cluster.admin_json("a", &path).await.unwrap();
        assert_eq!(expected["owner"], owner.as_str(), "{expected}");
        assert_eq!((&expected["valid"], &expected["state"]), (&json!(true), &json!("live")), "{expected}");
        assert_eq!(expected["home"], owner.as_str(), "nobody has moved it: {expected}");
        assert!(expected["epoch"].is_u64() && expected["successors"].is_array(), "{expected}");
        for name in cluster.names() {
            assert_eq!(cluster.admin_json(&name, &path).await.unwrap(), expected, "{name}");
            assert_eq!(ask_json(&cluster, &name, &["locate", &session.id]).await, expected, "{name}");
            assert!(ask(&cluster, &name, &["locate", &session.id]).await.stdout.contains(&owner));
        }
    }
}

#[tokio::test]
async fn every_node_finds_the_same_home_for_a_key_and_none_for_nonsense() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    for key in ["job-1", "job-2", "b%C3%A9"] {
        let path = format!("/v1/ring/lookup?key={key}");
        let expected = cluster.admin_json("a", &path).await.unwrap();
        assert!(cluster.names().iter().any(|name| expected["home"] == name.as_str()), "{expected}");
        for name in cluster.names() {
            assert_eq!(cluster.admin_json(&name, &path).await.unwrap(), expected, "{name}");
        }
    }
    for name in cluster.names() {
        let found = cluster.admin_json(&name, "/v1/ring/lookup?session=rw1.nonsense").await.unwrap();
        assert_eq!((&found["valid"], &found["owner"]), (&json!(false), &Value::Null), "{found}");
        assert_eq!(found["state"], "unknown", "{found}");
        assert!(found["why"].as_str().is_some_and(|why| !why.is_empty()), "{found}");
    }
}

#[tokio::test]
async fn every_node_says_how_it_is() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for (call, url) in (1..).zip(cluster.urls()) {
        assert_eq!(session.count(&url, call).await.unwrap(), call);
    }
    for name in cluster.names() {
        for path in ["/livez", "/readyz"] {
            assert_eq!(cluster.admin(&name, path).await.unwrap().status, 200, "{name}{path}");
        }
        let text = cluster.admin(&name, "/metrics").await.unwrap().text();
        assert_eq!(metrics::sum(&text, "ringway_members", &[("phase", "active")]), 2.0, "{text}");
        assert!(metrics::sum(&text, "ringway_requests_total", &[("route", "/mcp")]) > 0.0, "{text}");
        assert!(metrics::names(&text).contains(&"ringway_streams"), "{text}");
    }
    let owned = cluster.metric_of_all("ringway_sessions", &[("state", "live")]).await.unwrap();
    assert_eq!(owned, 1.0, "one session is live in the whole cluster");
    let forwards = cluster.metric_of_all("ringway_forwards_total", &[]).await.unwrap();
    assert!(forwards >= 1.0, "one of the two calls was forwarded");
}

#[tokio::test]
async fn a_node_that_is_asked_to_end_drains_and_says_nothing_but_its_ready_line() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let lines = cluster.node("b").process.stdout();
    assert!(matches!(lines.as_slice(), [line] if line.starts_with("ringway ready name=b ")), "{lines:?}");
    let status = cluster.terminate("b", Duration::from_secs(30)).await.unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    cluster.settled().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    assert_eq!(session.count(&cluster.url("a"), 1).await.unwrap(), 1);
}

#[tokio::test]
async fn a_node_that_has_left_is_dead_at_once_and_stays_so() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    assert_eq!(cluster.owner("a", &session.id).await.unwrap(), "b");
    cluster.terminate("b", Duration::from_secs(30)).await.unwrap();
    // It says so itself before it ends: nobody has to find out.
    let view = wait_for("it is known to be dead", HEARD, async || {
        let view = cluster.admin_json("a", "/v1/members").await?;
        anyhow::ensure!(names_in_phase(&view, "dead") == ["b"], "{view}");
        Ok(view)
    })
    .await;
    // What it owned was given away before.
    assert_eq!(cluster.owner("a", &session.id).await.unwrap(), "a");
    assert_eq!(session.count(&cluster.url("a"), 1).await.unwrap(), 1);
    let after = cluster.admin_json("a", "/v1/members").await.unwrap();
    assert_eq!(after["view"], view["view"], "it came back to life: {after}");
}
