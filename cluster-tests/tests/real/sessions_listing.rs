//! The list of all sessions: every node gives the same one, in pages that miss and repeat nothing, and while
//! nodes die, come and drain it is what the nodes own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::wait::{self, wait_for};
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

/// Deaths are settled in less than 2 s where the others agree at once; the rest is for a busy machine.
const SETTLED: Duration = Duration::from_secs(30);

/// All pages of a list, in order.
async fn pages(cluster: &Cluster, name: &str, query: &str) -> anyhow::Result<(Vec<Value>, Vec<Value>)> {
    let (mut all, mut unreachable, mut after) = (Vec::new(), Vec::new(), String::new());
    loop {
        let path = format!("/v1/sessions?{query}&after={after}");
        let page = cluster.admin_json(name, &path).await?;
        all.extend(page["sessions"].as_array().context("no sessions")?.iter().cloned());
        unreachable.extend(page["unreachable"].as_array().into_iter().flatten().cloned());
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => return Ok((all, unreachable)),
        }
    }
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Opens sessions at all nodes in turn; gives them with their owners.
async fn open(cluster: &Cluster, count: usize) -> Vec<Session> {
    let urls = cluster.urls();
    let mut sessions = Vec::new();
    for at in 0..count {
        sessions.push(Session::open(&urls[at % urls.len()]).await.unwrap());
    }
    sessions
}

/// What a row says that does not change by itself.
fn lasting(rows: &[Value]) -> Vec<Vec<Value>> {
    let keys = ["id", "route", "owner", "epoch", "client", "protocol"];
    rows.iter().map(|row| keys.iter().map(|key| row[key].clone()).collect()).collect()
}

#[tokio::test]
async fn every_node_lists_the_same_sessions_and_pages_of_any_size_make_one_list() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let sessions = open(&cluster, 250).await;
    let mut known: Vec<String> = sessions.iter().map(|session| session.id.clone()).collect();
    known.sort();
    let (expected, unreachable) = pages(&cluster, "a", "scope=cluster&limit=1000&full=1").await.unwrap();
    assert!(unreachable.is_empty(), "{unreachable:?}");
    let mut listed = ids(&expected);
    listed.sort();
    assert_eq!(listed, known, "each once, by the ids that clients have");
    for row in &expected {
        assert_eq!((&row["route"], &row["epoch"]), (&json!("/mcp"), &json!(1)), "{row}");
        // On a machine with much else to do it may be a minute since the first one was opened.
        assert!(row["state"] == "live" || row["idle_s"].as_u64() >= Some(60), "{row}");
        assert_eq!(row["protocol"], "2025-11-25", "{row}");
        assert!(row["client"].as_str().is_some_and(|client| !client.is_empty()), "{row}");
        assert!(row["age_s"].is_u64() && row["idle_s"].is_u64() && row["streams"] == 0, "{row}");
    }
    for name in cluster.names() {
        for limit in [1_000, 100, 30] {
            let query = format!("scope=cluster&limit={limit}&full=1");
            let (rows, _) = pages(&cluster, &name, &query).await.unwrap();
            assert_eq!(lasting(&rows), lasting(&expected), "{name}, {limit} at once");
        }
        let (own, _) = pages(&cluster, &name, "scope=node&limit=30&full=1").await.unwrap();
        let theirs: Vec<_> = expected.iter().filter(|row| row["owner"] == name.as_str()).cloned().collect();
        assert_eq!(lasting(&own), lasting(&theirs), "{name}'s own");
        let members = cluster.admin_json(&name, "/v1/members").await.unwrap();
        let own_count = members["members"].as_array().unwrap().iter().find(|member| member["self"] == true);
        assert_eq!(own_count.unwrap()["sessions"], own.len(), "{name}");
    }
}

#[tokio::test]
async fn pages_are_exact_while_other_sessions_come_and_go() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let lasting: BTreeSet<String> = open(&cluster, 120).await.into_iter().map(|session| session.id).collect();
    let urls = cluster.urls();
    let churn = async {
        loop {
            for url in &urls {
                let session = Session::open(url).await.unwrap();
                session.delete(url).await.unwrap();
            }
        }
    };
    let listing = async {
        for round in 0..8 {
            let name = &cluster.names()[round % 3];
            let (rows, _) = pages(&cluster, name, "scope=cluster&limit=10&full=1").await.unwrap();
            let listed = ids(&rows);
            let distinct: BTreeSet<_> = listed.iter().cloned().collect();
            assert_eq!(distinct.len(), listed.len(), "one was listed twice");
            assert!(distinct.is_superset(&lasting), "{:?} are missing", lasting.difference(&distinct));
        }
    };
    tokio::select! {
        () = churn => unreachable!("it goes on for ever"),
        () = listing => {}
    }
}

#[tokio::test]
async fn a_shortened_id_opens_no_session_and_is_enough_for_an_operator() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let (rows, _) = pages(&cluster, "b", "scope=cluster").await.unwrap();
    let short = rows[0]["id"].as_str().unwrap().to_owned();
    assert!(session.id.starts_with(&short) && short.len() < 30, "{short} of {}", session.id);
    let forged = Session { id: short.clone(), protocol: session.protocol.clone() };
    let answer = forged.post(&cluster.url("a"), &call(1, "count", json!({}))).await.unwrap();
    assert_eq!(answer.status, 404);
    let whole = cluster.admin_json("a", &format!("/v1/ring/lookup?session={}", session.id)).await.unwrap();
    for name in cluster.names() {
        let found = cluster.admin_json(&name, &format!("/v1/ring/lookup?session={short}")).await.unwrap();
        for key in ["owner", "home", "state", "epoch", "why", "valid"] {
            assert_eq!(found[key], whole[key], "{name} {key}");
        }
    }
}

