//! The command line: exit codes, mistakes that are told all at once, and what leaves a cluster.

use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::real::binaries::run_ringway;
use cluster_tests::real::mcp::Session;
use cluster_tests::real::places;
use serde_json::Value;

use super::prepare::{Parts, counting_cluster};

/// The command says that a node has left when its process is about to end.
const LEFT: Duration = Duration::from_secs(5);

/// The example of CONTRACT.md, word for word.
const EXAMPLE: &str = r#"name = "a"
listen = "0.0.0.0:8080"
peer = "0.0.0.0:7400"
advertise = "10.0.0.1:7400"
admin = "127.0.0.1:9400"
seeds = ["10.0.0.2:7400", "ringway-headless:7400"]
secret_file = "cluster.key"

[[route]]
path = "/mcp"                         # an MCP server over HTTP; several = replicas, a session stays on its own
upstream = ["http://127.0.0.1:3001/mcp"]

[[route]]
path = "/careful"                     # a session whose owner is gone is answered with 404
upstream = ["http://127.0.0.1:3002/mcp", "http://127.0.0.1:3003/mcp"]
on_loss = "expire"                    # when the owner is gone: "reinitialize" (default) or "expire" (404)
idle_timeout = "30m"
max_sessions = 200

[[route]]
path = "/graphql"                     # not MCP: no affinity, any node serves it
affinity = "none"
upstream = ["http://127.0.0.1:4000/graphql"]

[[route]]
path = "/jobs"                        # any HTTP service, affinity by a key that the client sends
affinity = { header = "X-Job-Id" }    # or { cookie = "sid" } or { query = "sid" }
upstream = ["http://127.0.0.1:4001"]
"#;

