//! `/v1/events`: what happens to the cluster is told at every node, once, with what it came to.

use std::cell::Cell;
use std::time::Duration;

use cluster_tests::real::binaries::ringway;
use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::http::{self, Stream};
use cluster_tests::real::mcp::Session;
use cluster_tests::real::process::{Process, Ready};
use cluster_tests::real::{metrics, places, wait::wait_until};
use serde_json::{Value, json};
use tokio::process::Command;

use super::prepare::{Parts, counting_cluster};

/// A death is agreed on within 2 s, a drain of idle sessions done in 5; the rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(30);

async fn listen(cluster: &Cluster, name: &str, last: Option<u64>) -> Stream {
    let url = cluster.node(name).admin_url("/v1/events");
    let last = last.map(|id| id.to_string());
    let headers: Vec<(&str, &str)> = last.iter().map(|id| ("last-event-id", id.as_str())).collect();
    let stream = http::open_stream("GET", &url, &headers, "").await.unwrap();
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    stream
}

/// The events up to the first that `is_last` holds for.
async fn until(stream: &mut Stream, is_last: impl Fn(&Value) -> bool) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let next = stream.event(IN_TIME).await;
        let event = next.unwrap_or_else(|error| panic!("{error:#}; so far {all:#?}")).expect("it goes on");
        let value: Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!(event.name.as_deref(), value["kind"].as_str(), "{value}");
        assert_eq!(event.id, Some(value["id"].to_string()), "{value}");
        assert!(value["at"].is_u64() && value["node"].is_string(), "{value}");
        assert!(all.last().is_none_or(|last| last["id"].as_u64() < value["id"].as_u64()), "{value}");
        all.push(value);
        if all.last().is_some_and(&is_last) {
            return all;
        }
    }
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["kind"] == kind).collect()
}

#[tokio::test]
async fn a_death_and_a_takeover_are_told_at_every_node_with_how_many_sessions_went_where() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(4, 1).await;
    for _ in 0..10 {
        for url in cluster.urls() {
            Session::open(&url).await.unwrap();
        }
    }
    let rows = cluster.admin_json("b", "/v1/sessions?scope=node&limit=1000").await.unwrap();
    let owned = rows["sessions"].as_array().unwrap().len() as u64;
    assert!(owned > 0);
    let mut streams = Vec::new();
    for name in ["a", "c", "d"] {
        let mut stream = listen(&cluster, name, None).await;
        // What was before is told first.
        let before = until(&mut stream, |event| event["kind"] == "active" && event["name"] == "d").await;
        assert!(of(&before, "died").is_empty(), "{before:#?}");
        streams.push(stream);
    }
    cluster.kill("b").await.unwrap();
    for stream in &mut streams {
        let (taken, died, verdict) = (Cell::new(0), Cell::new(false), Cell::new(false));
        let events = until(stream, |event| {
            match event["kind"].as_str() {
                Some("takeover") => {
                    assert_eq!(event["from"], "b", "{event}");
                    taken.set(taken.get() + event["sessions"].as_u64().unwrap());
                }
                Some("died") => died.set(true),
                Some("verdict") => verdict.set(true),
                Some(_) | None => {}
            }
            // The others may have told of what they took before this node has seen the death.
            taken.get() == owned && died.get() && verdict.get()
        })
        .await;
        let [died] = of(&events, "died")[..] else { panic!("it dies once: {events:#?}") };
        assert_eq!(died["name"], "b", "{died}");
        // By its own eyes or by those that were faster, and not since it was silent.
        assert!(died["how"] == "proven" || died["how"] == "agreed", "{died}");
        let [verdict] = of(&events, "verdict")[..] else { panic!("one verdict: {events:#?}") };
        assert_eq!(verdict["name"], "b", "{verdict}");
        let heirs = verdict["heirs"].as_array().unwrap();
        let takers: Vec<&Value> = of(&events, "takeover").iter().map(|event| &event["node"]).collect();
        assert!(takers.iter().all(|taker| heirs.contains(taker)), "{events:#?}");
    }
    // Each event is a line of the log, and counted.
    let log = cluster.node("a").process.log();
    assert_eq!(log.matches("a node has died").count(), 1, "{log}");
    let text = cluster.admin("a", "/metrics").await.unwrap().text();
    assert_eq!(metrics::sum(&text, "ringway_events_total", &[("kind", "died")]), 1.0, "{text}");

    cluster.join("b").await.unwrap();
    for stream in &mut streams {
        let events = until(stream, |event| event["kind"] == "active" && event["name"] == "b").await;
        assert_eq!(of(&events, "joined").len(), 1, "{events:#?}");
    }
}

