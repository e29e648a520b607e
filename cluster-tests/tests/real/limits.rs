//! Each limit of a node with the answer that it gives: a listing, written to `target/limits.md`.

use std::net::SocketAddr;
use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http::{self, Answer};
use cluster_tests::real::mcp::{POST_HEADERS, initialize};
use cluster_tests::real::places;
use cluster_tests::real::route::Route;
use cluster_tests::real::wait::wait_for;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::storm::Counting;

const SOON: Duration = Duration::from_secs(20);

/// What was done, and what came of it.
struct Case {
    limit: &'static str,
    done: &'static str,
    /// What the answer must begin with, and what must be in it.
    expected: [&'static str; 2],
    answer: String,
}

#[tokio::test]
async fn each_limit_has_its_answer() {
    let server = Counting::start();
    let mut cases = Vec::new();
    let mut case = |limit, done, expected, answer| cases.push(Case { limit, done, expected, answer });

    let cluster = node(&server, "body_timeout = \"1s\"\nheader_timeout = \"1s\"\n", |route| {
        route.number("max_body_bytes", 1_000)
    })
    .await;
    let to = cluster.listen("a");
    let head = "POST /mcp HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let spoken = async |bytes: String| spoken(to, &bytes).await;
    case("header_timeout", "half a head", ["HTTP/1.1 408", "header_timeout"], spoken(head.into()).await);
    let slow = spoken(format!("{head}content-length: 100\r\n\r\n{{")).await;
    case("body_timeout", "one byte of a body of 100", ["HTTP/1.1 408", "body_timeout"], slow);
    let long = spoken(format!("{head}content-length: 2000\r\n\r\n{}", "x".repeat(2_000))).await;
    case(
        "max_body_bytes (route)",
        "a body of 2,000 bytes where 1,000 are allowed",
        ["HTTP/1.1 413", "larger than 1000 bytes"],
        long,
    );
    let long = spoken(format!("GET /mcp?{} HTTP/1.1\r\nhost: x\r\n\r\n", "x".repeat(20_000))).await;
    case("16 KiB of target", "a target of 20,000 bytes", ["HTTP/1.1 414", "16 KiB"], long);
    let long = spoken(format!("{head}x-long: {}\r\n\r\n", "x".repeat(70_000))).await;
    case("64 KiB of head", "a head of 70,000 bytes", ["HTTP/1.1 431", "64 KiB"], long);
    let longer = spoken(format!("{head}x-long: {}\r\n\r\n", "x".repeat(200_000))).await;
    case("128 KiB of head", "a head of 200,000 bytes", ["HTTP/1.1 431", ""], longer);
    let many: String = (0..150).map(|number| format!("x-{number}: 1\r\n")).collect();
    case("100 header lines", "150 of them", ["HTTP/1.1 431", ""], spoken(format!("{head}{many}\r\n")).await);

    let cluster =
        node(&server, "", |route| route.number("max_sessions", 2).number("max_sessions_per_client", 1)).await;
    assert!(open(&cluster, "one").await.header("mcp-session-id").is_some());
    let refused = shown(&open(&cluster, "one").await);
    case(
        "max_sessions_per_client (route)",
        "a second session of one client",
        ["200", "\"limit\":\"max_sessions_per_client\""],
        refused,
    );
    assert!(open(&cluster, "two").await.header("mcp-session-id").is_some());
    let refused = shown(&open(&cluster, "three").await);
    case(
        "max_sessions (route)",
        "a third session on a route for two",
        ["200", "\"scope\":\"route\""],
        refused,
    );

    let cluster = node(&server, "max_sessions = 1\n", |route| route).await;
    assert!(open(&cluster, "one").await.header("mcp-session-id").is_some());
    let refused = shown(&open(&cluster, "two").await);
    case("max_sessions", "a second session at a node for one", ["200", "\"scope\":\"node\""], refused);

    let cluster = node(&server, "new_sessions_per_second = 1\n", |route| route).await;
    let (mut answers, url) = (tokio::task::JoinSet::new(), cluster.url("a"));
    for _ in 0..12 {
        let url = url.clone();
        answers.spawn(async move { open_at(&url, "one").await });
    }
    let refused = loop {
        let answer = answers.join_next().await.unwrap().unwrap();
        if answer.header("mcp-session-id").is_none() {
            break shown(&answer);
        }
    };
    answers.abort_all();
    case(
        "new_sessions_per_second",
        "twelve at once where one a second is allowed",
        ["200", "\"retryAfterMs\":"],
        refused,
    );

    // Each holds a place with an answer that is under way: a stream that stands.
    let cluster = node(&server, "max_connections = 3\n", |route| route).await;
    let held = hold(&cluster, 3).await;
    let refused = spoken_to(&cluster, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    case(
        "max_connections",
        "one more than that, and all are being served",
        ["HTTP/1.1 503", "retry-after: 1"],
        refused,
    );
    drop(held);
    wait_for("there is room again", SOON, async || {
        anyhow::ensure!(open(&cluster, "again").await.status == 200);
        Ok(())
    })
    .await;
    let cluster = node(&server, "max_connections_per_client = 2\n", |route| route).await;
    let held = hold(&cluster, 2).await;
    let refused = spoken_to(&cluster, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    case(
        "max_connections_per_client",
        "one more than that of one address",
        ["HTTP/1.1 429", "max_connections_per_client"],
        refused,
    );
    drop(held);

    let cluster = node(&server, "max_connections = 3\n", |route| route).await;
    let mut loris = TcpStream::connect(cluster.listen("a")).await.unwrap();
    loris.write_all(b"POST ").await.unwrap();
    let held = hold(&cluster, 3).await;
    let mut said = Vec::new();
    let pushed_out = timeout(SOON, loris.read_to_end(&mut said)).await.unwrap();
    assert!(said.is_empty() && pushed_out.map_or(true, |len| len == 0), "{}", String::from_utf8_lossy(&said));
    case(
        "max_connections",
        "others come while it has sent half a head",
        ["closed", ""],
        "closed without an answer".into(),
    );
    drop(held);

    let table: String = cases
        .iter()
        .map(|Case { limit, done, answer, .. }| {
            format!("| `{limit}` | {done} | {} |\n", answer.replace('|', "\\|"))
        })
        .collect();
    let listing = format!("| limit | what was done | the answer |\n|---|---|---|\n{table}");
    println!("{listing}");
    std::fs::write(places::target().join("limits.md"), listing).unwrap();
    for Case { limit, expected: [begins, contains], answer, .. } in &cases {
        assert!(answer.starts_with(begins), "{limit}: {answer}");
        assert!(answer.contains(contains), "{limit}: {answer} without {contains}");
    }
}

#[tokio::test]
async fn operators_have_places_of_their_own() {
    let server = Counting::start();
    let cluster = node(&server, "max_connections = 1\n", |route| route).await;
    let _held = hold(&cluster, 1).await;
    assert_eq!(cluster.admin("a", "/livez").await.unwrap().status, 200);
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut stream = TcpStream::connect(cluster.node("a").admin).await.unwrap();
        let _ = stream.write_all(b"GET ").await; // some have been pushed out by the others
        slow.push(stream);
    }
    assert_eq!(cluster.admin("a", "/livez").await.unwrap().status, 200, "300 slow ones beside it");
}

async fn node(server: &Counting, more: &str, keys: impl Fn(Route) -> Route) -> Cluster {
    let route = keys(Route::upstreams(std::slice::from_ref(&server.url)));
    // Requests that a client never ends are held open by a server that never answers.
    let endless = endless().await;
    let held = format!("[[route]]\npath = \"/held\"\naffinity = \"none\"\nupstream = \"http://{endless}\"\n");
    Plan::nodes(1).config(format!("{more}{route}{held}")).start().await.unwrap()
}

/// A server that begins an answer and never ends it. It ends with the test's runtime.
async fn endless() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n";
            let mut asked = [0; 1_024];
            let _ = stream.read(&mut asked).await; // an answer to nothing would be an error
            let _ = stream.write_all(head).await;
            open.push(stream);
        }
    });
    address
}

