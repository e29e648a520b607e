//! What upstreams may do, and what a cluster makes of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http;
use cluster_tests::real::mcp::{POST_HEADERS, Session, call, initialize};
use cluster_tests::real::wait::wait_for;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::prepare::{Parts, counting_cluster};

const SOON: Duration = Duration::from_secs(15);

/// An address that refuses connections: bound for a moment, so that nothing else has it.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// An HTTP server that answers as `answer` says; it ends with the test's runtime. Gives its URL.
async fn server<F, Answering>(answer: F) -> String
where
    F: Fn(Request<Bytes>) -> Answering + Send + Sync + 'static,
    Answering: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    Ok::<_, hyper::Error>(answer(Request::from_parts(head, body)).await)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    url
}

fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(Full::new(body.into())).unwrap()
}

/// An MCP server with one session, `only`, that answers every request at once.
fn mcp_answer(request: &Request<Bytes>) -> Response<Full<Bytes>> {
    let message: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    if message["id"].is_null() {
        return answer(202, "");
    }
    let result = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "content": [{"text": "1"}],
        "serverInfo": {"name": "x", "version": "1"}});
    let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let mut answer = answer(200, reply);
    answer.headers_mut().insert("mcp-session-id", "only".parse().unwrap());
    answer
}

#[tokio::test]
async fn a_replica_that_refuses_connections_is_passed_over() {
    let (dead, good) = (refusing().await, server(async |_| answer(200, "{}")).await);
    let config = format!(
        "[[route]]\npath = \"/free\"\naffinity = \"none\"\nupstream = [\"{dead}\", \"{good}\"]\n\
         [[route]]\npath = \"/keyed\"\naffinity = {{ query = \"k\" }}\nupstream = [\"{dead}\", \"{good}\"]\n"
    );
    let cluster = Plan::nodes(2).config(config).start().await.unwrap();
    for number in 0..8 {
        for node in ["a", "b"] {
            for path in ["/free".to_owned(), format!("/keyed?k={number}")] {
                for (method, body) in [("GET", ""), ("POST", "{}")] {
                    let url = cluster.node(node).url(&path);
                    let answer = http::request(method, &url, &[], body).await.unwrap();
                    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
                }
            }
        }
    }
}

