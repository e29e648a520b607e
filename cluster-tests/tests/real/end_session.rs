//! An operator ends a session, at any node; and every node says why a session is where it is, or is not.

use std::time::Duration;

use cluster_tests::real::binaries::run_ringway;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::{self, Answer};
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::{wait_for, wait_until};
use serde_json::{Value, json};

use super::prepare::{Parts, counting_children, counting_cluster};

const IN_TIME: Duration = Duration::from_secs(30);

async fn delete(cluster: &Cluster, name: &str, id: &str) -> Answer {
    let url = cluster.node(name).admin_url(&format!("/v1/sessions/{id}"));
    http::request("DELETE", &url, &[], "").await.unwrap()
}

async fn lookup(cluster: &Cluster, name: &str, id: &str) -> Value {
    cluster.admin_json(name, &format!("/v1/ring/lookup?session={id}")).await.unwrap()
}

/// What every node says of a session, which has to be the same.
async fn why(cluster: &Cluster, id: &str) -> (Value, String) {
    let found = lookup(cluster, "a", id).await;
    for name in cluster.names() {
        assert_eq!(lookup(cluster, &name, id).await, found, "{name}");
    }
    let why = found["why"].as_str().unwrap().to_owned();
    (found, why)
}

fn error(answer: &Answer) -> String {
    answer.json().unwrap()["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_session_ends_at_any_node_and_its_client_and_every_node_know() {
    let children = counting_children(3).await;
    let cluster = &children.cluster;
    for name in cluster.names() {
        let session = Session::open(&cluster.url("a")).await.unwrap();
        let other = Session::open(&cluster.url("a")).await.unwrap();
        let before = cluster.metric_of_all("ringway_children", &[]).await.unwrap();
        let ended = delete(cluster, &name, &session.id).await;
        assert_eq!(ended.status, 200, "{}", ended.text());
        assert_eq!(ended.json().unwrap()["ended"], true);
        for url in cluster.urls() {
            let answer = session.post(&url, &call(2, "count", json!({}))).await.unwrap();
            assert_eq!(answer.status, 404, "{}", answer.text());
        }
        let (found, why) = why(cluster, &session.id).await;
        assert_eq!(found["state"], "closed", "{found}");
        assert!(why.contains("operator ended it"), "{why}");
        let again = delete(cluster, &name, &session.id).await;
        assert_eq!(again.status, 404, "{}", again.text());
        assert!(error(&again).contains("operator ended it"), "{}", again.text());
        assert_eq!(other.count(&cluster.url("b"), 2).await.unwrap(), 1, "another one goes on");
        wait_until("its child has ended", IN_TIME, async || {
            cluster.metric_of_all("ringway_children", &[]).await.unwrap() == before - 1.0
        })
        .await;
    }
}

#[tokio::test]
async fn a_session_that_an_operator_ended_does_not_come_back_with_its_owner_s_death() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    assert_eq!(delete(&cluster, "a", &session.id).await.status, 200);
    cluster.kill(&owner).await.unwrap();
    let url = cluster.urls().remove(0);
    wait_for("whoever owns it now says that it is gone", IN_TIME, async || {
        let answer = session.post(&url, &call(2, "count", json!({}))).await?;
        anyhow::ensure!(answer.status == 404, "{}: {}", answer.status, answer.text());
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_session_of_a_dead_node_can_be_ended_before_anybody_asks_for_it() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = Session::open(&cluster.url("b")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    cluster.kill(&owner).await.unwrap();
    let name = cluster.names().remove(0);
    wait_for("it is ended", IN_TIME, async || {
        let answer = delete(&cluster, &name, &session.id).await;
        // Until it is settled who owns it.
        assert!([200, 503].contains(&answer.status), "{}: {}", answer.status, answer.text());
        anyhow::ensure!(answer.status == 200, "{}", answer.text());
        Ok(())
    })
    .await;
    let answer = session.post(&cluster.urls()[1], &call(2, "count", json!({}))).await.unwrap();
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test]
async fn what_is_no_session_is_refused_with_the_reason() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut altered = session.id.clone().into_bytes();
    let at = altered.len() - 5;
    altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
    let altered = String::from_utf8(altered).unwrap();
    for (id, word) in [
        ("nonsense", "not a session id"),
        ("rw1.FAkJCQkJCQkJCQkJCa", "No node serves"),
        (altered.as_str(), "another cluster, altered"),
    ] {
        for name in cluster.names() {
            let answer = delete(&cluster, &name, id).await;
            assert_eq!(answer.status, 404, "{id}: {}", answer.text());
            assert!(error(&answer).contains(word), "{id}: {}", answer.text());
        }
    }
    let url = cluster.node("a").admin_url(&format!("/v1/sessions/{}", session.id));
    let foreign = http::request("DELETE", &url, &[("origin", "http://evil.example")], "").await.unwrap();
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    assert_eq!(session.count(&cluster.url("b"), 2).await.unwrap(), 1);
    let own = format!("http://{}", cluster.node("a").admin);
    let same = http::request("DELETE", &url, &[("origin", &own)], "").await.unwrap();
    assert_eq!(same.status, 200, "the dashboard may: {}", same.text());
}

#[tokio::test]
async fn the_command_ends_a_session_by_its_shortened_id() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let admin = cluster.node("b").admin_url("");
    let listed = run_ringway(&["sessions", "--scope", "cluster", "--admin", &admin, "--json"]).await.unwrap();
    let listed: Value = serde_json::from_str(&listed.stdout).unwrap();
    let short = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
    let table = run_ringway(&["sessions", "--scope", "cluster", "--admin", &admin]).await.unwrap().stdout;
    let row = table.lines().find(|line| line.starts_with(&short)).unwrap_or_else(|| panic!("{table}"));
    assert!(row.contains("/mcp") && row.contains("live"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours where nobody sees them: {table:?}");
    let said = run_ringway(&["end", &short, "--admin", &admin]).await.unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let again = run_ringway(&["end", &session.id, "--admin", &admin]).await.unwrap();
    assert_eq!(again.code, Some(1));
    assert!(again.stderr.contains("operator ended it"), "{}", again.stderr);
}

#[tokio::test]
async fn every_node_says_by_which_rule_a_session_is_where_it_is_or_why_it_is_not() {
    let upstream = Upstream::fixture().await.unwrap();
    let url = [upstream.url.clone()];
    let routes = [
        Route::upstreams(&url),
        Route::upstreams(&url).at("/brief").text("idle_timeout", "2s"),
        Route::upstreams(&url).at("/careful").text("on_loss", "expire"),
    ];
    let mut cluster = Plan::nodes(4).routes(&routes).start().await.unwrap();
    let at = |path: &str| cluster.node("b").url(path);

    let brief = Session::open(&at("/brief")).await.unwrap();
    let closed = Session::open(&at("/mcp")).await.unwrap();
    closed.delete(&at("/mcp")).await.unwrap();
    let kept = Session::open(&at("/mcp")).await.unwrap();
    let (found, said) = why(&cluster, &kept.id).await;
    let home = found["owner"].as_str().unwrap().to_owned();
    assert!(said.contains(&format!("lives on {home}")) && said.contains("home lives"), "{said}");
    let (found, said) = why(&cluster, &closed.id).await;
    assert_eq!(found["state"], "closed");
    assert!(said.contains("its client ended it"), "{said}");
    wait_until("it has expired", IN_TIME, async || {
        lookup(&cluster, "a", &brief.id).await["state"] == "expired"
    })
    .await;
    let (_, said) = why(&cluster, &brief.id).await;
    assert!(said.contains("idled for longer"), "{said}");

    // A node that dies, and one that leaves.
    let mut careful = Session::open(&at("/careful")).await.unwrap();
    while cluster.owner("a", &careful.id).await.unwrap() != home {
        careful = Session::open(&cluster.node("b").url("/careful")).await.unwrap();
    }
    cluster.kill(&home).await.unwrap();
    let name = cluster.names().remove(0);
    wait_until("it is taken over", IN_TIME, async || lookup(&cluster, &name, &kept.id).await["epoch"] == 2)
        .await;
    let found = lookup(&cluster, &name, &kept.id).await;
    let (owner, said) = (found["owner"].as_str().unwrap().to_owned(), found["why"].as_str().unwrap());
    let rule = format!("{owner} took it over, with its copy, after {home} was found dead");
    assert!(said.contains(&rule), "{said}");
    let found = lookup(&cluster, &name, &careful.id).await;
    assert_eq!(found["state"], "lost", "{found}");
    assert!(found["why"].as_str().unwrap().contains("lets sessions go"), "{found}");

    cluster.settled().await.unwrap();
    cluster.drain(&owner, Duration::from_secs(10)).await.unwrap();
    let name = cluster.names().remove(0);
    let found = lookup(&cluster, &name, &kept.id).await;
    let next = found["owner"].as_str().unwrap().to_owned();
    let said = found["why"].as_str().unwrap();
    assert!(said.contains(&format!("{owner} handed it to {next} when it left")), "{said}");
    for name in cluster.names() {
        assert_eq!(lookup(&cluster, &name, &kept.id).await, found, "{name}");
    }
}
