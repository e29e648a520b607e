//! Long answers: many at once over one hop, unbuffered, and in both versions of HTTP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_tests::real::mcp::{POST_HEADERS, Session, call, initialize};
use cluster_tests::real::wait::wait_for;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;

use super::prepare::{Parts, counting_cluster};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn more_streams_than_a_connection_allows_stay_open_over_one_hop() {
    // quinn allows 100 streams at once by default, Ringway's connection for calls 256 and the one for
    // streams 1,024; what hangs at any of these limits hangs here.
    const STREAMS: usize = 300;
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let session = Session::open(&cluster.url("a")).await.unwrap();
        let owner = cluster.owner("a", &session.id).await.unwrap();
        let entry = if owner == "a" { "b" } else { "a" };
        let stream = session.listen(&cluster.url(entry)).await.unwrap();
        assert_eq!((stream.status, stream.header("ringway-hops")), (200, Some("1")));
        open.push((session, entry, stream));
    }
    for (session, entry, _) in &open {
        assert_eq!(session.count(&cluster.url(entry), 2).await.unwrap(), 1);
    }
    let streams = cluster.metric_of_all("ringway_streams", &[]).await.unwrap();
    assert!(streams >= STREAMS as f64, "{streams}");
    drop(open);
    wait_for("every node has noticed that its clients are gone", SOON, async || {
        let left = cluster.metric_of_all("ringway_streams", &[]).await?;
        anyhow::ensure!(left < 10.0, "{left} streams are open");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn more_calls_than_a_connection_allows_run_at_once_after_many_short_ones() {
    // QUIC announces streams that have become free in batches, so a connection that has carried short calls
    // takes fewer long ones than it allows: the next connection has to take them, not a queue.
    const CALLS: u64 = 260;
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    let owner = cluster.owner("a", &session.id).await.unwrap();
    let url = cluster.url(if owner == "a" { "b" } else { "a" });
    for call in 1..=31 {
        assert_eq!(session.count(&url, call).await.unwrap(), call);
    }
    let slow = (0..CALLS).map(|id| {
        let (session, url) = (session.clone(), url.clone());
        let message = call(100 + id, "slow", json!({"ms": 600_000}));
        tokio::spawn(async move { session.post_stream(&url, &message).await.unwrap() })
    });
    let mut open = Vec::new();
    for answer in slow.collect::<Vec<_>>() {
        let answer = tokio::time::timeout(SOON, answer).await.expect("it waits for another to end").unwrap();
        assert_eq!(answer.status, 200);
        open.push(answer);
    }
    assert_eq!(session.count(&url, 32).await.unwrap(), 32);
}

#[tokio::test]
async fn a_slow_answer_begins_before_it_is_done_also_over_a_hop() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let session = Session::open(&cluster.url("a")).await.unwrap();
    for url in cluster.urls() {
        let asked = Instant::now();
        let mut answer = session.post_stream(&url, &call(2, "slow", json!({"ms": 3_000}))).await.unwrap();
        let first = answer.event(SOON).await.unwrap();
        let began = asked.elapsed();
        assert!(first.is_some(), "no priming event");
        let reply = answer.message(SOON).await.unwrap().expect("the stream ends without an answer");
        assert_eq!(reply["id"], 2, "{reply}");
        assert!(began < asked.elapsed() / 2, "the head was held back until the answer was there");
    }
}

#[tokio::test]
async fn a_client_of_http_2_is_served_like_any_other() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(2, 1).await;
    let mut id = None;
    for (number, name) in (1u64..).zip(["a", "b", "a"]) {
        let address = cluster.listen(name);
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let message = if id.is_none() { initialize(1) } else { call(number, "count", json!({})) };
        let mut request = Request::post(format!("http://{address}/mcp"));
        for (header, value) in POST_HEADERS {
            request = request.header(header, value);
        }
        if let Some(id) = &id {
            request = request.header("mcp-session-id", id);
        }
        let request = request.body(Full::new(Bytes::from(message.to_string()))).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.headers().contains_key("ringway-node"));
        if let Some(new) = answer.headers().get("mcp-session-id") {
            id = Some(new.clone());
        }
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        if number > 1 {
            assert!(text.contains(&format!("\"text\":\"{}\"", number - 1)), "{text}");
        }
    }
}
