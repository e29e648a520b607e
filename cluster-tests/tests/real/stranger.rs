//! A node that knows the address of a cluster but not its secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cluster_tests::real::clients::{Drive, Tool};
use cluster_tests::real::cluster::{Cluster, Node, Plan};
use cluster_tests::real::mcp::{Session, call};
use cluster_tests::real::upstream::{self, Upstream};
use cluster_tests::real::{binaries, http, places};
use serde_json::{Value, json};

use super::prepare::sdks;

/// A secret of its own in a file of its own.
async fn secret_file(dir: &Path, name: &str) -> PathBuf {
    let secret = binaries::run_ringway(&["secret"]).await.unwrap();
    assert_eq!(secret.code, Some(0), "{}", secret.stderr);
    let path = dir.join(name);
    std::fs::write(&path, secret.stdout).unwrap();
    path
}

fn secret_flag(path: &Path) -> [&str; 2] {
    ["--secret-file", path.to_str().unwrap()]
}

/// Every name that a node's list of members holds, in whatever phase.
async fn all_names(url: &str) -> Vec<String> {
    let members = http::get(url).await.unwrap().json().unwrap();
    let members = members["members"].as_array().unwrap().iter();
    let mut names: Vec<_> =
        members.map(|member: &Value| member["name"].as_str().unwrap().to_owned()).collect();
    names.sort_unstable();
    names
}

/// Nobody on either side has heard of the other.
async fn assert_apart(cluster: &Cluster, stranger: &Node) {
    for name in cluster.names() {
        let members = all_names(&cluster.node(&name).admin_url("/v1/members")).await;
        assert_eq!(members, cluster.names(), "{name} lists a stranger");
        let counted = cluster.metric(&name, "ringway_members", &[]).await.unwrap();
        assert_eq!(counted, cluster.names().len() as f64, "{name} counts a stranger");
    }
    assert_eq!(all_names(&stranger.admin_url("/v1/members")).await, ["stranger"]);
}

#[tokio::test]
async fn a_node_with_another_secret_never_becomes_a_member() {
    let test = "a_node_with_another_secret_never_becomes_a_member";
    let dir = places::scratch("secrets").unwrap();
    let (ours, theirs) = (secret_file(&dir, "ours.key").await, secret_file(&dir, "theirs.key").await);
    let upstreams = Upstream::several(1, Upstream::fixture).await.unwrap();
    let plan = Plan::nodes(2).upstreams(&upstream::urls(&upstreams)).flags(&secret_flag(&ours));
    let mut cluster = plan.start().await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let mut drivers = Vec::new();
    for sdk in sdks(test).await {
        let mut drive = Drive::new(cluster.urls(), Tool::Count);
        drive.pace = Duration::from_millis(20);
        drivers.push(drive.start(sdk).await.unwrap());
    }

    let stranger = start_stranger(&upstreams, &cluster, &theirs).await;
    // A node with the right secret needs some rounds of gossip to be known to all; the stranger has had them too.
    cluster.join("c").await.unwrap();
    assert_apart(&cluster, &stranger).await;

    let url = stranger.url("/mcp");
    let answer = session.post(&url, &call(1, "count", json!({}))).await.unwrap();
    assert_eq!(answer.status, 404, "the stranger accepts an id of the cluster: {}", answer.text());
    let foreign = Session::open(&url).await.unwrap();
    let answer = foreign.post(&cluster.url("a"), &call(1, "count", json!({}))).await.unwrap();
    assert_eq!(answer.status, 404, "the cluster accepts an id of the stranger: {}", answer.text());

    cluster.join("d").await.unwrap();
    assert_apart(&cluster, &stranger).await;
    for driver in drivers {
        driver.finish().await.unwrap().assert_no_errors();
    }
    assert_eq!(session.count(&cluster.url("d"), 2).await.unwrap(), 1);
}

/// A node of a one-node cluster under another secret, seeded with a node of `cluster`.
async fn start_stranger(upstreams: &[Upstream], cluster: &Cluster, secret: &Path) -> Node {
    let plan = Plan::nodes(0).upstreams(&upstream::urls(upstreams)).flags(&secret_flag(secret));
    let alone = plan.start().await.unwrap();
    let seed = cluster.node("a").peer.to_string();
    alone.start_stranger("stranger", &["--seed", &seed]).await.unwrap()
}

#[tokio::test]
async fn datagrams_that_are_no_quic_harm_nobody() {
    let upstreams = Upstream::several(1, Upstream::fixture).await.unwrap();
    let mut cluster = Cluster::start(2, &upstream::urls(&upstreams)).await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for round in 0..200_usize {
        // Lengths up to a full datagram, first bytes of every kind: long and short headers, and neither.
        let bytes: Vec<u8> = (0..round * 7).map(|at| (at * 31 + round * 17) as u8).collect();
        for name in cluster.names() {
            socket.send_to(&bytes, cluster.node(&name).peer).await.unwrap();
        }
    }
    assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1);
    cluster.join("c").await.unwrap();
    assert_eq!(session.count(&cluster.url("c"), 2).await.unwrap(), 2);
}
