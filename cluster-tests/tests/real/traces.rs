//! A request keeps its trace over two nodes: untouched where no spans are exported, and as one tree where they are.

use std::time::Duration;

use cluster_tests::real::cluster::{Cluster, Plan};
use cluster_tests::real::http;
use cluster_tests::real::recorder::Recorder;
use cluster_tests::real::wait::wait_for;
use serde_json::Value;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT_SPAN: &str = "b7ad6b7169203331";
/// Spans are sent a second after the first of them; the rest is for a busy machine.
const EXPORTED: Duration = Duration::from_secs(20);

/// Two nodes in front of a recorder, with affinity by a header.
async fn keyed_cluster(upstream: &Recorder, flags: &[&str]) -> Cluster {
    let config = format!(
        "otlp_sample = 0\n[[route]]\npath = \"/jobs\"\naffinity = {{ header = \"X-Job-Id\" }}\nupstream = [\"{}\"]\n",
        upstream.url()
    );
    Plan::nodes(2).config(config).flags(flags).start().await.unwrap()
}

/// Posts with these headers and a key that another node than `a` owns, to `a`.
async fn post_over_two_nodes(cluster: &Cluster, headers: &[(&str, &str)]) {
    for key in 0..64 {
        let key = key.to_string();
        let found = cluster.admin_json("a", &format!("/v1/ring/lookup?key={key}")).await.unwrap();
        if found["home"] == "b" {
            let headers: Vec<_> = headers.iter().copied().chain([("x-job-id", key.as_str())]).collect();
            let answer = http::request("POST", &cluster.node("a").url("/jobs"), &headers, "x").await.unwrap();
            assert_eq!((answer.status, answer.header("ringway-hops")), (200, Some("1")), "{}", answer.text());
            return;
        }
    }
    panic!("b owns none of 64 keys");
}

#[tokio::test]
async fn one_request_over_two_nodes_is_one_tree_of_the_clients_trace() {
    let (upstream, collector) = (Recorder::start().await.unwrap(), Recorder::start().await.unwrap());
    let cluster = keyed_cluster(&upstream, &["--otlp", &collector.url()]).await;
    let given = format!("00-{TRACE}-{CLIENT_SPAN}-01");
    post_over_two_nodes(&cluster, &[("traceparent", &given), ("tracestate", "a=1,b=2")]).await;
    // Of no trace, and of one that the client does not sample.
    let unsampled = format!("00-{}-{CLIENT_SPAN}-00", TRACE.replace('0', "1"));
    post_over_two_nodes(&cluster, &[]).await;
    post_over_two_nodes(&cluster, &[("traceparent", &unsampled)]).await;
    let spans = wait_for("the collector has the spans of both nodes", EXPORTED, async || {
        let spans = collector.spans();
        anyhow::ensure!(spans.len() >= 4, "{spans:?}");
        Ok(spans)
    })
    .await;
    assert_eq!(spans.len(), 4, "{spans:?}");
    assert!(spans.iter().all(|span| span["traceId"] == TRACE), "{spans:?}");
    let (mut parent, mut path) = (Value::from(CLIENT_SPAN), Vec::new());
    while let Some(span) = spans.iter().find(|span| span["parentSpanId"] == parent) {
        parent = span["spanId"].clone();
        path.push(format!(
            "{} {} {}",
            span["node"].as_str().unwrap(),
            span["name"].as_str().unwrap(),
            span["kind"]
        ));
    }
    assert_eq!(path, ["a POST /jobs 2", "a forward 3", "b serve 2", "b upstream 3"]);
    let [traced, alone, passed] = upstream.asked().try_into().unwrap();
    let last = parent.as_str().unwrap();
    assert_eq!(traced.headers["traceparent"], format!("00-{TRACE}-{last}-01").as_str());
    assert_eq!(traced.headers["tracestate"], "a=1,b=2");
    assert!(!alone.headers.contains_key("traceparent"), "{alone:?}");
    assert_eq!(passed.headers["traceparent"], unsampled.as_str());
    // A node counts them when it has the collector's answer.
    wait_for("both nodes know that all were taken", EXPORTED, async || {
        let sent = cluster.metric_of_all("ringway_spans_sent_total", &[]).await?;
        anyhow::ensure!(sent == 4.0, "{sent}");
        Ok(())
    })
    .await;
    assert_eq!(cluster.metric_of_all("ringway_spans_dropped_total", &[]).await.unwrap(), 0.0);
}

#[tokio::test]
async fn nodes_that_export_nothing_pass_a_trace_on_untouched() {
    let upstream = Recorder::start().await.unwrap();
    let cluster = keyed_cluster(&upstream, &[]).await;
    let given = format!("00-{TRACE}-{CLIENT_SPAN}-01");
    for traceparent in [given.as_str(), "00-nonsense"] {
        post_over_two_nodes(
            &cluster,
            &[("traceparent", traceparent), ("tracestate", "a=1"), ("tracestate", "b=2")],
        )
        .await;
        let asked = upstream.asked().pop().unwrap();
        assert_eq!(asked.headers["traceparent"], traceparent);
        let states: Vec<_> = asked.headers.get_all("tracestate").iter().collect();
        assert_eq!(states, ["a=1", "b=2"]);
    }
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_spans_and_nothing_else() {
    let upstream = Recorder::start().await.unwrap();
    let gone = Recorder::start().await.unwrap().url();
    let cluster = keyed_cluster(&upstream, &["--otlp", &gone]).await;
    let given = format!("00-{TRACE}-{CLIENT_SPAN}-01");
    for _ in 0..5 {
        post_over_two_nodes(&cluster, &[("traceparent", &given)]).await;
    }
    wait_for("20 spans are known to be lost", EXPORTED, async || {
        let dropped = cluster.metric_of_all("ringway_spans_dropped_total", &[("why", "collector")]).await?;
        anyhow::ensure!(dropped == 20.0, "{dropped}");
        Ok(())
    })
    .await;
    assert!(cluster.node("a").process.log().contains("the collector takes no spans"));
    post_over_two_nodes(&cluster, &[]).await;
}