#[tokio::test]
async fn a_session_is_opened_where_an_upstream_answers() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    let dead = format!("{}/mcp", refusing().await);
    // `b` has an upstream of its own, which is down; it has the fewest sessions, so placement wants it.
    let flags =
        ["--upstream", dead.as_str(), "--seed", &cluster.node("a").peer.to_string()].map(str::to_owned);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let lame = Plan::nodes(0).start().await.unwrap().start_alone("b", &flags).await.unwrap();
    wait_for("a knows b", SOON, async || {
        let members = cluster.admin_json("a", "/v1/members").await?;
        anyhow::ensure!(members["members"].as_array().is_some_and(|all| all.len() == 2), "{members}");
        Ok(())
    })
    .await;
    for _ in 0..10 {
        for url in [cluster.url("a"), lame.url("/mcp")] {
            let session = Session::open(&url).await.unwrap();
            assert_eq!(session.count(&url, 1).await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_server_without_a_stream_of_its_own_keeps_its_session() {
    let url = server(async |request: Request<Bytes>| match *request.method() {
        Method::POST => mcp_answer(&request),
        _ => answer(404, "Cannot GET /mcp"),
    });
    let cluster = Cluster::start(2, &[format!("{}/mcp", url.await)]).await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for url in cluster.urls() {
        assert_eq!(session.listen(&url).await.unwrap().status, 405, "which every client accepts");
        assert_eq!(session.count(&url, 2).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn what_an_upstream_forgot_is_not_found_and_its_failures_are_told_honestly() {
    let url = server(async |request: Request<Bytes>| {
        let message: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        match message["params"]["name"].as_str() {
            Some("busy") => answer(503, "busy"),
            Some("forget") => answer(404, "no such session"),
            _ => mcp_answer(&request),
        }
    });
    let cluster = Cluster::start(2, &[format!("{}/mcp", url.await)]).await.unwrap();
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for url in cluster.urls() {
        let reply = session.post(&url, &call(5, "busy", json!({}))).await.unwrap();
        assert_eq!(reply.status, 200, "a 5xx kills real clients");
        let error = reply.json().unwrap();
        assert_eq!((&error["id"], &error["error"]["code"]), (&json!(5), &json!(-31001)));
        let data = json!({"reason": "upstream_status", "status": 503, "mayHaveRun": true});
        assert_eq!(error["error"]["data"], data);
    }
    for url in cluster.urls() {
        let reply = session.post(&url, &call(6, "forget", json!({}))).await.unwrap();
        assert_eq!((reply.status, &reply.json().unwrap()["error"]["code"]), (404, &json!(-32001)));
        let path = format!("/v1/ring/lookup?session={}", session.id);
        assert_eq!(cluster.admin_json("a", &path).await.unwrap()["state"], "lost");
    }
}

#[tokio::test]
async fn the_upstream_is_told_its_own_host_and_beside_it_the_clients() {
    let url = server(async |request: Request<Bytes>| {
        let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let seen = json!({"host": header("host"), "forwarded": header("x-forwarded-host"), "own": header("ringway-node")});
        answer(200, seen.to_string())
    })
    .await;
    let config = format!("[[route]]\npath = \"/free\"\naffinity = \"none\"\nupstream = [\"{url}\"]\n");
    let cluster = Plan::nodes(1).config(config).start().await.unwrap();
    let headers = [("x-forwarded-host", "evil.example"), ("connection", "x-private"), ("x-private", "1")];
    let answer = http::get(&cluster.node("a").url("/free")).await.unwrap();
    let spoofed = http::request("GET", &cluster.node("a").url("/free"), &headers, "").await.unwrap();
    for answer in [answer, spoofed] {
        let seen = answer.json().unwrap();
        assert_eq!(seen["host"], url.strip_prefix("http://").unwrap());
        assert_eq!(seen["forwarded"], cluster.listen("a").to_string());
    }
}

#[tokio::test]
async fn a_drain_finishes_what_it_forwards_and_refuses_new_connections() {
    let (go_on, waiting) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (released, arrived) = (go_on.clone(), waiting.clone());
    let url = server(move |_| {
        let (released, arrived) = (released.clone(), arrived.clone());
        async move {
            arrived.notify_one();
            released.notified().await;
            answer(200, vec![b'x'; 1 << 20])
        }
    })
    .await;
    let config =
        format!("[[route]]\npath = \"/files\"\naffinity = {{ query = \"k\" }}\nupstream = [\"{url}\"]\n");
    let mut cluster = Plan::nodes(2).config(config).start().await.unwrap();
    let owner = cluster.admin_json("a", "/v1/ring/lookup?key=1").await.unwrap()["owner"].clone();
    let (owner, entry) = if owner == "a" { ("a", "b") } else { ("b", "a") };
    let download = cluster.node(entry).url("/files?k=1");
    let download = tokio::spawn(async move { http::get(&download).await });
    waiting.notified().await;
    let leaving = cluster.node(owner).url("/files?k=1");
    let ended = cluster.terminate(owner, Duration::from_secs(40));
    let refused = async {
        wait_for("the node that leaves refuses connections", SOON, async || {
            anyhow::ensure!(http::raw(leaving.split('/').nth(2).unwrap().parse()?, b"", SOON).await.is_err());
            Ok(())
        })
        .await;
        go_on.notify_one();
    };
    let (ended, ()) = tokio::join!(ended, refused);
    assert_eq!(ended.unwrap().code(), Some(0));
    let whole = download.await.unwrap().unwrap();
    assert_eq!((whole.status, whole.body.len()), (200, 1 << 20), "cut short by the drain");
}

#[tokio::test]
async fn a_page_of_this_machine_may_call_and_is_told_so() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    let url = cluster.url("a");
    let page = ("origin", "http://localhost:6274");
    let asks = [
        page,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "mcp-session-id,x-y"),
    ];
    let told = http::request("OPTIONS", &url, &asks, "").await.unwrap();
    assert_eq!(told.status, 204);
    assert_eq!(told.header("access-control-allow-origin"), Some(page.1));
    assert_eq!(told.header("access-control-allow-headers"), Some("mcp-session-id,x-y"));
    assert_eq!(told.header("access-control-allow-methods"), Some("GET, POST, DELETE"));
    let headers: Vec<_> = POST_HEADERS.into_iter().chain([page]).collect();
    let opened = http::request("POST", &url, &headers, initialize(1).to_string()).await.unwrap();
    assert_eq!((opened.status, opened.header("access-control-allow-origin")), (200, Some(page.1)));
    assert!(opened.header("access-control-expose-headers").unwrap().contains("mcp-session-id"));
    let foreign = [("origin", "http://evil.example"), asks[1]];
    let refused = http::request("OPTIONS", &url, &foreign, "").await.unwrap();
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
}
