//! Old clients (HTTP+SSE, 2024-11-05) of a server over stdio, and servers that speak nothing but the old transport.

use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http_sse::OldClient;
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::marked;
use cluster_tests::real::mcp::{Session, call, result, said};
use cluster_tests::real::route::Route;
use cluster_tests::real::upstream::Upstream;
use cluster_tests::real::wait::wait_until;
use serde_json::json;

use super::prepare::{Children, counting_children};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn old_clients_have_children_of_their_own_which_end_with_them() {
    let Children { cluster, mark } = counting_children(3).await;
    let bases = bases(&cluster);
    let mut clients = Vec::new();
    for base in &bases {
        clients.push(OldClient::open(base).await.unwrap());
    }
    for (number, base) in (1..=6).zip(bases.iter().cycle()) {
        for client in &mut clients {
            assert_eq!(client.count(base, number).await.unwrap(), number);
        }
    }
    assert_eq!(marked::all(&mark).len(), clients.len());
    // They never end their sessions but by going away.
    drop(clients);
    wait_until("no child is left", SOON, async || marked::all(&mark).is_empty()).await;
}

#[tokio::test]
async fn what_a_child_asks_an_old_client_is_answered_at_any_node() {
    let Children { cluster, .. } = counting_children(3).await;
    let bases = bases(&cluster);
    let mut client = OldClient::open(&bases[2]).await.unwrap();
    client.tell(&bases[0], &call(1, "test_sampling", json!({"prompt": "hi"}))).await.unwrap();
    let question = client.reads(|message| message["method"] == "sampling/createMessage").await.unwrap();
    let content = json!({"type": "text", "text": "ho"});
    let sampled = json!({"role": "assistant", "model": "test", "content": content});
    client.tell(&bases[1], &result(&question["id"], sampled)).await.unwrap();
    let reply = client.reads(|message| message["id"] == 1 && message.get("method").is_none()).await.unwrap();
    assert_eq!(said(&reply), Some("LLM response: ho"), "{reply}");
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
    let late = session.post(&cluster.url("c"), &call(9, "echo", json!({"message": "?"}))).await.unwrap();
    assert_eq!(late.status, 404, "{}", late.text());

    let bases = bases(&cluster);
    let mut client = OldClient::open(&bases[2]).await.unwrap();
    for (id, base) in (2u64..).zip(bases.iter().cycle().take(6)) {
        let reply = client.ask(base, &call(id, "echo", json!({"message": "old"}))).await.unwrap();
        assert_eq!(said(&reply), Some("Echo: old"), "{reply}");
    }
}

/// Where each node is, without a path.
fn bases(cluster: &Cluster) -> Vec<String> {
    cluster.names().iter().map(|name| cluster.node(name).url("")).collect()
}
