//! The HTTP+SSE transport of 2024-11-05, across nodes: old clients of every kind of upstream, and servers that speak
//! nothing else.

use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::marked;
use cluster_tests::real::mcp::{Session, call, said};
use cluster_tests::real::old_transport::OldSession;
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::wait_until;
use serde_json::json;

use super::prepare::{Children, Parts, counting_children, counting_cluster};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn an_old_client_of_a_child_is_served_across_nodes() {
    let Children { cluster, mark } = counting_children(3).await;
    count_as_an_old_client(&cluster).await;
    // It never ends its session but by going away.
    wait_until("the child is gone", SOON, async || marked::all(&mark).is_empty()).await;
}

#[tokio::test]
async fn an_old_client_of_a_streamable_server_is_served_across_nodes() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(3, 2).await;
    count_as_an_old_client(&cluster).await;
}

#[tokio::test]
async fn an_old_client_hears_what_its_server_says_by_itself_and_answers_at_any_node() {
    let Children { cluster, .. } = counting_children(3).await;
    let (a, b) = (cluster.node("a").url(""), cluster.node("b").url(""));
    let mut session = OldSession::connect(&cluster.node("c").url("/mcp/sse")).await.unwrap();
    let mut hello = cluster_tests::real::mcp::initialize(0);
    hello["params"]["capabilities"] = json!({"sampling": {}});
    session.ask(&a, &hello).await.unwrap();
    session.tell(&b, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await.unwrap();
    session.tell(&a, &call(1, "test_sampling", json!({"prompt": "hi"}))).await.unwrap();
    let question = session.stream.message(SOON).await.unwrap().expect("the stream ends");
    assert_eq!(question["method"], "sampling/createMessage", "{question}");
    let content = json!({"type": "text", "text": "ho"});
    let sampled = json!({"role": "assistant", "model": "test", "content": content});
    session.tell(&b, &cluster_tests::real::mcp::result(&question["id"], sampled)).await.unwrap();
    let reply = session.stream.message(SOON).await.unwrap().expect("the stream ends");
    assert_eq!((&reply["id"], said(&reply)), (&json!(1), Some("LLM response: ho")), "{reply}");
}

#[tokio::test]
async fn a_session_of_the_old_transport_ends_with_its_stream() {
    let Children { cluster, mark } = counting_children(3).await;
    let (a, b) = (cluster.node("a").url(""), cluster.node("b").url(""));
    let session = OldSession::open(&cluster.node("a").url("/mcp/sse"), &b).await.unwrap();
    assert_eq!(marked::all(&mark).len(), 1);
    let OldSession { stream, endpoint } = session;
    drop(stream);
    wait_until("the child is gone", SOON, async || marked::all(&mark).is_empty()).await;
    let body = call(2, "count", json!({})).to_string();
    let late =
        cluster_tests::real::http::request("POST", &format!("{a}{endpoint}"), &[], body).await.unwrap();
    assert_eq!(late.status, 404, "{}", late.text());
}

#[tokio::test]
async fn a_server_of_the_old_transport_serves_new_and_old_clients() {
    let test = "a_server_of_the_old_transport_serves_new_and_old_clients";
    let Some(upstream) = or_left_out(test, Upstream::everything_sse().await) else { return };
    let route = Route::upstreams(std::slice::from_ref(&upstream.url)).text("transport", "sse");
    let cluster = Plan::nodes(3).routes(&[route]).start().await.unwrap();

    let session = Session::open(&cluster.url("a")).await.unwrap();
    for (id, url) in (2..).zip(cluster.urls().iter().cycle().take(6)) {
        let message = format!("number {id}");
        let echoed = session.call(url, id, "echo", json!({"message": message})).await.unwrap();
        assert_eq!(echoed, format!("Echo: {message}"));
    }
    assert!(session.delete(&cluster.url("b")).await.unwrap().status < 300);

    let origins: Vec<String> = cluster.names().iter().map(|name| cluster.node(name).url("")).collect();
    let mut old = OldSession::open(&cluster.node("c").url("/mcp/sse"), &origins[0]).await.unwrap();
    for (id, origin) in (2u64..).zip(origins.iter().cycle().take(6)) {
        let reply = old.ask(origin, &call(id, "echo", json!({"message": "old"}))).await.unwrap();
        assert_eq!(said(&reply), Some("Echo: old"), "{reply}");
    }
}

#[tokio::test]
async fn a_stranger_can_not_post_into_a_session_by_a_made_up_id() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    for id in ["", "x", "rw1.AAAA", "%00"] {
        for name in ["a", "b"] {
            let url = cluster.node(name).url(&format!("/mcp/messages?sessionId={id}"));
            let body = call(2, "count", json!({})).to_string();
            let headers = [("content-type", "application/json")];
            let answer = cluster_tests::real::http::request("POST", &url, &headers, body).await.unwrap();
            assert!([400, 404].contains(&answer.status), "{id:?}: {}: {}", answer.status, answer.text());
        }
    }
}

/// One session of an old client, each message to the next node, and another one beside it.
async fn count_as_an_old_client(cluster: &Cluster) {
    let origins: Vec<String> = cluster.names().iter().map(|name| cluster.node(name).url("")).collect();
    let mut sessions = Vec::new();
    for origin in &origins {
        let session = OldSession::open(&format!("{origin}/mcp/sse"), &origins[1]).await.unwrap();
        assert!(session.endpoint.starts_with("/mcp/messages?sessionId=rw1."), "{}", session.endpoint);
        sessions.push(session);
    }
    for (number, origin) in (1u64..=6).zip(origins.iter().cycle()) {
        for session in &mut sessions {
            let id = if number % 2 == 0 { json!(number) } else { json!(number.to_string()) };
            let reply = session.ask(origin, &call(id, "count", json!({}))).await.unwrap();
            assert_eq!(said(&reply), Some(number.to_string().as_str()), "{reply}");
        }
    }
}
