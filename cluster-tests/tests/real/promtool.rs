//! What `deploy/` holds for Prometheus and Grafana, judged by Prometheus itself.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::real::cluster::Cluster;
use cluster_tests::real::http;
use cluster_tests::real::install::or_left_out;
use cluster_tests::real::mcp::Session;
use cluster_tests::real::places;
use cluster_tests::real::prometheus::{Prometheus, programs, promtool};
use cluster_tests::real::wait::wait_for;
use serde_json::Value;

use super::prepare::{Parts, counting_cluster};

/// Two scrapes a second apart make a rate.
const SCRAPED: Duration = Duration::from_secs(60);

/// What a cluster that is well has none of.
const MAY_BE_EMPTY: [&str; 5] = [
    "ringway_spans_",
    "ringway_upstream_errors_total",
    "ringway_session_not_found_total",
    "ringway_reattached_total",
    "ringway_sessions_ended_total",
];

#[tokio::test]
async fn rules_their_tests_and_the_example_are_what_promtool_accepts() {
    let test = "rules_their_tests_and_the_example_are_what_promtool_accepts";
    let Some(programs) = or_left_out(test, programs().await) else { return };
    let dir = places::workspace().join("deploy/prometheus");
    for (arguments, said) in [
        (["check", "rules", "alerts.yml"], "12 rules found"),
        (["check", "config", "prometheus.yml"], "is valid prometheus config"),
        (["test", "rules", "alerts_test.yml"], "SUCCESS"),
    ] {
        let text = promtool(&programs, &arguments, &dir, "").await.unwrap();
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    // Each alert is seen to come by a test.
    let rules = std::fs::read_to_string(dir.join("alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(dir.join("alerts_test.yml")).unwrap();
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n          - ")), "{alert}");
    }
}

#[tokio::test]
async fn prometheus_scrapes_a_cluster_and_finds_all_that_the_dashboard_asks_for() {
    let test = "prometheus_scrapes_a_cluster_and_finds_all_that_the_dashboard_asks_for";
    let Some(programs) = or_left_out(test, programs().await) else { return };
    let Parts { mut cluster, upstreams: _upstreams } = counting_cluster(3, 1).await;
    let mut sessions = Vec::new();
    for url in cluster.urls().iter().cycle().take(9) {
        sessions.push((Session::open(url).await.unwrap(), 0));
    }
    let text = cluster.admin("a", "/metrics").await.unwrap().text();
    let said = promtool(&programs, &["check", "metrics"], &places::workspace(), &text).await.unwrap();
    assert_eq!(said.trim(), "", "no complaints about\n{text}");

    let alerts = places::workspace().join("deploy/prometheus/alerts.yml");
    let prometheus = Prometheus::watch(&programs, &cluster, &alerts).await.unwrap();
    let panels = expressions();
    assert!(panels.len() >= 30, "{panels:?}");
    use_all(&cluster, &mut sessions).await;
    let up = async || {
        let up = prometheus.query("sum(up)").await?;
        anyhow::ensure!(up.first().is_some_and(|up| up["value"][1] == "3"), "{up:?}");
        Ok(())
    };
    wait_for("all nodes are scraped", SCRAPED, up).await;
    cluster.kill_noticed("a").await.unwrap();
    wait_for("every panel shows something", SCRAPED, async || {
        use_all(&cluster, &mut sessions).await;
        for expression in &panels {
            let found = prometheus.query(expression).await?;
            let may_be_empty = MAY_BE_EMPTY.iter().any(|name| expression.contains(name));
            anyhow::ensure!(may_be_empty || !found.is_empty(), "{expression} finds nothing");
        }
        Ok(())
    })
    .await;
    // The three ways are told apart in what Prometheus has.
    for way in ["local", "forwarded", "takeover"] {
        let count =
            prometheus.query(&format!("sum(ringway_request_seconds_count{{way=\"{way}\"}}) > 0")).await;
        assert_eq!(count.unwrap().len(), 1, "{way}");
    }
    let rules = prometheus.ask("rules").await.unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() == 12 && rules.iter().all(|rule| rule["health"] == "ok"), "{rules:?}");
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let Parts { cluster, upstreams: _upstreams } = counting_cluster(1, 1).await;
    let url = cluster.node("a").admin_url("/metrics");
    let open = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3";
    let answer = http::request("GET", &url, &[("accept", open)], "").await.unwrap();
    assert!(
        answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert!(answer.text().ends_with("# EOF\n") && answer.text().contains("# TYPE ringway_deaths counter"));
    let answer = http::get(&url).await.unwrap();
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(
        !answer.text().contains("# EOF") && answer.text().contains("# TYPE ringway_deaths_total counter")
    );
    for (name, least) in [
        ("process_cpu_seconds_total", 0.0),
        ("process_resident_memory_bytes", 1e6),
        ("ringway_lease_held", 1.0),
    ] {
        let value = cluster.metric("a", name, &[]).await.unwrap();
        assert!(value >= least, "{name} {value}");
    }
}

/// One call in each session, at a node that takes turns.
async fn use_all(cluster: &Cluster, sessions: &mut [(Session, u64)]) {
    let urls = cluster.urls();
    for (at, (session, calls)) in sessions.iter_mut().enumerate() {
        *calls += 1;
        let url = &urls[(at + *calls as usize) % urls.len()];
        assert_eq!(session.count(url, *calls).await.unwrap(), *calls);
    }
}

/// What the dashboard's panels ask Prometheus for, with everything chosen. Panels are checked on the way: their ids
/// differ, they lie in the grid, and each has what Grafana needs to draw it.
fn expressions() -> Vec<String> {
    let path = places::workspace().join("deploy/grafana/ringway.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(dashboard["schemaVersion"].is_u64() && dashboard["uid"] == "ringway", "{dashboard}");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<_> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(variables, ["datasource", "cluster", "instance"]);
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let mut expressions = Vec::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24 && at("h") > 0, "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{panel}");
        let kind = panel["type"].as_str().unwrap();
        assert!(["row", "stat", "timeseries", "table"].contains(&kind), "{kind}");
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(targets.is_empty(), kind == "row", "{panel}");
        let refs: BTreeSet<_> = targets.iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), targets.len(), "{panel}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
            let expression = target["expr"].as_str().unwrap();
            let chosen = expression.replace("$cluster", ".*").replace("$instance", ".*");
            let chosen = chosen.replace("$__rate_interval", "15s");
            assert!(!chosen.contains('$'), "{chosen}");
            expressions.push(chosen);
        }
    }
    expressions
}