/// A config file, with a secret beside it under the name that the example uses.
async fn config(text: &str) -> PathBuf {
    let dir = places::scratch("config").unwrap();
    let secret = run_ringway(&["secret"]).await.unwrap();
    std::fs::write(dir.join("cluster.key"), secret.stdout).unwrap();
    let path = dir.join("ringway.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn the_example_config_is_valid() {
    let path = config(EXAMPLE).await;
    let said = run_ringway(&["check", path.to_str().unwrap()]).await.unwrap();
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[tokio::test]
async fn every_mistake_in_a_config_is_told_at_once_with_its_line() {
    let mistakes = EXAMPLE
        .replace("listen = \"0.0.0.0:8080\"", "lissten = \"0.0.0.0:8080\"")
        .replace("on_loss = \"expire\" ", "on_loss = \"forget\" ")
        .replace("idle_timeout = \"30m\"", "idle_timeout = \"soon\"")
        .replace("affinity = \"none\"", "affinity = \"some\"");
    let lines: Vec<usize> = ["lissten", "\"forget\"", "\"soon\"", "\"some\""]
        .iter()
        .map(|mistake| mistakes.lines().position(|line| line.contains(mistake)).unwrap() + 1)
        .collect();
    let path = config(&mistakes).await;
    let check = run_ringway(&["check", path.to_str().unwrap()]).await.unwrap();
    let node = run_ringway(&["node", "--config", path.to_str().unwrap()]).await.unwrap();
    for said in [check, node] {
        assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
        let told = said.stdout + &said.stderr;
        for (line, word) in lines.iter().zip(["lissten", "forget", "soon", "some"]) {
            let named = told.contains(&format!("line {line}")) || told.contains(&format!(":{line}"));
            assert!(named && told.contains(word), "line {line} ({word}) is not told of:\n{told}");
        }
    }
}

#[tokio::test]
async fn a_node_that_others_can_reach_needs_a_secret() {
    let loopback = ["--listen", "127.0.0.1:0", "--peer", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    for flag in ["--listen", "--peer", "--admin"] {
        let mut args = vec!["node", "--name", "a", "--upstream", "http://127.0.0.1:9/mcp"];
        for pair in loopback.chunks(2) {
            args.extend([pair[0], if pair[0] == flag { "0.0.0.0:0" } else { pair[1] }]);
        }
        let said = run_ringway(&args).await.unwrap();
        assert_eq!(said.code, Some(2), "{flag}: {}", said.stderr);
        assert!(said.stderr.contains("ringway secret"), "{flag}: no remedy: {}", said.stderr);
        assert_eq!(said.stdout, "", "{flag}");
    }
}

#[tokio::test]
async fn a_route_with_two_kinds_of_backend_is_refused_at_its_line() {
    let route = "path = \"/shell\"\ncommand = [\"cat\"]\nupstream = \"http://127.0.0.1:1\"\n";
    let path = config(&format!("name = \"a\"\n\n[[route]]\n{route}")).await;
    let said = run_ringway(&["check", path.to_str().unwrap()]).await.unwrap();
    assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("line 5") && said.stderr.contains("both"), "{}", said.stderr);
}

#[tokio::test]
async fn wrong_usage_is_told_from_failure() {
    for args in
        [["node", "--no-such-flag"].as_slice(), &["no-such-command"], &["check"], &["check", "/no/such/file"]]
    {
        let said = run_ringway(args).await.unwrap();
        assert_eq!(said.code, Some(2), "{args:?}: {}", said.stderr);
        assert!(!said.stderr.is_empty(), "{args:?}");
    }
    // The discard port: nobody listens there.
    let said = run_ringway(&["members", "--admin", "http://127.0.0.1:9"]).await.unwrap();
    assert_eq!(said.code, Some(1), "{}", said.stderr);
    assert!(said.stderr.contains("127.0.0.1:9"), "{}", said.stderr);
}

#[tokio::test]
async fn a_secret_is_new_each_time_and_stands_alone() {
    let (one, other) = (run_ringway(&["secret"]).await.unwrap(), run_ringway(&["secret"]).await.unwrap());
    assert_eq!((one.code, other.code), (Some(0), Some(0)));
    assert_eq!(one.stdout.lines().count(), 1, "{}", one.stdout);
    // 32 bytes are 43 characters in base64 and 64 in hex.
    assert!(one.stdout.trim().len() >= 43, "{}", one.stdout);
    assert_ne!(one.stdout, other.stdout);
}

#[tokio::test]
async fn every_command_explains_itself() {
    let commands = [
        "node", "demo", "secret", "check", "members", "ring", "sessions", "locate", "end", "events", "drain",
        "mcp-demo",
    ];
    let help = run_ringway(&["--help"]).await.unwrap();
    assert_eq!(help.code, Some(0));
    for command in commands {
        assert!(help.stdout.contains(command), "`ringway --help` does not name {command}:\n{}", help.stdout);
        let said = run_ringway(&[command, "--help"]).await.unwrap();
        assert!(
            said.code == Some(0) && said.stdout.contains("Usage"),
            "{command}: {}{}",
            said.stdout,
            said.stderr
        );
    }
}

#[tokio::test]
async fn drain_shows_how_far_a_node_is_until_it_has_left() {
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let admin = cluster.node(&owner).admin_url("");
    let said = run_ringway(&["drain", "--admin", &admin, "--deadline", "10"]).await.unwrap();
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""), "{}", said.stdout);
    let lines: Vec<&str> = said.stdout.lines().collect();
    // None, where its session was given away before the command looked for the first time.
    let first = ["1 session", "0 sessions"].map(|left| format!("{owner} is draining: {left} left"));
    assert!(first.iter().any(|first| first == lines[0]), "{}", said.stdout);
    assert!(lines[lines.len() - 1].starts_with(&format!("{owner} left after ")), "{}", said.stdout);
    let status = cluster.take(&owner).process.wait(LEFT).await.unwrap();
    assert_eq!(status.code(), Some(0));

    let other = cluster.names().remove(0);
    assert_eq!(session.count(&cluster.url(&other), 2).await.unwrap(), 1);
    let admin = cluster.node(&other).admin_url("");
    let said = run_ringway(&["drain", "--admin", &admin, "--json"]).await.unwrap();
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let lines: Vec<Value> = said.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = &lines[lines.len() - 1];
    assert!(last["name"] == other && last["phase"] == "left" && last["seconds"].is_f64(), "{last}");
    let status = cluster.take(&other).process.wait(LEFT).await.unwrap();
    assert_eq!(status.code(), Some(0));
}
