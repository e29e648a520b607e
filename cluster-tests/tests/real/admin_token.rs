//! Who may ask a node's admin endpoint, and what it answers besides.

use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::real::binaries::{ringway, run_ringway};
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::{wait_for, wait_until};
use cluster_tests::real::{http, places};

use super::prepare::{Parts, counting_cluster};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";
/// A file is looked at every second, and believed at the second look.
const READ_AGAIN: Duration = Duration::from_secs(20);
/// It takes milliseconds; the rest is for a busy machine.
const LEASED_IN: Duration = Duration::from_secs(20);

async fn guarded() -> (Cluster, Upstream, PathBuf) {
    let file = places::scratch("token").unwrap().join("admin.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let upstream = Upstream::fixture().await.unwrap();
    let config = format!("admin_token_file = {:?}\nupstream = [{:?}]\n", file, upstream.url);
    let mut cluster = Plan::nodes(0).config(config).start().await.unwrap();
    cluster.add("a", &[]).await.unwrap();
    (cluster, upstream, file)
}

async fn status(cluster: &Cluster, method: &str, path: &str, token: Option<&str>) -> u16 {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|token| ("authorization", token.as_str())).collect();
    let url = cluster.node("a").admin_url(path);
    let answer = http::request(method, &url, &headers, "").await.unwrap();
    if answer.status == 401 {
        assert!(answer.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")));
        assert!(!answer.text().contains(TOKEN), "{}", answer.text());
    }
    answer.status
}

/// The paths that the node says it knows, with their methods.
async fn known_paths(cluster: &Cluster, token: Option<&str>) -> Vec<(String, &'static str)> {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<(&str, &str)> = bearer.iter().map(|token| ("authorization", token.as_str())).collect();
    let url = cluster.node("a").admin_url("/no/such/path");
    let answer = http::request("GET", &url, &headers, "").await.unwrap();
    assert_eq!(answer.status, 404);
    let text = answer.json().unwrap()["error"].as_str().unwrap().to_owned();
    let listed = text.strip_prefix("known are ").unwrap().split(", ");
    listed
        .map(|one| match one.split_once(' ') {
            None => (one.to_owned(), "GET"),
            Some((path, "(DELETE)")) => (path.to_owned(), "DELETE"),
            Some((path, "(POST)")) => (path.to_owned(), "POST"),
            Some(other) => panic!("{other:?}"),
        })
        .collect()
}

#[tokio::test]
async fn everything_but_health_wants_the_token_and_a_new_one_is_taken_up() {
    let (cluster, _upstream, file) = guarded().await;
    let log = cluster.node("a").process.log();
    assert!(!log.contains(TOKEN), "the token is in the log");
    let paths = known_paths(&cluster, Some(TOKEN)).await;
    assert_eq!(paths.len(), 11, "{paths:?}");
    for (path, method) in &paths {
        // A drain that is let through would end the node; so would nothing else.
        let is_open = matches!(path.as_str(), "/livez" | "/readyz");
        for wrong in [None, Some(OTHER), Some("")] {
            let found = status(&cluster, method, path, wrong).await;
            assert_eq!(found == 401, !is_open, "{method} {path} with {wrong:?}: {found}");
        }
    }
    assert_eq!(status(&cluster, "GET", "/no/such/path", None).await, 401);
    assert_eq!(status(&cluster, "GET", "/v1/members", Some(TOKEN)).await, 200);
    std::fs::write(&file, "short").unwrap();
    wait_until("the log says that it can't be used", READ_AGAIN, async || {
        cluster.node("a").process.log().contains("refused")
    })
    .await;
    assert_eq!(status(&cluster, "GET", "/v1/members", Some(TOKEN)).await, 200, "the old one is good");
    std::fs::write(&file, OTHER).unwrap();
    wait_until("the new token is good", READ_AGAIN, async || {
        status(&cluster, "GET", "/v1/members", Some(OTHER)).await == 200
    })
    .await;
    assert_eq!(status(&cluster, "GET", "/v1/members", Some(TOKEN)).await, 401);
    assert!(!cluster.node("a").process.log().contains(OTHER), "the token is in the log");
}

#[tokio::test]
async fn commands_show_the_token_from_a_file_or_the_environment() {
    let (cluster, _upstream, file) = guarded().await;
    let admin = cluster.node("a").admin_url("");
    for command in [["members"].as_slice(), &["ring"], &["sessions"], &["locate", "rw1.x"], &["end", "rw1.x"]]
    {
        let args: Vec<&str> = command.iter().copied().chain(["--admin", &admin]).collect();
        let said = run_ringway(&args).await.unwrap();
        assert_eq!(said.code, Some(1), "{command:?}");
        assert!(
            said.stderr.contains("admin token") && said.stderr.contains("--token-file"),
            "{}",
            said.stderr
        );
    }
    let path = file.to_str().unwrap();
    let said = run_ringway(&["members", "--admin", &admin, "--token-file", path]).await.unwrap();
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let said = run_ringway(&["members", "--admin", &admin, "--token-file", "/no/such/file"]).await.unwrap();
    assert_eq!(said.code, Some(2), "{}", said.stderr);
    let output = tokio::process::Command::new(ringway().await.unwrap())
        .args(["members", "--admin", &admin])
        .env("RINGWAY_ADMIN_TOKEN", TOKEN)
        .output();
    let output = tokio::time::timeout(READ_AGAIN, output).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_token_that_can_t_be_used_is_a_mistake_in_the_config() {
    let dir = places::scratch("token").unwrap();
    let config = dir.join("ringway.toml");
    std::fs::write(dir.join("empty"), "\n").unwrap();
    for (file, word) in [("empty", "visible ASCII"), ("absent", "No such file")] {
        std::fs::write(&config, format!("name = \"a\"\nadmin_token_file = \"{file}\"\n")).unwrap();
        let said = run_ringway(&["check", config.to_str().unwrap()]).await.unwrap();
        assert_eq!(said.code, Some(2), "{}", said.stderr);
        assert!(said.stderr.contains("line 2") && said.stderr.contains(word), "{}", said.stderr);
    }
}

#[tokio::test]
async fn every_path_that_is_said_to_be_known_is_and_a_wrong_method_is_told_the_right_one() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    let paths = known_paths(&cluster, None).await;
    assert!(paths.len() > 10, "{paths:?}");
    for (path, method) in paths {
        let url = cluster.node("a").admin_url(&path);
        let wrong = http::request("PUT", &url, &[], "").await.unwrap();
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some(method)), "{path}");
    }
    let bad = cluster.admin("a", "/v1/sessions?limit=5000").await.unwrap();
    assert_eq!(bad.status, 400);
    assert!(bad.text().contains("1000"), "{}", bad.text());
    let rebound = [("host", "evil.example")];
    let url = cluster.node("a").admin_url("/v1/sessions?full=1");
    let answer = http::request("GET", &url, &rebound, "").await.unwrap();
    assert_eq!(answer.status, 403, "a name that somebody made lead here: {}", answer.text());
}

