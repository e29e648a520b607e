//! What clients get that send what they should not: the table of CONTRACT.md, row by row, on every node.

use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::http::{self, Answer};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::{POST_HEADERS, Session, call, initialize};
use cluster_tests::real::upstream::{self, Upstream};
use serde_json::{Value, json};

use super::prepare::{Parts, counting_cluster};

/// The default limit of a request's body.
const BODY_LIMIT: usize = 4 << 20;

async fn post(url: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    let headers: Vec<_> = POST_HEADERS.into_iter().chain(headers.iter().copied()).collect();
    http::request("POST", url, &headers, body).await.unwrap()
}

/// The answer is a JSON-RPC error with this status; gives its code.
fn error_code(answer: &Answer, status: u16, id: &Value) -> i64 {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(
        answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")),
        "{answer:?}"
    );
    let body = answer.json().unwrap();
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), id), "{body}");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    body["error"]["code"].as_i64().unwrap_or_else(|| panic!("no code: {body}"))
}

#[tokio::test]
async fn a_request_without_a_session_is_refused_under_its_own_id() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    for url in cluster.urls() {
        for id in [json!(5), json!("five")] {
            let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"});
            let answer = post(&url, &[("mcp-protocol-version", "2025-11-25")], request.to_string()).await;
            error_code(&answer, 400, &id);
        }
        let notification = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(post(&url, &[], notification.to_string()).await.status, 400);
        let listen = http::request("GET", &url, &[("accept", "text/event-stream")], "").await.unwrap();
        error_code(&listen, 400, &Value::Null);
        error_code(&http::request("DELETE", &url, &[], "").await.unwrap(), 400, &Value::Null);
    }
}

#[tokio::test]
async fn whatever_is_no_session_is_answered_alike() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let deleted = Session::open(&cluster.url("a")).await.unwrap();
    deleted.delete(&cluster.url("b")).await.unwrap();
    let living = Session::open(&cluster.url("a")).await.unwrap();

    let mut strangers = vec![deleted.id.clone(), "no-session".to_owned(), "rw1.".to_owned()];
    strangers.push(format!("rw1.{}", "A".repeat(living.id.len() - 4)));
    strangers.push("6e2f1a34-8d0c-4c3f-9f53-0d8f3a1b7c55".to_owned());
    strangers.push(format!("{}A", living.id));
    strangers.push(living.id[..living.id.len() - 1].to_owned());
    // Every part of the id is sealed: no character may be exchanged.
    strangers.extend((4..living.id.len()).step_by(5).map(|at| tampered(&living.id, at)));

    let request = call(3, "count", json!({})).to_string();
    let mut bodies = Vec::new();
    for id in &strangers {
        for url in cluster.urls() {
            let headers = [("mcp-session-id", id.as_str()), ("mcp-protocol-version", "2025-11-25")];
            let answer = post(&url, &headers, request.clone()).await;
            assert_eq!(error_code(&answer, 404, &json!(3)), -32001, "{id}");
            assert_eq!(answer.json().unwrap()["error"]["message"], "Session not found");
            bodies.push(answer.text());
            for method in ["GET", "DELETE"] {
                let answer = http::request(method, &url, &headers, "").await.unwrap();
                assert_eq!(error_code(&answer, 404, &Value::Null), -32001, "{method} {id}");
            }
        }
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the answers tell one reason from another: {bodies:?}");
    assert_eq!(living.count(&cluster.url("b"), 4).await.unwrap(), 1, "the session itself has suffered");
}