/// So many connections that are being served.
async fn hold(cluster: &Cluster, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut stream = TcpStream::connect(cluster.listen("a")).await.unwrap();
        stream.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut begun = Vec::new();
        while !begun.ends_with(b"hi\r\n") {
            assert_ne!(timeout(SOON, stream.read_buf(&mut begun)).await.unwrap().unwrap(), 0, "{begun:?}");
        }
        held.push(stream);
    }
    held
}

async fn open(cluster: &Cluster, client: &str) -> Answer {
    open_at(&cluster.url("a"), client).await
}

async fn open_at(url: &str, client: &str) -> Answer {
    let credentials = format!("Bearer {client}");
    let headers: Vec<_> = POST_HEADERS.into_iter().chain([("authorization", credentials.as_str())]).collect();
    http::request("POST", url, &headers, initialize(1).to_string()).await.unwrap()
}

/// An answer of JSON-RPC in one line; it has to be one that clients understand.
fn shown(answer: &Answer) -> String {
    let reply = answer.reply().unwrap();
    assert_eq!((&reply["id"], &reply["error"]["code"]), (&json!(1), &json!(-31001)), "{reply}");
    assert_eq!(reply["error"]["data"]["reason"], "overloaded");
    format!("{} {}", answer.status, reply["error"])
}

async fn spoken_to(cluster: &Cluster, bytes: &str) -> String {
    spoken(cluster.listen("a"), bytes).await
}

/// What is said to whoever says that: the first line, and the rest in short.
async fn spoken(to: SocketAddr, bytes: &str) -> String {
    let said = http::raw(to, bytes.as_bytes(), SOON).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    let (head, body) = said.split_once("\r\n\r\n").unwrap_or((&said, ""));
    let lines: Vec<_> = head
        .lines()
        .filter(|line| line.starts_with("HTTP/") || line.to_ascii_lowercase().starts_with("retry-after"))
        .collect();
    format!("{} {}", lines.join("; "), body.trim()).trim().to_owned()
}