/// The union of what the nodes list for themselves: each session's owner.
async fn owned(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let mut owners = BTreeMap::new();
    for name in cluster.names() {
        let (rows, _) = pages(cluster, &name, "scope=node&limit=1000&full=1").await?;
        for id in ids(&rows) {
            let other = owners.insert(id.clone(), name.clone());
            ensure!(other.is_none(), "{id} is owned by {name} and {other:?}");
        }
    }
    Ok(owners)
}

fn listed(rows: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    rows.iter().map(|row| (text(&row["id"]), text(&row["owner"]))).collect()
}

/// Waits until every node lists what the nodes own, and that is what clients know.
async fn agrees(cluster: &Cluster, known: &BTreeSet<String>, when: &str) {
    wait_for(&format!("the list is what the nodes own {when}"), SETTLED, async || {
        let owned = owned(cluster).await?;
        let ids: BTreeSet<String> = owned.keys().cloned().collect();
        ensure!(ids == *known, "missing {:?}, too many {:?}", known - &ids, &ids - known);
        for name in cluster.names() {
            let (rows, unreachable) = pages(cluster, &name, "scope=cluster&limit=1000&full=1").await?;
            ensure!(unreachable.is_empty(), "{name}: {unreachable:?}");
            ensure!(rows.len() == owned.len(), "{name} lists {} rows", rows.len());
            ensure!(listed(&rows) == owned, "{name} lists something else");
        }
        Ok(())
    })
    .await;
}

/// Lists for as long as it is polled. Each list has every session once, or names who did not answer; gives
/// how many lists there were.
async fn watch(addresses: &[String], known: &BTreeSet<String>, seen: &mut usize) {
    loop {
        for admin in addresses {
            let url = format!("{admin}/v1/sessions?scope=cluster&limit=1000&full=1");
            // One that is being ended answers nothing.
            let Ok(answer) = cluster_tests::real::http::get(&url).await else { continue };
            let Ok(page) = answer.json() else { continue };
            let rows = page["sessions"].as_array().cloned().unwrap_or_default();
            let listed: BTreeSet<String> = ids(&rows).into_iter().collect();
            assert_eq!(listed.len(), rows.len(), "{admin} lists a session twice");
            assert!(listed.is_subset(known), "{admin} lists what nobody opened");
            let missing = known.len() - listed.len();
            let is_named = page["unreachable"].as_array().is_some_and(|names| !names.is_empty());
            assert!(missing == 0 || is_named, "{admin} misses {missing} of {} without a word", known.len());
            *seen += 1;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_list_is_what_the_nodes_own_while_nodes_die_come_and_drain() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(4, 2).await;
    let sessions = open(&cluster, 150).await;
    let known: BTreeSet<String> = sessions.iter().map(|session| session.id.clone()).collect();
    agrees(&cluster, &known, "at first").await;
    let mut seen = 0;
    for (round, kind) in ["kill", "drain", "kill", "freeze", "drain"].into_iter().enumerate() {
        let victim = cluster.names()[1 + round % 3].clone();
        let watched: Vec<String> = cluster
            .names()
            .iter()
            .filter(|name| **name != victim)
            .map(|name| cluster.node(name).admin_url(""))
            .collect();
        let when = format!("after {kind} of {victim} (round {round})");
        let chaos = async {
            match kind {
                "kill" => cluster.kill(&victim).await.unwrap(),
                "drain" => {
                    let status = cluster.drain(&victim, Duration::from_secs(10)).await.unwrap();
                    assert_eq!(status.code(), Some(0));
                }
                _ => {
                    cluster.freeze(&victim).unwrap();
                    // Longer than silence is borne: it is over, and finds out when it goes on.
                    tokio::time::sleep(Duration::from_secs(3)).await;
                    cluster.thaw(&victim).unwrap();
                }
            }
            if kind == "freeze" {
                cluster.settled().await.unwrap();
            }
            // Whoever asks for a session whose copies were lost has it found again.
            for (at, session) in sessions.iter().enumerate() {
                let url = &cluster.urls()[at % cluster.urls().len()];
                wait::wait_for("a session answers", SETTLED, async || {
                    let answer = session.post(url, &call(9, "count", json!({}))).await?;
                    ensure!(answer.status == 200, "{}", answer.text());
                    ensure!(answer.reply()?.get("result").is_some(), "{}", answer.text());
                    Ok(())
                })
                .await;
            }
            agrees(&cluster, &known, &when).await;
            if kind != "freeze" {
                cluster.join(&victim).await.unwrap();
            }
        };
        tokio::select! {
            () = watch(&watched, &known, &mut seen) => unreachable!("it goes on for ever"),
            () = chaos => {}
        }
    }
    agrees(&cluster, &known, "at last").await;
    assert!(seen > 50, "only {seen} lists were looked at");
}