#[tokio::test]
async fn a_drain_is_told_from_its_beginning_to_its_end_and_nobody_dies_of_it() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    for url in cluster.urls() {
        Session::open(&url).await.unwrap();
        Session::open(&url).await.unwrap();
    }
    let rows = cluster.admin_json("c", "/v1/sessions").await.unwrap();
    let owned = rows["sessions"].as_array().unwrap().len();
    let mut streams = Vec::new();
    for name in ["a", "b"] {
        streams.push(listen(&cluster, name, None).await);
    }
    cluster.drain("c", Duration::from_secs(10)).await.unwrap();
    for stream in &mut streams {
        let mut events = until(stream, |event| event["kind"] == "left" && event["name"] == "c").await;
        if of(&events, "drain_ended").is_empty() {
            events.extend(until(stream, |event| event["kind"] == "drain_ended").await);
        }
        let [began] = of(&events, "drain_began")[..] else { panic!("it begins once: {events:#?}") };
        assert_eq!((&began["node"], &began["sessions"]), (&json!("c"), &json!(owned)), "{began}");
        assert_eq!(began["deadline_s"], 10.0, "{began}");
        let progress = of(&events, "drain_progress");
        assert!(progress.iter().all(|event| event["node"] == "c"), "{events:#?}");
        assert!(!progress.is_empty(), "{events:#?}");
        let [ended] = of(&events, "drain_ended")[..] else { panic!("it ends once: {events:#?}") };
        assert_eq!(ended["lost"], 0, "{ended}");
        let draining = of(&events, "draining");
        assert_eq!(draining.len(), 1, "{events:#?}");
        assert!(of(&events, "died").is_empty(), "{events:#?}");
    }
    let log = cluster.node("a").process.log();
    assert!(!log.contains("a node has died"), "{log}");
}

#[tokio::test]
async fn whoever_comes_back_is_told_what_it_has_missed_and_nothing_twice() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let mut stream = listen(&cluster, "a", None).await;
    let before = until(&mut stream, |event| event["kind"] == "active" && event["name"] == "b").await;
    drop(stream);
    let last = before.last().unwrap()["id"].as_u64();
    cluster.kill("b").await.unwrap();
    let mut stream = listen(&cluster, "a", last).await;
    let events = until(&mut stream, |event| event["kind"] == "died").await;
    assert!(events.iter().all(|event| event["id"].as_u64() > last), "{events:#?}");
    assert!(of(&events, "joined").is_empty(), "{events:#?}");
}

#[tokio::test]
async fn the_command_prints_events_until_its_node_is_gone() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let dir = places::scratch("events").unwrap();
    let mut said = Vec::new();
    for flag in [None, Some("--json")] {
        let mut command = Command::new(ringway().await.unwrap());
        command.args(["events", "--admin", &cluster.node("a").admin_url("")]).args(flag);
        let first = if flag.is_some() { "{" } else { "2" }; // the date of it
        let name = format!("events{}", flag.unwrap_or_default());
        let (process, _) = Process::spawn(&name, command, &dir, Ready::Stdout(first), IN_TIME).await.unwrap();
        said.push(process);
    }
    cluster.kill("b").await.unwrap();
    for process in &said {
        wait_until("it tells of the death", IN_TIME, async || {
            process.stdout().iter().any(|line| line.contains("died") && line.contains('b'))
        })
        .await;
    }
    for line in said[1].stdout() {
        let event: Value = serde_json::from_str(&line).unwrap();
        assert!(event["kind"].is_string() && event["id"].is_u64(), "{line}");
    }
    cluster.kill("a").await.unwrap();
    for process in &mut said {
        assert_eq!(process.wait(IN_TIME).await.unwrap().code(), Some(1));
        assert!(process.log().contains("does not tell any more"), "{}", process.log());
    }
}
