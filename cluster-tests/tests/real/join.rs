//! A node joins while sessions are running.

use std::time::Duration;

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::cluster::{Plan, names_in_phase};
use cluster_tests::real::mcp::Session;
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::wait::{wait_for, wait_until};

use super::prepare::{Parts, counting_cluster, sdks};

/// Everything here takes a second or two; the rest is for a busy machine.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_node_that_joins_disturbs_no_running_session() {
    let test = "a_node_that_joins_disturbs_no_running_session";
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    let balancer = Balancer::start(cluster.listens()).await.unwrap();
    let mut drivers = Vec::new();
    for sdk in sdks(test).await {
        let mut drive = Drive::new(vec![balancer.url("/mcp")], Tool::Count);
        (drive.sessions, drive.concurrency, drive.pace) = (6, 6, Duration::from_millis(20));
        drivers.push(drive.start(sdk).await.unwrap());
    }
    if drivers.is_empty() {
        return;
    }
    wait_until("the sessions are running", SOON, async || requests(&cluster, "a").await > 50.0).await;

    cluster.join("d").await.unwrap();
    balancer.set_targets(cluster.listens());
    wait_until("the new node carries requests", SOON, async || requests(&cluster, "d").await > 50.0).await;

    for driver in drivers {
        driver.finish().await.unwrap().assert_no_errors();
    }
}

#[tokio::test]
async fn a_node_that_joined_gets_new_sessions_and_knows_the_old_ones() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let old = Session::open(&cluster.url("a")).await.unwrap();
    assert_eq!(old.count(&cluster.url("b"), 1).await.unwrap(), 1);
    let owner = cluster.owner("c", &old.id).await.unwrap();

    cluster.join("d").await.unwrap();
    let there = cluster.url("d");
    assert_eq!(old.count(&there, 2).await.unwrap(), 2);
    assert_eq!(cluster.owner("d", &old.id).await.unwrap(), owner, "a session moved because a node joined");

    // A node keeps what is opened at it while it has less than its share, and a new node has nothing yet.
    let new = wait_for("a session lives on the new node", SOON, async || {
        let session = Session::open(&there).await?;
        let owner = cluster.owner("a", &session.id).await?;
        anyhow::ensure!(owner == "d", "this one lives on {owner}");
        Ok(session)
    })
    .await;
    for (call, url) in (1..).zip(cluster.urls()) {
        assert_eq!(new.count(&url, call).await.unwrap(), call);
    }
}

/// How many sessions there are when a node joins: `RINGWAY_JOIN_SESSIONS=10000` for more than a test has time for.
const JOIN_SESSIONS: usize = 200;

#[tokio::test]
async fn a_node_that_joins_moves_no_session_and_gets_its_share_of_the_new_ones() {
    let count = std::env::var("RINGWAY_JOIN_SESSIONS").ok().and_then(|count| count.parse().ok());
    let count: usize = count.unwrap_or(JOIN_SESSIONS);
    let server = Upstream::fixture().await.unwrap();
    let config =
        format!("[[route]]\npath = \"/mcp\"\nupstream = [\"{}\"]\nmax_sessions = 100000\n", server.url);
    let mut cluster = Plan::nodes(3).config(config).start().await.unwrap();
    let urls = cluster.urls();
    let mut sessions = Vec::new();
    for at in 0..count {
        sessions.push(Session::open(&urls[at % urls.len()]).await.unwrap());
    }
    let sample: Vec<_> = sessions.iter().step_by(count.div_ceil(50)).collect();
    let mut owners = Vec::new();
    for session in &sample {
        owners.push(cluster.owner("a", &session.id).await.unwrap());
    }
    let before = sessions_of(&cluster).await;

    // Under load, and before anything has settled.
    let calls = tokio::spawn({
        let (sessions, urls) = (sessions.clone(), urls.clone());
        async move {
            for (at, session) in sessions.iter().enumerate() {
                assert_eq!(session.count(&urls[(at + 1) % urls.len()], 1).await.unwrap(), 1);
            }
        }
    });
    let joined = std::time::Instant::now();
    cluster.add("d", &[]).await.unwrap();
    wait_for("the new node has sessions of its own", SOON, async || {
        let id = Session::open(&cluster.url("d")).await?.id;
        anyhow::ensure!(cluster.owner("d", &id).await? == "d", "it lives elsewhere");
        Ok(())
    })
    .await;
    println!("{count} sessions: the first new one after {:.2} s", joined.elapsed().as_secs_f64());
    calls.await.unwrap();
    cluster.settled().await.unwrap();
    for (session, owner) in sample.iter().zip(&owners) {
        let found =
            cluster.admin_json("d", &format!("/v1/ring/lookup?session={}", session.id)).await.unwrap();
        assert_eq!((found["owner"].as_str(), &found["epoch"]), (Some(owner.as_str()), &1.into()), "{found}");
    }
    let after = sessions_of(&cluster).await;
    assert!(before.iter().all(|(name, sessions)| after[name] >= *sessions), "{before:?} {after:?}");
}