/// The id with another character of its alphabet at `at`.
fn tampered(id: &str, at: usize) -> String {
    let mut bytes = id.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_one_below_it_passes() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let padded = |length: usize| call(1, "count", json!({"padding": "x".repeat(length)})).to_string();
    // The limit is the upstream's own too; what the message has around its padding is less than 1 KiB.
    let fits = padded(BODY_LIMIT - 1024);
    let over = padded(BODY_LIMIT);
    for (expected, url) in (1..).zip(cluster.urls()) {
        let headers = [("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", &session.protocol)];
        let reply = post(&url, &headers, fits.clone()).await.reply().unwrap();
        assert_eq!(reply["result"]["content"][0]["text"], expected.to_string(), "{reply}");
        // With its length said beforehand, and without.
        let chunked = [headers[0], headers[1], ("transfer-encoding", "chunked")];
        for headers in [headers.as_slice(), &chunked] {
            let answer = post(&url, headers, over.clone()).await;
            assert_eq!(answer.status, 413, "{}", answer.text());
            let body = answer.json().unwrap();
            assert!(body["jsonrpc"] == "2.0" && body["error"]["code"].is_i64(), "{body}");
        }
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for url in cluster.urls() {
        for origin in ["https://evil.example", "http://127.0.0.1.evil.example", "null"] {
            let foreign = [("origin", origin)];
            assert_eq!(post(&url, &foreign, initialize(1).to_string()).await.status, 403, "{origin}");
            let headers = [foreign[0], ("mcp-session-id", session.id.as_str())];
            for method in ["GET", "DELETE"] {
                assert_eq!(http::request(method, &url, &headers, "").await.unwrap().status, 403, "{origin}");
            }
        }
        let own = url.trim_end_matches("/mcp");
        assert_eq!(post(&url, &[("origin", own)], initialize(1).to_string()).await.status, 200);
    }
    assert_eq!(
        session.count(&cluster.url("b"), 1).await.unwrap(),
        1,
        "a refused DELETE has ended the session"
    );
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let headers = [("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", "2025-06-18")];
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    for url in cluster.urls() {
        for body in ["", "{", "not json", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi"] {
            let answer = post(&url, &headers, body).await;
            assert_eq!(error_code(&answer, 400, &Value::Null), -32700, "{body}");
        }
        let broken_text = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"p\xff\"}".as_slice();
        assert_eq!(error_code(&post(&url, &headers, broken_text).await, 400, &Value::Null), -32700);
        for body in [json!([ping, ping]), json!([]), json!(42), json!("ping"), Value::Null] {
            let answer = post(&url, &headers, body.to_string()).await;
            assert_eq!(error_code(&answer, 400, &Value::Null), -32600, "{body}");
        }
    }
}

#[tokio::test]
async fn a_path_without_a_route_is_not_found() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    for path in ["/", "/mcp2", "/mcp/other", "/v1/members", "/metrics"] {
        let url = cluster.node("a").url(path);
        assert_eq!(post(&url, &[], initialize(1).to_string()).await.status, 404, "{path}");
        assert_eq!(http::get(&url).await.unwrap().status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_asks_for_the_era_without_sessions_is_sent_back_to_initialize() {
    let test = "a_client_that_asks_for_the_era_without_sessions_is_sent_back_to_initialize";
    let Some(server) = or_left_out(test, Upstream::everything().await) else { return };
    let servers = [server];
    let cluster = Cluster::start(2, &upstream::urls(&servers)).await.unwrap();
    for url in cluster.urls() {
        for id in [json!(0), json!("probe")] {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            });
            let discover =
                json!({"jsonrpc": "2.0", "id": id, "method": "server/discover", "params": {"_meta": meta}});
            let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "server/discover")];
            let answer = post(&url, &headers, discover.to_string()).await;
            assert_eq!(error_code(&answer, 404, &id), -32601);
        }
    }
}

#[tokio::test]
async fn a_connection_that_speaks_no_http_harms_nobody() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let quiet = std::time::Duration::from_millis(300);
    let nonsense: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /mcp HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST /mcp HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\n",
        b"GET /mcp HTTP/1.1\r\nmcp-session-id: \x01\x02\r\n\r\n",
    ];
    for (node, bytes) in
        cluster.names().iter().flat_map(|name| nonsense.map(|bytes| (cluster.node(name), bytes)))
    {
        for address in [node.listen, node.admin] {
            // Refused or dropped, as it likes.
            let said = http::raw(address, bytes, quiet).await.unwrap_or_default();
            assert!(!said.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&said));
        }
    }
    assert_eq!(session.count(&cluster.url("b"), 1).await.unwrap(), 1);
}