#[tokio::test]
async fn every_node_counts_the_traffic_of_all() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let session = cluster_tests::real::mcp::Session::open(&cluster.url("a")).await.unwrap();
    for (call, url) in (1..).zip(cluster.urls()) {
        session.count(&url, call).await.unwrap();
    }
    // A node whose witnesses have just become others is without a lease for some milliseconds.
    let traffic = wait_for("every node has its lease, and all say the same", LEASED_IN, async || {
        let traffic = cluster.admin_json("a", "/v1/traffic").await?;
        let mut nodes = traffic["nodes"].as_array().into_iter().flatten();
        anyhow::ensure!(nodes.all(|node| node["leased"] == true), "{traffic}");
        for name in cluster.names() {
            let other = cluster.admin_json(&name, "/v1/traffic").await?;
            anyhow::ensure!(other == traffic, "a says {traffic}, {name} says {other}");
        }
        Ok(traffic)
    })
    .await;
    assert_eq!(traffic["unreachable"].as_array().unwrap().len(), 0, "{traffic}");
    for name in cluster.names() {
        let nodes = traffic["nodes"].as_array().unwrap();
        let node = nodes.iter().find(|node| node["name"] == name.as_str()).unwrap();
        let requests = cluster.metric(&name, "ringway_requests_total", &[]).await.unwrap();
        assert_eq!(node["requests"].as_f64(), Some(requests), "{node}");
        let live = cluster.metric(&name, "ringway_sessions", &[("state", "live")]).await.unwrap();
        assert_eq!(node["sessions"]["live"].as_f64(), Some(live), "{node}");
        assert_eq!((&node["phase"], &node["leased"]), (&"active".into(), &true.into()), "{node}");
        for to in node["forwards"].as_array().unwrap() {
            let labels = [("peer", to["to"].as_str().unwrap()), ("outcome", "answered")];
            let answered = cluster.metric(&name, "ringway_forwards_total", &labels).await.unwrap();
            assert_eq!(to["answered"].as_f64(), Some(answered), "{node}");
        }
    }
}