/// How many sessions each node owns.
async fn sessions_of(
    cluster: &cluster_tests::real::cluster::Cluster,
) -> std::collections::BTreeMap<String, u64> {
    let mut all = std::collections::BTreeMap::new();
    for name in cluster.names() {
        let members = cluster.admin_json(&name, "/v1/members").await.unwrap();
        let me = members["members"].as_array().unwrap().iter().find(|member| member["self"] == true).unwrap();
        all.insert(name, me["sessions"].as_u64().unwrap());
    }
    all
}

/// A port for a node that is not there yet. The system hands out those from 32,768 on to whoever asks for
/// any, so one below stays free.
fn port_for_later() -> u16 {
    let is_free = |port: &u16| {
        let at = ("127.0.0.1", *port);
        std::net::UdpSocket::bind(at).is_ok() && std::net::TcpListener::bind(at).is_ok()
    };
    let first = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    (first..32_768).find(is_free).unwrap()
}

#[tokio::test]
async fn nodes_that_started_apart_find_each_other_by_a_seeds_host_name() {
    let port = port_for_later();
    let seed = format!("localhost:{port}");
    let upstreams = Upstream::several(1, Upstream::fixture).await.unwrap();
    let plan = Plan::nodes(1).upstreams(&upstream::urls(&upstreams)).flags(&["--seed", &seed]);
    let cluster = plan.start().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();

    let late = cluster.start_alone("late", &["--peer", &format!("127.0.0.1:{port}")]).await.unwrap();
    wait_for("both know both", SOON, async || {
        let members = cluster.admin_json("a", "/v1/members").await?;
        anyhow::ensure!(names_in_phase(&members, "active") == ["a", "late"], "{members}");
        Ok(())
    })
    .await;
    wait_for("the session is served over the seed that came late", SOON, async || {
        session.count(&late.url("/mcp"), 2).await
    })
    .await;
}

#[tokio::test]
async fn of_two_nodes_with_one_name_the_older_one_ends_and_says_why() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let newer = cluster.start_stranger("b", &[]).await.unwrap();
    wait_for("the older b has ended and said why", SOON, async || {
        anyhow::ensure!(cluster.admin("b", "/livez").await.is_err(), "it answers");
        let log = cluster.node("b").process.log();
        anyhow::ensure!(log.contains("names must be unique"), "{log}");
        Ok(())
    })
    .await;
    wait_for("the newer b serves", SOON, async || Session::open(&newer.url("/mcp")).await).await;
    drop(session);
}

/// How many requests a node has answered so far; 0 where it doesn't say.
async fn requests(cluster: &cluster_tests::real::cluster::Cluster, name: &str) -> f64 {
    cluster.metric(name, "ringway_requests_total", &[]).await.unwrap_or(0.0)
}
