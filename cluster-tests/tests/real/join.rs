//! A node joins while sessions are running.

use std::time::Duration;

use cluster_tests::real::balancer::Balancer;
use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::mcp::Session;
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

/// How many requests a node has answered so far; 0 where it doesn't say.
async fn requests(cluster: &cluster_tests::real::cluster::Cluster, name: &str) -> f64 {
    cluster.metric(name, "ringway_requests_total", &[]).await.unwrap_or(0.0)
}
